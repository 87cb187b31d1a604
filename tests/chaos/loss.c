/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c - packets that are lost on a wire, by who sent them; netem is not everywhere */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include "tests/chaos/hosts.h"
#include "weft_internal/util.h"

#define SENDER_OFF (ETH_HLEN + 15) /* last byte of an IPv4 packet's source */

/* what the map has of a sender; .state moves on with each packet */
struct die {
	uint32_t below; /* of 2^32: lost */
	uint32_t state;
};

#define INSN(CODE, DST, SRC, OFF, IMM)                                                             \
	((struct bpf_insn){                                                                        \
		.code = (CODE), .dst_reg = (DST), .src_reg = (SRC), .off = (OFF), .imm = (IMM) })
#define MOV(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define ADD_IMM(dst, imm) INSN(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, imm)
#define LOAD(dst, src, off) INSN(BPF_LDX | BPF_MEM | BPF_W, dst, src, off, 0)
#define STORE(dst, src, off) INSN(BPF_STX | BPF_MEM | BPF_W, dst, src, off, 0)
#define SHIFT_XOR(dst, tmp, op, bits)                                                              \
	INSN(BPF_ALU | BPF_MOV | BPF_X, tmp, dst, 0, 0),                                           \
		INSN(BPF_ALU | (op) | BPF_K, tmp, 0, 0, bits),                                     \
		INSN(BPF_ALU | BPF_XOR | BPF_X, dst, tmp, 0, 0)

static int program_load(int map)
{
	const struct bpf_insn insns[] = {
		MOV(BPF_REG_6, BPF_REG_1),
		LOAD(BPF_REG_0, BPF_REG_6, offsetof(struct __sk_buff, protocol)),
		/* neighbours find each other whatever is lost */
		INSN(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, 22, htons(ETH_P_IP)),
		INSN(BPF_LD | BPF_ABS | BPF_B, 0, 0, 0, SENDER_OFF),
		STORE(BPF_REG_10, BPF_REG_0, -4),
		INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
		INSN(0, 0, 0, 0, 0),
		MOV(BPF_REG_2, BPF_REG_10),
		ADD_IMM(BPF_REG_2, -4),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 14, 0),
		LOAD(BPF_REG_1, BPF_REG_0, offsetof(struct die, state)),
		SHIFT_XOR(BPF_REG_1, BPF_REG_2, BPF_LSH, 13),
		SHIFT_XOR(BPF_REG_1, BPF_REG_2, BPF_RSH, 17),
		SHIFT_XOR(BPF_REG_1, BPF_REG_2, BPF_LSH, 5),
		STORE(BPF_REG_0, BPF_REG_1, offsetof(struct die, state)),
		LOAD(BPF_REG_2, BPF_REG_0, offsetof(struct die, below)),
		INSN(BPF_JMP | BPF_JGE | BPF_X, BPF_REG_1, BPF_REG_2, 1, 0),
		INSN(BPF_JMP | BPF_JA, 0, 0, 2, 0),
		MOV_IMM(BPF_REG_0, TC_ACT_UNSPEC),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		MOV_IMM(BPF_REG_0, TC_ACT_SHOT),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "chaos_loss", "Apache-2.0", insns,
			     WFI_ARRAY_SIZE(insns), &opts);
}

static int program_attach(int ifindex, int prog)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog);
	int ret = bpf_tc_hook_create(&hook);

	return ret && ret != -EEXIST ? ret : bpf_tc_attach(&hook, &opts);
}

int loss_attach(int ifindex)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	int map, prog, ret;

	map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "chaos_loss", sizeof(uint32_t), sizeof(struct die),
			     HOSTS_MAX + 1, &opts);
	if (map < 0)
		return map;
	prog = program_load(map);
	ret = prog < 0 ? prog : program_attach(ifindex, prog);
	if (prog >= 0)
		close(prog);
	if (!ret)
		return map;
	close(map);
	return ret;
}

int loss_set(int map, unsigned from, unsigned percent, uint32_t seed)
{
	const struct die die = {
		.below = percent >= HOST_CUT ? UINT32_MAX : UINT32_MAX / 100 * percent,
		.state = seed | 1, /* never 0: that stays 0 */
	};
	const uint32_t key = from;

	return bpf_map_update_elem(map, &key, &die, BPF_ANY);
}
