/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message of small pieces is an op of its transfer, as a post is; its answer is the completion.
 * The place in the window that a request takes is free again when its answer is here, even if the
 * transfer did not wait for it: so neither side ever has more than a window of them, and the bytes
 * of an answer that comes too late find no op and land nowhere. Which bytes go where is gathered
 * anew from the op's range when the answer comes: nothing is kept for it.
 */
#include <errno.h>
#include <string.h>
#include "transport/core.h"
#include "transport/gather.h"

#define MSG_MIN 256u
#define MSG_MAX (64u << 10)
#define ERRNO_MAX 4095
#define NO_OP UINT64_MAX /* cookie of an answer */
#define ROOM(g) ((g)->msg_bytes - (uint32_t)sizeof(struct wfi_gather_hdr))

/* ---- requests of ours ---- */

unsigned wfi_gather_batch(struct wfi_xfer *x, struct wfi_plan_range *r, uint64_t *bytes)
{
	struct wfi_gather *g = x->o.gather;
	/* what a READ asks for comes back without descriptors */
	uint32_t cost = x->o.dir == WFI_XFER_READ ? 0 : sizeof(struct wfi_gather_desc);

	return wfi_plan_pack(&x->o, r, ROOM(g), cost, g->eng->batch, g->max_pieces, bytes);
}

static struct wfi_gather_name name_of(const struct wfi_xfer_opts *o, const struct weft_rkey *rkey)
{
	uint32_t i = 0;

	while (o->rkeys[i] != rkey || !o->names[i].gen)
		i++;
	return o->names[i];
}

/* Return: bytes of the head in g->head */
static uint32_t request_build(const struct wfi_xfer *x, const struct wfi_gather_hdr *hdr)
{
	struct wfi_gather *g = x->o.gather;
	const struct weft_piece *p = g->eng->batch, *end = p + hdr->nr;
	uint8_t *to = g->head + sizeof(*hdr);
	const struct weft_rkey *last = NULL;
	struct wfi_gather_desc desc;

	memcpy(g->head, hdr, sizeof(*hdr));
	for (; p < end; p++, to += sizeof(desc)) {
		if (p->rkey != last)
			desc.name = name_of(&x->o, p->rkey);
		last = p->rkey;
		desc.off = p->remote;
		desc.len = (uint32_t)p->len;
		memcpy(to, &desc, sizeof(desc));
	}
	return (uint32_t)(to - g->head);
}

int wfi_gather_send(struct wfi_xfer *x, unsigned nr, uint64_t cookie)
{
	struct wfi_gather *g = x->o.gather;
	struct weft_msg msg = { .head = g->head, .cookie = cookie, .flags = WEFT_POST_QUIET };
	struct wfi_gather_hdr hdr = { .magic = WFI_GATHER_MAGIC,
				      .kind = WFI_GATHER_READ,
				      .nr = (uint16_t)nr,
				      .serial = g->serial };
	struct wfi_gather_slot *slot = g->slots;
	int ret;

	while (slot->busy)
		slot++;
	hdr.slot = (uint32_t)(slot - g->slots);
	if (x->o.dir == WFI_XFER_WRITE) {
		hdr.kind = WFI_GATHER_WRITE;
		msg.pieces = g->eng->batch;
		msg.nr_pieces = nr;
		msg.local_mr = x->o.local_mr;
		msg.flags = msg.local_mr ? 0 : WEFT_POST_QUIET;
	}
	msg.head_len = request_build(x, &hdr);
	ret = weft_ep_post_msg(g->ep, &msg);
	if (wfi_unlikely(ret))
		return ret;
	slot->cookie = cookie;
	slot->serial = g->serial++;
	slot->lent = msg.local_mr;
	slot->answered = false;
	slot->busy = true;
	g->nr_busy++;
	wfi_count(g->eng->stats.messages, 1);
	wfi_count(g->eng->stats.gathered, nr);
	return 0;
}

/* its answer is here, and nobody reads its pieces: @wc is what became of it */
static void slot_end(struct wfi_gather *g, struct wfi_gather_slot *slot, const struct weft_wc *wc)
{
	struct wfi_xfer_op *op = wfi_xfer_op_of(g->eng, slot->cookie);
	struct wfi_xfer *x;

	slot->busy = false;
	g->nr_busy--;
	wfi_list_append(&g->eng->run, &g->waiting);
	if (!op)
		return;
	x = op->x;
	wfi_xfer_op_end(g->eng, op, wc, wfi_now(g->eng->env));
	wfi_xfer_settle(g->eng, x);
}

/* the end of a slot whose answer is here, or will never come: at once, or when it was sent */
static void slot_answered(struct wfi_gather *g, struct wfi_gather_slot *slot,
			  const struct weft_wc *wc)
{
	if (!slot->lent) {
		slot_end(g, slot, wc);
	} else if (!slot->answered) {
		slot->answered = true;
		slot->answer = *wc;
	}
}

void wfi_gather_sent(struct wfi_gather *g, const struct weft_wc *wc)
{
	struct wfi_gather_slot *slot = g->slots, *end = slot + WFI_GATHER_WINDOW;

	while (slot < end && (!slot->busy || slot->cookie != wc->cookie))
		slot++;
	if (slot == end)
		return;
	slot->lent = false;
	if (wfi_unlikely(wc->status))
		slot_end(g, slot, wc);
	else if (slot->answered)
		slot_end(g, slot, &slot->answer);
}

void wfi_gather_forget(struct wfi_xfer *x)
{
	struct wfi_gather *g = x->o.gather;
	unsigned i;

	/* a WRITE could still land at the peer, over what is written there next: that is awaited */
	if (x->o.dir != WFI_XFER_READ)
		return;
	for (i = 0; i < WFI_GATHER_WINDOW; i++) {
		struct wfi_xfer_op *op = wfi_xfer_op_of(g->eng, g->slots[i].cookie);

		if (g->slots[i].busy && op && op->x == x)
			wfi_xfer_op_drop(g->eng, op);
	}
}

/* ---- their answers ---- */

/* the bytes of an answer go where its op wants them. Return: 0, -EPROTO not as many as that */
static int answer_land(struct wfi_xfer_engine *eng, const struct wfi_xfer_op *op,
		       const struct wfi_gather_hdr *hdr, const uint8_t *bytes, uint64_t len)
{
	unsigned i, n, max = hdr->status ? hdr->nr : WFI_GATHER_PIECES;
	const struct weft_piece *p = eng->batch;
	struct wfi_plan_range r = op->range;
	uint64_t sum;

	n = wfi_plan_gather(&op->x->o, &r, UINT64_MAX, eng->batch,
			    (unsigned)wfi_min(max, WFI_GATHER_PIECES), &sum);
	if (n != hdr->nr || sum != len)
		return -EPROTO;
	for (i = 0; i < n; i++) {
		memcpy(p[i].local, bytes, p[i].len);
		bytes += p[i].len;
	}
	return 0;
}

static int answer(struct wfi_gather *g, const struct wfi_gather_hdr *hdr, const uint8_t *bytes,
		  uint64_t len)
{
	struct weft_wc wc = { .status = hdr->status, .scope = WEFT_SCOPE_OP, .idx = hdr->nr };
	struct wfi_gather_slot *slot = &g->slots[hdr->slot % WFI_GATHER_WINDOW];
	const struct wfi_xfer_op *op;
	int ret = 0;

	if (g->lost)
		return 0;
	if (hdr->slot >= WFI_GATHER_WINDOW || !slot->busy || slot->answered ||
	    slot->serial != hdr->serial || hdr->status > 0 || hdr->status < -ERRNO_MAX)
		return -EPROTO;
	op = wfi_xfer_op_of(g->eng, slot->cookie);
	if (op && op->x->o.dir == WFI_XFER_READ)
		ret = answer_land(g->eng, op, hdr, bytes, len);
	else if (op && len)
		ret = -EPROTO;
	if (ret) {
		wc.status = ret;
		wc.scope = WEFT_SCOPE_EP;
	}
	slot_answered(g, slot, &wc);
	return ret;
}

void wfi_gather_lost(struct wfi_gather *g, int status)
{
	struct weft_wc wc = { .status = status, .scope = WEFT_SCOPE_EP };
	unsigned i;

	g->lost = true;
	for (i = 0; i < WFI_GATHER_WINDOW; i++) {
		g->debts[i].owed = false;
		if (g->slots[i].busy)
			slot_answered(g, &g->slots[i], &wc);
	}
	g->nr_owed = 0;
	wfi_list_del(&g->owing);
	/* they try, and the endpoint tells them */
	wfi_list_append(&g->eng->run, &g->waiting);
}

/* ---- requests of the peer's ---- */

/* Return: 0 with *@mem, or what is wrong with the piece */
static int region_find(const struct wfi_gather *g, const struct wfi_gather_desc *desc,
		       uint32_t need, uint8_t **mem)
{
	const struct wfi_gather_region *region;

	region = &g->regions[desc->name.region % WFI_GATHER_REGIONS];
	if (desc->name.region >= WFI_GATHER_REGIONS || !region->access ||
	    region->gen != desc->name.gen)
		return -ESTALE;
	if (!(region->access & need))
		return -EACCES;
	if (!wfi_range_ok(desc->off, desc->len, region->len))
		return -ERANGE;
	*mem = region->mem + desc->off;
	return 0;
}

/* the pieces of the answer to a READ, into the engine's batch */
static void answer_gather(const struct wfi_gather *g, const struct wfi_gather_debt *debt,
			  struct wfi_gather_hdr *hdr)
{
	const struct wfi_gather_desc *d = debt->descs;
	struct weft_piece *p = g->eng->batch;
	uint8_t *mem;

	for (hdr->nr = 0; hdr->nr < debt->hdr.nr; hdr->nr++, d++, p++) {
		hdr->status = region_find(g, d, WEFT_ACCESS_REMOTE_READ, &mem);
		if (hdr->status)
			break;
		p->local = mem;
		p->len = d->len;
	}
}

/* its pieces are copied: who takes a region back waits for nobody. Return: 0 the answer is on its
 * way, or there is nobody to have it; -EAGAIN no room */
static int debt_pay(struct wfi_gather *g, const struct wfi_gather_debt *debt)
{
	struct wfi_gather_hdr hdr = debt->hdr;
	struct weft_msg msg = { .head = &hdr,
				.head_len = sizeof(hdr),
				.pieces = g->eng->batch,
				.cookie = NO_OP,
				.flags = WEFT_POST_QUIET };

	hdr.kind = WFI_GATHER_ANSWER;
	if (debt->hdr.kind == WFI_GATHER_READ) {
		answer_gather(g, debt, &hdr);
		msg.nr_pieces = hdr.nr;
	}
	return weft_ep_post_msg(g->ep, &msg) == -EAGAIN ? -EAGAIN : 0;
}

int wfi_gather_pay(struct wfi_xfer_engine *eng)
{
	struct wfi_link *l, *next;
	unsigned i;
	int n = 0;

	for (l = eng->owing.next; l != &eng->owing; l = next) {
		struct wfi_gather *g = wfi_container_of(l, struct wfi_gather, owing);

		next = l->next;
		for (i = 0; i < WFI_GATHER_WINDOW; i++) {
			if (!g->debts[i].owed)
				continue;
			if (debt_pay(g, &g->debts[i]))
				break;
			g->debts[i].owed = false;
			g->nr_owed--;
			n++;
		}
		if (!g->nr_owed)
			wfi_list_del(l);
	}
	return n;
}

/* Return: bytes that the pieces of a request have */
static uint64_t descs_read(struct wfi_gather_desc *descs, const uint8_t *from, unsigned nr)
{
	uint64_t sum = 0;
	unsigned i;

	memcpy(descs, from, nr * sizeof(*descs));
	for (i = 0; i < nr; i++)
		sum += descs[i].len;
	return sum;
}

static void scatter(const struct wfi_gather *g, struct wfi_gather_debt *debt, const uint8_t *bytes)
{
	const struct wfi_gather_desc *d = debt->descs;
	unsigned i;

	for (i = 0; i < debt->hdr.nr; i++, d++) {
		uint8_t *mem;

		debt->hdr.status = region_find(g, d, WEFT_ACCESS_REMOTE_WRITE, &mem);
		if (debt->hdr.status)
			break;
		memcpy(mem, bytes, d->len);
		bytes += d->len;
	}
	debt->hdr.nr = (uint16_t)i;
}

static int request(struct wfi_gather *g, const struct wfi_gather_hdr *hdr, const uint8_t *body,
		   uint64_t len)
{
	struct wfi_gather_debt *debt = &g->debts[hdr->slot % WFI_GATHER_WINDOW];
	uint64_t sum, head = (uint64_t)hdr->nr * sizeof(struct wfi_gather_desc);

	if (hdr->slot >= WFI_GATHER_WINDOW || debt->owed || !hdr->nr || hdr->nr > g->max_pieces ||
	    len < head)
		return -EPROTO;
	debt->hdr = *hdr;
	debt->hdr.status = 0;
	sum = descs_read(debt->descs, body, hdr->nr);
	if (hdr->kind == WFI_GATHER_WRITE && sum == len - head)
		scatter(g, debt, body + head);
	else if (hdr->kind != WFI_GATHER_READ || len != head || sum > ROOM(g))
		return -EPROTO;
	if (!debt_pay(g, debt))
		return 0;
	debt->owed = true;
	if (!g->nr_owed++)
		wfi_list_add_tail(&g->eng->owing, &g->owing);
	g->eng->next_ns = 0;
	return 0;
}

int wfi_gather_event(struct wfi_gather *g, const struct weft_wc *wc)
{
	struct wfi_gather_hdr hdr;
	const uint8_t *body;
	uint64_t len;
	int ret;

	if (wc->op == WEFT_WC_CLOSED)
		wfi_gather_lost(g, wc->status ? wc->status : -ECANCELED);
	if (wc->op != WEFT_WC_RECV || wc->len < sizeof(hdr.magic))
		return 0;
	memcpy(&hdr.magic, wc->data, sizeof(hdr.magic));
	if (hdr.magic != WFI_GATHER_MAGIC)
		return 0;
	if (wc->len < sizeof(hdr))
		return -EPROTO;
	memcpy(&hdr, wc->data, sizeof(hdr));
	body = (const uint8_t *)wc->data + sizeof(hdr);
	len = wc->len - sizeof(hdr);
	if (hdr.kind == WFI_GATHER_ANSWER)
		ret = answer(g, &hdr, body, len);
	else
		ret = request(g, &hdr, body, len);
	return ret ? ret : 1;
}

/* ---- regions ---- */

int wfi_gather_serve(struct wfi_gather *g, const struct weft_mr *mr,
		     const struct weft_export_opts *opts, struct wfi_gather_name *name)
{
	struct weft_export_opts o;
	unsigned i;
	int ret;

	ret = wfi_export_opts_check(mr, opts, &o);
	if (ret)
		return ret;
	/* a generation never comes again, so a name that is stale stays so: its place is used up */
	for (i = 0; i < WFI_GATHER_REGIONS; i++)
		if (!g->regions[i].access && g->regions[i].gen < UINT16_MAX)
			break;
	if (i == WFI_GATHER_REGIONS)
		return -ENOSPC;
	g->regions[i].mem = (uint8_t *)mr->addr + o.off;
	g->regions[i].len = o.len;
	g->regions[i].access = o.access;
	g->regions[i].gen++;
	name->region = (uint16_t)i;
	name->gen = g->regions[i].gen;
	return 0;
}

void wfi_gather_unserve(struct wfi_gather *g, struct wfi_gather_name name)
{
	if (name.region < WFI_GATHER_REGIONS && g->regions[name.region].gen == name.gen)
		g->regions[name.region].access = 0;
}

/* ---- the link ---- */

static size_t head_len(const struct wfi_gather *g)
{
	return sizeof(struct wfi_gather_hdr) + g->max_pieces * sizeof(struct wfi_gather_desc);
}

static int link_alloc(struct wfi_gather *g, struct wfi_env *env)
{
	unsigned i;

	g->head = wfi_alloc(env, head_len(g));
	if (!g->head)
		return -ENOMEM;
	g->descs = wfi_alloc(env, WFI_GATHER_WINDOW * g->max_pieces * sizeof(*g->descs));
	if (!g->descs) {
		wfi_free(env, g->head, head_len(g));
		return -ENOMEM;
	}
	for (i = 0; i < WFI_GATHER_WINDOW; i++)
		g->debts[i].descs = g->descs + (size_t)i * g->max_pieces;
	return 0;
}

static void link_free(struct wfi_gather *g, struct wfi_env *env)
{
	wfi_free(env, g->descs, WFI_GATHER_WINDOW * g->max_pieces * sizeof(*g->descs));
	wfi_free(env, g->head, head_len(g));
}

int wfi_gather_open(struct wfi_xfer_engine *eng, struct weft_ep *ep, uint32_t peer_max_msg,
		    struct wfi_gather **out)
{
	const struct weft_caps *caps = &ep->dev->caps;
	uint32_t msg_bytes = (uint32_t)wfi_min(caps->max_msg, MSG_MAX);
	uint64_t per_piece, per_mib;
	struct wfi_gather *g;
	int ret = 0;

	if (peer_max_msg)
		msg_bytes = (uint32_t)wfi_min(msg_bytes, peer_max_msg);
	if (msg_bytes < MSG_MIN)
		return -EOPNOTSUPP;
	g = wfi_alloc(eng->env, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->eng = eng;
	g->ep = ep;
	g->msg_bytes = msg_bytes;
	g->max_pieces =
		(uint32_t)wfi_min(ROOM(g) / sizeof(struct wfi_gather_desc), WFI_GATHER_PIECES);
	wfi_list_init(&g->waiting);
	wfi_list_init(&g->owing);
	if (caps->cost_per_piece_ns) {
		ret = wfi_gather_measure(eng->env, &per_piece, &per_mib);
		if (!ret)
			g->threshold = wfi_gather_limit(caps, ROOM(g), per_piece, per_mib);
	}
	if (!ret)
		ret = link_alloc(g, eng->env);
	if (ret)
		goto err_link;
	ret = wfi_xfer_cq_get(eng, ep->send_cq, &g->cq_idx);
	if (ret)
		goto err_mem;
	*out = g;
	return 0;

err_mem:
	link_free(g, eng->env);
err_link:
	wfi_free(eng->env, g, sizeof(*g));
	return ret;
}

void wfi_gather_close(struct wfi_gather *g)
{
	struct wfi_env *env;

	if (!g)
		return;
	env = g->eng->env;
	wfi_list_del(&g->owing);
	wfi_xfer_cq_put(g->eng, g->cq_idx);
	link_free(g, env);
	wfi_free(env, g, sizeof(*g));
}

uint32_t wfi_gather_threshold(const struct wfi_gather *g)
{
	return g->threshold;
}
