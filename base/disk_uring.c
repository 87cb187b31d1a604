/* SPDX-License-Identifier: Apache-2.0 */
/* disks of the real world: io_uring, past the page cache where the file system allows */
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "weft_internal/log.h"

/* requests under way; the completion queue has twice the room, so it never overflows */
#define DEPTH 64

struct uring_disk {
	struct wfi_disk base;
	struct wfi_env *env;
	struct io_uring ring;
	int fd;
	unsigned nr_flying; /* accepted and not yet reported, handed to the kernel or not */
};

static struct uring_disk *to_uring(struct wfi_disk *disk)
{
	return wfi_container_of(disk, struct uring_disk, base);
}

/* Return: fd, or -errno, logged */
static int file_open(const char *path)
{
	const int flags = O_RDWR | O_CREAT | O_CLOEXEC;
	int fd, ret;

	fd = open(path, flags | O_DIRECT, 0600);
	if (fd < 0 && errno == EINVAL) {
		wfi_warn("%s: this file system has no O_DIRECT: the page cache will hold a second "
			 "copy; a file on ext4 or xfs, or a block device, is better",
			 path);
		fd = open(path, flags, 0600);
	}
	if (fd < 0) {
		ret = -errno;
		wfi_err("%s: %s", path, strerror(-ret));
		return ret;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
		wfi_err("%s: cannot lock it: %s; one node a file", path, strerror(-ret));
		close(fd);
		return ret;
	}
	return fd;
}

/* Return: 0, or -errno, logged */
static int file_reserve(int fd, const char *path, uint64_t len)
{
	uint64_t have = 0;
	struct stat st;
	int ret = 0;

	if (fstat(fd, &st))
		ret = -errno;
	else if (S_ISREG(st.st_mode))
		/* blocks now, so that a full file system shows at the start and not at a write */
		ret = fallocate(fd, 0, 0, (off_t)len) ? -errno : 0;
	else if (!S_ISBLK(st.st_mode))
		ret = -EINVAL;
	else if (ioctl(fd, BLKGETSIZE64, &have))
		ret = -errno;
	else if (have < len)
		ret = -ENOSPC;
	if (ret == -EOPNOTSUPP && (uint64_t)st.st_size < len)
		ret = ftruncate(fd, (off_t)len) ? -errno : 0;
	if (ret)
		wfi_err("%s: no room for %llu bytes in it: %s", path, (unsigned long long)len,
			strerror(-ret));
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
	ret = file_reserve(disk->fd, path, len);
	if (ret)
		goto err_close;
	ret = io_uring_queue_init(DEPTH, &disk->ring, 0);
	if (ret) {
		wfi_err("io_uring: %s; see kernel.io_uring_disabled, seccomp and ulimit -l",
			strerror(-ret));
		goto err_close;
	}
	*out = &disk->base;
	return 0;

err_close:
	close(disk->fd);
err_free:
	env->mem->free(env, disk, sizeof(*disk));
	return ret;
}

/* Return: 0 and the entry to fill in, or why not */
static int uring_claim(struct wfi_disk *base, uint64_t off, const void *buf, size_t len,
		       struct io_uring_sqe **out)
{
	struct uring_disk *disk = to_uring(base);
	struct io_uring_sqe *sqe;
	int ret;

	ret = wfi_disk_check(base, off, buf, len);
	if (ret)
		return ret;
	if (disk->nr_flying == DEPTH)
		return -EAGAIN;
	sqe = io_uring_get_sqe(&disk->ring);
	if (!sqe)
		return -EAGAIN;
	disk->nr_flying++;
	*out = sqe;
	return 0;
}

static int uring_read(struct wfi_disk *base, uint64_t off, void *buf, size_t len, uint64_t cookie)
{
	struct io_uring_sqe *sqe;
	int ret;

	ret = uring_claim(base, off, buf, len, &sqe);
	if (ret)
		return ret;
	io_uring_prep_read(sqe, to_uring(base)->fd, buf, (unsigned)len, off);
	io_uring_sqe_set_data64(sqe, cookie);
	return 0;
}

static int uring_write(struct wfi_disk *base, uint64_t off, const void *buf, size_t len,
		       uint64_t cookie)
{
	struct io_uring_sqe *sqe;
	int ret;

	ret = uring_claim(base, off, buf, len, &sqe);
	if (ret)
		return ret;
	io_uring_prep_write(sqe, to_uring(base)->fd, buf, (unsigned)len, off);
	io_uring_sqe_set_data64(sqe, cookie);
	return 0;
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
	io_uring_queue_exit(&disk->ring);
	close(disk->fd);
	disk->env->mem->free(disk->env, disk, sizeof(*disk));
}

const struct wfi_disk_ops wfi_os_disk_ops = {
	.open = uring_open,
	.read = uring_read,
	.write = uring_write,
	.poll = uring_poll,
	.close = uring_close,
};
