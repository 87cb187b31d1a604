/* SPDX-License-Identifier: Apache-2.0 */
/* wire.c - the one decoder of what nodes say to each other; tests/fuzz/fuzz_wire.c is after it */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "wire.h"
#include "weft_internal/util.h"

/* ---- bodies ---- */

/* as weftd.conf has them, so that they can stand in logs and in certificates */
static bool name_ok(const char *name, size_t room)
{
	size_t i;

	for (i = 0; i < room && name[i]; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	return i && i < room;
}

static int check_hello(const void *body, size_t len)
{
	const struct wire_hello *h = body;

	(void)len;
	if (!name_ok(h->name, sizeof(h->name)) || !name_ok(h->transport, sizeof(h->transport)))
		return -EPROTO;
	return 0;
}

static int check_refuse(const void *body, size_t len)
{
	const struct wire_refuse *r = body;
	size_t i;

	/* weft status shows it: JSON takes no other bytes, and terminals obey some */
	for (i = 0; i < len && r->why[i]; i++)
		if (r->why[i] < ' ' || r->why[i] > '~')
			return -EPROTO;
	return i < len ? 0 : -EPROTO;
}

static int check_endpoint(const void *body, size_t len)
{
	const struct wire_endpoint *ep = body;
	uint32_t i;

	if (ep->addr_len > sizeof(ep->addr) || ep->addr_fds > WEFT_EP_FDS_MAX ||
	    ep->nr_arenas > WIRE_TENANTS_MAX || len != wire_endpoint_len(ep))
		return -EPROTO;
	for (i = 0; i < ep->nr_arenas; i++)
		if (ep->arenas[i].blob_len > sizeof(ep->arenas[i].blob) ||
		    ep->arenas[i].has_fd > 1 || ep->arenas[i].reserved)
			return -EPROTO;
	return 0;
}

static int check_state(const void *body, size_t len)
{
	const struct wire_state *s = body;

	(void)len;
	return s->draining > 1 || s->reserved ? -EPROTO : 0;
}

const struct wire_type wire_types[WIRE_NR] = {
	[WIRE_HELLO] = { "hello", sizeof(struct wire_hello), sizeof(struct wire_hello),
			 check_hello },
	[WIRE_REFUSE] = { "refuse", sizeof(struct wire_refuse), sizeof(struct wire_refuse),
			  check_refuse },
	[WIRE_ENDPOINT] = { "endpoint", offsetof(struct wire_endpoint, arenas),
			    sizeof(struct wire_endpoint), check_endpoint },
	[WIRE_STATE] = { "state", sizeof(struct wire_state), sizeof(struct wire_state),
			 check_state },
};

size_t wire_endpoint_len(const struct wire_endpoint *ep)
{
	return offsetof(struct wire_endpoint, arenas) + ep->nr_arenas * sizeof(ep->arenas[0]);
}

static int body_check(const struct wire_head *head, const void *body)
{
	const struct wire_type *t = &wire_types[head->type];

	return t->check ? t->check(body, head->len) : 0;
}

/* ---- heads ---- */

void wire_head_fill(struct wire_head *head, enum wire_kind type, size_t len)
{
	*head = (struct wire_head){
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = (uint16_t)type,
		.len = (uint32_t)len,
	};
}

static int head_check(const struct wire_head *head)
{
	const struct wire_type *t;

	if (head->magic != WIRE_MAGIC)
		return -EPROTO;
	if (head->version != WIRE_VERSION)
		return -EPROTONOSUPPORT;
	if (head->type >= WIRE_NR || head->reserved)
		return -EPROTO;
	t = &wire_types[head->type];
	return t->name && head->len >= t->min_len && head->len <= t->max_len ? 0 : -EPROTO;
}

int wire_datagram(const void *msg, size_t len)
{
	const struct wire_head *head = msg;
	int ret;

	if (len < sizeof(*head))
		return -EPROTO;
	ret = head_check(head);
	if (ret)
		return ret;
	return head->len == len - sizeof(*head) ? body_check(head, head + 1) : -EPROTO;
}

/* ---- streams ---- */

size_t wire_in_room(struct wire_in *in, void **at)
{
	size_t off = in->have - sizeof(in->head);

	if (in->have < sizeof(in->head)) {
		*at = (char *)&in->head + in->have;
		return sizeof(in->head) - in->have;
	}
	*at = (char *)in->body + off;
	return in->head.len - off;
}

/* Return: as wire_in_got() */
static int head_whole(struct wire_in *in, struct wfi_env *env)
{
	int ret = head_check(&in->head);

	if (ret)
		return ret;
	if (!in->head.len)
		return body_check(&in->head, NULL) ? -EPROTO : 1;
	in->body = wfi_alloc(env, in->head.len);
	return in->body ? 0 : -ENOMEM;
}

int wire_in_got(struct wire_in *in, struct wfi_env *env, size_t len)
{
	in->have += len;
	if (in->have < sizeof(in->head))
		return in->have >= sizeof(in->head.magic) && in->head.magic != WIRE_MAGIC ? -EPROTO
											  : 0;
	if (!in->body)
		return head_whole(in, env);
	if (in->have < sizeof(in->head) + in->head.len)
		return 0;
	return body_check(&in->head, in->body) ? -EPROTO : 1;
}

void wire_in_reset(struct wire_in *in, struct wfi_env *env)
{
	if (in->body)
		wfi_free(env, in->body, in->head.len);
	memset(in, 0, sizeof(*in));
}
