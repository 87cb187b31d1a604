/* SPDX-License-Identifier: Apache-2.0 */
/* client_ring.c - a ring's life: open, lost with its node, opened again, closed */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ring/client_priv.h"

/* ---- the segment ---- */

static bool table_ok(uint64_t off, uint64_t nr, uint64_t size, uint64_t len)
{
	return off % WFI_CACHELINE == 0 && wfi_range_ok(off, nr * size, len);
}

/* @hdr is our copy */
static bool hdr_ok(const struct weft_ring_hdr *hdr, uint64_t len)
{
	return hdr->magic == WEFT_RING_MAGIC && hdr->version == WEFT_ABI_VERSION &&
	       wfi_is_pow2(hdr->sq_depth) && hdr->sq_depth <= WEFT_RING_DEPTH_MAX &&
	       wfi_is_pow2(hdr->cq_depth) && hdr->cq_depth >= hdr->sq_depth &&
	       hdr->cq_depth <= 2 * WEFT_RING_DEPTH_MAX && hdr->arg_bytes >= 4096 &&
	       hdr->arg_bytes <= WEFT_ARG_BYTES_MAX && hdr->len <= len &&
	       table_ok(hdr->sq_off, hdr->sq_depth, sizeof(struct weft_sqe), hdr->len) &&
	       table_ok(hdr->cq_off, hdr->cq_depth, sizeof(struct weft_cqe), hdr->len) &&
	       table_ok(hdr->arg_off, hdr->arg_bytes, 1, hdr->len);
}

static int segment_map(int fd, uint64_t len, void **out, struct weft_ring_hdr *hdr)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) || (uint64_t)st.st_size < len || len < 4096 || len > SIZE_MAX)
		return wfi_client_fail(-EPROTO, "the node's ring is shorter than it says");
	map = mmap(NULL, (size_t)len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return wfi_client_fail(-errno, "the ring's segment can't be mapped");
	memcpy(hdr, map, sizeof(*hdr));
	if (!hdr_ok(hdr, len)) {
		munmap(map, (size_t)len);
		return wfi_client_fail(-EPROTO, "the node's ring makes no sense: use libweft and "
						"weftd of one release");
	}
	wfi_client_keep(map, len);
	*out = map;
	return 0;
}

static void lay_out(struct weft_ring *ring, const struct weft_ring_hdr *hdr)
{
	char *base = ring->map;

	ring->engine = (struct weft_ring_line *)(base + WEFT_RING_ENGINE_OFF);
	ring->node = (const struct weft_ring_line *)(base + WEFT_RING_NODE_OFF);
	ring->sq = (uint64_t *)(base + hdr->sq_off);
	ring->cq = (const uint64_t *)(base + hdr->cq_off);
	ring->arg = base + hdr->arg_off;
	ring->sq_mask = hdr->sq_depth - 1;
	ring->cq_mask = hdr->cq_depth - 1;
	ring->cq_quarter = hdr->cq_depth >= 4 ? hdr->cq_depth / 4 : 1;
	ring->sq_pos = 0;
	ring->sq_head = 0;
	ring->cq_pos = 0;
	ring->cq_shown = 0;
	ring->empties = 0;
}

static int flights_init(struct weft_ring *ring, uint32_t nr)
{
	uint32_t i;

	ring->flights = aligned_alloc(sizeof(*ring->flights), nr * sizeof(*ring->flights));
	if (!ring->flights)
		return -ENOMEM;
	memset(ring->flights, 0, nr * sizeof(*ring->flights));
	for (i = 0; i < nr; i++)
		ring->flights[i].next = i + 1 < nr ? i + 1 : WFI_NO_FLIGHT;
	ring->nr_flights = nr;
	ring->first_free = 0;
	return 0;
}

static int open_call(struct weft_ring *ring, struct weft_ring_hdr *hdr)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_RING_OPEN,
				     .fd_in = -1,
				     .wants_fd = true };
	int ret;

	call.req.u.ring.sq_depth = ring->depth;
	call.req.u.ring.arg_bytes = ring->arg_bytes;
	ret = wfi_client_ctl(ring->w, &call, WFI_CTL_TIMEOUT_MS);
	if (ret < 0)
		return ret;
	ret = segment_map(call.fd_out, call.rep.len, &ring->map, hdr);
	close(call.fd_out);
	if (ret < 0)
		return ret;
	ring->map_len = call.rep.len;
	ring->id = call.rep.id;
	lay_out(ring, hdr);
	return 0;
}

/* ---- open and close ---- */

static void ring_free(struct weft_ring *ring)
{
	wfi_client_unmap(ring->w, ring->map, ring->map_len);
	wfi_args_fini(&ring->args);
	free(ring->flights);
	free(ring);
}

static int ring_add(struct weft *w, struct weft_ring *ring)
{
	struct weft_ring_hdr hdr;
	int ret = open_call(ring, &hdr);

	if (ret < 0)
		return ret;
	if (flights_init(ring, hdr.cq_depth) || wfi_args_init(&ring->args, hdr.arg_bytes))
		return wfi_client_fail(-ENOMEM, "no memory for a ring");
	ring->next = w->rings;
	w->rings = ring;
	__atomic_fetch_add(&w->nr_rings, 1, __ATOMIC_RELAXED);
	return 0;
}

int weft_ring_open(struct weft *w, const struct weft_ring_opts *in, struct weft_ring **out)
{
	struct weft_ring_opts opts = { .size = sizeof(opts) };
	struct weft_ring *ring;
	int ret;

	if (in) {
		ret = wfi_client_opts(&opts, sizeof(opts), in, sizeof(opts),
				      "struct weft_ring_opts");
		if (ret < 0)
			return ret;
	}
	ring = aligned_alloc(WFI_CACHELINE, wfi_align_up(sizeof(*ring), WFI_CACHELINE));
	if (!ring)
		return wfi_client_fail(-ENOMEM, "no memory for a ring");
	memset(ring, 0, sizeof(*ring));
	ring->w = w;
	ring->depth = opts.depth;
	ring->arg_bytes = opts.arg_bytes;
	pthread_mutex_lock(&w->lock);
	ret = ring_add(w, ring);
	pthread_mutex_unlock(&w->lock);
	if (ret < 0) {
		ring_free(ring);
		return ret;
	}
	*out = ring;
	return 0;
}

void weft_ring_close(struct weft_ring *ring)
{
	struct wfi_ctl_call call = { .req.type = WEFT_CTL_RING_CLOSE, .fd_in = -1 };
	struct weft_ring **p;
	struct weft *w;

	if (!ring)
		return;
	w = ring->w;
	call.req.id = ring->id;
	pthread_mutex_lock(&w->lock);
	/* answered when nothing of it is open; without an answer the node is gone, or it or a GPU
	 * hangs */
	wfi_client_ctl(w, &call, WFI_CTL_END_TIMEOUT_MS);
	for (p = &w->rings; *p != ring; p = &(*p)->next)
		;
	*p = ring->next;
	__atomic_fetch_sub(&w->nr_rings, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&w->lock);
	if (ring->signals)
		wfi_signals_close(ring);
	ring_free(ring);
}

/* ---- the node's end, and its next life ---- */

void wfi_ring_lose(struct weft_ring *ring)
{
	uint32_t i;

	if (ring->nr_lost == ring->nr_open)
		return;
	for (i = 0; i < ring->nr_flights; i++) {
		struct wfi_flight *f = &ring->flights[i];

		if (f->state == WFI_FLIGHT_OPEN)
			f->state = WFI_FLIGHT_LOST;
	}
	ring->nr_lost = ring->nr_open;
}

int wfi_ring_reopen(struct weft_ring *ring)
{
	struct weft_ring_hdr hdr;
	void *old = ring->map;
	uint64_t old_len = ring->map_len;
	int ret = open_call(ring, &hdr);

	if (ret < 0)
		return ret;
	wfi_client_unmap(ring->w, old, old_len);
	if (hdr.cq_depth != ring->nr_flights || hdr.arg_bytes != ring->args.bytes)
		return wfi_client_fail(-EPROTO, "the node gave a ring of another size than before");
	wfi_args_reset(&ring->args);
	return 0;
}
