/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory on huge pages that were set aside (vm.nr_hugepages): what nodes and engines do with it, on
 * pages that this test sets aside, and gives back.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/hugepages.h"
#include "transport/shm/shm.h"
#include "weft_internal/env.h"

#define PAGES 16u

static void env_open(struct wfi_env *env)
{
	assert_int_equal(wfi_env_real_init(env), 0);
}

/* shared and private, touched at once or later: huge for sure, and given back */
static void test_map(void **state)
{
	static const unsigned ways[] = { 0, WFI_MAP_PREFAULT, WFI_MAP_SHARED_FD,
					 WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT };
	const unsigned long was_free = test_huge_free();
	struct wfi_env env;
	struct wfi_map map;
	struct statfs fs;
	unsigned i;

	(void)state;
	env_open(&env);
	for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		assert_int_equal(
			env.mem->map(&env, 3 * HUGE_BYTES + 1, ways[i] | WFI_MAP_HUGE, &map), 0);
		assert_int_equal(map.page_bytes, HUGE_BYTES);
		assert_int_equal(map.len, 4 * HUGE_BYTES);
		assert_int_equal((uintptr_t)map.addr % HUGE_BYTES, 0);
		memset(map.addr, 0x5a, map.len);
		assert_int_equal(test_huge_free(), was_free - 4);
		if (ways[i] & WFI_MAP_SHARED_FD) {
			assert_int_equal(fstatfs(map.fd, &fs), 0);
			assert_int_equal((unsigned long)fs.f_type, HUGETLBFS_MAGIC);
			assert_int_equal(ftruncate(map.fd, 0), -1);
			assert_int_equal(fcntl(map.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
		}
		env.mem->unmap(&env, &map);
		assert_int_equal(test_huge_free(), was_free);
	}
}

/* files of others may not be of small pages: any part of them can be mapped, and bytes go in it */
static void test_view(void **state)
{
	const uint64_t off = HUGE_BYTES - 12345, len = HUGE_BYTES + 23456;
	const unsigned flags = WFI_MAP_HUGE | WFI_MAP_SHARED_FD;
	struct wfi_view rw, ro;
	struct wfi_env env;
	struct wfi_map map;

	(void)state;
	env_open(&env);
	assert_int_equal(env.mem->map(&env, 4 * HUGE_BYTES, flags, &map), 0);
	assert_int_equal(wfi_view_map(&rw, map.fd, off, len, true), 0);
	assert_int_equal(wfi_view_map(&ro, map.fd, off, len, false), 0);
	memset(rw.mem, 0x77, len);
	assert_int_equal(ro.mem[0], 0x77);
	assert_int_equal(ro.mem[len - 1], 0x77);
	assert_int_equal(((uint8_t *)map.addr)[off - 1], 0);
	assert_memory_equal((uint8_t *)map.addr + off, ro.mem, len);
	assert_int_equal(((uint8_t *)map.addr)[off + len], 0);
	wfi_view_unmap(&rw);
	wfi_view_unmap(&ro);
	assert_int_equal(wfi_view_map(&ro, map.fd, off, 4 * HUGE_BYTES, false), -ERANGE);
	env.mem->unmap(&env, &map);
}

/* a region that lies in them, written to and read by a transport */
static void test_transport(void **state)
{
	const struct weft_transport *t = &wfi_transport_shm;
	struct weft_cq_opts cq_opts = { .size = sizeof(cq_opts), .depth = 16 };
	struct weft_ep_opts ep_opts = { .size = sizeof(ep_opts), .flags = WEFT_EP_MEM };
	struct weft_rkey_src src = { .size = sizeof(src), .kind = WEFT_RKEY_MEMFD };
	struct weft_piece pieces[2];
	struct weft_post post = { .pieces = pieces, .nr_pieces = 2 };
	struct weft_device *dev;
	struct weft_cq *cq;
	struct weft_ep *ep;
	struct wfi_env env;
	struct wfi_map map, local;
	struct weft_wc wc;

	(void)state;
	env_open(&env);
	assert_int_equal(env.mem->map(&env, 4 * HUGE_BYTES, WFI_MAP_HUGE | WFI_MAP_SHARED_FD, &map),
			 0);
	assert_int_equal(env.mem->map(&env, 2 * HUGE_BYTES, WFI_MAP_HUGE, &local), 0);
	assert_int_equal(t->device_open(t, &env, NULL, &dev), 0);
	assert_int_equal(t->cq_create(dev, &cq_opts, &cq), 0);
	ep_opts.send_cq = ep_opts.recv_cq = cq;
	assert_int_equal(t->ep_create(dev, &ep_opts, &ep), 0);
	src.fd = map.fd;
	src.addr = 4096;
	src.len = 3 * HUGE_BYTES;
	src.access = WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(t->rkey_import(ep, &src, (struct weft_rkey **)&pieces[0].rkey), 0);
	memset(local.addr, 0x42, local.len);
	pieces[0].local = local.addr;
	pieces[0].remote = 100;
	pieces[0].len = HUGE_BYTES;
	pieces[1] = pieces[0];
	pieces[1].remote = 2 * HUGE_BYTES;
	pieces[1].len = 1000;
	assert_int_equal(weft_ep_post_write(ep, &post), 0);
	assert_int_equal(weft_cq_poll(cq, &wc, 1), 1);
	assert_int_equal(wc.status, 0);
	assert_memory_equal((uint8_t *)map.addr + 4196, local.addr, HUGE_BYTES);
	assert_memory_equal((uint8_t *)map.addr + 4096 + 2 * HUGE_BYTES, local.addr, 1000);
	t->rkey_destroy((struct weft_rkey *)(uintptr_t)pieces[0].rkey);
	t->ep_destroy(ep);
	t->cq_destroy(cq);
	t->device_close(dev);
	env.mem->unmap(&env, &local);
	env.mem->unmap(&env, &map);
}

/* more than was set aside: the memory comes on other pages, and takes none of these */
static void test_too_few(void **state)
{
	const unsigned long was_free = test_huge_free();
	struct wfi_env env;
	struct wfi_map map;

	(void)state;
	env_open(&env);
	assert_int_equal(env.mem->map(&env, (was_free + 4) * HUGE_BYTES,
				      WFI_MAP_HUGE | WFI_MAP_SHARED_FD, &map),
			 0);
	memset(map.addr, 1, HUGE_BYTES);
	assert_int_equal(test_huge_free(), was_free);
	env.mem->unmap(&env, &map);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_transport),
		cmocka_unit_test(test_too_few),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return test_huge_run(PAGES, run);
}
