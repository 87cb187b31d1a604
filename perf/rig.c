/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/control.h"
#include "daemon/node.h"
#include "perf/perf.h"
#include "perf/rig.h"
#include "weft_internal/transport_registry.h"

/* weftd's own defaults */
#define SPIN_NS (50 * WFI_NSEC_PER_USEC)
#define LEASE_NS (10 * WFI_NSEC_PER_SEC)
#define TIMEOUT_NS (5 * WFI_NSEC_PER_SEC)

/* ---- the node's process ---- */

static int node_start(const struct wfi_perf_node *n, struct wfi_env *env, struct node **out)
{
	struct wfi_tenant_opts tenant = {
		.name = "default",
		.token = "",
		.arena_bytes = n->arena_bytes,
		.map_flags = n->map_flags,
	};
	struct node_opts opts = {
		.env = env,
		.name = n->name ? n->name : "weft-perf",
		.node_id = n->id ? n->id : 1,
		.transport = n->transport,
		.copy_after = WFI_COPY_NEVER,
		.spin_ns = SPIN_NS,
		.lease_ns = LEASE_NS,
		.op_timeout_ns = TIMEOUT_NS,
		.tenants = &tenant,
		.nr_tenants = 1,
	};
	int ret = wfi_env_real_init(env);

	if (ret)
		return ret;
	env->transports = wfi_transports;
	return node_create(&opts, out);
}

static void *control_main(void *arg)
{
	control_run(arg);
	return NULL;
}

/* tells the parent how the start went; @ready is closed */
static void node_ready(int ready, int ret)
{
	if (write(ready, &ret, sizeof(ret)) != sizeof(ret))
		_exit(1);
	close(ready);
}

static int node_main(const char *socket, const struct wfi_perf_node *n, int ready)
{
	const struct control_peer peer = { .name = n->peer_name, .addr = n->peer, .net = true };
	struct control_opts opts = { .socket = socket,
				     .listens = &n->listen,
				     .nr_listens = n->listen != NULL,
				     .peers = &peer,
				     .nr_peers = n->peer != NULL,
				     .signals = true };
	struct control *control;
	struct wfi_env env;
	pthread_t thread;
	sigset_t set;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	ret = n->unpinned ? wfi_perf_unpin() : wfi_perf_pin(WFI_PERF_NODE_CPU);
	if (!ret)
		ret = node_start(n, &env, &opts.node);
	if (!ret)
		ret = control_create(&opts, &control);
	if (!ret)
		ret = -pthread_create(&thread, NULL, control_main, control);
	node_ready(ready, ret);
	if (ret)
		return 1;
	node_run(opts.node);
	pthread_join(thread, NULL);
	control_destroy(control);
	node_destroy(opts.node);
	return 0;
}

static int node_fork(struct wfi_perf_rig *rig, const struct wfi_perf_node *n)
{
	int ready[2], ret;

	if (pipe(ready))
		return -errno;
	fflush(NULL);
	rig->pid = fork();
	if (!rig->pid) {
		close(ready[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(node_main(rig->socket, n, ready[1]));
	}
	close(ready[1]);
	if (rig->pid < 0 || read(ready[0], &ret, sizeof(ret)) != sizeof(ret))
		ret = -ECHILD;
	close(ready[0]);
	return ret;
}

/* ---- the engine's ---- */

int wfi_perf_engine_at(const char *socket, struct weft **w, struct weft_ring **ring)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = socket, .token = "" };
	int ret = weft_open(&opts, w);

	if (ret)
		return wfi_perf_fail(ret, "%s", weft_why());
	ret = weft_ring_open(*w, NULL, ring);
	if (ret) {
		wfi_perf_fail(ret, "%s", weft_why());
		weft_close(*w);
		*w = NULL;
	}
	return ret;
}

int wfi_perf_engine_open(const struct wfi_perf_rig *rig, struct weft **w, struct weft_ring **ring)
{
	return wfi_perf_engine_at(rig->socket, w, ring);
}

int wfi_perf_free_port(char *out, size_t len)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t addr_len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ret = 0;

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    getsockname(fd, (struct sockaddr *)&addr, &addr_len))
		ret = wfi_perf_fail(-errno, "no free port: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	snprintf(out, len, "127.0.0.1:%u", ntohs(addr.sin_port));
	return ret;
}

int wfi_perf_rig_open(struct wfi_perf_rig *rig, uint64_t arena_bytes, unsigned map_flags)
{
	const struct wfi_perf_node node = { .arena_bytes = arena_bytes, .map_flags = map_flags };

	return wfi_perf_rig_open_node(rig, &node);
}

int wfi_perf_rig_open_node(struct wfi_perf_rig *rig, const struct wfi_perf_node *node)
{
	int ret;

	memset(rig, 0, sizeof(*rig));
	snprintf(rig->dir, sizeof(rig->dir), "/tmp/weft-perf-XXXXXX");
	if (!mkdtemp(rig->dir))
		return wfi_perf_fail(-errno, "no temporary folder: %s", strerror(errno));
	snprintf(rig->socket, sizeof(rig->socket), "%s/node.sock", rig->dir);
	ret = node_fork(rig, node);
	if (ret)
		wfi_perf_fail(ret, "the node does not start: %s", strerror(-ret));
	else
		ret = wfi_perf_engine_open(rig, &rig->w, &rig->ring);
	if (ret)
		wfi_perf_rig_close(rig);
	return ret;
}

void wfi_perf_rig_close(struct wfi_perf_rig *rig)
{
	weft_close(rig->w);
	if (rig->pid > 0) {
		kill(rig->pid, SIGTERM);
		waitpid(rig->pid, NULL, 0);
	}
	if (rig->dir[0]) {
		unlink(rig->socket);
		rmdir(rig->dir);
	}
	memset(rig, 0, sizeof(*rig));
}

int wfi_perf_space_open(struct weft *w, const char *model, uint64_t block_bytes,
			struct weft_space **out)
{
	struct weft_space_opts opts = {
		.size = sizeof(opts),
		.block_bytes = block_bytes,
		.model = model,
		.layout = "weft-perf",
		.tokens_per_block = 16,
	};
	int ret = weft_space_open(w, &opts, out);

	return ret ? wfi_perf_fail(ret, "%s", weft_why()) : 0;
}

int wfi_perf_region_open(struct weft *w, struct wfi_perf_region *r, uint64_t len, bool is_private)
{
	unsigned flags = WFI_MAP_PREFAULT | WFI_MAP_HUGE | (is_private ? 0 : WFI_MAP_SHARED_FD);
	struct weft_region_opts opts = { .size = sizeof(opts), .len = len };
	int ret;

	memset(r, 0, sizeof(*r));
	ret = wfi_env_real_init(&r->env);
	if (!ret)
		ret = r->env.mem->map(&r->env, len, flags, &r->map);
	if (ret)
		return wfi_perf_fail(ret, "no memory: %s", strerror(-ret));
	opts.addr = r->map.addr;
	opts.fd = is_private ? -1 : r->map.fd;
	ret = weft_region_reg(w, &opts, &r->id);
	if (ret) {
		wfi_perf_fail(ret, "%s", weft_why());
		r->env.mem->unmap(&r->env, &r->map);
	}
	return ret;
}

void wfi_perf_region_close(struct weft *w, struct wfi_perf_region *r)
{
	if (!r->map.len)
		return;
	if (weft_region_dereg(w, r->id))
		wfi_perf_fail(0, "%s", weft_why());
	r->env.mem->unmap(&r->env, &r->map);
}

/* ---- operations ---- */

int wfi_perf_spin(struct weft_ring *ring, struct weft_completion *out)
{
	int nr;

	while (!(nr = weft_poll(ring, out, 1)))
		;
	return nr < 0 ? nr : out->res;
}

int wfi_perf_call(struct weft_ring *ring, const struct weft_op *op)
{
	struct weft_completion done;
	int ret = weft_submit(ring, op, 1);

	return ret < 0 ? ret : wfi_perf_spin(ring, &done);
}

void wfi_perf_keys(struct weft_key *out, uint64_t first, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++)
		out[i] = (struct weft_key){ wfi_perf_rand(2 * (first + i)),
					    wfi_perf_rand(2 * (first + i) + 1) };
}
