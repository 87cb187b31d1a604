/* SPDX-License-Identifier: Apache-2.0 */
/* sim_store.h - the simulated store of members: records under leases, and what each node has heard
 */
#ifndef WFI_SIM_STORE_H
#define WFI_SIM_STORE_H

#include "weft_internal/member.h"

struct sim_record {
	bool present;
	bool leased; /* else it stays, and is nobody's */
	unsigned owner;
	struct wfi_member m;
};

/* what a watch tells of one epoch */
struct sim_change {
	bool gone, left; /* .left: it was its own wish */
	struct wfi_member m;
};

#define SIM_CHANGES 32u /* that are told one by one: who has missed more of them reads all */

/* a node, as the store and its own view see it */
struct sim_member {
	bool wanted; /* it published itself */
	bool has; /* a record, as far as it knows */
	bool cut;
	bool reads; /* all there is: its watch has ended */
	uint64_t heard; /* what came until this epoch */
	struct wfi_member self; /* .epoch: of its last record */
	uint64_t publish_ns; /* when .self reaches the store; 0: it is there */
	uint64_t lease_end_ns; /* UINT64_MAX: it is renewed */
	uint64_t news_ns; /* when it hears what has changed; 0: it knows */
	struct wfi_member_view *view; /* NULL: it never asked */
};

struct sim_store {
	uint64_t seed;
	uint64_t epoch;
	uint64_t forgotten; /* changes up to this epoch are not told any more */
	uint64_t due_ns; /* nothing happens before, but for what somebody changes */
	bool down;
	uint64_t delay_ns;
	uint32_t lost_ppm;
	struct sim_change changes[SIM_CHANGES];
	struct sim_record records[WFI_MEMBERS_MAX];
	struct sim_member nodes[WFI_SIM_MAX_NODES];
};

void sim_store_fini(struct sim_store *s);
/* Return: NULL when out of memory; else valid until the next call */
const struct wfi_member_view *sim_store_view(struct sim_store *s, unsigned idx, uint64_t now_ns);
void sim_store_publish(struct sim_store *s, unsigned idx, const struct wfi_member *self,
		       uint64_t now_ns);
void sim_store_reach(struct sim_store *s, unsigned idx, bool reached, uint64_t now_ns);
void sim_store_down(struct sim_store *s, bool down, uint64_t now_ns);
void sim_store_wipe(struct sim_store *s, uint64_t now_ns);
void sim_store_compact(struct sim_store *s);
void sim_store_lose(struct sim_store *s, unsigned idx, uint64_t now_ns);
void sim_store_set(struct sim_store *s, const struct wfi_member *list, unsigned nr);
/* the node's process dies */
void sim_store_crash(struct sim_store *s, unsigned idx, uint64_t now_ns);

#endif
