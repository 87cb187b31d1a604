/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "kvcache/cluster/wire.h"
#include "weft_internal/util.h"

static const struct {
	uint16_t fixed; /* bytes ahead of the items */
	uint16_t item; /* bytes of one; 0: it has none */
	uint16_t max; /* items */
	uint16_t flags; /* that it may have */
} shapes[CLUSTER_TYPE_END - CLUSTER_TYPE_FIRST] = {
#define SHAPE(type, fixed, item, max, flags)                                                       \
	[type - CLUSTER_TYPE_FIRST] = { sizeof(fixed), sizeof(item), max, flags }
	SHAPE(CLUSTER_LEASE, struct cluster_lease, struct weft_key, CLUSTER_LEASE_MAX, 0),
	SHAPE(CLUSTER_LEASED, struct cluster_leased, struct cluster_proof, CLUSTER_LEASE_MAX, 0),
	SHAPE(CLUSTER_RELEASE, struct cluster_release, uint64_t, CLUSTER_RELEASES_MAX, 0),
	SHAPE(CLUSTER_LOOKUP, struct cluster_tags, uint64_t, CLUSTER_TAGS_MAX, 0),
	SHAPE(CLUSTER_LOOKED, struct cluster_looked, struct cluster_run, CLUSTER_RUNS_MAX, 0),
	SHAPE(CLUSTER_ANNOUNCE, struct cluster_tags, uint64_t, CLUSTER_TAGS_MAX, CLUSTER_F_FIRST),
	SHAPE(CLUSTER_ANNOUNCED, struct cluster_head, uint64_t, 0, CLUSTER_F_AGAIN),
	SHAPE(CLUSTER_OFFER, struct cluster_offer, struct weft_key, CLUSTER_OFFER_MAX, 0),
	SHAPE(CLUSTER_TAKEN, struct cluster_head, uint64_t, 0, 0),
	SHAPE(CLUSTER_WHO, struct cluster_tags, uint64_t, CLUSTER_TAGS_MAX, 0),
	SHAPE(CLUSTER_HELD, struct cluster_looked, struct cluster_run, CLUSTER_RUNS_MAX, 0),
	SHAPE(CLUSTER_PROBE, struct cluster_probe, struct cluster_source, CLUSTER_SOURCES_MAX, 0),
	SHAPE(CLUSTER_PROBED, struct cluster_probed, uint64_t, 0, 0),
	SHAPE(CLUSTER_SPEED, struct cluster_speed, uint64_t, 0, 0),
#undef SHAPE
};

size_t cluster_msg_head(union cluster_msg *m, enum cluster_type type, uint32_t nr, uint64_t id)
{
	const unsigned i = type - CLUSTER_TYPE_FIRST;
	const uint32_t len = shapes[i].fixed + nr * shapes[i].item;

	m->head = (struct cluster_head){
		.type = type,
		.version = CLUSTER_VERSION,
		.nr = (uint16_t)nr,
		.len = len,
		.id = id,
	};
	return len;
}

int cluster_msg_take(union cluster_msg *m, const void *msg, size_t len)
{
	const struct cluster_head *h = &m->head;
	unsigned i;

	if (len < sizeof(*h) || len > sizeof(*m))
		return -EPROTO;
	memcpy(m, msg, len);
	if (h->type < CLUSTER_TYPE_FIRST || h->type >= CLUSTER_TYPE_END)
		return -EPROTO;
	i = h->type - CLUSTER_TYPE_FIRST;
	if (h->version != CLUSTER_VERSION || h->len != len || h->nr > shapes[i].max ||
	    h->flags & ~(uint32_t)shapes[i].flags ||
	    len != shapes[i].fixed + (size_t)h->nr * shapes[i].item)
		return -EPROTO;
	return 0;
}
