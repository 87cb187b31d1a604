/* SPDX-License-Identifier: Apache-2.0 */
/* link.c - a device of the node: its queues, and the arenas that are registered with it */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node.h"
#include "weft_internal/log.h"

#define CQ_DEPTH 4096u

int link_open(struct node_link *link, struct wfi_env *env, const struct weft_transport *t,
	      const struct weft_device_opts *opts)
{
	struct weft_cq_opts cq = { .size = sizeof(cq), .depth = CQ_DEPTH };
	const struct weft_device_opts none = { .size = sizeof(none) };
	int ret;

	if (!opts)
		opts = &none;
	ret = t->device_open(t, env, opts, &link->dev);
	if (ret)
		return ret;
	link->transport = t;
	snprintf(link->device, sizeof(link->device), "%s", opts->name ? opts->name : "");
	snprintf(link->addr, sizeof(link->addr), "%s", opts->addr ? opts->addr : "");
	link->silent_ms = opts->silent_ms;
	ret = t->cq_create(link->dev, &cq, &link->send_cq);
	if (!ret)
		ret = t->cq_create(link->dev, &cq, &link->recv_cq);
	if (ret)
		link_close(link);
	return ret;
}

int link_arena_add(struct node_link *link, const struct wfi_map *arena)
{
	struct weft_mr_opts mr = {
		.size = sizeof(mr),
		.addr = arena->addr,
		.len = arena->len,
		.access = WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ,
		.kind = WEFT_MR_MEMFD,
		.fd = arena->fd,
	};
	int ret = link->dev->transport->mr_reg(link->dev, &mr, &link->arenas[link->nr_arenas]);

	link->nr_arenas += !ret;
	return ret;
}

/* a queue of a device that moves bytes within the post has nothing to wait for */
static struct weft_cq *link_queue(const struct node_link *link, unsigned idx)
{
	if (!idx)
		return link->recv_cq;
	return idx == 1 && !(link->dev->caps.flags & WEFT_CAP_SYNC) ? link->send_cq : NULL;
}

int link_arm(struct node_link *link, struct weft_wait waits[LINK_WAITS_MAX])
{
	struct weft_cq *cq;
	int nr = 0, ret;

	for (link->nr_armed = 0; (cq = link_queue(link, link->nr_armed)); link->nr_armed++) {
		ret = link->dev->transport->cq_arm(cq, waits + nr, LINK_WAITS_MAX - (unsigned)nr);
		if (ret < 0)
			return ret;
		nr += ret;
	}
	return nr;
}

void link_disarm(struct node_link *link)
{
	while (link->nr_armed)
		link->dev->transport->cq_disarm(link_queue(link, --link->nr_armed));
}

void link_lost(struct node *node, struct node_link *link)
{
	if (link == &node->host || link->lost)
		return;
	link->lost = true;
	node_poke(node);
}

bool link_take(struct node *node, struct node_link *link, struct node_link *out)
{
	const struct node_peer *p;
	unsigned i;

	for (i = 0; i < node->nr_peers; i++)
		if (node->peers[i]->link == link)
			return false;
	for (p = node->ending_peers; p; p = p->next_ending)
		if (p->link == link)
			return false;
	gpu_directs_net(node, link, false);
	wfi_xfer_queue_del(node->xfer, link->send_cq);
	*out = *link;
	link->dev = NULL;
	link->send_cq = NULL;
	link->recv_cq = NULL;
	link->nr_arenas = 0;
	return true;
}

void link_give(struct node *node, struct node_link *link, struct node_link *fresh)
{
	fresh->lost = true;
	*link = *fresh;
	/* there is room: it had one before */
	wfi_xfer_queue_add(node->xfer, link->send_cq);
	link->lost = false;
	gpu_directs_net(node, link, true);
}

void link_close(struct node_link *link)
{
	const struct weft_transport *t;
	unsigned i;

	if (!link->dev)
		return;
	t = link->dev->transport;
	for (i = 0; i < link->nr_arenas; i++)
		t->mr_dereg(link->arenas[i]);
	t->cq_destroy(link->send_cq);
	t->cq_destroy(link->recv_cq);
	t->device_close(link->dev);
	memset(link, 0, sizeof(*link));
}
