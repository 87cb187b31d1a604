/* SPDX-License-Identifier: Apache-2.0 */
/* what a node has heard of the members: the view by itself, and fed by the simulated store */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "weft_internal/member.h"
#include "weft_internal/util.h"

#define SEC WFI_NSEC_PER_SEC

static struct wfi_member_view view;
static struct wfi_sim *sim;

static struct wfi_member member(unsigned id, uint64_t epoch)
{
	struct wfi_member m = { .node = id, .incarnation = 100 + id, .epoch = epoch };

	snprintf(m.name, sizeof(m.name), "n%u", id);
	return m;
}

/* ---- the view ---- */

static void test_view_order(void **ctx)
{
	struct wfi_member got[4], m;
	unsigned ids[] = { 3, 1, 2 }, i;

	(void)ctx;
	memset(&view, 0, sizeof(view));
	for (i = 0; i < 3; i++) {
		m = member(ids[i], 10 + i);
		assert_int_equal(wfi_member_view_put(&view, &m, 10 + i), 0);
	}
	assert_int_equal(wfi_member_view_copy(&view, got, 4), 3);
	for (i = 0; i < 3; i++)
		assert_int_equal(got[i].node, i + 1);
	assert_int_equal(view.epoch, 12);
	assert_int_equal(view.changes, 3);
	/* the same once more is no change; an epoch of before does not move it back */
	assert_int_equal(wfi_member_view_put(&view, &m, 5), 0);
	assert_int_equal(view.changes, 3);
	assert_int_equal(view.epoch, 12);
	wfi_member_view_del(&view, "n1", 13, 0);
	assert_int_equal(wfi_member_view_copy(&view, got, 4), 2);
	assert_int_equal(got[0].node, 2);
	assert_int_equal(wfi_member_view_copy(&view, got, 1), 1);
}

static void test_view_clash(void **ctx)
{
	struct wfi_member a = member(7, 20), b = member(7, 21), c = member(7, 19);

	(void)ctx;
	memset(&view, 0, sizeof(view));
	strcpy(b.name, "later");
	strcpy(c.name, "first");
	assert_int_equal(wfi_member_view_put(&view, &a, 20), 0);
	assert_int_equal(wfi_member_view_put(&view, &b, 21), -EEXIST);
	assert_string_equal(view.members[0].name, "n7");
	assert_int_equal(wfi_member_view_put(&view, &c, 22), 0);
	assert_int_equal(view.nr, 1);
	assert_string_equal(view.members[0].name, "first");
	/* who is only held gives way */
	wfi_member_view_del(&view, "first", 23, 5 * SEC);
	assert_int_equal(wfi_member_view_put(&view, &b, 24), 0);
	assert_int_equal(view.nr, 1);
	assert_string_equal(view.members[0].name, "later");
}

static void test_view_full(void **ctx)
{
	struct wfi_member m;
	unsigned i;

	(void)ctx;
	memset(&view, 0, sizeof(view));
	for (i = 0; i < WFI_MEMBERS_MAX; i++) {
		m = member(1000 - i, i);
		assert_int_equal(wfi_member_view_put(&view, &m, i), 0);
	}
	m = member(1, 99);
	assert_int_equal(wfi_member_view_put(&view, &m, 99), -ENOSPC);
	m = member(1000, 99);
	m.flags = WFI_MEMBER_DRAINING;
	assert_int_equal(wfi_member_view_put(&view, &m, 99), 0);
	assert_int_equal(view.members[WFI_MEMBERS_MAX - 1].flags, WFI_MEMBER_DRAINING);
}

static void test_view_hold(void **ctx)
{
	struct wfi_member a = member(1, 1), b = member(2, 2);
	uint64_t changes;

	(void)ctx;
	memset(&view, 0, sizeof(view));
	wfi_member_view_put(&view, &a, 1);
	wfi_member_view_put(&view, &b, 2);
	changes = view.changes;
	wfi_member_view_del(&view, "n1", 3, 10 * SEC);
	assert_int_equal(view.changes, changes);
	assert_int_equal(wfi_member_view_tick(&view, 9 * SEC), 10 * SEC);
	assert_int_equal(view.nr, 2);
	assert_int_equal(wfi_member_view_tick(&view, 10 * SEC), UINT64_MAX);
	assert_int_equal(view.nr, 1);
	assert_int_equal(view.changes, changes + 1);
	/* our own went as well: n2, lost before and after, stays longer */
	wfi_member_view_del(&view, "n2", 4, 11 * SEC);
	wfi_member_view_keep(&view, 20 * SEC);
	assert_int_equal(wfi_member_view_tick(&view, 19 * SEC), 20 * SEC);
	assert_int_equal(view.nr, 1);
	b.epoch = 5;
	assert_int_equal(wfi_member_view_put(&view, &b, 5), 0);
	assert_int_equal(wfi_member_view_tick(&view, 25 * SEC), UINT64_MAX);
	assert_int_equal(view.nr, 1);
	assert_int_equal(view.members[0].epoch, 5);
}

static void test_view_load(void **ctx)
{
	struct wfi_member list[3] = { member(1, 1), member(2, 2), member(3, 3) };

	(void)ctx;
	memset(&view, 0, sizeof(view));
	assert_int_equal(wfi_member_view_load(&view, list, 3, 3, 0), 0);
	assert_int_equal(view.nr, 3);
	assert_int_equal(wfi_member_view_load(&view, list + 1, 2, 9, 5 * SEC), 0);
	assert_int_equal(view.nr, 3);
	(void)wfi_member_view_tick(&view, 5 * SEC);
	assert_int_equal(view.nr, 2);
	assert_int_equal(wfi_member_view_load(&view, NULL, 0, 2, 0), 0);
	assert_int_equal(view.nr, 0);
	assert_int_equal(view.epoch, 9);
}

/* ---- the simulated store ---- */

static int sim_setup(void **ctx)
{
	(void)ctx;
	return wfi_sim_create(7, &sim);
}

static int sim_teardown(void **ctx)
{
	(void)ctx;
	wfi_sim_destroy(sim);
	return 0;
}

static int sees(unsigned idx, struct wfi_member *out)
{
	struct wfi_env *env = wfi_sim_node(sim, idx);
	uint64_t epoch;

	return env->membership->members(env, out, WFI_MEMBERS_MAX, &epoch);
}

static int count(unsigned idx)
{
	struct wfi_member got[WFI_MEMBERS_MAX];

	return sees(idx, got);
}

static void publish(unsigned idx)
{
	struct wfi_env *env = wfi_sim_node(sim, idx);
	struct wfi_member m = member(idx + 1, 0);

	assert_int_equal(env->membership->publish(env, &m), 0);
}

static void join_three(void)
{
	unsigned i;

	for (i = 0; i < 3; i++)
		publish(i);
	for (i = 0; i < 3; i++)
		assert_int_equal(count(i), 3);
}

static void leave(unsigned idx)
{
	struct wfi_env *env = wfi_sim_node(sim, idx);

	assert_int_equal(env->membership->publish(env, NULL), 0);
}

static void test_store_join_leave(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX];
	struct wfi_env *env = wfi_sim_node(sim, 0);
	uint64_t changes;
	unsigned i;

	(void)ctx;
	for (i = 0; i < 3; i++)
		publish(i);
	assert_int_equal(sees(0, got), 3);
	assert_true(got[0].epoch < got[1].epoch && got[1].epoch < got[2].epoch);
	changes = env->membership->changes(env);
	wfi_sim_advance(sim, 10 * WFI_SIM_LEASE_NS);
	assert_int_equal(count(0), 3);
	assert_int_equal(env->membership->changes(env), changes);
	leave(2);
	assert_int_equal(count(0), 2);
	assert_true(env->membership->changes(env) > changes);
}

static void test_store_lease(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX];
	uint64_t epoch;

	(void)ctx;
	join_three();
	assert_int_equal(sees(0, got), 3);
	epoch = got[2].epoch;
	wfi_sim_store_reach(sim, 2, false);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS - 1);
	assert_int_equal(count(0), 3);
	wfi_sim_advance(sim, 1);
	(void)count(0);
	wfi_sim_advance(sim, WFI_MEMBER_HOLD_NS);
	assert_int_equal(count(0), 2);
	/* the one cut off goes by what it knew */
	assert_int_equal(count(2), 3);
	wfi_sim_store_reach(sim, 2, true);
	assert_int_equal(sees(0, got), 3);
	assert_true(got[2].epoch > epoch);
	/* a death is a lease that runs out; the next life has an epoch of its own */
	epoch = got[2].epoch;
	wfi_sim_crash(sim, 2);
	publish(2);
	assert_int_equal(sees(0, got), 3);
	assert_int_equal(got[2].epoch, epoch);
	wfi_sim_crash(sim, 2);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS);
	(void)count(0);
	wfi_sim_advance(sim, WFI_MEMBER_HOLD_NS);
	assert_int_equal(count(0), 2);
}

static void test_store_down(void **ctx)
{
	(void)ctx;
	join_three();
	wfi_sim_store_down(sim, true);
	wfi_sim_crash(sim, 2);
	wfi_sim_advance(sim, 600 * SEC);
	assert_int_equal(count(0), 3);
	assert_int_equal(count(1), 3);
	wfi_sim_store_down(sim, false);
	assert_int_equal(count(0), 3);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS);
	(void)count(0);
	wfi_sim_advance(sim, WFI_MEMBER_HOLD_NS);
	assert_int_equal(count(0), 2);
}

/* a store that forgot everybody has nobody dropped who comes back */
static void test_store_wipe(void **ctx)
{
	const struct wfi_sim_faults faults = { .store_delay_ns = SEC / 2,
					       .store_lost_ppm = 500000 };
	unsigned i, step;

	(void)ctx;
	wfi_sim_set_faults(sim, &faults);
	for (i = 0; i < 3; i++)
		publish(i);
	for (step = 0; step < 100 && count(0) < 3; step++)
		wfi_sim_advance(sim, SEC / 10);
	assert_int_equal(count(0), 3);
	wfi_sim_store_wipe(sim);
	for (step = 0; step < 100; step++) {
		wfi_sim_advance(sim, SEC / 20);
		assert_int_equal(count(0), 3);
	}
}

static void test_store_clash(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX], m = member(1, 0);
	struct wfi_env *env = wfi_sim_node(sim, 5);

	(void)ctx;
	publish(0);
	m.incarnation = 55;
	env->membership->publish(env, &m);
	assert_int_equal(sees(1, got), 1);
	assert_int_equal(got[0].incarnation, 101);
	leave(0);
	wfi_sim_advance(sim, WFI_SIM_REREAD_NS);
	assert_int_equal(sees(1, got), 1);
	assert_int_equal(got[0].incarnation, 55);
}

/* a life under another name has no more of the one before, and nobody else's name by that */
static void test_store_other_name(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX], m = member(2, 0);
	struct wfi_env *env = wfi_sim_node(sim, 0);

	(void)ctx;
	publish(0);
	publish(1);
	wfi_sim_store_down(sim, true);
	leave(0);
	m.incarnation = 55;
	env->membership->publish(env, &m);
	wfi_sim_store_down(sim, false);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].node, 2);
	assert_int_equal(got[0].incarnation, 102);
	leave(0);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 102);
	/* and it is there for who asks anew */
	assert_int_equal(sees(3, got), 1);
	assert_int_equal(got[0].incarnation, 102);
}

/* the next life of a place has its name, later, and the one before does not take it back */
static void test_store_next_life(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX], m = member(1, 0);
	struct wfi_env *first = wfi_sim_node(sim, 0), *next = wfi_sim_node(sim, 1);
	uint64_t epoch;

	(void)ctx;
	strcpy(m.host, "h");
	strcpy(m.socket, "/s");
	m.born_ns = 1;
	first->membership->publish(first, &m);
	assert_int_equal(sees(2, got), 1);
	epoch = got[0].epoch;
	m.incarnation = 7;
	m.born_ns = 2;
	next->membership->publish(next, &m);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 7);
	assert_true(got[0].epoch > epoch);
	wfi_sim_advance(sim, 10 * WFI_SIM_REREAD_NS);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 7);
	/* but for when there is nobody else */
	wfi_sim_crash(sim, 1);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS);
	(void)count(2);
	wfi_sim_advance(sim, WFI_SIM_REREAD_NS);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 101);
}

/* nor when a store that was emptied hears of it first: the later one of the place has the name */
static void test_store_wiped_next_life(void **ctx)
{
	struct wfi_member got[WFI_MEMBERS_MAX], m = member(1, 0);
	struct wfi_env *first = wfi_sim_node(sim, 0), *next = wfi_sim_node(sim, 1);

	(void)ctx;
	strcpy(m.host, "h");
	strcpy(m.socket, "/s");
	m.born_ns = 1;
	first->membership->publish(first, &m);
	m.incarnation = 7;
	m.born_ns = 2;
	next->membership->publish(next, &m);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 7);
	wfi_sim_store_reach(sim, 1, false);
	wfi_sim_store_wipe(sim);
	wfi_sim_advance(sim, WFI_SIM_REREAD_NS);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 101);
	wfi_sim_store_reach(sim, 1, true);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 7);
	wfi_sim_advance(sim, 10 * WFI_SIM_REREAD_NS);
	assert_int_equal(sees(2, got), 1);
	assert_int_equal(got[0].incarnation, 7);
}

/* who was missed when the store went away is no more missed for that */
static void test_store_down_in_the_moment(void **ctx)
{
	(void)ctx;
	join_three();
	wfi_sim_store_reach(sim, 2, false);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS);
	assert_int_equal(count(0), 3);
	wfi_sim_store_down(sim, true);
	wfi_sim_advance(sim, 600 * SEC);
	assert_int_equal(count(0), 3);
	wfi_sim_store_down(sim, false);
	assert_int_equal(count(0), 3);
	wfi_sim_advance(sim, WFI_SIM_LEASE_NS - 1);
	assert_int_equal(count(0), 3);
	wfi_sim_advance(sim, 1);
	assert_int_equal(count(0), 2);
}

/* news that the watch does not tell any more is read */
static void test_store_compact(void **ctx)
{
	const struct wfi_sim_faults faults = { .store_delay_ns = SEC / 3 };
	unsigned i;

	(void)ctx;
	join_three();
	wfi_sim_set_faults(sim, &faults);
	leave(2);
	wfi_sim_store_lose(sim, 1);
	wfi_sim_store_compact(sim);
	for (i = 0; i < 30; i++) {
		wfi_sim_advance(sim, SEC / 5);
		assert_in_range(count(0), 2, 3);
	}
	assert_int_equal(count(0), 2);
}

static void test_store_delay(void **ctx)
{
	const struct wfi_sim_faults faults = { .store_delay_ns = SEC, .store_lost_ppm = 300000 };
	unsigned seen[2] = { 0 }, i, step;

	(void)ctx;
	wfi_sim_set_faults(sim, &faults);
	for (i = 0; i < 8; i++)
		publish(i);
	for (step = 0; step < 1000 && seen[0] + seen[1] < 16; step++) {
		wfi_sim_advance(sim, SEC / 100);
		for (i = 0; i < 2; i++) {
			assert_true((unsigned)count(i) >= seen[i]);
			seen[i] = (unsigned)count(i);
		}
	}
	assert_true(step > 5);
	assert_int_equal(seen[0] + seen[1], 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_view_order),
		cmocka_unit_test(test_view_clash),
		cmocka_unit_test(test_view_full),
		cmocka_unit_test(test_view_hold),
		cmocka_unit_test(test_view_load),
		cmocka_unit_test_setup_teardown(test_store_join_leave, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_lease, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_down, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_wipe, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_clash, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_other_name, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_next_life, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_wiped_next_life, sim_setup,
						sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_down_in_the_moment, sim_setup,
						sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_compact, sim_setup, sim_teardown),
		cmocka_unit_test_setup_teardown(test_store_delay, sim_setup, sim_teardown),
	};

	return cmocka_run_group_tests_name("member_view", tests, NULL, NULL);
}
