/* SPDX-License-Identifier: Apache-2.0 */
/* served_ep.c - endpoints whose peers serve: what arrives, what is answered, and the end */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "transport/served.h"
#include "weft_internal/log.h"

#define DEPTH_DEFAULT 64u
#define RECV_DEFAULT (256u << 10)
#define RECV_MAX (1u << 28)
#define RECORD_MAX (WFI_SRV_RECORD + WFI_SRV_MSG)
#define SHUT_NS (30 * WFI_NSEC_PER_MSEC) /* for what is under way to finish */
#define ERRNO_MAX 4095

/* in front of each message in the ring; records begin at multiples of WFI_SRV_RECORD */
struct record {
	uint32_t len;
	uint32_t imm;
	uint8_t op; /* enum weft_wc_op */
	uint8_t skip; /* nothing from here to the end of the ring */
};

_Static_assert(sizeof(struct record) <= WFI_SRV_RECORD, "in front of it");

/* ---- messages ---- */

static uint32_t record_bytes(uint32_t len)
{
	return (uint32_t)wfi_align_up(WFI_SRV_RECORD + len, WFI_SRV_RECORD);
}

static struct record *record_at(const struct wfi_srv_ep *ep, uint32_t off)
{
	return (struct record *)(void *)(ep->ring + off);
}

/* Return: where the next one of @len bytes goes; the credits have made sure that it is free */
static struct record *record_next(struct wfi_srv_ep *ep, uint32_t len)
{
	if (wfi_unlikely(ep->ring_tail + record_bytes(len) > ep->ring_bytes)) {
		if (ep->ring_tail < ep->ring_bytes)
			record_at(ep, ep->ring_tail)->skip = 1;
		ep->ring_tail = 0;
	}
	return record_at(ep, ep->ring_tail);
}

/* @r: record_next() */
static void record_add(struct wfi_srv_ep *ep, struct record *r, enum weft_wc_op op, uint32_t len,
		       uint32_t imm)
{
	*r = (struct record){ .len = len, .imm = imm, .op = (uint8_t)op };
	ep->ring_tail += record_bytes(len);
	ep->nr_msgs++;
}

/* one more begins. The peer keeps to the room that it was told of; return: whether it does */
static bool record_came(struct wfi_srv_ep *ep, uint32_t len)
{
	if (ep->room - (ep->msg_came - ep->msg_taken) < WFI_SRV_RECORD + len)
		return false;
	ep->msg_came += WFI_SRV_RECORD + len;
	/* where the last one was is in the cache; the rest of the ring is larger than that */
	if (!ep->nr_msgs && !ep->lent_bytes)
		ep->ring_tail = ep->ring_shown = 0;
	return true;
}

/* what the peer does not know yet is much of its room: it is told, if not with other news */
static bool credit_due(const struct wfi_srv_ep *ep)
{
	return ep->msg_taken - ep->msg_told >= ep->room / 4;
}

void wfi_srv_give_back(struct wfi_srv_ep *ep)
{
	ep->msg_taken += ep->lent_bytes;
	ep->lent_bytes = 0;
	if (wfi_unlikely(credit_due(ep)))
		wfi_srv_stir(ep);
}

static void lend(struct wfi_srv_ep *ep, uint32_t bytes)
{
	struct wfi_srv_cq *cq = wfi_container_of(ep->base.recv_cq, struct wfi_srv_cq, base);

	if (!ep->lent_bytes) {
		ep->lent_next = cq->lent;
		cq->lent = ep;
	}
	ep->lent_bytes += bytes;
}

/* what is at .ring_shown */
static void record_show(struct wfi_srv_ep *ep, const struct record *r, enum weft_wc_op op,
			uint32_t len, uint32_t imm, struct weft_wc *wc)
{
	*wc = (struct weft_wc){ .ep = &ep->base,
				.op = (uint8_t)op,
				.imm = imm,
				.data = (const uint8_t *)r + WFI_SRV_RECORD,
				.len = len };
	ep->ring_shown += record_bytes(len);
	lend(ep, WFI_SRV_RECORD + len);
}

static void message_take(struct wfi_srv_ep *ep, struct weft_wc *wc)
{
	const struct record *r;

	if (ep->ring_shown == ep->ring_bytes || record_at(ep, ep->ring_shown)->skip) {
		if (ep->ring_shown < ep->ring_bytes)
			record_at(ep, ep->ring_shown)->skip = 0;
		ep->ring_shown = 0;
	}
	r = record_at(ep, ep->ring_shown);
	record_show(ep, r, r->op, r->len, r->imm, wc);
	ep->nr_msgs--;
}

/* all is over but for telling so */
static bool ep_closable(const struct wfi_srv_ep *ep)
{
	return ep->state == WFI_EP_CLOSING && ep->stopped && ep->open_head == ep->open_tail &&
	       (ep->shut || !ep->nr_msgs);
}

unsigned wfi_srv_take_messages(struct wfi_srv_ep *ep, struct weft_wc *wcs, unsigned max)
{
	unsigned n = 0;

	while (n < max && ep->nr_msgs && !ep->shut)
		message_take(ep, &wcs[n++]);
	if (n < max && wfi_unlikely(ep_closable(ep))) {
		ep->state = WFI_EP_CLOSED;
		wfi_srv_device(ep->base.dev)->nr_closing--;
		memset(&wcs[n], 0, sizeof(wcs[n]));
		wcs[n].ep = &ep->base;
		wcs[n].op = WEFT_WC_CLOSED;
		wcs[n].status = ep->close_status;
		wcs[n++].scope = ep->close_status ? WEFT_SCOPE_EP : WEFT_SCOPE_NONE;
	}
	return n;
}

bool wfi_srv_has_messages(const struct wfi_srv_ep *ep)
{
	return (ep->nr_msgs && !ep->shut) || ep_closable(ep);
}

/* ---- a head arrives ---- */

/* what a peer wrote, copied once */
static void descs_read(struct wfi_srv_desc *desc, const uint8_t *head, uint32_t i)
{
	memcpy(desc, head + sizeof(struct wfi_srv_frame) + i * sizeof(*desc), sizeof(*desc));
}

/* looks all pieces of a request up. Return: bytes of all, of those before the first bad one in
 * *@good */
static uint64_t pieces_find(struct wfi_srv_ep *ep, const uint8_t *head, uint32_t nr, uint32_t need,
			    struct wfi_srv_piece *to, struct wfi_srv_debt *debt)
{
	struct wfi_srv_desc desc;
	uint64_t sum = 0;
	uint32_t i;

	debt->status = 0;
	debt->idx = nr;
	debt->nr = nr;
	for (i = 0; i < nr; i++) {
		descs_read(&desc, head, i);
		sum += desc.len;
		to[i] = (struct wfi_srv_piece){ .len = desc.len, .export_idx = desc.export_idx };
		if (debt->status)
			continue;
		debt->status = wfi_srv_export_find(ep, &desc, need, &to[i].mem);
		if (wfi_unlikely(debt->status))
			debt->idx = i;
	}
	return sum;
}

static struct wfi_srv_debt *debt_next(struct wfi_srv_ep *ep)
{
	return &ep->debts[ep->debt_tail % WFI_SRV_DEPTH];
}

static int begin_write(struct wfi_srv_ep *ep, const uint8_t *head)
{
	struct wfi_srv_rx *rx = &ep->rx;
	struct wfi_srv_debt *debt = debt_next(ep);

	if (ep->debt_tail - ep->debt_head == WFI_SRV_DEPTH ||
	    ((rx->f.flags & WFI_SRV_F_IMM) && !record_came(ep, 0)))
		return -EPROTO;
	debt->serial = rx->f.serial;
	debt->read = false;
	rx->to = rx->pieces;
	rx->nr = rx->f.h.nr;
	if (pieces_find(ep, head, rx->f.h.nr, WEFT_ACCESS_REMOTE_WRITE, rx->pieces, debt) !=
	    rx->f.bytes)
		return -EPROTO;
	rx->status = debt->status;
	rx->idx = debt->idx;
	return 0;
}

static int begin_read(struct wfi_srv_ep *ep, const uint8_t *head)
{
	struct wfi_srv_debt *debt = debt_next(ep);
	const struct wfi_srv_frame *f = &ep->rx.f;

	if (f->bytes || !f->h.nr || ep->debt_tail - ep->debt_head == WFI_SRV_DEPTH ||
	    ep->served_tail - ep->served_head == WFI_SRV_READS)
		return -EPROTO;
	debt->serial = f->serial;
	debt->read = true;
	if (pieces_find(ep, head, f->h.nr, WEFT_ACCESS_REMOTE_READ,
			ep->served[ep->served_tail++ % WFI_SRV_READS], debt) > WFI_MAX_POST_BYTES)
		return -EPROTO;
	ep->debt_tail++;
	return 0;
}

/* the posts up to the next one that asks for an answer have none to wait for */
static struct wfi_srv_open *open_asked(struct wfi_srv_ep *ep)
{
	while (ep->open_next != ep->open_tail) {
		struct wfi_srv_open *open = &ep->opens[ep->open_next & ep->open_mask];

		if (!open->done)
			return open;
		ep->open_next++;
	}
	return NULL;
}

/* Return: 0, -EPROTO an answer that nobody can have given */
static int open_answer(struct wfi_srv_open *open, int32_t status, uint32_t idx)
{
	if (status > 0 || status < -ERRNO_MAX || (status ? idx >= open->nr : idx != open->nr))
		return -EPROTO;
	if (status) {
		open->status = status;
		open->idx = idx;
		open->scope = WEFT_SCOPE_OP;
	}
	open->done = true;
	return 0;
}

static int begin_ack(struct wfi_srv_ep *ep)
{
	const struct wfi_srv_frame *f = &ep->rx.f;
	struct wfi_srv_open *open;

	if (f->bytes || f->h.nr)
		return -EPROTO;
	while ((open = open_asked(ep)) && open->op == WEFT_WC_WRITE) {
		if (ep->open_next++ == f->serial)
			return open_answer(open, f->status, f->status ? f->idx : open->nr);
		open->done = true;
	}
	return -EPROTO;
}

static int begin_data(struct wfi_srv_ep *ep)
{
	struct wfi_srv_open *open = open_asked(ep);
	struct wfi_srv_rx *rx = &ep->rx;
	uint64_t sum = 0;
	uint32_t i;

	if (!open || open->op != WEFT_WC_READ || ep->open_next != rx->f.serial || rx->f.h.nr ||
	    rx->f.idx > open->nr)
		return -EPROTO;
	rx->to = ep->reads[ep->reads_head % WFI_SRV_READS];
	rx->nr = rx->f.idx;
	rx->untold = 0;
	for (i = 0; i < rx->nr; i++)
		sum += rx->to[i].len;
	return sum == rx->f.bytes ? 0 : -EPROTO;
}

static int frame_begin(struct wfi_srv_ep *ep, const uint8_t *head)
{
	switch (ep->rx.f.h.kind) {
	case WFI_SRV_WRITE:
		return begin_write(ep, head);
	case WFI_SRV_READ:
		return begin_read(ep, head);
	case WFI_SRV_ACK:
		return begin_ack(ep);
	case WFI_SRV_DATA:
		return begin_data(ep);
	default:
		return -EPROTO;
	}
}

/* ---- and its bytes have landed ---- */

/* its @len bytes are behind @r. To tell at once: nothing is due before it was taken */
static void message_end(struct wfi_srv_ep *ep, struct record *r, uint32_t len)
{
	struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	struct wfi_srv_poll *poll = &dev->poll;

	if (wfi_likely(poll->cq == ep->base.recv_cq && poll->next < poll->end && !ep->nr_msgs &&
		       !ep->shut)) {
		ep->ring_shown = (uint32_t)((uint8_t *)r - ep->ring);
		record_show(ep, r, WEFT_WC_RECV, len, 0, poll->next++);
		ep->ring_tail = ep->ring_shown;
		return;
	}
	record_add(ep, r, WEFT_WC_RECV, len, 0);
	dev->stirs++;
}

static int frame_end(struct wfi_srv_ep *ep)
{
	struct wfi_srv_rx *rx = &ep->rx;
	struct wfi_srv_debt *debt = debt_next(ep);

	rx->busy = false;
	if (rx->f.h.kind == WFI_SRV_SEND) {
		message_end(ep, record_next(ep, rx->pieces[0].len), rx->pieces[0].len);
		return 0;
	}
	wfi_srv_stir(ep);
	switch (rx->f.h.kind) {
	case WFI_SRV_WRITE:
		debt->status = rx->status;
		debt->idx = rx->idx;
		ep->debt_tail++;
		if ((rx->f.flags & WFI_SRV_F_IMM) && !rx->status)
			record_add(ep, record_next(ep, 0), WEFT_WC_RECV_IMM, 0, rx->f.imm);
		else if (rx->f.flags & WFI_SRV_F_IMM)
			ep->msg_taken += WFI_SRV_RECORD;
		return 0;
	case WFI_SRV_DATA:
		ep->reads_head++;
		return open_answer(&ep->opens[ep->open_next++ & ep->open_mask], rx->f.status,
				   rx->f.idx);
	default:
		return 0;
	}
}

/* a message of which not all is here */
static __attribute__((noinline)) int message_expect(struct wfi_srv_ep *ep,
						    const struct wfi_srv_head *h, uint8_t *to)
{
	struct wfi_srv_rx *rx = &ep->rx;

	rx->f.h = *h;
	rx->pieces[0] = (struct wfi_srv_piece){ .mem = to, .len = h->nr };
	rx->to = rx->pieces;
	rx->nr = 1;
	rx->at = 0;
	rx->off = 0;
	rx->left = h->nr;
	rx->busy = true;
	return sizeof(*h);
}

/* @bytes: @len of what is behind the head. Return: as wfi_srv_rx_begin() */
static inline int message_begin(struct wfi_srv_ep *ep, const struct wfi_srv_head *h,
				const uint8_t *bytes, size_t len)
{
	struct record *r;
	uint8_t *to;

	if (wfi_unlikely(!h->nr || h->nr > WFI_SRV_MSG || !record_came(ep, h->nr)))
		return -EPROTO;
	ep->heard = true;
	ep->msg_credit = h->credit;
	r = record_next(ep, h->nr);
	to = (uint8_t *)r + WFI_SRV_RECORD;
	if (wfi_unlikely(len < h->nr))
		return message_expect(ep, h, to);
	wfi_copy_few(to, bytes, h->nr);
	message_end(ep, r, h->nr);
	return (int)(sizeof(*h) + h->nr);
}

/* a head that is all there is of its frame */
static int note_begin(struct wfi_srv_ep *ep)
{
	const struct wfi_srv_head *h = &ep->rx.f.h;

	if (h->nr)
		return -EPROTO;
	ep->heard = true;
	ep->msg_credit = h->credit;
	ep->bye = h->kind == WFI_SRV_BYE;
	wfi_srv_stir(ep);
	return sizeof(*h);
}

static __attribute__((noinline)) int request_begin(struct wfi_srv_ep *ep, const uint8_t *head,
						   size_t len)
{
	struct wfi_srv_rx *rx = &ep->rx;
	size_t need = sizeof(rx->f) + rx->f.h.nr * sizeof(struct wfi_srv_desc);

	if (rx->f.h.nr > WFI_SRV_PIECES)
		return -EPROTO;
	if (len < need)
		return 0;
	memcpy((uint8_t *)&rx->f + sizeof(rx->f.h), head + sizeof(rx->f.h),
	       sizeof(rx->f) - sizeof(rx->f.h));
	ep->heard = true;
	ep->msg_credit = rx->f.h.credit;
	rx->nr = 0;
	rx->at = 0;
	rx->off = 0;
	rx->status = 0;
	if (frame_begin(ep, head))
		return -EPROTO;
	rx->busy = true;
	rx->left = rx->f.bytes;
	if (!rx->left && frame_end(ep))
		return -EPROTO;
	return (int)need;
}

static inline int head_take(struct wfi_srv_ep *ep, const uint8_t *head, size_t len)
{
	struct wfi_srv_head h;

	if (wfi_unlikely(len < sizeof(h)))
		return 0;
	memcpy(&h, head, sizeof(h));
	if (wfi_unlikely(h.magic != WFI_SRV_FRAME_MAGIC || h.to != ep->id || ep->bye ||
			 h.credit - ep->msg_credit > ep->msg_sent - ep->msg_credit))
		return -EPROTO;
	if (wfi_likely(h.kind == WFI_SRV_SEND))
		return message_begin(ep, &h, head + sizeof(h), len - sizeof(h));
	ep->rx.f.h = h;
	if (h.kind == WFI_SRV_CREDIT || h.kind == WFI_SRV_BYE)
		return note_begin(ep);
	return request_begin(ep, head, len);
}

int wfi_srv_rx_begin(struct wfi_srv_ep *ep, const uint8_t *head, size_t len)
{
	return head_take(ep, head, len);
}

void wfi_srv_rx_frame(struct wfi_srv_device *dev, const uint8_t *frame, size_t len)
{
	struct wfi_srv_ep *ep;
	uint64_t to;

	/* whoever finds our port can say something: to nobody, then */
	if (wfi_unlikely(len < sizeof(to)))
		return;
	memcpy(&to, frame, sizeof(to));
	ep = wfi_srv_ep_find(dev, to);
	if (wfi_unlikely(!ep || !wfi_srv_ep_hears(ep)))
		return;
	if (wfi_unlikely(ep->rx.left || head_take(ep, frame, len) != (int)len))
		wfi_srv_lost(ep, -EPROTO);
}

void wfi_srv_rx_moved(struct wfi_srv_ep *ep, uint64_t bytes)
{
	struct wfi_srv_rx *rx = &ep->rx;

	rx->left -= bytes;
	rx->untold += bytes;
	ep->heard = true;
	if (rx->untold >= WFI_SRV_PART && rx->left && rx->f.h.kind == WFI_SRV_DATA)
		wfi_srv_device(ep->base.dev)->stirs++;
	while (bytes) {
		uint64_t n = wfi_min(bytes, rx->to[rx->at].len - rx->off);

		rx->off += n;
		bytes -= n;
		if (rx->off == rx->to[rx->at].len) {
			rx->at++;
			rx->off = 0;
		}
	}
	if (!rx->left && frame_end(ep))
		wfi_srv_lost(ep, -EPROTO);
}

unsigned wfi_srv_rx_iov(const struct wfi_srv_ep *ep, struct iovec *iov, unsigned max,
			uint64_t bytes)
{
	const struct wfi_srv_rx *rx = &ep->rx;
	uint64_t off = rx->off;
	unsigned n = 0;
	uint32_t i;

	for (i = rx->at; i < rx->nr && n < max && bytes; i++, off = 0) {
		uint64_t len = wfi_min(rx->to[i].len - off, bytes);

		if (!len)
			continue;
		if (!rx->to[i].mem)
			break;
		iov[n].iov_base = rx->to[i].mem + off;
		iov[n++].iov_len = len;
		bytes -= len;
	}
	return n;
}

size_t wfi_srv_rx_bytes(struct wfi_srv_ep *ep, const uint8_t *bytes, size_t len)
{
	struct wfi_srv_rx *rx = &ep->rx;
	size_t sum = (size_t)wfi_min(len, rx->left), left = sum;
	uint64_t off = rx->off;
	uint32_t i;

	for (i = rx->at; left; i++, off = 0) {
		size_t n = (size_t)wfi_min(rx->to[i].len - off, left);

		if (rx->to[i].mem)
			memcpy(rx->to[i].mem + off, bytes, n);
		bytes += n;
		left -= n;
	}
	if (sum)
		wfi_srv_rx_moved(ep, sum);
	return sum;
}

/* ---- what is due ---- */

static bool is_ack(const struct wfi_srv_ep *ep, uint32_t at)
{
	const struct wfi_srv_debt *debt = &ep->debts[at % WFI_SRV_DEPTH];

	return at != ep->debt_tail && !debt->read && !debt->status;
}

/* Return: false no frame is free */
static bool debt_pay(struct wfi_srv_ep *ep)
{
	const struct wfi_srv_debt *debt;
	struct wfi_srv_frame f = { 0 };
	const struct wfi_srv_piece *from;
	struct wfi_srv_tx *tx;
	uint32_t i;

	if (!ep->nr_free)
		return false;
	/* of writes that went well the last one speaks for all */
	while (is_ack(ep, ep->debt_head) && is_ack(ep, ep->debt_head + 1))
		ep->debt_head++;
	debt = &ep->debts[ep->debt_head++ % WFI_SRV_DEPTH];
	f.h.kind = debt->read ? WFI_SRV_DATA : WFI_SRV_ACK;
	f.serial = debt->serial;
	f.status = debt->status;
	f.idx = debt->idx;
	from = ep->served[ep->served_head % WFI_SRV_READS];
	for (i = 0; debt->read && i < debt->idx; i++)
		f.bytes += from[i].len;
	tx = wfi_srv_tx_get(ep);
	wfi_srv_tx_frame(tx, &f, NULL);
	for (i = 0; debt->read && i < debt->idx; i++) {
		if (!from[i].len)
			continue;
		tx->lends |= wfi_srv_export_bit(from[i].export_idx);
		tx->iov[tx->nr_iov].iov_base = from[i].mem;
		tx->iov[tx->nr_iov++].iov_len = from[i].len;
	}
	ep->served_head += debt->read;
	wfi_srv_tx_push(ep, tx);
	return true;
}

static void say(struct wfi_srv_ep *ep, enum wfi_srv_kind kind)
{
	const struct wfi_srv_head h = { .kind = (uint8_t)kind };
	struct wfi_srv_tx *tx = wfi_srv_tx_get(ep);

	memcpy(tx->head, &h, sizeof(h));
	tx->iov[0].iov_len = sizeof(h);
	wfi_srv_tx_push(ep, tx);
}

void wfi_srv_lost(struct wfi_srv_ep *ep, int status)
{
	if (ep->state == WFI_EP_CLOSED)
		return;
	ep->lost = true;
	wfi_srv_stir(ep);
	if (ep->state == WFI_EP_CLOSING)
		return;
	ep->state = WFI_EP_CLOSING;
	wfi_srv_device(ep->base.dev)->nr_closing++;
	ep->close_status = status;
	ep->base.fast = &wfi_ep_unconnected;
}

/* nobody waits for anything any more, and the peer knows */
static bool all_said(const struct wfi_srv_ep *ep)
{
	return ep->bye && (ep->said_bye || ep->nr_free == 0);
}

static void closing_settle(struct wfi_srv_ep *ep)
{
	if (ep->stopping)
		return;
	if (!ep->lost && !open_asked(ep) && ep->nr_free == WFI_SRV_TX && !ep->said_bye) {
		ep->said_bye = true;
		say(ep, WFI_SRV_BYE);
	}
	if (ep->lost || (all_said(ep) && ep->nr_free == WFI_SRV_TX)) {
		ep->stopping = true;
		wfi_srv_device(ep->base.dev)->wire->stop(ep);
	}
}

void wfi_srv_ep_settle(struct wfi_srv_ep *ep)
{
	if (ep->state != WFI_EP_CONNECTED && ep->state != WFI_EP_CLOSING)
		return;
	if (wfi_unlikely(ep->bye && ep->state == WFI_EP_CONNECTED)) {
		/* it leaves in order: what we owe it, it does not wait for */
		wfi_srv_lost(ep, -ECONNRESET);
		if (ep->nr_free) {
			ep->said_bye = true;
			say(ep, WFI_SRV_BYE);
		}
	}
	while (ep->debt_head != ep->debt_tail && !ep->lost && !ep->said_bye && debt_pay(ep))
		;
	if (wfi_unlikely(credit_due(ep) && ep->nr_free && !ep->lost && !ep->said_bye))
		say(ep, WFI_SRV_CREDIT);
	wfi_srv_reap(ep);
	if (wfi_unlikely(ep->state == WFI_EP_CLOSING))
		closing_settle(ep);
}

void wfi_srv_stopped(struct wfi_srv_ep *ep)
{
	/* the first that was open says why, those behind it were flushed */
	int status = ep->close_status ? ep->close_status : -ECANCELED;
	struct wfi_srv_open *open;

	if (ep->stopped)
		return;
	ep->stopped = true;
	wfi_srv_stir(ep);
	ep->rx.busy = false;
	while ((open = open_asked(ep))) {
		open->status = status;
		open->scope = WEFT_SCOPE_EP;
		open->done = true;
		status = -ECANCELED;
	}
	ep->debt_head = ep->debt_tail;
}

void wfi_srv_ep_tick(struct wfi_srv_ep *ep, uint64_t now_ns)
{
	const struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	bool due = ep->meeting || open_asked(ep) || ep->nr_free < WFI_SRV_TX;

	if (ep->state == WFI_EP_CLOSING && !ep->lost && now_ns >= ep->close_ns)
		wfi_srv_lost(ep, 0);
	if (ep->state == WFI_EP_CONNECTED && wfi_pidfd_ended(ep->peer_pidfd))
		wfi_srv_lost(ep, -ECONNRESET);
	/* it counts from when an answer was first due here, however long its owner slept before */
	if (ep->heard || !ep->waits)
		ep->heard_ns = now_ns;
	ep->heard = false;
	ep->waits = due;
	if (ep->state == WFI_EP_CONNECTED && now_ns - ep->heard_ns > dev->silent_ns) {
		wfi_warn("%s: a peer has not answered for %llu ms: its endpoint ends",
			 dev->base.transport->name,
			 (unsigned long long)(dev->silent_ns / WFI_NSEC_PER_MSEC));
		wfi_srv_lost(ep, ep->meeting ? -ECONNRESET : -ETIMEDOUT);
	}
}

/* ---- life ---- */

static int ep_alloc(struct wfi_srv_ep *ep, struct wfi_env *env)
{
	uint32_t i;

	ep->opens = wfi_alloc(env, (ep->open_mask + 1) * sizeof(*ep->opens));
	ep->tx_mem = wfi_alloc(env, WFI_SRV_TX * sizeof(*ep->tx_mem));
	ep->ring = wfi_alloc(env, ep->ring_bytes);
	ep->debts = wfi_alloc(env, WFI_SRV_DEPTH * sizeof(*ep->debts));
	ep->reads = wfi_alloc(env, WFI_SRV_READS * sizeof(*ep->reads));
	ep->served = wfi_alloc(env, WFI_SRV_READS * sizeof(*ep->served));
	if (!ep->opens || !ep->tx_mem || !ep->ring || !ep->debts || !ep->reads || !ep->served)
		return -ENOMEM;
	for (i = 0; i < WFI_SRV_TX; i++) {
		ep->tx_mem[i].ep = ep;
		ep->tx_mem[i].next = ep->tx_free;
		ep->tx_free = &ep->tx_mem[i];
	}
	ep->nr_free = WFI_SRV_TX;
	return 0;
}

static void mem_free(struct wfi_env *env, void *mem, size_t len)
{
	if (mem)
		wfi_free(env, mem, len);
}

static void ep_free(struct wfi_srv_ep *ep, struct wfi_env *env)
{
	mem_free(env, ep->opens, (ep->open_mask + 1) * sizeof(*ep->opens));
	mem_free(env, ep->tx_mem, WFI_SRV_TX * sizeof(*ep->tx_mem));
	mem_free(env, ep->ring, ep->ring_bytes);
	mem_free(env, ep->debts, WFI_SRV_DEPTH * sizeof(*ep->debts));
	mem_free(env, ep->reads, WFI_SRV_READS * sizeof(*ep->reads));
	mem_free(env, ep->served, WFI_SRV_READS * sizeof(*ep->served));
}

static int opts_check(struct weft_device *dev, const struct weft_ep_opts *opts,
		      struct weft_ep_opts *o)
{
	if (wfi_opts_read(o, sizeof(*o), opts) || o->reserved || !o->send_cq || !o->recv_cq ||
	    o->send_cq->dev != dev || o->recv_cq->dev != dev || o->depth > WFI_SRV_DEPTH ||
	    o->recv_bytes > RECV_MAX || (o->flags & ~(uint32_t)WEFT_EP_MEM))
		return -EINVAL;
	return o->flags & WEFT_EP_MEM ? -EOPNOTSUPP : 0;
}

/* Return: its number in the device, -EMFILE */
static int place_find(const struct wfi_srv_device *dev)
{
	int i;

	for (i = 0; i < (int)WFI_SRV_EPS; i++)
		if (!dev->eps[i])
			return i;
	return -EMFILE;
}

static int ep_init(struct wfi_srv_ep *ep, struct weft_device *base, const struct weft_ep_opts *opts)
{
	struct wfi_srv_device *dev = wfi_srv_device(base);
	struct wfi_env *env = base->env;
	struct weft_ep_opts o;
	uint32_t tag;
	int ret, idx;

	ret = opts_check(base, opts, &o);
	idx = ret ? ret : place_find(dev);
	if (idx < 0)
		return idx;
	ret = env->rng->bytes(env, &tag, sizeof(tag));
	if (ret)
		return ret;
	ep->base.fast = &wfi_ep_unconnected;
	ep->base.dev = base;
	ep->base.send_cq = o.send_cq;
	ep->base.recv_cq = o.recv_cq;
	ep->base.ctx = o.ctx;
	ep->peer_pidfd = -1;
	ep->id = (uint64_t)tag << 32 | (uint32_t)idx;
	ep->depth = o.depth ? o.depth : DEPTH_DEFAULT;
	for (ep->open_mask = 1; ep->open_mask < ep->depth; ep->open_mask *= 2)
		;
	ep->open_mask--;
	ep->room =
		(uint32_t)wfi_align_up(o.recv_bytes ? o.recv_bytes : RECV_DEFAULT, WFI_SRV_RECORD);
	ep->room = (uint32_t)wfi_max(ep->room, 2 * RECORD_MAX);
	/* records are rounded up, by less than they cost; one may not fit behind the last */
	ep->ring_bytes = 2 * ep->room + RECORD_MAX;
	ret = ep_alloc(ep, env);
	if (!ret)
		ret = dev->wire->init(ep);
	if (ret) {
		ep_free(ep, env);
		return ret;
	}
	dev->eps[idx] = ep;
	ep->next = dev->first;
	dev->first = ep;
	return 0;
}

static void cq_forget(struct weft_cq *base, struct wfi_srv_ep *ep)
{
	struct wfi_srv_cq *cq = wfi_container_of(base, struct wfi_srv_cq, base);
	struct wfi_srv_ep **link;

	if (cq->turn == ep)
		cq->turn = ep->next;
	for (link = &cq->lent; *link; link = &(*link)->lent_next)
		if (*link == ep) {
			*link = ep->lent_next;
			return;
		}
}

int wfi_srv_ep_create(struct weft_device *base, const struct weft_ep_opts *opts,
		      struct weft_ep **out)
{
	const uint32_t size = wfi_srv_device(base)->wire->ep_size;
	struct wfi_srv_ep *ep = wfi_alloc(base->env, size);
	int ret;

	if (!ep)
		return -ENOMEM;
	ret = ep_init(ep, base, opts);
	if (ret) {
		wfi_free(base->env, ep, size);
		return ret;
	}
	*out = &ep->base;
	return 0;
}

static void ep_fini(struct wfi_srv_ep *ep)
{
	struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);
	struct wfi_srv_ep **link = &dev->first;

	if (ep->state == WFI_EP_CONNECTED && ep->nr_free)
		say(ep, WFI_SRV_BYE);
	dev->wire->fini(ep);
	while (*link != ep)
		link = &(*link)->next;
	*link = ep->next;
	dev->eps[(uint32_t)ep->id % WFI_SRV_EPS] = NULL;
	dev->nr_closing -= ep->state == WFI_EP_CLOSING;
	wfi_container_of(ep->base.send_cq, struct wfi_srv_cq, base)->nr_open -=
		ep->open_tail - ep->open_head;
	cq_forget(ep->base.send_cq, ep);
	cq_forget(ep->base.recv_cq, ep);
	wfi_srv_exports_end(ep);
	wfi_srv_local_leave(ep);
	ep_free(ep, dev->base.env);
}

void wfi_srv_ep_destroy(struct weft_ep *base)
{
	struct wfi_srv_ep *ep;

	if (!base)
		return;
	ep = wfi_srv_ep(base);
	ep_fini(ep);
	wfi_free(base->dev->env, ep, wfi_srv_device(base->dev)->wire->ep_size);
}

int wfi_srv_ep_addr(struct weft_ep *base, struct weft_ep_addr *out)
{
	struct wfi_srv_device *dev = wfi_srv_device(base->dev);
	struct wfi_srv_ep *ep = wfi_srv_ep(base);
	struct wfi_srv_ep_blob blob = {
		.magic = WFI_SRV_EP_MAGIC,
		.incarnation = dev->incarnation,
		.id = ep->id,
		.version = WFI_SRV_VERSION,
		.room = ep->room,
	};
	int len;

	memset(out, 0, sizeof(*out));
	len = dev->wire->addr(ep, out->blob + sizeof(blob), WFI_SRV_WIRE_ADDR_MAX);
	if (len < 0)
		return len;
	memcpy(blob.wire, dev->wire->name, sizeof(blob.wire));
	blob.len = (uint32_t)len;
	out->blob_len = (uint32_t)sizeof(blob) + blob.len;
	memcpy(out->blob, &blob, sizeof(blob));
	blob.check = wfi_blob_check(out->blob, out->blob_len);
	memcpy(out->blob, &blob, sizeof(blob));
	if (!dev->local)
		return 0;
	out->nr_fds = WFI_SRV_FD_NR;
	out->fds[WFI_SRV_FD_GENS] = dev->gens.ro_fd;
	out->fds[WFI_SRV_FD_PID] = dev->pidfd;
	return 0;
}

/* Return: 0 with all of it in @copy, -EINVAL */
static int addr_read(const struct wfi_srv_device *dev, const struct weft_ep_peer *p, uint8_t *copy,
		     struct wfi_srv_ep_blob *blob)
{
	static const uint32_t zero;

	if (!p->blob || p->blob_len < sizeof(*blob) || p->blob_len > WEFT_EP_ADDR_MAX)
		return -EINVAL;
	memcpy(copy, p->blob, p->blob_len);
	memcpy(blob, copy, sizeof(*blob));
	memcpy(copy + offsetof(struct wfi_srv_ep_blob, check), &zero, sizeof(zero));
	if (blob->magic != WFI_SRV_EP_MAGIC || blob->version != WFI_SRV_VERSION ||
	    memcmp(blob->wire, dev->wire->name, sizeof(blob->wire)) != 0 ||
	    blob->len != p->blob_len - sizeof(*blob) ||
	    wfi_blob_check(copy, p->blob_len) != blob->check || blob->room > RECV_MAX)
		return -EINVAL;
	return 0;
}

int wfi_srv_ep_connect(struct weft_ep *base, const struct weft_ep_peer *peer)
{
	struct wfi_srv_device *dev = wfi_srv_device(base->dev);
	struct wfi_srv_ep *ep = wfi_srv_ep(base);
	uint8_t copy[WEFT_EP_ADDR_MAX];
	struct wfi_srv_ep_blob blob;
	struct weft_ep_peer p;
	int ret;

	if (wfi_opts_read(&p, sizeof(p), peer) || p.reserved || addr_read(dev, &p, copy, &blob) ||
	    (p.nr_fds && (!dev->local || !p.fds || p.nr_fds != WFI_SRV_FD_NR)))
		return -EINVAL;
	if (ep->state != WFI_EP_CREATED)
		return ep->state == WFI_EP_CONNECTED ? -EISCONN : -ENOTCONN;
	ep->peer_id = blob.id;
	ep->peer_incarnation = blob.incarnation;
	ep->peer_room = blob.room;
	ret = p.nr_fds ? wfi_srv_local_meet(ep, p.fds) : 0;
	if (!ret)
		ret = dev->wire->connect(ep, copy + sizeof(blob), blob.len);
	if (ret) {
		wfi_srv_local_leave(ep);
		return ret;
	}
	ep->heard_ns = wfi_now(base->dev->env);
	ep->state = WFI_EP_CONNECTED;
	ep->base.fast = &wfi_srv_fast;
	return 0;
}

void wfi_srv_ep_shutdown(struct weft_ep *base)
{
	struct wfi_srv_ep *ep = wfi_srv_ep(base);

	if (ep->state == WFI_EP_CLOSED || ep->shut)
		return;
	ep->shut = true;
	if (ep->state == WFI_EP_CLOSING)
		return;
	ep->lost = ep->state == WFI_EP_CREATED;
	ep->state = WFI_EP_CLOSING;
	wfi_srv_stir(ep);
	wfi_srv_device(base->dev)->nr_closing++;
	ep->close_ns = wfi_now(base->dev->env) + SHUT_NS;
	ep->base.fast = &wfi_ep_unconnected;
}
