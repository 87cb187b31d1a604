/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct.c - READs that end in memory of a device, and what came there
 *
 * No CPU sees these bytes: once the NIC has brought them the device sums them up, where they lie,
 * and a block whose sum is not that of its header did not come.
 */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/cluster_private.h"
#include "kvcache/cluster/peer_read.h"

/* Return: a block's runs at most */
static uint64_t runs_of(const struct wfi_nic_memory *m, uint64_t block_bytes)
{
	return m->shape.nr_segments ? block_bytes / m->shape.segment_bytes + 2 : 1;
}

uint32_t wfi_cl_direct_max(const struct wfi_pull *pull)
{
	const uint64_t runs = runs_of(pull->o.memory, pull->space.block_bytes);

	return runs == 1 ? CLUSTER_LEASE_MAX : (uint32_t)wfi_max(1, FLIGHT_RUNS / runs);
}

bool wfi_cluster_reaches(const struct wfi_cluster *c, const struct wfi_nic_memory *m,
			 uint64_t block_bytes)
{
	unsigned i, k;

	if (runs_of(m, block_bytes) > FLIGHT_RUNS)
		return false;
	for (i = 0; i < c->hi_peers; i++)
		for (k = 0; k < c->peers[i].nr_conns; k++)
			if (wfi_nic_mr(m, c->peers[i].conns[k]->ep->dev))
				return true;
	return false;
}

bool wfi_cl_direct_can(const struct flight *f)
{
	const struct wfi_pull_opts *o = &f->pull->o;

	return wfi_peer_reaches(f->conn, o->tenant, o->memory);
}

/* each piece as the runs that it is in the region */
static uint32_t runs_fill(const struct wfi_nic_memory *m, const struct flight *f)
{
	uint32_t i, n = 0;

	for (i = 0; i < f->nr_pieces; i++) {
		struct wfi_piece p = f->pieces[i];

		p.local = (void *)((uintptr_t)p.local - m->base);
		n += wfi_nic_runs(m, &p, &f->runs[n], FLIGHT_RUNS - n);
	}
	return n;
}

int wfi_cl_direct_read(struct wfi_cluster *c, struct flight *f, struct wfi_xfer_opts *x)
{
	const struct wfi_nic_memory *m = f->pull->o.memory;
	struct wfi_rail_mem mem[WFI_RAILS_MAX];
	struct wfi_xfer *open = NULL;
	int ret;

	if (m->shape.nr_segments) {
		if (!f->runs)
			f->runs = wfi_alloc(c->o.env, FLIGHT_RUNS * sizeof(*f->runs));
		if (!f->runs)
			return -ENOMEM;
		x->pieces = f->runs;
		x->nr_pieces = runs_fill(m, f);
	}
	x->sum_ops = NULL;
	x->sums = NULL;
	x->gather = NULL;
	x->names = NULL;
	f->ep = NULL;
	if (f->conn->rails && wfi_rails_nr(f->conn->rails) > 1) {
		f->conn->arenas(f->conn, f->pull->o.tenant, mem);
		wfi_nic_rails(m, mem);
		return wfi_rails_submit(f->conn->rails, x, mem, &f->over);
	}
	f->ep = x->ep;
	x->local_mr = wfi_nic_mr(m, x->ep->dev);
	ret = wfi_xfer_submit(c->o.xfer, x, &open);
	/* else it is over, and the next one is under way */
	if (!ret && open)
		f->xfer = open;
	return ret;
}

/* those that were read and those that could be summed up */
static void summed(void *ctx, int res)
{
	struct flight *f = ctx;
	uint32_t i;

	(void)res;
	for (i = 0; i < f->nr_pieces; i++)
		if (f->read[i])
			f->results[i] = f->read[i];
	wfi_cl_landed(f);
}

int wfi_cl_direct_sum(struct wfi_cluster *c, struct flight *f)
{
	const struct wfi_nic_memory *m = f->pull->o.memory;
	struct wfi_xfer_opts x = {
		.ep = m->rkey->ep,
		.dir = WFI_XFER_SUM_THERE,
		.rkeys = &m->rkey,
		.nr_rkeys = 1,
		.pieces = f->pieces,
		.nr_blocks = f->nr_pieces,
		.results = f->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = f->sums,
		.deadline_ns = f->pull->o.deadline_ns,
		.done = summed,
		.late = wfi_cl_flight_late,
		.ctx = f,
	};
	uint32_t i;
	int ret;

	memcpy(f->read, f->results, f->nr_pieces * sizeof(*f->read));
	for (i = 0; i < f->nr_pieces; i++) {
		if (f->read[i])
			continue;
		f->pieces[x.nr_pieces] = f->pieces[i];
		f->pieces[x.nr_pieces].rkey = 0;
		f->pieces[x.nr_pieces++].remote = (uintptr_t)f->pieces[i].local - m->base;
	}
	if (!x.nr_pieces)
		return -ENOENT;
	/* nobody else is asked meanwhile: it is here */
	f->hurry_ns = UINT64_MAX;
	ret = wfi_xfer_submit(c->o.xfer, &x, &f->xfer);
	for (i = 0; ret && i < f->nr_pieces; i++)
		f->results[i] = f->read[i] ? f->read[i] : ret;
	cl_count(c, CL_C_DIRECT, ret ? 0 : x.nr_pieces);
	return ret;
}
