/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tier_ssd_share.c - whose blocks an SSD tier holds, and whose may go for whose
 *
 * Blocks carry the tag of their space; groups of spaces (the tenants) have floors and weights. Tags
 * that nobody has named yet, after a start mostly, are one group of weight 1 together.
 */
#include <errno.h>
#include "kvcache/tier_ssd.h"

#define NR_TAGS 8192u
/* more of them are counted as one, and those that come meanwhile, until it has nothing any more: so
 * a tag that was counted in there is not looked for elsewhere when it goes */
#define MAX_TAGS (NR_TAGS * 3 / 4)

struct ssd_tag {
	uint64_t space_tag;
	uint64_t bytes;
	uint64_t kept; /* of them, or of slots that had some */
	uint32_t group;
	bool used;
};

struct ssd_shares {
	struct ssd_tag tags[NR_TAGS];
	struct ssd_tag rest;
	struct ssd_tag *last; /* found last: neighbours mostly are of one space */
	uint32_t nr_tags;
	struct ssd_group {
		uint64_t bytes;
		uint64_t kept;
		uint64_t floor_bytes;
		uint32_t weight; /* 0: idle */
	} groups[WFI_TIER_GROUPS];
};

int wfi_ssd_shares_init(struct ssd *s)
{
	s->shares = wfi_alloc(s->env, sizeof(*s->shares));
	if (!s->shares)
		return -ENOMEM;
	s->shares->last = &s->shares->rest;
	for (uint32_t i = 0; i < WFI_TIER_GROUPS; i++)
		s->shares->groups[i].weight = 1;
	return 0;
}

void wfi_ssd_shares_fini(struct ssd *s)
{
	if (s->shares)
		wfi_free(s->env, s->shares, sizeof(*s->shares));
}

static uint32_t tag_home(uint64_t space_tag)
{
	return (uint32_t)(space_tag * 0x9e3779b97f4a7c15ull >> 51);
}

static struct ssd_tag *tag_get(struct ssd_shares *sh, uint64_t space_tag)
{
	struct ssd_tag *t = sh->last;
	uint32_t at = tag_home(space_tag);

	if (wfi_likely(t->used && t->space_tag == space_tag))
		return t;
	for (t = &sh->tags[at]; t->used && t->space_tag != space_tag; t = &sh->tags[at])
		at = (at + 1) % NR_TAGS;
	if (!t->used && (sh->nr_tags == MAX_TAGS || sh->rest.bytes || sh->rest.kept))
		return &sh->rest;
	if (!t->used)
		sh->nr_tags++;
	t->used = true;
	t->space_tag = space_tag;
	sh->last = t;
	return t;
}

void wfi_ssd_share_count(struct ssd *s, uint64_t space_tag, int64_t bytes)
{
	struct ssd_tag *t = tag_get(s->shares, space_tag);

	t->bytes += (uint64_t)bytes;
	s->shares->groups[t->group].bytes += (uint64_t)bytes;
}

uint64_t wfi_ssd_share_keep(struct ssd *s, uint64_t space_tag, int64_t bytes)
{
	struct ssd_tag *t = tag_get(s->shares, space_tag);

	t->kept += (uint64_t)bytes;
	return s->shares->groups[t->group].kept += (uint64_t)bytes;
}

/* its place is another's to have: those behind it that went on for want of it come back */
static void tag_forget(struct ssd_shares *sh, struct ssd_tag *t)
{
	uint32_t hole = (uint32_t)(t - sh->tags);

	if (t == &sh->rest || t->bytes || t->kept)
		return;
	for (uint32_t at = (hole + 1) % NR_TAGS; sh->tags[at].used; at = (at + 1) % NR_TAGS) {
		if ((at - tag_home(sh->tags[at].space_tag)) % NR_TAGS < (at - hole) % NR_TAGS)
			continue;
		sh->tags[hole] = sh->tags[at];
		hole = at;
	}
	sh->tags[hole] = (struct ssd_tag){ 0 };
	sh->nr_tags--;
	sh->last = &sh->rest;
}

uint64_t wfi_ssd_share(struct wfi_tier *tier, uint64_t space_tag,
		       const struct wfi_tier_share *share)
{
	struct ssd_shares *sh = to_ssd(tier)->shares;
	struct ssd_tag *t = tag_get(sh, space_tag);
	struct ssd_group *g;

	if (!share) {
		tag_forget(sh, t);
		return 0;
	}
	g = &sh->groups[share->group];
	if (t != &sh->rest) {
		sh->groups[t->group].bytes -= t->bytes;
		sh->groups[t->group].kept -= t->kept;
		g->bytes += t->bytes;
		g->kept += t->kept;
		t->group = share->group;
	}
	g->floor_bytes = share->floor_bytes;
	g->weight = share->weight;
	return t->bytes;
}

bool wfi_ssd_share_yields(struct ssd *s, uint64_t space_tag, uint64_t to_tag, uint64_t len)
{
	struct ssd_shares *sh = s->shares;
	const struct ssd_group *to = &sh->groups[tag_get(sh, to_tag)->group];
	const struct ssd_group *from = &sh->groups[tag_get(sh, space_tag)->group];

	if (from == to)
		return true;
	if (from->bytes < from->floor_bytes + len)
		return false;
	return (from->bytes - len) * wfi_max(to->weight, 1) >= (to->bytes + len) * from->weight;
}
