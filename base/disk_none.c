/* SPDX-License-Identifier: Apache-2.0 */
/* stub twin of disk_uring.c, for builds without liburing */
#include "base/os.h"
#include "weft_internal/log.h"

static int none_open(struct wfi_env *env, const char *path, uint64_t len, struct wfi_disk **out)
{
	(void)env;
	(void)len;
	(void)out;
	wfi_err("%s: built without liburing, so there is no disk tier", path);
	return -EOPNOTSUPP;
}

static int none_read(struct wfi_disk *disk, uint64_t off, void *buf, size_t len, uint64_t cookie)
{
	(void)disk;
	(void)off;
	(void)buf;
	(void)len;
	(void)cookie;
	return -EOPNOTSUPP;
}

static int none_write(struct wfi_disk *disk, uint64_t off, const void *buf, size_t len,
		      uint64_t cookie)
{
	(void)disk;
	(void)off;
	(void)buf;
	(void)len;
	(void)cookie;
	return -EOPNOTSUPP;
}

static int none_lend(struct wfi_disk *disk, void *addr, uint64_t len)
{
	(void)disk;
	(void)addr;
	(void)len;
	return -EOPNOTSUPP;
}

static int none_resize(struct wfi_disk *disk, uint64_t len)
{
	(void)disk;
	(void)len;
	return -EOPNOTSUPP;
}

static int none_poll(struct wfi_disk *disk, uint64_t *cookies, int64_t *res, unsigned max)
{
	(void)disk;
	(void)cookies;
	(void)res;
	(void)max;
	return 0;
}

static void none_close(struct wfi_disk *disk)
{
	(void)disk;
}

const struct wfi_disk_ops wfi_os_disk_ops = {
	.open = none_open,
	.read = none_read,
	.write = none_write,
	.lend = none_lend,
	.resize = none_resize,
	.poll = none_poll,
	.close = none_close,
};
