/* SPDX-License-Identifier: Apache-2.0 */
/**
 * member.h - what one node has heard of the members of its cluster
 *
 * A view is what struct wfi_membership_ops shows. It is fed from a store of records, a file or a
 * simulated store, and knows nothing of them.
 *
 * Who lost its record without having left is held for a moment. When the node that looks lost its
 * own in that moment, the store did not tell of the others' deaths but of its own trouble: then
 * all of them are kept as long as a lease lasts, so that they can come back to it. While the store
 * can't be reached nobody's time runs: its source does not call wfi_member_view_tick(), and has
 * all kept for a lease once the store is there again.
 *
 * Context: one thread at a time.
 */
#ifndef WFI_MEMBER_H
#define WFI_MEMBER_H

#include "weft_internal/env.h"

#define WFI_MEMBER_HOLD_NS WFI_NSEC_PER_SEC

struct wfi_member_view {
	struct wfi_member members[WFI_MEMBERS_MAX]; /* ordered by id */
	uint64_t until_ns[WFI_MEMBERS_MAX]; /* 0: has a record; else is held without one */
	unsigned nr;
	uint64_t epoch; /* never goes back */
	uint64_t changes;
	uint64_t keep_ns; /* who vanishes is held until then at least */
};

/**
 * wfi_member_view_load - @list is all that there is
 * @until_ns: those that are in it no more stay until then; 0: they go now
 *
 * Return: 0, or as wfi_member_view_put() for one of them, the others being loaded
 */
int wfi_member_view_load(struct wfi_member_view *v, const struct wfi_member *list, unsigned nr,
			 uint64_t epoch, uint64_t until_ns);

/**
 * wfi_member_view_put - a record is new, or says something else
 *
 * Return: 0; -EEXIST another name has its id, and had it first; -ENOSPC there are WFI_MEMBERS_MAX
 */
int wfi_member_view_put(struct wfi_member_view *v, const struct wfi_member *m, uint64_t epoch);

/* a record is gone. @until_ns: as above */
void wfi_member_view_del(struct wfi_member_view *v, const char *name, uint64_t epoch,
			 uint64_t until_ns);

/* those without a record stay until then at least, and so do those that lose it before */
void wfi_member_view_keep(struct wfi_member_view *v, uint64_t until_ns);

/* drops those that were held long enough. Return: when to look again, UINT64_MAX: nobody is held */
uint64_t wfi_member_view_tick(struct wfi_member_view *v, uint64_t now_ns);

/**
 * wfi_member_may_take - a record has our name: may ours be put in its place?
 *
 * It may when the record is its own, or that of an earlier life in the same place. Epochs do not
 * tell which life is the earlier one, since a store that was emptied has forgotten them; a place
 * is in one boot of one host, whose clock does.
 */
bool wfi_member_may_take(const struct wfi_member *self, const struct wfi_member *theirs);

/* Return: at most @max of them in @out */
unsigned wfi_member_view_copy(const struct wfi_member_view *v, struct wfi_member *out,
			      unsigned max);

#endif
