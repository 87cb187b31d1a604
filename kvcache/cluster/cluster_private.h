/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cluster_private.h - what the files of the cluster's blocks share
 *
 * cluster.c   nodes and their connections, requests and answers, time
 * announce.c  what this node has, told to the shards; what others have, heard by its own
 * lend.c      leases for others
 * offer.c     blocks that others are to hold as well: replicas, and a node that leaves
 * pull.c      what is wanted here: looked for, waited for, shared, published
 * look.c      who has blocks, where nobody has to be asked
 * hint.c      what was seen of blocks that are not here
 * flight.c    one lease of one holder, and the READs under it
 * route.c     what nodes would be worth for a chain
 * directory.c a shard
 * wire.c      messages
 */
#ifndef WFI_CLUSTER_PRIVATE_H
#define WFI_CLUSTER_PRIVATE_H

#include "kvcache/cluster/pace.h"
#include "kvcache/cluster/wire.h"
#include "weft_internal/cluster.h"
#include "weft_internal/directory.h"
#include "weft_internal/table.h"
#include "weft_internal/util.h"

#define NR_PEERS WFI_CLUSTER_PEERS
#define SELF NR_PEERS /* among the members */
#define NR_ASKS 512u
#define NR_FLIGHTS 128u
#define NR_OUTBOX 64u
#define NR_HINTS (16u << 10)
#define NR_CHAINS (64u << 10) /* blocks whose chain is noted */
#define NR_UNDER 1024u
#define LOOK_MAX 1024u /* keys of a match that needs no pull */
#define FLIGHT_BYTES (16ull << 20) /* of one lease: others have their turn */
#define FLIGHT_RUNS 1024u /* in memory of a device */

/* what one shard is told, by a number that moves on each time it all begins anew */
struct stream {
	uint32_t epoch;
	uint32_t seq; /* of the next message */
	uint32_t nr_open; /* messages that were not answered */
	uint32_t nr; /* changes that wait */
	uint32_t at, below_at; /* where the sweeps over all slots, and over the tier's, are */
	bool sweeping, sweeping_below;
	bool lost; /* a change found no room: all is to be said again */
	uint64_t answer_ns; /* the next answer is due */
	uint64_t changes[CLUSTER_TAGS_MAX];
};

/* of the SSD tier here */
struct speed {
	uint64_t bytes_per_ms; /* 0: it gives nothing now */
	uint64_t latency_ns;
	uint64_t free_ns; /* until then it does what it was asked for */
};

/* leases of one tenant that a peer has */
struct borrower {
	struct borrower *next;
	struct wfi_tenant *tenant;
	struct wfi_owner owner;
};

struct offers; /* offer.c */
struct loan; /* lend.c */

struct cluster_peer {
	uint64_t node; /* 0: free */
	uint64_t incarnation;
	struct wfi_peer *conns[WFI_RAILS_MAX];
	uint32_t nr_conns;
	bool leaves;
	uint32_t nr_asks; /* requests that it has not answered */
	struct wfi_dir_view view; /* of its shard, where it is mapped */
	/* as holder of blocks, in our shard */
	uint8_t holder;
	uint64_t heard; /* the id that its next announcement has */
	struct stream *stream; /* to its shard */
	struct borrower *borrowers;
	struct pace asks_pace; /* of its requests for leases */
	struct loan *loans; /* that wait for the SSD tier here */
	uint32_t nr_loans;
	struct offers *offers; /* NULL: there was none yet */
	/* as our lender */
	uint64_t releases[CLUSTER_RELEASES_MAX];
	uint32_t nr_releases;
	uint64_t release_ns; /* they go at the latest */
	uint64_t lease_ns; /* how long an answer took, on average; 0: not known */
	uint64_t bytes_per_ms;
	/* its SSD tier, as it says itself */
	uint64_t ssd_bytes_per_ms; /* 0: not known */
	uint64_t ssd_latency_ns;
	uint64_t ssd_free_ns; /* until then it does what it was asked for before */
	bool ssd_fails; /* it gives nothing now */
	struct speed told; /* of the one here */
};

enum ask_kind { ASK_FREE, ASK_LOOKUP, ASK_LEASE, ASK_PROBE };

struct ask {
	enum ask_kind kind;
	uint32_t gen;
	uint8_t peer;
	struct wfi_peer *conn;
	uint64_t begin_ns;
	uint64_t deadline_ns;
	void *ctx; /* the pull, the flight, or the candidate of a route */
};

struct outbox {
	struct wfi_peer *conn; /* NULL: it is gone */
	size_t len;
	union cluster_msg msg;
};

/* what was seen of a block that is not here: four to a line, since a chain's lie anywhere */
struct hint {
	uint64_t tag;
	uint32_t seen_ms; /* when .peer and .other were named; it wraps */
	uint8_t peer, other;
	uint8_t fetched; /* how often */
	uint8_t reserved;
};

_Static_assert(sizeof(struct hint) == 16, "none lies in two lines");

enum block_state { BLOCK_IDLE, BLOCK_WAIT, BLOCK_FLIES, BLOCK_SHARED, BLOCK_OVER };

/* one block that a pull wants */
struct pull_block {
	struct wfi_pull *pull;
	struct pull_block *leader; /* BLOCK_WAIT: who fetches it */
	struct pull_block *same; /* list of those that wait for this one, by .same */
	struct pull_block *under; /* in the table of those under way */
	void *dst;
	uint32_t idx; /* of the pull's keys */
	uint32_t slot; /* kept: claimed for it */
	uint32_t gen;
	uint32_t crc;
	uint8_t peer, other;
	uint8_t tried; /* bit 0: .peer, 1: .other */
	uint8_t state;
	uint8_t ssd; /* which of them have it in their SSD tier; bits as above */
	bool late; /* who has it can't bring it in time */
};

enum pull_state { PULL_SEEK, PULL_ASKED, PULL_FETCH, PULL_ENDED };

/* how much of a chain one peer has, from the first block on */
struct tally {
	uint32_t memory, ssd;
};

struct wfi_pull {
	struct wfi_pull *prev, *next; /* of all; .next: free */
	enum pull_state state;
	bool is_seek;
	bool partial; /* a shard has not answered */
	bool over; /* cancelled, or its time is up: nothing more is begun */
	bool late; /* and told so: something does not end */
	int end_res; /* .over: -ECANCELED, -ETIMEDOUT */
	struct wfi_seek_opts seek; /* is_seek; .keys is not used */
	struct wfi_pull_opts o;
	struct wfi_space_info space;
	uint32_t head; /* of the chain */
	uint32_t ask; /* PULL_ASKED */
	uint32_t at, nr_asked; /* what is being looked for */
	uint32_t nr; /* tags */
	uint32_t nr_blocks;
	uint32_t nr_left; /* blocks that are not over */
	uint32_t nr_idle; /* BLOCK_IDLE */
	uint32_t nr_flights;
	uint64_t *tags;
	uint8_t *peers, *others; /* by tag, with WFI_PEER_SSD */
	struct tally *tally; /* of a seek for all holders, by peer; else NULL. Its beginner's */
	struct pull_block *blocks;
	unsigned mem_class;
	size_t mem_len;
};

#define PULL_CLASSES 3u

struct flight {
	struct wfi_cluster *c;
	struct flight *next; /* free */
	struct flight *rival; /* asks somebody else for the same blocks */
	struct wfi_pull *pull; /* NULL: free */
	uint8_t peer;
	bool reading;
	bool given_up; /* its READs are on their way to an end */
	bool ssd; /* .peer brings the blocks out of its SSD tier first */
	bool direct; /* to the pull's .memory */
	bool late; /* its READs, or its sums, do not end */
	uint32_t ask; /* !reading */
	struct wfi_peer *conn; /* NULL: gone */
	struct weft_ep *ep; /* reading: over this; NULL: over rails */
	struct wfi_xfer *xfer;
	struct wfi_rails_xfer *over;
	uint64_t lease;
	uint64_t begin_ns;
	uint64_t hurry_ns; /* after this somebody else is tried, if there is one */
	uint64_t incarnation;
	uint32_t nr, nr_pieces;
	struct pull_block *blocks[CLUSTER_LEASE_MAX];
	struct cluster_proof proofs[CLUSTER_LEASE_MAX]; /* of pieces, from here on */
	struct pull_block *lent[CLUSTER_LEASE_MAX];
	struct wfi_piece pieces[CLUSTER_LEASE_MAX];
	int32_t results[CLUSTER_LEASE_MAX];
	uint32_t sums[CLUSTER_LEASE_MAX];
	int32_t read[CLUSTER_LEASE_MAX]; /* .direct: results of the READs, while sums are made */
	struct wfi_piece *runs; /* FLIGHT_RUNS, made when they are first wanted */
};

enum cluster_counter {
	CL_C_SEEKS,
	CL_C_FETCHED,
	CL_C_MISSED,
	CL_C_SHARED,
	CL_C_KEPT,
	CL_C_DIRECT,
	CL_C_HEDGED,
	CL_C_LATE,
	CL_C_LENT,
	CL_C_RAISED,
	CL_C_LEFT,
	CL_C_ANNOUNCED,
	CL_C_HEARD,
	CL_C_AGAIN,
	CL_C_NOT_OFFERED,
	CL_C_NOT_TAKEN,
	CL_NR_COUNTERS,
};

struct member {
	uint8_t peer; /* or SELF */
	uint64_t seed;
};

#define CL_CLIMBS 1024u /* ancestors that are looked at in one turn; what is beyond waits */

/* the way to the head of a chain, slice by slice: up to it, and up once more to leave it with all
 * that lie on the way */
struct climb {
	uint32_t slot; /* where it began; WFI_SLOT_NONE: there is none */
	uint32_t at;
	uint32_t head; /* 0: not found yet */
};

struct wfi_cluster {
	struct wfi_cluster_opts o;
	uint64_t now_ns;
	uint64_t next_event_ns;
	uint64_t awaited_ns; /* until then a peer may ask at any moment */
	bool active; /* there was another node once: changes are watched */
	uint32_t turn;

	struct cluster_peer peers[NR_PEERS];
	unsigned nr_peers;
	unsigned hi_peers; /* none from here on */
	uint64_t allowed[WFI_MEMBERS_MAX]; /* to hold shards */
	unsigned nr_allowed; /* 0: all that are connected are */
	uint64_t members_seen; /* of .changes() of the membership */
	struct member members[NR_PEERS + 1];
	unsigned nr_members;

	struct ask asks[NR_ASKS];
	uint32_t free_asks[NR_ASKS];
	uint32_t nr_free_asks;
	struct outbox *outbox;
	uint32_t outbox_head, outbox_tail;

	/* announce.c */
	struct wfi_kv_watch watch;
	struct wfi_directory *directory;
	uint8_t holder; /* this node's own number there */
	uint8_t holder_peers[WFI_DIR_HOLDERS + 1]; /* by pair of numbers */
	struct stream *stream; /* to the shard here */
	struct wfi_table heads; /* uint32_t by slot; 0: not known */
	uint32_t climbed; /* ancestors that were looked at, since the last poll began */
	struct climb climb;
	uint64_t tell_ns; /* when peers hear next how fast the SSD tier is, if it has changed */
	struct hint *hints;
	uint64_t *chains; /* of blocks that were seen: a tag's upper half, and the chain's head */

	/* look.c: of the chain that is being looked at */
	struct {
		uint64_t tags[LOOK_MAX];
		uint8_t peers[LOOK_MAX], others[LOOK_MAX];
	} look;

	/* offer.c */
	uint32_t nr_takes;
	bool draining, left;
	bool drain_walks, drain_walks_below;
	uint32_t drain_at;
	uint64_t drain_left; /* bytes of the SSD tier that may still be offered */
	uint64_t drain_end_ns;

	/* pull.c, flight.c */
	struct wfi_pull *pulls;
	struct wfi_pull *free_pulls[PULL_CLASSES];
	uint32_t nr_waiting; /* pulls that have something to begin */
	uint32_t nr_ended; /* pulls and routes */
	struct pull_block *under[NR_UNDER];
	uint32_t nr_shared; /* BLOCK_SHARED: to be copied to those that wait */
	struct flight *flights[NR_FLIGHTS];
	uint32_t nr_flights;
	struct flight *free_flights;
	struct wfi_route *routes;
	bool keeping; /* a block of another node is being published */
	struct borrower *keepers; /* of blocks that are kept: one for a tenant */

	struct wfi_counter *count[CL_NR_COUNTERS];
	struct wfi_hist *lease_time, *pull_time;
	struct wfi_counter scratch[CL_NR_COUNTERS];
	struct wfi_hist scratch_hist;
};

static inline void cl_count(struct wfi_cluster *c, enum cluster_counter i, uint64_t n)
{
	wfi_count(c->count[i], n);
}

static inline void cl_event(struct wfi_cluster *c, uint64_t when_ns)
{
	if (when_ns < c->next_event_ns)
		c->next_event_ns = when_ns;
}

/* the number of a peer, without its tier */
static inline uint8_t cl_peer(uint8_t peer)
{
	return peer == WFI_PEER_NONE ? peer : (uint8_t)(peer & ~WFI_PEER_SSD);
}

static inline uint32_t cl_head(uint64_t tag)
{
	return (uint32_t)(tag >> 32) | 1;
}

/* ---- cluster.c ---- */

/* is that connection one of a peer that lives this life? */
bool wfi_cl_peer_has(const struct wfi_cluster *c, const struct wfi_peer *conn,
		     uint64_t incarnation);

/* Return: its number, or WFI_PEER_NONE */
uint8_t wfi_cl_peer_of(const struct wfi_cluster *c, uint64_t node);
/* who holds the shard of a chain. Return: a peer's number, or SELF */
uint8_t wfi_cl_owner(const struct wfi_cluster *c, uint32_t head);
/* a request to a peer. Return: 0 with *@id; -EAGAIN later; -ENOTCONN */
int wfi_cl_ask(struct wfi_cluster *c, enum ask_kind kind, uint8_t peer, union cluster_msg *m,
	       uint64_t deadline_ns, void *ctx, uint32_t *id);
/* its answer is not wanted any more */
void wfi_cl_unask(struct wfi_cluster *c, uint32_t id);
/* an answer: sent now, or kept until the peer takes it */
void wfi_cl_answer(struct wfi_cluster *c, struct wfi_peer *conn, const union cluster_msg *m);
/* the lease goes back with the next batch */
void wfi_cl_release(struct wfi_cluster *c, uint8_t peer, uint64_t lease);

/* ---- announce.c ---- */

/* Return: 0, -ENOMEM; the cluster is active from here on */
int wfi_cl_activate(struct wfi_cluster *c);
void wfi_cl_announce_fini(struct wfi_cluster *c);
/* the members have changed: everything is said again, to whom it belongs by now */
void wfi_cl_announce_all(struct wfi_cluster *c);
int wfi_cl_announce_poll(struct wfi_cluster *c);
void wfi_cl_heard_announce(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			   const union cluster_msg *m);
void wfi_cl_heard_announced(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m);
void wfi_cl_heard_speed(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m);
void wfi_cl_heard_lookup(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			 const union cluster_msg *m);
/* the head of the chain that a sealed slot is in. Return: 0: not known in this turn any more */
uint32_t wfi_cl_head_find(struct wfi_cluster *c, uint32_t slot);
/* the same of a slot of the SSD tier, which keeps it from here on */
uint32_t wfi_cl_head_below(struct wfi_cluster *c, uint32_t slot);
void wfi_cl_heard_who(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
		      const union cluster_msg *m);
/* the answer of the shard here to WHO */
void wfi_cl_who(struct wfi_cluster *c, const uint64_t *tags, uint32_t nr, uint64_t id,
		union cluster_msg *reply);
/* looks into the shard here */
void wfi_cl_find(struct wfi_cluster *c, const uint64_t *tags, uint32_t nr, uint8_t *peers,
		 uint8_t *others);

static inline struct hint *cl_hint(const struct wfi_cluster *c, uint64_t tag)
{
	return &c->hints[(tag >> 7) & (NR_HINTS - 1)];
}

static inline bool cl_hint_is_of(const struct hint *h, uint64_t tag)
{
	return h->tag == tag;
}

/* the same block, for puts of what comes after it, and for who begins with it */
static inline void cl_chain_note(const struct wfi_cluster *c, uint64_t tag, uint32_t head)
{
	c->chains[(tag >> 7) & (NR_CHAINS - 1)] = (tag & ~(uint64_t)UINT32_MAX) | head;
}

/* Return: the head of its chain, or 0: it was not seen of late */
static inline uint32_t cl_chain_seen(const struct wfi_cluster *c, uint64_t tag)
{
	const uint64_t seen = c->chains[(tag >> 7) & (NR_CHAINS - 1)];

	return (seen ^ tag) >> 32 ? 0 : (uint32_t)seen;
}

/* ---- lend.c ---- */

/* what is known of when peers ask next */
void wfi_cl_borrowers_await(struct wfi_cluster *c);
void wfi_cl_heard_lease(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m);
void wfi_cl_heard_release(struct wfi_cluster *c, uint8_t peer, const union cluster_msg *m);
/* what waits for the SSD tier and would be answered over @conn is not wanted any more */
void wfi_cl_loans_lost(struct wfi_cluster *c, uint8_t peer, const struct wfi_peer *conn);
/* the owner of one tenant in a list that is made longer when there is none. Return: NULL: no
 * memory, or no tenant */
struct wfi_owner *wfi_cl_borrower(struct wfi_cluster *c, struct borrower **list,
				  struct wfi_tenant *tenant);
void wfi_cl_borrowers_fini(struct wfi_cluster *c, struct borrower **list);

/* ---- offer.c ---- */

/* a block was put */
void wfi_cl_offer_replicas(struct wfi_cluster *c, uint32_t slot, uint32_t head);
void wfi_cl_heard_offer(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m);
void wfi_cl_heard_taken(struct wfi_cluster *c, uint8_t peer);
int wfi_cl_offers_poll(struct wfi_cluster *c);
void wfi_cl_offers_free(struct wfi_cluster *c, struct cluster_peer *p);

/* ---- pull.c ---- */

/* as wfi_cluster_pull(), of keys behind the first one, which @peer is known to hold. @head: of
 * their chain, as it says */
int wfi_cl_pull_from(struct wfi_cluster *c, const struct wfi_pull_opts *o, uint8_t peer,
		     uint32_t head, struct wfi_pull **out);

/* as wfi_cluster_seek(), of all who have any of it. @tally: by peer, zeros; lent until .done */
int wfi_cl_seek_all(struct wfi_cluster *c, const struct wfi_seek_opts *o, struct tally *tally,
		    struct wfi_pull **out);

int wfi_cl_pulls_poll(struct wfi_cluster *c);
void wfi_cl_pulls_expire(struct wfi_cluster *c);
void wfi_cl_pulls_fini(struct wfi_cluster *c);
/* an answer to PULL_ASKED; NULL: there will be none */
void wfi_cl_looked(struct wfi_cluster *c, struct wfi_pull *pull, const union cluster_msg *m);
/* of a flight: its block has not come, or has */
void wfi_cl_block_failed(struct wfi_cluster *c, struct pull_block *b);
void wfi_cl_block_came(struct wfi_cluster *c, struct pull_block *b, uint32_t crc);
/* nobody knows when it will: no other pull waits for it any more */
void wfi_cl_block_hangs(struct wfi_cluster *c, struct pull_block *b);
/* places in slots of our own, for blocks that are to be kept. Return: how many have one */
void wfi_cl_keep(struct wfi_cluster *c, struct wfi_pull *pull, struct pull_block **blocks,
		 uint32_t nr);
/* when nothing is left to wait for, it ends with the next poll */
void wfi_cl_pull_settle(struct wfi_cluster *c, struct wfi_pull *pull);

/* ---- look.c ---- */

/* Return: the number of a node, with its tier */
uint8_t wfi_cl_run_peer(const struct wfi_cluster *c, uint64_t node, bool ssd);
/* of @nr blocks one after the other, who has them */
void wfi_cl_run_take(uint8_t *peers, uint8_t *others, uint32_t nr, uint8_t peer, uint8_t other);
/* who has each of these blocks, by the shard of @owner. Return: false: it has to be asked */
bool wfi_cl_look(struct wfi_cluster *c, uint8_t owner, const uint64_t *tags, uint32_t nr,
		 uint8_t *peers, uint8_t *others);
/* @peers: lent for as long */
void wfi_cl_found(const struct wfi_cluster *c, const uint8_t *peers, uint32_t nr,
		  uint64_t block_bytes, struct wfi_found *found);

/* ---- hint.c ---- */

/* for puts of what comes after these blocks, which find their chain's head here */
void wfi_cl_heads_leave(struct wfi_cluster *c, const struct wfi_pull *pull);
/* and for who wants them soon */
void wfi_cl_hints_leave(struct wfi_cluster *c, const struct wfi_pull *pull);
/* Return: whether holders of all blocks that a pull wants were named not long ago */
bool wfi_cl_hints_suffice(struct wfi_cluster *c, struct wfi_pull *pull);
/* what begins with @keys may be the middle of a chain, of which more was seen before */
uint32_t wfi_cl_chain_head(struct wfi_cluster *c, const struct wfi_space_info *space,
			   const struct weft_key *keys, uint32_t nr);

/* ---- flight.c ---- */

/* @blocks of one pull, idle until now, are asked for. @peer: with its tier. Return: 0 they fly,
 * -EAGAIN later, -ENOTCONN */
int wfi_cl_fly(struct wfi_cluster *c, struct wfi_pull *pull, uint8_t peer,
	       struct pull_block *const *blocks, uint32_t nr);
/* an answer, or NULL */
void wfi_cl_leased(struct wfi_cluster *c, struct flight *f, const union cluster_msg *m);
/* ends all flights of a pull, some of them later */
void wfi_cl_flights_end(struct wfi_cluster *c, struct wfi_pull *pull);
void wfi_cl_flights_expire(struct wfi_cluster *c);
void wfi_cl_flights_lost(struct wfi_cluster *c, const struct wfi_peer *conn);
void wfi_cl_flights_fini(struct wfi_cluster *c);
/* what getting @bytes of a peer takes, by what was measured; @peer: with its tier */
uint64_t wfi_cl_expected_ns(const struct wfi_cluster *c, uint8_t peer, uint64_t bytes);
/* of that, what it takes longer when they are in the peer's SSD tier */
uint64_t wfi_cl_ssd_ns(const struct wfi_cluster *c, uint8_t peer, uint64_t bytes);

/* its blocks came or failed, and it is over */
void wfi_cl_landed(struct flight *f);
/* as wfi_xfer_opts.late, of a flight: other pulls find their own way, and who waits for its pull
 * hears so when that is over */
void wfi_cl_flight_late(void *ctx, int res);

/* ---- direct.c ---- */

/* how many blocks of a pull to .memory fly together */
uint32_t wfi_cl_direct_max(const struct wfi_pull *pull);
/* whether the NIC of its connection, or one of several, reaches the pull's .memory */
bool wfi_cl_direct_can(const struct flight *f);
/* as wfi_cl_direct_can() says it can. @x: for memory of this host. Return: as wfi_xfer_submit() */
int wfi_cl_direct_read(struct wfi_cluster *c, struct flight *f, struct wfi_xfer_opts *x);
/* of what was read: then wfi_cl_landed(). Return: 0, or why it is called by who called here */
int wfi_cl_direct_sum(struct wfi_cluster *c, struct flight *f);

/* ---- route.c ---- */

void wfi_cl_heard_probe(struct wfi_cluster *c, uint8_t peer, struct wfi_peer *conn,
			const union cluster_msg *m);
/* an answer to ASK_PROBE, or NULL */
void wfi_cl_probed(struct wfi_cluster *c, void *ctx, const union cluster_msg *m);
int wfi_cl_routes_poll(struct wfi_cluster *c);

#endif
