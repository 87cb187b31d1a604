/* SPDX-License-Identifier: Apache-2.0 */
/* served_post.c - posts become frames */
#include <errno.h>
#include <string.h>
#include "transport/served.h"

/* ---- frames ---- */

struct wfi_srv_tx *wfi_srv_tx_get(struct wfi_srv_ep *ep)
{
	struct wfi_srv_tx *tx = ep->tx_free;

	if (wfi_unlikely(!tx))
		return NULL;
	ep->tx_free = tx->next;
	ep->nr_free--;
	tx->used = true;
	tx->iov[0].iov_base = tx->head;
	tx->nr_iov = 1;
	tx->at = 0;
	tx->nr_busy = 0;
	tx->lends = 0;
	return tx;
}

void wfi_srv_tx_frame(struct wfi_srv_tx *tx, const struct wfi_srv_frame *f,
		      const struct wfi_srv_desc *descs)
{
	const size_t bytes = f->h.nr * sizeof(*descs);

	memcpy(tx->head, f, sizeof(*f));
	if (bytes)
		memcpy(tx->head + sizeof(*f), descs, bytes);
	tx->iov[0].iov_len = sizeof(*f) + bytes;
}

/* what all have in common */
static void head_fill(struct wfi_srv_ep *ep, struct wfi_srv_head *h)
{
	h->to = ep->peer_id;
	h->magic = WFI_SRV_FRAME_MAGIC;
	h->credit = ep->msg_taken;
	ep->msg_told = ep->msg_taken;
}

void wfi_srv_tx_push(struct wfi_srv_ep *ep, struct wfi_srv_tx *tx)
{
	head_fill(ep, (struct wfi_srv_head *)(void *)tx->head);
	wfi_srv_device(ep->base.dev)->wire->push(ep, tx);
}

/* ---- posts ---- */

static struct wfi_srv_cq *send_cq(const struct wfi_srv_ep *ep)
{
	return wfi_container_of(ep->base.send_cq, struct wfi_srv_cq, base);
}

static bool has_frame(const struct wfi_srv_ep *ep)
{
	return ep->nr_free > WFI_SRV_TX_ANSWERS;
}

/* Return: whether one more post has its places */
static bool has_room(const struct wfi_srv_ep *ep)
{
	const struct wfi_srv_cq *cq = send_cq(ep);

	return ep->open_tail - ep->open_head < ep->depth && cq->nr_open < cq->depth &&
	       has_frame(ep);
}

/* Return: whether the peer has a place for a message */
static bool has_credit(const struct wfi_srv_ep *ep, uint32_t len)
{
	return ep->peer_room - (ep->msg_sent - ep->msg_credit) >= WFI_SRV_RECORD + len;
}

static struct wfi_srv_open *open_add(struct wfi_srv_ep *ep, uint64_t cookie, enum weft_wc_op op,
				     uint32_t flags)
{
	struct wfi_srv_open *open = &ep->opens[ep->open_tail++ & ep->open_mask];

	memset(open, 0, sizeof(*open));
	open->cookie = cookie;
	open->op = (uint8_t)op;
	open->flags = (uint8_t)flags;
	send_cq(ep)->nr_open++;
	wfi_srv_stir(ep);
	return open;
}

/* what a post comes to, before anything is posted */
struct build {
	uint64_t bytes;
	uint32_t nr; /* good pieces */
	int status; /* of the next one */
	bool mapped; /* all of the good ones are */
};

/* Return: 0, -EINVAL. The descriptors are the device's */
static int post_check(struct wfi_srv_ep *ep, const struct weft_post *post, uint32_t need,
		      struct build *b)
{
	const struct weft_caps *caps = &ep->base.dev->caps;
	struct wfi_srv_desc *desc = wfi_srv_device(ep->base.dev)->descs;
	const struct weft_piece *p = post->pieces, *end = p + post->nr_pieces;

	*b = (struct build){ .mapped = ep->peer_gens.mem };
	if (wfi_unlikely(post->nr_pieces > caps->max_pieces))
		return -EINVAL;
	for (; p < end; p++, desc++) {
		const struct wfi_srv_rkey *rkey;

		b->status = wfi_piece_check(&ep->base, post, p, need);
		if (wfi_unlikely(b->status))
			break;
		b->bytes += p->len;
		if (wfi_unlikely(p->len > caps->max_piece_bytes || b->bytes > caps->max_post_bytes))
			return -EINVAL;
		rkey = wfi_container_of(p->rkey, struct wfi_srv_rkey, base);
		desc->off = p->remote;
		desc->secret = rkey->secret;
		desc->len = (uint32_t)p->len;
		desc->export_idx = rkey->export_idx;
		b->mapped &= rkey->view.mem != NULL;
	}
	b->nr = (uint32_t)(p - post->pieces);
	b->mapped &= b->nr > 0;
	return 0;
}

/* at once, up to a piece whose region is gone */
static void build_copy(const struct weft_post *post, bool read, struct build *b)
{
	const uint32_t done = wfi_srv_local_copy(post->pieces, b->nr, read);

	if (done == b->nr)
		return;
	b->status = -ESTALE;
	b->nr = done;
}

/* with what is known of it at once */
static struct wfi_srv_open *open_of(struct wfi_srv_ep *ep, const struct weft_post *post,
				    enum weft_wc_op op, const struct build *b)
{
	struct wfi_srv_open *open = open_add(ep, post->cookie, op, post->flags);

	open->status = b->status;
	open->idx = b->nr;
	open->nr = b->nr;
	open->scope = b->status ? WEFT_SCOPE_OP : WEFT_SCOPE_NONE;
	return open;
}

static int post_write(struct wfi_srv_ep *ep, const struct weft_post *post, bool imm)
{
	struct wfi_srv_frame f = { .h.kind = WFI_SRV_WRITE, .serial = ep->open_tail };
	struct wfi_srv_tx *tx;
	struct build b;
	uint32_t i;
	int ret;

	ret = post_check(ep, post, WEFT_ACCESS_REMOTE_WRITE, &b);
	if (wfi_unlikely(ret))
		return ret;
	if (wfi_unlikely(!has_room(ep) || (imm && !has_credit(ep, 0))))
		return -EAGAIN;
	if (b.mapped)
		build_copy(post, false, &b);
	/* bytes that will not land are not announced */
	imm = imm && !b.status;
	if ((!b.nr || b.mapped) && !imm) {
		open_of(ep, post, WEFT_WC_WRITE, &b)->done = true;
		return 0;
	}
	f.h.nr = b.mapped ? 0 : (uint16_t)b.nr;
	f.bytes = b.mapped ? 0 : b.bytes;
	if (imm) {
		f.flags = WFI_SRV_F_IMM;
		f.imm = post->imm;
		ep->msg_sent += WFI_SRV_RECORD;
	}
	tx = wfi_srv_tx_get(ep);
	wfi_srv_tx_frame(tx, &f, wfi_srv_device(ep->base.dev)->descs);
	for (i = 0; i < f.h.nr; i++) {
		if (!post->pieces[i].len)
			continue;
		tx->iov[tx->nr_iov].iov_base = post->pieces[i].local;
		tx->iov[tx->nr_iov++].iov_len = post->pieces[i].len;
	}
	open_of(ep, post, WEFT_WC_WRITE, &b);
	wfi_srv_tx_push(ep, tx);
	return 0;
}

static int srv_post_write(struct weft_ep *base, const struct weft_post *post)
{
	return post_write(wfi_srv_ep(base), post, false);
}

static int srv_post_write_imm(struct weft_ep *base, const struct weft_post *post)
{
	return post_write(wfi_srv_ep(base), post, true);
}

static int srv_post_read(struct weft_ep *base, const struct weft_post *post)
{
	struct wfi_srv_ep *ep = wfi_srv_ep(base);
	struct wfi_srv_frame f = { .h.kind = WFI_SRV_READ, .serial = ep->open_tail };
	struct wfi_srv_piece *to;
	struct wfi_srv_tx *tx;
	struct build b;
	uint32_t i;
	int ret;

	ret = post_check(ep, post, WEFT_ACCESS_REMOTE_READ, &b);
	if (wfi_unlikely(ret))
		return ret;
	if (wfi_unlikely(!has_room(ep) || ep->reads_tail - ep->reads_head == WFI_SRV_READS))
		return -EAGAIN;
	if (b.mapped)
		build_copy(post, true, &b);
	if (!b.nr || b.mapped) {
		open_of(ep, post, WEFT_WC_READ, &b)->done = true;
		return 0;
	}
	f.h.nr = (uint16_t)b.nr;
	to = ep->reads[ep->reads_tail++ % WFI_SRV_READS];
	for (i = 0; i < b.nr; i++)
		to[i] = (struct wfi_srv_piece){ .mem = post->pieces[i].local,
						.len = (uint32_t)post->pieces[i].len };
	open_of(ep, post, WEFT_WC_READ, &b);
	tx = wfi_srv_tx_get(ep);
	wfi_srv_tx_frame(tx, &f, wfi_srv_device(base->dev)->descs);
	wfi_srv_tx_push(ep, tx);
	return 0;
}

static __attribute__((noinline)) void open_sent(struct wfi_srv_ep *ep, uint64_t cookie,
						uint32_t flags)
{
	open_add(ep, cookie, WEFT_WC_SEND, flags)->done = true;
}

/* what is in the next free frame's head, all of it */
static __attribute__((noinline)) void send_push(struct wfi_srv_ep *ep, size_t len)
{
	struct wfi_srv_tx *tx = wfi_srv_tx_get(ep);

	tx->iov[0].iov_len = len;
	wfi_srv_device(ep->base.dev)->wire->push(ep, tx);
}

/* a quiet one is nobody's business once it has its frame: it needs no place among the open ones */
static int srv_post_send(struct weft_ep *base, const void *buf, uint32_t len, uint64_t cookie,
			 uint32_t flags)
{
	struct wfi_srv_ep *ep = wfi_srv_ep(base);
	const struct wfi_srv_wire *wire = wfi_srv_device(base->dev)->wire;
	const bool quiet = flags & WEFT_POST_QUIET;
	struct wfi_srv_head *h;

	if (wfi_unlikely(!len || len > base->dev->caps.max_msg))
		return -EINVAL;
	if (wfi_unlikely(!(quiet ? has_frame(ep) : has_room(ep)) || !has_credit(ep, len)))
		return -EAGAIN;
	/* of the frame that it takes if it can't leave at once */
	h = (struct wfi_srv_head *)(void *)ep->tx_free->head;
	h->kind = WFI_SRV_SEND;
	h->nr = (uint16_t)len;
	head_fill(ep, h);
	wfi_copy_few(h + 1, buf, len);
	ep->msg_sent += WFI_SRV_RECORD + len;
	if (!quiet)
		open_sent(ep, cookie, flags);
	if (wire->dart && wire->dart(ep, h, sizeof(*h) + len))
		return 0;
	send_push(ep, sizeof(*h) + len);
	return 0;
}

const struct weft_ep_fast wfi_srv_fast = {
	.post_read = srv_post_read,
	.post_write = srv_post_write,
	.post_write_imm = srv_post_write_imm,
	.post_send = srv_post_send,
	.post_msg = wfi_ep_flat_msg,
};

/* ---- their completions ---- */

/* quiet ones that went well are nobody's business */
static bool open_silent(const struct wfi_srv_open *open)
{
	return !open->status && (open->flags & WEFT_POST_QUIET);
}

static void open_pop(struct wfi_srv_ep *ep)
{
	/* one that needed no answer may not have been passed by who looks for the next that does */
	ep->open_next += ep->open_next == ep->open_head;
	ep->open_head++;
	send_cq(ep)->nr_open--;
	wfi_srv_stir(ep);
}

void wfi_srv_reap(struct wfi_srv_ep *ep)
{
	while (ep->open_head != ep->open_tail) {
		const struct wfi_srv_open *open = &ep->opens[ep->open_head & ep->open_mask];

		if (!open->done || !open_silent(open))
			return;
		open_pop(ep);
	}
}

/* of the read that comes next to be told of, while its bytes arrive. Return: completions written */
static unsigned take_part(struct wfi_srv_ep *ep, struct weft_wc *wc)
{
	const struct wfi_srv_open *open = &ep->opens[ep->open_head & ep->open_mask];
	struct wfi_srv_rx *rx = &ep->rx;

	if (ep->open_head != ep->open_next || !(open->flags & WEFT_POST_PARTS) || !rx->busy ||
	    rx->f.h.kind != WFI_SRV_DATA || rx->untold < WFI_SRV_PART)
		return 0;
	rx->untold = 0;
	*wc = (struct weft_wc){ .cookie = open->cookie,
				.ep = &ep->base,
				.op = WEFT_WC_PART,
				.len = rx->f.bytes - rx->left };
	return 1;
}

unsigned wfi_srv_take_posts(struct wfi_srv_ep *ep, struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;

	for (wfi_srv_reap(ep); n < max && ep->open_head != ep->open_tail; wfi_srv_reap(ep)) {
		const struct wfi_srv_open *open = &ep->opens[ep->open_head & ep->open_mask];

		if (!open->done)
			break;
		open_pop(ep);
		memset(&wcs[n], 0, sizeof(wcs[n]));
		wcs[n].cookie = open->cookie;
		wcs[n].ep = &ep->base;
		wcs[n].status = open->status;
		wcs[n].op = open->op;
		wcs[n].scope = open->scope;
		wcs[n++].idx = open->idx;
	}
	if (n < max && ep->open_head != ep->open_tail)
		n += take_part(ep, &wcs[n]);
	return n;
}

bool wfi_srv_has_posts(const struct wfi_srv_ep *ep)
{
	/* what is done and not reaped is to be told */
	return ep->open_head != ep->open_tail && ep->opens[ep->open_head & ep->open_mask].done;
}
