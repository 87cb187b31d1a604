/* SPDX-License-Identifier: Apache-2.0 */
/* the environment tables: what the real world and the simulated one promise */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "weft_internal/env.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

#define MIB (1ul << 20)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define DISK_LEN (1ul << 20)
#define PAGE WFI_DISK_ALIGN
#define PPM_ALWAYS 1000000u

static void discard_line(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static int quiet(void **ctx)
{
	(void)ctx;
	wfi_log_set_sink(discard_line, NULL);
	return 0;
}

static struct wfi_env real_env(void)
{
	struct wfi_env env;

	assert_int_equal(wfi_env_real_init(&env), 0);
	return env;
}

static void test_real_clock(void **ctx)
{
	struct wfi_env env = real_env();
	uint64_t last = wfi_now(&env), now;
	unsigned idx;

	(void)ctx;
	for (idx = 0; idx < 1000; idx++, last = now) {
		now = wfi_now(&env);
		assert_true(now >= last);
	}
	/* after 2020 */
	assert_true(env.clock->wall_ns(&env) > 1577836800ull * WFI_NSEC_PER_SEC);
}

static void test_real_rng(void **ctx)
{
	struct wfi_env env = real_env();
	unsigned char a[300] = { 0 }, b[300] = { 0 };

	(void)ctx;
	assert_int_equal(env.rng->bytes(&env, a, sizeof(a)), 0);
	assert_int_equal(env.rng->bytes(&env, b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_int_equal(env.rng->bytes(&env, a, 0), 0);
}

static void check_alloc(struct wfi_env *env)
{
	static const size_t lens[] = { 0, 1, 63, 64, 65, 100000 };
	unsigned char *ptr;
	size_t idx, at;

	for (idx = 0; idx < WFI_ARRAY_SIZE(lens); idx++) {
		ptr = wfi_alloc(env, lens[idx]);
		assert_non_null(ptr);
		assert_int_equal((uintptr_t)ptr % WFI_CACHELINE, 0);
		for (at = 0; at < lens[idx]; at++)
			assert_int_equal(ptr[at], 0);
		wfi_free(env, ptr, lens[idx]);
	}
	wfi_free(env, NULL, 0);
	assert_null(wfi_alloc(env, SIZE_MAX));
	assert_null(wfi_alloc(env, SIZE_MAX - WFI_CACHELINE));
}

static void test_real_alloc(void **ctx)
{
	struct wfi_env env = real_env();

	(void)ctx;
	check_alloc(&env);
}

static void test_unwired(void **ctx)
{
	struct wfi_env env = real_env();
	struct wfi_member member;
	uint64_t epoch;

	(void)ctx;
	assert_null(env.transports[0]);
	assert_int_equal(env.membership->members(&env, &member, 1, &epoch), -EOPNOTSUPP);
	assert_int_equal(env.membership->changes(&env), 0);
	assert_int_equal(env.membership->publish(&env, NULL), -EOPNOTSUPP);
}

static void check_map(struct wfi_env *env, size_t len, unsigned flags)
{
	struct wfi_map map = { 0 };

	assert_int_equal(env->mem->map(env, len, flags, &map), 0);
	assert_true(map.len >= len);
	assert_int_equal(map.len % map.page_bytes, 0);
	assert_true(map.page_bytes == (size_t)sysconf(_SC_PAGESIZE) || map.page_bytes == 2 * MIB);
	assert_int_equal((uintptr_t)map.addr % map.page_bytes, 0);
	assert_int_equal(map.fd >= 0, !!(flags & WFI_MAP_SHARED_FD));
	memset(map.addr, 0x5a, map.len);
	env->mem->unmap(env, &map);
	assert_null(map.addr);
	env->mem->unmap(env, &map);
}

static void test_map_flags(void **ctx)
{
	struct wfi_env env = real_env();
	unsigned flags;

	(void)ctx;
	for (flags = 0; flags < 2 * WFI_MAP_FD_READERS; flags++) {
		check_map(&env, 1, flags);
		check_map(&env, 5 * MIB + 1, flags);
	}
}

static void wait_populated(struct wfi_env *env, struct wfi_map *map)
{
	while (env->mem->populated(env, map) != SIZE_MAX)
		sched_yield();
	/* asked again, it says so again */
	assert_true(env->mem->populated(env, map) == SIZE_MAX);
}

static void check_populate(struct wfi_env *env, size_t len, bool wait)
{
	struct wfi_map map = { 0 };
	char *bytes;

	assert_int_equal(env->mem->map(env, len, WFI_MAP_HUGE | WFI_MAP_SPARSE, &map), 0);
	bytes = map.addr;
	env->mem->populate(env, &map, 0, len / 2);
	/* usable at once, zero */
	assert_int_equal(bytes[len - 1], 0);
	bytes[len - 1] = 1;
	env->mem->populate(env, &map, len / 2, len - len / 2);
	if (wait)
		wait_populated(env, &map);
	assert_int_equal(bytes[len - 1], 1);
	env->mem->unmap_begin(env, &map);
	assert_null(map.addr);
	env->mem->unmap_begin(env, &map);
}

/* mapped in the background, and given back at any time after that */
static void check_map_begin(struct wfi_env *env, size_t len, bool wait)
{
	struct wfi_map map;

	env->mem->map_begin(env, len, WFI_MAP_HUGE, &map);
	if (wait) {
		wait_populated(env, &map);
		assert_non_null(map.addr);
		assert_true(map.len >= len);
		assert_int_equal(((char *)map.addr)[len - 1], 0);
		((char *)map.addr)[len - 1] = 1;
	} else {
		(void)env->mem->populated(env, &map);
	}
	env->mem->unmap_begin(env, &map);
	assert_null(map.addr);
}

static void check_map_begin_fails(struct wfi_env *env, size_t len)
{
	struct wfi_map map;

	env->mem->map_begin(env, len, 0, &map);
	wait_populated(env, &map);
	assert_null(map.addr);
	env->mem->unmap_begin(env, &map);
}

static bool in_core(void *addr, size_t len)
{
	const size_t nr = (len + PAGE - 1) / PAGE;
	unsigned char *vec = malloc(nr);
	bool all = true;

	assert_non_null(vec);
	assert_int_equal(mincore(addr, len, vec), 0);
	for (size_t i = 0; i < nr; i++)
		all = all && vec[i] & 1;
	free(vec);
	return all;
}

/* pages that come and go in the background; some maps are left before they are all there */
static void test_map_populate(void **ctx)
{
	struct wfi_env real, *env = &real;
	struct wfi_sim *sim;
	struct wfi_map map;

	(void)ctx;
	assert_int_equal(wfi_env_real_init(&real), 0);
	assert_int_equal(wfi_sim_create(1, &sim), 0);
	for (unsigned i = 0; i < 40; i++) {
		check_populate(env, i % 4 ? i * MIB : 100, i & 1);
		check_map_begin(env, i % 4 ? i * MIB : 100, i & 1);
		if (i == 19)
			env = wfi_sim_node(sim, 0);
	}
	check_map_begin_fails(&real, SIZE_MAX / 2);
	wfi_sim_set_faults(sim, &(struct wfi_sim_faults){ .alloc_fail_nth = 1 });
	check_map_begin_fails(env, MIB);
	/* there before they are touched, on the kernels that can */
	assert_int_equal(real.mem->map(&real, 9 * MIB, 0, &map), 0);
	real.mem->populate(&real, &map, 2 * MIB, 5 * MIB);
	wait_populated(&real, &map);
	if (!madvise(map.addr, PAGE, MADV_POPULATE_WRITE))
		assert_true(in_core((char *)map.addr + 2 * MIB, 5 * MIB));
	real.mem->unmap_begin(&real, &map);
	/* mapped at once, given back behind the caller's back */
	assert_int_equal(real.mem->map(&real, 8 * MIB, WFI_MAP_PREFAULT, &map), 0);
	real.mem->unmap_begin(&real, &map);
	assert_null(map.addr);
	wfi_sim_destroy(sim);
}

static void test_map_refused(void **ctx)
{
	struct wfi_env env = real_env();
	struct wfi_map map = { .len = 17 };
	const unsigned flags = WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT;

	(void)ctx;
	assert_int_equal(env.mem->map(&env, 0, 0, &map), -EINVAL);
	assert_int_equal(env.mem->map(&env, SIZE_MAX, WFI_MAP_HUGE, &map), -ENOMEM);
	/* more than any machine has; an answer, and no killer */
	assert_int_equal(env.mem->map(&env, 1ul << 45, flags, &map), -ENOMEM);
	assert_int_equal(env.mem->map(&env, 1ul << 45, flags | WFI_MAP_HUGE, &map), -ENOMEM);
	assert_int_equal(map.len, 17);
	check_map(&env, MIB, flags);
}

static void test_map_no_fds(void **ctx)
{
	struct wfi_env env = real_env();
	struct rlimit old, none;
	struct wfi_map map;
	int ret;

	(void)ctx;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	ret = env.mem->map(&env, MIB, WFI_MAP_SHARED_FD, &map);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(ret, -EMFILE);
}

static void test_map_sealed(void **ctx)
{
	struct wfi_env env = real_env();
	struct wfi_map map;
	void *addr;

	(void)ctx;
	assert_int_equal(env.mem->map(&env, MIB, WFI_MAP_SHARED_FD, &map), 0);
	assert_int_equal(ftruncate(map.fd, PAGE), -1);
	assert_int_equal(ftruncate(map.fd, (off_t)(2 * MIB)), -1);
	assert_int_equal(fcntl(map.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	addr = mmap(NULL, map.len, PROT_READ | PROT_WRITE, MAP_SHARED, map.fd, 0);
	assert_ptr_not_equal(addr, MAP_FAILED);
	*(char *)addr = 7;
	assert_int_equal(*(char *)map.addr, 7);
	munmap(addr, map.len);
	env.mem->unmap(&env, &map);
}

static void test_map_readers(void **ctx)
{
	struct wfi_env env = real_env();
	struct wfi_map map;
	void *addr;

	(void)ctx;
	assert_int_equal(env.mem->map(&env, MIB, WFI_MAP_SHARED_FD | WFI_MAP_FD_READERS, &map), 0);
	*(char *)map.addr = 7;
	addr = mmap(NULL, map.len, PROT_READ | PROT_WRITE, MAP_SHARED, map.fd, 0);
	assert_ptr_equal(addr, MAP_FAILED);
	assert_int_equal(pwrite(map.fd, "x", 1, 0), -1);
	addr = mmap(NULL, map.len, PROT_READ, MAP_SHARED, map.fd, 0);
	assert_ptr_not_equal(addr, MAP_FAILED);
	assert_int_equal(*(char *)addr, 7);
	assert_int_equal(mprotect(addr, map.len, PROT_READ | PROT_WRITE), -1);
	munmap(addr, map.len);
	env.mem->unmap(&env, &map);
}

/* a file of the test's own, and what the disk tests need beside it */
struct disk_fix {
	struct wfi_env env;
	char path[64];
	struct wfi_disk *disk;
	unsigned char *buf; /* DISK_LEN bytes, aligned */
};

static int disk_setup(void **ctx)
{
	static struct disk_fix fix;
	int fd;

	fix = (struct disk_fix){ .env = real_env() };
	snprintf(fix.path, sizeof(fix.path), "/var/tmp/weft-test-XXXXXX");
	fd = mkstemp(fix.path);
	if (fd < 0)
		return -1;
	close(fd);
	fix.buf = aligned_alloc(PAGE, DISK_LEN);
	*ctx = &fix;
	return fix.buf ? 0 : -1;
}

static int disk_teardown(void **ctx)
{
	struct disk_fix *fix = *ctx;

	fix->env.disk->close(fix->disk);
	unlink(fix->path);
	free(fix->buf);
	return 0;
}

static void disk_open_or_skip(struct disk_fix *fix)
{
	const int ret = fix->env.disk->open(&fix->env, fix->path, DISK_LEN, &fix->disk);

	/* built without liburing, or the kernel, a filter or the administrator says no */
	if (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -EPERM || ret == -ENOMEM) {
		print_message("no io_uring here: %s\n", strerror(-ret));
		skip();
	}
	assert_int_equal(ret, 0);
}

static int64_t disk_wait(struct wfi_env *env, struct wfi_disk *disk, uint64_t *cookie)
{
	int64_t res;

	while (env->disk->poll(disk, cookie, &res, 1) == 0)
		sched_yield();
	return res;
}

static void fill(unsigned char *buf, size_t len, unsigned seed)
{
	size_t idx;

	for (idx = 0; idx < len; idx++)
		buf[idx] = (unsigned char)(idx * 7 + idx / PAGE + seed);
}

static void test_disk_data(void **ctx)
{
	struct disk_fix *fix = *ctx;
	const struct wfi_disk_ops *ops = fix->env.disk;
	unsigned char *want = malloc(DISK_LEN);
	uint64_t cookie;

	assert_non_null(want);
	disk_open_or_skip(fix);
	fill(want, DISK_LEN, 3);
	memcpy(fix->buf, want, DISK_LEN);
	assert_int_equal(ops->write(fix->disk, 0, fix->buf, DISK_LEN, 11), 0);
	assert_int_equal(disk_wait(&fix->env, fix->disk, &cookie), DISK_LEN);
	assert_int_equal(cookie, 11);
	memset(fix->buf, 0, DISK_LEN);
	assert_int_equal(ops->read(fix->disk, PAGE, fix->buf, DISK_LEN - PAGE, UINT64_MAX), 0);
	assert_int_equal(disk_wait(&fix->env, fix->disk, &cookie), DISK_LEN - PAGE);
	assert_true(cookie == UINT64_MAX);
	assert_memory_equal(fix->buf, want + PAGE, DISK_LEN - PAGE);
	free(want);
}

static void check_disk_refusals(const struct wfi_disk_ops *ops, struct wfi_disk *disk,
				unsigned char *buf)
{
	assert_int_equal(ops->read(disk, 0, buf, 0, 0), -EINVAL);
	assert_int_equal(ops->read(disk, 512, buf, PAGE, 0), -EINVAL);
	assert_int_equal(ops->read(disk, 0, buf + 512, PAGE, 0), -EINVAL);
	assert_int_equal(ops->write(disk, 0, buf, 512, 0), -EINVAL);
	assert_int_equal(ops->write(disk, DISK_LEN, buf, PAGE, 0), -EINVAL);
	assert_int_equal(ops->write(disk, DISK_LEN - PAGE, buf, 2 * PAGE, 0), -EINVAL);
	assert_int_equal(ops->write(disk, 0 - (uint64_t)PAGE, buf, 2 * PAGE, 0), -EINVAL);
	assert_int_equal(ops->read(disk, 0, buf, 0 - (size_t)PAGE, 0), -EINVAL);
}

static void test_disk_refusals(void **ctx)
{
	struct disk_fix *fix = *ctx;
	struct wfi_disk *second;
	struct wfi_env *env = &fix->env;

	disk_open_or_skip(fix);
	check_disk_refusals(env->disk, fix->disk, fix->buf);
	assert_int_equal(env->disk->open(env, fix->path, DISK_LEN, &second), -EBUSY);
	assert_int_equal(env->disk->open(env, "/dev/null", DISK_LEN, &second), -EINVAL);
	assert_int_equal(env->disk->open(env, "/nowhere/file", DISK_LEN, &second), -ENOENT);
	assert_int_equal(env->disk->open(env, fix->path, DISK_LEN + 1, &second), -EINVAL);
}

/* a file system that is full, and keeps what it had found by then */
static bool disk_is_full;
int __real_fallocate64(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t len);

int __wrap_fallocate64(int fd, int mode, off_t off, off_t len)
{
	if (!disk_is_full)
		return __real_fallocate64(fd, mode, off, len);
	assert_int_equal(ftruncate(fd, off + len / 4 * 3), 0);
	errno = ENOSPC;
	return -1;
}

static void test_disk_no_room(void **ctx)
{
	struct disk_fix *fix = *ctx;
	struct stat st;

	disk_open_or_skip(fix);
	disk_is_full = true;
	assert_int_equal(fix->env.disk->resize(fix->disk, 2 * DISK_LEN), -ENOSPC);
	disk_is_full = false;
	assert_int_equal(stat(fix->path, &st), 0);
	assert_int_equal(st.st_size, DISK_LEN);
}

static void test_disk_full_queue(void **ctx)
{
	struct disk_fix *fix = *ctx;
	const struct wfi_disk_ops *ops = fix->env.disk;
	uint64_t cookies[16], seen = 0;
	unsigned nr = 0, done = 0;
	int64_t res[16];
	int ret, idx;

	disk_open_or_skip(fix);
	while ((ret = ops->read(fix->disk, nr * PAGE, fix->buf + nr * PAGE, PAGE, nr)) == 0)
		assert_in_range(++nr, 1, 64);
	assert_int_equal(ret, -EAGAIN);
	while (done < nr) {
		ret = ops->poll(fix->disk, cookies, res, 16);
		for (idx = 0; idx < ret; idx++) {
			assert_int_equal(res[idx], PAGE);
			assert_int_equal(seen >> cookies[idx] & 1, 0);
			seen |= 1ull << cookies[idx];
		}
		done += (unsigned)ret;
		if (!ret)
			sched_yield();
	}
	assert_int_equal(ops->poll(fix->disk, cookies, res, 16), 0);
	assert_int_equal(ops->read(fix->disk, 0, fix->buf, PAGE, 0), 0);
}

/* some handed to the kernel, some not: the buffer is ours again when close returns */
static void test_disk_close_busy(void **ctx)
{
	struct disk_fix *fix = *ctx;
	const struct wfi_disk_ops *ops = fix->env.disk;
	uint64_t cookie;
	int64_t res;
	unsigned idx;

	disk_open_or_skip(fix);
	for (idx = 0; idx < 8; idx++)
		assert_int_equal(ops->read(fix->disk, 0, fix->buf + idx * PAGE, PAGE, idx), 0);
	ops->poll(fix->disk, &cookie, &res, 1);
	for (idx = 8; idx < 16; idx++)
		assert_int_equal(ops->read(fix->disk, 0, fix->buf + idx * PAGE, PAGE, idx), 0);
	ops->close(fix->disk);
	fix->disk = NULL;
	disk_open_or_skip(fix);
}

/* a file that somebody cuts short: fewer bytes, and no trust in the rest */
static void test_disk_cut_short(void **ctx)
{
	struct disk_fix *fix = *ctx;
	uint64_t cookie;

	disk_open_or_skip(fix);
	assert_int_equal(truncate(fix->path, PAGE), 0);
	assert_int_equal(fix->env.disk->read(fix->disk, 0, fix->buf, 4 * PAGE, 0), 0);
	assert_int_equal(disk_wait(&fix->env, fix->disk, &cookie), PAGE);
}

static int sim_setup(void **ctx)
{
	return wfi_sim_create(42, (struct wfi_sim **)ctx);
}

static int sim_teardown(void **ctx)
{
	wfi_sim_destroy(*ctx);
	return 0;
}

static void test_sim_clock(void **ctx)
{
	struct wfi_env *a = wfi_sim_node(*ctx, 0), *b = wfi_sim_node(*ctx, 63);
	const uint64_t start = wfi_now(a), wall = a->clock->wall_ns(a);

	assert_true(start > 0);
	assert_int_equal(wfi_now(a), start);
	wfi_sim_advance(*ctx, 5);
	assert_int_equal(wfi_now(a), start + 5);
	assert_int_equal(wfi_now(b), start + 5);
	assert_int_equal(a->clock->wall_ns(a), wall + 5);
	assert_null(wfi_sim_node(*ctx, WFI_SIM_MAX_NODES));
}

static void test_sim_alloc(void **ctx)
{
	struct wfi_env *env = wfi_sim_node(*ctx, 0);
	struct wfi_sim_faults faults = { .alloc_fail_nth = 3 };
	struct wfi_map map;
	void *ptr;

	check_alloc(env);
	check_map(env, MIB, WFI_MAP_SHARED_FD | WFI_MAP_HUGE | WFI_MAP_PREFAULT);
	wfi_sim_set_faults(*ctx, &faults);
	ptr = wfi_alloc(env, 8);
	wfi_free(env, ptr, 8);
	ptr = wfi_alloc(env, 8);
	wfi_free(env, ptr, 8);
	assert_null(wfi_alloc(env, 8));
	check_alloc(env);

	faults = (struct wfi_sim_faults){ .alloc_fail_ppm = PPM_ALWAYS };
	wfi_sim_set_faults(*ctx, &faults);
	assert_null(wfi_alloc(env, 8));
	assert_int_equal(env->mem->map(env, MIB, 0, &map), -ENOMEM);
}

static void test_sim_members(void **ctx)
{
	struct wfi_member members[3] = { { .node = 1, .name = "a" },
					 { .node = 2, .name = "b" },
					 { .node = 3, .name = "c" } };
	struct wfi_member got[3];
	struct wfi_env *env = wfi_sim_node(*ctx, 1);
	uint64_t first, epoch;

	assert_int_equal(env->membership->members(env, got, 3, &first), 0);
	assert_int_equal(wfi_sim_set_members(*ctx, members, 3), 0);
	assert_int_equal(env->membership->members(env, got, 3, &epoch), 3);
	assert_memory_equal(members, got, sizeof(got));
	assert_true(epoch > first);
	assert_int_equal(env->membership->members(env, got, 1, &epoch), 1);
	assert_int_equal(wfi_sim_set_members(*ctx, NULL, 0), 0);
	assert_int_equal(env->membership->members(env, got, 3, &epoch), 0);
	assert_true(epoch > first + 1);
}

static _Alignas(WFI_DISK_ALIGN) unsigned char sim_buf[64 * WFI_DISK_ALIGN];

static struct wfi_disk *sim_disk(struct wfi_env *env)
{
	struct wfi_disk *disk;

	assert_int_equal(env->disk->open(env, "ssd", DISK_LEN, &disk), 0);
	return disk;
}

static int64_t sim_io(struct wfi_env *env, struct wfi_disk *disk, bool write, uint64_t off,
		      size_t len)
{
	uint64_t cookie;
	int64_t res;
	int ret;

	ret = write ? env->disk->write(disk, off, sim_buf, len, 9)
		    : env->disk->read(disk, off, sim_buf, len, 9);
	assert_int_equal(ret, 0);
	assert_int_equal(env->disk->poll(disk, &cookie, &res, 1), 1);
	assert_int_equal(cookie, 9);
	return res;
}

static void test_sim_disk(void **ctx)
{
	struct wfi_env *env = wfi_sim_node(*ctx, 0), *other = wfi_sim_node(*ctx, 1);
	struct wfi_disk *disk = sim_disk(env), *second;
	unsigned char want[2 * PAGE];

	check_disk_refusals(env->disk, disk, sim_buf);
	assert_int_equal(env->disk->open(env, "ssd", DISK_LEN, &second), -EBUSY);
	fill(want, sizeof(want), 5);
	memcpy(sim_buf, want, sizeof(want));
	assert_int_equal(sim_io(env, disk, true, PAGE, 2 * PAGE), 2 * PAGE);
	env->disk->close(disk);
	assert_int_equal(env->disk->open(env, "ssd", 2 * DISK_LEN, &second), -ENOSPC);

	disk = sim_disk(env);
	memset(sim_buf, 0, sizeof(sim_buf));
	assert_int_equal(sim_io(env, disk, false, PAGE, 2 * PAGE), 2 * PAGE);
	assert_memory_equal(sim_buf, want, sizeof(want));
	env->disk->close(disk);

	/* files belong to their node */
	disk = sim_disk(other);
	assert_int_equal(sim_io(other, disk, false, PAGE, 2 * PAGE), 2 * PAGE);
	assert_memory_not_equal(sim_buf, want, sizeof(want));
	other->disk->close(disk);
}

static void test_sim_disk_latency(void **ctx)
{
	const struct wfi_sim_faults faults = { .disk_latency_ns = 1000 };
	struct wfi_env *env = wfi_sim_node(*ctx, 0);
	struct wfi_disk *disk = sim_disk(env);
	uint64_t cookies[64], seen = 0;
	bool reordered = false;
	unsigned idx, nr = 0;
	int64_t res[64];

	wfi_sim_set_faults(*ctx, &faults);
	for (idx = 0; idx < 64; idx++)
		assert_int_equal(env->disk->read(disk, 0, sim_buf + idx * PAGE, PAGE, idx), 0);
	assert_int_equal(env->disk->read(disk, 0, sim_buf, PAGE, idx), -EAGAIN);
	assert_true(env->disk->poll(disk, cookies, res, 64) < 8);
	env->disk->close(disk);

	disk = sim_disk(env);
	for (idx = 0; idx < 64; idx++)
		assert_int_equal(env->disk->read(disk, 0, sim_buf + idx * PAGE, PAGE, idx), 0);
	wfi_sim_advance(*ctx, 1000);
	nr = (unsigned)env->disk->poll(disk, cookies, res, 64);
	assert_int_equal(nr, 64);
	for (idx = 0; idx < nr; idx++) {
		seen |= 1ull << cookies[idx];
		reordered |= idx && cookies[idx] < cookies[idx - 1];
	}
	assert_true(seen == UINT64_MAX);
	assert_true(reordered);
	env->disk->close(disk);
}

static unsigned count_bits(const unsigned char *buf, size_t len)
{
	unsigned nr = 0;

	while (len--)
		nr += (unsigned)__builtin_popcount(buf[len]);
	return nr;
}

static void test_sim_disk_faults(void **ctx)
{
	struct wfi_env *env = wfi_sim_node(*ctx, 0);
	struct wfi_disk *disk = sim_disk(env);
	struct wfi_sim_faults faults = { .disk_error_ppm = PPM_ALWAYS };
	int64_t res;

	wfi_sim_set_faults(*ctx, &faults);
	assert_int_equal(sim_io(env, disk, true, 0, PAGE), -EIO);
	faults = (struct wfi_sim_faults){ .disk_short_ppm = PPM_ALWAYS };
	wfi_sim_set_faults(*ctx, &faults);
	res = sim_io(env, disk, false, 0, 4 * PAGE);
	assert_true(res >= 0 && res < 4 * (int64_t)PAGE);

	faults = (struct wfi_sim_faults){ .disk_flip_ppm = PPM_ALWAYS };
	wfi_sim_set_faults(*ctx, &faults);
	memset(sim_buf, 0, sizeof(sim_buf));
	assert_int_equal(sim_io(env, disk, false, 0, PAGE), PAGE);
	assert_int_equal(count_bits(sim_buf, PAGE), 1);
	memset(sim_buf, 0, sizeof(sim_buf));
	assert_int_equal(sim_io(env, disk, true, 0, PAGE), PAGE);
	/* on the disk, not in the buffer lent */
	assert_int_equal(count_bits(sim_buf, PAGE), 0);
	faults = (struct wfi_sim_faults){ 0 };
	wfi_sim_set_faults(*ctx, &faults);
	assert_int_equal(sim_io(env, disk, false, 0, PAGE), PAGE);
	assert_int_equal(count_bits(sim_buf, PAGE), 1);
	env->disk->close(disk);
}

/* writes pages 0 to 199, crashes, and says how many of them are no more; those cut in two too */
static void crash_losses(struct wfi_sim *sim, uint32_t lost_ppm, unsigned *lost, unsigned *torn)
{
	const struct wfi_sim_faults faults = { .disk_lost_ppm = lost_ppm };
	struct wfi_env *env = wfi_sim_node(sim, 0);
	struct wfi_disk *disk = sim_disk(env);
	unsigned idx, bits;

	wfi_sim_set_faults(sim, &faults);
	memset(sim_buf, 0xff, PAGE);
	for (idx = 0; idx < 200; idx++)
		assert_int_equal(sim_io(env, disk, true, idx * PAGE, PAGE), PAGE);
	wfi_sim_crash(sim, 0);
	disk = sim_disk(env);
	for (idx = *lost = *torn = 0; idx < 200; idx++) {
		assert_int_equal(sim_io(env, disk, false, idx * PAGE, PAGE), PAGE);
		bits = count_bits(sim_buf, PAGE);
		assert_true(bits == PAGE * 8 || idx >= 200 - 64);
		*lost += bits < PAGE * 8;
		*torn += bits && bits < PAGE * 8;
	}
	env->disk->close(disk);
}

static void test_sim_crash_disk(void **ctx)
{
	struct wfi_sim *sim;
	unsigned lost, torn;

	crash_losses(*ctx, 0, &lost, &torn);
	assert_int_equal(lost, 0);
	assert_int_equal(wfi_sim_create(1, &sim), 0);
	crash_losses(sim, PPM_ALWAYS / 2, &lost, &torn);
	assert_in_range(lost, 10, 54);
	assert_in_range(torn, 1, lost - 1);
	wfi_sim_destroy(sim);
}

static void test_sim_crash_memory(void **ctx)
{
	struct wfi_env *env = wfi_sim_node(*ctx, 0), *other = wfi_sim_node(*ctx, 1);
	struct wfi_map map, kept;
	struct wfi_disk *disk = sim_disk(env);
	unsigned char *ptr;
	struct stat st;

	assert_int_equal(other->mem->map(other, MIB, 0, &kept), 0);
	assert_int_equal(env->mem->map(env, MIB, WFI_MAP_SHARED_FD, &map), 0);
	assert_int_equal(fstat(map.fd, &st), 0);
	ptr = wfi_alloc(env, 100);
	assert_non_null(ptr);
	assert_non_null(wfi_alloc(env, 200));
	/* a request whose buffer goes with the node */
	assert_int_equal(env->disk->read(disk, 0, map.addr, PAGE, 0), 0);
	assert_int_equal(env->disk->write(disk, 0, map.addr, PAGE, 0), 0);
	wfi_sim_crash(*ctx, 0);
	assert_int_equal(fstat(map.fd, &st), -1);
	memset(kept.addr, 1, kept.len);
	other->mem->unmap(other, &kept);
	check_alloc(env);
}

/* all that a world shows in a while of random use, in one number */
static uint64_t transcript(uint64_t seed)
{
	const struct wfi_sim_faults faults = {
		.alloc_fail_ppm = 100000,
		.disk_error_ppm = 100000,
		.disk_short_ppm = 100000,
		.disk_flip_ppm = 100000,
		.disk_lost_ppm = 300000,
		.disk_latency_ns = 5000,
	};
	uint64_t hash = 0, cookie = 0, word = 0;
	struct wfi_disk *disk;
	struct wfi_sim *sim;
	struct wfi_env *env;
	int64_t res = 0;
	unsigned idx;
	void *ptr;

	assert_int_equal(wfi_sim_create(seed, &sim), 0);
	wfi_sim_set_faults(sim, &faults);
	env = wfi_sim_node(sim, 2);
	disk = sim_disk(env);
	memset(sim_buf, 0, sizeof(sim_buf));
	for (idx = 0; idx < 1000; idx++) {
		ptr = wfi_alloc(env, 64);
		hash = hash * 31 + !!ptr;
		wfi_free(env, ptr, 64);
		env->rng->bytes(env, &word, sizeof(word));
		sim_buf[word % PAGE] ^= (unsigned char)word;
		if (wfi_sim_rand(sim) & 1)
			env->disk->write(disk, word % 64 * PAGE, sim_buf, PAGE, idx);
		else
			env->disk->read(disk, word % 64 * PAGE, sim_buf, PAGE, idx);
		wfi_sim_advance(sim, 300);
		env->disk->poll(disk, &cookie, &res, 1);
		hash = hash * 31 + cookie + (uint64_t)res + word + sim_buf[word % PAGE];
		if (idx % 100 == 99) {
			wfi_sim_crash(sim, 2);
			disk = sim_disk(env);
		}
	}
	wfi_sim_destroy(sim);
	return hash;
}

static void test_sim_seed(void **ctx)
{
	(void)ctx;
	assert_true(transcript(7) == transcript(7));
	assert_true(transcript(7) != transcript(8));
}

#define REAL_DISK_TEST(name) cmocka_unit_test_setup_teardown(name, disk_setup, disk_teardown)
#define SIM_TEST(name) cmocka_unit_test_setup_teardown(name, sim_setup, sim_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real_clock),
		cmocka_unit_test(test_real_rng),
		cmocka_unit_test(test_real_alloc),
		cmocka_unit_test(test_unwired),
		cmocka_unit_test(test_map_flags),
		cmocka_unit_test(test_map_populate),
		cmocka_unit_test(test_map_refused),
		cmocka_unit_test(test_map_no_fds),
		cmocka_unit_test(test_map_sealed),
		cmocka_unit_test(test_map_readers),
		REAL_DISK_TEST(test_disk_data),
		REAL_DISK_TEST(test_disk_refusals),
		REAL_DISK_TEST(test_disk_no_room),
		REAL_DISK_TEST(test_disk_full_queue),
		REAL_DISK_TEST(test_disk_close_busy),
		REAL_DISK_TEST(test_disk_cut_short),
		SIM_TEST(test_sim_clock),
		SIM_TEST(test_sim_alloc),
		SIM_TEST(test_sim_members),
		SIM_TEST(test_sim_disk),
		SIM_TEST(test_sim_disk_latency),
		SIM_TEST(test_sim_disk_faults),
		SIM_TEST(test_sim_crash_disk),
		SIM_TEST(test_sim_crash_memory),
		SIM_TEST(test_sim_seed),
	};

	return cmocka_run_group_tests(tests, quiet, NULL);
}
