/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <arpa/inet.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/integration/node.h"
#include "weft_internal/metrics.h"

#define START_MS 20000
#define STOP_MS 20000
#define RUN_S 30

/* ---- time ---- */

uint64_t test_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

bool test_until(unsigned ms, bool (*cond)(void *ctx), void *ctx)
{
	const uint64_t end_ms = test_now_ms() + ms;

	while (!cond(ctx)) {
		if (test_now_ms() >= end_ms)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

/* ---- bytes ---- */

uint64_t test_rand(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

void test_fill(void *buf, size_t len, uint64_t seed)
{
	uint64_t *word = buf, state = seed;
	const uint64_t first = test_rand(&state);
	size_t i;

	for (i = 0; i < len / sizeof(*word); i++)
		word[i] = first + i * 0x9e3779b97f4a7c15ull;
}

uint64_t test_seed(void)
{
	const char *from_env = getenv("WEFT_TEST_SEED");
	const uint64_t seed = from_env ? strtoull(from_env, NULL, 10) : test_now_ms();

	printf("WEFT_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

bool test_filled(const void *buf, size_t len, uint64_t seed)
{
	uint64_t state = seed;
	const uint64_t *word = buf, first = test_rand(&state);
	size_t i;

	for (i = 0; i < len / sizeof(*word); i++)
		if (word[i] != first + i * 0x9e3779b97f4a7c15ull)
			return false;
	return true;
}

/* ---- the program ---- */

static const char *weftd(void)
{
	const char *path = getenv("WEFTD");

	if (!path)
		fail_msg("WEFTD does not name the program to test");
	return path;
}

/* dies with the test, whatever becomes of it */
static void child_setup(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
}

void test_ns_enter(const int ns[TEST_NS_MAX])
{
	unsigned i;

	for (i = 0; i < TEST_NS_MAX; i++)
		if (ns[i] && setns(ns[i], 0))
			_exit(127);
}

static void log_show(const char *path)
{
	char line[512];
	FILE *in = fopen(path, "re");

	while (in && fgets(line, sizeof(line), in))
		fprintf(stderr, "  | %s", line);
	if (in)
		fclose(in);
}

void test_folder(char dir[64], const char *what)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, 64, "%s/weft-%s-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp", what);
	if (!mkdtemp(dir))
		fail_msg("%s: %s", dir, strerror(errno));
}

void test_node_init(struct test_node *n, const char *const sets[])
{
	unsigned i;

	memset(n, 0, sizeof(*n));
	test_folder(n->dir, "test");
	snprintf(n->socket, sizeof(n->socket), "%s/sock", n->dir);
	snprintf(n->log, sizeof(n->log), "%s/log", n->dir);
	for (i = 0; sets && sets[i]; i++) {
		assert_true(i < TEST_SETS_MAX);
		n->sets[i] = sets[i];
	}
}

static const char *const apart[] = { "unshare", "-r", "-p", "-f", "--kill-child" };

bool test_node_can_be_apart(void)
{
	struct test_run r = { .argv = { NULL } };

	memcpy(r.argv, apart, sizeof(apart));
	r.argv[WFI_ARRAY_SIZE(apart)] = "true";
	return !test_run(&r);
}

static void node_exec(const struct test_node *n)
{
	const char *argv[2 * TEST_SETS_MAX + 8 + WFI_ARRAY_SIZE(apart)];
	char set[128];
	unsigned i, nr = 0;
	int fd = open(n->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (fd < 0)
		_exit(127);
	dup2(fd, STDERR_FILENO);
	snprintf(set, sizeof(set), "socket=%s", n->socket);
	for (i = 0; n->apart && i < WFI_ARRAY_SIZE(apart); i++)
		argv[nr++] = apart[i];
	argv[nr++] = getenv("WEFTD");
	argv[nr++] = "-c";
	argv[nr++] = "/dev/null";
	argv[nr++] = "-o";
	argv[nr++] = set;
	for (i = 0; n->sets[i]; i++) {
		argv[nr++] = "-o";
		argv[nr++] = n->sets[i];
	}
	argv[nr] = NULL;
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

static bool node_ended(void *ctx)
{
	siginfo_t info = { .si_pid = 0 };

	waitid(P_PID, (id_t) * (pid_t *)ctx, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid != 0;
}

static bool node_listens(void *ctx)
{
	struct test_node *n = ctx;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool ok;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", n->socket);
	ok = !connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return ok || node_ended(&n->pid);
}

void test_node_start(struct test_node *n)
{
	const pid_t self = getpid();

	weftd();
	n->pid = fork();
	assert_true(n->pid >= 0);
	if (!n->pid) {
		child_setup(self);
		test_ns_enter(n->ns);
		node_exec(n);
	}
	if (test_until(START_MS, node_listens, n) && !node_ended(&n->pid))
		return;
	log_show(n->log);
	test_node_kill(n);
	fail_msg("weftd does not start");
}

void test_node_stop(struct test_node *n)
{
	int status = -1;
	bool ended;

	if (!n->pid)
		return;
	kill(n->pid, SIGTERM);
	ended = test_until(STOP_MS, node_ended, &n->pid);
	if (!ended)
		kill(n->pid, SIGKILL);
	waitpid(n->pid, &status, 0);
	n->pid = 0;
	if (ended && WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	log_show(n->log);
	fail_msg("weftd %s, status %#x", ended ? "ended badly" : "did not stop", (unsigned)status);
}

void test_node_kill(struct test_node *n)
{
	if (!n->pid)
		return;
	kill(n->pid, SIGKILL);
	waitpid(n->pid, NULL, 0);
	n->pid = 0;
}

void test_node_fini(struct test_node *n)
{
	if (!n->dir[0])
		return;
	test_node_stop(n);
	unlink(n->log);
	unlink(n->socket);
	rmdir(n->dir);
	n->dir[0] = 0;
}

unsigned test_node_logged(const struct test_node *n, const char *text)
{
	char line[1024];
	unsigned nr = 0;
	FILE *in = fopen(n->log, "re");

	while (in && fgets(line, sizeof(line), in))
		nr += strstr(line, text) != NULL;
	if (in)
		fclose(in);
	return nr;
}

unsigned test_node_fds(const struct test_node *n)
{
	char path[64];
	unsigned nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)n->pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		nr++;
	if (dir)
		closedir(dir);
	return nr;
}

/* private memory alone: pages of the arena come with the blocks */
uint64_t test_node_rss(const struct test_node *n)
{
	char path[64], line[128];
	uint64_t kib = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)n->pid);
	in = fopen(path, "re");
	while (in && fgets(line, sizeof(line), in))
		if (!strncmp(line, "RssAnon:", 8))
			kib = strtoull(line + 8, NULL, 10);
	if (in)
		fclose(in);
	return kib << 10;
}

void test_pair_start(struct test_node *near, struct test_node *far)
{
	const char *const far_sets[] = { "name=far", "arena_bytes=64M", "hugepages=false", NULL };
	const char *const near_sets[] = { "name=near", "arena_bytes=64M", "hugepages=false",
					  near->peers, NULL };

	test_node_init(far, far_sets);
	test_node_init(near, near_sets);
	snprintf(near->peers, sizeof(near->peers), "peers=({ name = \"far\"; socket = \"%s\"; })",
		 far->socket);
	test_node_start(far);
	test_node_start(near);
}

void test_pair_fini(struct test_node *near, struct test_node *far)
{
	test_node_fini(near);
	test_node_fini(far);
}

static void run_exec(const struct test_run *r, int out)
{
	struct rlimit limit = { r->limit, r->limit };

	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	alarm(RUN_S);
	if (r->limit && setrlimit((__rlimit_resource_t)r->resource, &limit))
		_exit(127);
	execvp(r->argv[0], (char *const *)r->argv);
	_exit(127);
}

int test_run(struct test_run *r)
{
	const pid_t self = getpid();
	size_t used = 0;
	ssize_t got;
	int fds[2], status;
	pid_t pid;

	if (!r->argv[0])
		r->argv[0] = weftd();
	assert_false(pipe(fds));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		child_setup(self);
		run_exec(r, fds[1]);
	}
	close(fds[1]);
	while (used < sizeof(r->out) - 1 &&
	       (got = read(fds[0], r->out + used, sizeof(r->out) - 1 - used)) > 0)
		used += (size_t)got;
	r->out[used] = 0;
	close(fds[0]);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- engines ---- */

void test_engine_open(struct test_engine *e, const struct test_node *n, const char *token,
		      const struct weft_space_opts *space)
{
	struct weft_opts opts = {
		.size = sizeof(opts),
		.mode = n ? WEFT_ATTACH : WEFT_EMBEDDED,
		.socket = n ? n->socket : NULL,
		.token = token ? token : "",
		.name = "test",
	};

	memset(e, 0, sizeof(*e));
	if (weft_open(&opts, &e->w) || weft_space_open(e->w, space, &e->space) ||
	    weft_ring_open(e->w, NULL, &e->ring))
		fail_msg("%s", weft_why());
}

void test_engine_close(struct test_engine *e)
{
	weft_close(e->w);
	memset(e, 0, sizeof(*e));
}

void test_keys(const struct test_engine *e, uint64_t name, unsigned nr, struct weft_key *keys)
{
	unsigned i;

	for (i = 0; i < nr; i++) {
		const uint64_t hash[2] = { name, i };

		if (weft_key_from_hash(e->space, hash, sizeof(hash), &keys[i]))
			abort();
	}
}

void test_next(struct weft_ring *ring, struct weft_completion *out)
{
	if (weft_wait(ring, out, 1, 10000000) != 1)
		fail_msg("no completion: %s", weft_why());
}

struct weft_stat test_stat(struct weft_ring *ring)
{
	struct weft_stat st = { 0 };
	struct weft_op op = { .op = WEFT_OP_STAT, .stat = &st };

	if (weft_call(ring, &op, NULL))
		fail_msg("stat: %s", weft_why());
	return st;
}

struct settle {
	struct weft_ring *ring;
	const struct weft_stat *want;
	struct weft_stat got;
};

static bool stat_settled(void *ctx)
{
	struct settle *s = ctx;

	s->got = test_stat(s->ring);
	return s->got.slots_filling == s->want->slots_filling &&
	       s->got.slots_leased == s->want->slots_leased &&
	       s->got.slots_quarantined == s->want->slots_quarantined;
}

bool test_stat_settles(struct weft_ring *ring, const struct weft_stat *want, unsigned ms)
{
	struct settle s = { .ring = ring, .want = want };

	if (test_until(ms, stat_settled, &s))
		return true;
	fprintf(stderr, "filling %llu leased %llu quarantined %llu, expected %llu %llu %llu\n",
		(unsigned long long)s.got.slots_filling, (unsigned long long)s.got.slots_leased,
		(unsigned long long)s.got.slots_quarantined,
		(unsigned long long)want->slots_filling, (unsigned long long)want->slots_leased,
		(unsigned long long)want->slots_quarantined);
	return false;
}

unsigned test_engines(struct weft *w)
{
	unsigned nr = 0;
	const char *at;
	char *text;

	if (weft_status_json(w, &text))
		fail_msg("status: %s", weft_why());
	at = strstr(text, "\"engines\":[");
	assert_non_null(at);
	for (; *at != ']'; at++)
		nr += *at == '{';
	free(text);
	return nr;
}

static bool engines_left(void *ctx)
{
	return test_engines(ctx) <= 1;
}

bool test_alone(struct weft *w, unsigned ms)
{
	return test_until(ms, engines_left, w);
}

uint64_t test_counter_in(int fd, const char *name)
{
	struct wfi_metrics_view *view;
	struct wfi_metric_info info;
	uint64_t sum = 0;
	unsigned i;

	assert_int_equal(wfi_metrics_view_open(fd, &view), 0);
	for (i = 0; i < wfi_metrics_view_nr(view); i++)
		if (!wfi_metrics_view_get(view, i, &info) && !strcmp(info.name, name) &&
		    info.counter)
			sum += __atomic_load_n(&info.counter->value, __ATOMIC_RELAXED);
	wfi_metrics_view_close(view);
	return sum;
}

uint64_t test_counter(struct weft *w, const char *name)
{
	const int fd = weft_metrics_fd(w);
	uint64_t sum;

	assert_true(fd >= 0);
	sum = test_counter_in(fd, name);
	close(fd);
	return sum;
}

/* ---- children ---- */

void test_child_die(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: in a child: %s (%s)\n", file, line, what, weft_why());
	_exit(1);
}

void test_child_start(struct test_child *c, void (*run)(int in, int out, void *ctx), void *ctx)
{
	const pid_t self = getpid();
	int to[2], from[2];

	assert_false(pipe2(to, O_CLOEXEC));
	assert_false(pipe2(from, O_CLOEXEC));
	fflush(NULL);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (!c->pid) {
		child_setup(self);
		close(to[1]);
		close(from[0]);
		run(to[0], from[1], ctx);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	c->to = to[1];
	c->from = from[0];
}

bool test_say(int fd, const void *msg, size_t len)
{
	return write(fd, msg, len) == (ssize_t)len;
}

bool test_hear(int fd, void *msg, size_t len)
{
	size_t done = 0;
	ssize_t ret;

	while (done < len) {
		ret = read(fd, (char *)msg + done, len - done);
		if (ret <= 0)
			return false;
		done += (size_t)ret;
	}
	return true;
}

static int child_end(struct test_child *c)
{
	int status = 0;

	waitpid(c->pid, &status, 0);
	close(c->to);
	close(c->from);
	c->pid = 0;
	return status;
}

void test_child_kill(struct test_child *c)
{
	kill(c->pid, SIGKILL);
	child_end(c);
}

void test_child_join(struct test_child *c)
{
	const int status = child_end(c);

	if (status)
		fail_msg("a child ended with status %#x", (unsigned)status);
}
