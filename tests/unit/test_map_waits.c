/* SPDX-License-Identifier: Apache-2.0 */
/* test_map_waits.c - a map that waits for the SSD tier, and what becomes of its blocks meanwhile */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/node.h"
#include "weft_internal/log.h"
#include "weft_internal/transport_registry.h"

#define BLOCK 4096u
#define NR 8u /* blocks of the chain */
#define NR_HERE 4u /* of these, in memory still */
#define NR_FILL 64u /* at most, until the rest is in the tier */
#define DISK_NS (10 * WFI_NSEC_PER_MSEC)
#define TURNS 400u
#define ARGS_DROP 2048u /* where they lie, behind those of the map */

/* one node in a simulated world, and an engine's ring as its process has it */
struct rig {
	struct wfi_sim *world;
	struct wfi_env *env;
	struct node *node;
	struct session *session;
	struct wfi_space_info space;
	struct weft_key chain[NR];
	uint8_t *seg;
	struct weft_ring_hdr hdr;
	uint32_t sq_pos, cq_pos;
};

static void hush(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static void turn(struct rig *r, uint64_t ns)
{
	wfi_sim_advance(r->world, ns);
	for (unsigned i = 0; i < 16; i++)
		node_poll(r->node);
}

/* ---- blocks ---- */

static struct weft_key key_of(uint64_t name)
{
	return (struct weft_key){ .lo = name * 0x9e3779b97f4a7c15ull, .hi = name };
}

static void put(struct rig *r, const struct weft_key *keys, uint32_t nr)
{
	struct weft_slot slots[NR];
	int32_t results[NR];

	assert_int_equal(wfi_kv_claim(r->node->kv, &r->session->owner, r->space.id, nr, slots,
				      wfi_now(r->env)),
			 nr);
	for (uint32_t i = 0; i < nr; i++)
		memset(wfi_kv_slot_addr(r->node->kv, slots[i].idx), (int)keys[i].hi, BLOCK);
	assert_int_equal(wfi_kv_put(r->node->kv, &r->session->owner, r->space.id, NULL, keys, slots,
				    nr, NULL, results, wfi_now(r->env)),
			 nr);
}

/* Return: blocks of the chain in memory */
static uint32_t here(const struct rig *r)
{
	return (uint32_t)wfi_kv_match(r->node->kv, r->space.id, r->chain, NR, NULL);
}

/* the end of the chain goes to the tier: leaves are evicted first */
static void chain_put(struct rig *r)
{
	struct weft_key other;

	for (uint32_t i = 0; i < NR; i++)
		r->chain[i] = key_of(1 + i);
	put(r, r->chain, NR);
	for (uint32_t i = 0; here(r) > NR_HERE; i++) {
		assert_true(i < NR_FILL);
		other = key_of(100 + i);
		put(r, &other, 1);
		for (uint32_t k = 0; k < 4; k++)
			turn(r, DISK_NS);
	}
	assert_int_equal(here(r), NR_HERE);
	assert_int_equal(wfi_kv_match_tiers(r->node->kv, r->space.id, r->chain, NR, NR_HERE, NULL,
					    NULL),
			 NR);
}

/* ---- the ring ---- */

static void submit(struct rig *r, const struct weft_sqe *sqe)
{
	struct weft_sqe *entry =
		(struct weft_sqe *)(r->seg + r->hdr.sq_off) + (r->sq_pos & (r->hdr.sq_depth - 1));

	memcpy(entry, sqe, sizeof(*sqe));
	/* pairs with the node's acquire */
	__atomic_store_n(&entry->seq, ++r->sq_pos, __ATOMIC_RELEASE);
}

static void submit_keys(struct rig *r, uint8_t op, uint8_t flags, const struct weft_key *keys,
			uint32_t nr, uint32_t args)
{
	const struct weft_sqe sqe = { .op = op,
				      .flags = flags,
				      .user_data = op,
				      .space = r->space.id,
				      .nr = nr,
				      .arg_off = args };

	memcpy(r->seg + r->hdr.arg_off + args, keys, nr * sizeof(*keys));
	submit(r, &sqe);
}

static struct weft_cqe next(struct rig *r)
{
	const struct weft_cqe *entry =
		(struct weft_cqe *)(r->seg + r->hdr.cq_off) + (r->cq_pos & (r->hdr.cq_depth - 1));
	struct weft_ring_line *line = (struct weft_ring_line *)(r->seg + WEFT_RING_ENGINE_OFF);

	/* pairs with the node's release */
	for (uint32_t i = 0; __atomic_load_n(&entry->seq, __ATOMIC_ACQUIRE) != r->cq_pos + 1; i++) {
		assert_true(i < TURNS);
		turn(r, WFI_NSEC_PER_MSEC);
	}
	__atomic_store_n(&line->head, ++r->cq_pos, __ATOMIC_RELEASE);
	return *entry;
}

/* ---- the rig ---- */

static void ring_open(struct rig *r)
{
	const struct wfi_ring_opts opts = { .sq_depth = 16, .cq_depth = 32, .arg_bytes = 4096 };
	struct wfi_ring *ring;
	uint32_t id;

	assert_int_equal(wfi_ring_create(r->env, &opts, &ring), 0);
	r->seg = mmap(NULL, wfi_ring_len(ring), PROT_READ | PROT_WRITE, MAP_SHARED,
		      wfi_ring_fd(ring), 0);
	assert_ptr_not_equal(r->seg, MAP_FAILED);
	memcpy(&r->hdr, r->seg, sizeof(r->hdr));
	assert_int_equal(session_ring_add(r->session, ring, &id), 0);
}

static void setup(struct rig *r)
{
	static const struct weft_transport *transports[2];
	static const struct wfi_tenant_opts tenant = { .name = "t",
						       .token = "",
						       .arena_bytes = 32 * BLOCK };
	static const struct weft_space_opts geometry = { .size = sizeof(geometry),
							 .block_bytes = BLOCK,
							 .model = "map",
							 .layout = "",
							 .tokens_per_block = 16,
							 .nr_layers = 1 };
	const struct wfi_sim_faults slow = { .disk_latency_ns = DISK_NS };
	struct node_opts opts = { .name = "node",
				  .node_id = 1,
				  .policy = "lru",
				  .tier_path = "tier",
				  .tier_bytes = 2u << 20,
				  .lease_ns = WFI_NSEC_PER_SEC,
				  .op_timeout_ns = WFI_NSEC_PER_SEC,
				  .tenants = &tenant,
				  .nr_tenants = 1 };
	char why[184];

	*r = (struct rig){ 0 };
	transports[0] = wfi_transport_find(NULL, "loop");
	assert_int_equal(wfi_sim_create(1, &r->world), 0);
	r->env = wfi_sim_node(r->world, 0);
	r->env->transports = transports;
	opts.env = r->env;
	assert_int_equal(node_create(&opts, &r->node), 0);
	assert_int_equal(session_attach(r->node, r->node->tenants[0], getpid(), -1, "engine",
					&r->session),
			 0);
	assert_int_equal(session_space_open(r->session, &geometry, &r->space, why), 0);
	ring_open(r);
	wfi_sim_set_faults(r->world, &slow);
	for (uint32_t i = 0; i < TURNS; i++)
		turn(r, WFI_NSEC_PER_MSEC);
}

static void teardown(struct rig *r)
{
	const uint64_t len = r->hdr.len;

	session_detach(r->session, false);
	for (uint32_t i = 0; i < TURNS; i++)
		turn(r, WFI_NSEC_PER_MSEC);
	assert_int_equal(r->node->nr_sessions, 0);
	node_destroy(r->node);
	munmap(r->seg, len);
	wfi_sim_destroy(r->world);
}

/* ---- the tests ---- */

/* the engine gives up a block while its map waits: there the prefix ends, and nothing is amiss */
static void drop_meanwhile(uint32_t dropped, uint8_t flags)
{
	struct weft_cqe cqe;
	struct weft_stat st;
	struct rig r;

	setup(&r);
	chain_put(&r);
	submit_keys(&r, WEFT_OP_MAP, flags, r.chain, NR, 0);
	submit_keys(&r, WEFT_OP_DROP, 0, &r.chain[dropped], 1, ARGS_DROP);
	cqe = next(&r);
	assert_int_equal(cqe.op, WEFT_OP_DROP);
	assert_int_equal(cqe.res, 1);
	cqe = next(&r);
	assert_int_equal(cqe.op, WEFT_OP_MAP);
	assert_int_equal(cqe.res, dropped);
	assert_int_equal(cqe.value != 0, dropped != 0);
	wfi_kv_stat(r.node->kv, r.node->tenants[0], &st);
	assert_int_equal(st.slots_leased, dropped);
	assert_int_equal(st.slots_free + st.slots_filling + st.blocks_held + st.slots_quarantined,
			 st.slots_total);
	teardown(&r);
}

static void test_drop(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < NR; i++)
		drop_meanwhile(i, 0);
}

static void test_drop_verified(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < NR; i++)
		drop_meanwhile(i, WEFT_F_VERIFY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drop),
		cmocka_unit_test(test_drop_verified),
	};

	wfi_log_init(WFI_LOG_INFO, "");
	wfi_log_set_sink(hush, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
