/* SPDX-License-Identifier: Apache-2.0 */
/* control_engine.c - what engines ask of the node on their control connections */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control_private.h"
#include "weft_internal/ctl.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define BLOCKS_PAGE 4096u /* blocks in one answer, about, and slices that it takes at most */
#define BLOCKS_SLICES 1024u

struct request {
	struct control *c;
	struct conn *k;
	struct weft_ctl_req req;
	struct weft_ctl_rep rep;
	int fds[2]; /* that came with it: what follows are some of them */
	unsigned nr_fds;
	int fd_in; /* beside the request, or -1 */
	int dmabuf; /* of a region of a GPU's: the last one beside the request, or -1 */
	int fd_out; /* beside the answer, or -1 */
	bool close_out;
	bool later; /* no answer yet */
	struct wfi_ring *ring;
	uint64_t held; /* by the tenant's rings, in bytes */
	struct wfi_tenant *tenant;
	char *text;
	json_t *dials, *network; /* of STATUS */
	struct node_slice slice;
	bool more;
};

__attribute__((format(printf, 3, 4))) static void refuse(struct request *q, int status,
							 const char *fmt, ...)
{
	va_list ap;

	q->rep.status = status;
	va_start(ap, fmt);
	vsnprintf(q->rep.why, sizeof(q->rep.why), fmt, ap);
	va_end(ap);
}

static void run_attach(struct node *node, void *arg)
{
	struct request *q = arg;

	q->rep.status = session_attach(node, q->tenant, q->k->pid, q->k->pidfd, q->req.u.hello.name,
				       &q->k->session);
	if (q->rep.status)
		refuse(q, q->rep.status, "the node has no room for another engine");
	else
		q->k->pidfd = -1;
}

static void on_hello(struct request *q)
{
	struct node *node = q->c->node;
	const struct wfi_map *arena;

	q->req.u.hello.name[WEFT_NAME_MAX - 1] = 0;
	if (node->draining) {
		refuse(q, -ESHUTDOWN, "the node is draining and takes no new engine");
		return;
	}
	q->tenant = wfi_kv_tenant_find(node->kv, q->req.u.hello.token);
	if (!q->tenant) {
		wfi_warn("engine %d gave a token that no tenant has", (int)q->k->pid);
		refuse(q, -EACCES,
		       "no tenant has this token: set WEFT_TOKEN to one in the node's "
		       "configuration");
		return;
	}
	arena = wfi_tenant_arena(q->tenant);
	if (wfi_guard_hit(arena->addr)) {
		refuse(q, -EIO,
		       "pages of the tenant's arena are gone: some engine of the tenant punched "
		       "holes into it, or memory failed. Restart the node");
		return;
	}
	process_watch(q->c, q->k);
	node_call(node, run_attach, q);
	if (q->rep.status)
		return;
	q->k->kind = CONN_ENGINE;
	q->c->nr_engines++;
	q->c->had_engine = true;
	q->rep.len = arena->len;
	q->rep.incarnation = wfi_kv_incarnation(node->kv);
	q->rep.node = node->id;
	q->fd_out = arena->fd;
}

static void run_ring_add(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_ring_add(q->k->session, q->ring, &q->rep.id);
}

static void run_ring_held(struct node *node, void *arg)
{
	struct request *q = arg;
	unsigned i;

	for (i = 0; i < node->nr_rings; i++)
		if (node->rings[i]->session->tenant == q->k->session->tenant)
			q->held += wfi_ring_len(node->rings[i]->ring);
}

static void on_ring_open(struct request *q)
{
	struct wfi_ring_opts opts = {
		.sq_depth = q->req.u.ring.sq_depth,
		.cq_depth = q->req.u.ring.cq_depth,
		.arg_bytes = q->req.u.ring.arg_bytes,
	};
	const uint64_t max = q->c->node->ring_bytes;
	int ret;

	/* before its memory is taken, which nobody is to wait long for */
	node_call(q->c->node, run_ring_held, q);
	if (q->held + wfi_ring_need(&opts) > max) {
		refuse(q, -EDQUOT,
		       "the tenant's rings would take more than %llu MiB: open fewer, with fewer "
		       "argument bytes, or raise ring_bytes in the node's configuration",
		       (unsigned long long)(max >> 20));
		return;
	}
	ret = wfi_ring_create(q->c->env, &opts, &q->ring);
	if (ret) {
		refuse(q, ret,
		       ret == -EINVAL ? "depths are powers of two up to 32768, argument bytes a "
					"multiple of 4096 up to 1 GiB"
				      : "no shared memory for the ring (%s): open it with fewer "
					"argument bytes, or see the node's log",
		       strerror(-ret));
		return;
	}
	node_call(q->c->node, run_ring_add, q);
	if (q->rep.status) {
		wfi_ring_destroy(q->ring);
		refuse(q, q->rep.status, "an engine has at most %u rings", SESSION_RINGS_MAX);
		return;
	}
	q->rep.len = wfi_ring_len(q->ring);
	q->fd_out = wfi_ring_fd(q->ring);
}

static void run_ring_close(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_ring_close(q->k->session, q->req.id);
	if (!q->rep.status && session_ring_busy(q->k->session, q->req.id))
		q->rep.status = -EBUSY;
}

static void run_space_open(struct node *node, void *arg)
{
	struct request *q = arg;
	struct wfi_space_info info;
	struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = q->req.u.space.block_bytes,
		.model = q->req.u.space.model,
		.layout = q->req.u.space.layout,
		.tokens_per_block = q->req.u.space.tokens_per_block,
		.nr_layers = q->req.u.space.nr_layers,
		.dtype = q->req.u.space.dtype,
		.verify = q->req.u.space.verify,
		.max_blocks = q->req.u.space.max_blocks,
		.replicas = q->req.u.space.replicas,
	};

	(void)node;
	q->rep.status = session_space_open(q->k->session, &opts, &info, q->rep.why);
	if (q->rep.status)
		return;
	q->rep.id = info.id;
	q->rep.len = info.stride;
	memcpy(q->rep.secret, info.secret, sizeof(q->rep.secret));
}

static void on_space_open(struct request *q)
{
	if (!memchr(q->req.u.space.model, 0, WEFT_NAME_MAX) ||
	    !memchr(q->req.u.space.layout, 0, WEFT_NAME_MAX)) {
		refuse(q, -EINVAL, "names of models and layouts have at most %d bytes",
		       WEFT_NAME_MAX - 1);
		return;
	}
	node_call(q->c->node, run_space_open, q);
}

static void run_region_reg(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_region_reg(q->k->session, q->fd_in, q->req.u.region.addr,
					   q->req.u.region.off, q->req.u.region.len, &q->rep.id,
					   q->rep.why);
}

static void on_region_reg(struct request *q)
{
	uint64_t end;

	if (q->req.u.region.kind) {
		q->rep.status = gpu_region_reg(q->k->session, &q->req, q->fd_in, q->dmabuf,
					       &q->rep.id, q->rep.why);
		return;
	}
	if (!q->req.u.region.len || !!q->req.u.region.has_fd != (q->fd_in >= 0) ||
	    wfi_add_overflows(q->req.u.region.has_fd ? q->req.u.region.off : q->req.u.region.addr,
			      q->req.u.region.len, &end)) {
		refuse(q, -EINVAL, "a region has a length, and a file beside it when it says so");
		return;
	}
	node_call(q->c->node, run_region_reg, q);
}

static void run_region_dereg(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_region_dereg(q->k->session, q->req.id);
}

/* requests are answered in order: none is read while one waits */
static void conn_read(struct control *c, struct conn *k, bool on)
{
	struct epoll_event ev = { .events = EPOLLRDHUP, .data.ptr = k };

	if (on)
		ev.events |= EPOLLIN;
	epoll_ctl(c->epfd, EPOLL_CTL_MOD, k->fd, &ev);
}

static void answer_later(struct request *q)
{
	q->later = true;
	conn_read(q->c, q->k, false);
}

static void on_ring_close(struct request *q)
{
	node_call(q->c->node, run_ring_close, q);
	if (q->rep.status == -EBUSY) {
		q->k->closes = q->req.id + 1;
		answer_later(q);
	}
}

static void on_region_dereg(struct request *q)
{
	node_call(q->c->node, run_region_dereg, q);
	if (q->rep.status == -EBUSY) {
		q->k->dereg = q->req.id;
		answer_later(q);
	}
}

/* whose figures a connection may see: NULL, all of them */
static const struct wfi_tenant *only_of(const struct request *q)
{
	return conn_is_keeper(q->k) ? NULL : q->k->session->tenant;
}

static void run_space_remove(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_space_remove(q->k->session, only_of(q), q->req.id, q->rep.why);
}

static void on_space_remove(struct request *q)
{
	node_call(q->c->node, run_space_remove, q);
	if (q->rep.status)
		return;
	q->k->removes = q->req.id;
	answer_later(q);
}

static void run_status(struct node *node, void *arg)
{
	struct request *q = arg;

	q->text = q->req.type == WEFT_CTL_LS
			  ? node_ls_json(node, only_of(q))
			  : node_status_json(node, only_of(q), q->dials, q->network);
}

/* q->text goes beside the answer, and is freed */
static void answer_text(struct request *q)
{
	const size_t len = q->text ? strlen(q->text) : 0;

	q->fd_out = len ? memfd_create("weft-status", MFD_CLOEXEC) : -1;
	if (q->fd_out < 0 || write(q->fd_out, q->text, len) != (ssize_t)len)
		refuse(q, -ENOMEM, "no memory for the answer");
	q->close_out = true;
	q->rep.len = len;
	free(q->text);
}

static void on_status(struct request *q)
{
	if (q->req.type == WEFT_CTL_STATUS) {
		q->dials = peer_dials_json(q->c);
		q->network = only_of(q) ? NULL : net_json(q->c);
	}
	node_call(q->c->node, run_status, q);
	answer_text(q);
}

static void run_stat(struct node *node, void *arg)
{
	struct request *q = arg;

	q->more = node_stat_slice(node, only_of(q), &q->slice);
}

static void on_stat(struct request *q)
{
	json_t *root;

	q->slice.list = json_array();
	do {
		node_call(q->c->node, run_stat, q);
	} while (q->more);
	root = json_pack("{s:o}", "spaces", q->slice.list);
	q->text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	answer_text(q);
}

struct blocks_call {
	struct node_blocks b;
	const struct wfi_tenant *only;
};

static void run_blocks(struct node *node, void *arg)
{
	struct blocks_call *call = arg;
	const struct wfi_tenant *t = wfi_kv_space_tenant(node->kv, call->b.space);

	call->b.nr = -ENOENT;
	if (t && (!call->only || call->only == t))
		call->b.nr = wfi_kv_blocks(node->kv, call->b.space, &call->b.at, wfi_now(node->env),
					   call->b.blocks);
	for (int i = 0; i < call->b.nr; i++) {
		const uint32_t slot = call->b.blocks[i].slot;

		call->b.gpus[i] = slot == WFI_SLOT_NONE ? 0 : gpu_tiers_holding(node, slot);
	}
}

/* a page of slices, between which the worker serves */
static void on_blocks(struct request *q)
{
	struct blocks_call call = { .b.space = q->req.id, .only = only_of(q) };
	json_t *list = json_array(), *root;
	unsigned slices = 0;

	call.b.at = q->req.u.blocks.from;
	do {
		node_call(q->c->node, run_blocks, &call);
		node_blocks_json(&call.b, list);
	} while (call.b.nr >= 0 && call.b.at && json_array_size(list) < BLOCKS_PAGE &&
		 ++slices < BLOCKS_SLICES);
	if (call.b.nr < 0) {
		json_decref(list);
		refuse(q, -ENOENT, "there is no such space");
		return;
	}
	root = json_pack("{s:o}", "blocks", list);
	if (call.b.at)
		json_object_set_new(root, "next", json_integer((json_int_t)call.b.at));
	q->text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	answer_text(q);
}

static void on_metrics(struct request *q)
{
	q->fd_out = wfi_metrics_fd(q->c->node->metrics);
}

static void on_drain(struct request *q)
{
	if (!conn_is_keeper(q->k)) {
		refuse(q, -EPERM, "only the node's own user, or root, may drain it");
		return;
	}
	wfi_info("draining: no new engines; the node stops when the last has left");
	q->c->node->draining = true;
	peers_tell_state(q->c);
}

static void run_tier_resize(struct node *node, void *arg)
{
	struct request *q = arg;

	q->rep.status = node_tier_resize(node, q->req.u.tier.bytes, q->rep.why, sizeof(q->rep.why));
}

static void on_tier_resize(struct request *q)
{
	if (!conn_is_keeper(q->k))
		refuse(q, -EPERM, "only the node's own user, or root, may resize its tier");
	else
		node_call(q->c->node, run_tier_resize, q);
}

static void on_gpu_tier_resize(struct request *q)
{
	if (!conn_is_keeper(q->k))
		refuse(q, -EPERM, "only the node's own user, or root, may resize its tiers");
	else
		q->rep.status = gpu_tiers_resize(q->c->node, q->req.u.tier.bytes, q->rep.why,
						 sizeof(q->rep.why));
}

static void run_bye(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	session_spaces_close(q->k->session);
}

static void on_bye(struct request *q)
{
	q->k->bye = true;
	node_call(q->c->node, run_bye, q);
}

static void (*const on_request[])(struct request *q) = {
	[WEFT_CTL_HELLO] = on_hello,
	[WEFT_CTL_RING_OPEN] = on_ring_open,
	[WEFT_CTL_RING_CLOSE] = on_ring_close,
	[WEFT_CTL_SPACE_OPEN] = on_space_open,
	[WEFT_CTL_REGION_REG] = on_region_reg,
	[WEFT_CTL_REGION_DEREG] = on_region_dereg,
	[WEFT_CTL_STATUS] = on_status,
	[WEFT_CTL_LS] = on_status,
	[WEFT_CTL_STAT] = on_stat,
	[WEFT_CTL_BLOCKS] = on_blocks,
	[WEFT_CTL_METRICS] = on_metrics,
	[WEFT_CTL_DRAIN] = on_drain,
	[WEFT_CTL_BYE] = on_bye,
	[WEFT_CTL_TIER_RESIZE] = on_tier_resize,
	[WEFT_CTL_SPACE_REMOVE] = on_space_remove,
	[WEFT_CTL_GPU_TIER_RESIZE] = on_gpu_tier_resize,
};

static int answer(struct conn *k, struct request *q)
{
	bool has_fd = q->fd_out >= 0 && !q->rep.status;

	q->rep.magic = WEFT_CTL_MAGIC;
	q->rep.type = q->req.type;
	q->rep.nr_fds = has_fd;
	return wfi_ctl_send(k->fd, &q->rep, sizeof(q->rep), &q->fd_out, has_fd);
}

static void fds_close(struct request *q)
{
	while (q->nr_fds)
		close(q->fds[--q->nr_fds]);
}

static int engine_request(struct control *c, struct conn *k, struct request *q)
{
	uint32_t type = q->req.type;
	int ret = 0;

	q->c = c;
	q->k = k;
	q->fd_out = -1;
	if (type >= WFI_ARRAY_SIZE(on_request) || !on_request[type])
		refuse(q, -EOPNOTSUPP, "no request has the type %u", type);
	else if ((type == WEFT_CTL_HELLO) != (k->kind == CONN_NEW))
		refuse(q, -EPROTO, "HELLO comes first, and once");
	else
		on_request[type](q);
	/* who has its answer finds none of them open here */
	fds_close(q);
	if (!q->later)
		ret = answer(k, q);
	if (q->close_out && q->fd_out >= 0)
		close(q->fd_out);
	return ret;
}

static void run_space_leaves(struct node *node, void *arg)
{
	struct request *q = arg;

	q->rep.status = wfi_kv_space_leaves(node->kv, q->req.id) ? -EBUSY : 0;
}

static void run_ring_ends(struct node *node, void *arg)
{
	struct request *q = arg;

	(void)node;
	q->rep.status = session_ring_busy(q->k->session, q->req.id) ? -EBUSY : 0;
}

void engine_poll(struct control *c, struct conn *k)
{
	struct request q = { .c = c, .k = k, .fd_out = -1 };
	void (*run)(struct node * node, void *arg) = run_ring_ends;

	q.req.type = WEFT_CTL_RING_CLOSE;
	q.req.id = k->closes - 1;
	if (k->dereg) {
		q.req.type = WEFT_CTL_REGION_DEREG;
		q.req.id = k->dereg;
		run = run_region_dereg;
	} else if (k->removes) {
		q.req.type = WEFT_CTL_SPACE_REMOVE;
		q.req.id = k->removes;
		run = run_space_leaves;
	}
	node_call(c->node, run, &q);
	if (q.rep.status == -EBUSY)
		return;
	k->dereg = k->removes = k->closes = 0;
	conn_read(c, k, true);
	if (answer(k, &q))
		k->closing = true;
}

/* one of another version, or of another build before the first release, hears which is the older */
static int other_version(struct conn *k, struct request *q, size_t len)
{
	const uint32_t version = q->req.version;
	const bool old = version < WEFT_ABI_VERSION ||
			 (version == WEFT_ABI_VERSION && len < sizeof(q->req));

	q->fd_out = -1;
	refuse(q, -EPROTO,
	       "%s (version %u, %zu bytes a request; the node: %u, %zu): update %s to the other's "
	       "release",
	       old ? "libweft is older than the node" : "the node is older than libweft", version,
	       len, WEFT_ABI_VERSION, sizeof(q->req), old ? "libweft" : "weftd");
	answer(k, q);
	wfi_warn("process %d is turned away: %s", (int)k->pid, q->rep.why);
	return -EPROTONOSUPPORT;
}

/* which of the descriptors is what. Return: false: there are too many */
static bool take_fds(struct request *q)
{
	unsigned nr = q->nr_fds;
	const bool dmabuf = q->req.type == WEFT_CTL_REGION_REG && q->req.u.region.kind &&
			    q->req.u.region.has_dmabuf;

	if (dmabuf && nr)
		q->dmabuf = q->fds[--nr];
	if (nr)
		q->fd_in = q->fds[0];
	return nr <= 1;
}

int engine_hear(struct control *c, struct conn *k)
{
	union {
		struct weft_ctl_req req;
		uint8_t bytes[WEFT_CTL_REQ_MAX];
	} in = { .bytes = { 0 } };
	struct request q = { .fd_in = -1, .dmabuf = -1 };
	int ret;

	ret = wfi_ctl_recv(k->fd, &in, sizeof(in), q.fds, 2, &q.nr_fds);
	if (ret <= 0)
		return ret ? ret : -ECONNRESET;
	q.req = in.req;
	if (!take_fds(&q) || (size_t)ret < offsetof(struct weft_ctl_req, id) ||
	    q.req.magic != WEFT_CTL_MAGIC)
		ret = -EPROTO;
	else if (ret != sizeof(q.req) || q.req.version != WEFT_ABI_VERSION)
		ret = other_version(k, &q, (size_t)ret);
	else if (q.req.type == WEFT_CTL_PEER_HELLO && k->kind == CONN_NEW)
		ret = peer_accept(c, k);
	else
		ret = engine_request(c, k, &q);
	fds_close(&q);
	return ret;
}
