/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the NIC may reach. Pinning costs a walk over every page, and for pages that nobody
 * has touched yet their making, so large memory is made present by several threads first, and what
 * is registered twice is pinned once.
 *
 * Sharing needs to know that it is the same memory: what lies at an address can change. A file has
 * an identity, so memfds and dma-bufs are shared, by file, offset, address, length and rights;
 * plain memory never is. A registration ends with its last user, at once, so none outlives what it
 * was made for. Pages are pinned for good: on-demand paging is never asked for.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"
#include "weft_internal/memlock.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

#define PIECE (64ull << 20) /* that one thread takes */
#define THREADS 8u

struct populate {
	uint8_t *addr;
	uint64_t len;
	uint64_t next; /* first byte that no thread has taken */
	int advice;
};

static void *populate_some(void *arg)
{
	struct populate *p = arg;
	uint64_t off;

	/* each piece is one thread's; join orders what they did */
	while ((off = __atomic_fetch_add(&p->next, PIECE, __ATOMIC_RELAXED)) < p->len)
		madvise(p->addr + off, wfi_min(PIECE, p->len - off), p->advice);
	return NULL;
}

/* what can't be made present shows when it is pinned */
static void populate(void *addr, uint64_t len, uint32_t access)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t skew = (uintptr_t)addr & (page - 1);
	struct populate p = {
		.addr = (uint8_t *)addr - skew,
		.len = (len + skew + page - 1) & ~(page - 1),
		.advice = access & WEFT_ACCESS_LOCAL_WRITE ? MADV_POPULATE_WRITE
							   : MADV_POPULATE_READ,
	};
	pthread_t threads[THREADS];
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned nr = 0, want;

	want = (unsigned)wfi_min(wfi_min(cpus > 0 ? (uint64_t)cpus : 1, THREADS), p.len / PIECE);
	while (nr + 1 < want && !pthread_create(&threads[nr], NULL, populate_some, &p))
		nr++;
	populate_some(&p);
	while (nr)
		pthread_join(threads[--nr], NULL);
}

static void say_why(int err, uint64_t len)
{
	const uint64_t limit = wfi_memlock_limit();
	char why[WEFT_WHY_MAX];

	if (err == ENOMEM && limit != UINT64_MAX) {
		wfi_memlock_says(len, limit, why, sizeof(why));
		wfi_err("verbs: %s", why);
	} else {
		wfi_err("verbs: %llu KiB can't be registered: %s", (unsigned long long)len >> 10,
			strerror(err));
	}
}

struct ibv_mr *wfi_verbs_pin(struct wfi_verbs_device *dev, void *mem, size_t len, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(dev->pd, mem, len, access);

	if (!mr)
		say_why(errno, len);
	return mr;
}

struct ibv_mr *wfi_verbs_pin_opts(struct wfi_verbs_device *dev, const struct weft_mr_opts *o,
				  int access)
{
	struct ibv_mr *mr;

	if (o->kind != WEFT_MR_DMABUF)
		return wfi_verbs_pin(dev, o->addr, o->len, access);
	mr = ibv_reg_dmabuf_mr(dev->pd, o->fd_off, o->len, (uintptr_t)o->addr, o->fd, access);
	if (!mr)
		say_why(errno, o->len);
	return mr;
}

static bool same(const struct wfi_verbs_pinned *a, const struct wfi_verbs_pinned *b)
{
	return a->addr == b->addr && a->len == b->len && a->off == b->off && a->ino == b->ino &&
	       a->dev == b->dev && a->access == b->access;
}

/* as wfi_verbs_pinned_get(). Context: .pin_lock is held */
static int pinned_get(struct wfi_verbs_device *dev, const struct weft_mr_opts *o, int access,
		      struct wfi_verbs_pinned **out)
{
	struct wfi_verbs_pinned key = { .addr = o->addr, .len = o->len, .access = access }, *p;
	struct stat st;

	if (o->kind != WEFT_MR_HOST) {
		if (fstat(o->fd, &st))
			return -errno;
		key.off = o->fd_off;
		key.dev = st.st_dev;
		key.ino = st.st_ino;
		for (p = dev->pinned; p; p = p->next) {
			if (!same(p, &key))
				continue;
			p->refs++;
			*out = p;
			return 0;
		}
	}
	p = wfi_alloc(dev->base.env, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = key;
	if (o->kind != WEFT_MR_DMABUF && o->len >= 2 * PIECE)
		populate(o->addr, o->len, o->access);
	p->mr = wfi_verbs_pin_opts(dev, o, access);
	if (!p->mr) {
		int ret = -errno;

		wfi_free(dev->base.env, p, sizeof(*p));
		return ret;
	}
	p->refs = 1;
	p->next = o->kind == WEFT_MR_HOST ? NULL : dev->pinned;
	if (o->kind != WEFT_MR_HOST)
		dev->pinned = p;
	*out = p;
	return 0;
}

int wfi_verbs_pinned_get(struct wfi_verbs_device *dev, const struct weft_mr_opts *o, int access,
			 struct wfi_verbs_pinned **out)
{
	int ret;

	pthread_mutex_lock(&dev->pin_lock);
	ret = pinned_get(dev, o, access, out);
	pthread_mutex_unlock(&dev->pin_lock);
	return ret;
}

void wfi_verbs_pinned_put(struct wfi_verbs_device *dev, struct wfi_verbs_pinned *p)
{
	struct wfi_verbs_pinned **link;

	pthread_mutex_lock(&dev->pin_lock);
	if (!--p->refs) {
		for (link = &dev->pinned; *link && *link != p; link = &(*link)->next)
			;
		if (*link)
			*link = p->next;
		ibv_dereg_mr(p->mr);
		wfi_free(dev->base.env, p, sizeof(*p));
	}
	pthread_mutex_unlock(&dev->pin_lock);
}
