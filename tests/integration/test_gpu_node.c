/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks to and from the memory of GPUs, through a weftd: its driver and the engines' are mocked
 * (tests/unit/mock_cuda.h), in files that processes share as they do GPU memory. How often a thing
 * is opened shows in the descriptors that the node holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/integration/gpu.h"
#include "tests/integration/raw.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/log.h"

#define BLOCK 4096u
#define NR 16u
#define MEM (1u << 20)
#define VMM (2u << 20)

static const char *const sets[] = { "arena_bytes=64M", NULL };

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "gpu",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

/* ---- memory on the engine's side ---- */

static char *vmm_alloc(void)
{
	const struct wfi_cuda_vmm_prop prop = {
		.type = WFI_CUDA_VMM_PINNED,
		.handles = WFI_CUDA_VMM_FD,
		.location = { WFI_CUDA_VMM_DEVICE, 0 },
	};
	const struct wfi_cuda_vmm_access access = {
		.location = prop.location,
		.flags = WFI_CUDA_VMM_READ_WRITE,
	};
	uint64_t handle, mem;

	assert_int_equal(cuda->cuMemCreate(&handle, VMM, &prop, 0), 0);
	assert_int_equal(cuda->cuMemAddressReserve(&mem, VMM, 0, 0, 0), 0);
	assert_int_equal(cuda->cuMemMap(mem, VMM, 0, handle, 0), 0);
	assert_int_equal(cuda->cuMemSetAccess(mem, VMM, &access, 1), 0);
	assert_int_equal(cuda->cuMemRelease(handle), 0);
	return (char *)(uintptr_t)mem;
}

static void vmm_free(char *mem)
{
	assert_int_equal(cuda->cuMemUnmap((uintptr_t)mem, VMM), 0);
	assert_int_equal(cuda->cuMemAddressFree((uintptr_t)mem, VMM), 0);
}

static uint32_t must_reg(struct test_engine *e, char *addr, uint64_t len)
{
	uint32_t region = 0;

	if (test_gpu_reg(e, addr, len, &region))
		fail_msg("%s", weft_why());
	return region;
}

/* ---- blocks ---- */

struct side {
	char *mem;
	uint32_t region;
	uint64_t off;
};

/* every second place, the last first: as pages lie. Return: where block @i is */
static uint64_t place_of(const struct side *s, unsigned i)
{
	return s->off + 2ull * (NR - 1 - i) * BLOCK;
}

static int move(struct test_engine *e, enum weft_opcode op, const struct weft_key *keys,
		const struct side *s, int32_t *results)
{
	struct weft_place places[NR];
	const struct weft_op o = {
		.op = (uint8_t)op,
		.flags = op == WEFT_OP_PUT ? WEFT_F_COPY : WEFT_F_VERIFY,
		.nr = NR,
		.space = e->space,
		.keys = keys,
		.places = places,
		.results = results,
	};

	for (unsigned i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = place_of(s, i), .region = s->region };
	return weft_call(e->ring, &o, NULL);
}

static void put(struct test_engine *e, uint64_t name, const struct side *s)
{
	struct weft_key keys[NR];
	int32_t results[NR];

	test_keys(e, name, NR, keys);
	for (unsigned i = 0; i < NR; i++)
		test_fill(s->mem + place_of(s, i), BLOCK, name + i);
	test_must(move(e, WEFT_OP_PUT, keys, s, results) == (int)NR);
}

static void get(struct test_engine *e, uint64_t name, const struct side *s)
{
	struct weft_key keys[NR];
	int32_t results[NR];

	test_keys(e, name, NR, keys);
	assert_int_equal(move(e, WEFT_OP_GET, keys, s, results), NR);
	for (unsigned i = 0; i < NR; i++) {
		assert_int_equal(results[i], 0);
		assert_true(test_filled(s->mem + place_of(s, i), BLOCK, name + i));
	}
}

/* through host memory, too: the blocks are the same */
static void put_and_get(struct test_engine *e, uint64_t name, char *mem, uint32_t region)
{
	static char blocks[NR][BLOCK];
	const struct side from = { mem, region, 0 }, to = { mem, region, 8 * NR * BLOCK };
	struct weft_key keys[NR];
	void *bufs[NR];
	unsigned i;

	put(e, name, &from);
	memset(mem, 0, from.off + 2 * NR * BLOCK);
	get(e, name, &to);
	test_keys(e, name, NR, keys);
	for (i = 0; i < NR; i++)
		bufs[i] = blocks[i];
	assert_int_equal(weft_get(e->ring, e->space, keys, NR, bufs), NR);
	for (i = 0; i < NR; i++)
		assert_true(test_filled(blocks[i], BLOCK, name + i));
	/* and the other way round */
	test_keys(e, name + 1000, NR, keys);
	for (i = 0; i < NR; i++)
		test_fill(blocks[i], BLOCK, name + 1000 + i);
	assert_int_equal(weft_put(e->ring, e->space, NULL, keys, NR, (const void *const *)bufs),
			 NR);
	get(e, name + 1000, &to);
}

/* ---- regions ---- */

static void test_regions(void **state)
{
	char *mem = test_gpu_alloc(MEM), *vmm = vmm_alloc();
	struct test_engine e;
	uint32_t region;
	unsigned fds;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	region = must_reg(&e, mem, MEM);
	put_and_get(&e, 1, mem, region);
	fds = test_node_fds(&node);
	assert_int_equal(weft_region_dereg(e.w, region), 0);
	assert_int_equal(test_node_fds(&node), fds - 1);
	region = must_reg(&e, vmm + 4096, VMM - 4096);
	put_and_get(&e, 2000, vmm + 4096, region);
	/* the engine unmaps what the node has mapped: that is the node's to touch all the same */
	vmm_free(vmm);
	assert_int_equal(test_node_logged(&node, "error"), 0);
	test_engine_close(&e);
	test_gpu_free(mem);
}

/* the engine is gone in whatever way: nothing of its memory stays open in the node */
static void hold_region(int in, int out, void *ctx)
{
	struct test_engine e;
	char byte = 0;
	const struct side s = { test_gpu_alloc(MEM), 0, 0 };
	struct side at = s;

	(void)ctx;
	test_engine_open(&e, &node, NULL, &geometry);
	test_must(!test_gpu_reg(&e, s.mem, MEM, &at.region));
	put(&e, 5000, &at);
	test_must(test_say(out, &byte, 1));
	test_hear(in, &byte, 1);
	_exit(0);
}

static bool fds_are(void *ctx)
{
	return test_node_fds(&node) == *(unsigned *)ctx;
}

static void test_engine_dies(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct test_child c;
	struct side to = { mem, 0, 0 };
	unsigned fds;
	char byte;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	to.region = must_reg(&e, mem, MEM);
	fds = test_node_fds(&node);
	for (unsigned i = 0; i < 20; i++) {
		test_child_start(&c, hold_region, NULL);
		assert_true(test_hear(c.from, &byte, 1));
		assert_true(test_node_fds(&node) > fds);
		test_child_kill(&c);
		assert_true(test_alone(e.w, 1000));
		assert_true(test_until(1000, fds_are, &fds));
		/* what it has published lives on: two processes share blocks of a GPU */
		get(&e, 5000, &to);
	}
	test_engine_close(&e);
	test_gpu_free(mem);
}

/* segments: a block's bytes lie in four layers */
static void test_segments(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	const struct weft_region_opts opts = {
		.size = sizeof(opts),
		.addr = mem,
		.len = MEM,
		.fd = -1,
		.kind = WEFT_REGION_GPU,
		.segment_bytes = BLOCK / 4,
		.segment_stride = MEM / 4,
		.block_stride = BLOCK / 4,
		.nr_segments = 4,
	};
	struct weft_region_opts bad = opts;
	struct test_engine e;
	struct weft_key keys[NR];
	struct weft_place places[NR];
	char block[BLOCK];
	struct weft_op op = { .op = WEFT_OP_PUT, .flags = WEFT_F_COPY, .nr = NR };
	uint32_t region;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_int_equal(weft_region_reg(e.w, &opts, &region), 0);
	test_keys(&e, 7000, NR, keys);
	for (unsigned i = 0; i < NR; i++) {
		test_fill(block, BLOCK, 7000 + i);
		for (unsigned k = 0; k < 4; k++)
			memcpy(mem + k * MEM / 4 + (3 * i + 5) * BLOCK / 4, block + k * BLOCK / 4,
			       BLOCK / 4);
		places[i] = (struct weft_place){ .off = (3 * i + 5) * BLOCK, .region = region };
	}
	op.space = e.space;
	op.keys = keys;
	op.places = places;
	assert_int_equal(weft_call(e.ring, &op, NULL), NR);
	memset(mem, 0, MEM);
	for (unsigned i = 0; i < NR; i++)
		places[i].off = (3 * i + 70) * BLOCK;
	op.op = WEFT_OP_GET;
	op.flags = WEFT_F_VERIFY;
	assert_int_equal(weft_call(e.ring, &op, NULL), NR);
	for (unsigned i = 0; i < NR; i++) {
		for (unsigned k = 0; k < 4; k++)
			memcpy(block + k * BLOCK / 4, mem + k * MEM / 4 + (3 * i + 70) * BLOCK / 4,
			       BLOCK / 4);
		assert_true(test_filled(block, BLOCK, 7000 + i));
	}
	/* the last block, and one behind it */
	places[0].off = MEM - BLOCK;
	assert_int_equal(weft_call(e.ring, &op, NULL), NR);
	places[0].off = MEM;
	assert_int_equal(weft_call(e.ring, &op, NULL), -EINVAL);
	bad.segment_stride = MEM / 2;
	assert_int_equal(weft_region_reg(e.w, &bad, &region), -EINVAL);
	assert_non_null(strstr(weft_why(), "segments do not fit"));
	bad = opts;
	bad.kind = WEFT_REGION_MEMORY;
	assert_int_equal(weft_region_reg(e.w, &bad, &region), -EINVAL);
	test_engine_close(&e);
	test_gpu_free(mem);
}

/* sums are made on the GPU, of what was put and of what a get has brought: a bit that is another
 * in memory is found there */
static void test_flipped(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct weft_key keys[NR];
	struct weft_slot slots[NR];
	int32_t results[NR];
	struct test_engine e;
	struct weft_place places[2];
	struct weft_op both = {
		.op = WEFT_OP_GET,
		.flags = WEFT_F_VERIFY,
		.nr = 2,
		.keys = keys,
		.places = places,
		.results = results,
	};
	uint64_t lease, summed;
	struct side s;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	s = (struct side){ mem, must_reg(&e, mem, MEM), 0 };
	summed = test_counter(e.w, "weft_xfer_summed");
	put(&e, 300, &s);
	get(&e, 300, &s);
	if (test_counter(e.w, "weft_xfer_summed") == summed) {
		print_message("no kernels were built: the CPU sums up\n");
		test_engine_close(&e);
		test_gpu_free(mem);
		skip();
	}
	assert_int_equal(test_counter(e.w, "weft_xfer_summed"), summed + 2);
	test_keys(&e, 300, NR, keys);
	assert_int_equal(weft_map(e.ring, e.space, keys, NR, slots, &lease), NR);
	((char *)weft_arena(e.w))[slots[3].off + 1234] ^= 4;
	assert_int_equal(move(&e, WEFT_OP_GET, keys, &s, results), NR - 1);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(results[i], i == 3 ? -ENOENT : 0);
	assert_int_equal(weft_release(e.ring, lease), NR);
	/* two blocks at one place: one of them is not there, and nothing is wrong with either */
	both.space = e.space;
	test_keys(&e, 300, 2, keys);
	places[0] = places[1] = (struct weft_place){ .region = s.region };
	assert_int_equal(weft_call(e.ring, &both, NULL), 1);
	assert_int_equal(weft_match(e.ring, e.space, keys, 2), 2);
	test_engine_close(&e);
	test_gpu_free(mem);
}

/* one operation, one kind of memory: whether the blocks are all here or not */
static void test_mixed_places(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct weft_key keys[2];
	struct weft_slot slot;
	struct weft_place places[2];
	struct weft_op op = { .op = WEFT_OP_GET, .nr = 2 };
	const struct weft_op claim = { .op = WEFT_OP_CLAIM, .nr = 1, .slots = &slot };
	struct weft_op c = claim;
	struct side there;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	there = (struct side){ mem, must_reg(&e, mem, MEM), 0 };
	put(&e, 1, &there);
	test_keys(&e, 1, 2, keys);
	c.space = e.space;
	assert_int_equal(weft_call(e.ring, &c, NULL), 1);
	places[0] = (struct weft_place){ .off = slot.off };
	places[1] = (struct weft_place){ .region = there.region };
	op.space = e.space;
	op.keys = keys;
	op.places = places;
	assert_int_equal(weft_call(e.ring, &op, NULL), -EINVAL);
	places[0] = places[1];
	assert_int_equal(weft_call(e.ring, &op, NULL), 2);
	places[0].off = MEM - BLOCK + 1;
	assert_int_equal(weft_call(e.ring, &op, NULL), -EINVAL);
	test_engine_close(&e);
	test_gpu_free(mem);
}

static struct CUevent_st *event_new(unsigned flags)
{
	struct CUevent_st *event;

	assert_int_equal(cuda->cuEventCreate(&event, WFI_CUDA_EVENT_NO_TIMING | flags), 0);
	return event;
}

static int put_after(struct test_engine *e, uint64_t name, const struct side *s, uint64_t event)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	const struct weft_op op = {
		.op = WEFT_OP_PUT,
		.flags = WEFT_F_COPY,
		.nr = NR,
		.space = e->space,
		.keys = keys,
		.places = places,
		.handle = event,
	};

	test_keys(e, name, NR, keys);
	for (unsigned i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = place_of(s, i), .region = s->region };
	return weft_call(e->ring, &op, NULL);
}

/* an event is a number like a region's, without bytes */
static void test_events(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct CUevent_st *event = event_new(WFI_CUDA_EVENT_IPC), *private = event_new(0);
	struct side s = { mem, 0, 0 };
	struct weft_place place = { 0 };
	struct weft_key key;
	struct test_engine e;
	struct weft_op get = { .op = WEFT_OP_GET, .nr = 1, .keys = &key, .places = &place };
	uint32_t number = 0, none;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_int_equal(weft_event_reg(e.w, event, 0, &none), -EINVAL);
	s.region = must_reg(&e, mem, MEM);
	put(&e, 1, &s);
	assert_int_equal(weft_event_reg(e.w, private, s.region, &none), -EOPNOTSUPP);
	assert_non_null(strstr(weft_why(), "CU_EVENT_INTERPROCESS"));
	assert_int_equal(weft_event_reg(e.w, NULL, s.region, &none), -EINVAL);
	assert_int_equal(weft_event_reg(e.w, event, s.region, &number), 0);
	assert_int_equal(cuda->cuEventRecord(event, NULL), 0);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(put_after(&e, 1, &s, number), NR);
	/* regions and events are not each other's, and slots are not left behind */
	assert_int_equal(put_after(&e, 100, &s, s.region), -EINVAL);
	assert_int_equal(put_after(&e, 100, &s, 77), -EINVAL);
	assert_int_equal(put_after(&e, 100, &s, UINT64_MAX), -EINVAL);
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	test_keys(&e, 1, 1, &key);
	get.space = e.space;
	place.region = number;
	assert_int_equal(weft_call(e.ring, &get, NULL), -EINVAL);
	/* the next life of the node knows it again */
	test_node_kill(&node);
	test_node_start(&node);
	assert_int_equal(weft_reattach(e.w), 0);
	assert_int_equal(put_after(&e, 1, &s, number), NR);
	assert_int_equal(weft_region_dereg(e.w, number), 0);
	assert_int_equal(put_after(&e, 1, &s, number), -EINVAL);
	test_engine_close(&e);
	cuda->cuEventDestroy(event);
	cuda->cuEventDestroy(private);
	test_gpu_free(mem);
}

static void test_refused(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	uint32_t region = 0;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_int_equal(test_gpu_reg(&e, mem + 1, MEM, &region), -EINVAL);
	assert_non_null(strstr(weft_why(), "register each allocation on its own"));
	assert_int_equal(test_gpu_reg(&e, (char *)&e, 64, &region), -ESTALE);
	assert_non_null(strstr(weft_why(), "no memory of a GPU's at this address"));
	test_gpu_free(mem);
	assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), -ESTALE);
	assert_int_equal(region, 0);
	test_engine_close(&e);
}

/* ---- an engine that lies ---- */

static void export_and_die(int in, int out, void *ctx)
{
	struct wfi_gpu_export x;
	char why[WFI_GPU_WHY_MAX];
	int fd;

	(void)in;
	(void)ctx;
	test_must(!wfi_gpu_export(cuda, (uintptr_t)test_gpu_alloc(MEM), MEM, &x, &fd, why));
	test_must(test_say(out, &x, sizeof(x)));
}

static void ask(const struct wfi_gpu_export *x, struct weft_ctl_req *req)
{
	*req = (struct weft_ctl_req){ .type = WEFT_CTL_REGION_REG };
	req->u.region.kind = x->kind;
	req->u.region.addr = x->addr;
	req->u.region.off = x->off;
	req->u.region.len = x->len;
	req->u.region.size = x->size;
	req->u.region.driver = x->driver;
	memcpy(req->u.region.gpu, x->uuid, sizeof(x->uuid));
	memcpy(req->u.region.handle, x->handle, sizeof(x->handle));
}

static void test_hostile(void **state)
{
	struct wfi_gpu_export x;
	struct test_child c;
	struct raw r;
	struct weft_ctl_req req;
	struct weft_ctl_rep rep;
	const int other = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	test_child_start(&c, export_and_die, NULL);
	assert_true(test_hear(c.from, &x, sizeof(x)));
	test_child_join(&c);
	raw_attach(&r, node.socket, "");
	/* the handle of a process that has ended */
	ask(&x, &req);
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -ESTALE);
	assert_non_null(strstr(rep.why, "its process has ended, or freed it"));
	/* of another driver */
	req.u.region.driver = 11080;
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -EPROTO);
	assert_non_null(strstr(rep.why, "drivers of two versions"));
	/* of a GPU that is not here */
	ask(&x, &req);
	req.u.region.gpu[5] = 77;
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -ENODEV);
	/* of no known kind, without and with a wrong descriptor */
	ask(&x, &req);
	req.u.region.kind = 9;
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -EINVAL);
	req.u.region.kind = WEFT_CTL_REGION_CUDA_VMM;
	assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -EBADF);
	assert_int_equal(raw_request(&r, &req, other, &rep, NULL), -EBADF);
	req.u.region.off = UINT64_MAX;
	assert_int_equal(raw_request(&r, &req, other, &rep, NULL), -EINVAL);
	req.u.region.nr_segments = UINT32_MAX;
	req.u.region.segment_bytes = UINT64_MAX;
	assert_int_equal(raw_request(&r, &req, other, &rep, NULL), -EINVAL);
	raw_close(&r);
	close(other);
}

/* many times over: it fills no log */
static void test_refused_often(void **state)
{
	struct wfi_gpu_export x;
	struct test_child c;
	struct raw r;
	struct weft_ctl_req req;
	struct weft_ctl_rep rep;
	const uint64_t start = test_now_ms();
	unsigned logged;

	(void)state;
	test_child_start(&c, export_and_die, NULL);
	assert_true(test_hear(c.from, &x, sizeof(x)));
	test_child_join(&c);
	raw_attach(&r, node.socket, "");
	ask(&x, &req);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(raw_request(&r, &req, -1, &rep, NULL), -ESTALE);
	logged = test_node_logged(&node, "its process has ended");
	assert_true(logged > 0);
	assert_true(logged <= WFI_LOG_BURST * (2 + (test_now_ms() - start) / 1000));
	raw_close(&r);
}

/* ---- nodes that come and go ---- */

static void test_reattach(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct side s = { mem, 0, 0 };
	uint32_t again;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	s.region = must_reg(&e, mem, MEM);
	test_node_kill(&node);
	test_node_start(&node);
	assert_int_equal(weft_reattach(e.w), 0);
	put(&e, 9000, &s);
	get(&e, 9000, &s);
	assert_int_equal(weft_region_dereg(e.w, s.region), 0);
	again = must_reg(&e, mem, MEM);
	assert_int_equal(weft_region_dereg(e.w, again), 0);
	test_engine_close(&e);
	test_gpu_free(mem);
}

static void test_embedded(void **state)
{
	char *mem = test_gpu_alloc(MEM), *vmm = vmm_alloc();
	struct test_engine e;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	put_and_get(&e, 100, mem, must_reg(&e, mem, MEM));
	put_and_get(&e, 3000, vmm, must_reg(&e, vmm, VMM));
	test_engine_close(&e);
	test_gpu_free(mem);
	vmm_free(vmm);
}

/* ---- stream order ---- */

/* a computation in the engine's stream, which ends when it is let */
struct computing {
	struct CUstream_st *stream;
	struct CUevent_st *event;
	char *result;
};

static void compute(struct computing *c, char *mem, const struct side *s)
{
	c->event = event_new(WFI_CUDA_EVENT_IPC);
	c->result = malloc(MEM);
	assert_non_null(c->result);
	assert_int_equal(cuda->cuStreamCreate(&c->stream, WFI_CUDA_STREAM_NON_BLOCKING), 0);
	for (unsigned i = 0; i < NR; i++)
		test_fill(c->result + place_of(s, i), BLOCK, 1 + i);
	memset(mem, 0, MEM);
	mock->hold = true;
	assert_int_equal(
		cuda->cuMemcpyAsync((uintptr_t)mem, (uintptr_t)c->result, MEM / 2, c->stream), 0);
	assert_int_equal(cuda->cuEventRecord(c->event, c->stream), 0);
	mock->hold = false;
}

/* submits what waits: the node may sleep meanwhile. Return: the number of the event */
static uint32_t put_behind(struct test_engine *e, const struct computing *c, const struct side *s,
			   int32_t *results, uint32_t timeout_us)
{
	struct weft_key keys[NR];
	struct weft_place places[NR];
	struct weft_op op = { .op = WEFT_OP_PUT, .flags = WEFT_F_COPY, .nr = NR };
	struct weft_completion done;
	uint32_t number;

	assert_int_equal(weft_event_reg(e->w, c->event, s->region, &number), 0);
	test_keys(e, 1, NR, keys);
	for (unsigned i = 0; i < NR; i++)
		places[i] = (struct weft_place){ .off = place_of(s, i), .region = s->region };
	op.space = e->space;
	op.keys = keys;
	op.places = places;
	op.handle = number;
	op.results = results;
	op.timeout_us = timeout_us;
	assert_int_equal(weft_submit(e->ring, &op, 1), 1);
	assert_int_equal(weft_wait(e->ring, &done, 1, 50000), 0);
	return number;
}

/* what the engine's stream still computes when the put is submitted arrives all the same */
static void test_stream_order(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct side s = { mem, 0, 0 }, to = { mem, 0, MEM / 2 };
	struct weft_completion done;
	struct computing c;
	struct test_engine e;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	s.region = to.region = must_reg(&e, mem, MEM);
	compute(&c, mem, &s);
	put_behind(&e, &c, &s, NULL, 0);
	mock_release();
	test_next(e.ring, &done);
	assert_int_equal(done.res, NR);
	get(&e, 1, &to);
	test_engine_close(&e);
	cuda->cuStreamDestroy(c.stream);
	cuda->cuEventDestroy(c.event);
	test_gpu_free(mem);
	free(c.result);
}

/* what the engine never ends computing does not keep a put beyond its time, nor its slots */
static void test_event_never(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct side s = { mem, 0, 0 };
	struct weft_completion done;
	int32_t results[NR];
	struct computing c;
	struct test_engine e;
	uint32_t number;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	s.region = must_reg(&e, mem, MEM);
	compute(&c, mem, &s);
	number = put_behind(&e, &c, &s, results, 100000);
	test_next(e.ring, &done);
	assert_int_equal(done.res, 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(results[i], -ETIMEDOUT);
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	assert_int_equal(weft_region_dereg(e.w, number), 0);
	test_engine_close(&e);
	mock_release();
	cuda->cuStreamDestroy(c.stream);
	cuda->cuEventDestroy(c.event);
	test_gpu_free(mem);
	free(c.result);
}

/* ---- GPUs and drivers that fail: in the node alone ---- */

/* nothing of it concerns host memory */
static void still_serves(struct test_engine *e, uint64_t name)
{
	static char block[BLOCK];
	const void *in = block;
	void *out = block;
	struct weft_key key;

	test_keys(e, name, 1, &key);
	test_fill(block, BLOCK, name);
	assert_int_equal(weft_put(e->ring, e->space, NULL, &key, 1, &in), 1);
	memset(block, 0, BLOCK);
	assert_int_equal(weft_get(e->ring, e->space, &key, 1, &out), 1);
	assert_true(test_filled(block, BLOCK, name));
}

/* slots can't be pinned: bytes stop on their way, and are the same */
static void test_unpinned(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct test_node n;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuMemHostRegister 2");
	test_engine_open(&e, &n, NULL, &geometry);
	put_and_get(&e, 1, mem, must_reg(&e, mem, MEM));
	assert_int_equal(test_node_logged(&n, "host memory can't be pinned"), 1);
	test_engine_close(&e);
	test_node_fini(&n);
	test_gpu_free(mem);
}

static void test_node_without(void **state)
{
	static const struct {
		const char *with;
		int err;
		const char *says;
	} rows[] = {
		{ "0 1 1", -ENODEV, "there is no GPU" },
		{ "2 1 1 cuInit 803", -ENODEV, "of two versions: reboot" },
		{ "2 1 1 cuInit 36", -ENODEV, "the driver is too old" },
		{ "2 1 1 cuDevicePrimaryCtxRetain 46", -ENODEV, "or can't use it" },
		{ "2 1 1 cuStreamCreate 2", -ENOMEM, "no memory is left" },
		{ "2 1 1 cuIpcOpenMemHandle 400", -ESTALE, "has ended, or freed it" },
		{ "2 1 1 cuIpcOpenMemHandle 709", -EIO, "has failed" },
		{ "2 1 1 cuIpcOpenMemHandle 214", -ENOTRECOVERABLE, "restart the node" },
	};
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct test_node n;
	uint32_t region;

	(void)state;
	for (unsigned i = 0; i < WFI_ARRAY_SIZE(rows); i++) {
		test_gpu_start(&n, sets, rows[i].with);
		test_engine_open(&e, &n, NULL, &geometry);
		for (unsigned k = 0; k < 2; k++) {
			assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), rows[i].err);
			assert_non_null(strstr(weft_why(), rows[i].says));
			still_serves(&e, 10 * i + k);
		}
		test_engine_close(&e);
		test_node_fini(&n);
	}
	test_gpu_free(mem);
}

static void test_no_driver(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct test_node n;
	uint32_t region;

	(void)state;
	if (!system("ldconfig -p | grep -q libcuda.so.1"))
		skip(); /* the node finds a real one */
	test_gpu_start(&n, sets, NULL);
	test_engine_open(&e, &n, NULL, &geometry);
	assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), -ENODEV);
	assert_non_null(strstr(weft_why(), "libcuda.so.1 is not here"));
	still_serves(&e, 1);
	test_engine_close(&e);
	test_node_fini(&n);
	test_gpu_free(mem);
}

/* the engine has no pid where the node is */
static void test_other_pid_namespace(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct test_engine e;
	struct test_node n;
	uint32_t region;

	(void)state;
	if (!test_node_can_be_apart())
		skip(); /* namespaces are not to be had */
	test_node_init(&n, sets);
	n.apart = true;
	test_node_start(&n);
	test_engine_open(&e, &n, NULL, &geometry);
	assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), -ESRCH);
	assert_non_null(strstr(weft_why(), "in two pid namespaces"));
	assert_int_equal(test_node_logged(&n, "in two pid namespaces"), 1);
	still_serves(&e, 1);
	test_engine_close(&e);
	test_node_kill(&n);
	test_node_fini(&n);
	test_gpu_free(mem);
}

/* what weft says of the node */
static void show(const struct test_node *n, const char *command, const char *what)
{
	struct test_run run = { .argv = { getenv("WEFT"), command, "--socket", n->socket } };

	test_run(&run);
	if (!strstr(run.out, what))
		fail_msg("%s", run.out);
}

/* a context that is lost, and not the GPU: another one does. One that is lost again and again costs
 * little */
static void test_gpu_reopened(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct side s = { mem, 0, 0 };
	struct weft_key keys[NR];
	int32_t results[NR];
	struct test_engine e;
	struct test_node n;
	uint32_t region;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuEventQuery 709");
	test_engine_open(&e, &n, NULL, &geometry);
	test_keys(&e, 1, NR, keys);
	for (unsigned i = 0; i < 2; i++) {
		s.region = must_reg(&e, mem, MEM);
		show(&n, "status", "0        0000:a0:00.0     ok ");
		assert_int_equal(move(&e, WEFT_OP_PUT, keys, &s, results), 0);
		assert_int_equal(results[0], -EIO);
		assert_int_equal(move(&e, WEFT_OP_PUT, keys, &s, results), 0);
		assert_int_equal(results[0], -ENOTCONN);
	}
	show(&n, "status", "0        0000:a0:00.0     lost            2        0");
	show(&n, "doctor", "gpu 0 has failed");
	assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), -EAGAIN);
	assert_non_null(strstr(weft_why(), "fails again and again"));
	assert_int_equal(test_node_logged(&n, "opened anew, after it was lost"), 1);
	still_serves(&e, 7);
	test_engine_close(&e);
	test_node_fini(&n);
	test_gpu_free(mem);
}

/* what was lost is there again: regions, events, copies both ways */
static void test_gpu_back(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct CUevent_st *event = event_new(WFI_CUDA_EVENT_IPC);
	struct side s = { mem, 0, 0 };
	struct weft_key keys[NR];
	int32_t results[NR];
	struct test_engine e, other;
	uint32_t region, theirs, number;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	region = s.region = must_reg(&e, mem, MEM);
	put_and_get(&e, 1, mem, region);
	test_keys(&e, 1, NR, keys);
	mock->fail_res = 709;
	mock->fail_call = "cuEventQuery";
	assert_int_equal(move(&e, WEFT_OP_GET, keys, &s, results), 0);
	assert_int_equal(results[0], -EIO);
	mock->fail_call = NULL;
	s.region = must_reg(&e, mem, MEM);
	put_and_get(&e, 3000, mem, s.region);
	assert_int_equal(weft_event_reg(e.w, event, s.region, &number), 0);
	assert_int_equal(put_after(&e, 6000, &s, number), NR);
	/* what was published before is there, and the old region can go */
	get(&e, 1, &s);
	assert_int_equal(weft_region_dereg(e.w, region), 0);
	get(&e, 1, &s);
	test_engine_open(&other, NULL, NULL, &geometry);
	theirs = must_reg(&other, mem, MEM);
	put_and_get(&other, 1, mem, theirs);
	test_engine_close(&other);
	test_engine_close(&e);
	cuda->cuEventDestroy(event);
	test_gpu_free(mem);
}

/* it falls off while it is used */
static void test_gpu_lost(void **state)
{
	char *mem = test_gpu_alloc(MEM);
	struct side s = { mem, 0, 0 };
	struct weft_key keys[NR];
	int32_t results[NR];
	struct test_engine e;
	struct test_node n;
	uint32_t region;

	(void)state;
	test_gpu_start(&n, sets, "2 1 1 cuEventQuery 719");
	test_engine_open(&e, &n, NULL, &geometry);
	s.region = must_reg(&e, mem, MEM);
	test_keys(&e, 1, NR, keys);
	assert_int_equal(move(&e, WEFT_OP_PUT, keys, &s, results), 0);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(results[i], -EIO);
	assert_int_equal(move(&e, WEFT_OP_PUT, keys, &s, results), 0);
	assert_int_equal(results[0], -ENOTCONN);
	assert_int_equal(test_node_logged(&n, "all regions in its memory are lost"), 1);
	assert_int_equal(test_gpu_reg(&e, mem, MEM, &region), -ENOTRECOVERABLE);
	assert_non_null(strstr(weft_why(), "restart the node"));
	show(&n, "status", "0        0000:a0:00.0     restart         1        0");
	show(&n, "status", "gpu 0 is lost");
	show(&n, "doctor", "gpu 0 has failed in a way that only a new process gets over");
	still_serves(&e, 7);
	assert_int_equal(weft_region_dereg(e.w, s.region), 0);
	/* nothing is held for what did not arrive */
	assert_int_equal(test_stat(e.ring).slots_filling, 0);
	assert_int_equal(test_stat(e.ring).slots_quarantined, 0);
	test_engine_close(&e);
	test_node_fini(&n);
	test_gpu_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_GPU(regions, sets),
		TEST_GPU(engine_dies, sets),
		TEST_GPU(segments, sets),
		TEST_GPU(flipped, sets),
		TEST_GPU(mixed_places, sets),
		TEST_GPU(events, sets),
		TEST_GPU(refused, sets),
		TEST_GPU(hostile, sets),
		TEST_GPU(refused_often, sets),
		TEST_GPU(reattach, sets),
		cmocka_unit_test(test_embedded),
		cmocka_unit_test(test_stream_order),
		cmocka_unit_test(test_event_never),
		cmocka_unit_test(test_unpinned),
		cmocka_unit_test(test_node_without),
		cmocka_unit_test(test_no_driver),
		cmocka_unit_test(test_other_pid_namespace),
		cmocka_unit_test(test_gpu_lost),
		cmocka_unit_test(test_gpu_reopened),
		cmocka_unit_test(test_gpu_back),
	};
	const int skip = test_gpu_load();

	return skip ? skip : cmocka_run_group_tests(tests, NULL, NULL);
}
