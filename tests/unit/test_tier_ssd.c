/* SPDX-License-Identifier: Apache-2.0 */
/* the SSD tier by itself: what is put comes back or is a miss, over restarts, rot and bad drives */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "kvcache/tier_ssd.h"
#include "weft_internal/log.h"

#define NODE 7u
#define TAG 0x1234u
#define BYTES (4u << 20)
#define BLOCK 8192u
#define PATH "tier"

struct fixture {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct wfi_tier *tier;
	uint8_t *out; /* aligned */
};

static struct weft_key key_of(uint64_t n)
{
	return (struct weft_key){ .lo = n * 0x9e3779b97f4a7c15ull + 1, .hi = n + 1 };
}

static void fill(uint8_t *buf, uint64_t n, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		buf[i] = (uint8_t)((n * 31 + i) ^ (i >> 8));
}

static void run(struct fixture *f)
{
	struct wfi_tier_stat st;

	for (unsigned i = 0; i < 20000; i++) {
		wfi_sim_advance(f->sim, 100000);
		f->tier->ops->poll(f->tier, wfi_now(f->env));
		f->tier->ops->stat(f->tier, &st);
		if (!st.queued && st.state != WFI_TIER_OPENING)
			return;
	}
	fail_msg("the tier does not come to rest");
}

static void tier_open(struct fixture *f, uint64_t node)
{
	const struct wfi_tier_ssd_opts o = {
		.env = f->env, .path = PATH, .bytes = BYTES, .node = node, .chunk_bytes = 1u << 18
	};

	if (f->tier)
		f->tier->ops->close(f->tier);
	assert_int_equal(wfi_tier_ssd_open(&o, &f->tier), 0);
}

static void reopen(struct fixture *f, uint64_t node)
{
	tier_open(f, node);
	run(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_int_equal(wfi_sim_create(1, &f->sim), 0);
	f->env = wfi_sim_node(f->sim, 0);
	f->out = aligned_alloc(4096, 1u << 20);
	reopen(f, NODE);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->tier)
		f->tier->ops->close(f->tier);
	wfi_sim_destroy(f->sim);
	free(f->out);
	free(f);
	return 0;
}

static void took(void *ctx, int res)
{
	*(int *)ctx = res;
}

static int put_of(struct fixture *f, uint64_t tag, uint64_t n, uint32_t len)
{
	struct wfi_tier_block b = { .key = key_of(n), .space_tag = tag, .len = len };
	uint8_t *buf = aligned_alloc(4096, wfi_align_up(len, 4096));
	int res = 1, ret;

	if (n)
		b.parent = key_of(n - 1);
	fill(buf, n, len);
	b.crc = wfi_crc32c(0, buf, len);
	ret = f->tier->ops->put(f->tier, &b, buf, took, &res);
	if (!ret)
		run(f);
	free(buf);
	return ret ? ret : res;
}

static int put(struct fixture *f, uint64_t n, uint32_t len)
{
	return put_of(f, TAG, n, len);
}

/* Return: 0 with the right bytes, or why not */
static int get(struct fixture *f, uint64_t n, uint32_t len)
{
	const struct weft_key key = key_of(n);
	int res = 1, ret;
	uint32_t slot;
	uint8_t *want;

	f->tier->ops->find(f->tier, TAG, &key, 1, &slot);
	if (slot == WFI_SLOT_NONE)
		return -ENOENT;
	memset(f->out, 0, len);
	ret = f->tier->ops->get(f->tier, slot, f->out, took, &res);
	if (ret)
		return ret;
	run(f);
	if (res)
		return res;
	want = malloc(len);
	fill(want, n, len);
	assert_memory_equal(f->out, want, len);
	free(want);
	return 0;
}

static struct wfi_tier_stat stat_of(struct fixture *f)
{
	struct wfi_tier_stat st;

	f->tier->ops->stat(f->tier, &st);
	return st;
}

static void test_put_get(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put(f, 1, BLOCK), 0);
	assert_int_equal(put(f, 1, BLOCK), -EEXIST);
	assert_int_equal(put(f, 2, 1000), 0);
	assert_int_equal(get(f, 1, BLOCK), 0);
	assert_int_equal(get(f, 2, 1000), 0);
	assert_int_equal(get(f, 3, BLOCK), -ENOENT);
	assert_int_equal(put(f, 4, 1u << 19), -E2BIG);
}

static void test_restart(void **state)
{
	struct fixture *f = *state;

	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(put(f, n, n % 3 ? BLOCK : 5000), 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).recovered, 100);
	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(get(f, n, n % 3 ? BLOCK : 5000), 0);
}

static void test_drop_stays(void **state)
{
	struct fixture *f = *state;
	const struct weft_key key = key_of(1);

	assert_int_equal(put(f, 1, BLOCK), 0);
	assert_true(f->tier->ops->drop(f->tier, TAG, &key));
	assert_false(f->tier->ops->drop(f->tier, TAG, &key));
	run(f);
	reopen(f, NODE);
	assert_int_equal(get(f, 1, BLOCK), -ENOENT);
}

/* before it was found, that is: the rest is there; without memory to note it, nothing is */
static void test_drop_while_opening(void **state)
{
	struct fixture *f = *state;
	struct wfi_sim_faults faults = { 0 };

	for (uint64_t n = 0; n < 200; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	for (int round = 0; round < 2; round++) {
		tier_open(f, NODE);
		assert_int_equal(stat_of(f).state, WFI_TIER_OPENING);
		for (uint64_t n = 0; n < 100; n++) {
			const struct weft_key key = key_of(n);

			faults.alloc_fail_nth = round && n == 64;
			wfi_sim_set_faults(f->sim, &faults);
			assert_false(f->tier->ops->drop(f->tier, TAG, &key));
		}
		run(f);
		for (uint64_t n = 0; n < 200; n++)
			assert_int_equal(get(f, n, BLOCK), n < 100 || round ? -ENOENT : 0);
	}
	tier_open(f, NODE);
	run(f);
	assert_int_equal(stat_of(f).recovered, 0);
}

static void test_evicts(void **state)
{
	struct fixture *f = *state;
	uint64_t n, held = 0;

	for (n = 0; n < 2000; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	assert_true(stat_of(f).evicted > 1000);
	for (n = 0; n < 2000; n++)
		held += !get(f, n, BLOCK);
	assert_int_equal(held, stat_of(f).blocks);
	/* another size takes chunks of the first */
	for (n = 0; n < 500; n++)
		assert_int_equal(put(f, 10000 + n, 3 * BLOCK), 0);
	assert_int_equal(get(f, 10499, 3 * BLOCK), 0);
	reopen(f, NODE);
	for (n = 0; n < 500; n++)
		held += !get(f, 10000 + n, 3 * BLOCK);
	assert_true(held > stat_of(f).blocks / 2);
}

static void test_next(void **state)
{
	struct fixture *f = *state;
	struct weft_key key = key_of(5);
	struct wfi_tier_block b;
	uint32_t slot;

	for (uint64_t n = 10; n--;)
		assert_int_equal(put(f, n, BLOCK), 0);
	f->tier->ops->find(f->tier, TAG, &key, 1, &slot);
	slot = f->tier->ops->next(f->tier, slot);
	assert_int_not_equal(slot, WFI_SLOT_NONE);
	f->tier->ops->block(f->tier, slot, &b);
	key = key_of(6);
	assert_memory_equal(&b.key, &key, sizeof(key));
}

/* both copies of the file's head, as somebody wrote them who can sum up, too */
static void super_forge(struct fixture *f, uint32_t version, uint64_t used_pages)
{
	struct ssd_super *super;
	uint64_t len;

	super = (struct ssd_super *)wfi_sim_file(f->sim, 0, PATH, &len);
	for (unsigned i = 0; i < 2; i++, super = (void *)((uint8_t *)super + SSD_PAGE)) {
		super->version = version;
		super->used_pages = used_pages;
		super->crc = wfi_crc32c(0, super, offsetof(struct ssd_super, crc));
	}
}

static void test_refuses_others(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(put(f, 1, BLOCK), 0);
	reopen(f, NODE + 1);
	assert_int_equal(stat_of(f).state, WFI_TIER_REFUSED);
	assert_non_null(strstr(stat_of(f).why, "node"));
	assert_int_equal(put(f, 2, BLOCK), -EIO);
	reopen(f, NODE);
	assert_int_equal(get(f, 1, BLOCK), 0);
	super_forge(f, 2, 1);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).state, WFI_TIER_REFUSED);
	assert_non_null(strstr(stat_of(f).why, "version"));
	/* no page of headers: nothing whose reading could end recovery */
	super_forge(f, SSD_VERSION, 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).state, WFI_TIER_REFUSED);
}

static void test_two_nodes(void **state)
{
	struct fixture *f = *state;
	const struct wfi_tier_ssd_opts o = {
		.env = f->env, .path = PATH, .bytes = BYTES, .node = NODE
	};
	struct wfi_tier *second;

	assert_int_equal(wfi_tier_ssd_open(&o, &second), -EBUSY);
}

static void test_truncated(void **state)
{
	struct fixture *f = *state;

	for (uint64_t n = 0; n < 100; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	assert_int_equal(wfi_sim_truncate(f->sim, 0, PATH, 1u << 20), 0);
	for (uint64_t n = 0; n < 100; n++)
		get(f, n, BLOCK);
	assert_true(stat_of(f).bad[WFI_TIER_BAD_SHORT] > 0);
	/* the next start makes room again, and nothing that was cut is held as if it was there */
	reopen(f, NODE);
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	for (uint64_t n = 0; n < 100; n++)
		get(f, n, BLOCK);
	for (uint64_t n = 0; n < 100; n++)
		assert_true(put(f, n, BLOCK) == 0 || get(f, n, BLOCK) == 0);
}

static void test_device_fails(void **state)
{
	struct fixture *f = *state;
	struct wfi_sim_faults faults = { .disk_error_ppm = 1000000 };

	for (uint64_t n = 0; n < 40; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	wfi_sim_set_faults(f->sim, &faults);
	for (uint64_t n = 0; n < 20; n++)
		assert_int_not_equal(get(f, n, BLOCK), 0);
	assert_int_equal(stat_of(f).state, WFI_TIER_FAILED);
	assert_int_equal(put(f, 100, BLOCK), -EIO);
	wfi_sim_set_faults(f->sim, &(struct wfi_sim_faults){ 0 });
	for (unsigned i = 0; i < 100 && stat_of(f).state != WFI_TIER_OK; i++) {
		wfi_sim_advance(f->sim, WFI_NSEC_PER_SEC);
		run(f);
	}
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	assert_int_equal(get(f, 39, BLOCK), 0);
	/* retired slots come back with the next start */
	assert_true(stat_of(f).retired > 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).retired, 0);
}

static void test_device_full(void **state)
{
	struct fixture *f = *state;
	struct wfi_sim_faults faults = { .disk_full_ppm = 1000000 };

	assert_int_equal(put(f, 1, BLOCK), 0);
	wfi_sim_set_faults(f->sim, &faults);
	assert_int_equal(put(f, 2, BLOCK), -ENOSPC);
	assert_int_equal(stat_of(f).state, WFI_TIER_FULL);
	assert_int_equal(get(f, 1, BLOCK), 0);
	wfi_sim_set_faults(f->sim, &(struct wfi_sim_faults){ 0 });
	wfi_sim_advance(f->sim, 2 * WFI_NSEC_PER_SEC);
	run(f);
	assert_int_equal(put(f, 2, BLOCK), 0);
	assert_int_equal(stat_of(f).retired, 0);
}

static void test_short_io(void **state)
{
	struct fixture *f = *state;
	struct wfi_sim_faults faults = { .disk_short_ppm = 300000 };
	unsigned good = 0;

	wfi_sim_set_faults(f->sim, &faults);
	for (uint64_t n = 0; n < 50; n++)
		good += !put(f, n, 16 * BLOCK) && !get(f, n, 16 * BLOCK);
	assert_true(good > 5);
}

static void test_resize(void **state)
{
	struct fixture *f = *state;
	const uint64_t before = stat_of(f).bytes;

	for (uint64_t n = 0; n < 1000; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	assert_int_equal(f->tier->ops->resize(f->tier, 2 * BYTES), 0);
	for (uint64_t n = 1000; n < 2000; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	assert_true(stat_of(f).bytes > 2 * before);
	assert_true(stat_of(f).bytes_held > before);
	assert_int_equal(f->tier->ops->resize(f->tier, BYTES / 2), 0);
	for (unsigned i = 0; i < 100; i++)
		run(f);
	assert_true(stat_of(f).bytes < BYTES / 2);
	for (uint64_t n = 0; n < 2000; n++)
		assert_true(get(f, n, BLOCK) == 0 || get(f, n, BLOCK) == -ENOENT);
	for (uint64_t n = 3000; n < 3500; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
	assert_true(stat_of(f).bytes_held <= stat_of(f).bytes);
	reopen(f, NODE);
	assert_int_equal(get(f, 3499, BLOCK), 0);
	assert_int_equal(f->tier->ops->resize(f->tier, 100 * BYTES), -EINVAL);
}

/* ---- the scrubber ---- */

static uint32_t slot_of(struct fixture *f, uint64_t n)
{
	const struct weft_key key = key_of(n);
	uint32_t slot;

	f->tier->ops->find(f->tier, TAG, &key, 1, &slot);
	return slot;
}

static uint8_t *body_of(struct fixture *f, uint32_t slot)
{
	uint64_t len;

	return wfi_sim_file(f->sim, 0, PATH, &len) + ssd_slot_off(to_ssd(f->tier), slot);
}

static struct ssd_header *header_of(struct fixture *f, uint32_t slot)
{
	uint64_t len;

	return (struct ssd_header *)(wfi_sim_file(f->sim, 0, PATH, &len) +
				     SSD_SUPER_PAGES * SSD_PAGE) +
	       slot;
}

/* until @nr more blocks were looked at, or @bad more were found; nobody asks for one meanwhile */
static void scrub(struct fixture *f, uint64_t nr, enum wfi_tier_bad kind, uint64_t bad)
{
	const struct wfi_tier_stat before = stat_of(f);
	struct ssd *s = to_ssd(f->tier);

	s->scrub_bps = 1u << 30;
	for (unsigned i = 0; stat_of(f).scrubbed < before.scrubbed + nr &&
			     (!bad || stat_of(f).bad[kind] < before.bad[kind] + bad);
	     i++) {
		assert_in_range(i, 0, 100000);
		wfi_sim_advance(f->sim, WFI_NSEC_PER_MSEC / 10);
		f->tier->ops->poll(f->tier, wfi_now(f->env));
	}
	s->scrub_bps = 0;
}

static void put_all(struct fixture *f, uint64_t first, uint64_t nr)
{
	for (uint64_t n = first; n < first + nr; n++)
		assert_int_equal(put(f, n, BLOCK), 0);
}

/* whether blocks put from now on, more than there is room for, ever come to lie in a slot */
static bool used_again(struct fixture *f, uint32_t slot, uint64_t first)
{
	bool used = false;

	for (uint64_t n = first; n < first + 2 * BYTES / BLOCK; n++) {
		assert_int_equal(put(f, n, BLOCK), 0);
		used |= slot_of(f, n) == slot;
	}
	return used;
}

/* what this life wrote and cannot be read back is the drive's fault: found before anybody asks,
 * and the slot has no block any more until the next start */
static void test_scrub_body(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put_all(f, 0, 20);
	slot = slot_of(f, 3);
	body_of(f, slot)[77] ^= 1;
	scrub(f, 20, WFI_TIER_BAD_BODY, 0);
	run(f);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_BODY], 1);
	assert_int_equal(stat_of(f).retired, 1);
	assert_int_equal(get(f, 3, BLOCK), -ENOENT);
	for (uint64_t n = 0; n < 20; n++)
		assert_int_equal(get(f, n, BLOCK), n == 3 ? -ENOENT : 0);
	/* its header is wiped, so that no start believes it */
	assert_int_equal(header_of(f, slot)->magic, 0);
	assert_false(used_again(f, slot, 1000));
	assert_int_equal(stat_of(f).retired, 1);
	/* the next start tries it: none is lost for good */
	reopen(f, NODE);
	assert_int_equal(stat_of(f).retired, 0);
	assert_int_equal(get(f, 3, BLOCK), -ENOENT);
	assert_true(used_again(f, slot, 10000));
}

/* a slot that is still bad is retired in the next life as well */
static void test_scrub_again(void **state)
{
	struct fixture *f = *state;

	for (unsigned life = 0; life < 3; life++) {
		const uint64_t first = 100 * life;

		put_all(f, first, 20);
		body_of(f, slot_of(f, first + 3))[77] ^= 1;
		scrub(f, 100, WFI_TIER_BAD_BODY, 1);
		run(f);
		assert_int_equal(stat_of(f).retired, 1);
		assert_int_equal(get(f, first + 3, BLOCK), -ENOENT);
		assert_int_equal(get(f, first + 4, BLOCK), 0);
		reopen(f, NODE);
	}
}

/* what an earlier life wrote may have been torn by its end: the slot is as good as any */
static void test_scrub_torn(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put_all(f, 0, 20);
	reopen(f, NODE);
	slot = slot_of(f, 3);
	body_of(f, slot)[BLOCK - 1] ^= 0x80;
	scrub(f, 20, WFI_TIER_BAD_BODY, 0);
	run(f);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_BODY], 1);
	assert_int_equal(stat_of(f).retired, 0);
	assert_int_equal(stat_of(f).blocks, 19);
	assert_int_equal(get(f, 3, BLOCK), -ENOENT);
	assert_true(used_again(f, slot, 1000));
}

static void test_scrub_read_error(void **state)
{
	struct fixture *f = *state;
	const struct wfi_sim_faults faults = { .disk_error_ppm = 1000000 };
	uint32_t slots[20], slot = SSD_NONE;

	put_all(f, 0, 20);
	for (uint64_t n = 0; n < 20; n++)
		slots[n] = slot_of(f, n);
	wfi_sim_set_faults(f->sim, &faults);
	scrub(f, 20, WFI_TIER_BAD_READ, 1);
	wfi_sim_set_faults(f->sim, &(struct wfi_sim_faults){ 0 });
	wfi_sim_advance(f->sim, WFI_NSEC_PER_SEC);
	run(f);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_READ], 1);
	assert_int_equal(stat_of(f).retired, 1);
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	for (uint64_t n = 0; n < 20; n++) {
		if (slot_of(f, n) == WFI_SLOT_NONE)
			slot = slots[n];
		else
			assert_int_equal(get(f, n, BLOCK), 0);
	}
	assert_int_not_equal(slot, SSD_NONE);
	assert_int_equal(stat_of(f).blocks, 19);
	assert_false(used_again(f, slot, 1000));
	reopen(f, NODE);
	assert_int_equal(stat_of(f).retired, 0);
	assert_true(used_again(f, slot, 10000));
}

/* a header is looked at by starts alone: its block is not believed, its slot is free */
static void test_rot_in_header(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put_all(f, 0, 20);
	slot = slot_of(f, 3);
	header_of(f, slot)->key.lo ^= 1u << 9;
	/* in this life nothing hangs on it */
	scrub(f, 40, WFI_TIER_BAD_BODY, 0);
	assert_int_equal(get(f, 3, BLOCK), 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_HEADER], 1);
	assert_int_equal(stat_of(f).recovered, 19);
	assert_int_equal(stat_of(f).retired, 0);
	for (uint64_t n = 0; n < 20; n++)
		assert_int_equal(get(f, n, BLOCK), n == 3 ? -ENOENT : 0);
	assert_true(used_again(f, slot, 1000));
}

/* zero is no key: no block is to come of it, whatever the checksum says */
static void test_forged_key(void **state)
{
	struct fixture *f = *state;
	const struct weft_key zero = { 0 };
	struct ssd_header *h;
	uint32_t slot;

	put_all(f, 0, 20);
	h = header_of(f, slot_of(f, 3));
	h->key = zero;
	h->crc = wfi_crc32c(0, h, offsetof(struct ssd_header, crc));
	reopen(f, NODE);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_HEADER], 1);
	assert_int_equal(stat_of(f).recovered, 19);
	f->tier->ops->find(f->tier, TAG, &zero, 1, &slot);
	assert_int_equal(slot, WFI_SLOT_NONE);
}

/* a lease keeps a bad block's slot from being used, not its bytes from being found out */
static void test_scrub_leased(void **state)
{
	struct fixture *f = *state;
	uint32_t slot;

	put_all(f, 0, 20);
	reopen(f, NODE);
	slot = slot_of(f, 3);
	assert_int_equal(f->tier->ops->keep(f->tier, slot, BYTES), 0);
	body_of(f, slot)[5] ^= 2;
	scrub(f, 20, WFI_TIER_BAD_BODY, 0);
	run(f);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_BODY], 1);
	assert_int_equal(get(f, 3, BLOCK), -ENOENT);
	assert_false(used_again(f, slot, 1000));
	f->tier->ops->unkeep(f->tier, slot);
	assert_true(used_again(f, slot, 10000));
}

/* one of several reads of a slot finds it bad: it is nobody's to have before the last is over */
static void test_bad_while_read(void **state)
{
	const uint32_t whole = 1u << 18;
	struct fixture *f = *state;
	struct ssd *s = to_ssd(f->tier);
	int res[3] = { 1, 1, 1 }, ret = -EAGAIN;
	uint8_t *out = aligned_alloc(4096, 3 * whole);
	uint32_t slot;

	for (uint64_t n = 0; s->nr_free_chunks; n++)
		assert_int_equal(put(f, n, whole), 0);
	/* whose chunk is the first to be taken for blocks of another size */
	slot = s->chunks[1].first;
	body_of(f, slot)[7] ^= 1;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(f->tier->ops->get(f->tier, slot, out + i * whole, took, &res[i]),
				 0);
	/* one turn checks no more than two of them: the third is still to come */
	for (unsigned i = 0; i < 100 && res[1] == 1; i++) {
		wfi_sim_advance(f->sim, WFI_NSEC_PER_MSEC);
		f->tier->ops->poll(f->tier, wfi_now(f->env));
	}
	assert_true(res[0] < 0 && res[1] < 0 && res[2] == 1);
	assert_int_equal(stat_of(f).retired, 1);
	for (unsigned i = 0; i < 100 && ret == -EAGAIN; i++)
		ret = put(f, 1000, 3 * BLOCK);
	assert_int_equal(ret, 0);
	run(f);
	assert_true(res[2] < 0);
	assert_int_equal(get(f, 1000, 3 * BLOCK), 0);
	for (uint32_t i = 0; i < s->super.nr_pages * SSD_PAGE_SLOTS; i++)
		assert_int_equal(s->slots[i].pins, 0);
	free(out);
}

/* the end of a file is nobody's fault that a slot could bear */
static void test_scrub_cut(void **state)
{
	struct fixture *f = *state;

	put_all(f, 0, 20);
	assert_int_equal(wfi_sim_truncate(f->sim, 0, PATH, ssd_slot_off(to_ssd(f->tier), 0)), 0);
	scrub(f, 40, WFI_TIER_BAD_SHORT, 7);
	assert_true(stat_of(f).bad[WFI_TIER_BAD_SHORT] >= 7);
	assert_int_equal(stat_of(f).retired, 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	put_all(f, 100, 20);
	assert_int_equal(get(f, 119, BLOCK), 0);
}

/* it takes no more of the drive than it may */
static void test_scrub_rate(void **state)
{
	struct fixture *f = *state;
	const unsigned seconds = 10, per_second = 8;

	put_all(f, 0, 20);
	to_ssd(f->tier)->scrub_bps = per_second * BLOCK;
	for (unsigned i = 0; i < seconds * 1000; i++) {
		wfi_sim_advance(f->sim, WFI_NSEC_PER_MSEC);
		f->tier->ops->poll(f->tier, wfi_now(f->env));
	}
	assert_in_range(stat_of(f).scrubbed, seconds * per_second - 2, seconds * per_second + 1);
}

/* a write that the drive refuses: the block is not there, and its slot is not tried again */
static void test_write_error(void **state)
{
	struct fixture *f = *state;
	const struct wfi_sim_faults faults = { .disk_error_ppm = 1000000 };

	put_all(f, 0, 20);
	wfi_sim_set_faults(f->sim, &faults);
	assert_true(put(f, 20, BLOCK) < 0);
	wfi_sim_set_faults(f->sim, &(struct wfi_sim_faults){ 0 });
	run(f);
	assert_int_equal(stat_of(f).bad[WFI_TIER_BAD_WRITE], 1);
	assert_int_equal(stat_of(f).retired, 1);
	assert_int_equal(stat_of(f).state, WFI_TIER_OK);
	assert_int_equal(get(f, 20, BLOCK), -ENOENT);
	assert_int_equal(put(f, 20, BLOCK), 0);
	for (uint64_t n = 0; n <= 20; n++)
		assert_int_equal(get(f, n, BLOCK), 0);
	reopen(f, NODE);
	assert_int_equal(stat_of(f).recovered, 21);
	assert_int_equal(stat_of(f).retired, 0);
	for (uint64_t n = 0; n <= 20; n++)
		assert_int_equal(get(f, n, BLOCK), 0);
}

/* a page of headers that the drive refuses is written again until it is taken */
static void test_header_write_error(void **state)
{
	struct fixture *f = *state;
	const struct wfi_sim_faults faults = { .disk_error_ppm = 1000000 };
	struct wfi_tier_block b = { .key = key_of(1), .space_tag = TAG, .len = BLOCK };
	uint8_t *buf = aligned_alloc(4096, BLOCK);
	int res = 1;

	fill(buf, 1, BLOCK);
	b.crc = wfi_crc32c(0, buf, BLOCK);
	assert_int_equal(f->tier->ops->put(f->tier, &b, buf, took, &res), 0);
	for (unsigned i = 0; i < 100 && res == 1; i++)
		f->tier->ops->poll(f->tier, wfi_now(f->env));
	assert_int_equal(res, 0);
	/* the bytes are there, the header is not yet */
	wfi_sim_set_faults(f->sim, &faults);
	for (unsigned i = 0; !stat_of(f).bad[WFI_TIER_BAD_WRITE]; i++) {
		assert_in_range(i, 0, 1000);
		wfi_sim_advance(f->sim, WFI_NSEC_PER_MSEC);
		f->tier->ops->poll(f->tier, wfi_now(f->env));
	}
	wfi_sim_set_faults(f->sim, &(struct wfi_sim_faults){ 0 });
	run(f);
	assert_int_equal(stat_of(f).retired, 0);
	assert_int_equal(get(f, 1, BLOCK), 0);
	reopen(f, NODE);
	assert_int_equal(get(f, 1, BLOCK), 0);
	free(buf);
}

/* every single bit that is wrong at rest is found: in bodies by their reader, in headers at the
 * start */
static void test_flips(void **state)
{
	struct fixture *f = *state;
	const char *nr_text = getenv("WEFT_TEST_FLIPS");
	const uint64_t nr = nr_text ? strtoull(nr_text, NULL, 10) : 1000000;
	uint64_t len, found = 0, missed = 0;
	const uint32_t blocks = 64, bytes = 4096;
	uint8_t *file;
	struct ssd *s;

	for (uint64_t n = 0; n < blocks; n++)
		assert_int_equal(put(f, n, bytes), 0);
	s = to_ssd(f->tier);
	file = wfi_sim_file(f->sim, 0, PATH, &len);
	for (uint64_t i = 0; i < nr; i++) {
		const uint32_t n = (uint32_t)(wfi_sim_rand(f->sim) % blocks);
		const uint64_t bit = wfi_sim_rand(f->sim) % ((bytes + 128) * 8ull);
		const struct weft_key key = key_of(n);
		const struct index_tag tag = ssd_tag(s, TAG, &key);
		const uint32_t slot = wfi_ssd_slot_find(s, TAG, &key, &tag);
		uint8_t *at = bit < bytes * 8ull
				      ? file + ssd_slot_off(s, slot) + bit / 8
				      : file + SSD_SUPER_PAGES * SSD_PAGE +
						slot * sizeof(struct ssd_header) + bit / 8 - bytes;
		bool bad;

		*at ^= (uint8_t)(1u << bit % 8);
		if (bit < bytes * 8ull)
			bad = wfi_crc32c(0, file + ssd_slot_off(s, slot), bytes) !=
			      s->slots[slot].crc;
		else
			bad = !wfi_ssd_header_ok(
				s, slot,
				(struct ssd_header *)(file + SSD_SUPER_PAGES * SSD_PAGE) + slot);
		*at ^= (uint8_t)(1u << bit % 8);
		found += bad;
		missed += !bad;
	}
	assert_int_equal(missed, 0);
	assert_int_equal(found, nr);
}

/* the same through the whole way: a restart, then a read */
static void test_flips_restart(void **state)
{
	struct fixture *f = *state;
	const uint32_t blocks = 32;

	for (unsigned turn = 0; turn < 300; turn++) {
		uint64_t len, bit;
		uint8_t *file;
		unsigned good = 0;

		for (uint64_t n = 0; n < blocks; n++)
			put(f, n, 4096);
		run(f);
		file = wfi_sim_file(f->sim, 0, PATH, &len);
		bit = wfi_sim_rand(f->sim) % (len * 8);
		file[bit / 8] ^= (uint8_t)(1u << bit % 8);
		reopen(f, NODE);
		for (uint64_t n = 0; n < blocks; n++)
			good += !get(f, n, 4096);
		assert_true(good >= blocks - 1);
	}
}

/* ---- tenants ---- */

#define ALL (BYTES / BLOCK)

static void share(struct fixture *f, uint64_t tag, uint32_t group, uint32_t weight, uint64_t floor)
{
	const struct wfi_tier_share sh = { group, weight, floor };

	f->tier->ops->share(f->tier, tag, &sh);
}

static void count_one(void *ctx, const struct wfi_tier_block *b)
{
	*(uint64_t *)ctx += b->len;
}

static uint64_t held(struct fixture *f, uint64_t tag)
{
	uint64_t bytes = 0;

	uint32_t at = 0;

	do {
		at = f->tier->ops->each(f->tier, tag, at, 100, count_one, &bytes);
	} while (at);
	return bytes;
}

/* a put may find nothing that may go, and leave its block out */
static void flood(struct fixture *f, uint64_t tag, uint64_t first, uint32_t nr)
{
	for (uint64_t n = first; n < first + nr; n++) {
		const int ret = put_of(f, tag, n, BLOCK);

		assert_true(!ret || ret == -EAGAIN);
	}
}

static void test_floods(void **state)
{
	struct fixture *f = *state;
	const uint64_t a = TAG, b = TAG + 1, c = TAG + 2;

	share(f, a, 1, 1, 0);
	share(f, b, 2, 1, 100 * BLOCK);
	flood(f, b, 1, 80);
	flood(f, a, 10000, 3 * ALL);
	assert_int_equal(held(f, b), 80 * BLOCK);
	/* what b has above its floor is safe up to half of all */
	flood(f, b, 1000, ALL);
	flood(f, a, 20000, ALL);
	assert_in_range(held(f, b), (ALL / 2 - 40) * BLOCK, ALL / 2 * BLOCK);
	/* idle: down to the floor */
	share(f, b, 2, 0, 100 * BLOCK);
	flood(f, a, 30000, 3 * ALL);
	assert_int_equal(held(f, b), 100 * BLOCK);
	/* after a restart nobody has named them yet: one group, of weight 1 */
	reopen(f, NODE);
	share(f, c, 3, 1, 0);
	flood(f, c, 40000, 3 * ALL);
	assert_in_range(held(f, c), (ALL / 2 - 40) * BLOCK, (ALL / 2 + 40) * BLOCK);
	share(f, a, 1, 1, 0);
	share(f, b, 2, 1, 0);
	flood(f, c, 50000, ALL);
	assert_true(held(f, b) > 0);
}

/* more tags than are told apart: what was counted among the rest goes from there, whatever has got
 * a place meanwhile */
static void test_many_tags(void **state)
{
	struct fixture *f = *state;
	const struct wfi_tier_share sh = { 3, 1, 0 };
	const struct weft_key key = key_of(1);
	uint64_t tag;

	for (tag = 1; tag <= 8192; tag++)
		share(f, tag << 32, 1, 1, 0);
	for (uint64_t n = 0; n < 3; n++)
		assert_int_equal(put_of(f, TAG + n, 1 + n, BLOCK), 0);
	for (tag = 1; tag <= 8192; tag++)
		f->tier->ops->share(f->tier, tag << 32, NULL);
	f->tier->ops->drop(f->tier, TAG, &key);
	run(f);
	assert_int_equal(f->tier->ops->share(f->tier, TAG, &sh), 2 * BLOCK);
	for (uint64_t n = 1; n < 3; n++) {
		const struct weft_key k = key_of(1 + n);

		f->tier->ops->drop(f->tier, TAG + n, &k);
	}
	run(f);
	for (uint64_t n = 0; n < 3; n++)
		assert_int_equal(f->tier->ops->share(f->tier, TAG + n, &sh), 0);
	assert_int_equal(put_of(f, TAG, 1, BLOCK), 0);
	assert_int_equal(f->tier->ops->share(f->tier, TAG, &sh), BLOCK);
}

/* blocks of another size take chunks, with all that is in them */
static void test_sizes(void **state)
{
	struct fixture *f = *state;
	const uint64_t a = TAG, b = TAG + 1;

	share(f, a, 1, 1, 0);
	share(f, b, 2, 1, BYTES);
	flood(f, b, 1, ALL);
	const uint64_t before = held(f, b);

	for (uint64_t n = 0; n < 300; n++)
		assert_true(put_of(f, a, 10000 + n, 2 * BLOCK) < 0);
	assert_int_equal(held(f, b), before);
	share(f, b, 2, 1, 0);
	for (uint64_t n = 0; n < 300; n++)
		put_of(f, a, 10000 + n, 2 * BLOCK);
	assert_in_range(held(f, a), BYTES / 4, BYTES / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_put_get),
		T(test_restart),
		T(test_drop_stays),
		T(test_drop_while_opening),
		T(test_evicts),
		T(test_next),
		T(test_refuses_others),
		T(test_two_nodes),
		T(test_truncated),
		T(test_device_fails),
		T(test_device_full),
		T(test_short_io),
		T(test_resize),
		T(test_scrub_body),
		T(test_scrub_again),
		T(test_scrub_torn),
		T(test_scrub_read_error),
		T(test_rot_in_header),
		T(test_forged_key),
		T(test_scrub_leased),
		T(test_bad_while_read),
		T(test_scrub_cut),
		T(test_scrub_rate),
		T(test_write_error),
		T(test_header_write_error),
		T(test_flips),
		T(test_flips_restart),
		T(test_floods),
		T(test_many_tags),
		T(test_sizes),
#undef T
	};

	wfi_log_init(WFI_LOG_ERR, "test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
