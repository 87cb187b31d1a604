/* SPDX-License-Identifier: Apache-2.0 */
/* post.c - pieces that become copies: by the copy engine, or by a kernel */
#include <errno.h>
#include <string.h>
#include "gpu/error.h"
#include "transport/cuda/cuda.h"

/* one post on its way into a stream */
struct job {
	const struct wfi_cuda_device *dev;
	struct wfi_cuda_ep *ep;
	struct wfi_cuda_gpu *g;
	struct CUstream_st *stream;
	const struct weft_piece *pieces;
	const struct wfi_cuda_mr *mr; /* of .local where that is not bounced; NULL: nothing moves */
	uint32_t nr; /* good ones */
	enum wfi_cuda_way way;
	bool write; /* to what the pieces call remote */
	bool bounced;
};

/* Context: the endpoint's thread */
static void job_init(struct job *j, struct wfi_cuda_ep *ep, const struct weft_mr *mr, bool write)
{
	*j = (struct job){
		.dev = wfi_cuda_device(ep->base.dev),
		.ep = ep,
		.g = ep->gpu,
		.mr = wfi_cuda_mr(mr),
		.way = write ? WFI_CUDA_TO_GPU : WFI_CUDA_TO_HOST,
		.write = write,
	};
	if (j->mr->on || j->mr->far)
		j->way = WFI_CUDA_WITHIN;
	j->stream = ep->streams[j->way];
}

/* a run: part of a piece that is one piece on both sides */
struct run {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
};

/* the next run of a piece, of which @done bytes are behind us */
static struct run run_next(const struct job *j, const struct weft_piece *p, uint64_t done)
{
	uint64_t remote, len = wfi_cuda_run(wfi_cuda_rkey(p->rkey), p->remote + done, &remote);
	uint64_t local, local_len = wfi_cuda_local_run(j->mr, (char *)p->local + done, &local);

	return (struct run){
		.dst = j->write ? remote : local,
		.src = j->write ? local : remote,
		.len = wfi_min(wfi_min(len, local_len), p->len - done),
	};
}

/* ---- tables of kernels ---- */

uint32_t wfi_cuda_table_get(struct wfi_cuda_gpu *g)
{
	uint32_t i;

	if (!g->free_tables)
		return WFI_CUDA_NO_TABLE;
	i = (uint32_t)__builtin_ctz(g->free_tables);
	g->free_tables &= ~(1u << i);
	return i;
}

void wfi_cuda_tables_put(struct wfi_cuda_gpu *g, uint32_t tables)
{
	g->free_tables |= tables;
}

/* ---- by the copy engine ---- */

/* pieces from *@idx on, of which *@done bytes are asked for. Return: 0, -EINPROGRESS that was
 * enough for a turn, or -errno and *@idx: of the piece that it is about; logged */
static int by_copies(const struct job *j, uint32_t *idx, uint64_t *done)
{
	const struct wfi_cuda *cuda = j->g->gpu->cuda;
	struct run r;
	int res;

	for (; *idx < j->nr; ++*idx, *done = 0) {
		const struct weft_piece *p = &j->pieces[*idx];

		for (; *done < p->len; *done += r.len) {
			if (!j->ep->copies_left)
				return -EINPROGRESS;
			j->ep->copies_left--;
			r = run_next(j, p, *done);
			res = cuda->cuMemcpyAsync(r.dst, r.src, r.len, j->stream);
			if (res)
				return wfi_cuda_failed(j->g, "a copy", res);
		}
	}
	return 0;
}

/* ---- by kernels ---- */

/* as much as fits, of the first piece from *@done on, which becomes that of the next. Return: index
 * of the next */
static uint32_t table_fill(const struct job *j, uint32_t idx, uint64_t *done,
			   struct wfi_gpu_table *t)
{
	struct run r;

	for (; idx < j->nr; idx++, *done = 0) {
		const struct weft_piece *p = &j->pieces[idx];

		for (; *done < p->len; *done += r.len) {
			r = run_next(j, p, *done);
			if (wfi_gpu_table_add(t, r.src, r.dst, r.len))
				return idx;
		}
	}
	return idx;
}

/* as by_copies(); what finds no table goes there. *@tables: for the post */
static int by_kernels(const struct job *j, uint32_t *idx, uint64_t *copied, uint32_t *tables)
{
	uint64_t done = 0, next_done;
	struct wfi_gpu_table t;
	uint32_t i, next;
	int ret = 0;

	while (*idx < j->nr && !ret) {
		/* a piece that was begun is copied once more, by copies that come after */
		i = wfi_cuda_table_get(j->g);
		if (i == WFI_CUDA_NO_TABLE)
			return by_copies(j, idx, copied);
		t = (struct wfi_gpu_table){
			.items = j->g->items + (uint64_t)i * WFI_CUDA_ITEMS,
			.max = WFI_CUDA_ITEMS,
		};
		*tables |= 1u << i;
		next_done = done;
		next = table_fill(j, *idx, &next_done, &t);
		/* a run that is more than a table */
		if (!t.nr)
			return by_copies(j, idx, copied);
		ret = wfi_gpu_move(j->g->gpu, &t, NULL, NULL, 0, j->stream);
		if (!ret) {
			*idx = next;
			done = next_done;
		}
	}
	if (ret)
		wfi_cuda_look(j->g);
	return ret;
}

/* ---- posts ---- */

static bool is_within(const struct job *j)
{
	return j->mr->on || (j->mr->far && wfi_cuda_ep(j->mr->far->base.ep)->gpu == j->g);
}

/* few large ones, or many small ones? From GPU to GPU only the driver knows the way */
static bool is_small(const struct job *j, uint64_t bytes)
{
	const struct weft_piece *p = j->pieces;
	uint64_t addr, run;

	if (!(wfi_cuda_is_pinned(j->mr) || j->bounced || is_within(j)) || !j->nr)
		return false;
	run = wfi_min(bytes / j->nr, wfi_cuda_run(wfi_cuda_rkey(p->rkey), p->remote, &addr));
	run = wfi_min(run, wfi_cuda_local_run(j->mr, p->local, &addr));
	return run < j->g->small[j->way];
}

/* whether the GPU sums up the pieces. What it can't, somebody else does */
static bool sums(const struct job *j, struct wfi_cuda_post *p)
{
	const bool far = j->mr && j->mr->far;
	int ret;

	if (!(p->flags & WEFT_POST_SUMS) || p->status || (far && !is_within(j)))
		return false;
	ret = wfi_cuda_sums_start(j->g, j->dev, j->pieces, j->nr, NULL, j->stream, &p->sum_tables);
	if (!ret && far)
		ret = wfi_cuda_sums_start(j->g, j->dev, j->pieces, j->nr, j->mr, j->stream,
					  &p->far_tables);
	if (ret)
		wfi_cuda_look(j->g);
	return !ret;
}

/* all that will be is asked for, up to piece @idx. In the GPU's context */
static void launched(const struct job *j, struct wfi_cuda_post *p, uint32_t idx, int status)
{
	if (status) {
		p->idx = idx;
		p->status = status;
	}
	p->summed = sums(j, p);
	wfi_cuda_post_mark(j->ep, p);
}

/* the pieces are the caller's until it returns */
static void rest_begin(const struct job *j, uint32_t at, uint32_t idx, uint64_t done)
{
	struct wfi_cuda_rest *r = &j->ep->rest;

	memcpy(r->pieces, j->pieces, j->nr * sizeof(*r->pieces));
	r->mr = &j->mr->base;
	r->at = at;
	r->nr = j->nr;
	r->idx = idx;
	r->done = done;
	r->open = true;
}

/* in the GPU's context. Return: a CUresult, if nothing was asked for */
static int launch(const struct job *j, uint64_t bytes, uint32_t at)
{
	struct wfi_cuda_post *p = &j->ep->posts[at % j->ep->depth];
	const struct wfi_cuda *cuda = j->g->gpu->cuda;
	uint64_t done = 0;
	uint32_t idx = 0;
	int res = 0, ret;

	if (!p->event)
		res = cuda->cuEventCreate(&p->event, WFI_CUDA_EVENT_NO_TIMING);
	if (res)
		return res;
	ret = is_small(j, bytes) ? by_kernels(j, &idx, &done, &p->tables)
				 : by_copies(j, &idx, &done);
	if (wfi_likely(ret != -EINPROGRESS)) {
		launched(j, p, idx, ret);
		return 0;
	}
	rest_begin(j, at, idx, done);
	p->rest = true;
	p->waits = true;
	return 0;
}

/* in the GPU's context. Return: as by_copies() */
static int rest_copy(struct wfi_cuda_ep *ep, struct wfi_cuda_post *p)
{
	struct wfi_cuda_rest *r = &ep->rest;
	int ret = -ECANCELED;
	struct job j;

	job_init(&j, ep, r->mr, p->op == WEFT_WC_WRITE);
	j.pieces = r->pieces;
	j.nr = r->nr;
	if (ep->state == WFI_EP_CONNECTED)
		ret = by_copies(&j, &r->idx, &r->done);
	if (ret == -EINPROGRESS)
		return ret;
	p->rest = false;
	r->open = false;
	launched(&j, p, r->idx, ret);
	return ret;
}

void wfi_cuda_rest_go_on(struct wfi_cuda_ep *ep)
{
	struct wfi_cuda_post *p = &ep->posts[ep->rest.at % ep->depth];
	int res;

	/* nothing moves there any more, and the post ends as all others do */
	if (ep->gpu->lost) {
		ep->rest.open = false;
		return;
	}
	res = wfi_gpu_enter(ep->gpu->gpu);
	if (res) {
		wfi_cuda_failed(ep->gpu, "a copy", res);
		return;
	}
	rest_copy(ep, p);
	wfi_gpu_leave(ep->gpu->gpu);
}

static bool far_lost(const struct wfi_cuda_mr *mr)
{
	return mr->far && wfi_cuda_ep(mr->far->base.ep)->gpu->lost;
}

/* the good pieces of a post that is counted already, by its place in the ring */
static void start(struct wfi_cuda_ep *ep, uint32_t at, struct job *j, uint64_t bytes)
{
	struct wfi_cuda_post *p = &ep->posts[at % ep->depth];
	int res;

	if (wfi_unlikely(far_lost(j->mr))) {
		p->idx = 0;
		p->status = -EIO;
		return;
	}
	j->bounced = wfi_cuda_stops(ep, j->mr);
	if (wfi_unlikely(j->bounced))
		j->pieces = wfi_cuda_bounce_begin(ep, at, j->pieces);
	res = wfi_gpu_enter(j->g->gpu);
	if (!res) {
		res = launch(j, bytes, at);
		wfi_gpu_leave(j->g->gpu);
	}
	if (!res)
		return;
	/* nothing was asked for */
	p->idx = 0;
	p->status = wfi_cuda_failed(j->g, "a copy", res);
}

/* Return: bytes of the good pieces, which are the first @p->idx; -EINVAL */
static int64_t pieces_check(struct wfi_cuda_ep *ep, const struct weft_post *post, uint32_t need,
			    struct wfi_cuda_post *p)
{
	const struct weft_caps *caps = &ep->base.dev->caps;
	uint64_t bytes = 0;

	for (p->idx = 0; p->idx < post->nr_pieces; p->idx++) {
		p->status = wfi_piece_check(&ep->base, post, &post->pieces[p->idx], need);
		if (wfi_unlikely(p->status))
			break;
		bytes += post->pieces[p->idx].len;
		if (wfi_unlikely(bytes > caps->max_post_bytes))
			return -EINVAL;
	}
	return (int64_t)bytes;
}

/* an event, or nothing, and no bytes. Return: 0, with what is to be waited for in .gate; -EINVAL
 * several, -EIO, as wfi_cuda_errno(), logged */
static int gate_look(const struct job *j, struct wfi_cuda_post *p)
{
	struct CUevent_st *event = NULL;
	uint32_t i;
	int ret;

	for (i = 0; i < j->nr; i++) {
		struct CUevent_st *e = wfi_cuda_rkey(j->pieces[i].rkey)->event;

		if (e && event)
			return -EINVAL;
		if (e)
			event = e;
	}
	if (!event)
		return 0;
	ret = wfi_cuda_event_look(j->g, event, "an event of an engine's");
	if (ret == -EAGAIN)
		p->gate = event;
	return ret == -EAGAIN ? 0 : ret;
}

/* an event has to come first */
static void hold(struct wfi_cuda_ep *ep, const struct weft_post *post, uint64_t bytes,
		 struct wfi_cuda_post *p)
{
	memcpy(wfi_cuda_held(ep, ep->tail), post->pieces, p->idx * sizeof(*post->pieces));
	p->mr = post->local_mr;
	p->bytes = bytes;
	p->held = true;
}

void wfi_cuda_post_start(struct wfi_cuda_ep *ep, uint32_t at)
{
	struct wfi_cuda_post *p = &ep->posts[at % ep->depth];
	struct job j;

	job_init(&j, ep, p->mr, false);
	j.pieces = wfi_cuda_held(ep, at);
	j.nr = p->idx;
	p->held = false;
	start(ep, at, &j, p->bytes);
}

bool wfi_cuda_post_can_start(const struct wfi_cuda_ep *ep, const struct wfi_cuda_post *p)
{
	return !ep->rest.open && (!wfi_cuda_stops(ep, wfi_cuda_mr(p->mr)) || ep->gpu->free_bounces);
}

static int cuda_post(struct weft_ep *base, const struct weft_post *post, enum weft_wc_op op,
		     uint32_t need)
{
	struct wfi_cuda_ep *ep = wfi_cuda_ep(base);
	struct wfi_cuda_post *p = &ep->posts[ep->tail % ep->depth];
	const bool write = op == WEFT_WC_WRITE;
	struct job j;
	int64_t bytes;
	int ret;

	if (wfi_unlikely(post->nr_pieces > base->dev->caps.max_pieces || !post->local_mr ||
			 post->local_mr->dev != base->dev ||
			 (wfi_cuda_mr(post->local_mr)->on &&
			  wfi_cuda_mr(post->local_mr)->on != ep->gpu)))
		return -EINVAL;
	if (wfi_unlikely(ep->tail - ep->head == ep->depth || ep->rest.open))
		return -EAGAIN;
	*p = (struct wfi_cuda_post){
		.event = p->event,
		.cookie = post->cookie,
		.flags = post->flags,
		.op = (uint8_t)op,
	};
	bytes = pieces_check(ep, post, need, p);
	if (wfi_unlikely(bytes < 0))
		return (int)bytes;
	job_init(&j, ep, post->local_mr, write);
	j.pieces = post->pieces;
	j.nr = p->idx;
	p->way = (uint8_t)j.way;
	p->apart = j.mr->on;
	/* what does not wait may not be followed by what should have */
	ret = wfi_unlikely(!bytes) && !write ? gate_look(&j, p) : 0;
	if (wfi_unlikely(!ret && post->flags & WEFT_POST_TRY))
		return p->gate ? -EAGAIN : 0;
	if (wfi_unlikely(ret))
		return ret;
	if (wfi_unlikely(bytes && wfi_cuda_stops(ep, j.mr) && !j.g->free_bounces))
		return -EAGAIN;
	if (wfi_unlikely(ep->nr_waiting) && bytes && !write)
		hold(ep, post, (uint64_t)bytes, p);
	else if (bytes && wfi_likely(!j.g->lost))
		start(ep, ep->tail, &j, (uint64_t)bytes);
	p->waits |= bytes && j.g->lost;
	ep->nr_waiting += p->gate || p->held;
	ep->nr_apart += p->apart;
	ep->tail++;
	wfi_cuda_device(base->dev)->nr_open++;
	return 0;
}

/* in the GPU's context. Return: a CUresult, if nothing was asked for */
static int sum_launch(const struct job *j, struct wfi_cuda_post *p)
{
	const struct wfi_cuda *cuda = j->g->gpu->cuda;
	int res = p->event ? 0 : cuda->cuEventCreate(&p->event, WFI_CUDA_EVENT_NO_TIMING);

	/* the kernel begins behind that, and so does what the engine does with the bytes */
	if (!res)
		res = wfi_gpu_flush(j->g->gpu);
	if (res)
		return res;
	p->summed = sums(j, p);
	wfi_cuda_post_mark(j->ep, p);
	return 0;
}

/* what does not come as a whole does not come */
static void sum_up(const struct job *j, struct wfi_cuda_post *p)
{
	int res = wfi_gpu_enter(j->g->gpu);

	if (!res) {
		res = sum_launch(j, p);
		wfi_gpu_leave(j->g->gpu);
	}
	if (!p->summed) {
		p->idx = 0;
		p->status = res ? wfi_cuda_failed(j->g, "sums", res) : -EIO;
	}
}

/* Return: 0; -EAGAIN too few tables are free, -EOPNOTSUPP there are none, or never enough */
static int sums_fit(const struct job *j)
{
	const uint64_t want = wfi_cuda_sums_tables(j->pieces, j->nr);

	if (!j->g->sums.powers || want > WFI_CUDA_TABLES)
		return -EOPNOTSUPP;
	return want > (uint64_t)__builtin_popcount(j->g->free_tables) ? -EAGAIN : 0;
}

/* nothing moves: what lies there is summed up */
static int cuda_post_stay(struct weft_ep *base, const struct weft_post *post)
{
	const struct weft_post there = { .pieces = post->pieces, .nr_pieces = post->nr_pieces };
	struct wfi_cuda_ep *ep = wfi_cuda_ep(base);
	struct wfi_cuda_post *p = &ep->posts[ep->tail % ep->depth];
	struct job j = {
		.dev = wfi_cuda_device(base->dev),
		.ep = ep,
		.g = ep->gpu,
		.pieces = post->pieces,
		.stream = ep->streams[WFI_CUDA_TO_GPU],
	};
	int64_t bytes;
	int ret;

	if (post->nr_pieces > base->dev->caps.max_pieces || !(post->flags & WEFT_POST_SUMS))
		return -EINVAL;
	if (ep->tail - ep->head == ep->depth || ep->rest.open)
		return -EAGAIN;
	*p = (struct wfi_cuda_post){
		.event = p->event,
		.cookie = post->cookie,
		.flags = post->flags,
		.op = WEFT_WC_READ,
	};
	bytes = pieces_check(ep, &there, WEFT_ACCESS_REMOTE_READ, p);
	if (bytes < 0)
		return (int)bytes;
	p->idx = p->status ? 0 : p->idx;
	j.nr = bytes ? p->idx : 0;
	ret = j.nr ? sums_fit(&j) : 0;
	if (ret)
		return ret;
	p->waits = bytes && j.g->lost;
	if (j.nr && !p->waits)
		sum_up(&j, p);
	ep->tail++;
	wfi_cuda_device(base->dev)->nr_open++;
	return 0;
}

static int cuda_post_read(struct weft_ep *ep, const struct weft_post *post)
{
	if (wfi_unlikely(post->flags & WEFT_POST_STAY))
		return cuda_post_stay(ep, post);
	return cuda_post(ep, post, WEFT_WC_READ, WEFT_ACCESS_REMOTE_READ);
}

static int cuda_post_write(struct weft_ep *ep, const struct weft_post *post)
{
	return cuda_post(ep, post, WEFT_WC_WRITE, WEFT_ACCESS_REMOTE_WRITE);
}

const struct weft_ep_fast wfi_cuda_fast = {
	.post_read = cuda_post_read,
	.post_write = cuda_post_write,
	.post_write_imm = wfi_ep_no_imm,
	.post_send = wfi_ep_no_send,
	.post_msg = wfi_ep_no_msg,
};
