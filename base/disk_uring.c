/* SPDX-License-Identifier: Apache-2.0 */
/* disks of the real world: io_uring, past the page cache where the file system allows */
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "weft_internal/log.h"

/* requests under way; the completion queue has twice the room, so it never overflows */
#define DEPTH 64
#define LOCK_TRIES 50u
#define LOCK_PAUSE_NS 10000000
#define NR_LENT 256u
#define LENT_MAX (1ull << 30) /* bytes of one buffer, as the kernel has it */

struct lent {
	uintptr_t addr;
	uint64_t len;
};

struct uring_disk {
	struct wfi_disk base;
	struct wfi_env *env;
	struct io_uring ring;
	int fd;
	bool file_known; /* registered, as file 0 */
	bool is_block;
	unsigned nr_lent; /* registered buffers, by their number */
	struct lent lent[NR_LENT];
	unsigned nr_flying; /* accepted and not yet reported, handed to the kernel or not */
};

static struct uring_disk *to_uring(struct wfi_disk *disk)
{
	return wfi_container_of(disk, struct uring_disk, base);
}

/*
 * One node a file. A node that was killed lets go of it only when the kernel has taken its ring
 * apart, in the background: who finds it taken looks again. Return: false when that was all
 */
static bool look_again(unsigned *tries)
{
	const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };

	if (++*tries == LOCK_TRIES)
		return false;
	nanosleep(&pause, NULL);
	return true;
}

static int file_lock(int fd)
{
	unsigned tries = 0;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK)
			return -errno;
		if (!look_again(&tries))
			return -EBUSY;
	}
	return 0;
}

/* a device is had alone: one that is mounted is not written to. Return: fd, or -1 and errno */
static int file_try(const char *path, int flags)
{
	unsigned tries = 0;
	struct stat st;
	int fd;

	if (!stat(path, &st) && S_ISBLK(st.st_mode))
		flags = (flags & ~O_CREAT) | O_EXCL;
	do
		fd = open(path, flags, 0600);
	while (fd < 0 && errno == EBUSY && look_again(&tries));
	return fd;
}

/* Return: fd, or -errno, logged */
static int file_open(const char *path)
{
	const int flags = O_RDWR | O_CREAT | O_CLOEXEC;
	int fd, ret;

	fd = file_try(path, flags | O_DIRECT);
	if (fd < 0 && errno == EINVAL) {
		wfi_warn("%s: this file system has no O_DIRECT: the page cache will hold a second "
			 "copy; a file on ext4 or xfs, or a block device, is better",
			 path);
		fd = file_try(path, flags);
	}
	if (fd < 0) {
		ret = -errno;
		wfi_err("%s: %s", path,
			ret == -EBUSY ? "the device is mounted, or another node has it"
				      : strerror(-ret));
		return ret;
	}
	ret = file_lock(fd);
	if (ret) {
		wfi_err("%s: cannot lock it: %s; one node a file", path, strerror(-ret));
		close(fd);
		return ret;
	}
	return fd;
}

/* Return: 0, or -errno and the file is as it was */
static int file_reserve(int fd, uint64_t len, bool *is_block)
{
	uint64_t have = 0;
	struct stat st;
	int ret = 0;

	if (fstat(fd, &st))
		ret = -errno;
	else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size >= len)
		ret = 0; /* walking through a large file's extents takes long */
	else if (S_ISREG(st.st_mode))
		/* blocks now, so that a full file system shows at the start and not at a write */
		ret = fallocate(fd, 0, 0, (off_t)len) ? -errno : 0;
	else if (!S_ISBLK(st.st_mode))
		ret = -EINVAL;
	else if (ioctl(fd, BLKGETSIZE64, &have))
		ret = -errno;
	else if (have < len)
		ret = -ENOSPC;
	*is_block = have != 0;
	if (ret == -EOPNOTSUPP && (uint64_t)st.st_size < len)
		ret = ftruncate(fd, (off_t)len) ? -errno : 0;
	/* some file systems keep what they had found when they were full */
	if (ret && !have && S_ISREG(st.st_mode) && ftruncate(fd, st.st_size))
		wfi_warn("a file keeps what it took and is no use: %s", strerror(errno));
	return ret;
}

static int uring_open(struct wfi_env *env, const char *path, uint64_t len, struct wfi_disk **out)
{
	struct uring_disk *disk;
	int ret;

	if (!len || len % WFI_DISK_ALIGN || len > INT64_MAX)
		return -EINVAL;
	disk = env->mem->alloc(env, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	disk->base.len = len;
	disk->env = env;
	ret = file_open(path);
	if (ret < 0)
		goto err_free;
	disk->fd = ret;
	ret = file_reserve(disk->fd, len, &disk->is_block);
	if (ret)
		wfi_err("%s: no room for %llu bytes in it: %s", path, (unsigned long long)len,
			strerror(-ret));
	if (ret)
		goto err_close;
	ret = io_uring_queue_init(DEPTH, &disk->ring, 0);
	if (ret) {
		wfi_err("io_uring: %s; see kernel.io_uring_disabled, seccomp and ulimit -l",
			strerror(-ret));
		goto err_close;
	}
	/* each request then finds the file without counting references to it */
	disk->file_known = !io_uring_register_files(&disk->ring, &disk->fd, 1);
	if (io_uring_register_buffers_sparse(&disk->ring, NR_LENT))
		disk->nr_lent = NR_LENT;
	*out = &disk->base;
	return 0;

err_close:
	close(disk->fd);
err_free:
	env->mem->free(env, disk, sizeof(*disk));
	return ret;
}

/* Return: number of the lent buffer that all of these bytes are in, or -1 */
static int lent_find(const struct uring_disk *disk, const void *buf, size_t len)
{
	const uintptr_t addr = (uintptr_t)buf;

	for (unsigned i = 0; i < disk->nr_lent; i++)
		if (disk->lent[i].len && addr >= disk->lent[i].addr &&
		    wfi_range_ok(addr - disk->lent[i].addr, len, disk->lent[i].len))
			return (int)i;
	return -1;
}

static int uring_queue(struct wfi_disk *base, uint64_t off, void *buf, size_t len, uint64_t cookie,
		       bool write)
{
	struct uring_disk *disk = to_uring(base);
	const int fd = disk->file_known ? 0 : disk->fd;
	struct io_uring_sqe *sqe;
	int ret, lent;

	ret = wfi_disk_check(base, off, buf, len);
	if (ret)
		return ret;
	if (disk->nr_flying == DEPTH)
		return -EAGAIN;
	sqe = io_uring_get_sqe(&disk->ring);
	if (!sqe)
		return -EAGAIN;
	disk->nr_flying++;
	lent = lent_find(disk, buf, len);
	if (write && lent >= 0)
		io_uring_prep_write_fixed(sqe, fd, buf, (unsigned)len, off, lent);
	else if (write)
		io_uring_prep_write(sqe, fd, buf, (unsigned)len, off);
	else if (lent >= 0)
		io_uring_prep_read_fixed(sqe, fd, buf, (unsigned)len, off, lent);
	else
		io_uring_prep_read(sqe, fd, buf, (unsigned)len, off);
	if (disk->file_known)
		sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(sqe, cookie);
	return 0;
}

static int uring_read(struct wfi_disk *base, uint64_t off, void *buf, size_t len, uint64_t cookie)
{
	return uring_queue(base, off, buf, len, cookie, false);
}

static int uring_write(struct wfi_disk *base, uint64_t off, const void *buf, size_t len,
		       uint64_t cookie)
{
	return uring_queue(base, off, (void *)(uintptr_t)buf, len, cookie, true);
}

static int uring_lend(struct wfi_disk *base, void *addr, uint64_t len)
{
	struct uring_disk *disk = to_uring(base);
	uint64_t done, part;
	int ret;

	for (done = 0; done < len; done += part) {
		struct iovec vec = { .iov_base = (char *)addr + done };
		const __u64 tag = 0;

		part = wfi_min(len - done, LENT_MAX);
		vec.iov_len = part;
		if (disk->nr_lent == NR_LENT)
			return -ENOSPC;
		ret = io_uring_register_buffers_update_tag(&disk->ring, disk->nr_lent, &vec, &tag,
							   1);
		if (ret < 0) {
			wfi_warn("io_uring: %llu bytes cannot be registered: %s; each request pins "
				 "its pages then, which is slower: raise ulimit -l",
				 (unsigned long long)len, strerror(-ret));
			return ret;
		}
		disk->lent[disk->nr_lent++] = (struct lent){ (uintptr_t)addr + done, part };
	}
	return 0;
}

static int uring_resize(struct wfi_disk *base, uint64_t len)
{
	struct uring_disk *disk = to_uring(base);
	bool is_block;
	int ret = 0;

	if (!len || len % WFI_DISK_ALIGN || len > INT64_MAX)
		return -EINVAL;
	if (len > base->len)
		ret = file_reserve(disk->fd, len, &is_block);
	else if (len < base->len && !disk->is_block && ftruncate(disk->fd, (off_t)len))
		ret = -errno;
	if (!ret)
		base->len = len;
	return ret;
}

static int uring_poll(struct wfi_disk *base, uint64_t *cookies, int64_t *res, unsigned max)
{
	struct uring_disk *disk = to_uring(base);
	struct io_uring_cqe *cqe;
	unsigned nr = 0;

	/* what the kernel does not take now stays queued for the next poll */
	if (io_uring_sq_ready(&disk->ring))
		io_uring_submit(&disk->ring);
	while (nr < max && !io_uring_peek_cqe(&disk->ring, &cqe)) {
		cookies[nr] = cqe->user_data;
		res[nr] = cqe->res;
		io_uring_cqe_seen(&disk->ring, cqe);
		nr++;
	}
	disk->nr_flying -= nr;
	return (int)nr;
}

static void uring_close(struct wfi_disk *base)
{
	struct uring_disk *disk;
	struct io_uring_cqe *cqe;

	if (!base)
		return;
	disk = to_uring(base);
	/* what was never submitted touches nobody's memory; the kernel is done with the rest
	 * first */
	disk->nr_flying -= io_uring_sq_ready(&disk->ring);
	while (disk->nr_flying) {
		if (io_uring_wait_cqe(&disk->ring, &cqe))
			continue;
		io_uring_cqe_seen(&disk->ring, cqe);
		disk->nr_flying--;
	}
	/* the ring keeps the file for a while after this */
	flock(disk->fd, LOCK_UN);
	io_uring_queue_exit(&disk->ring);
	close(disk->fd);
	disk->env->mem->free(disk->env, disk, sizeof(*disk));
}

const struct wfi_disk_ops wfi_os_disk_ops = {
	.open = uring_open,
	.read = uring_read,
	.write = uring_write,
	.lend = uring_lend,
	.resize = uring_resize,
	.poll = uring_poll,
	.close = uring_close,
};
