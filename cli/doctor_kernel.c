/* SPDX-License-Identifier: Apache-2.0 */
/* what the kernel allows, tried out, and which transports can run on it */
#include <dirent.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>
#include "cli/doctor.h"
#include "weft_internal/copy.h"
#include "weft_internal/env.h"
#include "weft_internal/transport_registry.h"

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static const uint64_t probe_word = 0x74666577; /* in the child, too: at the same address */

void wfi_check_ptrace(struct wfi_finding *f)
{
	char scope[16];

	if (!wfi_doctor_line("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof(scope)) ||
	    scope[0] == '0')
		wfi_found(f, WFI_HEALTH_OK, NULL,
			  "not restricted: the node may copy from engines "
			  "of its own user");
	else if (scope[0] == '1')
		wfi_found(f, WFI_HEALTH_OK, NULL,
			  "1: engines allow the node with PR_SET_PTRACER, libweft does so");
	else
		wfi_found(f, WFI_HEALTH_WARN,
			  "sysctl kernel.yama.ptrace_scope=1, or let engines register memfds",
			  "%s: the node cannot copy from private memory of engines", scope);
}

void wfi_check_memfd(struct wfi_finding *f)
{
	const int fd = memfd_create("weft-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, 4096) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		wfi_found(f, WFI_HEALTH_FAIL, "a kernel from 3.17 on; seccomp must allow it", "%s",
			  strerror(errno));
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "with seals");
	if (fd >= 0)
		close(fd);
}

void wfi_check_futex_waitv(struct wfi_finding *f)
{
	/* no futexes: -EINVAL from a kernel that knows the call */
	if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == EINVAL)
		wfi_found(f, WFI_HEALTH_OK, NULL, "there");
	else
		wfi_found(f, WFI_HEALTH_WARN, "a kernel from 5.16 on; seccomp must allow it",
			  "%s: the node cannot sleep on all its rings at once", strerror(errno));
}

void wfi_check_pidfd(struct wfi_finding *f)
{
	const int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0) {
		wfi_found(f, WFI_HEALTH_WARN, "a kernel from 5.3 on; seccomp must allow it",
			  "%s: dying engines are noticed by their socket alone", strerror(errno));
		return;
	}
	close(fd);
	wfi_found(f, WFI_HEALTH_OK, NULL, "there");
}

/* a child that lets everybody look at it, and ends when @hold closes */
static pid_t start_child(const int ready[2], const int hold[2])
{
	const pid_t pid = fork();
	char c = 0;

	if (pid)
		return pid;
	close(ready[0]);
	close(hold[1]);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	if (write(ready[1], &c, 1) == 1 && read(hold[0], &c, 1) < 0)
		_exit(1);
	_exit(0);
}

/* Return: 0 when a word of a child's memory can be read, -errno */
static int process_vm_try(void)
{
	uint64_t got = 0;
	const struct iovec local = { &got, sizeof(got) };
	const struct iovec remote = { (void *)(uintptr_t)&probe_word, sizeof(probe_word) };
	int ready[2], hold[2], ret = 0;
	pid_t pid;
	char c;

	if (pipe2(ready, O_CLOEXEC))
		return -errno;
	if (pipe2(hold, O_CLOEXEC)) {
		ret = -errno;
		goto out_ready;
	}
	pid = start_child(ready, hold);
	if (pid < 0) {
		ret = -errno;
		goto out_hold;
	}
	close(ready[1]);
	ready[1] = -1;
	if (read(ready[0], &c, 1) != 1)
		ret = -EPIPE;
	else if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof(got))
		ret = -errno;
	else if (got != probe_word)
		ret = -EBADMSG;
	close(hold[1]);
	hold[1] = -1;
	waitpid(pid, NULL, 0);

out_hold:
	close(hold[0]);
	if (hold[1] >= 0)
		close(hold[1]);
out_ready:
	close(ready[0]);
	if (ready[1] >= 0)
		close(ready[1]);
	return ret;
}

void wfi_check_process_vm(struct wfi_finding *f)
{
	const int ret = process_vm_try();

	if (ret)
		wfi_found(f, WFI_HEALTH_WARN,
			  "seccomp (containers: --cap-add SYS_PTRACE) and Yama must allow it; "
			  "memfds work without it",
			  "%s: no copies from memory that cannot be mapped", strerror(-ret));
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "works, tried on a child");
}

void wfi_check_io_uring(struct wfi_finding *f)
{
	struct io_uring_params p = { 0 };
	const int fd = (int)syscall(SYS_io_uring_setup, 1, &p);

	if (fd >= 0) {
		close(fd);
		wfi_found(f, WFI_HEALTH_OK, NULL, "allowed");
		return;
	}
	wfi_found(f, WFI_HEALTH_WARN,
		  errno == EPERM ? "sysctl kernel.io_uring_disabled=0; seccomp must allow it"
				 : "a kernel from 5.1 on",
		  "%s: no tier on SSDs", strerror(errno));
}

void wfi_check_loop(struct wfi_finding *f)
{
	wfi_found(f, WFI_HEALTH_OK, NULL, "built in, for nodes inside one process");
}

void wfi_check_shm(struct wfi_finding *f)
{
	const struct wfi_copy_ops *ops;
	struct wfi_env env;
	uint32_t mib_per_s;

	if (wfi_env_real_init(&env)) {
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "built in, but there is no clock");
		return;
	}
	ops = wfi_copy_pick(&env, &mib_per_s);
	wfi_found(f, WFI_HEALTH_OK, NULL,
		  "built in, for nodes and engines of this host; large pieces go by \"%s\", "
		  "%u MiB/s just now",
		  ops->name, (unsigned)mib_per_s);
}

/* what the provider itself would say when a node opens it */
void wfi_check_verbs(struct wfi_finding *f)
{
	const struct weft_transport *t = wfi_transport_find(NULL, "verbs");
	struct weft_probe probe = { 0 };
	struct wfi_env env;
	int ret = t ? wfi_env_real_init(&env) : -EOPNOTSUPP;

	if (!ret)
		ret = t->probe(t, &env, &probe);
	if (ret == -EOPNOTSUPP)
		wfi_found(f, WFI_HEALTH_OK, NULL, "%s", t ? probe.why : "not built");
	else if (ret)
		wfi_found(f,
			  access("/sys/class/infiniband", F_OK) ? WFI_HEALTH_OK : WFI_HEALTH_WARN,
			  NULL, "%s", probe.why[0] ? probe.why : strerror(-ret));
	else if (probe.slow)
		wfi_found(f, WFI_HEALTH_WARN, NULL, "%u RDMA port%s; %s", probe.nr_devices,
			  probe.nr_devices == 1 ? "" : "s", probe.why);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "%u RDMA port%s", probe.nr_devices,
			  probe.nr_devices == 1 ? "" : "s");
}

/* those over whose speed opinions differ: how they stand is no warning */
static void check_soft(struct wfi_finding *f, const char *name)
{
	const struct weft_transport *t = wfi_transport_find(NULL, name);
	struct weft_probe probe = { 0 };
	struct wfi_env env;
	int ret = t ? wfi_env_real_init(&env) : -EOPNOTSUPP;

	if (!ret)
		ret = t->probe(t, &env, &probe);
	wfi_found(f, WFI_HEALTH_OK, NULL, "%s%s%s", ret ? "" : "built in",
		  !ret && probe.why[0] ? "; " : "", ret && !probe.why[0] ? "not built" : probe.why);
}

void wfi_check_ucx(struct wfi_finding *f)
{
	check_soft(f, "ucx");
}

void wfi_check_tcp(struct wfi_finding *f)
{
	check_soft(f, "tcp");
}

void wfi_check_dpdk(struct wfi_finding *f)
{
	wfi_found(f, WFI_HEALTH_OK, NULL, "not built");
}
