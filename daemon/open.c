/* SPDX-License-Identifier: Apache-2.0 */
/* open.c - weft_open(): attach to weftd, or be the node; and the keys, which both sides make
 * alike */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "node.h"
#include "weft/weft.h"
#include "weft_internal/client.h"
#include "weft_internal/transport_registry.h"

#define EMBEDDED_ARENA_BYTES (256ull << 20)
#define EMBEDDED_SPIN_NS (50 * WFI_NSEC_PER_USEC)
#define EMBEDDED_LEASE_NS (10 * WFI_NSEC_PER_SEC)
#define EMBEDDED_TIMEOUT_NS (5 * WFI_NSEC_PER_SEC)
#define EMBEDDED_GPU_TIER_BPS (1ull << 30)

/* a node in this process: the same two threads as weftd's, and a socketpair instead of a path */
struct embedded {
	struct wfi_connector base;
	struct wfi_env env;
	struct node *node;
	struct control *control;
	pthread_t worker_thread, control_thread;
	pid_t pid; /* a child made by fork() has no node */
};

static void *worker_main(void *arg)
{
	node_run(arg);
	return NULL;
}

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

static int embedded_connect(struct wfi_connector *base)
{
	struct embedded *e = wfi_container_of(base, struct embedded, base);
	int sv[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -errno;
	ret = control_add(e->control, sv[1]);
	if (ret) {
		close(sv[0]);
		return ret;
	}
	return sv[0];
}

static void embedded_destroy(struct wfi_connector *base)
{
	struct embedded *e = wfi_container_of(base, struct embedded, base);

	/* the node's threads are the parent's, and its descriptors would stop them there */
	if (e->pid != getpid()) {
		free(e);
		return;
	}
	control_stop(e->control);
	pthread_join(e->control_thread, NULL);
	pthread_join(e->worker_thread, NULL);
	if (control_is_stuck(e->control))
		return;
	control_destroy(e->control);
	node_destroy(e->node);
	free(e);
}

static int embedded_node(struct embedded *e, const struct weft_opts *o)
{
	struct wfi_tenant_opts tenant = {
		.name = "default",
		.token = "",
		.arena_bytes = o->arena_bytes ? o->arena_bytes : EMBEDDED_ARENA_BYTES,
		.map_flags = WFI_MAP_HUGE,
	};
	struct node_opts opts = {
		.env = &e->env,
		.name = "embedded",
		.spin_ns = EMBEDDED_SPIN_NS,
		.lease_ns = EMBEDDED_LEASE_NS,
		.op_timeout_ns = EMBEDDED_TIMEOUT_NS,
		.gpu_tier_bytes = o->gpu_tier_bytes,
		.gpu_tier_write_bps = EMBEDDED_GPU_TIER_BPS,
		.tenants = &tenant,
		.nr_tenants = 1,
	};
	int ret;

	ret = wfi_env_real_init(&e->env);
	if (ret)
		return ret;
	e->env.transports = wfi_transports;
	ret = e->env.rng->bytes(&e->env, tenant.salt, sizeof(tenant.salt));
	if (!ret)
		ret = e->env.rng->bytes(&e->env, &opts.node_id, sizeof(opts.node_id));
	return ret ? ret : node_create(&opts, &e->node);
}

/* the program's signals are for its own threads */
static int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t all, was;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	ret = -pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return ret;
}

static int embedded_start(const struct weft_opts *o, struct wfi_connector **out)
{
	struct embedded *e = calloc(1, sizeof(*e));
	struct control_opts c = { 0 };
	int ret;

	if (!e)
		return -ENOMEM;
	e->base.connect = embedded_connect;
	e->base.destroy = embedded_destroy;
	e->pid = getpid();
	ret = embedded_node(e, o);
	if (ret)
		goto err_free;
	c.node = e->node;
	ret = control_create(&c, &e->control);
	if (ret)
		goto err_node;
	ret = thread_start(&e->worker_thread, worker_main, e->node);
	if (ret)
		goto err_control;
	ret = thread_start(&e->control_thread, control_main, e->control);
	if (ret)
		goto err_worker;
	*out = &e->base;
	return 0;

err_worker:
	node_stop(e->node);
	pthread_join(e->worker_thread, NULL);
err_control:
	control_destroy(e->control);
err_node:
	node_destroy(e->node);
err_free:
	free(e);
	return ret;
}

int weft_open(const struct weft_opts *opts, struct weft **out)
{
	struct weft_opts o = { .size = sizeof(o) };
	struct wfi_connector *connector;
	int ret = 0;

	if (opts)
		ret = wfi_client_opts(&o, sizeof(o), opts, WFI_OPTS_LEAST, "weft_opts");
	if (ret)
		return ret;
	if (o.reserved)
		return wfi_client_fail(-EINVAL, "weft_opts.reserved is not 0");
	if (o.mode == WEFT_EMBEDDED) {
		ret = embedded_start(&o, &connector);
		if (ret)
			wfi_client_why("the embedded node can't start: %s; the log says more",
				       strerror(-ret));
	} else if (o.mode == WEFT_ATTACH) {
		ret = wfi_connector_unix(o.socket, &connector);
	} else {
		wfi_client_why("weft_opts.mode %u is neither WEFT_ATTACH nor WEFT_EMBEDDED",
			       o.mode);
		return -EINVAL;
	}
	if (ret)
		return ret;
	o.size = sizeof(o);
	return wfi_client_attach(&o, connector, out);
}

/* ---- keys ---- */

static struct wfi_keyer keyer_of(const struct weft_space *space)
{
	struct wfi_keyer k = { .tokens_per_block = wfi_space_tokens_per_block(space) };

	memcpy(k.secret, wfi_space_secret_bytes(space), sizeof(k.secret));
	return k;
}

int weft_key_chain(const struct weft_space *space, const struct weft_key *parent,
		   const uint32_t *tokens, size_t nr_tokens, struct weft_key *keys, unsigned max)
{
	struct wfi_keyer k = keyer_of(space);
	struct weft_key prev = { 0, 0 };
	unsigned i, nr;

	if (!k.tokens_per_block) {
		wfi_client_why("the space was opened without tokens_per_block");
		return -EINVAL;
	}
	if (max > INT_MAX || (nr_tokens && max && (!tokens || !keys))) {
		wfi_client_why("tokens or keys are NULL, or there is room for more than INT_MAX");
		return -EINVAL;
	}
	nr = (unsigned)wfi_min(nr_tokens / k.tokens_per_block, max);
	if (parent)
		prev = *parent;
	for (i = 0; i < nr; i++) {
		wfi_key_block(&k, &prev, tokens + (size_t)i * k.tokens_per_block, &keys[i]);
		prev = keys[i];
	}
	return (int)nr;
}

int weft_key_from_hash(const struct weft_space *space, const void *hash, size_t len,
		       struct weft_key *out)
{
	struct wfi_keyer k = keyer_of(space);

	if (!len || !hash) {
		wfi_client_why("an empty hash names nothing");
		return -EINVAL;
	}
	wfi_key_bytes(&k, hash, len, out);
	return 0;
}
