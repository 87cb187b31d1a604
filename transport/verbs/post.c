/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "transport/verbs/verbs.h"

#define QUIET_RUN 32u
#define SIGNAL_EACH 32u

/* a post while it is built */
struct build {
	uint32_t nr_wrs;
	uint32_t nr_good; /* pieces before the first bad one */
	int status; /* of that one, or 0 */
	uint64_t bytes;
	struct wfi_verbs_buf *buf; /* that its bytes were copied to */
};

static struct wfi_verbs_cq *send_cq(struct wfi_verbs_ep *ep)
{
	return wfi_verbs_cq(ep->base.send_cq);
}

/* Return: 0 there is room for a post of @nr requests, -EAGAIN */
static int room(struct wfi_verbs_ep *ep, uint32_t nr, uint32_t flags)
{
	const struct wfi_verbs_cq *cq = send_cq(ep);

	if (wfi_unlikely(ep->open_tail - ep->open_head >= ep->depth ||
			 (cq->nr_open >= cq->depth && !(flags & WEFT_POST_QUIET)) ||
			 ep->sq_tail - ep->sq_head + nr + WFI_VERBS_SQ_CTL > ep->sq_size))
		return -EAGAIN;
	return 0;
}

/* Return: 0 the peer has a buffer for one message more, -EAGAIN, -EIO. Its word is its own to
 * write */
static int credit(struct wfi_verbs_ep *ep)
{
	uint32_t limit;

	if (wfi_likely(ep->tx_sent != ep->tx_limit))
		return 0;
	/* pairs with the peer's RDMA write, which its NIC sends after the buffers were given
	 * back */
	limit = le32toh(__atomic_load_n(&ep->credit[0], __ATOMIC_ACQUIRE)) + ep->tx_credits;
	if (limit == ep->tx_sent)
		return -EAGAIN;
	if (wfi_unlikely(limit - ep->tx_sent > ep->tx_credits)) {
		wfi_verbs_ep_break(ep, -EIO, WEFT_SCOPE_EP);
		return -ENOTCONN;
	}
	ep->tx_limit = limit;
	return 0;
}

/* hands the first @nr of the chain to the NIC; what it refuses ends the endpoint */
static void ring(struct wfi_verbs_ep *ep, struct ibv_send_wr *first, struct ibv_send_wr *last,
		 uint32_t nr)
{
	struct ibv_send_wr *next = last->next, *bad = NULL;

	last->next = NULL;
	if (wfi_unlikely(ibv_post_send(ep->qp, first, &bad))) {
		/* those before @bad are on their way, the others will never complete */
		for (nr = 0; first && first != bad; first = first->next)
			nr++;
		ep->sq_tail += nr;
		wfi_verbs_ep_break(ep, -EIO, WEFT_SCOPE_EP);
	} else {
		ep->sq_tail += nr;
	}
	last->next = next;
}

static void open_add(struct wfi_verbs_ep *ep, uint64_t cookie, enum weft_wc_op op, uint32_t flags,
		     const struct build *b, uint32_t end)
{
	struct wfi_verbs_open *open = &ep->opens[ep->open_tail++ & ep->open_mask];
	struct wfi_verbs_cq *cq = send_cq(ep);

	open->cookie = cookie;
	open->buf = b->buf;
	open->end = end;
	open->idx = b->nr_good;
	open->status = b->status;
	open->op = (uint8_t)op;
	open->scope = b->status ? WEFT_SCOPE_OP : WEFT_SCOPE_NONE;
	open->flags = (uint8_t)flags;
	open->large = b->bytes > WFI_VERBS_SIGNAL_BYTES;
	cq->nr_open += !(flags & WEFT_POST_QUIET);
	if (wfi_unlikely(end == ep->sq_head || ep->broken))
		wfi_verbs_cq_ready(cq, ep);
}

/* must the last request of a post say when it is done? */
static bool signal_due(struct wfi_verbs_ep *ep, uint32_t flags, uint32_t nr_wrs, int status)
{
	if (!(flags & WEFT_POST_QUIET) || status || ++ep->quiet_run >= QUIET_RUN ||
	    2 * ep->quiet_run >= ep->depth || 4 * (ep->unsignalled + nr_wrs) >= ep->sq_size) {
		ep->unsignalled = 0;
		ep->quiet_run = 0;
		return true;
	}
	ep->unsignalled += nr_wrs;
	return false;
}

static int key_check(const struct wfi_verbs_ep *ep, const struct weft_rkey *rkey, uint32_t need)
{
	return !rkey || rkey->ep != &ep->base || !(rkey->access & need) ? -EACCES : 0;
}

/* Return: 0, or what is wrong with the piece: the peer's side is looked at first */
static inline int piece_check(const struct weft_piece *piece, const struct wfi_verbs_rkey *key,
			      uintptr_t mem, uint64_t mem_len)
{
	if (wfi_unlikely(!wfi_range_ok(piece->remote, piece->len, key->base.len)))
		return -ERANGE;
	if (wfi_unlikely(!wfi_range_ok((uintptr_t)piece->local - mem, piece->len, mem_len)))
		return -EFAULT;
	return 0;
}

/* .next is set already */
static inline void wr_fill(struct ibv_send_wr *wr, uint64_t id, struct ibv_sge *sge,
			   enum ibv_wr_opcode opcode, uint64_t addr, uint32_t rkey)
{
	wr->wr_id = id;
	wr->sg_list = sge;
	wr->num_sge = 1;
	wr->opcode = opcode;
	wr->send_flags = 0;
	wr->wr.rdma.remote_addr = addr;
	wr->wr.rdma.rkey = rkey;
}

/* one request a piece; pieces that follow each other at the peer share one */
static int build_chain(struct wfi_verbs_ep *ep, const struct weft_post *post,
		       enum ibv_wr_opcode opcode, uint32_t need, struct build *b)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(ep->base.dev);
	const struct weft_mr *mr = post->local_mr;
	const uint32_t lkey = wfi_container_of(mr, struct wfi_verbs_mr, base)->lkey;
	const int max_sge = (int)(opcode == IBV_WR_RDMA_READ ? dev->read_sges : dev->write_sges);
	const uint64_t max_msg = dev->base.caps.max_piece_bytes;
	const uintptr_t mem = (uintptr_t)mr->addr;
	const uint64_t mem_len = mr->len;
	const struct weft_piece *piece = post->pieces, *stop = piece + post->nr_pieces;
	const struct wfi_verbs_rkey *key = NULL;
	uint64_t run = 0, end = 0, sum = 0;
	struct ibv_send_wr *wr = dev->wrs - 1;
	struct ibv_sge *sge = dev->sges;
	uint32_t seq = ep->sq_tail;

	for (; piece != stop; piece++) {
		const uint64_t len = piece->len;
		uint64_t addr;

		if (!key || piece->rkey != &key->base) {
			b->status = key_check(ep, piece->rkey, need);
			if (wfi_unlikely(b->status))
				break;
			key = wfi_container_of(piece->rkey, struct wfi_verbs_rkey, base);
			end = 0;
		}
		b->status = piece_check(piece, key, mem, mem_len);
		if (wfi_unlikely(b->status))
			break;
		if (wfi_unlikely(!len))
			continue;
		if (wfi_unlikely(len > max_msg))
			return -EINVAL;
		sum += len;
		addr = key->addr + piece->remote;
		sge->addr = (uintptr_t)piece->local;
		sge->length = (uint32_t)len;
		sge->lkey = lkey;
		run += len;
		if (addr == end && run <= max_msg && wr->num_sge < max_sge) {
			wr->num_sge++;
		} else {
			wr_fill(++wr, ep->wr_base | seq++, sge, opcode, addr, key->rkey);
			run = len;
		}
		end = addr + len;
		sge++;
	}
	if (wfi_unlikely(sum > dev->base.caps.max_post_bytes))
		return -EINVAL;
	b->bytes = sum;
	b->nr_good = (uint32_t)(piece - post->pieces);
	b->nr_wrs = (uint32_t)(wr - dev->wrs + 1);
	/* small writes travel in the request itself */
	if (b->nr_wrs == 1 && opcode == IBV_WR_RDMA_WRITE && sum <= dev->base.caps.max_inline)
		wr->send_flags = IBV_SEND_INLINE;
	return 0;
}

/* a request that moves nothing: it carries an immediate, or shows that all before it is done */
static void build_empty(struct wfi_verbs_ep *ep, struct build *b)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(ep->base.dev);
	struct ibv_send_wr *wr = &dev->wrs[b->nr_wrs];

	wr->wr_id = ep->wr_base | (uint32_t)(ep->sq_tail + b->nr_wrs++);
	wr->sg_list = NULL;
	wr->num_sge = 0;
	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->send_flags = 0;
	wr->wr.rdma.remote_addr = 0;
	wr->wr.rdma.rkey = 0;
}

static int check_post(const struct wfi_verbs_ep *ep, const struct weft_post *post)
{
	if (wfi_unlikely(post->nr_pieces > ep->base.dev->caps.max_pieces))
		return -EINVAL;
	if (wfi_unlikely(post->nr_pieces &&
			 (!post->local_mr || post->local_mr->dev != ep->base.dev)))
		return -EINVAL;
	return 0;
}

/* reads into memory that may not be written: nothing is tried */
static bool may_land(const struct weft_post *post, uint32_t need)
{
	return need != WEFT_ACCESS_REMOTE_READ || !post->nr_pieces ||
	       (post->local_mr->access & WEFT_ACCESS_LOCAL_WRITE);
}

static void finish(struct wfi_verbs_ep *ep, const struct weft_post *post, enum weft_wc_op op,
		   struct build *b)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(ep->base.dev);
	uint32_t end = ep->sq_tail + b->nr_wrs;
	uint32_t each = SIGNAL_EACH, i;
	struct ibv_send_wr *last;

	/* a long chain tells how far it is, or slow looks like dead */
	if (wfi_unlikely(b->bytes > WFI_VERBS_SIGNAL_BYTES))
		each = (uint32_t)wfi_min(each, 1 + (uint64_t)b->nr_wrs * WFI_VERBS_SIGNAL_BYTES /
							       b->bytes);
	for (i = each - 1; i + 1 < b->nr_wrs; i += each)
		dev->wrs[i].send_flags |= IBV_SEND_SIGNALED;
	if (b->nr_wrs) {
		last = &dev->wrs[b->nr_wrs - 1];
		if (signal_due(ep, post->flags, b->nr_wrs, b->status))
			last->send_flags |= IBV_SEND_SIGNALED;
		ring(ep, dev->wrs, last, b->nr_wrs);
	}
	open_add(ep, post->cookie, op, post->flags, b, end);
}

static int post_pieces(struct weft_ep *base, const struct weft_post *post,
		       enum ibv_wr_opcode opcode, enum weft_wc_op op, uint32_t need)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct build b = { 0 };
	int ret;

	ret = check_post(ep, post);
	if (!ret)
		ret = room(ep, post->nr_pieces, post->flags);
	if (wfi_unlikely(!ret && !may_land(post, need)))
		b.status = -EACCES;
	else if (!ret && wfi_likely(post->nr_pieces))
		ret = build_chain(ep, post, opcode, need, &b);
	if (wfi_unlikely(ret))
		return ret;
	/* nothing to move, and nobody will say when what is before it is done */
	if (wfi_unlikely(!b.nr_wrs && ep->unsignalled))
		build_empty(ep, &b);
	finish(ep, post, op, &b);
	return 0;
}

static int verbs_post_read(struct weft_ep *ep, const struct weft_post *post)
{
	return post_pieces(ep, post, IBV_WR_RDMA_READ, WEFT_WC_READ, WEFT_ACCESS_REMOTE_READ);
}

static int verbs_post_write(struct weft_ep *ep, const struct weft_post *post)
{
	return post_pieces(ep, post, IBV_WR_RDMA_WRITE, WEFT_WC_WRITE, WEFT_ACCESS_REMOTE_WRITE);
}

static int verbs_post_write_imm(struct weft_ep *base, const struct weft_post *post)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct build b = { 0 };
	struct ibv_send_wr *last;
	int ret;

	ret = check_post(ep, post);
	if (!ret)
		ret = room(ep, post->nr_pieces + 1, post->flags);
	if (!ret)
		ret = credit(ep);
	if (!ret && post->nr_pieces)
		ret = build_chain(ep, post, IBV_WR_RDMA_WRITE, WEFT_ACCESS_REMOTE_WRITE, &b);
	if (wfi_unlikely(ret))
		return ret;
	if (!b.nr_wrs)
		build_empty(ep, &b);
	/* bytes that do not land are not announced */
	if (wfi_likely(!b.status)) {
		last = &dev->wrs[b.nr_wrs - 1];
		last->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
		last->imm_data = htobe32(post->imm);
		ep->tx_sent++;
	}
	finish(ep, post, WEFT_WC_WRITE, &b);
	return 0;
}

/* Return: 0 there is room and a credit for a message, else as post_send() */
static int msg_begin(struct wfi_verbs_ep *ep, uint32_t flags)
{
	int ret = room(ep, 1, flags);

	return ret ? ret : credit(ep);
}

static void msg_ring(struct wfi_verbs_ep *ep, struct ibv_send_wr *wr, const struct build *b,
		     uint64_t cookie, uint32_t flags)
{
	/* quiet ones keep their buffers for a while: somebody must give one back */
	bool signal = b->buf && !wfi_verbs_device(ep->base.dev)->tx.free;
	uint32_t end = ep->sq_tail + 1;

	ep->tx_sent++;
	wr->opcode = IBV_WR_SEND;
	wr->wr_id = ep->wr_base | ep->sq_tail;
	if (signal_due(ep, signal ? 0 : flags, 1, 0))
		wr->send_flags |= IBV_SEND_SIGNALED;
	ring(ep, wr, wr, 1);
	open_add(ep, cookie, WEFT_WC_SEND, flags, b, end);
}

static int verbs_post_send(struct weft_ep *base, const void *buf, uint32_t len, uint64_t cookie,
			   uint32_t flags)
{
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct build b = { 0 };
	struct ibv_sge sge = { .addr = (uintptr_t)buf, .length = len };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1 };
	int ret;

	if (wfi_unlikely(!len || len > WFI_VERBS_MSG_BYTES))
		return -EINVAL;
	ret = msg_begin(ep, flags);
	if (wfi_unlikely(ret))
		return ret;
	if (len <= base->dev->caps.max_inline) {
		wr.send_flags = IBV_SEND_INLINE;
	} else {
		b.buf = wfi_verbs_buf_get(&wfi_verbs_device(base->dev)->tx);
		if (wfi_unlikely(!b.buf))
			return -EAGAIN;
		memcpy(b.buf->mem, buf, len);
		sge.addr = (uintptr_t)b.buf->mem;
		sge.lkey = b.buf->lkey;
	}
	msg_ring(ep, &wr, &b, cookie, flags);
	return 0;
}

/* one of no bytes would be one of 2 GiB to some NICs. Return: behind it */
static struct ibv_sge *sge_add(struct ibv_sge *sge, const void *mem, uint64_t len, uint32_t lkey)
{
	if (wfi_unlikely(!len))
		return sge;
	sge->addr = (uintptr_t)mem;
	sge->length = (uint32_t)len;
	sge->lkey = lkey;
	return sge + 1;
}

/*
 * The head, and the first pieces if there are more than the NIC gathers, go into a buffer; the
 * others are read where they lie. Return: SGEs
 */
static int msg_gather(const struct wfi_verbs_device *dev, const struct weft_msg *msg,
		      const struct wfi_verbs_buf *buf, struct ibv_sge *sges)
{
	const uint32_t most = msg->local_mr ? dev->write_sges - 1 : 0;
	const uint32_t nr_copied = msg->nr_pieces > most ? msg->nr_pieces - most : 0;
	struct ibv_sge *sge = sges;
	uint8_t *end;
	uint32_t i;

	memcpy(buf->mem, msg->head, msg->head_len);
	end = wfi_pieces_copy(buf->mem + msg->head_len, msg->pieces, nr_copied);
	sge = sge_add(sge, buf->mem, (uint64_t)(end - buf->mem), buf->lkey);
	for (i = nr_copied; i < msg->nr_pieces; i++)
		sge = sge_add(sge, msg->pieces[i].local, msg->pieces[i].len,
			      wfi_container_of(msg->local_mr, struct wfi_verbs_mr, base)->lkey);
	return (int)(sge - sges);
}

static int verbs_post_msg(struct weft_ep *base, const struct weft_msg *msg)
{
	struct wfi_verbs_device *dev = wfi_verbs_device(base->dev);
	struct wfi_verbs_ep *ep = wfi_verbs_ep(base);
	struct ibv_sge sges[WFI_VERBS_SGES];
	struct ibv_send_wr wr = { .sg_list = sges };
	struct build b = { 0 };
	int ret = wfi_msg_len(base, msg);

	if (wfi_unlikely(ret < 0))
		return ret;
	ret = msg_begin(ep, msg->flags);
	if (wfi_unlikely(ret))
		return ret;
	b.buf = wfi_verbs_buf_get(&dev->tx);
	if (wfi_unlikely(!b.buf))
		return -EAGAIN;
	wr.num_sge = msg_gather(dev, msg, b.buf, sges);
	msg_ring(ep, &wr, &b, msg->cookie, msg->flags | (msg->local_mr ? WFI_VERBS_OPEN_LENT : 0));
	return 0;
}

const struct weft_ep_fast wfi_verbs_fast = {
	.post_read = verbs_post_read,
	.post_write = verbs_post_write,
	.post_write_imm = verbs_post_write_imm,
	.post_send = verbs_post_send,
	.post_msg = verbs_post_msg,
};

int wfi_verbs_post_ctl(struct wfi_verbs_ep *ep, struct ibv_send_wr *wr)
{
	if (ep->broken || ep->sq_tail - ep->sq_head >= ep->sq_size)
		return -EAGAIN;
	wr->wr_id = ep->wr_base | ep->sq_tail;
	wr->next = NULL;
	wr->send_flags |= IBV_SEND_SIGNALED;
	ep->unsignalled = 0;
	ep->quiet_run = 0;
	ring(ep, wr, wr, 1);
	return 0;
}

int wfi_verbs_post_credit(struct wfi_verbs_ep *ep)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)&ep->credit[16],
		.length = sizeof(uint32_t),
		.lkey = ep->credit_buf->lkey,
	};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.wr.rdma.remote_addr = ep->peer_credit_addr,
		.wr.rdma.rkey = ep->peer_credit_rkey,
	};

	/* one at a time, so that few places are kept for them */
	if ((int32_t)(ep->told_at - ep->sq_head) > 0)
		return -EAGAIN;
	ep->credit[16] = htole32(ep->rx_taken);
	if (ep->base.dev->caps.max_inline >= sizeof(uint32_t))
		wr.send_flags = IBV_SEND_INLINE;
	if (wfi_verbs_post_ctl(ep, &wr))
		return -EAGAIN;
	ep->rx_told = ep->rx_taken;
	ep->told_at = ep->sq_tail;
	return 0;
}
