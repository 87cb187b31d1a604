/* SPDX-License-Identifier: Apache-2.0 */
/* member_file.c - members from a file, which is read anew when it changes */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvcache/cluster/member_private.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define LOOK_MS 2000 /* where no event tells of a change: network file systems */

struct file {
	char path[4096];
	int watch_fd;
	struct stat seen;
	int seen_errno;
	uint64_t loads;
	char buf[MEMBER_STORE_MAX + 1];
	struct member_file parsed;
};

/* Return: bytes in .buf, or -errno */
static ssize_t file_read(struct file *f, int fd)
{
	size_t used = 0;
	ssize_t len;

	do {
		len = read(fd, f->buf + used, sizeof(f->buf) - used);
		if (len > 0)
			used += (size_t)len;
	} while (len > 0 && used < sizeof(f->buf));
	if (len < 0)
		return -errno;
	return used > MEMBER_STORE_MAX ? -EFBIG : (ssize_t)used;
}

/* Return: whether it is another than before, and @fd is its, or -errno */
static bool file_changed(struct file *f, int *fd)
{
	struct stat st;
	bool same;
	int err;

	memset(&st, 0, sizeof(st));
	/* not to wait for one who writes to what is a pipe */
	*fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		*fd = -errno;
	else if (fstat(*fd, &st))
		st.st_ino = 0;
	err = *fd < 0 ? -*fd : 0;
	same = f->loads && err == f->seen_errno && st.st_ino == f->seen.st_ino &&
	       st.st_dev == f->seen.st_dev && st.st_size == f->seen.st_size &&
	       !memcmp(&st.st_mtim, &f->seen.st_mtim, sizeof(st.st_mtim));
	f->seen = st;
	f->seen_errno = err;
	return !same;
}

static void file_apply(struct wfi_members *m, struct file *f)
{
	unsigned i;

	members_lock(m);
	(void)wfi_member_view_load(&m->view, f->parsed.members, f->parsed.nr, f->loads, 0);
	members_values_set(m, f->parsed.values);
	members_state(m, WFI_MEMBERS_OK, "");
	for (i = 0; i < f->parsed.nr && m->has_self; i++)
		if (!strcmp(f->parsed.members[i].name, m->self.name))
			break;
	if (m->has_self && i == f->parsed.nr)
		members_state(m, WFI_MEMBERS_REFUSED,
			      "the file does not name this node: add it, or it is no member");
	members_unlock(m);
}

static void file_bad(struct wfi_members *m, const struct file *f, bool is_news, const char *why)
{
	if (is_news)
		wfi_warn("membership: %s: %s; what was known stays", f->path, why);
	members_lock(m);
	members_state(m, m->values ? WFI_MEMBERS_AWAY : WFI_MEMBERS_CONNECTING, why);
	members_unlock(m);
}

static void file_load(struct wfi_members *m, bool again)
{
	struct file *f = m->store;
	char why[256];
	ssize_t len;
	bool is_news;
	int fd;

	is_news = file_changed(f, &fd);
	if (!is_news && !again) {
		if (fd >= 0)
			close(fd);
		return;
	}
	f->loads++;
	len = fd < 0 ? fd : file_read(f, fd);
	if (fd >= 0)
		close(fd);
	if (len < 0)
		file_bad(m, f, is_news, strerror((int)-len));
	else if (member_file_decode(f->buf, (size_t)len, &f->parsed, why, sizeof(why)))
		file_bad(m, f, is_news, why);
	else
		file_apply(m, f);
}

static void file_run(struct wfi_members *m)
{
	struct file *f = m->store;
	struct pollfd fds[2] = { { .fd = m->wake_fd, .events = POLLIN },
				 { .fd = f->watch_fd, .events = POLLIN } };
	char events[4096];
	bool again = false;
	uint64_t n;

	while (!atomic_load_explicit(&m->stop, memory_order_relaxed)) {
		file_load(m, again);
		poll(fds, f->watch_fd < 0 ? 1 : 2, LOOK_MS);
		/* what this node says of itself decides whether the file names it */
		again = read(m->wake_fd, &n, sizeof(n)) > 0;
		while (f->watch_fd >= 0 && read(f->watch_fd, events, sizeof(events)) > 0)
			;
	}
}

/* the folder, not the file: editors and orchestrators put new files in its place */
static int folder_watch(const char *path)
{
	char copy[4096];
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	snprintf(copy, sizeof(copy), "%s", path);
	if (fd >= 0 && inotify_add_watch(fd, dirname(copy),
					 IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
						 IN_CREATE) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

int member_file_open(struct wfi_members *m, const struct wfi_members_opts *opts)
{
	struct file *f = wfi_alloc(m->env, sizeof(*f));

	if (!f)
		return -ENOMEM;
	m->store = f;
	m->run = file_run;
	snprintf(f->path, sizeof(f->path), "%s", opts->file);
	snprintf(m->status.where, sizeof(m->status.where), "%s", opts->file);
	f->watch_fd = folder_watch(f->path);
	return 0;
}

void member_file_close(struct wfi_members *m)
{
	struct file *f = m->store;

	if (!f)
		return;
	if (f->watch_fd >= 0)
		close(f->watch_fd);
	wfi_free(m->env, f, sizeof(*f));
}
