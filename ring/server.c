/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "ring/bell.h"
#include "ring/entry.h"
#include "weft_internal/log.h"
#include "weft_internal/ring_server.h"
#include "weft_internal/util.h"

#define SQ_OFF 256u /* two pairs of lines after the header: pairs are fetched together */
#define DEPTH_DEFAULT 256u
#define ARG_BYTES_DEFAULT (4u << 20)
#define PAGE 4096u

/*
 * Positions run freely. Room in the completion queue is counted against .cq_head, the last head of
 * the engine's that was seen and checked; what is owed is room already spoken for:
 *
 *	cq_pos - cq_head + owed <= cq_depth
 */
struct wfi_ring {
	uint64_t *sq;
	uint64_t *cq;
	struct weft_ring_line *node;
	const struct weft_ring_line *engine;
	char *arg;
	uint64_t arg_bytes;
	uint32_t sq_mask;
	uint32_t sq_pos;
	uint32_t sq_shown; /* what .node->head says */
	uint32_t sq_quarter;
	uint32_t cq_mask;
	uint32_t cq_depth;
	uint32_t cq_pos;
	uint32_t cq_head;
	uint32_t owed;
	bool broken;
	bool published; /* completions since the last flush */
	bool refused; /* an event met a full queue */

	struct wfi_env *env;
	struct wfi_map map;
};

static bool opts_resolve(const struct wfi_ring_opts *in, struct wfi_ring_opts *out)
{
	out->sq_depth = in && in->sq_depth ? in->sq_depth : DEPTH_DEFAULT;
	if (!wfi_is_pow2(out->sq_depth) || out->sq_depth > WEFT_RING_DEPTH_MAX)
		return false;
	out->cq_depth = in && in->cq_depth ? in->cq_depth : 2 * out->sq_depth;
	if (!wfi_is_pow2(out->cq_depth) || out->cq_depth < out->sq_depth ||
	    out->cq_depth > 2 * WEFT_RING_DEPTH_MAX)
		return false;
	out->arg_bytes = in && in->arg_bytes ? in->arg_bytes : ARG_BYTES_DEFAULT;
	return out->arg_bytes % PAGE == 0 && out->arg_bytes <= WEFT_ARG_BYTES_MAX;
}

static void lay_out(struct wfi_ring *ring, const struct weft_ring_hdr *hdr)
{
	char *base = ring->map.addr;

	memcpy(base, hdr, sizeof(*hdr));
	ring->engine = (const struct weft_ring_line *)(base + WEFT_RING_ENGINE_OFF);
	ring->node = (struct weft_ring_line *)(base + WEFT_RING_NODE_OFF);
	ring->sq = (uint64_t *)(base + hdr->sq_off);
	ring->cq = (uint64_t *)(base + hdr->cq_off);
	ring->arg = base + hdr->arg_off;
	ring->arg_bytes = hdr->arg_bytes;
	ring->sq_mask = hdr->sq_depth - 1;
	ring->sq_quarter = hdr->sq_depth >= 4 ? hdr->sq_depth / 4 : 1;
	ring->cq_mask = hdr->cq_depth - 1;
	ring->cq_depth = hdr->cq_depth;
}

/* the geometry that follows from @opts. Return: false when one is out of range */
static bool hdr_fill(const struct wfi_ring_opts *opts, struct weft_ring_hdr *hdr)
{
	struct wfi_ring_opts o;

	memset(hdr, 0, sizeof(*hdr));
	if (!opts_resolve(opts, &o))
		return false;
	hdr->magic = WEFT_RING_MAGIC;
	hdr->version = WEFT_ABI_VERSION;
	hdr->sq_depth = o.sq_depth;
	hdr->cq_depth = o.cq_depth;
	hdr->arg_bytes = o.arg_bytes;
	hdr->sq_off = SQ_OFF;
	hdr->cq_off =
		wfi_align_up(hdr->sq_off + (uint64_t)o.sq_depth * sizeof(struct weft_sqe), 128);
	hdr->arg_off =
		wfi_align_up(hdr->cq_off + (uint64_t)o.cq_depth * sizeof(struct weft_cqe), PAGE);
	hdr->len = hdr->arg_off + o.arg_bytes;
	return true;
}

uint64_t wfi_ring_need(const struct wfi_ring_opts *opts)
{
	struct weft_ring_hdr hdr;

	return hdr_fill(opts, &hdr) ? hdr.len : 0;
}

int wfi_ring_create(struct wfi_env *env, const struct wfi_ring_opts *opts, struct wfi_ring **out)
{
	struct weft_ring_hdr hdr;
	struct wfi_ring *ring;
	int ret;

	if (!hdr_fill(opts, &hdr))
		return -EINVAL;
	ring = wfi_alloc(env, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	ring->env = env;
	ret = env->mem->map(env, hdr.len, WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT, &ring->map);
	if (ret < 0)
		goto err_free;
	lay_out(ring, &hdr);
	/* or the engine could seal it against writing, and against our next seal */
	fcntl(ring->map.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	*out = ring;
	return 0;

err_free:
	wfi_free(env, ring, sizeof(*ring));
	return ret;
}

void wfi_ring_destroy(struct wfi_ring *ring)
{
	if (!ring)
		return;
	ring->env->mem->unmap(ring->env, &ring->map);
	wfi_free(ring->env, ring, sizeof(*ring));
}

int wfi_ring_fd(const struct wfi_ring *ring)
{
	return ring->map.fd;
}

uint64_t wfi_ring_len(const struct wfi_ring *ring)
{
	return (uint64_t)(ring->arg - (char *)ring->map.addr) + ring->arg_bytes;
}

static __attribute__((cold, noinline)) int broken(struct wfi_ring *ring, const char *what,
						  uint32_t pos, uint32_t found)
{
	ring->broken = true;
	wfi_warn("ring: the engine broke the protocol: %s (position %u, found %u); detach it", what,
		 pos, found);
	return -EPROTO;
}

static uint32_t cq_room(const struct wfi_ring *ring)
{
	return ring->cq_depth - (ring->cq_pos - ring->cq_head) - ring->owed;
}

/* looks at the engine's line, which moves it: only when room runs short */
static int cq_refresh(struct wfi_ring *ring)
{
	/* pairs with the engine's release of its head: our next completion may overwrite the
	 * entry */
	uint32_t head = __atomic_load_n(&ring->engine->head, __ATOMIC_ACQUIRE);

	if (wfi_unlikely(head - ring->cq_head > ring->cq_pos - ring->cq_head))
		return broken(ring, "completion head outside of what was published", ring->cq_pos,
			      head);
	ring->cq_head = head;
	return 0;
}

static const uint64_t *sq_entry(const struct wfi_ring *ring, uint32_t pos)
{
	return ring->sq + (size_t)(pos & ring->sq_mask) * WFI_SQE_WORDS;
}

int wfi_ring_take(struct wfi_ring *ring, struct weft_sqe *out, unsigned max)
{
	unsigned room, nr;

	if (wfi_unlikely(ring->broken))
		return -EPROTO;
	room = cq_room(ring);
	if (wfi_unlikely(room < max)) {
		if (cq_refresh(ring) < 0)
			return -EPROTO;
		room = cq_room(ring);
		max = room < max ? room : max;
	}
	for (nr = 0; nr < max; nr++) {
		uint32_t pos = ring->sq_pos + nr;
		const uint64_t *entry = sq_entry(ring, pos);
		uint64_t first = wfi_entry_peek(entry);
		uint32_t seq = (uint32_t)first;

		if (seq != pos + 1) {
			if (wfi_unlikely(!wfi_entry_absent(seq, pos, ring->sq_mask + 1)))
				return broken(ring, "sequence of a submission", pos, seq);
			break;
		}
		/* where it will be answered, mostly: the engine has read that line since */
		wfi_prefetch_write(ring->cq +
				   (size_t)(ring->cq_pos & ring->cq_mask) * WFI_CQE_WORDS);
		wfi_entry_take(&out[nr], entry, first, WFI_SQE_WORDS);
	}
	ring->sq_pos += nr;
	ring->owed += nr;
	return (int)nr;
}

bool wfi_ring_args_ok(const struct wfi_ring *ring, uint64_t off, uint64_t len)
{
	return wfi_range_ok(off, len, ring->arg_bytes);
}

int wfi_ring_args_read(const struct wfi_ring *ring, uint64_t off, void *dst, uint64_t len)
{
	if (wfi_unlikely(!wfi_range_ok(off, len, ring->arg_bytes)))
		return -EFAULT;
	memcpy(dst, ring->arg + off, len);
	wfi_copied();
	return 0;
}

int wfi_ring_args_write(struct wfi_ring *ring, uint64_t off, const void *src, uint64_t len)
{
	if (wfi_unlikely(!wfi_range_ok(off, len, ring->arg_bytes)))
		return -EFAULT;
	memcpy(ring->arg + off, src, len);
	return 0;
}

static int event_room(struct wfi_ring *ring)
{
	if (cq_room(ring))
		return 0;
	if (cq_refresh(ring) < 0)
		return -EPROTO;
	ring->refused = !cq_room(ring);
	return ring->refused ? -EAGAIN : 0;
}

/* whole words from fields: the caller has just written those, and wider loads would wait for
 * them */
static void put_entry(uint64_t *entry, const struct weft_cqe *cqe, uint32_t seq)
{
	entry[1] = cqe->user_data;
	entry[2] = (uint64_t)cqe->op | (uint64_t)cqe->flags << 8 | (uint64_t)cqe->layer << 16 |
		   (uint64_t)cqe->nr_layers << 32;
	entry[3] = cqe->value;
	wfi_entry_publish(entry, (uint64_t)(uint32_t)cqe->res << 32 | seq);
}

int wfi_ring_complete(struct wfi_ring *ring, const struct weft_cqe *cqe)
{
	uint32_t pos = ring->cq_pos;

	if (wfi_unlikely(ring->broken))
		return -EPROTO;
	if (cqe->flags & WEFT_CQE_MORE) {
		int ret = event_room(ring);

		if (ret < 0)
			return ret;
	} else {
		assert(ring->owed);
		ring->owed--;
	}
	put_entry(ring->cq + (size_t)(pos & ring->cq_mask) * WFI_CQE_WORDS, cqe, pos + 1);
	ring->cq_pos = pos + 1;
	ring->published = true;
	return 0;
}

static void sq_show(struct wfi_ring *ring)
{
	ring->sq_shown = ring->sq_pos;
	/* pairs with the engine's acquire: it may fill the entries again, our copies are made */
	__atomic_store_n(&ring->node->head, ring->sq_pos, __ATOMIC_RELEASE);
}

void wfi_ring_flush(struct wfi_ring *ring)
{
	/* the engine reads our line after each batch of its own: it should not move for each of
	 * ours */
	bool show = ring->sq_pos - ring->sq_shown >= ring->sq_quarter;

	if (!ring->published && !show)
		return;
	if (show)
		sq_show(ring);
	ring->published = false;
	wfi_bell_fence();
	if (wfi_unlikely(wfi_bell_wanted(ring->engine)))
		wfi_bell_ring(ring->node);
}

/* Return: true when the worker has a reason to come back to this ring */
static bool has_work(struct wfi_ring *ring)
{
	uint32_t seq;

	if (ring->broken || cq_refresh(ring) < 0)
		return true;
	if (!cq_room(ring))
		return false; /* the engine rings when it moves its head */
	if (ring->refused) {
		ring->refused = false;
		return true;
	}
	seq = (uint32_t)wfi_entry_peek(sq_entry(ring, ring->sq_pos));
	return seq == ring->sq_pos + 1 || !wfi_entry_absent(seq, ring->sq_pos, ring->sq_mask + 1);
}

bool wfi_ring_sleep(struct wfi_ring *ring, const uint32_t **futex, uint32_t *val)
{
	uint32_t bell = wfi_bell_read(ring->engine);
	bool show = ring->sq_pos != ring->sq_shown || ring->published;

	if (ring->sq_pos != ring->sq_shown)
		sq_show(ring);
	ring->published = false;
	wfi_bell_sleeping(ring->node, 1);
	wfi_bell_fence();
	if (show && wfi_bell_wanted(ring->engine))
		wfi_bell_ring(ring->node);
	if (has_work(ring)) {
		wfi_bell_sleeping(ring->node, 0);
		return true;
	}
	*futex = &ring->engine->bell;
	*val = bell;
	return false;
}

void wfi_ring_awake(struct wfi_ring *ring)
{
	wfi_bell_sleeping(ring->node, 0);
}

void wfi_ring_kick(struct wfi_ring *ring)
{
	wfi_bell_ring(ring->node);
}
