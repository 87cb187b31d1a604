/* SPDX-License-Identifier: Apache-2.0 */
/* health.c - what must hold when all faults are gone */
#include <errno.h>
#include <jansson.h>
#include "tests/chaos/chaos.h"

#define PROBE_BLOCKS 2u
#define PROBE_US 200000u
#define LOOK_US 4000u
#define DAY_S (24 * 3600)
#define SETTLE_NS (2 * WFI_NSEC_PER_SEC) /* leases that nobody gives back end by themselves */

struct health {
	uint64_t name; /* of the first node's probe; the others' follow */
	bool put[CHAOS_NODES_MAX];
	bool got[CHAOS_NODES_MAX][CHAOS_NODES_MAX]; /* [at][of] */
	char lacks[160]; /* what was missing when it was looked last */
};

static bool lacks(struct health *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool lacks(struct health *h, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(h->lacks, sizeof(h->lacks), fmt, ap);
	va_end(ap);
	return false;
}

/* ---- who knows whom ---- */

static unsigned nr_connected(const json_t *status)
{
	const json_t *peers = json_object_get(status, "peers");
	unsigned nr = 0;
	size_t i;

	for (i = 0; i < json_array_size(peers); i++) {
		const char *state =
			json_string_value(json_object_get(json_array_get(peers, i), "state"));

		nr += state && !strcmp(state, "connected");
	}
	return nr;
}

static bool knows_all(struct chaos *c, struct health *h, unsigned i, const json_t *status)
{
	const json_t *members = json_object_get(json_object_get(status, "network"), "membership");
	const char *state = json_string_value(json_object_get(members, "state"));
	const size_t nr = json_array_size(json_object_get(members, "members"));

	if (!state || strcmp(state, "ok") != 0 || nr != c->nr)
		return lacks(h, "node-%u sees %u members, and its membership is %s", i,
			     (unsigned)nr, state ? state : "not there");
	if (nr_connected(status) != c->nr - 1)
		return lacks(h, "node-%u is connected to %u others", i, nr_connected(status));
	return true;
}

/* the last one that it was given */
static bool shows_certificate(struct chaos *c, struct health *h, unsigned i, const json_t *status)
{
	const json_t *cert = json_object_get(json_object_get(status, "network"), "certificate");
	const char *why = json_string_value(json_object_get(cert, "why"));
	const int64_t left_s = json_integer_value(json_object_get(cert, "expires_in_s"));

	if (!c->tls)
		return true;
	if (!why || *why)
		return lacks(h, "node-%u has trouble with its certificate: %s", i,
			     why ? why : "it has none");
	if ((left_s + DAY_S / 2) / DAY_S != certs_days(c, i))
		return lacks(h, "node-%u shows a certificate that ends in %u s", i,
			     (unsigned)left_s);
	return true;
}

static json_t *status_of(struct seat *s)
{
	json_t *status = NULL;
	char *text;

	if (seat_ready(s) && !weft_status_json(s->e.w, &text)) {
		status = json_loads(text, 0, NULL);
		free(text);
	}
	return status;
}

static bool all_know_all(struct chaos *c, struct health *h)
{
	bool good = true;
	json_t *status;
	unsigned i;

	for (i = 0; i < c->nr && good; i++) {
		status = status_of(&c->control[i]);
		good = status ? knows_all(c, h, i, status) && shows_certificate(c, h, i, status)
			      : lacks(h, "node-%u does not answer", i);
		json_decref(status);
	}
	return good;
}

/* ---- who gives what ---- */

static struct weft_op probe_op(struct seat *s, uint64_t name, enum weft_opcode code,
			       struct weft_key *keys, struct weft_place *places, int32_t *results)
{
	unsigned i;

	test_keys(&s->e, name, PROBE_BLOCKS, keys);
	for (i = 0; i < PROBE_BLOCKS; i++)
		places[i] = (struct weft_place){ .off = (uint64_t)i * CHAOS_BLOCK,
						 .region = s->region };
	return (struct weft_op){ .op = (uint8_t)code,
				 .space = s->e.space,
				 .nr = PROBE_BLOCKS,
				 .keys = keys,
				 .places = places,
				 .results = results,
				 .timeout_us = PROBE_US };
}

static bool probe_put(struct seat *s, uint64_t name)
{
	struct weft_place places[PROBE_BLOCKS];
	struct weft_key keys[PROBE_BLOCKS];
	int32_t results[PROBE_BLOCKS];
	struct weft_op op = probe_op(s, name, WEFT_OP_PUT, keys, places, results);
	unsigned i;

	op.flags = WEFT_F_COPY;
	for (i = 0; i < PROBE_BLOCKS; i++)
		test_fill(s->memory + i * CHAOS_BLOCK, CHAOS_BLOCK, block_seed(name, i));
	return seat_call(s, &op, NULL) == PROBE_BLOCKS;
}

static bool probe_get(struct seat *s, uint64_t name)
{
	struct weft_place places[PROBE_BLOCKS];
	struct weft_key keys[PROBE_BLOCKS];
	int32_t results[PROBE_BLOCKS];
	const struct weft_op op = probe_op(s, name, WEFT_OP_GET, keys, places, results);
	unsigned i;

	if (seat_call(s, &op, NULL) != PROBE_BLOCKS)
		return false;
	for (i = 0; i < PROBE_BLOCKS; i++)
		if (!test_filled(s->memory + i * CHAOS_BLOCK, CHAOS_BLOCK, block_seed(name, i)))
			chaos_breach(s->c, "node-%u: wrong bytes, after healing", s->node);
	return true;
}

static bool all_give_all(struct chaos *c, struct health *h)
{
	unsigned at, of;

	for (of = 0; of < c->nr; of++) {
		if (!seat_ready(&c->control[of]))
			return lacks(h, "node-%u does not answer", of);
		if (!h->put[of])
			h->put[of] = probe_put(&c->control[of], h->name + of);
		if (!h->put[of])
			return lacks(h, "node-%u takes no block", of);
	}
	for (at = 0; at < c->nr; at++)
		for (of = 0; of < c->nr; of++) {
			if (!h->got[at][of])
				h->got[at][of] = seat_ready(&c->control[at]) &&
						 probe_get(&c->control[at], h->name + of);
			if (h->got[at][of])
				continue;
			/* if it was evicted, it is put anew; if not, that is no news to anybody */
			h->put[of] = false;
			return lacks(h, "node-%u does not get what node-%u holds", at, of);
		}
	return true;
}

uint64_t health_answers(struct chaos *c, uint64_t healed_ns)
{
	static uint64_t names = 1ull << 40;
	struct health h = { .name = names += CHAOS_NODES_MAX };
	uint64_t took_ns;
	bool good;

	do {
		good = all_know_all(c, &h) && all_give_all(c, &h);
		cluster_check_alive(c);
		took_ns = chaos_now() - healed_ns;
		if (!good)
			chaos_pause_us(LOOK_US);
	} while (!good && !atomic_load(&c->failed) && took_ns < CHAOS_ANSWER_NS);
	if (!good)
		chaos_breach(c, "%u ms after healing %s", (unsigned)(took_ns / WFI_NSEC_PER_MSEC),
			     h.lacks);
	return took_ns;
}

/* ---- what is held ---- */

static struct weft_stat stat_of(struct seat *s)
{
	struct weft_stat st = { 0 };
	const struct weft_op op = { .op = WEFT_OP_STAT, .stat = &st, .timeout_us = PROBE_US };
	const int ret = seat_call(s, &op, NULL);

	if (ret)
		chaos_breach(s->c, "node-%u: stat ends with %s", s->node, strerror(-ret));
	return st;
}

static unsigned nr_engines(struct seat *s)
{
	json_t *status = status_of(s);
	const unsigned nr = (unsigned)json_array_size(json_object_get(status, "engines"));

	json_decref(status);
	return nr;
}

static bool is_conserved(struct chaos *c, unsigned i, char *what, size_t len)
{
	const struct weft_stat st = stat_of(&c->control[i]);
	const unsigned engines = nr_engines(&c->control[i]);

	snprintf(what, len,
		 "node-%u: %u slots, %u free, %u held, %u filling, %u quarantined, %u leased; %u "
		 "engines",
		 i, (unsigned)st.slots_total, (unsigned)st.slots_free, (unsigned)st.blocks_held,
		 (unsigned)st.slots_filling, (unsigned)st.slots_quarantined,
		 (unsigned)st.slots_leased, engines);
	return !st.slots_filling && !st.slots_quarantined && !st.slots_leased &&
	       st.slots_free + st.blocks_held == st.slots_total && engines <= c->nr_sessions;
}

void health_conserved(struct chaos *c)
{
	const uint64_t begin_ns = chaos_now();
	char what[200];
	unsigned i;

	for (i = 0; i < c->nr; i++) {
		while (!is_conserved(c, i, what, sizeof(what))) {
			if (atomic_load(&c->failed))
				return;
			if (chaos_now() - begin_ns > SETTLE_NS) {
				chaos_breach(c, "not all came back: %s", what);
				return;
			}
			chaos_pause_us(LOOK_US);
		}
	}
	chaos_log(c, "settled in %u ms", (unsigned)((chaos_now() - begin_ns) / WFI_NSEC_PER_MSEC));
}
