/* SPDX-License-Identifier: Apache-2.0 */
/**
 * sim.h - a whole cluster in one thread, deterministic from a seed, with faults
 *
 * Nodes are the real ones (daemon/), each in its own view of the simulated environment; between
 * them, and between them and their engines, lies the loop transport behind the fault injector.
 * Engines speak the raw ring ABI over a mapping of their own. A step polls one node, or lets one
 * engine act, or moves time, or changes which faults are on: the seed decides.
 *
 * What is checked all the time: each operation completes once and by its deadline plus a grace;
 * bytes under a key are those that belong to it; slots are neither lost nor made. The contents of a
 * block follow from its tenant and key.
 *
 * sim.c         the world: nodes, faults, time, and what must hold at the end
 * sim_link.c    connections between nodes
 * sim_member.c  the store of members, its mishaps, and who may be connected
 * sim_engine.c  an engine: its ring, its end, its checks
 * sim_ops.c     what an engine asks for, and what it may be answered
 * sim_channel.c the same of channels
 * sim_route.c   the same of routes
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/node.h"
#include "daemon/roster.h"
#include "weft_internal/member.h"
#include "weft_internal/transport_registry.h"

#define SIM_NODES 3u
#define SIM_SLOTS 4u /* with membership, and of two lives of one name both */
#define SIM_RAILS 2u
#define SIM_TENANTS 2u
#define SIM_SPACES 2u /* of each tenant */
#define SIM_ENGINES 6u
#define SIM_CHAINS 6u
#define SIM_CHAIN_LEN 24u
#define SIM_RUN 8u /* blocks of one operation */
#define SIM_OPS 12u /* open at once, of an engine */
#define SIM_CLAIMS 136u
#define SIM_LEASES 16u
#define SIM_TICKETS 32u
#define SIM_PUSHES 3u /* of one handoff, open at once */
#define SIM_STREAMS 8u
#define SIM_LETTERS 4u /* of one channel, not released yet */
#define SIM_GHOSTS 128u
#define SIM_CORPSES 8u
#define SIM_TIER "tier" /* the file of a node's SSD tier */

#define SIM_LEASE_NS (40 * WFI_NSEC_PER_MSEC)
#define SIM_OP_TIMEOUT_NS (400 * WFI_NSEC_PER_MSEC)
#define SIM_DRAIN_NS (5 * WFI_NSEC_PER_SEC) /* longest that a node hands on, once it is alone */
#define SIM_STALL_NS (20 * WFI_NSEC_PER_MSEC) /* longest that nobody polls a node */
/* deadline to completion: the fence of a transfer, and nodes that are late three times over */
#define SIM_GRACE_NS (50 * WFI_NSEC_PER_MSEC + 4 * SIM_STALL_NS)

/* blocks of one chain: what an operation is about */
struct sim_run {
	uint32_t chain;
	uint32_t first;
	uint32_t nr;
};

struct sim_op {
	bool open;
	bool ours; /* it is known what the answer must be like */
	uint8_t code;
	uint8_t flags;
	uint32_t serial;
	uint64_t timeout_ns;
	uint64_t taken_ns; /* by the node; 0: not yet */
	struct sim_run run;
	struct weft_slot slots[SIM_RUN]; /* of the engine's: put, release, push */
	uint64_t lease_end_ns; /* RELEASE: the lease lives until then at least; 0: no lease */
	uint64_t handle; /* HANDOFF_EXPECT, once .ticketed */
	bool ticketed;
	bool cancelled;
	bool forged; /* HANDOFF_PUSH with a wrong secret, or of layers that were pushed before */
	bool to_slots; /* GET: into claims instead of the region */
	bool placed; /* HANDOFF_EXPECT: into the region instead of slots */
	bool stale; /* RELEASE of a slot that was the engine's once */
	uint8_t landed[SIM_RUN]; /* HANDOFF_EXPECT: layers, a bit each */
};

struct sim_claim {
	struct weft_slot slot;
	bool busy; /* an operation or a push has it */
};

struct sim_lease {
	uint64_t handle;
	uint64_t end_ns; /* lives until then at least */
	bool mapped; /* slots are known */
	struct sim_run run;
	struct weft_slot slots[SIM_RUN];
};

/* prefill's work on a handoff: layer after layer, then published or given up */
struct sim_push {
	bool active;
	bool failed;
	bool placed; /* layers are made in the region, and pushed from there; .slots is not used */
	uint32_t nr_open; /* operations */
	struct weft_ticket ticket;
	struct sim_run run;
	struct weft_slot slots[SIM_RUN];
	uint32_t next_layer;
	uint32_t layers_at_once;
};

/* a message of a channel, read in place */
struct sim_letter {
	uint64_t handle;
	uint64_t tag;
	uint64_t bytes;
	uint32_t nr;
	struct weft_slot slots[SIM_RUN];
};

struct sim_inbox {
	bool busy; /* being opened */
	uint64_t handle; /* 0: none */
	uint64_t next_seq;
	uint64_t last_tag;
	uint32_t nr_recvs; /* open, of this one or of those before it */
	uint32_t nr_letters;
	struct sim_letter letters[SIM_LETTERS];
};

struct sim_outbox {
	bool busy; /* being joined */
	bool broken;
	bool remote;
	uint64_t handle; /* 0: none */
	uint64_t uid; /* of the stream */
};

struct sim_ring {
	uint8_t *base;
	uint64_t len;
	struct weft_sqe *sq;
	struct weft_cqe *cq;
	struct weft_ring_line *line;
	uint8_t *arg;
	uint32_t sq_mask, cq_mask, sq_pos, cq_pos;
	uint32_t id;
};

struct sim;

struct sim_engine {
	struct sim *sim;
	uint32_t idx;
	uint32_t node;
	uint32_t tenant;
	uint32_t space; /* of its tenant */
	struct session *session; /* NULL: not attached */
	bool refit; /* between two rings and regions: asks for nothing */
	uint64_t attach_ns; /* not before */
	struct wfi_space_info info;
	struct sim_ring ring;
	uint8_t *mem; /* a region: SIM_OPS * SIM_RUN blocks */
	uint64_t mem_len;
	uint32_t region;
	uint64_t polled_ns; /* what is new now came after this */
	uint32_t serial;
	struct sim_op ops[SIM_OPS];
	struct sim_claim claims[SIM_CLAIMS];
	uint32_t nr_claims;
	struct weft_slot was_mine;
	struct sim_lease leases[SIM_LEASES];
	uint32_t nr_leases;
	struct sim_push push;
	struct sim_inbox inbox;
	struct sim_outbox outbox;
};

/* an engine that was hung up on: its process may live on, and write where it had the right to */
struct sim_ghost {
	bool writes;
	uint64_t gone_ns; /* its process ends */
	uint32_t node;
	uint32_t owner_id;
	uint8_t *arena;
	uint64_t block_bytes;
	struct weft_slot slots[SIM_CLAIMS];
	uint32_t nr_slots;
	uint8_t *mem;
};

/* a handoff that waits for somebody to push */
struct sim_ticket {
	bool used;
	struct weft_ticket ticket;
	uint32_t tenant, space;
	struct sim_run run;
};

/* a channel that somebody has opened */
struct sim_stream {
	bool used;
	uint64_t uid; /* from 1 on */
	struct weft_ticket ticket;
	uint32_t tenant, space;
	uint64_t acked; /* messages that arrived, as their senders were told */
};

struct sim_node {
	struct node *node;
	struct wfi_env *env;
	struct weft_transport *fault; /* NULL: bare loop */
	const struct weft_transport *transports[2];
	uint64_t polled_ns;
	bool tiered; /* in all its lives */
	/* with membership */
	char name[16]; /* of this life: two that run may have one */
	uint32_t host;
	struct roster roster;
	bool cut; /* from the store */
	uint64_t begin_ns;
	uint64_t well_ns; /* since then it and the store have been in touch; UINT64_MAX: not now */
	uint64_t ill_ns; /* when it was last out of touch, or had its record taken */
	uint64_t fenced_ns; /* since then its name has been another life's; 0: it is not */
	uint32_t view; /* of this life, in the simulated environment */
	bool draining; /* takes no engine; goes when the last has left and others have its blocks */
	uint64_t alone_ns; /* since then it has none; 0: it has some */
};

/* a node whose process died: nobody polls it, and it tells nobody anything. Its memory stays till
 * the end, as memfds do that others have mapped */
struct sim_corpse {
	struct node *node;
	struct weft_transport *fault;
};

/* a connection between two nodes: over their hosts' link, or over one of two rails */
struct sim_link {
	struct node_peer *end[2];
	bool used;
	bool net;
	uint32_t rail;
	uint64_t event_ns; /* when the other side hears of the end, or a new one is made */
	struct wire_hello who[2]; /* with membership: what each end has said */
	int caller; /* which of them called */
};

struct sim_geometry {
	uint64_t block_bytes;
	uint32_t nr_layers;
};

struct sim_opts {
	uint64_t seed;
	uint32_t steps;
	bool members; /* nodes find each other by a store of members */
};

/* what a run did: tests see that it did it at all */
struct sim_report {
	uint64_t trace; /* hash of all completions and their times */
	uint64_t completions[WEFT_OP_NR];
	uint64_t good[WEFT_OP_NR]; /* of these, with a result above 0 */
	uint64_t blocks_checked;
	uint64_t messages, messages_remote; /* received; sent to other nodes */
	uint64_t handoffs_local, handoffs_remote; /* pushes that arrived */
	uint64_t handoffs_placed; /* handoffs that arrived in regions */
	uint64_t hangups, refits, lost_links, crashes;
	uint64_t drains, drained; /* nodes that were told to leave, and did */
	uint64_t railed_bytes; /* that arrived over one of several rails */
	uint64_t routed_afar; /* other nodes that were said to have some of a chain */
	uint64_t matched_afar; /* matches that go on at other nodes */
	uint64_t matched_below, matched_below_afar; /* of the tier of this node; of another's */
	uint64_t recovered, raised; /* blocks of SSD tiers: found at a start, and lent */
	uint64_t fetched, missed, shared, kept, hedged, resyncs; /* blocks of other nodes */
	uint64_t twins, fenced,
		unlinked; /* lives of names that others had; that lost them; dropped */
	uint64_t store_mishaps;
	struct wfi_fault_stats faults;
};

struct sim {
	struct sim_opts opts;
	struct sim_report *report;
	struct wfi_sim *world;
	uint64_t now_ns;
	uint32_t step;
	uint32_t nr_nodes;
	uint32_t nr_engines;
	bool failed;
	bool harm; /* bytes of reads may be harmed: engines publish in place only */
	bool quiet; /* no new work: the end is near */
	uint32_t replicas; /* of each space */
	/* keys that somebody has asked to publish, on any node */
	bool seen[SIM_TENANTS][SIM_SPACES][SIM_CHAINS][SIM_CHAIN_LEN];
	struct sim_geometry geometry[SIM_SPACES];
	struct sim_node nodes[SIM_SLOTS];
	struct sim_link links[SIM_SLOTS][SIM_SLOTS][SIM_RAILS];
	struct wfi_sim_faults store; /* of the store of members, in all faults of the world */
	bool store_down;
	bool intruder; /* somebody else wants one of the names */
	uint64_t lossy_ns; /* when news of the store was last lost */
	struct sim_corpse corpses[SIM_CORPSES];
	uint32_t nr_corpses;
	struct sim_engine engines[SIM_ENGINES];
	struct sim_ghost ghosts[SIM_GHOSTS];
	uint32_t nr_ghosts;
	struct sim_ticket tickets[SIM_TICKETS];
	uint32_t next_ticket;
	struct sim_stream streams[SIM_STREAMS];
	uint64_t next_stream;
	uint64_t next_tag;
};

/**
 * sim_run - one seed, from nothing to nothing
 *
 * Return: true when all held; else the first breach was printed, with seed and step.
 */
bool sim_run(const struct sim_opts *opts, struct sim_report *out);

/* ---- sim.c, for the engines ---- */

uint64_t sim_rand(struct sim *sim, uint64_t below);
bool sim_chance(struct sim *sim, unsigned percent);
static inline uint64_t sim_us(uint64_t ns)
{
	return ns / WFI_NSEC_PER_USEC;
}
void sim_trace(struct sim *sim, uint64_t word);
/* a breach: the first one is printed */
void sim_fail(struct sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct weft_key sim_key(const struct sim_run *run, uint32_t i);
/* bytes [off, off + len) of a block, multiples of 8 */
void sim_fill(uint32_t tenant, const struct weft_key *key, void *buf, uint64_t off, uint64_t len);
bool sim_holds(uint32_t tenant, const struct weft_key *key, const void *buf, uint64_t off,
	       uint64_t len);

void time_move(struct sim *sim, uint64_t ns);
/* all nodes, so many times */
void polls(struct sim *sim, uint32_t times);
void node_crash(struct sim *sim, uint32_t n);

/* ---- sim_link.c ---- */

struct node *link_node(struct sim *sim, uint32_t a, uint32_t b, int side);
struct node_link *link_device(struct node *node, const struct sim_link *l);
void link_detach(struct sim *sim, struct sim_link *l, int side);
void link_down(struct sim *sim, struct sim_link *l);
/* the process at that end is gone */
void link_lose_end(struct sim *sim, struct sim_link *l, int side);
void links_poll(struct sim *sim);
/* two nodes are of one host, or have two rails between their hosts */
void links_place(struct sim *sim);
/* a peer says that it is about to leave */
void peer_drains(struct node *node, struct node_peer *peer);

/* ---- sim_member.c ---- */

void members_begin(struct sim *sim);
/* the name of the life that begins in a slot. Return: its number */
uint32_t member_name(struct sim *sim, uint32_t n);
/* it is there, and says so */
void member_join(struct sim *sim, uint32_t n);
/* what the control thread does when there is news of members */
void member_poll(struct sim *sim, uint32_t n);
void member_end(struct sim *sim, uint32_t n, bool in_order);
/* Return: whether one of two nodes calls the other, and both let the other in */
bool members_meet(struct sim *sim, struct sim_link *l, uint32_t a, uint32_t b);
void member_mishap(struct sim *sim);
/* all is well again: then all know the same, and are connected */
void members_converge(struct sim *sim);

/* ---- sim_engine.c ---- */

/* opens one of a tenant's spaces on a node. Return: 0, -errno */
int sim_space_open(struct sim *sim, uint32_t n, uint32_t tenant, uint32_t space,
		   struct wfi_space_info *out);
/* Return: false when it could not be: out of memory, say */
bool engine_attach(struct sim_engine *e);
/* Context: of the control thread. @lives: the process goes on and may write for a while */
void engine_hang_up(struct sim_engine *e, bool lives);
/* the node's process died */
void engine_lose_node(struct sim_engine *e);
/* closes ring and region with whatever is open; engine_refit_poll() opens new ones */
void engine_refit(struct sim_engine *e);
void engine_refit_poll(struct sim_engine *e);
void engine_poll(struct sim_engine *e);
/* the node has just been polled: what it had not taken before, it has now */
void engine_mark_taken(struct sim_engine *e);
/* polls, then fails the run if something is late */
void engine_check_overdue(struct sim_engine *e);
bool engine_busy(const struct sim_engine *e);
/* Return: a free operation's place, or NULL */
struct sim_op *engine_op(struct sim_engine *e, uint8_t code, const struct sim_run *run);
void *engine_args(struct sim_engine *e, const struct sim_op *op);
uint64_t engine_mem_off(const struct sim_engine *e, const struct sim_op *op, uint32_t i);
void engine_submit(struct sim_engine *e, struct sim_op *op, uint32_t nr, uint64_t handle);
uint8_t *engine_slot(const struct sim_engine *e, const struct weft_slot *slot);
void ghosts_poll(struct sim *sim);

/* ---- sim_ops.c ---- */

/* submits something; or nothing, when there is no room */
void engine_act(struct sim_engine *e);
/* @over: the operation has ended meanwhile, or may have */
void op_event(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe, bool over);
void op_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe);
/* Return: true when @nr claims that nothing uses were found, and are in use now */
bool claims_take(struct sim_engine *e, struct weft_slot *slots, uint32_t nr);
void claims_return(struct sim_engine *e, const struct weft_slot *slots, uint32_t nr);
void claim_remove(struct sim_engine *e, const struct weft_slot *slot);

/* blocks of one chain, somewhere */
struct sim_run sim_pick_run(struct sim *sim);
/* Return: where the arguments go on */
uint8_t *sim_put_keys(uint8_t *at, const struct sim_run *run);

/* ---- sim_route.c ---- */

void ask_route(struct sim_engine *e);
void route_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe);

/* ---- sim_channel.c ---- */

void ask_inbox(struct sim_engine *e);
void ask_outbox(struct sim_engine *e);
void channel_done(struct sim_engine *e, struct sim_op *op, const struct weft_cqe *cqe);

#endif
