/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/chaos/chaos.h"

#define LEAVE_MS 5000 /* a node that is told to stop does, whatever else is broken */
#define DRAIN_MS 15000 /* one that drains waits for its engines, and hands on for 5 s at most */
#define MEMORY "/dev/shm"
#define NODE_PORT 7470
#define ETCD_PORT 2379

/* deadlines that end within a schedule, memory that fills */
static const char *const common[] = {
	"arena_bytes=6M", "hugepages=false",	 "transport=tcp",
	"lease_ms=300ms", "op_timeout_ms=500ms", "member_lease_ms=1s"
};

static void node_init(struct chaos *c, unsigned i)
{
	const char *sets[TEST_SETS_MAX] = { NULL };
	struct chaos_node *n = &c->nodes[i];
	unsigned nr = 0, k;

	snprintf(n->sets[nr++], sizeof(n->sets[0]), "name=node-%u", i);
	snprintf(n->sets[nr++], sizeof(n->sets[1]), "listen=%s:%u", c->hosts.host[i].addr,
		 NODE_PORT);
	snprintf(n->sets[nr++], sizeof(n->sets[2]), "membership=etcd:%s://%s:%u",
		 c->tls ? "https" : "http", c->hosts.host[c->nr].addr, ETCD_PORT);
	if (c->tls) {
		snprintf(n->sets[nr++], sizeof(n->sets[3]), "tls_cert=%s/pki/node-%u.crt", c->dir,
			 i);
		snprintf(n->sets[nr++], sizeof(n->sets[4]), "tls_key=%s/pki/node-%u.key", c->dir,
			 i);
		snprintf(n->sets[nr++], sizeof(n->sets[5]), "tls_ca=%s/pki/ca.crt", c->dir);
		snprintf(n->sets[nr++], sizeof(n->sets[6]), "etcd_ca=%s/pki/ca.crt", c->dir);
	} else {
		snprintf(n->sets[nr++], sizeof(n->sets[3]), "insecure=true");
	}
	for (k = 0; k < nr; k++)
		sets[k] = n->sets[k];
	for (k = 0; k < WFI_ARRAY_SIZE(common); k++)
		sets[nr + k] = common[k];
	test_node_init(&n->proc, sets);
	n->proc.ns[0] = c->hosts.host[i].net;
	n->proc.ns[1] = c->hosts.host[i].mnt;
}

static void etcd_init(struct chaos *c)
{
	test_etcd_init(&c->etcd);
	c->etcd.addr = c->hosts.host[c->nr].addr;
	c->etcd.port = ETCD_PORT;
	c->etcd.peer_port = ETCD_PORT + 1;
	c->etcd.ns[0] = c->hosts.host[c->nr].net;
}

bool cluster_init(struct chaos *c, unsigned nr, bool tls, char *why, size_t why_len)
{
	unsigned i;

	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->nr = nr;
	if (hosts_init(&c->hosts, nr + 1, why, why_len))
		return false;
	/* nobody waits for a disk: neither etcd, nor a node that has something to log */
	if (!getenv("TMPDIR") && !access(MEMORY, W_OK))
		setenv("TMPDIR", MEMORY, 1);
	test_folder(c->dir, "chaos");
	setenv("TMPDIR", c->dir, 1);
	etcd_init(c);
	if (tls)
		(void)certs_init(c, why, why_len);
	test_etcd_start(&c->etcd);
	for (i = 0; i < nr; i++) {
		node_init(c, i);
		node_up(c, i);
	}
	return true;
}

void cluster_fini(struct chaos *c)
{
	char path[96];
	unsigned i;

	for (i = 0; i < c->nr; i++)
		test_node_fini(&c->nodes[i].proc);
	test_etcd_fini(&c->etcd);
	hosts_fini(&c->hosts);
	if (c->tls)
		certs_fini(c);
	snprintf(path, sizeof(path), "%s/log", c->dir);
	unlink(path);
	rmdir(c->dir);
}

/* ---- nodes ---- */

static void thaw(struct chaos_node *n)
{
	if (!n->frozen)
		return;
	n->frozen = false;
	kill(n->proc.pid, SIGCONT);
	atomic_fetch_add(&n->frozen_ns, chaos_now() - atomic_load(&n->since_ns));
	atomic_store(&n->since_ns, 0);
}

void node_thaw(struct chaos *c, unsigned i)
{
	thaw(&c->nodes[i]);
}

static bool ended(pid_t pid, siginfo_t *info)
{
	*info = (siginfo_t){ .si_pid = 0 };
	return !waitid(P_PID, (id_t)pid, info, WEXITED | WNOHANG | WNOWAIT) && info->si_pid;
}

static bool node_ended(void *ctx)
{
	struct chaos_node *n = ctx;
	siginfo_t info;

	return ended(n->proc.pid, &info);
}

static void wait_for_end(struct chaos *c, unsigned i)
{
	struct chaos_node *n = &c->nodes[i];
	const unsigned ms = n->leaving ? LEAVE_MS : DRAIN_MS;
	siginfo_t info;

	if (!test_until((int)ms, node_ended, n)) {
		chaos_breach(c, "node-%u does not stop within %u ms", i, ms);
	} else if (ended(n->proc.pid, &info) && (info.si_code != CLD_EXITED || info.si_status)) {
		chaos_breach(c, "node-%u stops with status %d", i, info.si_status);
	}
	chaos_log(c, "node-%u took %u ms to %s", i,
		  (unsigned)((chaos_now() - n->told_ns) / WFI_NSEC_PER_MSEC),
		  n->leaving ? "stop" : "drain");
	chaos_count(c, CHAOS_DRAINED, !n->leaving);
	n->leaving = false;
	test_node_kill(&n->proc);
	atomic_store(&n->drains, false);
}

bool node_goes(const struct chaos *c, unsigned i)
{
	return c->nodes[i].leaving || atomic_load(&c->nodes[i].drains);
}

/* an engine that waits for a node that stands still leaves no other one either */
static bool is_held_up(const struct chaos *c, unsigned i)
{
	bool frozen = false;
	unsigned k;

	for (k = 0; k < c->nr; k++)
		frozen |= c->nodes[k].frozen;
	return frozen && atomic_load(&c->nodes[i].drains) && !c->nodes[i].leaving;
}

void node_up(struct chaos *c, unsigned i)
{
	struct chaos_node *n = &c->nodes[i];

	thaw(n);
	if (atomic_load(&n->drains) && n->hurries)
		node_leave(c, i);
	if (is_held_up(c, i))
		return;
	if (node_goes(c, i))
		wait_for_end(c, i);
	if (!n->proc.pid)
		test_node_start(&n->proc);
	atomic_store(&n->pid, n->proc.pid);
}

void node_kill(struct chaos *c, unsigned i)
{
	struct chaos_node *n = &c->nodes[i];

	test_node_kill(&n->proc);
	n->leaving = false;
	atomic_store(&n->drains, false);
	thaw(n);
}

void node_freeze(struct chaos *c, unsigned i)
{
	struct chaos_node *n = &c->nodes[i];

	if (n->frozen || n->leaving || !n->proc.pid)
		return;
	n->frozen = true;
	atomic_store(&n->since_ns, chaos_now());
	kill(n->proc.pid, SIGSTOP);
}

void node_leave(struct chaos *c, unsigned i)
{
	struct chaos_node *n = &c->nodes[i];

	thaw(n);
	if (n->leaving || !n->proc.pid)
		return;
	n->leaving = true;
	n->told_ns = chaos_now();
	kill(n->proc.pid, SIGTERM);
}

void node_drain(struct chaos *c, unsigned i, bool hurries)
{
	struct chaos_node *n = &c->nodes[i];
	struct seat *s = &c->control[i];
	int ret = -ECONNRESET;

	thaw(n);
	if (node_goes(c, i) || !n->proc.pid)
		return;
	/* it may not have seen yet that this is another life */
	while (ret == -ECONNRESET && seat_ready(s))
		ret = weft_drain(s->e.w);
	if (ret) {
		chaos_breach(c, "node-%u does not drain: %s (%s)", i, strerror(-ret), weft_why());
		return;
	}
	n->hurries = hurries;
	n->told_ns = chaos_now();
	atomic_store(&n->drains, true);
	seat_yield(s);
}

/* ---- etcd ---- */

void etcd_up(struct chaos *c)
{
	if (c->etcd_frozen)
		kill(c->etcd.pid, SIGCONT);
	c->etcd_frozen = false;
	if (!c->etcd.pid)
		test_etcd_launch(&c->etcd);
}

void etcd_kill(struct chaos *c)
{
	test_etcd_kill(&c->etcd);
	c->etcd_frozen = false;
}

void etcd_freeze(struct chaos *c)
{
	if (!c->etcd.pid || c->etcd_frozen)
		return;
	c->etcd_frozen = true;
	kill(c->etcd.pid, SIGSTOP);
}

void cluster_check_alive(struct chaos *c)
{
	siginfo_t info;
	unsigned i;

	for (i = 0; i < c->nr; i++)
		if (c->nodes[i].proc.pid && !node_goes(c, i) && ended(c->nodes[i].proc.pid, &info))
			chaos_breach(c, "node-%u has ended by itself: %s %d", i,
				     info.si_code == CLD_EXITED ? "status" : "signal",
				     info.si_status);
	if (c->etcd.pid && ended(c->etcd.pid, &info))
		chaos_breach(c, "etcd has ended by itself: see %s/log", c->etcd.dir);
}
