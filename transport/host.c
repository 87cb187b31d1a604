/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "transport/host.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define MAP_ALIGN_MAX (1ull << 30)
#define HUGE_BYTES (2ull << 20)

/* at an address where huge pages of the file can be mapped as such; @align: what the file asks
 * for */
static void *map_file(int fd, uint64_t off, uint64_t len, uint64_t align, int prot)
{
	uint64_t shift, slack = len >= HUGE_BYTES && align <= HUGE_BYTES ? HUGE_BYTES : 0;
	uint8_t *area, *at;
	void *map;
	int err;

	if (!slack)
		return mmap(NULL, len, prot, MAP_SHARED, fd, (off_t)off);
	area = mmap(NULL, len + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (area == MAP_FAILED)
		return MAP_FAILED;
	shift = (off - (uintptr_t)area) & (HUGE_BYTES - 1);
	at = area + shift;
	map = mmap(at, len, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)off);
	if (map == MAP_FAILED) {
		err = errno;
		munmap(area, len + slack);
		errno = err;
		return MAP_FAILED;
	}
	if (shift)
		munmap(area, shift);
	munmap(at + len, slack - shift);
	return map;
}

int wfi_view_map(struct wfi_view *view, int fd, uint64_t off, uint64_t len, bool writable)
{
	uint64_t align, from, to, end;
	struct stat st;
	int seals;
	void *map;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
		wfi_warn("refused a file of a peer: it is no memfd sealed with F_SEAL_SHRINK, "
			 "and could be truncated under our feet");
		return -EPERM;
	}
	/* sealed first, measured then: it can only have grown since */
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!len || wfi_add_overflows(off, len, &end) || end > (uint64_t)st.st_size)
		return -ERANGE;

	/* a file of huge pages wants offsets and lengths of whole ones */
	align = (uint64_t)st.st_blksize;
	if (!wfi_is_pow2(align) || align < 4096 || align > MAP_ALIGN_MAX)
		return -EINVAL;
	from = off & ~(align - 1);
	to = wfi_align_up(end, align);
	map = map_file(fd, from, to - from, align, writable ? PROT_READ | PROT_WRITE : PROT_READ);
	if (map == MAP_FAILED)
		return errno == EPERM ? -EACCES : -errno;
	if (wfi_guard_add(map, to - from)) {
		munmap(map, to - from);
		return -ENOSPC;
	}
	view->map = map;
	view->map_len = to - from;
	view->mem = (uint8_t *)map + (off - from);
	return 0;
}

void wfi_view_unmap(struct wfi_view *view)
{
	if (view->map) {
		wfi_guard_del(view->map);
		munmap(view->map, view->map_len);
	}
	memset(view, 0, sizeof(*view));
}

int wfi_view_check(const struct weft_mr_opts *o)
{
	struct wfi_view view = { 0 };
	int ret = wfi_view_map(&view, o->fd, o->fd_off, o->len, false);

	if (!ret)
		wfi_view_unmap(&view);
	return ret;
}

int wfi_reopen_ro(int fd)
{
	char path[32];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	if (ro < 0) {
		ro = -errno;
		wfi_err("can't open a memfd anew for reading: %s; is /proc mounted?",
			strerror(-ro));
	}
	return ro;
}

int wfi_fd_grant(int fd, uint32_t access)
{
	int ret;

	if (!(access & WEFT_ACCESS_REMOTE_WRITE))
		return wfi_reopen_ro(fd);
	ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return ret < 0 ? -errno : ret;
}

int wfi_pidfd_open(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}

int wfi_pidfd_pid(int pidfd)
{
	char path[48], text[512], *at;
	ssize_t len;
	long pid;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -EINVAL;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (len <= 0)
		return -EINVAL;
	text[len] = 0;
	at = strstr(text, "\nPid:");
	if (!at)
		return -EINVAL;
	pid = strtol(at + 5, NULL, 10);
	return pid > 0 ? (int)pid : -ESRCH;
}

int wfi_pidfd_alive(int pidfd)
{
	/* -EPERM says that there is a process */
	if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0 && errno == ESRCH)
		return -ESRCH;
	return 0;
}

bool wfi_pidfd_ended(int pidfd)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	return pidfd >= 0 && poll(&pfd, 1, 0) > 0;
}

int wfi_gens_init(struct wfi_gens *gens, struct wfi_env *env)
{
	int ret = env->mem->map(env, WFI_GENS * sizeof(uint32_t),
				WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT, &gens->map);

	if (ret)
		return ret;
	gens->ro_fd = wfi_reopen_ro(gens->map.fd);
	if (gens->ro_fd >= 0)
		return 0;
	env->mem->unmap(env, &gens->map);
	return gens->ro_fd;
}

void wfi_gens_fini(struct wfi_gens *gens, struct wfi_env *env)
{
	close(gens->ro_fd);
	env->mem->unmap(env, &gens->map);
}
