/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UCX takes a peer's address apart without a look at its length, and aborts over what it does not
 * like. So a child has the first look: it can open nothing and say nothing, and if it dies of it,
 * that is the peer's loss. Not for RDMA, whose queues a child may not touch.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "transport/ucx/ucx.h"
#include "weft_internal/log.h"

#define TRIAL_MS 1000 /* it takes one or two */
#define TRIALS 3u

bool wfi_ucx_trial_possible(const char *tls)
{
	static const char *const harmless[] = { "tcp", "posix", "sysv", "self", NULL };

	return wfi_ucx_tls_among(tls, harmless);
}

static void child(const struct wfi_ucx_device *dev, const ucp_ep_params_t *params)
{
	const struct rlimit none = { 0, 0 };
	int null = open("/dev/null", O_RDWR);
	ucp_ep_h ep;
	int i;

	for (i = 0; i < 3; i++)
		dup2(null, i);
	signal(SIGABRT, SIG_DFL);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	if (setrlimit(RLIMIT_CORE, &none) || setrlimit(RLIMIT_NOFILE, &none))
		_exit(1);
	/* whether it connects does not matter: without files it can't */
	dev->ucp->ucp_ep_create(dev->worker, params, &ep);
	_exit(0);
}

/* Return: 0 @pid came to its end, and well; -EINVAL it died; -EAGAIN it came to no end */
static int verdict(pid_t pid)
{
	struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	bool ended = p.fd >= 0 && poll(&p, 1, TRIAL_MS) == 1;
	int status;

	if (!ended)
		kill(pid, SIGKILL);
	if (p.fd >= 0)
		close(p.fd);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -EINVAL;
	if (!ended)
		return -EAGAIN;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EINVAL;
}

int wfi_ucx_trial(const struct wfi_ucx_device *dev, const ucp_ep_params_t *params)
{
	int ret = -EAGAIN;
	unsigned i;
	pid_t pid;

	if (!dev->tries)
		return 0;
	/* one that the fork has left with a lock of another thread's says nothing */
	for (i = 0; i < TRIALS && ret == -EAGAIN; i++) {
		pid = fork();
		if (pid < 0)
			return -errno;
		if (!pid)
			child(dev, params);
		ret = verdict(pid);
	}
	if (!ret)
		return 0;
	wfi_warn("ucx: a peer's address is none that UCX can read: refused");
	return -EINVAL;
}
