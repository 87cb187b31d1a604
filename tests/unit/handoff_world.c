/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/handoff_world.h"
#include "transport/cuda/cuda.h"

/* ---- peers ---- */

static void keep_layers(struct peer *p, uint32_t type, const char *msg, size_t len)
{
	struct wfi_msg_shaped *m = &p->msgs[p->nr_msgs];
	const size_t head = type == WFI_MSG_SHAPED ? sizeof(*m) : sizeof(m->m);

	assert_in_range(p->nr_msgs, 0, MSGS - 1);
	memset(m, 0, sizeof(*m));
	memcpy(m, msg, head);
	assert_int_equal(len, head + m->m.nr * sizeof(p->pieces[0][0]));
	memcpy(p->pieces[p->nr_msgs++], msg + head, len - head);
}

static int peer_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct peer *p = wfi_container_of(base, struct peer, base);
	struct wfi_msg_done done;
	uint32_t type;

	if (p->lost)
		return -ENOTCONN;
	if (p->stuck)
		return -EAGAIN;
	memcpy(&type, msg, sizeof(type));
	if (type == WFI_MSG_ABORT) {
		p->nr_aborts++;
	} else if (type == WFI_MSG_LAYERS_DONE) {
		memcpy(&done, msg, sizeof(done));
		assert_in_range(done.push, 0, MSGS - 1);
		/* each is answered once; 0 is success, and is told as 1 */
		assert_int_equal(p->done[done.push], 0);
		p->done[done.push] = done.res ? done.res : 1;
		p->nr_done++;
	} else {
		keep_layers(p, type, msg, len);
	}
	return 0;
}

static const struct wfi_peer_arena *peer_arena(struct wfi_peer *base,
					       const struct wfi_tenant *tenant)
{
	(void)tenant;
	return &wfi_container_of(base, struct peer, base)->arena;
}

static void peer_open(struct world *w, struct peer *p)
{
	const struct weft_transport *t = w->fault;
	struct weft_ep_opts ep = { .size = sizeof(ep),
				   .send_cq = w->nic_cqs[0],
				   .recv_cq = w->nic_cqs[1],
				   .flags = WEFT_EP_MEM };
	struct weft_rkey_src src = { .size = sizeof(src),
				     .kind = WEFT_RKEY_PROCESS,
				     .access = WEFT_ACCESS_REMOTE_READ,
				     .fd = -1,
				     .pid = getpid(),
				     .len = MEM };

	p->mem = calloc(1, MEM);
	assert_non_null(p->mem);
	src.addr = (uintptr_t)p->mem;
	p->base = (struct wfi_peer){ .node = HERE + 1 + (uint64_t)(p - w->peers),
				     .send = peer_send,
				     .arena = peer_arena };
	assert_int_equal(t->ep_create(w->nic, &ep, &p->ep), 0);
	assert_int_equal(t->rkey_import(p->ep, &src, &p->rkey), 0);
	p->base.ep = p->ep;
	p->arena = (struct wfi_peer_arena){ .rkey = p->rkey, .local = w->arena };
}

void peer_lose(struct world *w, struct peer *p)
{
	if (p->lost)
		return;
	p->lost = true;
	wfi_handoffs_peer_lost(w->hs, &p->base);
	w->fault->ep_shutdown(p->ep);
}

void peer_again(struct world *w, struct peer *p)
{
	peer_lose(w, p);
	turns(w, 0);
	assert_null(p->ep);
	free(p->mem);
	memset(p, 0, sizeof(*p));
	peer_open(w, p);
}

/* those that are lost, when nothing is under way any more */
static void peers_reap(struct world *w)
{
	for (uint32_t i = 0; i < PEERS; i++) {
		struct peer *p = &w->peers[i];

		if (!p->lost || !p->ep || wfi_handoffs_reads_of(w->hs, p->ep))
			continue;
		w->fault->rkey_destroy(p->rkey);
		w->fault->ep_destroy(p->ep);
		p->ep = NULL;
	}
}

/* ---- memory of engines' ---- */

static void memory_blocks(struct place_memory *m)
{
	/* every second one, the last first */
	for (uint32_t i = 0; i < NB; i++)
		m->blocks[i] = (struct wfi_piece){ .remote = 2ull * (NB - 1 - i) * BLOCK,
						   .block = i,
						   .len = BLOCK };
	m->places = (struct wfi_handoff_places){
		.rkeys = m->rkeys,
		.blocks = m->blocks,
		.nr_rkeys = 1,
	};
}

static void host_open(struct world *w)
{
	struct place_memory *m = &w->memory[HOST];
	struct weft_rkey_src src = { .size = sizeof(src),
				     .kind = WEFT_RKEY_PROCESS,
				     .access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
				     .fd = -1,
				     .pid = getpid(),
				     .len = MEM };

	m->kind = HOST;
	m->mem = calloc(1, MEM);
	assert_non_null(m->mem);
	src.addr = (uintptr_t)m->mem;
	assert_int_equal(w->cpu->transport->rkey_import(w->cpu_ep, &src, &m->rkeys[0]), 0);
	memory_blocks(m);
	m->places.ep = w->cpu_ep;
}

static void gpu_open(struct world *w, enum kind kind)
{
	static const struct wfi_gpu_shape layers = { .segment_bytes = LAYER,
						     .segment_stride = MEM / NL,
						     .block_stride = LAYER,
						     .nr_segments = NL };
	const struct wfi_cuda *cuda = mock_cuda_table();
	struct place_memory *m = &w->memory[kind];
	struct wfi_gpu_source from = { .shape = { .nr_segments = 0 } };
	struct weft_rkey_src src = { .size = sizeof(src),
				     .kind = WEFT_RKEY_GPU,
				     .access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
				     .pid = getpid(),
				     .blob = &from,
				     .blob_len = sizeof(from) };
	struct weft_mr_opts mr = { .size = sizeof(mr),
				   .len = MEM,
				   .access = WEFT_ACCESS_LOCAL_WRITE };
	char why[WFI_GPU_WHY_MAX];
	struct CUctx_st *ctx;
	uint64_t mem;

	m->kind = kind;
	assert_int_equal(cuda->cuCtxPushCurrent(w->ctx), 0);
	assert_int_equal(cuda->cuMemAlloc(&mem, MEM), 0);
	cuda->cuCtxPopCurrent(&ctx);
	m->mem = mr.addr = (uint8_t *)(uintptr_t)mem;
	if (kind == GPU_LAYERS)
		from.shape = layers;
	assert_int_equal(wfi_gpu_export(cuda, mem, MEM, &from.memory, &src.fd, why), 0);
	assert_int_equal(wfi_transport_cuda.rkey_import(w->gpu_ep, &src, &m->rkeys[0]), 0);
	memory_blocks(m);
	m->nic = (struct wfi_nic_memory){ .rkey = m->rkeys[0],
					  .base = (uintptr_t)m->mem,
					  .shape = from.shape };
	assert_int_equal(w->fault->mr_reg(w->nic, &mr, &m->nic.mrs[1]), 0);
	m->nics[0] = &m->nic;
	m->places.ep = w->gpu_ep;
	m->places.arena = w->gpu_arena;
	m->places.nics = m->nics;
	m->places.gpu = 1;
}

static void memory_close(struct world *w, struct place_memory *m)
{
	const struct wfi_cuda *cuda = mock_cuda_table();
	struct CUctx_st *ctx;

	m->places.ep->dev->transport->rkey_destroy(m->rkeys[0]);
	if (m->kind == HOST) {
		free(m->mem);
		return;
	}
	w->fault->mr_dereg(m->nic.mrs[1]);
	assert_int_equal(cuda->cuCtxPushCurrent(w->ctx), 0);
	assert_int_equal(cuda->cuMemFree((uintptr_t)m->mem), 0);
	cuda->cuCtxPopCurrent(&ctx);
}

/* ---- the node ---- */

static void device_open(struct world *w, const struct weft_transport *t, struct weft_device **dev,
			struct weft_cq *cqs[2])
{
	struct weft_device_opts o = { .size = sizeof(o) };
	struct weft_cq_opts cq = { .size = sizeof(cq) };

	if (t == &wfi_transport_cuda)
		assert_int_equal(wfi_cuda_device_create(t, w->env, mock_cuda_table(), dev), 0);
	else
		assert_int_equal(t->device_open(t, w->env, &o, dev), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(t->cq_create(*dev, &cq, &cqs[i]), 0);
}

static void device_close(struct weft_device *dev, struct weft_cq *const cqs[2])
{
	for (unsigned i = 0; i < 2; i++)
		dev->transport->cq_destroy(cqs[i]);
	dev->transport->device_close(dev);
}

static struct weft_ep *mem_ep(struct weft_device *dev, struct weft_cq *const cqs[2])
{
	const struct weft_ep_opts o = {
		.size = sizeof(o), .send_cq = cqs[0], .recv_cq = cqs[1], .flags = WEFT_EP_MEM
	};
	struct weft_ep *ep;

	assert_int_equal(dev->transport->ep_create(dev, &o, &ep), 0);
	return ep;
}

static void kv_open(struct world *w)
{
	const struct weft_space_opts space = { .size = sizeof(space),
					       .block_bytes = BLOCK,
					       .model = "handoff",
					       .layout = "test",
					       .tokens_per_block = 16,
					       .nr_layers = NL };
	const struct wfi_tenant_opts tenant = { .name = "t", .token = "", .arena_bytes = 2 << 20 };
	struct wfi_kv_opts kv = { .env = w->env, .extent_bytes = 1 << 16, .max_slots = 1 << 16 };

	assert_int_equal(wfi_kv_create(&kv, &w->kv), 0);
	assert_int_equal(wfi_kv_tenant_add(w->kv, &tenant, &w->tenant), 0);
	assert_int_equal(wfi_kv_space_open(w->kv, w->tenant, &space, &w->space, NULL), 0);
	assert_int_equal(wfi_owner_init(w->kv, &w->engine, w->tenant), 0);
}

static void links_open(struct world *w)
{
	static const struct wfi_fault_opts calm = { .seed = 1 };
	const struct weft_transport *loop = wfi_transport_find(NULL, "loop");
	const struct wfi_map *arena = wfi_tenant_arena(w->tenant);
	const struct weft_mr_opts mr = { .size = sizeof(mr),
					 .addr = arena->addr,
					 .len = arena->len,
					 .access = WEFT_ACCESS_LOCAL_WRITE };

	assert_int_equal(wfi_fault_create(loop, &calm, &w->fault), 0);
	device_open(w, w->fault, &w->nic, w->nic_cqs);
	device_open(w, loop, &w->cpu, w->cpu_cqs);
	assert_int_equal(mock_cuda_table()->cuDevicePrimaryCtxRetain(&w->ctx, 0), 0);
	device_open(w, &wfi_transport_cuda, &w->gpu, w->gpu_cqs);
	assert_int_equal(w->fault->mr_reg(w->nic, &mr, &w->arena), 0);
	assert_int_equal(wfi_transport_cuda.mr_reg(w->gpu, &mr, &w->gpu_arena), 0);
	w->cpu_ep = mem_ep(w->cpu, w->cpu_cqs);
	w->gpu_ep = mem_ep(w->gpu, w->gpu_cqs);
}

static int setup(void **state, uint32_t max_xfers)
{
	struct world *w = calloc(1, sizeof(*w));
	struct wfi_xfer_engine_opts x = { .max_xfers = max_xfers };
	struct wfi_handoffs_opts o = { .node = HERE, .lease_ns = WFI_NSEC_PER_SEC };

	assert_non_null(w);
	mock_cuda_reset();
	assert_int_equal(wfi_sim_create(11, &w->sim), 0);
	w->env = x.env = o.env = wfi_sim_node(w->sim, 0);
	assert_int_equal(wfi_metrics_create(w->env, 1 << 20, &w->metrics), 0);
	kv_open(w);
	links_open(w);
	x.send_cqs[0] = w->nic_cqs[0];
	x.send_cqs[1] = w->gpu_cqs[0];
	assert_int_equal(wfi_xfer_engine_create(&x, &w->xfer), 0);
	o.kv = w->kv;
	o.xfer = w->xfer;
	o.metrics = w->metrics;
	assert_int_equal(wfi_handoffs_create(&o, &w->hs), 0);
	host_open(w);
	gpu_open(w, GPU);
	gpu_open(w, GPU_LAYERS);
	for (uint32_t i = 0; i < PEERS; i++)
		peer_open(w, &w->peers[i]);
	/* the space has all of the arena from here on */
	slots_take(w, 0);
	slots_give(w);
	w->nr_free = slots_free(w);
	*state = w;
	return 0;
}

int world_setup(void **state)
{
	return setup(state, 0);
}

int world_setup_few(void **state)
{
	return setup(state, 2);
}

static void assert_calm(struct world *w)
{
	struct weft_stat st;

	wfi_kv_stat(w->kv, w->tenant, &st);
	assert_int_equal(st.slots_filling, 0);
	assert_int_equal(st.slots_leased, 0);
	assert_int_equal(st.slots_quarantined, 0);
	assert_int_equal(wfi_handoffs_in(w->hs, w->space.id), 0);
}

int world_teardown(void **state)
{
	struct world *w = *state;

	faults(w, NULL);
	cuda_fails(NULL, 0);
	slots_give(w);
	turns(w, WFI_NSEC_PER_SEC);
	for (uint32_t i = 0; i < PEERS; i++)
		peer_lose(w, &w->peers[i]);
	turns(w, 2 * WFI_NSEC_PER_SEC);
	wfi_owner_fini(w->kv, &w->engine, false);
	assert_calm(w);
	for (uint32_t i = 0; i < PEERS; i++) {
		assert_null(w->peers[i].ep);
		free(w->peers[i].mem);
	}
	wfi_handoffs_destroy(w->hs);
	for (unsigned k = 0; k < KINDS; k++)
		memory_close(w, &w->memory[k]);
	wfi_xfer_engine_destroy(w->xfer);
	w->cpu->transport->ep_destroy(w->cpu_ep);
	wfi_transport_cuda.ep_destroy(w->gpu_ep);
	w->fault->mr_dereg(w->arena);
	wfi_transport_cuda.mr_dereg(w->gpu_arena);
	device_close(w->nic, w->nic_cqs);
	device_close(w->cpu, w->cpu_cqs);
	device_close(w->gpu, w->gpu_cqs);
	wfi_fault_destroy(w->fault);
	mock_cuda_table()->cuDevicePrimaryCtxRelease(0);
	assert_int_equal(mock_cuda_held(), 0);
	assert_int_equal(mock_cuda_refs(), 0);
	wfi_kv_destroy(w->kv);
	wfi_metrics_destroy(w->metrics);
	wfi_sim_destroy(w->sim);
	free(w);
	return 0;
}

/* ---- time ---- */

static void turn(struct world *w)
{
	struct weft_wc wcs[16];

	wfi_xfer_poll(w->xfer, now(w));
	wfi_handoffs_poll(w->hs, now(w));
	wfi_kv_poll(w->kv, now(w));
	weft_cq_poll(w->nic_cqs[1], wcs, 16);
	weft_cq_poll(w->gpu_cqs[1], wcs, 16);
	peers_reap(w);
}

void turns(struct world *w, uint64_t ns)
{
	const uint64_t end_ns = now(w) + ns;

	for (unsigned i = 0; i < 20; i++)
		turn(w);
	while (now(w) < end_ns) {
		wfi_sim_advance(w->sim, WFI_NSEC_PER_MSEC);
		turn(w);
	}
}

void faults(struct world *w, const struct wfi_fault_opts *f)
{
	static const struct wfi_fault_opts calm = { .seed = 1 };

	wfi_fault_set(w->fault, f ? f : &calm);
}

void cuda_fails(const char *call, int res)
{
	mock_cuda.fail_res = res;
	mock_cuda.fail_call = call;
}

uint64_t counted(const struct world *w, const char *name)
{
	struct wfi_metrics_view *v;
	struct wfi_metric_info m;
	uint64_t value = UINT64_MAX;

	assert_int_equal(wfi_metrics_view_open(wfi_metrics_fd(w->metrics), &v), 0);
	for (unsigned i = 0; i < wfi_metrics_view_nr(v); i++)
		if (!wfi_metrics_view_get(v, i, &m) && !strcmp(m.name, name))
			value = m.counter->value;
	wfi_metrics_view_close(v);
	assert_true(value != UINT64_MAX);
	return value;
}

/* ---- slots ---- */

uint64_t slots_free(const struct world *w)
{
	struct weft_stat st;

	wfi_kv_stat(w->kv, w->tenant, &st);
	return st.slots_free;
}

void slots_take(struct world *w, unsigned but)
{
	while (wfi_kv_claim(w->kv, &w->engine, w->space.id, 1, &w->taken[w->nr_taken], now(w)) == 1)
		assert_in_range(++w->nr_taken, 0, WFI_ARRAY_SIZE(w->taken) - 1);
	assert_in_range(w->nr_taken, but, WFI_ARRAY_SIZE(w->taken));
	w->nr_taken -= but;
	wfi_kv_unclaim(w->kv, &w->engine, &w->taken[w->nr_taken], but);
}

void slots_give(struct world *w)
{
	if (w->nr_taken)
		wfi_kv_unclaim(w->kv, &w->engine, w->taken, w->nr_taken);
	w->nr_taken = 0;
}

/* ---- bytes ---- */

uint8_t byte_of(uint32_t block, uint32_t layer, uint64_t off)
{
	return (uint8_t)(wfi_mix64(block * 7919u + layer * 104729u + off / 64) >> 8 * (off % 8));
}

uint8_t byte_at(uint32_t layer, uint32_t kv, uint64_t token, uint32_t head, uint32_t byte)
{
	return (uint8_t)wfi_mix64(((token * NL + layer) * 2 + kv) * 64 + head + byte * 1000003ull);
}

uint8_t *place_byte(struct place_memory *m, uint32_t block, uint32_t layer, uint64_t off)
{
	uint64_t at;

	wfi_gpu_shape_run(&m->nic.shape, m->blocks[block].remote + layer * LAYER + off, &at);
	return m->mem + at;
}

void place_fill(struct place_memory *m)
{
	for (uint32_t b = 0; b < NB; b++)
		for (uint32_t i = 0; i < BLOCK; i++)
			*place_byte(m, b, i / LAYER, i % LAYER) = byte_of(b, i / LAYER, i % LAYER);
}

bool place_filled(struct place_memory *m, uint32_t nr_layers)
{
	for (uint32_t b = 0; b < NB; b++)
		for (uint32_t i = 0; i < nr_layers * LAYER; i++)
			if (*place_byte(m, b, i / LAYER, i % LAYER) !=
			    byte_of(b, i / LAYER, i % LAYER))
				return false;
	return true;
}

void peer_fill(struct peer *p)
{
	for (uint32_t b = 0; b < NB; b++)
		for (uint32_t i = 0; i < BLOCK; i++)
			p->mem[b * BLOCK + i] = byte_of(b, i / LAYER, i % LAYER);
}

/* each byte of a layer of a block: where it lies in the block, and what is to stand there */
static void each_byte(const struct weft_layout *l, uint32_t block, uint32_t layer,
		      void (*visit)(void *ctx, uint64_t off, uint8_t byte), void *ctx)
{
	const uint32_t nr = l->nr_kv * l->nr_tokens * l->nr_heads * l->head_bytes;

	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t byte = i % l->head_bytes, h = i / l->head_bytes % l->nr_heads;
		const uint32_t t = i / l->head_bytes / l->nr_heads % l->nr_tokens;
		const uint32_t kv = i / l->head_bytes / l->nr_heads / l->nr_tokens;

		visit(ctx,
		      l->base + layer * l->layer_stride + kv * l->kv_stride + t * l->token_stride +
			      h * l->head_stride + byte,
		      byte_at(layer, l->first_kv + kv, (uint64_t)block * l->nr_tokens + t,
			      l->first_head + h, byte));
	}
}

struct visit {
	struct place_memory *m;
	struct peer *p;
	uint32_t block;
	uint64_t block_bytes;
	bool differs;
};

static void fill_place(void *ctx, uint64_t off, uint8_t byte)
{
	const struct visit *v = ctx;

	*place_byte(v->m, v->block, (uint32_t)(off / LAYER), off % LAYER) = byte;
}

static void check_place(void *ctx, uint64_t off, uint8_t byte)
{
	struct visit *v = ctx;

	v->differs |= *place_byte(v->m, v->block, (uint32_t)(off / LAYER), off % LAYER) != byte;
}

static void fill_peer(void *ctx, uint64_t off, uint8_t byte)
{
	const struct visit *v = ctx;

	v->p->mem[v->block * v->block_bytes + off] = byte;
}

void shaped_fill(struct place_memory *m, const struct weft_layout *l, uint32_t nr_blocks)
{
	struct visit v = { .m = m };

	for (; v.block < nr_blocks; v.block++)
		for (uint32_t layer = 0; layer < NL; layer++)
			each_byte(l, v.block, layer, fill_place, &v);
}

bool shaped_filled(struct place_memory *m, const struct weft_layout *l, uint32_t nr_blocks)
{
	struct visit v = { .m = m };

	for (; v.block < nr_blocks; v.block++)
		for (uint32_t layer = 0; layer < NL; layer++)
			each_byte(l, v.block, layer, check_place, &v);
	return !v.differs;
}

void peer_fill_shaped(struct peer *p, const struct weft_layout *l, uint32_t nr_blocks)
{
	struct visit v = { .p = p, .block_bytes = NL * l->layer_stride };

	for (; v.block < nr_blocks; v.block++)
		for (uint32_t layer = 0; layer < NL; layer++)
			each_byte(l, v.block, layer, fill_peer, &v);
}

/* ---- both halves ---- */

static void on_landed(void *ctx, uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr,
		      const struct weft_slot *slots)
{
	struct heard *h = ctx;

	(void)slots;
	assert_false(h->done);
	assert_int_equal(h->late, 0);
	for (uint32_t l = layer; l < layer + nr_layers; l++)
		for (uint32_t b = first; b < first + nr; b++) {
			assert_false(h->layers[l] >> b & 1);
			h->layers[l] |= 1u << b;
		}
}

static void on_late(void *ctx, int res)
{
	struct heard *h = ctx;

	assert_false(h->done);
	assert_int_equal(h->late, 0);
	h->late = res;
}

static void on_end(struct heard *h, int res)
{
	assert_false(h->done);
	h->done = true;
	h->res = res;
}

static void on_expected(void *ctx, int res, uint64_t lease, const struct weft_slot *slots)
{
	struct heard *h = ctx;
	struct world *w = h->w;
	int32_t results[NB];

	(void)slots;
	on_end(h, res);
	if (!lease)
		return;
	wfi_kv_release(w->kv, &w->engine, lease);
	wfi_kv_drop(w->kv, w->space.id, h->keys, (uint32_t)res, results);
}

static void on_pushed(void *ctx, int res)
{
	on_end(ctx, res);
}

static uint32_t blocks_of(const struct weft_layout *l)
{
	return l ? NB / 4 : NB;
}

void expect(struct world *w, struct heard *h, struct place_memory *m, const struct weft_layout *l,
	    uint64_t timeout_ns)
{
	static uint64_t name;
	const struct wfi_expect_opts o = {
		.owner = &w->engine,
		.space = w->space.id,
		.nr_blocks = blocks_of(l),
		.nr_layers = NL,
		.keys = h->keys,
		.layout = l,
		.places = m ? &m->places : NULL,
		.verify = m != NULL,
		.now_ns = now(w),
		.deadline_ns = now(w) + timeout_ns,
		.landed = on_landed,
		.done = on_expected,
		.late = on_late,
		.ctx = h,
	};

	*h = (struct heard){ .w = w };
	for (uint32_t i = 0; i < NB; i++, name++)
		h->keys[i] = (struct weft_key){ .lo = wfi_mix64(name), .hi = name };
	assert_int_equal(wfi_handoff_expect(w->hs, &o, &h->ticket, &h->handle), 0);
}

/* which bytes of a block are a layer's: their sum is made in the order in which they lie */
static void mark(void *ctx, uint64_t off, uint8_t byte)
{
	bool *marks = ctx;

	(void)byte;
	assert_in_range(off, 0, MEM - 1);
	assert_false(marks[off]);
	marks[off] = true;
}

static uint32_t shaped_crc(const struct peer *p, const struct weft_layout *l, uint32_t block,
			   uint32_t layer)
{
	const uint64_t bytes = NL * l->layer_stride + l->base;
	bool *marks = calloc(1, MEM);
	uint32_t crc = 0;

	assert_non_null(marks);
	each_byte(l, block, layer, mark, marks);
	for (uint64_t off = 0; off < bytes; off++)
		if (marks[off])
			crc = wfi_crc32c(crc, &p->mem[block * NL * l->layer_stride + off], 1);
	free(marks);
	return crc;
}

void says(struct world *w, struct peer *p, const struct heard *h, const struct weft_layout *l,
	  uint32_t push, uint32_t layer, uint32_t first, uint32_t nr)
{
	struct {
		struct wfi_msg_shaped m;
		struct wfi_msg_piece pieces[NB];
	} msg = { .m = { .m = { .type = l ? WFI_MSG_SHAPED : WFI_MSG_LAYERS,
				.nr = nr,
				.push = push,
				.handoff = h->ticket.handoff,
				.incarnation = h->ticket.incarnation,
				.secret = { h->ticket.secret[0], h->ticket.secret[1] },
				.space_tag = w->space.tag,
				.layer = layer,
				.nr_layers = 1,
				.first_block = first,
				.timeout_us = (uint32_t)(DEADLINE_NS / 1000) } } };
	const struct wfi_msg_layers m = msg.m.m;
	char *start = (char *)&msg + (l ? 0 : sizeof(msg.m.layout));

	memcpy(start, &m, sizeof(m));
	if (l)
		msg.m.layout = *l;
	p->done[push] = 0;
	for (uint32_t i = 0; i < nr; i++) {
		const uint32_t b = first + i;
		const uint64_t off = l ? b * NL * l->layer_stride : b * BLOCK + layer * LAYER;

		msg.pieces[i] = (struct wfi_msg_piece){
			.off = off,
			.crc = l ? shaped_crc(p, l, b, layer) : wfi_crc32c(0, p->mem + off, LAYER),
		};
	}
	assert_int_equal(wfi_handoffs_message(w->hs, &p->base, start,
					      (size_t)((char *)&msg.pieces[nr] - start), now(w)),
			 0);
}

void says_abort(struct world *w, struct peer *p, const struct heard *h, int res)
{
	const struct wfi_msg_layers m = {
		.type = WFI_MSG_ABORT,
		.nr = (uint32_t)-res,
		.handoff = h->ticket.handoff,
		.incarnation = h->ticket.incarnation,
		.secret = { h->ticket.secret[0], h->ticket.secret[1] },
	};

	assert_int_equal(wfi_handoffs_message(w->hs, &p->base, &m, sizeof(m), now(w)), 0);
}

int push(struct world *w, struct heard *h, struct peer *p, struct place_memory *m,
	 const struct weft_layout *l, uint32_t layer, uint64_t timeout_ns)
{
	struct wfi_push_opts o = {
		.owner = &w->engine,
		.space = w->space.id,
		.ticket = &h->ticket,
		.layer = layer,
		.nr_layers = 1,
		.nr = blocks_of(l),
		.places = &m->places,
		.layout = l,
		.peer = &p->base,
		.now_ns = now(w),
		.deadline_ns = now(w) + timeout_ns,
		.done = on_pushed,
		.late = on_late,
		.ctx = h,
	};

	*h = (struct heard){
		.w = w,
		.ticket = { .node = p->base.node,
			    .incarnation = 7,
			    .handoff = p->base.node,
			    .secret = { 1, 2 },
			    .nr_blocks = blocks_of(l),
			    .nr_layers = NL,
			    .expires_ns = w->env->clock->wall_ns(w->env) + WFI_NSEC_PER_SEC,
			    .nr_tokens = l ? blocks_of(l) * l->nr_tokens : 0 },
	};
	return wfi_handoff_push(w->hs, &o);
}

void answers(struct world *w, struct peer *p, unsigned msg, int res)
{
	const struct wfi_msg_done m = { .type = WFI_MSG_LAYERS_DONE,
					.res = res,
					.push = p->msgs[msg].m.push };

	assert_int_equal(wfi_handoffs_message(w->hs, &p->base, &m, sizeof(m), now(w)), 0);
}
