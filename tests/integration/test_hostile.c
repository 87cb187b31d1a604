/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engines and peers that break every rule, while one that keeps them works beside them
 *
 * Each attack runs in a process of its own, from a seed (WEFT_TEST_SEED). The witness, of another
 * tenant, must never see a wrong result, an error or a delay over its deadline.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "daemon/wire.h"
#include "tests/integration/node.h"
#include "tests/integration/raw.h"

#define TOKEN "mallory"
#define BLOCK 4096u
#define SLOTS ((int)((64u << 20) / BLOCK)) /* of the attackers' tenant */
#define WITNESS_BLOCKS 8u
#define WITNESS_US 2000000 /* deadline of its operations */
#define BACK_MS 2000

static struct test_node node;
static struct test_child witness;
static struct test_engine watch; /* of the attackers' tenant */
static uint64_t seed;

static const char *const sets[] = {
	"hugepages=false",
	"tenants=({ name = \"good\"; arena_bytes = \"64M\"; },"
	" { name = \"bad\"; token = \"" TOKEN "\"; arena_bytes = \"64M\"; })",
	NULL,
};

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "raw",
	.layout = "",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

/* ---- the witness ---- */

static void witness_round(struct test_engine *e, uint64_t name, uint64_t (*blocks)[BLOCK / 8],
			  struct weft_place *places)
{
	struct weft_key keys[WITNESS_BLOCKS];
	struct weft_op op = { .op = WEFT_OP_PUT,
			      .flags = WEFT_F_COPY,
			      .space = e->space,
			      .nr = WITNESS_BLOCKS,
			      .keys = keys,
			      .places = places,
			      .timeout_us = WITNESS_US };
	unsigned i;

	test_keys(e, name, WITNESS_BLOCKS, keys);
	for (i = 0; i < WITNESS_BLOCKS; i++)
		test_fill(blocks[i], BLOCK, name + i);
	test_must(weft_call(e->ring, &op, NULL) == WITNESS_BLOCKS);
	memset(blocks, 0, WITNESS_BLOCKS * BLOCK);
	op.op = WEFT_OP_GET;
	op.flags = WEFT_F_VERIFY;
	test_must(weft_call(e->ring, &op, NULL) == WITNESS_BLOCKS);
	for (i = 0; i < WITNESS_BLOCKS; i++)
		test_must(test_filled(blocks[i], BLOCK, name + i));
	test_must(weft_match(e->ring, e->space, keys, WITNESS_BLOCKS) == WITNESS_BLOCKS);
	test_must(weft_drop(e->ring, e->space, keys, WITNESS_BLOCKS) == WITNESS_BLOCKS);
}

/* works until its input ends; says how often, and how long a round took at most */
static void run_witness(int in, int out, void *ctx)
{
	static uint64_t blocks[WITNESS_BLOCKS][BLOCK / 8];
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };
	struct weft_region_opts region = {
		.size = sizeof(region), .addr = blocks, .len = sizeof(blocks), .fd = -1
	};
	struct weft_place places[WITNESS_BLOCKS];
	struct test_engine e;
	uint64_t said[2] = { 0, 0 }, start_ms;
	uint32_t number;
	unsigned i;
	char byte;

	(void)ctx;
	test_must(!weft_open(&opts, &e.w));
	test_must(!weft_space_open(e.w, &geometry, &e.space));
	test_must(!weft_ring_open(e.w, NULL, &e.ring));
	test_must(!weft_region_reg(e.w, &region, &number));
	for (i = 0; i < WITNESS_BLOCKS; i++)
		places[i] = (struct weft_place){ .off = i * BLOCK, .region = number };
	fcntl(in, F_SETFL, O_NONBLOCK);
	while (read(in, &byte, 1) < 0) {
		start_ms = test_now_ms();
		witness_round(&e, said[0], blocks, places);
		said[1] = wfi_max(said[1], test_now_ms() - start_ms);
		said[0]++;
		test_must(said[1] < WITNESS_US / 1000);
	}
	test_must(test_say(out, said, sizeof(said)));
	weft_close(e.w);
}

/* ---- values ---- */

static uint64_t edge(uint64_t *rand, uint64_t near)
{
	static const uint64_t edges[] = {
		0,
		1,
		2,
		3,
		63,
		64,
		65,
		4096,
		65535,
		65536,
		65537,
		INT32_MAX,
		1ull << 31,
		UINT32_MAX,
		UINT32_MAX - 63,
		1ull << 32,
		1ull << 47,
		INT64_MAX,
		1ull << 63,
		UINT64_MAX,
		UINT64_MAX - 63,
		UINT64_MAX - 4095,
	};
	const uint64_t pick = test_rand(rand);

	switch (pick % 4) {
	case 0:
		return edges[(pick >> 8) % WFI_ARRAY_SIZE(edges)];
	case 1:
		return near - 2 + (pick >> 8) % 4;
	case 2:
		return near ? (pick >> 8) % near : 0;
	default:
		return test_rand(rand);
	}
}

/* arguments that are sometimes what they should be: 16-byte things, and tickets' headers */
static void random_args(struct raw *r, uint64_t *rand, const struct weft_ticket *ticket)
{
	const uint32_t nr = 1 + (uint32_t)(test_rand(rand) % 64);
	uint64_t at = test_rand(rand) % (r->hdr.arg_bytes / 64 - 80) * 64, pair[2];
	uint32_t i;

	if (test_rand(rand) % 4 == 0) {
		raw_store(raw_args(r) + at, ticket, sizeof(*ticket));
		at += 128;
	}
	for (i = 0; i < nr; i++) {
		switch (test_rand(rand) % 3) {
		case 0: /* a key that comes again */
			pair[0] = test_rand(rand) % 32;
			pair[1] = 7;
			break;
		case 1: /* a slot, or a place in the arena */
			pair[0] = edge(rand, r->arena_bytes);
			pair[1] = test_rand(rand) % 16;
			break;
		default:
			pair[0] = edge(rand, r->arena_bytes);
			pair[1] = edge(rand, BLOCK) << 32 | (uint32_t)edge(rand, 2);
		}
		raw_store(raw_args(r) + at + i * 16, pair, sizeof(pair));
	}
}

static struct weft_sqe random_sqe(struct raw *r, uint64_t *rand)
{
	const bool sane = test_rand(rand) % 2;
	struct weft_sqe sqe = {
		.op = (uint8_t)(test_rand(rand) % (sane ? WEFT_OP_NR : 256)),
		.flags = (uint8_t)(sane ? test_rand(rand) & 15 : test_rand(rand)),
		.trace_flags = (uint8_t)test_rand(rand),
		.reserved = test_rand(rand) % 16 ? 0 : 1,
		.user_data = r->sq_pos,
		.space = sane ? r->space : (uint32_t)edge(rand, r->space),
		.nr = sane ? 1 + (uint32_t)(test_rand(rand) % 64) : (uint32_t)edge(rand, 65536),
		.arg_off = (uint32_t)edge(rand, r->hdr.arg_bytes),
		.timeout_us = (uint32_t)edge(rand, 3000),
		.handle = edge(rand, 1ull << 32),
	};

	if (test_rand(rand) % 4)
		sqe.arg_off &= ~63u;
	return sqe;
}

/* ---- attacks ---- */

struct attack {
	uint64_t rand;
	unsigned rounds;
	void (*round)(struct attack *a, unsigned round);
};

static void run_attack(int in, int out, void *ctx)
{
	struct attack a = *(struct attack *)ctx;
	unsigned i;

	(void)in;
	for (i = 0; i < a.rounds; i++)
		a.round(&a, i);
	test_must(test_say(out, &i, sizeof(i)));
}

/*
 * Every accepted submission completes once, with its own user_data; what waits for a handoff may
 * stay open. Nothing here breaks the protocol of the ring, so nobody hangs up.
 */
static void round_random_ops(struct attack *a, unsigned round)
{
	struct weft_ticket ticket = { .node = a->rand, .nr_blocks = 8, .nr_layers = 4 };
	uint8_t done[256] = { 0 };
	struct weft_sqe sqe;
	struct weft_cqe cqe;
	uint32_t nr, last;
	struct raw r;

	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	for (nr = 0; nr < 200; nr++) {
		if (nr % 8 == 0)
			random_args(&r, &a->rand, &ticket);
		sqe = random_sqe(&r, &a->rand);
		if (!raw_submit(&r, &sqe))
			break;
		raw_ring_bell(&r);
		while (raw_take(&r, &cqe)) {
			if (cqe.flags & WEFT_CQE_TICKET)
				memcpy(&ticket, raw_args(&r), sizeof(ticket));
			if (cqe.flags & WEFT_CQE_MORE)
				continue;
			test_must(cqe.user_data < nr + 1 && !done[cqe.user_data]++);
		}
	}
	/* behind everything else, one that is in good form: the ring is still served */
	sqe = (struct weft_sqe){ .op = WEFT_OP_NOP, .user_data = 255 };
	while (!raw_submit(&r, &sqe))
		raw_take(&r, &cqe);
	raw_ring_bell(&r);
	for (last = 0; last != 255; last = (uint32_t)cqe.user_data) {
		test_must(raw_next(&r, &cqe));
		test_must(cqe.flags & WEFT_CQE_MORE ||
			  (cqe.user_data < 256 && !done[cqe.user_data]++));
	}
	raw_close(&r);
}

/* heads and sequences that run backwards and forwards, bells and flags that mean nothing */
static void round_indexes(struct attack *a, unsigned round)
{
	struct weft_sqe sqe = { .op = WEFT_OP_NOP };
	uint32_t *entry;
	struct raw r;
	unsigned i;

	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	for (i = 0; i < 32; i++) {
		switch (test_rand(&a->rand) % 5) {
		case 0:
			__atomic_store_n(&raw_line(&r)->head, (uint32_t)edge(&a->rand, r.cq_pos),
					 __ATOMIC_RELEASE);
			break;
		case 1:
			entry = (uint32_t *)(r.seg + r.hdr.sq_off + (r.sq_pos & 63) * 64);
			__atomic_store_n(entry, (uint32_t)edge(&a->rand, r.sq_pos),
					 __ATOMIC_RELEASE);
			break;
		case 2:
			__atomic_store_n(&raw_line(&r)->sleeping, (uint32_t)edge(&a->rand, 2),
					 __ATOMIC_RELAXED);
			break;
		case 3:
			__atomic_store_n(&raw_line(&r)->bell, (uint32_t)edge(&a->rand, 2),
					 __ATOMIC_RELAXED);
			break;
		default:
			raw_submit(&r, &sqe);
		}
		raw_ring_bell(&r);
	}
	raw_close(&r);
}

/* the whole segment in random words, the node's own lines too */
static void round_segment(struct attack *a, unsigned round)
{
	uint64_t value;
	struct raw r;
	unsigned i;

	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	for (i = 0; i < 2000; i++) {
		value = edge(&a->rand, 64);
		raw_store(r.seg + test_rand(&a->rand) % (r.hdr.arg_off / 8) * 8, &value, 8);
		if (i % 100 == 0)
			raw_ring_bell(&r);
	}
	raw_close(&r);
}

struct scribbler {
	struct raw *r;
	uint64_t rand;
	bool stop;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint64_t value;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		value = edge(&s->rand, s->r->arena_bytes);
		raw_store(raw_args(s->r) + test_rand(&s->rand) % 512 * 8, &value, sizeof(value));
	}
	return NULL;
}

/* arguments that change while they are read */
static void round_scribble(struct attack *a, unsigned round)
{
	struct scribbler s = { .rand = test_rand(&a->rand) };
	struct weft_sqe sqe;
	struct weft_cqe cqe;
	pthread_t thread;
	struct raw r;
	unsigned i;

	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	s.r = &r;
	test_must(!pthread_create(&thread, NULL, scribble, &s));
	for (i = 0; i < 300; i++) {
		sqe = random_sqe(&r, &a->rand);
		sqe.op = (uint8_t)(1 + test_rand(&a->rand) % (WEFT_OP_NR - 1));
		sqe.arg_off = (uint32_t)(test_rand(&a->rand) % 8) * 64;
		if (raw_submit(&r, &sqe))
			raw_ring_bell(&r);
		while (raw_take(&r, &cqe))
			;
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	raw_close(&r);
}

/* ---- control messages ---- */

/* one descriptor of each kind that might be taken for a region */
static int odd_fd(uint64_t *rand)
{
	int sv[2], fd;

	switch (test_rand(rand) % 6) {
	case 0:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 1:
		return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	case 2:
		return epoll_create1(EPOLL_CLOEXEC);
	case 3:
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
			return -1;
		close(sv[1]);
		return sv[0];
	case 4: /* can shrink under the node's feet */
		fd = memfd_create("odd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		test_must(!ftruncate(fd, 1 << 16));
		return fd;
	default:
		fd = memfd_create("odd", MFD_CLOEXEC);
		test_must(!ftruncate(fd, (off_t)(test_rand(rand) % 8192)));
		return fd;
	}
}

static void random_bytes(void *buf, size_t len, uint64_t *rand)
{
	uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (uint8_t)test_rand(rand);
}

static void odd_message(struct raw *r, uint64_t *rand)
{
	struct weft_ctl_req req[2];
	struct raw_msg m = { .buf = req, .len = sizeof(req[0]) };
	unsigned i, nr;

	random_bytes(req, sizeof(req), rand);
	req[0].magic = WEFT_CTL_MAGIC;
	req[0].version = WEFT_ABI_VERSION;
	/* not WEFT_CTL_DRAIN: whoever is let in may ask for that */
	req[0].type = 1 + (uint32_t)(test_rand(rand) % 14);
	if (req[0].type == WEFT_CTL_DRAIN)
		req[0].type = WEFT_CTL_STATUS;
	switch (test_rand(rand) % 8) {
	case 0:
		req[0].magic ^= 1ull << test_rand(rand) % 64;
		break;
	case 1:
		req[0].version += 1;
		break;
	case 2:
		m.len = test_rand(rand) % sizeof(req);
		break;
	case 3:
		req[0].type = (uint32_t)edge(rand, WEFT_CTL_PEER_HELLO);
		req[0].type += req[0].type == WEFT_CTL_DRAIN;
		break;
	}
	nr = (unsigned)(test_rand(rand) % 3 ? test_rand(rand) % 3 : test_rand(rand) % RAW_FDS_MAX);
	for (i = 0; i < nr; i++) {
		m.fds[i] = odd_fd(rand);
		m.nr_fds += m.fds[i] >= 0;
	}
	raw_send(r, &m);
	while (nr--)
		close(m.fds[nr]);
}

static void round_control(struct attack *a, unsigned round)
{
	int fds[RAW_FDS_MAX];
	unsigned i, nr;
	char buf[4096];
	struct raw r;

	if (round % 2)
		raw_attach(&r, node.socket, TOKEN);
	else
		raw_connect(&r, node.socket);
	for (i = 0; i < 8; i++) {
		odd_message(&r, &a->rand);
		/* some read their answers */
		if (test_rand(&a->rand) % 2 || r.fd < 0 ||
		    recv(r.fd, buf, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
			continue;
		raw_recv(&r, buf, sizeof(buf), fds, &nr);
		while (nr)
			close(fds[--nr]);
	}
	raw_close(&r);
}

static void round_regions(struct attack *a, unsigned round)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_REGION_REG };
	struct weft_ctl_rep rep;
	struct weft_sqe sqe;
	struct weft_cqe cqe;
	struct raw r;
	unsigned i;
	int fd, ret;

	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	for (i = 0; i < 8; i++) {
		fd = test_rand(&a->rand) % 2 ? odd_fd(&a->rand) : -1;
		req.type = WEFT_CTL_REGION_REG;
		req.u.region.addr = edge(&a->rand, (uintptr_t)&req);
		req.u.region.off = edge(&a->rand, 4096);
		req.u.region.len = edge(&a->rand, 1 << 16);
		req.u.region.has_fd = fd >= 0;
		ret = raw_request(&r, &req, fd, &rep, NULL);
		test_must(ret <= 0 && ret != -ECONNRESET);
		if (fd >= 0 && test_rand(&a->rand) % 2)
			ret = ftruncate(fd, 0); /* the ground goes, where it was not sealed */
		if (fd >= 0)
			close(fd);
		random_args(&r, &a->rand, &(struct weft_ticket){ .node = 1 });
		sqe = random_sqe(&r, &a->rand);
		sqe.op = test_rand(&a->rand) % 2 ? WEFT_OP_PUT : WEFT_OP_GET;
		sqe.flags = sqe.op == WEFT_OP_PUT ? WEFT_F_COPY : 0;
		raw_submit(&r, &sqe);
		raw_ring_bell(&r);
		req.type = WEFT_CTL_REGION_DEREG;
		req.id = (uint32_t)edge(&a->rand, 2);
		test_must(raw_request(&r, &req, -1, &rep, NULL) != -ECONNRESET);
		while (raw_take(&r, &cqe))
			;
	}
	raw_close(&r);
}

/* asks and asks, and never reads an answer */
static void round_deaf(struct attack *a, unsigned round)
{
	struct weft_ctl_req req = { .magic = WEFT_CTL_MAGIC,
				    .version = WEFT_ABI_VERSION,
				    .type = WEFT_CTL_STATUS };
	struct raw_msg m = { .buf = &req, .len = sizeof(req) };
	struct raw r, silent[40];
	unsigned i;

	(void)a;
	(void)round;
	raw_attach(&r, node.socket, TOKEN);
	for (i = 0; i < WFI_ARRAY_SIZE(silent); i++)
		raw_connect(&silent[i], node.socket);
	for (i = 0; i < 2000 && raw_send(&r, &m); i++)
		;
	for (i = 0; i < WFI_ARRAY_SIZE(silent); i++)
		raw_close(&silent[i]);
	raw_close(&r);
}

/* ---- peers ---- */

static void scribble_on(int fd, uint64_t *rand)
{
	uint64_t *map, value;
	off_t len = lseek(fd, 0, SEEK_END);
	unsigned i;

	if (len < 8)
		return;
	map = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	for (i = 0; map != MAP_FAILED && i < 200; i++) {
		value = edge(rand, (uint64_t)len);
		raw_store(&map[test_rand(rand) % ((uint64_t)len / 8)], &value, 8);
	}
	if (map != MAP_FAILED)
		munmap(map, (size_t)len);
}

struct peer_msg {
	struct wire_head head;
	union {
		struct wire_hello hello;
		struct wire_endpoint endpoint;
		struct wire_state state;
		unsigned char bytes[WIRE_BODY_MAX];
	} u;
};

/* some bytes of what is to be sent are others, or its length */
static void spoil(struct raw_msg *m, struct peer_msg *msg, uint64_t *rand)
{
	unsigned i;

	for (i = 0; i < test_rand(rand) % 8; i++)
		((uint8_t *)msg)[test_rand(rand) % m->len] ^= (uint8_t)test_rand(rand);
	if (test_rand(rand) % 8 == 0)
		m->len = test_rand(rand) % sizeof(*msg);
}

static void endpoint_forge(struct peer_msg *mine, struct raw_msg *m, uint64_t *rand,
			   const struct peer_msg *theirs, const int *fds, unsigned nr_fds)
{
	struct wire_endpoint *ep = &mine->u.endpoint;
	unsigned i;

	if (test_rand(rand) % 2) {
		/* the node's own, with some bytes that are not */
		*mine = *theirs;
		for (i = 0; i < nr_fds; i++)
			m->fds[m->nr_fds++] = dup(fds[i]);
	} else {
		random_bytes(mine, sizeof(*mine), rand);
		ep->nr_arenas = (uint32_t)edge(rand, WIRE_TENANTS_MAX);
		ep->addr_len = (uint32_t)edge(rand, WEFT_EP_ADDR_MAX);
		ep->addr_fds = (uint32_t)(test_rand(rand) % 4);
		for (i = 0; i < WIRE_TENANTS_MAX; i++) {
			ep->arenas[i].blob_len %= 2 * WEFT_RKEY_BLOB_MAX;
			ep->arenas[i].has_fd %= 2;
			ep->arenas[i].reserved = 0;
		}
		for (i = 0; i < ep->addr_fds; i++) {
			m->fds[i] = odd_fd(rand);
			m->nr_fds += m->fds[i] >= 0;
		}
		ep->nr_arenas = (uint32_t)wfi_min(ep->nr_arenas, WIRE_TENANTS_MAX);
		wire_head_fill(&mine->head, WIRE_ENDPOINT, wire_endpoint_len(ep));
	}
	m->len = sizeof(mine->head) + wire_endpoint_len(ep);
	spoil(m, mine, rand);
}

static void hello_send(struct raw *r, struct peer_msg *mine, const struct peer_msg *theirs,
		       uint64_t *rand)
{
	struct raw_msg m = { .buf = mine, .len = sizeof(mine->head) + sizeof(struct wire_hello) };

	*mine = *theirs;
	mine->u.hello.node = test_rand(rand);
	strcpy(mine->u.hello.name, "forger");
	if (test_rand(rand) % 8 == 0)
		spoil(&m, mine, rand);
	raw_send(r, &m);
}

static void state_send(struct raw *r, struct peer_msg *mine, uint64_t *rand)
{
	struct raw_msg m = { .buf = mine, .len = sizeof(mine->head) + sizeof(struct wire_state) };

	wire_head_fill(&mine->head, WIRE_STATE, sizeof(struct wire_state));
	mine->u.state = (struct wire_state){ .draining = test_rand(rand) % 3 };
	raw_send(r, &m);
}

static void round_peer(struct attack *a, unsigned round)
{
	static struct peer_msg theirs, mine;
	struct weft_ctl_req req = { .magic = WEFT_CTL_MAGIC,
				    .version = WEFT_ABI_VERSION,
				    .type = WEFT_CTL_PEER_HELLO };
	struct raw_msg m = { .buf = &req, .len = sizeof(req) };
	struct raw_msg forged = { .buf = &mine };
	int fds[RAW_FDS_MAX];
	unsigned nr, i;
	struct raw r;

	(void)round;
	raw_connect(&r, node.socket);
	test_must(raw_send(&r, &m));
	test_must(raw_recv(&r, &theirs, sizeof(theirs), fds, &nr) ==
			  sizeof(theirs.head) + sizeof(theirs.u.hello) &&
		  theirs.head.type == WIRE_HELLO && !nr);
	hello_send(&r, &mine, &theirs, &a->rand);
	if (raw_recv(&r, &theirs, sizeof(theirs), fds, &nr) && theirs.head.type == WIRE_ENDPOINT) {
		endpoint_forge(&mine, &forged, &a->rand, &theirs, fds, nr);
		raw_send(&r, &forged);
	}
	for (i = 0; i < nr; i++) {
		scribble_on(fds[i], &a->rand);
		close(fds[i]);
	}
	while (forged.nr_fds)
		close(forged.fds[--forged.nr_fds]);
	if (test_rand(&a->rand) % 2)
		state_send(&r, &mine, &a->rand);
	if (test_rand(&a->rand) % 2)
		odd_message(&r, &a->rand);
	raw_close(&r);
}

/* ---- what each attack must leave as it was ---- */

static bool two_left(void *ctx)
{
	return test_engines(ctx) <= 2; /* the witness, and us */
}

/* all at once: what anybody still holds, or what is lost, would be missing */
static bool all_claimed(void *ctx)
{
	struct weft_slot *slots = ctx;
	struct weft_op op = {
		.op = WEFT_OP_CLAIM, .space = watch.space, .nr = SLOTS, .slots = slots
	};

	return weft_call(watch.ring, &op, NULL) == SLOTS;
}

static void check_slots(void)
{
	struct weft_slot *slots = calloc(SLOTS, sizeof(*slots));
	struct weft_op op = { .op = WEFT_OP_RELEASE, .nr = SLOTS, .slots = slots };
	struct weft_stat st;

	if (!test_until(BACK_MS, all_claimed, slots)) {
		st = test_stat(watch.ring);
		fail_msg(
			"of %llu slots %llu are free, %llu quarantined, %llu filling, %llu leased, "
			"%llu held: WEFT_TEST_SEED=%llu",
			(unsigned long long)st.slots_total, (unsigned long long)st.slots_free,
			(unsigned long long)st.slots_quarantined,
			(unsigned long long)st.slots_filling, (unsigned long long)st.slots_leased,
			(unsigned long long)st.blocks_held, (unsigned long long)seed);
	}
	assert_int_equal(weft_call(watch.ring, &op, NULL), SLOTS);
	st = test_stat(watch.ring);
	assert_int_equal(st.slots_free, SLOTS);
	assert_int_equal(st.blocks_held + st.slots_filling + st.slots_leased + st.slots_quarantined,
			 0);
	free(slots);
}

static void attack(void (*round)(struct attack *a, unsigned round), unsigned rounds)
{
	struct attack a = { .rand = seed, .rounds = rounds, .round = round };
	struct test_child child;
	unsigned done = 0;

	test_child_start(&child, run_attack, &a);
	if (!test_hear(child.from, &done, sizeof(done)))
		fprintf(stderr, "the attack was stopped: WEFT_TEST_SEED=%llu\n",
			(unsigned long long)seed);
	test_child_join(&child);
	assert_int_equal(done, rounds);
	assert_true(test_until(BACK_MS, two_left, watch.w));
	check_slots();
}

static void test_random_ops(void **state)
{
	(void)state;
	attack(round_random_ops, 150);
}

static void test_indexes(void **state)
{
	(void)state;
	attack(round_indexes, 200);
}

static void test_segment(void **state)
{
	(void)state;
	attack(round_segment, 100);
}

static void test_scribble(void **state)
{
	(void)state;
	attack(round_scribble, 50);
}

static void test_control(void **state)
{
	(void)state;
	attack(round_control, 400);
}

static void test_regions(void **state)
{
	(void)state;
	attack(round_regions, 100);
}

static void test_deaf(void **state)
{
	(void)state;
	attack(round_deaf, 5);
}

static void test_peer(void **state)
{
	(void)state;
	attack(round_peer, 300);
}

/* ---- what the header says of each mistake ---- */

static void run_mistakes(int in, int out, void *ctx)
{
	static const struct {
		struct weft_sqe sqe;
		int res;
	} mistakes[] = {
		{ { .op = WEFT_OP_NOP }, 0 },
		{ { .op = WEFT_OP_NR }, -EOPNOTSUPP },
		{ { .op = 255 }, -EOPNOTSUPP },
		{ { .op = WEFT_OP_NOP, .reserved = 1 }, -EINVAL },
		{ { .op = WEFT_OP_NOP, .flags = 0x80 }, -EINVAL },
		{ { .op = WEFT_OP_STAT, .arg_off = 1 }, -EINVAL },
		{ { .op = WEFT_OP_STAT, .arg_off = 1 << 20 }, -EFAULT },
		{ { .op = WEFT_OP_STAT, .arg_off = UINT32_MAX & ~63u }, -EFAULT },
		{ { .op = WEFT_OP_CLAIM, .nr = 0 }, -EINVAL },
		{ { .op = WEFT_OP_CLAIM, .nr = WEFT_OP_BLOCKS_MAX + 1 }, -EINVAL },
		{ { .op = WEFT_OP_CLAIM, .nr = WEFT_OP_BLOCKS_MAX, .arg_off = 64 }, -EFAULT },
		{ { .op = WEFT_OP_MATCH, .nr = 1, .arg_off = 1 << 20 }, -EFAULT },
		{ { .op = WEFT_OP_GET, .nr = WEFT_OP_BLOCKS_MAX }, -EFAULT },
		{ { .op = WEFT_OP_RELEASE, .handle = UINT64_MAX }, -ENOENT },
		{ { .op = WEFT_OP_HANDOFF_CANCEL, .handle = UINT64_MAX }, -ENOENT },
		{ { .op = WEFT_OP_HANDOFF_EXPECT, .nr = 1 }, -EINVAL },
		{ { .op = WEFT_OP_ROUTE, .nr = 0 }, -EINVAL },
		{ { .op = WEFT_OP_ROUTE, .nr = WEFT_OP_BLOCKS_MAX }, -EFAULT },
	};
	struct weft_sqe sqe;
	struct weft_cqe cqe;
	struct raw r;
	unsigned i;

	(void)in;
	(void)out;
	(void)ctx;
	raw_attach(&r, node.socket, TOKEN);
	for (i = 0; i < WFI_ARRAY_SIZE(mistakes); i++) {
		sqe = mistakes[i].sqe;
		sqe.space = r.space;
		sqe.user_data = i;
		test_must(raw_submit(&r, &sqe));
		raw_ring_bell(&r);
		test_must(raw_next(&r, &cqe));
		test_must(cqe.user_data == i);
		if (cqe.res != mistakes[i].res)
			fprintf(stderr, "mistake %u: %d, not %d\n", i, cqe.res, mistakes[i].res);
		test_must(cqe.res == mistakes[i].res);
		sqe = (struct weft_sqe){ .op = WEFT_OP_MATCH, .space = r.space + 1, .nr = 1 };
	}
	test_must(raw_submit(&r, &sqe));
	raw_ring_bell(&r);
	test_must(raw_next(&r, &cqe) && cqe.res == -ENOENT);
	raw_close(&r);
}

static void test_mistakes(void **state)
{
	struct test_child child;

	(void)state;
	test_child_start(&child, run_mistakes, NULL);
	test_child_join(&child);
}

/* Return: whether the node hangs up within a second */
static bool hung_up(struct raw *r)
{
	struct pollfd pfd = { .fd = r->fd, .events = POLLRDHUP };

	return poll(&pfd, 1, 1000) == 1 && pfd.revents & (POLLRDHUP | POLLHUP);
}

static void run_broken(int in, int out, void *ctx)
{
	const uint32_t seq = 7, head = 3;
	struct raw r;

	(void)in;
	(void)out;
	(void)ctx;
	raw_attach(&r, node.socket, TOKEN);
	__atomic_store_n((uint32_t *)(r.seg + r.hdr.sq_off), seq, __ATOMIC_RELEASE);
	raw_ring_bell(&r);
	test_must(hung_up(&r));
	raw_close(&r);
	raw_attach(&r, node.socket, TOKEN);
	__atomic_store_n(&raw_line(&r)->head, head, __ATOMIC_RELEASE);
	raw_ring_bell(&r);
	test_must(hung_up(&r));
	raw_close(&r);
}

/* who breaks the ring's protocol is detached, counted, and named with the reason */
static void test_broken(void **state)
{
	const uint64_t was = test_counter(watch.w, "weft_bad_rings");
	struct test_child child;

	(void)state;
	test_child_start(&child, run_broken, NULL);
	test_child_join(&child);
	assert_int_equal(test_counter(watch.w, "weft_bad_rings"), was + 2);
	assert_int_equal(test_node_logged(&node, "broke the protocol: sequence"), 1);
	assert_int_equal(test_node_logged(&node, "broke the protocol: completion head"), 1);
	assert_int_equal(test_node_logged(&node, "is detached: its ring or its memory"), 2);
}

/* ---- set-up ---- */

static int start_all(void **state)
{
	(void)state;
	seed = test_seed();
	test_node_init(&node, sets);
	test_node_start(&node);
	test_child_start(&witness, run_witness, NULL);
	test_engine_open(&watch, &node, TOKEN, &geometry);
	check_slots(); /* the attackers' space has the whole arena from now on */
	return 0;
}

static int end_all(void **state)
{
	uint64_t said[2];

	(void)state;
	assert_true(test_say(witness.to, "", 1));
	if (!test_hear(witness.from, said, sizeof(said)))
		fprintf(stderr, "the witness saw it: WEFT_TEST_SEED=%llu\n",
			(unsigned long long)seed);
	test_child_join(&witness);
	printf("witness: %llu rounds, the slowest took %llu ms\n", (unsigned long long)said[0],
	       (unsigned long long)said[1]);
	test_engine_close(&watch);
	test_node_fini(&node);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_broken),
		cmocka_unit_test(test_random_ops), cmocka_unit_test(test_indexes),
		cmocka_unit_test(test_segment),	   cmocka_unit_test(test_scribble),
		cmocka_unit_test(test_regions),	   cmocka_unit_test(test_deaf),
		cmocka_unit_test(test_peer),	   cmocka_unit_test(test_control),
	};

	return cmocka_run_group_tests(tests, start_all, end_all);
}
