/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/integration/etcd.h"

#define START_MS 60000

static bool in_path(const char *name)
{
	const char *path = getenv("PATH");
	char dirs[4096], file[4200], *dir, *save = NULL;

	snprintf(dirs, sizeof(dirs), "%s", path ? path : "/usr/bin");
	for (dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		snprintf(file, sizeof(file), "%s/%s", dir, name);
		if (!access(file, X_OK))
			return true;
	}
	return false;
}

const char *test_etcd_missing(void)
{
	if (!in_path("etcd") || !in_path("etcdctl"))
		return "etcd and etcdctl are not installed (Debian: etcd-server, etcd-client)";
	return NULL;
}

static bool port_is_free(unsigned port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons((uint16_t)port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool is_free = !bind(fd, (struct sockaddr *)&addr, sizeof(addr));

	close(fd);
	return is_free;
}

unsigned test_port(void)
{
	static uint64_t state;
	unsigned port;

	if (!state)
		state = test_now_ms() * 100000 + (uint64_t)getpid();
	/* below those that connections get: who calls a port of those can meet itself there */
	do {
		port = 20000 + (unsigned)(test_rand(&state) % 12000);
	} while (!port_is_free(port));
	return port;
}

void test_etcd_init(struct test_etcd *e)
{
	memset(e, 0, sizeof(*e));
	e->addr = "127.0.0.1";
	test_folder(e->dir, "etcd");
	e->port = test_port();
	do {
		e->peer_port = test_port();
	} while (e->peer_port == e->port);
}

static void etcd_exec(const struct test_etcd *e)
{
	char data[96], peer[64], cluster[96], log[96], ca[96], cert[96], key[96];
	const char *argv[40] = { "etcd",  "--data-dir",
				 data,	  "--listen-client-urls",
				 e->url,  "--advertise-client-urls",
				 e->url,  "--listen-peer-urls",
				 peer,	  "--initial-advertise-peer-urls",
				 peer,	  "--initial-cluster",
				 cluster, "--heartbeat-interval",
				 "50",	  "--election-timeout",
				 "500" };
	unsigned nr = 17;
	int fd;

	snprintf(data, sizeof(data), "%s/data", e->dir);
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", e->peer_port);
	snprintf(cluster, sizeof(cluster), "default=%s", peer);
	snprintf(log, sizeof(log), "%s/log", e->dir);
	snprintf(ca, sizeof(ca), "%s/ca.pem", e->dir);
	snprintf(cert, sizeof(cert), "%s/server.pem", e->dir);
	snprintf(key, sizeof(key), "%s/server.key", e->dir);
	if (e->tls) {
		argv[nr++] = "--cert-file";
		argv[nr++] = cert;
		argv[nr++] = "--key-file";
		argv[nr++] = key;
	}
	if (e->client_certs) {
		argv[nr++] = "--client-cert-auth";
		argv[nr++] = "--trusted-ca-file";
		argv[nr++] = ca;
	}
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

static bool etcd_answers(void *ctx)
{
	char out[1024];

	/* one that asks who that is answers, too */
	return !test_etcdctl(ctx, out, sizeof(out), "endpoint", "health", NULL) ||
	       strstr(out, "user name is empty");
}

void test_etcd_launch(struct test_etcd *e)
{
	const pid_t self = getpid();

	snprintf(e->url, sizeof(e->url), "%s://%s:%u", e->tls ? "https" : "http", e->addr, e->port);
	e->pid = fork();
	assert_true(e->pid >= 0);
	if (!e->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != self)
			_exit(127);
		test_ns_enter(e->ns);
		etcd_exec(e);
	}
}

void test_etcd_start(struct test_etcd *e)
{
	test_etcd_launch(e);
	if (!test_until(START_MS, etcd_answers, e))
		fail_msg("etcd does not start: see %s/log", e->dir);
}

void test_etcd_kill(struct test_etcd *e)
{
	if (!e->pid)
		return;
	kill(e->pid, SIGKILL);
	waitpid(e->pid, NULL, 0);
	e->pid = 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void test_tree_remove(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void test_etcd_wipe(struct test_etcd *e)
{
	char data[96];

	snprintf(data, sizeof(data), "%s/data", e->dir);
	test_tree_remove(data);
}

void test_etcd_fini(struct test_etcd *e)
{
	test_etcd_kill(e);
	if (e->dir[0])
		test_tree_remove(e->dir);
	e->dir[0] = 0;
}

/* ---- its command line, and openssl's ---- */

/* Return: exit status; what it printed is in @out */
static int run_program(const struct test_etcd *e, const char *const argv[], const char *dir,
		       char *out, size_t out_len)
{
	size_t used = 0;
	char waste[256];
	int fds[2], status;
	ssize_t got;
	pid_t pid;

	assert_false(pipe2(fds, O_CLOEXEC));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		test_ns_enter(e->ns);
		setenv("ETCDCTL_API", "3", 1);
		if (dir && chdir(dir))
			_exit(127);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(fds[1]);
	while ((got = read(fds[0], out && used + 1 < out_len ? out + used : waste,
			   out && used + 1 < out_len ? out_len - 1 - used : sizeof(waste))) > 0)
		used += (size_t)got;
	close(fds[0]);
	if (out && out_len)
		out[used < out_len ? used : out_len - 1] = 0;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int test_etcdctl(const struct test_etcd *e, char *out, size_t out_len, ...)
{
	const char *argv[32] = { "etcdctl",	      "--endpoints", e->url,
				 "--command-timeout", "5s",	     "--insecure-skip-tls-verify" };
	char ca[96], cert[96], key[96];
	unsigned nr = 6;
	va_list ap;

	snprintf(ca, sizeof(ca), "%s/ca.pem", e->dir);
	snprintf(cert, sizeof(cert), "%s/client.pem", e->dir);
	snprintf(key, sizeof(key), "%s/client.key", e->dir);
	if (e->tls) {
		argv[nr++] = "--cacert";
		argv[nr++] = ca;
	}
	if (e->client_certs) {
		argv[nr++] = "--cert";
		argv[nr++] = cert;
		argv[nr++] = "--key";
		argv[nr++] = key;
	}
	va_start(ap, out_len);
	while (nr < WFI_ARRAY_SIZE(argv) - 1 && (argv[nr] = va_arg(ap, const char *)))
		nr++;
	va_end(ap);
	argv[nr] = NULL;
	return run_program(e, argv, NULL, out, out_len);
}

bool test_etcd_certs(struct test_etcd *e)
{
	static const char script[] =
		"set -e\n"
		"ca() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		"-days 2 -subj /CN=$1 -keyout $1.key -out $1.pem; }\n"
		"sign() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		"-subj /CN=$2 -keyout $2.key -out $2.csr\n"
		"printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' "
		">ext\n"
		"openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -days 2 "
		"-extfile ext -out $2.pem; }\n"
		"ca ca; ca wrong; sign ca server; sign ca client; sign wrong other\n";
	const char *argv[] = { "sh", "-c", script, NULL };
	char out[4096];

	if (!in_path("openssl"))
		return false;
	if (run_program(e, argv, e->dir, out, sizeof(out)))
		fail_msg("openssl: %s", out);
	return true;
}
