/* SPDX-License-Identifier: Apache-2.0 */
/* self.c - the node as a peer of its own: for handoffs inside it whose bytes have to move */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/log.h"

#define MSGS (2 * WFI_PEER_CREDITS) /* a request and an answer each */

struct node_self {
	struct wfi_peer base;
	struct node *node;
	struct ep_owner ep_owner;
	struct wfi_peer_arena arenas[NODE_TENANTS_MAX];
	uint32_t head, tail;
	struct self_msg {
		uint32_t len;
		uint8_t bytes[WFI_PEER_MSG_MAX];
	} msgs[MSGS];
};

static int self_send(struct wfi_peer *base, const void *msg, size_t len)
{
	struct node_self *self = wfi_container_of(base, struct node_self, base);
	struct self_msg *m = &self->msgs[self->tail % MSGS];

	if (self->tail - self->head == MSGS)
		return -EAGAIN;
	m->len = (uint32_t)len;
	memcpy(m->bytes, msg, len);
	self->tail++;
	return 0;
}

static int arena_import(struct node_self *self, unsigned tenant)
{
	const struct wfi_map *arena = wfi_tenant_arena(self->node->tenants[tenant]);
	const struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_PROCESS,
		.access = WEFT_ACCESS_REMOTE_READ,
		.fd = -1,
		.pid = getpid(),
		.addr = (uintptr_t)arena->addr,
		.len = arena->len,
	};
	struct weft_ep *ep = self->base.ep;

	return ep->dev->transport->rkey_import(ep, &src, &self->arenas[tenant].rkey);
}

/* a tenant may come at any time: its arena is looked for when it is wanted */
static const struct wfi_peer_arena *self_arena(struct wfi_peer *base,
					       const struct wfi_tenant *tenant)
{
	struct node_self *self = wfi_container_of(base, struct node_self, base);
	unsigned i;

	for (i = 0; i < self->node->nr_tenants; i++)
		if (self->node->tenants[i] == tenant)
			return self->arenas[i].rkey || !arena_import(self, i) ? &self->arenas[i]
									      : NULL;
	return NULL;
}

static int self_create(struct node *node)
{
	struct weft_ep_opts opts = {
		.size = sizeof(opts),
		.send_cq = node->host.send_cq,
		.recv_cq = node->host.recv_cq,
		.flags = WEFT_EP_MEM,
	};
	struct node_self *self = wfi_alloc(node->env, sizeof(*self));
	int ret;

	if (!self)
		return -ENOMEM;
	self->node = node;
	self->ep_owner.kind = EP_SELF;
	self->base.node = node->id;
	self->base.send = self_send;
	self->base.arena = self_arena;
	opts.ctx = &self->ep_owner;
	ret = node->host.dev->transport->ep_create(node->host.dev, &opts, &self->base.ep);
	if (ret) {
		wfi_free(node->env, self, sizeof(*self));
		return ret;
	}
	node->self = self;
	return 0;
}

void self_destroy(struct node *node)
{
	struct node_self *self = node->self;
	const struct weft_transport *t = node->host.dev ? node->host.dev->transport : NULL;
	unsigned i;

	if (!self)
		return;
	for (i = 0; i < node->nr_tenants; i++)
		t->rkey_destroy(self->arenas[i].rkey);
	t->ep_destroy(self->base.ep);
	wfi_free(node->env, self, sizeof(*self));
	node->self = NULL;
}

struct wfi_peer *self_peer(struct node *node)
{
	int ret = node->self ? 0 : self_create(node);

	if (ret)
		wfi_warn("handoffs between layouts inside this node: %s", strerror(-ret));
	return ret ? NULL : &node->self->base;
}

bool self_waits(const struct node *node)
{
	return node->self->head != node->self->tail;
}

/* what this turn sends is for the next one: each is taken when nothing else is under way */
int self_poll(struct node *node)
{
	struct node_self *self = node->self;
	uint32_t left = self->tail - self->head;
	int work = (int)left;

	while (left--) {
		/* its place may be taken again while it is looked at */
		const struct self_msg m = self->msgs[self->head++ % MSGS];

		wfi_handoffs_message(node->handoffs, &self->base, m.bytes, m.len,
				     wfi_now(node->env));
	}
	return work;
}
