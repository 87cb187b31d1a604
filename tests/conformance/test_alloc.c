/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Posts and polls take no memory, from whomever: whatever is loaded into this process allocates
 * through the calls below. Run as: test_alloc PROVIDER [DEVICE].
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include "conf.h"
#include "weft_internal/transport_registry.h"

#define WARM 2000u
#define TURNS 20000u

void *__libc_malloc(size_t len);
void *__libc_calloc(size_t nr, size_t len);
void *__libc_realloc(void *mem, size_t len);
void *__libc_memalign(size_t align, size_t len);

static const struct weft_transport *provider;
static _Thread_local volatile bool counts; /* other threads are no part of a post */
static volatile unsigned long nr_allocs;

void *malloc(size_t len)
{
	nr_allocs = nr_allocs + counts;
	return __libc_malloc(len);
}

void *calloc(size_t nr, size_t len)
{
	nr_allocs = nr_allocs + counts;
	return __libc_calloc(nr, len);
}

void *realloc(void *mem, size_t len)
{
	nr_allocs = nr_allocs + counts;
	return __libc_realloc(mem, len);
}

void *aligned_alloc(size_t align, size_t len)
{
	nr_allocs = nr_allocs + counts;
	return __libc_memalign(align, len);
}

int posix_memalign(void **out, size_t align, size_t len)
{
	nr_allocs = nr_allocs + counts;
	*out = __libc_memalign(align, len);
	return *out ? 0 : ENOMEM;
}

/* one of each: both kinds of memory, large and small, and a message */
static void turn(struct pair *p, unsigned i)
{
	const struct weft_rkey *rkey = i % 2 ? p->rkey : p->heap_rkey;
	const struct weft_piece pieces[] = { { p->a.mem, 0, i % 64 ? 1000 : 100000, rkey },
					     { p->a.mem + 200000, 300000, 64, rkey } };
	const struct weft_post post = {
		.pieces = pieces,
		.nr_pieces = 2,
		.local_mr = p->a.dev->caps.flags & WEFT_CAP_LOCAL_MR ? p->a.mr : NULL,
	};

	assert_int_equal(weft_ep_post_write(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_WRITE, 0);
	assert_int_equal(weft_ep_post_read(p->a.ep, &post), 0);
	expect_wc(&p->a, p->a.send_cq, WEFT_WC_READ, 0);
	assert_int_equal(weft_ep_post_send(p->a.ep, "hi", 2, 0, WEFT_POST_QUIET), 0);
	expect_wc(&p->b, p->b.recv_cq, WEFT_WC_RECV, 0);
}

static void test_quiet(void **state)
{
	void *volatile one;
	struct pair p;
	unsigned i;

	(void)state;
	pair_open(&p, provider, 64, 64);
	for (i = 0; i < WARM; i++)
		turn(&p, i);
	counts = true;
	for (i = 0; i < TURNS; i++)
		turn(&p, i);
	counts = false;
	assert_int_equal(nr_allocs, 0);
	/* had there been one, it would have been seen */
	counts = true;
	one = malloc(1);
	counts = false;
	assert_int_equal(nr_allocs, 1);
	free(one);
	pair_close(&p);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_quiet) };
	struct weft_probe probe;
	struct wfi_env env;

	provider = wfi_transport_find(NULL, argc > 1 ? argv[1] : "loop");
	side_device_opts.name = argc > 2 ? argv[2] : NULL;
	if (!provider || wfi_env_real_init(&env) || provider->probe(provider, &env, &probe)) {
		printf("%s can't run here\n", argc > 1 ? argv[1] : "loop");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
