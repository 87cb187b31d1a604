/* SPDX-License-Identifier: Apache-2.0 */
/* the outside world: Linux */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/os.h"
#include "weft_internal/log.h"

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * WFI_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t real_now_ns(struct wfi_env *env)
{
	(void)env;
	return read_clock(CLOCK_MONOTONIC);
}

static uint64_t real_wall_ns(struct wfi_env *env)
{
	(void)env;
	return read_clock(CLOCK_REALTIME);
}

static const struct wfi_clock_ops real_clock = {
	.now_ns = real_now_ns,
	.wall_ns = real_wall_ns,
};

static int real_bytes(struct wfi_env *env, void *buf, size_t len)
{
	size_t done = 0;
	ssize_t ret;

	(void)env;
	while (done < len) {
		ret = getrandom((char *)buf + done, len - done, 0);
		if (ret < 0 && errno != EINTR) {
			ret = -errno;
			wfi_err("getrandom: %s; a seccomp filter may forbid it", strerror(errno));
			return (int)ret;
		}
		if (ret > 0)
			done += (size_t)ret;
	}
	return 0;
}

static const struct wfi_rng_ops real_rng = {
	.bytes = real_bytes,
};

void *wfi_os_alloc(size_t len)
{
	const size_t padded = wfi_align_up(len ? len : 1, WFI_CACHELINE);
	void *ptr;

	if (len > PTRDIFF_MAX - WFI_CACHELINE)
		return NULL;
	ptr = aligned_alloc(WFI_CACHELINE, padded);
	if (ptr)
		memset(ptr, 0, padded);
	return ptr;
}

static void *real_alloc(struct wfi_env *env, size_t len)
{
	(void)env;
	return wfi_os_alloc(len);
}

static void real_free(struct wfi_env *env, void *ptr, size_t len)
{
	(void)env;
	(void)len;
	free(ptr);
}

static int real_map(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	(void)env;
	return wfi_os_map(len, flags, out);
}

static void real_unmap(struct wfi_env *env, struct wfi_map *map)
{
	(void)env;
	wfi_os_unmap(map);
}

static void real_map_begin(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	(void)env;
	wfi_os_map_begin(len, flags, out);
}

static void real_populate(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len)
{
	(void)env;
	wfi_os_populate(map, off, len);
}

static size_t real_populated(struct wfi_env *env, struct wfi_map *map)
{
	(void)env;
	return wfi_os_populated(map);
}

static void real_unmap_begin(struct wfi_env *env, struct wfi_map *map)
{
	(void)env;
	wfi_os_unmap_begin(map);
}

static int real_discard(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len)
{
	(void)env;
	return wfi_os_discard(map, off, len);
}

static const struct wfi_alloc_ops real_mem = {
	.alloc = real_alloc,
	.free = real_free,
	.map = real_map,
	.unmap = real_unmap,
	.map_begin = real_map_begin,
	.populate = real_populate,
	.populated = real_populated,
	.unmap_begin = real_unmap_begin,
	.discard = real_discard,
};

static int unwired_members(struct wfi_env *env, struct wfi_member *out, unsigned max,
			   uint64_t *epoch)
{
	(void)env;
	(void)out;
	(void)max;
	(void)epoch;
	return -EOPNOTSUPP;
}

static uint64_t unwired_changes(struct wfi_env *env)
{
	(void)env;
	return 0;
}

static int unwired_publish(struct wfi_env *env, const struct wfi_member *self)
{
	(void)env;
	(void)self;
	return -EOPNOTSUPP;
}

static const struct wfi_membership_ops unwired_membership = {
	.members = unwired_members,
	.changes = unwired_changes,
	.publish = unwired_publish,
};

static const struct weft_transport *const no_transports[] = { NULL };

int wfi_env_real_init(struct wfi_env *env)
{
	*env = (struct wfi_env){
		.clock = &real_clock,
		.rng = &real_rng,
		.mem = &real_mem,
		.disk = &wfi_os_disk_ops,
		.membership = &unwired_membership,
		.transports = no_transports,
	};
	return 0;
}
