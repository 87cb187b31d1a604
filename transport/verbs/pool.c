/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered buffers, shared by all endpoints of a device: an endpoint that comes registers
 * nothing here, and the NIC knows a few large registrations instead of many small ones.
 */
#include <errno.h>
#include "transport/verbs/verbs.h"

/* what a pool grew by at once */
struct wfi_verbs_grown {
	struct wfi_verbs_grown *next;
	struct wfi_verbs_slab *slab;
	uint32_t nr;
	struct wfi_verbs_buf bufs[];
};

struct wfi_verbs_slab *wfi_verbs_slab_open(struct wfi_verbs_device *dev, size_t len, int access)
{
	struct wfi_env *env = dev->base.env;
	struct wfi_verbs_slab *slab = wfi_alloc(env, sizeof(*slab));

	if (!slab)
		return NULL;
	slab->len = len;
	slab->mem = wfi_alloc(env, len);
	if (!slab->mem)
		goto err_slab;
	slab->mr = wfi_verbs_pin(dev, slab->mem, len, access);
	if (slab->mr)
		return slab;
	wfi_free(env, slab->mem, len);
err_slab:
	wfi_free(env, slab, sizeof(*slab));
	return NULL;
}

void wfi_verbs_slab_close(struct wfi_verbs_device *dev, struct wfi_verbs_slab *slab)
{
	ibv_dereg_mr(slab->mr);
	wfi_free(dev->base.env, slab->mem, slab->len);
	wfi_free(dev->base.env, slab, sizeof(*slab));
}

static size_t grown_len(uint32_t nr)
{
	return sizeof(struct wfi_verbs_grown) + nr * sizeof(struct wfi_verbs_buf);
}

static int grow_by(struct wfi_verbs_pool *pool, uint32_t nr)
{
	struct wfi_env *env = pool->dev->base.env;
	struct wfi_verbs_grown *g = wfi_alloc(env, grown_len(nr));
	uint32_t i;

	if (!g)
		return -ENOMEM;
	g->slab = wfi_verbs_slab_open(pool->dev, (size_t)nr * pool->buf_bytes, pool->access);
	if (!g->slab) {
		wfi_free(env, g, grown_len(nr));
		return -ENOMEM;
	}
	g->nr = nr;
	g->next = pool->grown;
	pool->grown = g;
	pool->nr += nr;
	for (i = 0; i < nr; i++) {
		g->bufs[i].mem = g->slab->mem + (size_t)i * pool->buf_bytes;
		g->bufs[i].lkey = g->slab->mr->lkey;
		wfi_verbs_buf_put(pool, &g->bufs[i]);
	}
	return 0;
}

int wfi_verbs_pool_grow(struct wfi_verbs_pool *pool)
{
	uint32_t nr = (uint32_t)wfi_min(pool->nr, pool->max - pool->nr);

	if (!nr)
		return -ENOMEM;
	if (!grow_by(pool, nr))
		return 0;
	/* what was not to be had once is not asked for with every message */
	pool->max = pool->nr;
	return -ENOMEM;
}

int wfi_verbs_pool_init(struct wfi_verbs_pool *pool, struct wfi_verbs_device *dev,
			uint32_t buf_bytes, uint32_t first, uint32_t max, int access)
{
	*pool = (struct wfi_verbs_pool){
		.dev = dev, .buf_bytes = buf_bytes, .max = max, .access = access
	};
	return grow_by(pool, first);
}

void wfi_verbs_pool_fini(struct wfi_verbs_pool *pool)
{
	struct wfi_verbs_grown *g;

	while ((g = pool->grown)) {
		pool->grown = g->next;
		wfi_verbs_slab_close(pool->dev, g->slab);
		wfi_free(pool->dev->base.env, g, grown_len(g->nr));
	}
}
