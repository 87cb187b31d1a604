/* SPDX-License-Identifier: Apache-2.0 */
/* processes and their odds: forks, signals, sockets, users, names; and what a node says of them */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/integration/node.h"
#include "tests/integration/raw.h"

#define BLOCK 4096u
#define NR 16u
#define BACK_MS 1000
#define SILENT 100u
#define SILENT_MS 60000

static struct test_node node;

static const char *const sets[] = {
	"arena_bytes=64M",
	"hugepages=false",
	"tenants=({ name = \"default\"; }, { name = \"blue\"; token = \"azure\"; })",
	NULL,
};

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = BLOCK,
	.model = "lives",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = 4,
};

static void child_engine(struct test_engine *e)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };

	test_must(!weft_open(&opts, &e->w));
	test_must(!weft_space_open(e->w, &geometry, &e->space));
	test_must(!weft_ring_open(e->w, NULL, &e->ring));
}

static int claim(struct test_engine *e, struct weft_slot *slots)
{
	struct weft_op op = { .op = WEFT_OP_CLAIM, .space = e->space, .nr = NR, .slots = slots };

	return weft_call(e->ring, &op, NULL);
}

/* ---- engines that fork ---- */

/* the grandchild holds the socket of an engine that is gone, until @in ends */
static void run_forks(int in, int out, void *ctx)
{
	struct weft_slot slots[NR];
	struct test_engine e;
	pid_t pid;
	char c;

	(void)ctx;
	child_engine(&e);
	test_must(claim(&e, slots) == (int)NR);
	pid = fork();
	test_must(pid >= 0);
	if (!pid) {
		test_hear(in, &c, 1);
		_exit(0);
	}
	test_must(test_say(out, &pid, sizeof(pid)));
	while (true)
		pause();
}

static void test_child_holds_socket(void **state)
{
	struct weft_stat before;
	struct test_engine e;
	struct test_child child;
	pid_t grandchild;
	bool alone, settled;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	before = test_stat(e.ring);
	test_child_start(&child, run_forks, NULL);
	assert_true(test_hear(child.from, &grandchild, sizeof(grandchild)));
	kill(child.pid, SIGKILL);
	alone = test_alone(e.w, BACK_MS);
	settled = test_stat_settles(e.ring, &before, BACK_MS);
	assert_false(kill(grandchild, 0)); /* it was there all the time */
	test_child_kill(&child);
	assert_true(alone && settled);
	test_engine_close(&e);
}

/* a child that tidies up, as an interpreter does at its end */
static void run_fork_closes(int in, int out, void *ctx)
{
	struct weft_slot slots[NR];
	struct test_engine e;
	int status;
	pid_t pid;

	(void)in;
	(void)out;
	if (ctx)
		child_engine(&e);
	else
		test_engine_open(&e, NULL, NULL, &geometry);
	test_must(claim(&e, slots) == (int)NR);
	memset((char *)weft_arena(e.w) + slots[3].off, 7, BLOCK);
	pid = fork();
	test_must(pid >= 0);
	if (!pid) {
		weft_ring_close(e.ring);
		test_must(weft_reattach(e.w) == -EINVAL);
		weft_close(e.w);
		_exit(0);
	}
	test_must(waitpid(pid, &status, 0) == pid && !status);
	test_must(weft_attached(e.w));
	test_must(claim(&e, slots) == (int)NR);
	test_must(weft_match(e.ring, e.space, &(struct weft_key){ 1, 1 }, 1) == 0);
	weft_close(e.w);
}

static void test_child_closes(void **state)
{
	struct test_child child;

	(void)state;
	test_child_start(&child, run_fork_closes, &node);
	test_child_join(&child);
	test_child_start(&child, run_fork_closes, NULL);
	test_child_join(&child);
}

/* ---- an embedded node is a guest ---- */

static unsigned own_fds(void)
{
	const struct test_node self = { .pid = getpid() };

	return test_node_fds(&self);
}

/* large maps go in the background */
static bool own_fds_back(void *ctx)
{
	return own_fds() <= *(unsigned *)ctx;
}

static void test_embedded_leaves_nothing(void **state)
{
	struct test_engine e;
	unsigned fds, i;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	test_engine_close(&e);
	fds = own_fds();
	for (i = 0; i < 4; i++) {
		test_engine_open(&e, NULL, NULL, &geometry);
		test_engine_close(&e);
	}
	assert_true(test_until(BACK_MS, own_fds_back, &fds));
}

static volatile sig_atomic_t taken;

static void on_signal(int sig)
{
	(void)sig;
	taken = 1;
}

static void test_embedded_takes_no_signal(void **state)
{
	struct sigaction act = { .sa_handler = on_signal }, was;
	struct test_engine e;
	sigset_t set, pending;
	char *text;

	(void)state;
	test_engine_open(&e, NULL, NULL, &geometry);
	sigaction(SIGUSR1, &act, &was);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR1);
	/* both of its threads have run since */
	assert_int_equal(weft_status_json(e.w, &text), 0);
	free(text);
	sigpending(&pending);
	assert_false(taken);
	assert_true(sigismember(&pending, SIGUSR1));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	assert_true(taken);
	sigaction(SIGUSR1, &was, NULL);
	test_engine_close(&e);
}

/* ---- sockets ---- */

static void test_socket_is_a_file(void **state)
{
	char path[128], set[160], text[16] = "";
	struct test_run r = { .argv = { NULL, "-c", "/dev/null", "-o", set, "-o",
					"arena_bytes=4M" } };
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/precious", node.dir);
	snprintf(set, sizeof(set), "socket=%s", path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && write(fd, "precious", 8) == 8);
	close(fd);
	r.argv[7] = NULL;
	assert_int_equal(test_run(&r), 1);
	assert_non_null(strstr(r.out, "no socket"));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, text, sizeof(text)), 8);
	close(fd);
	assert_string_equal(text, "precious");
	unlink(path);
	snprintf(set, sizeof(set), "socket=%s/none/at/all", node.dir);
	assert_int_equal(test_run(&r), 1);
	assert_non_null(strstr(r.out, "a folder that this user may write to"));
}

/* a terminal that closes is a stop like any other */
static void test_hang_up(void **state)
{
	int status;

	(void)state;
	kill(node.pid, SIGHUP);
	assert_int_equal(waitpid(node.pid, &status, 0), node.pid);
	assert_int_equal(status, 0);
	assert_true(access(node.socket, F_OK) < 0);
	node.pid = 0;
	test_node_start(&node);
}

static bool says_unused(void *ctx)
{
	return test_node_logged(ctx, "SIGHUP: no certificates are read");
}

/* who renews certificates sends it to all nodes alike, those too that make no use of them */
static void test_hang_up_unused(void **state)
{
	static const char *const unused[] = { "arena_bytes=64M",       "hugepages=false",
					      "tls_cert=/nowhere/crt", "tls_key=/nowhere/key",
					      "tls_ca=/nowhere/ca",    NULL };
	struct test_node other;
	struct test_engine e;

	(void)state;
	test_node_init(&other, unused);
	test_node_start(&other);
	kill(other.pid, SIGHUP);
	assert_true(test_until(5000, says_unused, &other));
	test_engine_open(&e, &other, NULL, &geometry);
	test_engine_close(&e);
	test_node_fini(&other);
}

/* a node of this host that is stopped takes calls until its queue is full: no call waits for it */
static void test_stopped_peer(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char peers[160];
	const char *const dials[] = { "arena_bytes=64M", "hugepages=false", peers, NULL };
	struct test_run third = { .argv = { NULL, "-c", "/dev/null", "-o", peers, "-o",
					    "arena_bytes=4M" } };
	struct test_node other;
	struct test_engine e;
	int fds[64], nr = 1;

	(void)state;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/stopped", node.dir);
	fds[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_false(bind(fds[0], (struct sockaddr *)&addr, sizeof(addr)) || listen(fds[0], 1));
	do
		fds[nr] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	while (!connect(fds[nr++], (struct sockaddr *)&addr, sizeof(addr)) && nr < 64);
	assert_int_equal(errno, EAGAIN);

	snprintf(peers, sizeof(peers), "peers=({ name = \"stopped\"; socket = \"%s\"; })",
		 addr.sun_path);
	test_node_init(&other, dials);
	test_node_start(&other);
	test_engine_open(&e, &other, NULL, &geometry);
	test_engine_close(&e);
	test_node_fini(&other);
	/* nor is it taken for one that is gone */
	snprintf(peers, sizeof(peers), "socket=%s", addr.sun_path);
	assert_int_equal(test_run(&third), 1);
	assert_non_null(strstr(third.out, "a node listens on"));
	assert_false(access(addr.sun_path, F_OK));
	while (nr)
		close(fds[--nr]);
	unlink(addr.sun_path);
}

/* ---- what others see ---- */

static void test_names(void **state)
{
	static const char *const names[] = { "\xff\xfe\x01 latin", "\"quoted\\\"\n", "h\xc3\xa9" };
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "" };
	struct weft_space_opts space = geometry;
	struct weft_space *opened;
	struct test_engine e;
	struct weft *w[3];
	unsigned i;
	char *text;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	for (i = 0; i < 3; i++) {
		opts.name = names[i];
		assert_int_equal(weft_open(&opts, &w[i]), 0);
	}
	space.model = "\xe4ther";
	assert_int_equal(weft_space_open(w[0], &space, &opened), 0);
	assert_int_equal(test_engines(e.w), 4);
	assert_int_equal(weft_status_json(e.w, &text), 0);
	assert_non_null(strstr(text, "\"??? latin\""));
	assert_non_null(strstr(text, "\"\\\"quoted\\\\\\\"\\n\""));
	assert_non_null(strstr(text, "\"h\xc3\xa9\""));
	free(text);
	assert_int_equal(weft_ls_json(e.w, &text), 0);
	assert_non_null(strstr(text, "\"?ther\""));
	free(text);
	for (i = 0; i < 3; i++)
		weft_close(w[i]);
	test_engine_close(&e);
}

static void run_stranger(int in, int out, void *ctx)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = node.socket, .token = "azure" };
	struct weft_space *space;
	struct weft *w;
	char *text;

	(void)in;
	(void)out;
	(void)ctx;
	test_must(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	test_must(!weft_open(&opts, &w));
	test_must(!weft_space_open(w, &geometry, &space));
	test_must(weft_drain(w) == -EPERM);
	test_must(!weft_status_json(w, &text));
	test_must(strstr(text, "\"blue\"") && !strstr(text, "\"default\"") &&
		  !strstr(text, "\"test\""));
	free(text);
	test_must(!weft_ls_json(w, &text));
	test_must(strstr(text, "\"blue\"") && !strstr(text, "\"default\""));
	free(text);
	weft_close(w);
}

/* an engine of another user stops no node, and sees its own tenant alone */
static void test_strangers(void **state)
{
	struct test_child child;
	struct test_engine e;
	char *text;

	(void)state;
	if (getuid())
		skip(); /* nobody else to be */
	assert_false(chmod(node.dir, 0755));
	assert_false(chmod(node.socket, 0666));
	test_engine_open(&e, &node, NULL, &geometry);
	test_child_start(&child, run_stranger, NULL);
	test_child_join(&child);
	assert_int_equal(weft_ls_json(e.w, &text), 0);
	assert_non_null(strstr(text, "\"blue\""));
	assert_non_null(strstr(text, "\"default\""));
	free(text);
	test_engine_close(&e);
}

/* those of an engine before may have been among them */
static bool node_fds_back(void *fds)
{
	return test_node_fds(&node) <= *(const unsigned *)fds;
}

static void run_silent(int in, int out, void *ctx)
{
	struct weft_slot slots[NR];
	struct raw silent[SILENT];
	struct test_engine e;
	struct pollfd hup;
	unsigned i;
	char byte;

	(void)in;
	(void)out;
	(void)ctx;
	for (i = 0; i < SILENT; i++)
		raw_connect(&silent[i], node.socket);
	child_engine(&e);
	for (i = 0; i < SILENT; i++) {
		hup = (struct pollfd){ .fd = silent[i].fd, .events = POLLIN };
		test_must(poll(&hup, 1, SILENT_MS) == 1);
		test_must(read(silent[i].fd, &byte, 1) <= 0);
	}
	/* who said hello may be silent as long as it likes */
	test_must(claim(&e, slots) == NR);
	weft_close(e.w);
}

/* who says nothing keeps no place from others for long */
static void test_silent(void **state)
{
	unsigned fds = test_node_fds(&node);
	struct test_child child;

	(void)state;
	test_child_start(&child, run_silent, NULL);
	test_child_join(&child);
	assert_true(test_until(SILENT_MS, node_fds_back, &fds));
	assert_true(test_node_logged(&node, "have not said who they are"));
}

/* ---- requests ---- */

#define BIG (64u << 20)

static void regions_open(struct raw *r, char **mem, uint32_t *id)
{
	struct weft_ctl_req req = { .type = WEFT_CTL_REGION_REG };
	struct weft_ctl_rep rep;

	*mem = malloc(BIG);
	test_must(*mem != NULL);
	memset(*mem, 1, BIG);
	req.u.region.addr = (uintptr_t)*mem;
	req.u.region.len = BIG;
	test_must(!raw_request(r, &req, -1, &rep, NULL));
	*id = rep.id;
}

/* what takes its time holds up the answers behind it: they come in the order of the requests */
static void run_requests(int in, int out, void *ctx)
{
	struct weft_ctl_req req = { .magic = WEFT_CTL_MAGIC, .version = WEFT_ABI_VERSION };
	struct raw_msg m = { .buf = &req, .len = sizeof(req) };
	const uint32_t order[3] = { WEFT_CTL_REGION_DEREG, WEFT_CTL_STATUS, WEFT_CTL_LS };
	struct weft_sqe sqe = { .op = WEFT_OP_PUT, .flags = WEFT_F_COPY, .nr = 4096 };
	const struct weft_sqe nop = { .op = WEFT_OP_NOP };
	struct weft_key key = { 1, 1 };
	struct weft_place place;
	struct weft_ctl_rep rep;
	int fds[RAW_FDS_MAX];
	struct weft_cqe cqe;
	unsigned nr, i;
	struct raw r;
	char *mem;

	(void)in;
	(void)out;
	(void)ctx;
	raw_attach(&r, node.socket, "");
	regions_open(&r, &mem, &place.region);
	for (i = 0; i < sqe.nr; i++) {
		key.lo = key.hi = i + 1;
		place.off = (uint64_t)i * 4096;
		place.len = 0;
		memcpy(raw_args(&r) + 16 + i * 16, &key, sizeof(key));
		memcpy(raw_args(&r) + 16 + sqe.nr * 16 + i * 16, &place, sizeof(place));
	}
	sqe.space = r.space;
	test_must(raw_submit(&r, &sqe) && raw_submit(&r, &nop));
	raw_ring_bell(&r);
	/* a nop that is done was taken after the put, which takes longer */
	test_must(raw_next(&r, &cqe));
	for (i = 0; i < 3; i++) {
		req.type = order[i];
		req.id = place.region;
		test_must(raw_send(&r, &m));
	}
	for (i = 0; i < 3; i++) {
		test_must(raw_recv(&r, &rep, sizeof(rep), fds, &nr) == sizeof(rep));
		while (nr)
			close(fds[--nr]);
		test_must(rep.type == order[i] && !rep.status);
	}
	if (cqe.op == WEFT_OP_NOP)
		test_must(raw_next(&r, &cqe));
	test_must(cqe.op == WEFT_OP_NOP || cqe.res == (int)sqe.nr);
	raw_close(&r);
	free(mem);
}

static void test_answers_in_order(void **state)
{
	struct test_child child;
	unsigned i;

	(void)state;
	for (i = 0; i < 4; i++) {
		test_child_start(&child, run_requests, NULL);
		test_child_join(&child);
	}
}

/* one that was built from another header: as old ones do, it takes 256 bytes of answer */
static void run_other_version(int in, int out, void *ctx)
{
	const struct {
		uint32_t version;
		size_t len;
		const char *older;
	} strangers[] = {
		{ WEFT_ABI_VERSION - 1, sizeof(struct weft_ctl_req), "libweft is older" },
		{ WEFT_ABI_VERSION + 1, sizeof(struct weft_ctl_req), "the node is older" },
		{ WEFT_ABI_VERSION - 1, WEFT_CTL_REQ_MAX, "libweft is older" },
		{ WEFT_ABI_VERSION + 1, 16, "the node is older" },
		{ WEFT_ABI_VERSION, 384, "libweft is older" },
		{ WEFT_ABI_VERSION, sizeof(struct weft_ctl_req) + 64, "the node is older" },
	};
	union {
		struct weft_ctl_req req;
		char bytes[WEFT_CTL_REQ_MAX + 1];
	} msg = { .bytes = { 0 } };
	struct raw_msg m = { .buf = &msg };
	struct weft_ctl_rep rep;
	int fds[RAW_FDS_MAX];
	unsigned i, nr;
	struct raw r;

	(void)in;
	(void)out;
	(void)ctx;
	for (i = 0; i < WFI_ARRAY_SIZE(strangers); i++) {
		msg.req.magic = WEFT_CTL_MAGIC;
		msg.req.version = strangers[i].version;
		msg.req.type = i % 2 ? WEFT_CTL_HELLO : WEFT_CTL_STATUS;
		m.len = strangers[i].len;
		raw_connect(&r, node.socket);
		test_must(raw_send(&r, &m));
		test_must(raw_recv(&r, &rep, sizeof(rep), fds, &nr) == sizeof(rep) && !nr);
		test_must(rep.magic == WEFT_CTL_MAGIC && rep.type == msg.req.type);
		test_must(rep.status == -EPROTO && memchr(rep.why, 0, sizeof(rep.why)));
		test_must(strstr(rep.why, strangers[i].older) && strstr(rep.why, "update"));
		test_must(!raw_recv(&r, &rep, sizeof(rep), fds, &nr));
		raw_close(&r);
	}
	/* what no version sends is answered by none */
	for (i = 0; i < 2; i++) {
		m.len = i ? sizeof(msg) : 15;
		raw_connect(&r, node.socket);
		test_must(raw_send(&r, &m));
		test_must(!raw_recv(&r, &rep, sizeof(rep), fds, &nr));
		raw_close(&r);
	}
}

static void test_other_versions(void **state)
{
	const unsigned before = test_node_logged(&node, "is turned away: ");
	struct test_child child;

	(void)state;
	test_child_start(&child, run_other_version, NULL);
	test_child_join(&child);
	assert_int_equal(test_node_logged(&node, "is turned away: ") - before, 6);
}

/* files of a node may grow no further: memory for a ring is not to be had, and the rest goes on */
static void test_no_room_for_ring(void **state)
{
	const struct weft_ring_opts big = { .size = sizeof(big), .arg_bytes = 64 << 20 };
	struct rlimit was, tight;
	struct weft_slot slots[NR];
	struct weft_ring *ring;
	struct test_engine e;

	(void)state;
	test_engine_open(&e, &node, NULL, &geometry);
	assert_false(prlimit(node.pid, RLIMIT_FSIZE, NULL, &was));
	tight = was;
	tight.rlim_cur = 8 << 20;
	assert_false(prlimit(node.pid, RLIMIT_FSIZE, &tight, NULL));
	assert_true(weft_ring_open(e.w, &big, &ring) < 0);
	assert_non_null(strstr(weft_why(), "no shared memory for the ring"));
	assert_int_equal(claim(&e, slots), NR);
	assert_false(prlimit(node.pid, RLIMIT_FSIZE, &was, NULL));
	assert_int_equal(weft_ring_open(e.w, &big, &ring), 0);
	test_engine_close(&e);
}

/* rings are memory of the node's: a tenant has so much of them, whoever of its engines asks */
static void test_ring_quota(void **state)
{
	const struct weft_ring_opts big = { .size = sizeof(big), .arg_bytes = 120 << 20 };
	const struct weft_ring_opts huge = { .size = sizeof(huge), .arg_bytes = 1 << 30 };
	struct weft_opts blue = { .size = sizeof(blue), .socket = node.socket, .token = "azure" };
	struct weft_ring *ring[3];
	struct test_engine a, b;
	struct weft *w;

	(void)state;
	test_engine_open(&a, &node, NULL, &geometry);
	test_engine_open(&b, &node, NULL, &geometry);
	assert_int_equal(weft_ring_open(a.w, &huge, &ring[0]), -EDQUOT);
	assert_non_null(strstr(weft_why(), "ring_bytes"));
	assert_int_equal(weft_ring_open(a.w, &big, &ring[0]), 0);
	assert_int_equal(weft_ring_open(b.w, &big, &ring[1]), 0);
	assert_int_equal(weft_ring_open(a.w, &big, &ring[2]), -EDQUOT);
	assert_int_equal(weft_open(&blue, &w), 0);
	assert_int_equal(weft_ring_open(w, &big, &ring[2]), 0);
	weft_close(w);
	weft_ring_close(ring[1]);
	assert_int_equal(weft_ring_open(a.w, &big, &ring[2]), 0);
	test_engine_close(&a);
	test_engine_close(&b);
}

/* a node that reaches into no private memory: a memfd serves, and says so to who has none */
static void test_memfds_only(void **state)
{
	static const char *const only[] = { "arena_bytes=4M", "hugepages=false",
					    "private_memory=false", NULL };
	static char bytes[BLOCK];
	struct weft_region_opts region = { .size = sizeof(region), .len = BLOCK };
	const void *from = bytes;
	struct test_node strict;
	struct test_engine e;
	struct weft_key key;
	uint32_t id;

	(void)state;
	test_node_init(&strict, only);
	test_node_start(&strict);
	test_engine_open(&e, &strict, NULL, &geometry);
	region.addr = bytes;
	region.fd = -1;
	assert_int_equal(weft_region_reg(e.w, &region, &id), -EPERM);
	assert_non_null(strstr(weft_why(), "private_memory = true"));
	region.fd = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(region.fd, BLOCK), 0);
	region.addr = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, 0);
	assert_true(region.addr != MAP_FAILED);
	assert_int_equal(weft_region_reg(e.w, &region, &id), 0);
	/* what libweft copies itself needs no region */
	test_keys(&e, 1, 1, &key);
	assert_int_equal(weft_put(e.ring, e.space, NULL, &key, 1, &from), 1);
	munmap(region.addr, BLOCK);
	close(region.fd);
	test_engine_close(&e);
	test_node_fini(&strict);
}

/* ---- set-up ---- */

static int start_node(void **state)
{
	(void)state;
	test_node_init(&node, sets);
	test_node_start(&node);
	return 0;
}

static int stop_node(void **state)
{
	(void)state;
	test_node_fini(&node);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_child_holds_socket),
		cmocka_unit_test(test_child_closes),
		cmocka_unit_test(test_embedded_leaves_nothing),
		cmocka_unit_test(test_embedded_takes_no_signal),
		cmocka_unit_test(test_socket_is_a_file),
		cmocka_unit_test(test_hang_up),
		cmocka_unit_test(test_hang_up_unused),
		cmocka_unit_test(test_stopped_peer),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_answers_in_order),
		cmocka_unit_test(test_other_versions),
		cmocka_unit_test(test_no_room_for_ring),
		cmocka_unit_test(test_ring_quota),
		cmocka_unit_test(test_memfds_only),
	};

	return cmocka_run_group_tests(tests, start_node, stop_node);
}
