/* SPDX-License-Identifier: Apache-2.0 */
/* a shard of the directory beside a naive one; messages that no node would send */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "kvcache/cluster/wire.h"
#include "weft_internal/directory.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define TAGS 400u
#define HOLDERS 12u
#define STEPS 20000u
#define CHAIN 40u

struct fixture {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_directory *d;
	struct wfi_dir_view view; /* of another node, whose id is 1 */
	void *mem; /* for it, for reading */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct wfi_directory_opts o = { .bytes = 1u << 20 };
	const struct wfi_map *map;

	assert_non_null(f);
	assert_int_equal(wfi_sim_create(3, &f->sim), 0);
	f->env = wfi_sim_node(f->sim, 0);
	o.env = f->env;
	assert_int_equal(wfi_directory_create(&o, &f->d), 0);
	map = wfi_directory_map(f->d);
	f->mem = mmap(NULL, map->len, PROT_READ, MAP_SHARED, map->fd, 0);
	assert_true(f->mem != MAP_FAILED);
	assert_int_equal(wfi_dir_view_open(&f->view, f->mem, map->len, 1), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	munmap(f->mem, wfi_directory_map(f->d)->len);
	wfi_directory_destroy(f->d);
	wfi_sim_destroy(f->sim);
	free(f);
	return 0;
}

static uint64_t rnd(struct fixture *f, uint64_t below)
{
	return wfi_sim_rand(f->sim) % below;
}

static uint64_t tag_of(uint32_t i)
{
	const struct weft_key key = { .lo = wfi_mix64(i + 1), .hi = wfi_mix64(i + 7777) };

	return wfi_block_tag(99, &key);
}

static void poll_all(struct fixture *f)
{
	while (wfi_directory_busy(f->d))
		assert_int_equal(wfi_directory_poll(f->d), 1);
	assert_int_equal(wfi_directory_poll(f->d), 0);
}

/* ---- beside a naive one ---- */

struct model {
	bool has[2][HOLDERS][TAGS]; /* in memory, in the SSD tier */
	uint8_t number[HOLDERS];
};

/* Return: who of the model has that number; HOLDERS: nobody */
static unsigned who(const struct model *m, uint8_t number)
{
	unsigned h;

	for (h = 0; h < HOLDERS && m->number[h] != (number & ~WFI_DIR_SSD); h++)
		;
	return h;
}

/* places, of which a holder may have two */
static unsigned count_in(const struct model *m, unsigned tier, uint32_t tag, unsigned not )
{
	unsigned h, n = 0;

	for (h = 0; h < HOLDERS; h++)
		n += h != not &&m->has[tier][h][tag];
	return n;
}

static unsigned count_of(const struct model *m, uint32_t tag, unsigned not )
{
	return count_in(m, 0, tag, not ) + count_in(m, 1, tag, not );
}

/* all that is said is so, and what has up to eight holders is said */
static void chain_check(struct fixture *f, const struct model *m)
{
	const uint32_t nr = 1 + (uint32_t)rnd(f, CHAIN), first = (uint32_t)rnd(f, TAGS - nr);
	const unsigned not = (unsigned)rnd(f, HOLDERS);
	struct wfi_dir_run runs[CHAIN];
	uint64_t tags[CHAIN];
	uint32_t i, k, n, end = 0;
	bool said[CHAIN] = { false };

	for (i = 0; i < nr; i++)
		tags[i] = tag_of(first + i);
	n = wfi_directory_find(f->d, tags, nr, m->number[not ], (uint32_t)rnd(f, 9), runs, CHAIN);
	for (i = 0; i < n; i++) {
		const unsigned h = who(m, runs[i].holder), o = who(m, runs[i].other);

		assert_true(runs[i].nr && runs[i].first >= end);
		end = runs[i].first + runs[i].nr;
		assert_true(end <= nr);
		assert_true(h < HOLDERS && h != not &&h != o);
		assert_true(runs[i].other == WFI_DIR_NOBODY || (o < HOLDERS && o != not ));
		for (k = runs[i].first; k < end; k++) {
			said[k] = true;
			assert_true(m->has[runs[i].holder & WFI_DIR_SSD][h][first + k]);
			assert_true(o == HOLDERS ||
				    m->has[runs[i].other & WFI_DIR_SSD][o][first + k]);
		}
		/* nobody is sent to a drive where memory has the same */
		if (runs[i].holder & WFI_DIR_SSD && runs[i].nr == 1)
			assert_int_equal(count_in(m, 0, first + runs[i].first, not ), 0);
	}
	for (i = 0; i < nr; i++)
		assert_int_equal(said[i], count_of(m, first + i, not ) != 0);
}

/* who looks itself sees what it would be answered */
static void view_check(struct fixture *f, const struct model *m)
{
	const uint32_t nr = 1 + (uint32_t)rnd(f, CHAIN), first = (uint32_t)rnd(f, TAGS - nr);
	const uint32_t turn = (uint32_t)rnd(f, 9);
	struct wfi_dir_run seen[CHAIN], said[CHAIN];
	uint64_t tags[CHAIN];
	uint32_t i, n;

	for (i = 0; i < nr; i++)
		tags[i] = tag_of(first + i);
	n = wfi_dir_view_find(&f->view, tags, nr, turn, seen, CHAIN);
	assert_int_equal(n, wfi_directory_find(f->d, tags, nr, m->number[0], turn, said, CHAIN));
	for (i = 0; i < n; i++) {
		assert_int_equal(seen[i].first, said[i].first);
		assert_int_equal(seen[i].nr, said[i].nr);
		assert_int_equal(seen[i].holder, said[i].holder);
		assert_int_equal(seen[i].other, said[i].other);
		assert_int_equal(wfi_dir_view_node(&f->view, seen[i].holder),
				 who(m, seen[i].holder) + 1);
	}
}

/* all of it: each holder's runs in order, memory before the SSD tier, and nothing left out */
static void holders_check(struct fixture *f, const struct model *m)
{
	const uint32_t nr = 1 + (uint32_t)rnd(f, CHAIN), first = (uint32_t)rnd(f, TAGS - nr);
	static struct wfi_dir_run runs[CHAIN * HOLDERS];
	uint8_t said[HOLDERS][CHAIN] = { 0 };
	uint32_t ends[HOLDERS] = { 0 };
	uint64_t tags[CHAIN];
	uint32_t i, k, n;
	unsigned h;

	for (i = 0; i < nr; i++)
		tags[i] = tag_of(first + i);
	n = wfi_directory_holders(f->d, tags, nr, runs, WFI_ARRAY_SIZE(runs));
	for (i = 0; i < n; i++) {
		h = who(m, runs[i].holder);
		assert_true(h < HOLDERS && runs[i].nr && runs[i].first >= ends[h]);
		ends[h] = runs[i].first + runs[i].nr;
		assert_true(ends[h] <= nr);
		for (k = runs[i].first; k < ends[h]; k++)
			said[h][k] = 1 + (runs[i].holder & WFI_DIR_SSD);
	}
	for (h = 0; h < HOLDERS; h++)
		for (k = 0; k < nr; k++)
			assert_int_equal(said[h][k], m->has[0][h][first + k]   ? 1
						     : m->has[1][h][first + k] ? 2
									       : 0);
	/* less room: what is said is still so */
	n = wfi_directory_holders(f->d, tags, nr, runs, 3);
	assert_true(n <= 3);
	for (i = 0; i < n; i++)
		for (k = runs[i].first; k < runs[i].first + runs[i].nr; k++)
			assert_true(m->has[runs[i].holder & WFI_DIR_SSD][who(m, runs[i].holder)]
					  [first + k]);
}

static void holder_again(struct fixture *f, struct model *m, unsigned h)
{
	int number;

	if (m->number[h])
		wfi_directory_leave(f->d, m->number[h]);
	number = wfi_directory_join(f->d, h + 1);
	if (number == -ENOSPC) {
		poll_all(f);
		number = wfi_directory_join(f->d, h + 1);
	}
	assert_true(number > 0);
	m->number[h] = (uint8_t)number;
	memset(m->has[0][h], 0, sizeof(m->has[0][h]));
	memset(m->has[1][h], 0, sizeof(m->has[1][h]));
}

static void test_model(void **state)
{
	struct fixture *f = *state;
	static struct model m;
	uint64_t changes[16];
	uint32_t step, i, nr;
	unsigned h;

	for (h = 0; h < HOLDERS; h++)
		holder_again(f, &m, h);
	for (step = 0; step < STEPS; step++) {
		h = (unsigned)rnd(f, HOLDERS);
		nr = (uint32_t)rnd(f, WFI_ARRAY_SIZE(changes));
		for (i = 0; i < nr; i++) {
			const uint32_t tag = (uint32_t)rnd(f, TAGS);
			/* a bucket has room for eight holders: more are not what this is about */
			const bool gone = rnd(f, 2) || count_of(&m, tag, HOLDERS) > 6;
			const unsigned ssd = (unsigned)rnd(f, 2);

			m.has[ssd][h][tag] = !gone;
			changes[i] = tag_of(tag) | (gone ? WFI_TAG_GONE : 0) |
				     (ssd ? WFI_TAG_SSD : 0);
		}
		wfi_directory_update(f->d, m.number[h], changes, nr);
		if (!rnd(f, 100))
			holder_again(f, &m, h);
		if (!rnd(f, 50))
			wfi_directory_poll(f->d);
		chain_check(f, &m);
		view_check(f, &m);
		holders_check(f, &m);
	}
}

/* numbers come back, and with them nothing of who had them before */
static void test_numbers_return(void **state)
{
	struct fixture *f = *state;
	uint64_t tag = tag_of(1);
	struct wfi_dir_run run;
	unsigned i;
	int number = 0;

	for (i = 0; i < 3 * WFI_DIR_HOLDERS; i++) {
		number = wfi_directory_join(f->d, 1);
		if (number == -ENOSPC) {
			poll_all(f);
			number = wfi_directory_join(f->d, 1);
		}
		assert_true(number > 0);
		assert_int_equal(wfi_directory_find(f->d, &tag, 1, 0, i, &run, 1), 0);
		wfi_directory_update(f->d, (uint8_t)number, &tag, 1);
		assert_int_equal(wfi_directory_find(f->d, &tag, 1, 0, i, &run, 1), 1);
		assert_int_equal(run.holder, number);
		wfi_directory_leave(f->d, (uint8_t)number);
	}
	poll_all(f);
}

/* more than there is room for pushes others out, and nothing else */
static void test_full(void **state)
{
	struct fixture *f = *state;
	const struct wfi_directory_opts o = { .env = f->env, .bytes = 4096 };
	struct wfi_directory_stat st;
	struct wfi_directory *d;
	struct wfi_dir_run run;
	uint32_t i, found = 0;
	uint64_t tag;
	int number;

	assert_int_equal(wfi_directory_create(&o, &d), 0);
	number = wfi_directory_join(d, 1);
	for (i = 0; i < 10000; i++) {
		tag = tag_of(i);
		wfi_directory_update(d, (uint8_t)number, &tag, 1);
	}
	wfi_directory_stat(d, &st);
	assert_int_equal(st.blocks, 4096 / 16);
	assert_int_equal(st.pushed_out, 10000 - 4096 / 16);
	for (i = 0; i < 10000; i++) {
		tag = tag_of(i);
		found += wfi_directory_find(d, &tag, 1, 0, 0, &run, 1);
	}
	assert_int_equal(found, st.blocks);
	wfi_directory_destroy(d);
}

/* whatever a peer says in tags: 0, everything set, one thing many times */
/* who looks does not tell two tags of one place apart that differ below alone; the owner does */
static void test_upper_halves(void **state)
{
	struct fixture *f = *state;
	const uint64_t tags[2] = { tag_of(1), tag_of(1) ^ 1ull << 31 };
	const uint64_t gone[2] = { tags[0] | WFI_TAG_GONE, tags[1] | WFI_TAG_GONE };
	const uint8_t a = (uint8_t)wfi_directory_join(f->d, 2);
	const uint8_t b = (uint8_t)wfi_directory_join(f->d, 3);
	struct wfi_directory_stat st;
	struct wfi_dir_run run;

	wfi_directory_update(f->d, a, &tags[0], 1);
	wfi_directory_update(f->d, b, &tags[1], 1);
	wfi_directory_update(f->d, b, &gone[0], 1);
	wfi_directory_stat(f->d, &st);
	assert_int_equal(st.blocks, 2);
	wfi_directory_update(f->d, a, &gone[0], 1);
	wfi_directory_stat(f->d, &st);
	assert_int_equal(st.blocks, 1);
	assert_int_equal(wfi_dir_view_find(&f->view, &tags[1], 1, 0, &run, 1), 1);
	assert_int_equal(run.holder, b);
	wfi_directory_update(f->d, b, &gone[1], 1);
	assert_int_equal(wfi_dir_view_find(&f->view, &tags[1], 1, 0, &run, 1), 0);
	/* no tag is like what an empty place has */
	assert_true(wfi_block_tag(0, &(struct weft_key){ .lo = 0 }) >> 32);
}

static void test_odd_tags(void **state)
{
	struct fixture *f = *state;
	const uint64_t odd[] = { 0, 1, UINT64_MAX, UINT64_MAX, UINT64_MAX - 1, 2, 3, 2, 2 };
	struct wfi_dir_run runs[WFI_ARRAY_SIZE(odd)];
	const int number = wfi_directory_join(f->d, 1);

	wfi_directory_update(f->d, (uint8_t)number, odd, WFI_ARRAY_SIZE(odd));
	assert_true(wfi_directory_find(f->d, odd, WFI_ARRAY_SIZE(odd), 0, 0, runs,
				       WFI_ARRAY_SIZE(odd)) <= WFI_ARRAY_SIZE(odd));
	assert_int_equal(wfi_directory_find(f->d, odd, WFI_ARRAY_SIZE(odd), 0, 0, runs, 0), 0);
	wfi_directory_leave(f->d, (uint8_t)number);
	wfi_directory_leave(f->d, (uint8_t)number);
	poll_all(f);
}

/* what a peer maps for its shard is input */
static void test_view_odd(void **state)
{
	struct fixture *f = *state;
	const uint64_t len = wfi_directory_map(f->d)->len;
	uint64_t *words = aligned_alloc(128, wfi_align_up(len, 128));
	struct wfi_dir_view view = { .sh = NULL };
	struct wfi_dir_run runs[CHAIN];
	uint64_t tags[CHAIN];
	uint32_t i, n, k;

	assert_non_null(words);
	memcpy(words, f->mem, len);
	assert_int_equal(wfi_dir_view_open(&view, words, 64, 1), -EPROTO);
	assert_int_equal(wfi_dir_view_open(&view, words, len / 2, 1), -EPROTO);
	words[1] *= 2;
	assert_int_equal(wfi_dir_view_open(&view, words, len, 1), -EPROTO);
	words[1] -= 1;
	assert_int_equal(wfi_dir_view_open(&view, words, len, 1), -EPROTO);
	words[1] = 0;
	assert_int_equal(wfi_dir_view_open(&view, words, len, 1), -EPROTO);
	memcpy(words, f->mem, 16);
	words[0]++;
	assert_int_equal(wfi_dir_view_open(&view, words, len, 1), -EPROTO);
	memcpy(words, f->mem, 16);
	assert_int_equal(wfi_dir_view_open(&view, words, len, 1), 0);
	assert_int_equal(wfi_dir_view_node(&view, WFI_DIR_NOBODY), 0);
	for (i = 0; i < CHAIN; i++)
		tags[i] = tag_of(i);
	for (i = 2; i < len / sizeof(*words); i++)
		words[i] = rnd(f, 2) ? rnd(f, UINT64_MAX) : tag_of((uint32_t)rnd(f, CHAIN));
	n = wfi_dir_view_find(&view, tags, CHAIN, 0, runs, CHAIN);
	for (i = 0; i < n; i++) {
		assert_true(runs[i].first + runs[i].nr <= CHAIN);
		for (k = 0; k < 256; k++)
			(void)wfi_dir_view_node(&view, (uint8_t)k);
	}
	free(words);
}

/* ---- messages ---- */

static void test_wire(void **state)
{
	union cluster_msg m, in;
	uint32_t type;
	size_t len;

	(void)state;
	for (type = CLUSTER_TYPE_FIRST; type < CLUSTER_TYPE_END; type++) {
		memset(&m, 0, sizeof(m));
		len = cluster_msg_head(&m, (enum cluster_type)type, 0, 7);
		assert_int_equal(cluster_msg_take(&in, &m, len), 0);
		assert_int_equal(cluster_msg_take(&in, &m, len - 1), -EPROTO);
		assert_int_equal(cluster_msg_take(&in, &m, len + 1), -EPROTO);
		m.head.nr = 1;
		assert_int_equal(cluster_msg_take(&in, &m, len), -EPROTO);
		m.head.nr = 0;
		m.head.flags = 1u << 31;
		assert_int_equal(cluster_msg_take(&in, &m, len), -EPROTO);
		m.head.flags = 0;
		m.head.version++;
		assert_int_equal(cluster_msg_take(&in, &m, len), -EPROTO);
		m.head.version--;
		m.head.type = CLUSTER_TYPE_END;
		assert_int_equal(cluster_msg_take(&in, &m, len), -EPROTO);
	}
	assert_int_equal(cluster_msg_take(&in, &m, 0), -EPROTO);
	assert_int_equal(cluster_msg_take(&in, &m, sizeof(m) + 1), -EPROTO);
}

/* what is accepted has items for all that its head counts */
static void test_wire_garbled(void **state)
{
	struct fixture *f = *state;
	union cluster_msg m, in;
	uint32_t i, k, good = 0;
	size_t len;

	for (i = 0; i < 100000; i++) {
		for (k = 0; k < WFI_ARRAY_SIZE(m.words); k += 64)
			m.words[k] = rnd(f, UINT64_MAX);
		len = cluster_msg_head(
			&m,
			(enum cluster_type)(CLUSTER_TYPE_FIRST +
					    rnd(f, CLUSTER_TYPE_END - CLUSTER_TYPE_FIRST)),
			(uint32_t)rnd(f, 20), rnd(f, UINT64_MAX));
		((uint8_t *)&m)[rnd(f, sizeof(m.head))] ^= (uint8_t)(1u << rnd(f, 8));
		if (cluster_msg_take(&in, &m, len))
			continue;
		good++;
		assert_int_equal(in.head.len, len);
		assert_true(in.head.nr <= CLUSTER_TAGS_MAX);
	}
	/* the id is anybody's */
	assert_true(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_numbers_return, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upper_halves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_tags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_view_odd, setup, teardown),
		cmocka_unit_test(test_wire),
		cmocka_unit_test_setup_teardown(test_wire_garbled, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
