/* SPDX-License-Identifier: Apache-2.0 */
/* who listens to a node's blocks, as time goes by: heartbeats, those that do not read, and those
 * whose tenant is closed. The node is its KV manager, in one thread */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "daemon/http_events.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/util.h"

#define BLOCK_BYTES 64u
#define LIVES_MS 16000u /* a heartbeat has come by then */
#define STILL_MS 11000u /* who has not read for so long is slow */
#define CUT_MS 21000u
#define STEP_MS 500u

struct fixture {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct node node;
	struct wfi_tenant *tenant;
	struct wfi_space_info space;
	struct wfi_owner owner;
	struct http_feed *feed;
	struct http_listener *l;
	unsigned nr_resumed, nr_cut;
	uint64_t nr_keys;
	char text[16384];
};

/* ---- the node ---- */

void node_call(struct node *node, void (*fn)(struct node *node, void *arg), void *arg)
{
	fn(node, arg);
}

void node_poke(struct node *node)
{
	(void)node;
}

static void on_resume(void *ctx)
{
	((struct fixture *)ctx)->nr_resumed++;
}

static void on_cut(void *ctx)
{
	((struct fixture *)ctx)->nr_cut++;
}

static int setup(void **state)
{
	const struct wfi_tenant_opts t = { .name = "t", .token = "", .arena_bytes = 64 << 10 };
	const struct weft_space_opts s = { .size = sizeof(s),
					   .block_bytes = BLOCK_BYTES,
					   .model = "model",
					   .layout = "test",
					   .tokens_per_block = 16 };
	struct fixture *f = calloc(1, sizeof(*f));
	struct wfi_kv_opts kv = { .extent_bytes = 4096, .max_slots = 16384 };
	struct http_feed_opts o = { .resume = on_resume, .cut = on_cut };
	char why[HTTP_WHY];

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(3, &f->sim), 0);
	kv.env = o.env = f->env = wfi_sim_node(f->sim, 0);
	o.node = &f->node;
	assert_int_equal(wfi_kv_create(&kv, &f->node.kv), 0);
	assert_int_equal(wfi_kv_tenant_add(f->node.kv, &t, &f->tenant), 0);
	assert_int_equal(wfi_kv_space_open(f->node.kv, f->tenant, &s, &f->space, NULL), 0);
	assert_int_equal(wfi_owner_init(f->node.kv, &f->owner, f->tenant), 0);
	assert_int_equal(http_feed_create(&o, &f->feed), 0);
	assert_int_equal(http_listener_create(f->feed, f->tenant, NULL, f, &f->l, why), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_listener_destroy(f->l);
	http_feed_stop(f->feed);
	http_feed_destroy(f->feed);
	wfi_kv_destroy(f->node.kv);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

static void put(struct fixture *f)
{
	const struct weft_key key = { .lo = ++f->nr_keys, .hi = 5 };
	struct weft_slot slot;
	int32_t result;

	assert_int_equal(wfi_kv_claim(f->node.kv, &f->owner, f->space.id, 1, &slot, 1), 1);
	assert_int_equal(wfi_kv_put(f->node.kv, &f->owner, f->space.id, NULL, &key, &slot, 1, NULL,
				    &result, 1),
			 1);
}

/* until there is nothing now, or it has ended. Return: how it ended */
static ssize_t read_all(struct fixture *f)
{
	size_t len = 0;
	ssize_t n;

	while ((n = http_listener_read(f->l, f->text + len, sizeof(f->text) - 1 - len)) > 0)
		len += (size_t)n;
	f->text[len] = 0;
	return n;
}

/* turns as the control thread takes them, or somewhat later */
static void pass(struct fixture *f, unsigned ms)
{
	unsigned at;

	for (at = 0; at < ms; at += STEP_MS) {
		wfi_sim_advance(f->sim, STEP_MS * WFI_NSEC_PER_MSEC);
		assert_true(http_feed_turn(f->feed) >= 0);
	}
}

/* ---- tests ---- */

static void begins(struct fixture *f)
{
	http_feed_turn(f->feed);
	assert_int_equal(read_all(f), 0);
	assert_non_null(strstr(f->text, "event: cleared"));
	/* the rest of it comes in turns */
	while (!strstr(f->text, "event: synced")) {
		pass(f, STEP_MS);
		assert_int_equal(read_all(f), 0);
	}
	f->nr_resumed = 0;
}

/* nothing happens: each 15 s a comment, and nothing else */
static void heartbeat(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	begins(f);
	for (i = 0; i < 3; i++) {
		pass(f, LIVES_MS / 2);
		assert_int_equal(f->nr_resumed, 0);
		pass(f, LIVES_MS / 2);
		assert_int_equal(f->nr_resumed, 1);
		assert_int_equal(read_all(f), 0);
		assert_string_equal(f->text, ":\n\n");
		f->nr_resumed = 0;
	}
	/* an event is as good as one */
	put(f);
	pass(f, STEP_MS);
	assert_int_equal(read_all(f), 0);
	assert_non_null(strstr(f->text, "event: stored"));
	f->nr_resumed = 0;
	pass(f, LIVES_MS - 2000);
	assert_int_equal(f->nr_resumed, 0);
	assert_int_equal(f->nr_cut, 0);
}

/* it is told that there is something, and does not read: told that it is slow, it ends */
static void stalls(void **state)
{
	struct fixture *f = *state;

	begins(f);
	put(f);
	pass(f, STEP_MS);
	assert_int_equal(f->nr_resumed, 1);
	pass(f, STILL_MS);
	assert_int_equal(f->nr_cut, 0);
	assert_int_equal(read_all(f), -1);
	assert_non_null(strstr(f->text, "event: slow"));
}

/* nor does it read that: its connection is cut */
static void stalls_on(void **state)
{
	struct fixture *f = *state;

	begins(f);
	put(f);
	pass(f, STEP_MS);
	pass(f, CUT_MS);
	assert_true(f->nr_cut > 0);
	assert_int_equal(read_all(f), -1);
}

/* who reads a little now and then is not slow, as long as what it has not read is kept */
static void reads_now_and_then(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	begins(f);
	for (i = 0; i < 10; i++) {
		put(f);
		pass(f, STILL_MS - 2000);
		assert_int_equal(read_all(f), 0);
		assert_non_null(strstr(f->text, "event: stored"));
	}
	assert_int_equal(f->nr_cut, 0);
}

/* who listens for a tenant that is closed hears so, and nothing of what comes after */
static void tenant_closed(void **state)
{
	struct fixture *f = *state;

	begins(f);
	wfi_kv_tenant_close(f->tenant, true);
	put(f);
	pass(f, STEP_MS);
	assert_true(f->nr_resumed >= 1);
	assert_int_equal(read_all(f), -1);
	assert_non_null(strstr(f->text, "event: closed"));
	assert_null(strstr(f->text, "event: stored"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(heartbeat),	  TEST(stalls),	       TEST(stalls_on),
		TEST(reads_now_and_then), TEST(tenant_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
