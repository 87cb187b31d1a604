/* SPDX-License-Identifier: Apache-2.0 */
/**
 * node.h - a node: the worker that owns everything, and the control thread that lets engines in
 *
 * The worker (node.c, session.c, ops*.c, peer.c) is one poll loop; it owns sessions, rings, the KV
 * manager, transfers and handoffs. The control thread (control.c) owns the sockets. What it wants
 * of the worker it hands over as a call through a mailbox of one place, and waits.
 */
#ifndef WEFTD_NODE_H
#define WEFTD_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "weft/ring.h"
#include "weft/transport.h"
#include "weft_internal/cluster.h"
#include "weft_internal/env.h"
#include "weft_internal/channel.h"
#include "weft_internal/gpu.h"
#include "weft_internal/gpu_region.h"
#include "weft_internal/handoff.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/metrics.h"
#include "weft_internal/ring_server.h"
#include "weft_internal/spin.h"
#include "weft_internal/util.h"
#include "weft_internal/xfer.h"
#include "wire.h"

#define NODE_SESSIONS_MAX 256u
#define NODE_RINGS_MAX 1024u
#define SESSION_REGIONS_MAX 256u
#define SESSION_RINGS_MAX 64u
#define SESSION_GPUS_MAX 16u
#define NODE_NETS_MAX 4u
#define NODE_PEERS_MAX 64u
#define NODE_TENANTS_MAX 64u
#define NODE_GPUS_MAX 32u

struct json_t;
struct node;
struct session;
struct wfi_tier_gpu;

/* a word of the engine's that says that an operation has ended */
struct op_signal {
	uint32_t *word; /* NULL: none */
	uint32_t value;
	uint32_t region; /* that it lies in */
};

/* what of a get comes from copies in its GPU's memory: see ops_hot.c */
struct op_hot {
	struct wfi_tier_gpu *tier;
	void *buf; /* NULL: nothing does */
	struct wfi_xfer *xfer; /* NULL: it has ended */
	uint32_t nr; /* pieces */
	uint32_t nr_again; /* of these, those that come from memory after all */
	bool cold_open; /* the rest has not ended */
	int res; /* of the rest */
};

#define OP_RING_NONE UINT32_MAX

/* one operation that did not complete at once */
struct node_op {
	struct session *session;
	struct node_ring *ring; /* NULL: closed meanwhile, nobody to tell */
	uint32_t ring_id; /* OP_RING_NONE: told already, and nobody waits for it */
	struct node_op *prev, *next; /* of the session's list; next also of the free list */
	struct wfi_xfer *xfer;
	struct op_hot hot; /* of GET */
	struct weft_sqe sqe;
	uint64_t start_ns;
	uint64_t handoff; /* of HANDOFF_EXPECT */
	uint32_t nr;
	uint32_t nr_pieces; /* of GET, of MAP */
	bool cancel; /* its ring is being closed */
	bool summed; /* with a CRC32C per block */
	bool kept; /* slots and regions of its pieces */
	bool placed; /* of a handoff: its pieces are places, whose regions are held */
	bool verify; /* of what was fetched: the rest, which was here before */
	/* of PUT, and of HANDOFF_PUSH: the region number of what it waits for; 0: nothing */
	uint32_t event;
	struct op_signal signal; /* of GET; its region is held */
	uint32_t reached; /* of GET: blocks from here on that are missing did not pay */
	struct wfi_fetch *fetch; /* of GET and MAP, while blocks come from a slower tier */
	struct wfi_pull *pull; /* while other nodes are asked */
	struct wfi_route *route; /* of ROUTE, while it is open */
	struct weft_route *routes;
	uint32_t nr_routes;
	bool afar; /* GET: other nodes were asked for what was missing */
	bool kept_afar; /* what came of it lies in slots here */
	bool late; /* its engine has heard of its end, which is still to come */
	uint8_t cqe_flags; /* of its last completion */
	unsigned buf_class;
	void *buf; /* pieces, slots, results: see ops.h */
};

/* layer events and last completions that met a full completion queue */
struct node_event {
	struct weft_cqe cqe;
};

struct node_ring {
	struct session *session;
	struct wfi_ring *ring;
	uint32_t id;
	bool dirty; /* completions or heads to show */
	struct node_event *events; /* of handoffs, waiting for room: a FIFO */
	uint32_t ev_head, ev_tail;
};

struct region {
	struct weft_rkey *rkey; /* NULL: free */
	uint64_t len;
	uint32_t nr_ops; /* pieces in flight that touch it */
	bool closing;
	uint8_t gpu; /* on this one of the node's, counted from 1; 0: on none, or an event */
	struct gpu_direct *direct; /* NICs reach it; or NULL */
};

/* whose endpoint: weft_ep.ctx points here */
struct ep_owner {
	enum ep_kind { EP_SESSION, EP_PEER, EP_SELF, EP_GPU, EP_TIER } kind;
	bool closed; /* WEFT_WC_CLOSED was seen */
};

/* an endpoint to an engine's memory on one GPU; it lives while a region does, or is open */
struct session_gpu {
	struct ep_owner owner;
	struct weft_ep *ep; /* NULL: none */
	uint32_t nr_regions;
	const struct node_gpu_tier *tier; /* of that GPU; or NULL */
	uint8_t gpu; /* as in its regions */
};

/**
 * struct node_gpu_tier - the tier of one GPU
 * @tier: NULL: there is none: none is wanted, or .why says why
 * @want: bytes of .memory that it is to keep: less while it gets smaller
 * @closed: none was opened since one was closed, or at all: to be tried behind the next region
 * @shrinks: the worker is to tell when it has got smaller, by .shrunk
 */
struct node_gpu_tier {
	uint8_t uuid[16];
	struct wfi_tier_gpu *tier;
	struct ep_owner owner;
	struct weft_ep *ep; /* to .memory, as what follows */
	struct weft_rkey *rkey;
	struct weft_mr *mr;
	bool shrinks;
	_Atomic bool shrunk;
	/* the control thread's */
	struct wfi_gpu_memory memory;
	uint64_t want;
	bool closed;
	char why[160];
};

/* from a NIC to a GPU's memory. @why: not direct, but through host memory */
struct gpu_path {
	char nic[64];
	bool direct;
	char why[96];
};

/* a GPU that regions are, or were, on */
struct node_gpu {
	int ordinal; /* the driver's number of it */
	char pci[16];
	bool lost; /* it failed, and was not opened anew since */
	bool needs_restart; /* and this process can't */
	struct gpu_path paths[NODE_NETS_MAX]; /* by net */
};

struct session {
	struct node *node;
	struct ep_owner ep_owner;
	struct wfi_tenant *tenant;
	struct wfi_owner owner;
	char name[WEFT_NAME_MAX];
	pid_t pid;
	int pidfd; /* or -1; ours */
	bool ending;
	bool may_write; /* its process still maps the arena */
	bool ep_down;
	bool poked;
	struct session *next_ending;
	_Atomic bool broken; /* broke the protocol: the control thread is to hang up */
	struct weft_ep *ep; /* to its memory */
	struct region regions[SESSION_REGIONS_MAX];
	struct session_gpu gpus[SESSION_GPUS_MAX];
	struct weft_rkey *rkeys[SESSION_REGIONS_MAX]; /* dense copy for transfers */
	/* regions of GPUs as local sides of copies from other regions; made when first wanted */
	struct weft_mr *mrs[SESSION_REGIONS_MAX];
	const struct wfi_nic_memory *nics[SESSION_REGIONS_MAX]; /* of regions that NICs reach */
	struct node_ring *rings[SESSION_RINGS_MAX];
	uint32_t spaces[WFI_TENANT_SPACES_MAX]; /* that it has opened, by id */
	uint32_t nr_spaces;
	struct node_op *ops; /* open ones */
	uint32_t nr_ops;
	uint32_t idx; /* in node->sessions */
};

struct op_metrics {
	struct wfi_counter *nr, *errors;
	struct wfi_hist *time;
};

/* a call from the control thread, run by the worker */
struct node_call {
	void (*run)(struct node *node, void *arg);
	void *arg;
	_Atomic uint32_t done; /* futex */
};

/* a device, its queues, and the arenas that are registered with it */
struct node_link {
	struct weft_device *dev; /* NULL: there is none */
	struct weft_cq *send_cq; /* the transfer engine's */
	struct weft_cq *recv_cq; /* messages of peers, ends of endpoints */
	struct weft_mr *arenas[NODE_TENANTS_MAX];
	unsigned nr_arenas;
	unsigned nr_armed; /* of the queues */
	const struct weft_transport *transport; /* this and what follows also while .dev is away */
	char device[64]; /* "": the first */
	char addr[64]; /* of this host on that network; "": not known */
	uint32_t silent_ms; /* as in node_opts */
	_Atomic bool lost; /* .dev failed: the control thread opens it anew */
};

struct node_opts {
	struct wfi_env *env;
	const char *name;
	uint64_t node_id;
	const char *policy; /* NULL: the default */
	const char *transport; /* to nodes of other hosts; NULL: none */
	const char *devices[NODE_NETS_MAX]; /* of that transport: a rail each */
	unsigned nr_devices; /* 0: its first alone */
	const char *addrs[NODE_NETS_MAX]; /* of this host where their peers are, numeric, or NULL */
	uint32_t silent_ms; /* peers that do not answer for so long are gone; 0: its default */
	const char *tier_path; /* of the SSD tier; NULL or "": none */
	uint64_t tier_bytes;
	uint64_t tier_write_bps, tier_scrub_bps;
	uint64_t gpu_tier_bytes; /* of each GPU that engines have regions on; 0: no tier there */
	uint64_t gpu_tier_write_bps; /* 0: no bound */
	uint64_t memory_bytes; /* of all arenas together; 0: not shared */
	uint64_t tenant_idle_ns; /* 0: the default */
	uint64_t spin_ns; /* of idleness before the worker sleeps */
	uint64_t lease_ns;
	uint64_t op_timeout_ns; /* default deadline */
	uint64_t ring_bytes; /* of all rings of a tenant; 0: 256 MiB */
	bool memfds_only; /* engines register no other memory */
	uint64_t directory_bytes; /* of the shard of the directory; 0: its default */
	uint32_t copy_after; /* as wfi_cluster_opts has it */
	const struct wfi_tenant_opts *tenants;
	unsigned nr_tenants;
};

#define RING_EVENTS_MAX 4096u /* that wait for room in one completion queue */
#define OP_BUF_CLASSES 4

struct node_peer;

struct node {
	struct wfi_env *env;
	struct wfi_metrics *metrics;
	struct wfi_kv *kv;
	struct wfi_xfer_engine *xfer;
	struct wfi_handoffs *handoffs;
	struct wfi_channels *channels;
	struct wfi_cluster *cluster;
	struct node_self *self; /* NULL: not needed yet */
	struct node_link host; /* reaches engines and nodes of this host */
	struct weft_mr *shard; /* of the directory, over .host; NULL: no node there has come yet */
	struct node_link nets[NODE_NETS_MAX]; /* reach nodes of other hosts: a rail each */
	unsigned nr_nets;
	struct node_link gpu; /* reaches engines' memory on GPUs; open when it is first wanted */
	struct node_gpu_tier *gpu_tiers[SESSION_GPUS_MAX];
	unsigned nr_gpu_tiers;
	uint64_t gpu_tier_bytes, gpu_tier_write_bps;
	struct node_gpu gpus[NODE_GPUS_MAX];
	unsigned nr_gpus;
	bool net_fell_back; /* to TCP, where RDMA was looked for */
	struct node_rails *rails; /* by the nodes that they lead to */
	struct wfi_tenant *tenants[NODE_TENANTS_MAX];
	uint64_t tags[NODE_TENANTS_MAX]; /* of the salts: equal on the nodes of a cluster */
	unsigned nr_tenants;
	bool tenants_cut; /* the last one could not be registered everywhere: no more come */
	char name[64];
	uint64_t id;
	uint64_t start_ns;
	uint64_t spin_ns, lease_ns, op_timeout_ns, ring_bytes;
	bool memfds_only;
	char tier_why[160]; /* why there is no tier though one was asked for */

	struct session *sessions[NODE_SESSIONS_MAX];
	unsigned nr_sessions;
	struct node_ring *rings[NODE_RINGS_MAX];
	unsigned nr_rings;
	struct node_peer *peers[NODE_PEERS_MAX];
	unsigned nr_peers;
	struct session *ending_sessions;
	struct node_peer *ending_peers;
	unsigned nr_ending; /* sessions and peers on their way out */
	unsigned nr_open; /* operations */
	unsigned turn;
	bool busy; /* housekeeping had something to do */
	struct wfi_spin spin; /* of the worker, before it sleeps */
	uint32_t guard_hits; /* that were seen to */
	struct node_load {
		uint64_t idle_ns; /* all in all */
		uint64_t since_ns[2],
			was_idle_ns[2]; /* at the start of the second before, and of this */
	} load;

	/* scratch of the worker: private copies of arguments */
	struct weft_key *keys;
	struct weft_place *places;
	struct weft_slot *slots;
	uint32_t *idx;
	uint32_t *where;
	int32_t *results;
	struct node_op *free_ops;
	void *free_bufs[OP_BUF_CLASSES];
	struct op_metrics op_metrics[WEFT_OP_NR];
	struct wfi_hist scratch_hist;
	struct wfi_counter scratch_counter;
	struct wfi_counter *bytes_out, *bytes_in, *bad_rings, *wakeups;
	struct wfi_counter *gpu_direct, *gpu_staged, *gpus_lost;
	struct wfi_counter *engines, *peers_up; /* gauges */

	/* mailbox; and the bell that wakes a sleeping worker */
	_Atomic(struct node_call *) call;
	_Atomic uint32_t bell;
	_Atomic bool stop;
	_Atomic bool draining;
	int poke_fd; /* eventfd, of node_poke() */
	int news_fd; /* epoll: what a sleeping worker waits for that is no futex, without .doze */
	struct doze *doze; /* the worker's own; or NULL */
};

/* ---- node.c: Context: worker, if nothing else is said ---- */

int node_create(const struct node_opts *opts, struct node **out);
/* no session is left */
void node_destroy(struct node *node);
/* one turn of the poll loop. Return: work done, 0 when idle. Hot */
int node_poll(struct node *node);
/* the control thread is to look at .broken of sessions and peers */
void node_poke(struct node *node);
/* polls until node_stop() */
void node_run(struct node *node);
/* Context: any thread */
void node_stop(struct node *node);
/* its SSD tier's file, in use. @why: on errors, one sentence. Return: as wfi_kv_tier_resize() */
int node_tier_resize(struct node *node, uint64_t bytes, char *why, size_t why_len);
/* Return: 0; as wfi_kv_tenant_add(), mr_reg(); -EINVAL no more can come */
int node_tenant_add(struct node *node, const struct wfi_tenant_opts *opts);
/* Context: the control thread, while the worker runs. Waits for it */
void node_call(struct node *node, void (*run)(struct node *node, void *arg), void *arg);

/* who sleeps wakes. Context: any thread */
void node_ring_bell(struct node *node);

/* ---- sleep.c ---- */

/* until something comes, or is due. Context: worker */
void node_sleep(struct node *node);
/* .news_fd is readable. Context: the control thread */
void node_news(struct node *node);

/* ---- link.c ---- */

#define LINK_WAITS_MAX 16u

/* @opts: NULL for the defaults. Return: 0, or what the provider says with nothing open */
int link_open(struct node_link *link, struct wfi_env *env, const struct weft_transport *t,
	      const struct weft_device_opts *opts);
/* in the order of the node's tenants. Return: 0, or what mr_reg() says */
int link_arena_add(struct node_link *link, const struct wfi_map *arena);
/* before a sleep: as cq_arm(), for both queues. Return: how many @waits; -EAGAIN poll first */
int link_arm(struct node_link *link, struct weft_wait waits[LINK_WAITS_MAX]);
void link_disarm(struct node_link *link);
/* the device of @link has failed. Context: worker */
void link_lost(struct node *node, struct node_link *link);
/* what a failed link has, out of the node. Context: worker. Return: false: peers have not ended yet
 */
bool link_take(struct node *node, struct node_link *link, struct node_link *out);
/* it has a device again. Context: worker */
void link_give(struct node *node, struct node_link *link, struct node_link *fresh);
/* takes a link that is not open */
void link_close(struct node_link *link);

/* ---- session.c ---- */

int session_attach(struct node *node, struct wfi_tenant *t, pid_t pid, int pidfd, const char *name,
		   struct session **out);
/**
 * session_detach - the engine is gone, or is to be
 * @may_write: its process lives and still maps the arena
 *
 * The session ends in later turns of the worker, when its operations have, and is freed then:
 * @s is invalid on return, only its owner id lives on, for session_gone().
 */
void session_detach(struct session *s, bool may_write);
/* the process of a session that was detached with @may_write is gone, perhaps before the session */
void session_gone(struct node *node, uint32_t owner_id);
/* one turn of an ending session. Return: true when it is freed */
bool session_end_poll(struct session *s);
/* the ring was created by the caller, and is the session's on success */
int session_ring_add(struct session *s, struct wfi_ring *ring, uint32_t *id);
int session_ring_close(struct session *s, uint32_t id);
/* Return: whether operations of a ring that was closed still touch memory of the engine's */
bool session_ring_busy(const struct session *s, uint32_t id);
/* mappings were taken away (guard.h): sessions that lived on them are broken. Return: how many */
unsigned sessions_guard(struct node *node);
/* @fd: the engine's memfd (lent for the call) or -1: private memory at @addr */
int session_region_reg(struct session *s, int fd, uint64_t addr, uint64_t off, uint64_t len,
		       uint32_t *id, char *why);
/* @region: .rkey and what NICs have of it, the session's on success; over .gpus[@ep]. Return: 0,
 * -EMFILE with @why */
int session_region_give(struct session *s, const struct region *region, unsigned ep, uint32_t *id,
			char *why);
/* Return: 0 gone, -EBUSY operations touch it still: ask again, -ENOENT */
int session_region_dereg(struct session *s, uint32_t id);
/* as wfi_kv_space_open() */
int session_space_open(struct session *s, const struct weft_space_opts *opts,
		       struct wfi_space_info *out, char *why);
/* it will use none any more */
void session_spaces_close(struct session *s);
/* as wfi_kv_space_remove(), and -EBUSY where other engines have it open, or handoffs or channels
 * are in it. @only: of this tenant, or NULL */
int session_space_remove(struct session *s, const struct wfi_tenant *only, uint32_t id, char *why);

/* ---- gpu.c ---- */

/* @req: of REGION_REG in GPU memory: input; @fd: beside it, and @dmabuf: for NICs, or -1, lent for
 * the call. Waits for the worker, and for the driver. Context: the control thread. Return: 0,
 * -errno with @why */
int gpu_region_reg(struct session *s, const struct weft_ctl_req *req, int fd, int dmabuf,
		   uint32_t *id, char *why);
/* an endpoint to a GPU is closed. @status: 0, or why it failed */
void gpu_ep_closed(struct node *node, struct ep_owner *owner, int status);
/* a region there is gone; so is the endpoint, when it was its last and is closed */
void gpu_region_gone(struct session *s, const struct weft_ep *ep);
/* the session ends. Return: all endpoints are closed, and gone */
void gpu_eps_shutdown(struct session *s);
bool gpu_eps_closed(const struct session *s);
void gpu_eps_destroy(struct session *s);
/* what is read next from memory on the GPU of @ep waits for an event of the engine's, by its
 * number. Return: 0; -EINVAL no event, or one for another GPU; as weft_ep_post_read() */
int gpu_wait(struct session *s, uint64_t event, struct weft_ep *ep);
/* whether it has come; nothing waits. Return: 0, -EAGAIN not yet, else as gpu_wait() */
int gpu_come(struct session *s, uint64_t event, struct weft_ep *ep);
/* the host memory of a tenant, where the endpoint wants it named, else NULL */
const struct weft_mr *gpu_mr(const struct session *s, const struct weft_ep *ep);

/* ---- gpu_tier.c ---- */

/* of the GPU of that name, on which a region is open: the first who asks has it opened, if one is
 * wanted. Waits for the worker, and for the driver. Context: the control thread. Return: NULL there
 * is no place for another one */
struct node_gpu_tier *gpu_tier_get(struct node *node, const uint8_t uuid[16]);
/* one there that has failed, and that nobody uses any more, is closed: it is opened again by
 * gpu_tier_get(). Context: as that. Return: whether there was one */
bool gpu_tier_reap(struct node *node, const uint8_t uuid[16]);
/* each has @bytes, or somewhat more: a larger one at once, a smaller one when nobody uses what it
 * loses. Waits for the worker, and for the driver. Context: as above. Return: 0; as
 * weft_gpu_tier_resize() with @why, and nothing changed */
int gpu_tiers_resize(struct node *node, uint64_t bytes, char *why, size_t why_len);
/* the worker has poked: what got smaller gives memory back. Context: as above */
void gpu_tiers_trim(struct node *node);
/* Return: that of the GPU whose endpoint it is, if there is one and it works; NULL. Hot */
struct wfi_tier_gpu *gpu_tier_of(const struct session *s, const struct weft_ep *ep);
/* Return: a bit for each GPU, by its number, whose tier has a copy of the block in a sealed slot */
uint32_t gpu_tiers_holding(const struct node *node, uint32_t slot);
/* Return: whether one of them is a GPU that the session has a region on */
bool gpu_tiers_near(const struct session *s, uint32_t slot);
/* Return: work done */
int gpu_tiers_poll(struct node *node, uint64_t now_ns);
uint64_t gpu_tiers_next_event_ns(const struct node *node);
/* Return: whether a copy to one is under way */
bool gpu_tiers_busy(const struct node *node);
/* no transfer is polled any more, and none is busy */
void gpu_tiers_destroy(struct node *node);

/* ---- gpu_direct.c: regions there that NICs reach themselves ---- */

/* which NICs are to reach a GPU: kept in .gpus, and said when it is new. Context: the control
 * thread. Return: its place there; -ENODEV, -ENOSPC, as wfi_gpu_find() */
int gpu_look(struct node *node, const uint8_t uuid[16]);
/* @dmabuf: lent for the call, or -1; the region begins @off bytes into it. @rkey: the region.
 * Context: the control thread. Return: NULL: by no NIC */
struct gpu_direct *gpu_direct_open(struct node *node, unsigned gpu, int dmabuf, uint64_t off,
				   const struct wfi_gpu_source *from, struct weft_rkey *rkey);
/* no NIC reads or writes there. Takes NULL */
void gpu_direct_close(struct gpu_direct *d);
/* lent while it is open; NULL of NULL */
const struct wfi_nic_memory *gpu_direct_memory(const struct gpu_direct *d);
/* a NIC is about to go, with nothing under way over it; or is there again */
void gpu_directs_net(struct node *node, const struct node_link *link, bool there);

/* ---- ops_route.c ---- */

/* wfi_cluster_route() with what is here: fills in .here_memory and .here_ssd. Return: the same */
int node_route(struct node *node, const struct wfi_route_opts *opts, struct wfi_route **out);

/* ---- ops.c ---- */

int ops_create(struct node *node);
void ops_destroy(struct node *node);
/* takes and runs what the ring holds. Return: submissions taken. Hot */
int ops_poll_ring(struct node *node, struct node_ring *r);
/* cancels what a session or, when not NULL, one of its rings has open */
void ops_cancel(struct session *s, const struct node_ring *only);
/* (ops_handoff.c) cancels expectations with places in a region */
void ops_region_closing(struct session *s, uint32_t id);

/* ---- rails.c: connections to one node, over a device each, are used together ---- */

/* another one to that node. Return: 0, -ENOSPC, -ENOMEM */
int rails_join(struct node_peer *p, uint64_t incarnation);
/* nothing more goes over it. Takes one that never joined */
void rails_leave(struct node_peer *p);
/* reads over it that have not completed yet */
unsigned rails_open(const struct node_peer *p);
/* @p is freed. Takes one that never joined */
void rails_put(struct node_peer *p);
int rails_poll(struct node *node, uint64_t now_ns);
uint64_t rails_next_event_ns(const struct node *node);
/* there are no peers any more */
void rails_fini(struct node *node);

/* ---- peer.c ---- */

struct node_peer {
	struct wfi_peer base;
	struct node_rails *rails; /* NULL: of this host, or not connected */
	unsigned rail;
	struct ep_owner ep_owner;
	struct node *node;
	struct node_link *link;
	char name[64];
	char addr[108]; /* socket or host:port; "" when the other side dialled */
	pid_t pid;
	bool connected;
	bool draining; /* as it says */
	bool ep_down;
	struct node_peer *next_ending;
	_Atomic bool broken;
	struct wfi_peer_arena arenas[NODE_TENANTS_MAX]; /* by our tenant's number */
	struct weft_rkey *shard; /* base.shard; NULL: it gives none */
};

/* ---- self.c ---- */

/* the node as a peer of its own. Return: NULL when it can't be (logged) */
struct wfi_peer *self_peer(struct node *node);
int self_poll(struct node *node);
bool self_waits(const struct node *node);
/* after everything else of the node's has ended */
void self_destroy(struct node *node);

/* who this node is to a peer over @link. Context: any thread */
void peer_hello(const struct node *node, const struct node_link *link, struct wire_hello *out);
/* makes an endpoint on @link, and what tells of it. @fds: the caller closes those from *nr_lent on
 */
int peer_create(struct node *node, struct node_link *link, const char *addr, pid_t pid,
		struct node_peer **out, struct wire_endpoint *ours, int fds[WIRE_FDS_MAX],
		unsigned *nr_fds, unsigned *nr_lent);
/* the other side's has come: both messages checked by wire.h. Return: 0; -EPROTO, -EINVAL,
 * -EADDRINUSE its id is another peer's: logged */
int peer_connect(struct node_peer *p, const struct wire_hello *who,
		 const struct wire_endpoint *theirs, const int *fds, unsigned nr_fds);
/* the connection is gone; @p is freed in a later turn of the worker, and invalid on return */
void peer_detach(struct node_peer *p);
bool peer_end_poll(struct node_peer *p);
struct wfi_peer *peer_find(struct node *node, uint64_t node_id);
/* mappings were taken away (guard.h): so are the peers whose arenas they were */
void peers_guard(struct node *node);
/* messages of peers, ends of endpoints: over all links, and over one. Return: how many. Hot */
int peers_poll(struct node *node);
int peers_hear(struct node *node, struct node_link *link);

struct node_blocks {
	uint32_t space;
	int nr; /* or -ENOENT */
	uint64_t at;
	struct wfi_block_stat blocks[WFI_BLOCKS_SLICE];
	uint32_t gpus[WFI_BLOCKS_SLICE]; /* a bit for each whose tier has a copy */
};

/* ---- status.c ---- */

/* JSON texts, malloc'ed; of one tenant, or of all when @only is NULL. NULL when out of memory.
 * @dials: peers that are not connected; @network: of control connections; both handed over, or NULL
 */
char *node_status_json(struct node *node, const struct wfi_tenant *only, struct json_t *dials,
		       struct json_t *network);
char *node_ls_json(struct node *node, const struct wfi_tenant *only);

/* a long list, made while the node serves: a slice for each call of the control thread */
struct node_slice {
	struct json_t *list; /* that a call appends to */
	uint32_t at; /* where the next one begins */
};
/* figures of spaces. Return: true when there may be more */
bool node_stat_slice(struct node *node, const struct wfi_tenant *only, struct node_slice *s);
/* what a slice has of blocks. Context: any thread */
void node_blocks_json(const struct node_blocks *b, struct json_t *list);

#endif
