/* SPDX-License-Identifier: Apache-2.0 */
/* session.c - one attached engine: its rings, its regions, its end */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define SESSION_WHY sizeof(((struct weft_ctl_rep *)0)->why)

static int region_import(struct session *s, uint32_t id, const struct weft_rkey_src *src)
{
	const struct weft_transport *t = s->node->host.dev->transport;
	int ret;

	ret = t->rkey_import(s->ep, src, &s->regions[id].rkey);
	if (ret)
		return ret;
	s->regions[id].len = src->len;
	s->regions[id].nr_ops = 0;
	s->regions[id].closing = false;
	s->rkeys[id] = s->regions[id].rkey;
	return 0;
}

/*
 * region 0 is the arena, so that blocks can be copied into an engine's own claimed slots. It is
 * mapped here already: once for all sessions, and no transport needs to map it again
 */
static int session_arena(struct session *s)
{
	const struct wfi_map *arena = wfi_tenant_arena(s->tenant);
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = WEFT_RKEY_PROCESS,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.fd = -1,
		.pid = getpid(),
		.addr = (uintptr_t)arena->addr,
		.len = arena->len,
	};

	return region_import(s, WEFT_REGION_ARENA, &src);
}

int session_attach(struct node *node, struct wfi_tenant *t, pid_t pid, int pidfd, const char *name,
		   struct session **out)
{
	struct weft_ep_opts ep_opts = {
		.size = sizeof(ep_opts),
		.send_cq = node->host.send_cq,
		.recv_cq = node->host.recv_cq,
		.flags = WEFT_EP_MEM,
	};
	struct session *s;
	int ret;

	if (node->nr_sessions == NODE_SESSIONS_MAX)
		return -EAGAIN;
	s = wfi_alloc(node->env, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->node = node;
	s->tenant = t;
	s->pid = pid;
	s->pidfd = pidfd;
	s->ep_owner.kind = EP_SESSION;
	snprintf(s->name, sizeof(s->name), "%s", name);
	ret = wfi_owner_init(node->kv, &s->owner, t);
	if (ret)
		goto err_free;
	ep_opts.ctx = &s->ep_owner;
	ret = node->host.dev->transport->ep_create(node->host.dev, &ep_opts, &s->ep);
	if (ret)
		goto err_owner;
	ret = session_arena(s);
	if (ret)
		goto err_ep;
	s->idx = node->nr_sessions;
	node->sessions[node->nr_sessions++] = s;
	wfi_gauge_set(node->engines, node->nr_sessions);
	*out = s;
	return 0;

err_ep:
	node->host.dev->transport->ep_destroy(s->ep);
err_owner:
	wfi_owner_fini(node->kv, &s->owner, false);
err_free:
	wfi_free(node->env, s, sizeof(*s));
	return ret;
}

/* ---- rings ---- */

int session_ring_add(struct session *s, struct wfi_ring *ring, uint32_t *id)
{
	struct node *node = s->node;
	struct node_ring *r;
	uint32_t i;

	for (i = 0; i < SESSION_RINGS_MAX && s->rings[i]; i++)
		;
	if (i == SESSION_RINGS_MAX || node->nr_rings == NODE_RINGS_MAX)
		return -EMFILE;
	r = wfi_alloc(node->env, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->events = wfi_alloc(node->env, RING_EVENTS_MAX * sizeof(*r->events));
	if (!r->events) {
		wfi_free(node->env, r, sizeof(*r));
		return -ENOMEM;
	}
	r->session = s;
	r->ring = ring;
	r->id = i;
	s->rings[i] = r;
	node->rings[node->nr_rings++] = r;
	*id = i;
	return 0;
}

static void ring_remove(struct session *s, uint32_t id)
{
	struct node *node = s->node;
	struct node_ring *r = s->rings[id];
	unsigned i;

	ops_cancel(s, r);
	for (i = 0; i < node->nr_rings; i++)
		if (node->rings[i] == r)
			node->rings[i] = node->rings[--node->nr_rings];
	wfi_ring_kick(r->ring);
	wfi_ring_destroy(r->ring);
	wfi_free(node->env, r->events, RING_EVENTS_MAX * sizeof(*r->events));
	wfi_free(node->env, r, sizeof(*r));
	s->rings[id] = NULL;
}

int session_ring_close(struct session *s, uint32_t id)
{
	if (id >= SESSION_RINGS_MAX || !s->rings[id])
		return -ENOENT;
	ring_remove(s, id);
	return 0;
}

bool session_ring_busy(const struct session *s, uint32_t id)
{
	const struct node_op *op;

	for (op = s->ops; op; op = op->next)
		if (!op->ring && op->ring_id == id &&
		    (op->kept || op->placed || op->pull || op->hot.xfer))
			return true;
	return false;
}

/* ---- regions ---- */

static void region_why(char *why, int ret)
{
	const char *text = "the region can't be used";

	if (ret == -EPERM)
		text = "the memfd can shrink: add F_SEAL_SHRINK before weft_region_reg()";
	else if (ret == -ERANGE)
		text = "the region is longer than its memfd";
	else if (ret == -EACCES)
		text = "the node may not reach this process's memory: run it as the same user, or "
		       "give it CAP_SYS_PTRACE; memory backed by a memfd needs neither";
	snprintf(why, SESSION_WHY, "%s", text);
}

/* Return: a number for another region; 0: there is none, with @why */
static uint32_t region_number(const struct session *s, char *why)
{
	uint32_t i;

	for (i = 1; i < SESSION_REGIONS_MAX && s->regions[i].rkey; i++)
		;
	if (i < SESSION_REGIONS_MAX)
		return i;
	snprintf(why, SESSION_WHY, "an engine has at most %u regions: register larger ones",
		 SESSION_REGIONS_MAX - 1);
	return 0;
}

int session_region_give(struct session *s, const struct region *region, unsigned ep, uint32_t *id,
			char *why)
{
	uint32_t i = region_number(s, why);

	if (!i)
		return -EMFILE;
	s->regions[i] = *region;
	s->regions[i].len = region->rkey->len;
	s->rkeys[i] = region->rkey;
	s->nics[i] = gpu_direct_memory(region->direct);
	s->gpus[ep].nr_regions++;
	if (region->gpu)
		s->gpus[ep].gpu = region->gpu;
	*id = i;
	return 0;
}

int session_region_reg(struct session *s, int fd, uint64_t addr, uint64_t off, uint64_t len,
		       uint32_t *id, char *why)
{
	struct weft_rkey_src src = {
		.size = sizeof(src),
		.kind = fd >= 0 ? WEFT_RKEY_MEMFD : WEFT_RKEY_PROCESS,
		.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE,
		.fd = fd >= 0 ? fd : s->pidfd,
		.pid = s->pid,
		.addr = fd >= 0 ? off : addr,
		.len = len,
	};
	uint32_t i;
	int ret;

	if (fd < 0 && s->node->memfds_only) {
		snprintf(why, SESSION_WHY,
			 "the node takes regions in memfds only: register such memory, or set "
			 "private_memory = true in its configuration");
		return -EPERM;
	}
	i = region_number(s, why);
	if (!i)
		return -EMFILE;
	ret = region_import(s, i, &src);
	if (ret) {
		region_why(why, ret);
		return ret;
	}
	*id = i;
	return 0;
}

static void region_drop(struct session *s, uint32_t id)
{
	struct weft_ep *ep = s->rkeys[id]->ep;

	/* NICs first: they are through when this returns */
	gpu_direct_close(s->regions[id].direct);
	s->regions[id].direct = NULL;
	s->nics[id] = NULL;
	ep->dev->transport->mr_dereg(s->mrs[id]);
	s->mrs[id] = NULL;
	ep->dev->transport->rkey_destroy(s->rkeys[id]);
	s->regions[id].rkey = NULL;
	s->rkeys[id] = NULL;
	if (ep != s->ep)
		gpu_region_gone(s, ep);
}

int session_region_dereg(struct session *s, uint32_t id)
{
	if (id == WEFT_REGION_ARENA || id >= SESSION_REGIONS_MAX || !s->regions[id].rkey)
		return -ENOENT;
	/* what names it for later would keep it until then */
	if (!s->regions[id].closing && s->regions[id].nr_ops)
		ops_region_closing(s, id);
	s->regions[id].closing = true;
	if (s->regions[id].nr_ops)
		return -EBUSY;
	region_drop(s, id);
	return 0;
}

/* ---- spaces ---- */

/* Return: its place in s->spaces, or s->nr_spaces */
static uint32_t space_find(const struct session *s, uint32_t id)
{
	uint32_t i = 0;

	while (i < s->nr_spaces && s->spaces[i] != id)
		i++;
	return i;
}

int session_space_open(struct session *s, const struct weft_space_opts *opts,
		       struct wfi_space_info *out, char *why)
{
	int ret = wfi_kv_space_open(s->node->kv, s->tenant, opts, out, why);

	/* there is a place for each: a space that an engine has open does not go */
	if (!ret && space_find(s, out->id) == s->nr_spaces)
		s->spaces[s->nr_spaces++] = out->id;
	return ret;
}

void session_spaces_close(struct session *s)
{
	s->nr_spaces = 0;
}

/* what it has no slot of may still count on it. Return: 0; -EBUSY and @why */
static int space_in_use(const struct session *s, uint32_t id, char *why)
{
	const struct node *node = s->node;
	const uint32_t handoffs = wfi_handoffs_in(node->handoffs, id);
	const uint32_t channels = wfi_channels_in(node->channels, id);

	for (uint32_t i = 0; i < node->nr_sessions; i++) {
		const struct session *other = node->sessions[i];

		if (other == s || space_find(other, id) == other->nr_spaces)
			continue;
		snprintf(why, SESSION_WHY,
			 "the engine '%.*s' (process %d) has it open: let it end first", 60,
			 other->name, (int)other->pid);
		return -EBUSY;
	}
	if (!handoffs && !channels)
		return 0;
	snprintf(why, SESSION_WHY, "%u handoffs and %u ends of channels are in it", handoffs,
		 channels);
	return -EBUSY;
}

int session_space_remove(struct session *s, const struct wfi_tenant *only, uint32_t id, char *why)
{
	struct wfi_kv *kv = s->node->kv;
	const struct wfi_tenant *t = wfi_kv_space_tenant(kv, id);
	uint32_t i;
	int ret;

	if (!t || (only && only != t)) {
		snprintf(why, SESSION_WHY, "there is no such space");
		return -ENOENT;
	}
	ret = space_in_use(s, id, why);
	if (!ret)
		ret = wfi_kv_space_remove(kv, id, why);
	i = space_find(s, id);
	if (!ret && i < s->nr_spaces)
		s->spaces[i] = s->spaces[--s->nr_spaces];
	return ret;
}

/* ---- the end ---- */

static bool pages_lost(const struct session *s)
{
	uint32_t i;

	for (i = 0; i < SESSION_REGIONS_MAX; i++)
		if (s->rkeys[i] &&
		    wfi_guard_hit(s->rkeys[i]->ep->dev->transport->rkey_ptr(s->rkeys[i])))
			return true;
	return wfi_guard_hit(wfi_tenant_arena(s->tenant)->addr);
}

unsigned sessions_guard(struct node *node)
{
	unsigned i, nr = 0;

	for (i = 0; i < node->nr_sessions; i++) {
		struct session *s = node->sessions[i];

		if (s->broken || !pages_lost(s))
			continue;
		wfi_err("engine %d: pages of its memory are gone (holes punched into huge pages, "
			"or memory that failed)",
			(int)s->pid);
		s->broken = true;
		nr++;
	}
	return nr;
}

void session_detach(struct session *s, bool may_write)
{
	struct node *node = s->node;
	uint32_t i;

	node->sessions[s->idx] = node->sessions[--node->nr_sessions];
	node->sessions[s->idx]->idx = s->idx;
	wfi_gauge_set(node->engines, node->nr_sessions);
	s->ending = true;
	s->may_write = may_write;
	for (i = 0; i < SESSION_RINGS_MAX; i++)
		if (s->rings[i])
			ring_remove(s, i);
	/* what waits for an event of the engine's would wait for ever */
	gpu_eps_shutdown(s);
	wfi_handoffs_owner_gone(node->handoffs, &s->owner);
	wfi_channels_owner_gone(node->channels, &s->owner);
	s->next_ending = node->ending_sessions;
	node->ending_sessions = s;
	node->nr_ending++;
}

void session_gone(struct node *node, uint32_t owner_id)
{
	struct session *s;

	/* its last operations may outlive its process: then there is nothing in quarantine yet */
	for (s = node->ending_sessions; s; s = s->next_ending) {
		if (s->owner.id == owner_id && !s->ep_down) {
			s->may_write = false;
			return;
		}
	}
	wfi_owner_gone(node->kv, owner_id);
}

bool session_end_poll(struct session *s)
{
	struct node *node = s->node;
	const struct weft_transport *t = node->host.dev->transport;
	uint32_t i;

	if (s->nr_ops)
		return false;
	if (!s->ep_down) {
		s->ep_down = true;
		wfi_owner_fini(node->kv, &s->owner, s->may_write);
		t->ep_shutdown(s->ep);
	}
	if (!s->ep_owner.closed || !gpu_eps_closed(s))
		return false;
	for (i = 0; i < SESSION_REGIONS_MAX; i++)
		if (s->regions[i].rkey)
			region_drop(s, i);
	gpu_eps_destroy(s);
	t->ep_destroy(s->ep);
	if (s->pidfd >= 0)
		close(s->pidfd);
	wfi_free(node->env, s, sizeof(*s));
	node->nr_ending--;
	return true;
}
