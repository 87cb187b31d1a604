/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.c - pushes of one layout into blocks of another
 *
 * A push names blocks of the sender's. Each is planned against the blocks of ours that have its
 * tokens: runs that are contiguous on both sides, compiled once for a layout and a distance between
 * the two, then only shifted. Runs are READ in ascending order of where they lie at the sender, so
 * that the sum which is made on the way is the one that the sender has made of its block.
 *
 * A source is a layout of some sender. Each of its blocks comes layer by layer, once, and sources
 * have no elements in common: so bytes can be counted, and a layer of a block of ours has landed
 * when none is left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "take.h"
#include "weft_internal/log.h"

#define NR_SOURCES 64u
#define LIST_PIECES_MAX (256u << 10)
#define TOLD UINT32_MAX /* in .layer_left: it was 0 */
#define NAMED_MAX (16u << 20) /* blocks of all sources of a handoff: 32 MiB */

struct shape {
	struct weft_layout layout;
	uint64_t nr_tokens;
	uint64_t left; /* bytes still to land */
	uint32_t *layer_left; /* the same by block and layer */
	uint64_t nr_named; /* blocks of all sources */
	uint32_t nr_sources;
	struct source *sources[NR_SOURCES];
};

/* one message's pieces on their way. Recycled */
struct shape_job {
	struct shape_job *next;
	struct wfi_handoffs *hs;
	struct handoff *h;
	struct wfi_peer *peer; /* NULL: lost meanwhile, nobody to answer */
	bool busy;
	struct wfi_peer_read read;
	uint64_t push;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t nr; /* blocks of the source */
	struct shape_list list;
	uint32_t crc[MSG_PIECES_MAX];
	uint32_t sums[MSG_PIECES_MAX];
	int32_t results[MSG_PIECES_MAX];
};

/* ---- layouts ---- */

struct wfi_layout wfi_shape_layer(const struct weft_layout *l, uint64_t token, uint64_t end,
				  uint32_t kv_first, uint32_t nr_kv)
{
	const uint64_t left = end > token ? end - token : 0;

	return (struct wfi_layout){
		.extent = { 1, nr_kv, (uint32_t)wfi_min(l->nr_tokens, left), l->nr_heads,
			    l->head_bytes },
		.stride = { l->layer_stride, l->kv_stride, l->token_stride, l->head_stride, 1 },
		.base = l->base + (kv_first - l->first_kv) * l->kv_stride,
		.first_token = (uint32_t)token,
		.first_head = l->first_head,
	};
}

/* bytes from the first to behind the last element. Return: 0, -EINVAL: some lie on others */
static int span_of(const struct weft_layout *l, uint64_t *out)
{
	uint64_t dims[][2] = { { l->layer_stride, l->nr_layers },
			       { l->kv_stride, l->nr_kv },
			       { l->token_stride, l->nr_tokens },
			       { l->head_stride, l->nr_heads } };
	uint64_t inner = l->head_bytes, more;
	unsigned i, k, least;

	for (i = 0; i < WFI_ARRAY_SIZE(dims); i++) {
		for (k = least = i; k < WFI_ARRAY_SIZE(dims); k++)
			if (dims[k][0] < dims[least][0])
				least = k;
		if (dims[least][1] > 1 && dims[least][0] < inner)
			return -EINVAL;
		if (wfi_mul_overflows(dims[least][1] - 1, dims[least][0], &more) ||
		    wfi_add_overflows(inner, more, &inner))
			return -EINVAL;
		dims[least][0] = dims[i][0];
		dims[least][1] = dims[i][1];
	}
	*out = inner;
	return 0;
}

int wfi_shape_check(const struct weft_layout *l, uint64_t block_bytes)
{
	uint64_t span;

	if (!l->nr_layers || l->nr_layers > WFI_HANDOFF_LAYERS_MAX || !l->nr_kv || l->nr_kv > 2 ||
	    l->first_kv > 2 - l->nr_kv || !l->nr_tokens || !l->nr_heads || !l->head_bytes ||
	    l->reserved || l->reserved2 || l->nr_tokens > SHAPE_RUNS_MAX ||
	    l->nr_heads > SHAPE_RUNS_MAX || l->first_head > SHAPE_RUNS_MAX ||
	    (uint64_t)l->nr_kv * l->nr_tokens * l->nr_heads > SHAPE_RUNS_MAX ||
	    l->head_bytes > UINT32_MAX / SHAPE_RUNS_MAX)
		return -EINVAL;
	if (span_of(l, &span) || wfi_add_overflows(l->base, span, &span) || span > block_bytes)
		return -EINVAL;
	return 0;
}

static uint64_t layer_bytes_of(const struct weft_layout *l)
{
	return (uint64_t)l->nr_kv * l->nr_tokens * l->nr_heads * l->head_bytes;
}

struct weft_layout wfi_shape_packed(const struct weft_layout *l)
{
	struct weft_layout p = *l;
	uint64_t *const strides[] = { &p.kv_stride, &p.token_stride, &p.head_stride };
	const uint32_t nr[] = { l->nr_kv, l->nr_tokens, l->nr_heads };
	uint64_t inner = l->head_bytes;
	unsigned i, k, least, done = 0;

	/* the order stays as it is: so do sums */
	for (i = 0; i < WFI_ARRAY_SIZE(nr); i++) {
		least = WFI_ARRAY_SIZE(nr);
		for (k = 0; k < WFI_ARRAY_SIZE(nr); k++)
			if (!(done >> k & 1) &&
			    (least == WFI_ARRAY_SIZE(nr) || *strides[k] < *strides[least]))
				least = k;
		done |= 1u << least;
		*strides[least] = inner;
		inner *= nr[least];
	}
	p.layer_stride = inner;
	p.base = 0;
	return p;
}

/* ---- lists of pieces ---- */

void wfi_shape_list_fini(struct wfi_env *env, struct shape_list *l)
{
	if (!l->max)
		return;
	wfi_free(env, l->pieces, l->max * sizeof(*l->pieces));
	wfi_free(env, l->to, l->max * sizeof(*l->to));
	*l = (struct shape_list){ .nr = 0 };
}

int wfi_shape_list_room(struct wfi_env *env, struct shape_list *l, uint64_t nr)
{
	uint32_t max = l->max ? l->max : 1024;
	struct shape_list more = { .nr = l->nr };

	if (nr <= l->max)
		return 0;
	if (nr > LIST_PIECES_MAX)
		return -E2BIG;
	while (max < nr)
		max *= 2;
	more.max = max;
	more.pieces = wfi_alloc(env, max * sizeof(*more.pieces));
	more.to = more.pieces ? wfi_alloc(env, max * sizeof(*more.to)) : NULL;
	if (!more.to) {
		if (more.pieces)
			wfi_free(env, more.pieces, max * sizeof(*more.pieces));
		return -ENOMEM;
	}
	if (l->nr) {
		memcpy(more.pieces, l->pieces, l->nr * sizeof(*l->pieces));
		memcpy(more.to, l->to, l->nr * sizeof(*l->to));
	}
	wfi_shape_list_fini(env, l);
	*l = more;
	return 0;
}

struct sortable {
	struct wfi_piece piece;
	uint32_t to;
};

static int by_remote(const void *a, const void *b)
{
	const struct sortable *x = a, *y = b;

	return (x->piece.remote > y->piece.remote) - (x->piece.remote < y->piece.remote);
}

static int by_local(const void *a, const void *b)
{
	const struct sortable *x = a, *y = b;

	return (x->piece.local > y->piece.local) - (x->piece.local < y->piece.local);
}

/* the pieces from @first on, by where they lie at the source. Return: 0, -ENOMEM */
static int list_sort(struct wfi_env *env, struct shape_list *l, uint32_t first,
		     int (*by)(const void *a, const void *b))
{
	const uint32_t nr = l->nr - first;
	struct sortable *all = wfi_alloc(env, nr * sizeof(*all));
	uint32_t i;

	if (!all)
		return -ENOMEM;
	for (i = 0; i < nr; i++)
		all[i] = (struct sortable){ l->pieces[first + i], l->to[first + i] };
	qsort(all, nr, sizeof(*all), by);
	for (i = 0; i < nr; i++) {
		l->pieces[first + i] = all[i].piece;
		l->to[first + i] = all[i].to;
	}
	wfi_free(env, all, nr * sizeof(*all));
	return 0;
}

/* ---- the sender's sum, and its order ---- */

bool wfi_shape_run_sum(const char *at, uint64_t len, struct part_sum *sum, uint64_t *budget)
{
	const uint64_t n = wfi_min(len - sum->off, *budget);

	sum->crc = wfi_crc32c(sum->crc, at + sum->off, n);
	sum->off += n;
	*budget -= n;
	return sum->off == len;
}

bool wfi_shape_sum(const struct shape_part *p, struct wfi_run *runs, struct part_sum *sum,
		   uint64_t *budget)
{
	const struct weft_layout *l = p->layout;
	const struct wfi_layout one = wfi_shape_layer(l, p->token, p->end, l->first_kv, l->nr_kv);
	const int planned = wfi_layout_plan(&one, &one, runs, SHAPE_RUNS_MAX);
	const uint32_t nr = planned < 0 ? 0 : (uint32_t)wfi_min(planned, (int)SHAPE_RUNS_MAX);
	const char *at;

	for (; sum->layer < p->nr_layers; sum->layer++, sum->run = 0) {
		at = (const char *)p->base + (p->layer + sum->layer) * l->layer_stride;
		for (; sum->run < nr; sum->run++, sum->off = 0)
			if (!wfi_shape_run_sum(at + runs[sum->run].src, runs[sum->run].len, sum,
					       budget))
				return false;
	}
	return true;
}

static void pack_runs(struct wfi_handoffs *hs, const struct shape_pack *p, uint32_t block,
		      uint64_t packed_stride, int nr)
{
	const struct wfi_piece *b = &p->blocks[block];
	struct shape_list *l = p->list;
	uint32_t k;
	int i;

	for (k = 0; k < p->nr_layers; k++)
		for (i = 0; i < nr; i++)
			l->pieces[l->nr++] = (struct wfi_piece){
				.local = (void *)((uintptr_t)b->local + k * packed_stride +
						  hs->runs[i].src),
				.remote = b->remote + (p->layer + k) * p->layout->layer_stride +
					  hs->runs[i].dst,
				.rkey = b->rkey,
				.block = block,
				.len = hs->runs[i].len,
			};
}

int wfi_shape_pack(struct wfi_handoffs *hs, const struct shape_pack *p)
{
	const struct weft_layout packed = wfi_shape_packed(p->layout);
	const uint32_t per_block = p->layout->nr_tokens;
	struct wfi_layout to, from;
	uint64_t token, left = 0, last_left = 0;
	uint32_t i;
	int ret, nr = 0;

	p->list->nr = 0;
	for (i = 0; i < p->nr; i++) {
		token = (uint64_t)(p->first + i) * per_block;
		left = wfi_min(p->end - token, per_block);
		/* all but the last block of a handoff are alike */
		if (left != last_left) {
			to = wfi_shape_layer(&packed, token, p->end, packed.first_kv, packed.nr_kv);
			from = wfi_shape_layer(p->layout, token, p->end, packed.first_kv,
					       packed.nr_kv);
			nr = wfi_layout_plan(&to, &from, hs->runs, SHAPE_RUNS_MAX);
			if (nr < 0 || nr > (int)SHAPE_RUNS_MAX)
				return nr < 0 ? nr : -E2BIG;
			last_left = left;
		}
		ret = wfi_shape_list_room(hs->opts.env, p->list,
					  p->list->nr + (uint64_t)nr * p->nr_layers);
		if (ret)
			return ret;
		pack_runs(hs, p, i, packed.layer_stride, nr);
	}
	return 0;
}

/* ---- the receiver's half: set-up ---- */

int wfi_shape_open(struct wfi_handoffs *hs, struct handoff *h, const struct weft_layout *layout)
{
	const uint64_t nr = (uint64_t)h->opts.nr_blocks * layout->nr_layers;
	struct wfi_env *env = hs->opts.env;
	struct shape *sh;
	uint64_t i;

	if (wfi_shape_check(layout, h->space.block_bytes) ||
	    layout->nr_layers != h->opts.nr_layers || layer_bytes_of(layout) > UINT32_MAX ||
	    (uint64_t)h->opts.nr_blocks * layout->nr_tokens > INT32_MAX)
		return -EINVAL;
	if (!hs->runs)
		hs->runs = wfi_alloc(env, SHAPE_RUNS_MAX * sizeof(*hs->runs));
	sh = hs->runs ? wfi_alloc(env, sizeof(*sh)) : NULL;
	if (!sh)
		return -ENOMEM;
	sh->layer_left = wfi_alloc(env, nr * sizeof(*sh->layer_left));
	if (!sh->layer_left) {
		wfi_free(env, sh, sizeof(*sh));
		return -ENOMEM;
	}
	sh->layout = *layout;
	sh->nr_tokens = (uint64_t)h->opts.nr_blocks * layout->nr_tokens;
	sh->left = nr * layer_bytes_of(layout);
	for (i = 0; i < nr; i++)
		sh->layer_left[i] = (uint32_t)layer_bytes_of(layout);
	h->shape = sh;
	return 0;
}

uint64_t wfi_shape_tokens(const struct handoff *h)
{
	return h->shape ? h->shape->nr_tokens : 0;
}

static void source_free(struct wfi_env *env, struct source *s)
{
	uint32_t i;

	for (i = 0; i < s->nr_patterns; i++)
		if (s->patterns[i].nr)
			wfi_free(env, s->patterns[i].runs,
				 s->patterns[i].nr * sizeof(*s->patterns[i].runs));
	wfi_free(env, s->named, s->nr_blocks * sizeof(*s->named));
	wfi_free(env, s, sizeof(*s));
}

void wfi_shape_close(struct wfi_handoffs *hs, struct handoff *h)
{
	struct wfi_env *env = hs->opts.env;
	struct shape *sh = h->shape;

	if (!sh)
		return;
	while (sh->nr_sources)
		source_free(env, sh->sources[--sh->nr_sources]);
	wfi_free(env, sh->layer_left,
		 (uint64_t)h->opts.nr_blocks * sh->layout.nr_layers * sizeof(*sh->layer_left));
	wfi_free(env, sh, sizeof(*sh));
	h->shape = NULL;
}

/* ---- sources ---- */

static bool meet(uint32_t a, uint32_t na, uint32_t b, uint32_t nb)
{
	return a < (uint64_t)b + nb && b < (uint64_t)a + na;
}

/* the source of that layout; a new one when nobody has pushed in it yet. Return: 0, -errno */
static int source_get(struct wfi_handoffs *hs, struct shape *sh, const struct weft_layout *l,
		      struct source **out)
{
	/* whoever has the ticket says how small its own blocks are */
	const uint64_t nr_blocks = (sh->nr_tokens + l->nr_tokens - 1) / l->nr_tokens;
	struct source *s;
	uint32_t i;

	for (i = 0; i < sh->nr_sources; i++) {
		s = sh->sources[i];
		if (!memcmp(&s->layout, l, sizeof(*l))) {
			*out = s;
			return 0;
		}
		/* these elements would come twice */
		if (meet(s->layout.first_head, s->layout.nr_heads, l->first_head, l->nr_heads) &&
		    meet(s->layout.first_kv, s->layout.nr_kv, l->first_kv, l->nr_kv))
			return -EINVAL;
	}
	if (sh->nr_sources == NR_SOURCES || l->nr_layers != sh->layout.nr_layers ||
	    l->head_bytes != sh->layout.head_bytes || l->first_head < sh->layout.first_head ||
	    l->first_head + l->nr_heads > sh->layout.first_head + sh->layout.nr_heads ||
	    l->first_kv < sh->layout.first_kv ||
	    l->first_kv + l->nr_kv > sh->layout.first_kv + sh->layout.nr_kv)
		return -EINVAL;
	if (sh->nr_named + nr_blocks > NAMED_MAX)
		return -E2BIG;
	s = wfi_alloc(hs->opts.env, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->layout = *l;
	s->packed = wfi_shape_packed(l);
	s->nr_blocks = (uint32_t)nr_blocks;
	s->named = wfi_alloc(hs->opts.env, s->nr_blocks * sizeof(*s->named));
	if (!s->named) {
		wfi_free(hs->opts.env, s, sizeof(*s));
		return -ENOMEM;
	}
	sh->nr_named += nr_blocks;
	sh->sources[sh->nr_sources++] = s;
	*out = s;
	return 0;
}

static int plan(struct wfi_handoffs *hs, const struct shape *sh, const struct source *s,
		bool packed, uint64_t theirs, uint64_t ours)
{
	const struct wfi_layout to = wfi_shape_layer(&sh->layout, ours, sh->nr_tokens,
						     s->layout.first_kv, s->layout.nr_kv);
	const struct wfi_layout from = wfi_shape_layer(packed ? &s->packed : &s->layout, theirs,
						       sh->nr_tokens, s->layout.first_kv,
						       s->layout.nr_kv);
	const int nr = wfi_layout_plan(&to, &from, hs->runs, SHAPE_RUNS_MAX);

	return nr > (int)SHAPE_RUNS_MAX ? -E2BIG : nr;
}

/* what a block of the source's at token @theirs has for ours at @ours. Return: runs, -errno */
static int pattern_get(struct wfi_handoffs *hs, const struct shape *sh, struct source *s,
		       bool packed, uint64_t theirs, uint64_t ours, const struct wfi_run **runs)
{
	const int64_t distance = (int64_t)theirs - (int64_t)ours;
	/* the last block may be cut, and is like no other */
	const bool whole = theirs + s->layout.nr_tokens <= sh->nr_tokens;
	struct pattern *p;
	uint32_t i;
	int nr;

	for (i = 0; i < s->nr_patterns && whole; i++) {
		p = &s->patterns[i];
		if (p->distance != distance || p->packed != packed)
			continue;
		*runs = p->runs;
		return (int)p->nr;
	}
	nr = plan(hs, sh, s, packed, theirs, ours);
	*runs = hs->runs;
	if (nr <= 0 || !whole || s->nr_patterns == NR_PATTERNS)
		return nr;
	p = &s->patterns[s->nr_patterns];
	p->runs = wfi_alloc(hs->opts.env, (uint32_t)nr * sizeof(*p->runs));
	if (!p->runs)
		return nr; /* planned anew each time */
	memcpy(p->runs, hs->runs, (uint32_t)nr * sizeof(*p->runs));
	p->nr = (uint32_t)nr;
	p->distance = distance;
	p->packed = packed;
	s->nr_patterns++;
	*runs = p->runs;
	return nr;
}

/* ---- jobs ---- */

static struct shape_job *job_get(struct wfi_handoffs *hs)
{
	struct shape_job *j;

	for (j = hs->jobs; j && j->busy; j = j->next)
		;
	if (j)
		return j;
	j = wfi_alloc(hs->opts.env, sizeof(*j));
	if (!j)
		return NULL;
	j->hs = hs;
	j->next = hs->jobs;
	hs->jobs = j;
	return j;
}

/* ---- pieces between blocks of a source's and ours ---- */

/* @theirs: where the layer lies in a block of the source's, @ours: in one of ours */
static struct wfi_piece piece_of(const struct shape_plan *p, uint32_t block, uint32_t ours,
				 uint64_t theirs_off, uint64_t ours_off, uint64_t len)
{
	const struct wfi_piece *from = &p->blocks[block];
	const struct handoff *h = p->h;
	struct wfi_piece piece = { .block = block, .len = len };
	const struct wfi_piece *to;

	if (!h->opts.places) {
		piece.local = (char *)wfi_kv_slot_addr(p->hs->opts.kv, h->slots[ours]) + ours_off;
		piece.remote = from->remote + theirs_off;
		return piece;
	}
	to = &h->places.blocks[ours];
	if (p->straight) {
		piece.local = (char *)h->places.mrs[to->rkey]->addr + to->remote + ours_off;
		piece.remote = from->remote + theirs_off;
		piece.rkey = from->rkey;
	} else {
		piece.local = (void *)((uintptr_t)from->local + theirs_off);
		piece.remote = to->remote + ours_off;
		piece.rkey = to->rkey;
	}
	return piece;
}

/* of one layer of one block of the source's */
static int plan_add(const struct shape_plan *p, uint32_t block, uint32_t layer)
{
	struct wfi_env *env = p->hs->opts.env;
	const struct shape *sh = p->h->shape;
	struct source *s = p->source;
	const struct weft_layout *from = p->packed ? &s->packed : &s->layout;
	const uint64_t token = (uint64_t)(p->first + block) * s->layout.nr_tokens;
	const uint64_t end = wfi_min(token + s->layout.nr_tokens, sh->nr_tokens);
	const uint64_t theirs = (layer - (p->packed ? p->layer : 0)) * from->layer_stride;
	const uint32_t first = p->list->nr, first_ours = (uint32_t)(token / sh->layout.nr_tokens);
	const struct wfi_run *runs;
	uint32_t ours, nr_ours = 0;
	int nr, i, ret;

	for (ours = first_ours; (uint64_t)ours * sh->layout.nr_tokens < end; ours++, nr_ours++) {
		nr = pattern_get(p->hs, sh, s, p->packed, token,
				 (uint64_t)ours * sh->layout.nr_tokens, &runs);
		ret = nr < 0 ? nr : wfi_shape_list_room(env, p->list, p->list->nr + (uint64_t)nr);
		if (ret)
			return ret;
		for (i = 0; i < nr; i++) {
			p->list->pieces[p->list->nr] = piece_of(
				p, block, ours, theirs + runs[i].dst,
				layer * sh->layout.layer_stride + runs[i].src, runs[i].len);
			p->list->to[p->list->nr++] = ours * sh->layout.nr_layers + layer;
		}
	}
	/* block by block of ours is not the order that the sender has summed in */
	if (nr_ours < 2 || p->list->nr == first)
		return 0;
	return list_sort(env, p->list, first,
			 p->h->opts.places && !p->straight ? by_local : by_remote);
}

int wfi_shape_plan(const struct shape_plan *p)
{
	uint32_t i, l;
	int ret = 0;

	p->list->nr = 0;
	for (i = 0; i < p->nr; i++)
		for (l = p->layer; l < p->layer + p->nr_layers && !ret; l++)
			ret = plan_add(p, i, l);
	return ret;
}

static int job_verify(const struct shape_job *j)
{
	uint32_t i;

	for (i = 0; i < j->nr; i++)
		if (j->sums[i] != j->crc[i])
			return -EBADMSG;
	return 0;
}

/* Return: whether that layer is whole, and was not told yet: now it is */
static bool is_news(struct shape *sh, uint32_t block, uint32_t layer)
{
	uint32_t *left = &sh->layer_left[block * sh->layout.nr_layers + layer];

	if (*left)
		return false;
	*left = TOLD;
	return true;
}

bool wfi_shape_landed(struct handoff *h, const struct shape_list *list, uint32_t layer,
		      uint32_t nr_layers)
{
	struct shape *sh = h->shape;
	uint32_t b, l, i, end;

	for (i = 0; i < list->nr; i++) {
		sh->layer_left[list->to[i]] -= (uint32_t)list->pieces[i].len;
		sh->left -= list->pieces[i].len;
	}
	for (l = layer; l < layer + nr_layers; l++)
		for (b = 0; b < h->opts.nr_blocks; b = wfi_max(end, b + 1)) {
			for (end = b; end < h->opts.nr_blocks && is_news(sh, end, l); end++)
				;
			if (end > b)
				h->opts.landed(h->opts.ctx, l, 1, b, end - b, &h->refs[b]);
		}
	return !sh->left;
}

/* ---- all is here: blocks get their sums, in slices ---- */

static void sum_done(void *ctx, int res)
{
	struct shape_job *j = ctx;
	struct wfi_handoffs *hs = j->hs;
	struct handoff *h = j->h;

	j->busy = false;
	j->read = (struct wfi_peer_read){ 0 };
	h->nr_reads--;
	if (!res && h->state == HANDOFF_OPEN)
		wfi_handoff_whole(hs, h, wfi_now(hs->opts.env));
	else
		wfi_handoff_read_failed(hs, h, res ? res : -ECANCELED);
}

static int sum_start(struct wfi_handoffs *hs, struct handoff *h, struct weft_ep *ep)
{
	struct wfi_xfer_opts x = { .ep = ep,
				   .dir = WFI_XFER_SUM,
				   .nr_pieces = h->opts.nr_blocks,
				   .nr_blocks = h->opts.nr_blocks,
				   .results = h->results,
				   .sum_ops = &wfi_crc32c_sums,
				   .sums = h->crc,
				   .deadline_ns = h->opts.deadline_ns,
				   .done = sum_done };
	struct shape_job *j = job_get(hs);
	uint32_t i;
	int ret = j ? wfi_shape_list_room(hs->opts.env, &j->list, h->opts.nr_blocks) : -ENOMEM;

	if (ret)
		return ret;
	j->h = h;
	j->peer = NULL;
	j->list.nr = h->opts.nr_blocks;
	for (i = 0; i < h->opts.nr_blocks; i++)
		j->list.pieces[i] = (struct wfi_piece){
			.local = wfi_kv_slot_addr(hs->opts.kv, h->slots[i]),
			.block = i,
			.len = h->space.block_bytes,
		};
	x.pieces = j->list.pieces;
	x.ctx = j;
	j->busy = true;
	h->nr_reads++;
	j->read.ep = ep;
	ret = wfi_xfer_submit(hs->opts.xfer, &x, &j->read.xfer);
	if (ret) {
		j->busy = false;
		h->nr_reads--;
	}
	return ret;
}

static void job_done(void *ctx, int res)
{
	struct shape_job *j = ctx;
	struct wfi_handoffs *hs = j->hs;
	struct handoff *h = j->h;
	struct wfi_peer *peer = j->peer;
	uint64_t bytes = 0;
	uint32_t i;

	if (!res && h->state == HANDOFF_OPEN && job_verify(j)) {
		wfi_count(hs->pieces_bad, 1);
		wfi_warn("handoff: blocks from peer %#llx fail their checksums",
			 (unsigned long long)(j->peer ? j->peer->node : 0));
		res = -EBADMSG;
	}
	if (!res && h->state != HANDOFF_OPEN)
		res = -ECANCELED;
	for (i = 0; i < j->list.nr; i++)
		bytes += j->list.pieces[i].len;
	if (j->peer)
		wfi_handoffs_answer(hs, j->peer, j->push, res);
	j->busy = false;
	j->read = (struct wfi_peer_read){ 0 };
	h->nr_reads--;
	if (!res) {
		wfi_count(hs->bytes_read, bytes);
		if (wfi_shape_landed(h, &j->list, j->layer, j->nr_layers))
			res = peer ? sum_start(hs, h, peer->ep) : -ECONNRESET;
	}
	if (res)
		wfi_handoff_read_failed(hs, h, res);
}

/* who waits hears so. The pusher does not: its slots are read still */
static void job_late(void *ctx, int res)
{
	const struct shape_job *j = ctx;

	wfi_handoff_late(j->hs, j->h, res);
}

/* ---- messages ---- */

static int range_check(const struct source *s, uint32_t layer, uint32_t nr_layers, uint32_t first,
		       uint32_t nr)
{
	uint32_t i;

	if (!nr || !nr_layers || !wfi_range_ok(first, nr, s->nr_blocks) ||
	    !wfi_range_ok(layer, nr_layers, s->layout.nr_layers))
		return -EINVAL;
	for (i = first; i < first + nr; i++)
		if (s->named[i] != layer)
			return -EINVAL;
	return 0;
}

int wfi_shape_source(struct wfi_handoffs *hs, struct handoff *h, const struct weft_layout *l,
		     uint32_t layer, uint32_t nr_layers, uint32_t first, uint32_t nr,
		     struct source **out)
{
	int ret;

	if (!h->shape || wfi_shape_check(l, UINT64_MAX))
		return -EINVAL;
	ret = source_get(hs, h->shape, l, out);
	return ret ? ret : range_check(*out, layer, nr_layers, first, nr);
}

void wfi_shape_named(struct source *s, uint32_t layer, uint32_t nr_layers, uint32_t first,
		     uint32_t nr)
{
	uint32_t i;

	for (i = first; i < first + nr; i++)
		s->named[i] = (uint16_t)(layer + nr_layers);
}

/* slots for all blocks of ours that have tokens of these */
static int slots_claim(struct wfi_handoffs *hs, struct handoff *h, const struct source *s,
		       const struct wfi_msg_layers *m, uint64_t now_ns)
{
	const struct shape *sh = h->shape;
	const uint64_t token = (uint64_t)m->first_block * s->layout.nr_tokens;
	const uint64_t end = wfi_min(token + (uint64_t)m->nr * s->layout.nr_tokens, sh->nr_tokens);
	uint32_t b = (uint32_t)(token / sh->layout.nr_tokens), n;
	const uint32_t last = (uint32_t)((end - 1) / sh->layout.nr_tokens);
	int ret;

	for (; b <= last; b += n) {
		n = (uint32_t)wfi_min(last - b + 1, MSG_PIECES_MAX);
		ret = wfi_handoff_claim_slots(hs, h, b, n, now_ns);
		if (ret)
			return ret;
	}
	return 0;
}

int wfi_shape_message(struct wfi_handoffs *hs, struct wfi_peer *peer, struct handoff *h,
		      const struct wfi_msg_shaped *ms, const struct wfi_msg_piece *pieces,
		      uint64_t now_ns)
{
	const struct wfi_msg_layers *m = &ms->m;
	struct wfi_piece from[MSG_PIECES_MAX];
	struct wfi_xfer_opts x;
	struct source *s;
	struct shape_job *j;
	uint32_t i;
	int ret;

	ret = wfi_shape_source(hs, h, &ms->layout, m->layer, m->nr_layers, m->first_block, m->nr,
			       &s);
	if (ret)
		return ret;
	if (h->opts.places)
		return wfi_take_message(hs, peer, h, s, m, pieces, now_ns);
	ret = slots_claim(hs, h, s, m, now_ns);
	if (ret)
		return ret;
	if (!peer->arena(peer, h->tenant))
		return -EXDEV;
	j = job_get(hs);
	if (!j)
		return -ENOMEM;
	j->h = h;
	j->peer = peer;
	j->push = m->push;
	j->layer = m->layer;
	j->nr_layers = m->nr_layers;
	j->nr = m->nr;
	for (i = 0; i < m->nr; i++) {
		j->crc[i] = pieces[i].crc;
		from[i] = (struct wfi_piece){ .remote = pieces[i].off };
	}
	ret = wfi_shape_plan(&(struct shape_plan){ .hs = hs,
						   .h = h,
						   .source = s,
						   .layer = m->layer,
						   .nr_layers = m->nr_layers,
						   .first = m->first_block,
						   .nr = m->nr,
						   .blocks = from,
						   .list = &j->list });
	if (ret)
		return ret;
	wfi_shape_named(s, m->layer, m->nr_layers, m->first_block, m->nr);
	x = (struct wfi_xfer_opts){
		.pieces = j->list.pieces,
		.nr_pieces = j->list.nr,
		.nr_blocks = j->nr,
		.results = j->results,
		.sum_ops = &wfi_crc32c_sums,
		.sums = j->sums,
		.deadline_ns =
			wfi_min(h->opts.deadline_ns, now_ns + m->timeout_us * WFI_NSEC_PER_USEC),
		.done = job_done,
		.late = job_late,
		.ctx = j,
	};
	s->peer = peer;
	h->nr_reads++;
	j->busy = true;
	ret = wfi_peer_read(hs->opts.xfer, peer, h->tenant, NULL, &x, &j->read);
	if (ret) {
		/* layers of these blocks are now out of order: the handoff can't be completed */
		h->nr_reads--;
		j->busy = false;
		wfi_handoff_read_failed(hs, h, ret);
	}
	return ret;
}

/* ---- ends ---- */

void wfi_shape_cancel(struct wfi_handoffs *hs, const struct handoff *h)
{
	struct shape_job *j;

	for (j = hs->jobs; j; j = j->next)
		if (j->busy && j->h == h)
			wfi_peer_read_cancel(hs->opts.xfer, &j->read);
}

void wfi_shape_peer_lost(struct wfi_handoffs *hs, const struct wfi_peer *peer)
{
	struct shape_job *j;

	for (j = hs->jobs; j; j = j->next)
		if (j->busy && j->peer == peer)
			j->peer = NULL;
}

bool wfi_shape_fed_by(const struct handoff *h, const struct wfi_peer *peer)
{
	uint32_t i;

	for (i = 0; h->shape && i < h->shape->nr_sources; i++)
		if (h->shape->sources[i]->peer == peer)
			return true;
	return false;
}

bool wfi_shape_fed_from(const struct handoff *h, uint32_t owner)
{
	uint32_t i;

	for (i = 0; h->shape && i < h->shape->nr_sources; i++)
		if (h->shape->sources[i]->owner == owner)
			return true;
	return false;
}

uint32_t wfi_shape_reads_of(const struct wfi_handoffs *hs, const struct weft_ep *ep)
{
	const struct shape_job *j;
	uint32_t n = 0;

	for (j = hs->jobs; j; j = j->next)
		n += j->busy && j->read.ep == ep;
	return n;
}

void wfi_shape_fini(struct wfi_handoffs *hs)
{
	struct shape_job *j;

	while ((j = hs->jobs)) {
		hs->jobs = j->next;
		wfi_shape_list_fini(hs->opts.env, &j->list);
		wfi_free(hs->opts.env, j, sizeof(*j));
	}
	if (hs->runs)
		wfi_free(hs->opts.env, hs->runs, SHAPE_RUNS_MAX * sizeof(*hs->runs));
}
