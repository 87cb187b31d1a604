/* SPDX-License-Identifier: Apache-2.0 */
/**
 * weft/ring.h - the shared-memory ABI between an engine and its node
 *
 * This file is all that a client in another language needs. It describes, in this order: how to
 * attach (control messages on a unix socket), what a ring segment looks like, the protocol of its
 * entries, how each side sleeps, and what each operation finds in the argument area. Programs in C
 * use weft/weft.h and never touch this.
 *
 * All values are little-endian. Holes are named and must be zero. The node copies each entry and
 * each argument once into private memory, checks the copy, then uses it: what the engine changes
 * later has no effect. An engine that breaks the protocol is detached with a reason in the node's
 * log and -ECONNRESET on its socket; others never notice.
 *
 * 1. Attaching
 *
 * The socket is AF_UNIX, SOCK_SEQPACKET; one message is one struct weft_ctl_req, answered by one
 * struct weft_ctl_rep, in order. File descriptors travel as SCM_RIGHTS beside the message that
 * names them. The first request is WEFT_CTL_HELLO; the node checks SO_PEERCRED and the token.
 * When the socket hangs up, in either direction, the session is over. So it is when the process
 * that connected ends, though a child of its own still has the socket: map arena and rings with
 * MADV_DONTFORK, so that none writes to them.
 *
 *   HELLO       -> tenant's arena: fd 0 is its memfd, .len its bytes; .incarnation, .node
 *   RING_OPEN   -> a ring: fd 0 is its segment, .len its bytes, .id its number; -EDQUOT when all
 *                  rings of the tenant would be more than the node lets it have
 *   RING_CLOSE     .id; answered when nothing that was open there touches the engine's memory
 *   SPACE_OPEN  -> .id for weft_sqe.space, .secret for keys, .len the stride of its slots in bytes
 *   REGION_REG  -> .id for weft_place.region. Shared memory: its fd beside the request and .off,
 *                  .len inside it. Private memory: no fd, .addr and .len in the engine's address
 *                  space (the node then uses process_vm_readv/writev: PR_SET_PTRACER may be
 *                  needed). GPU memory: .kind and what struct weft_ctl_req says of it, with
 *                  up to two fds beside it
 *   REGION_DEREG   .id; answered when no copy touches the region any more
 *   STATUS, LS, STAT
 *               -> fd 0 is a memfd with a JSON text of .len bytes: of all tenants for root and the
 *                  node's own user, else of the engine's own
 *   BLOCKS         .id of a space, as LS says it, and .from
 *               -> the same, with some of its blocks; where the text has a "next", there are more
 *                  from that one on
 *   SPACE_REMOVE   .id of a space, as LS says it; answered when all that it held has gone. -EBUSY,
 *                  and .why, while another engine has it open, or anything of it is in use
 *   METRICS     -> fd 0 is the node's metrics segment
 *   DRAIN          the node takes no new engine, and stops when the last has left; -EPERM for
 *                  others than root and the node's own user
 *   BYE            the engine has unmapped its arena: its claimed slots may be reused at once
 *
 * 2. The ring segment
 *
 *   offset 0      struct weft_ring_hdr: geometry, written by the node before it hands the fd out
 *   offset 64     struct weft_ring_line, written by the engine only
 *   offset 128    struct weft_ring_line, written by the node only
 *   .sq_off       .sq_depth entries of 64 bytes
 *   .cq_off       .cq_depth entries of 32 bytes
 *   .arg_off      .arg_bytes of argument area, laid out by the engine as it likes
 *
 * Both sides copy the geometry once and never read it again.
 *
 * 3. Entries
 *
 * Positions are free-running 32-bit counters; position p lives at index p & (depth - 1). An entry
 * carries its own sequence, so that one cache line moves per message and nobody reads the other
 * side's index to learn of it:
 *
 *   producer of position p: fill all fields but .seq, then store-release .seq = p + 1
 *   consumer of position p: load-acquire .seq; it is there when equal to p + 1; then copy
 *
 * The producer learns of free space from the consumer's weft_ring_line.head: position p may be
 * filled when p - head < depth. The consumer stores it (release) after it has copied: at the latest
 * when a quarter of the depth (at least 1) is copied and not shown yet, and before it sleeps; more
 * often only moves a line that the producer reads. The engine never has more than .cq_depth
 * operations and layer events open: the node stops taking submissions while completions that it
 * owes might not fit, and never overruns.
 *
 * 4. Sleeping
 *
 * A side that wants to sleep: reads the other's .bell into b, stores its own .sleeping = 1, issues
 * a full fence, looks at its ring once more, then waits with FUTEX_WAIT (not private) on the
 * other's .bell while it is b; awake, it stores .sleeping = 0. A side that has published entries,
 * or stored its .head, issues a full fence (once a batch), and when the other's .sleeping is 1 adds
 * 1 to its own .bell and calls FUTEX_WAKE on it. So a system call is made only when somebody
 * sleeps.
 *
 * 5. Operations: enum weft_opcode, below.
 *
 * 6. Versions
 *
 * In every version a request begins with .magic, .version and .type of struct weft_ctl_req and has
 * at most WEFT_CTL_REQ_MAX bytes, and an answer is a struct weft_ctl_rep of 256 bytes. So an engine
 * of another version is heard, and told: its first request is answered with -EPROTO and with what
 * to update in .why, and the node hangs up. From the first release on every change of this file
 * other than a new opcode, request or flag counts WEFT_ABI_VERSION up; requests only grow. Until
 * then the version is 1 while things still change: what differs in size is told in the same way,
 * the smaller one is the older, and more than that is not promised. One node, one version: there is
 * no talking down.
 */
#ifndef WEFT_RING_H
#define WEFT_RING_H

#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEFT_RING_MAGIC 0x31474e4952544657ull /* "WFTRING1" */
#define WEFT_CTL_MAGIC 0x314c544354464557ull /* "WEFTCTL1" */
#define WEFT_ABI_VERSION 1u
#define WEFT_CTL_REQ_MAX 4096u
#define WEFT_RING_DEPTH_MAX 32768u
#define WEFT_ARG_BYTES_MAX (1u << 30)
#define WEFT_ARG_ALIGN 64u
#define WEFT_OP_BLOCKS_MAX 65536u /* weft_sqe.nr */

/**
 * enum weft_opcode - what an entry asks for, and its argument area
 *
 * Arrays follow one another in the order given, with nothing between; the first starts at
 * weft_sqe.arg_off, a multiple of WEFT_ARG_ALIGN. n is weft_sqe.nr. "out" arrays are written by the
 * node before the completion. A per-block result is 0 or a negative errno.
 *
 * NOP       nothing. res 0
 * STAT      out struct weft_stat. res 0
 * CLAIM     out slots[n]. Takes n slots of the space to fill; all or nothing. res n, -ENOSPC
 * PUT       parent key, keys[n], slots[n], out results[n]. Publishes claimed slots in place: they
 *           become sealed and immutable, and the engine's claim ends. With WEFT_F_COPY: places[n]
 *           instead of slots; the node copies into slots of its own. parent is the key before
 *           keys[0] in the chain, or zero. Who comes second under one key: result -EEXIST counts as
 *           published, the slot goes back. res: blocks now held under their keys. With places on a
 *           GPU handle may be an event (WEFT_CTL_REGION_CUDA_EVENT): bytes are read when what was
 *           last recorded in it has come, and so are those of later puts. -EAGAIN: too many wait
 * MATCH     keys[n], and with WEFT_F_WHERE out where[n] (u32: see WEFT_WHERE_TIER).
 *           res: length of the longest prefix held, here or on other nodes that are connected;
 *           handle: the microseconds that fetching those of other nodes would take, by the node's
 *           estimate. The node that knows who else has the chain is waited for for timeout_us,
 *           where that is set, and 50 ms else; WEFT_CQE_PARTIAL: it did not answer, and more may be
 *           held than res says. With WEFT_F_LEASE other nodes are not asked, and the prefix is
 *           leased, all of it or nothing: handle. Blocks in memory stay there, those in a slower
 *           tier stay in
 *           that, for the GET, MAP or PREFETCH to come, until RELEASE, the lease's end or the
 *           engine's. -EDQUOT: more than one engine may lease, or than the tenant may keep in a
 *           slower tier (its part, by weight, of half of it): release what is not needed, or match
 *           without a lease
 * GET       keys[n], places[n], out results[n]. Copies blocks out. -ENOENT is a miss. Blocks of a
 *           slower tier are fetched first, and checked. handle: a budget for that in us, or 0: what
 *           would take longer, by the node's estimate, is left, with result -ETIME. With
 *           WEFT_F_VERIFY the checksum is checked on the way, and a block that fails is a miss:
 *           its place may have been written to. What only other nodes have is READ from them, and
 *           always checked: what they can't give in time is a miss, and the budget holds for them,
 *           too: for links as for their slower tiers. They are found by keys[0]: the first of its
 *           chain, one that this node has, or one that a recent call had behind the first.
 *           res: blocks that arrived. With WEFT_F_SIGNAL
 *           a struct weft_arg_signal follows, at the next multiple of 8: before the completion, but
 *           for one of -EINVAL or -EFAULT, the node stores .value in a word of the engine's, for
 *           streams of a GPU that wait for it, unless the word is there or past it:
 *           (int32_t)(word - value) >= 0
 * MAP       keys[n], out slots[n]. Leases the longest prefix held, for reading in place. res: its
 *           length; out handle: the lease (0 when res is 0). Slower tiers, in handle and
 *           WEFT_F_VERIFY as for GET; what other nodes have is held here, too, from then on.
 *           With WEFT_F_PEEK it is no use of the blocks: the order in which they are evicted stays
 *           as it was. -EDQUOT: more than one engine may lease; -ENOMEM: the node has no memory
 *           for the lease
 * RELEASE   handle: a lease. Or handle 0 and slots[n]: claimed slots that will not be published.
 *           res: blocks released
 * PREFETCH  keys[n]. Asks for the prefix to be brought to, and kept in, the fastest tier. res:
 *           blocks of the prefix that are, or will be, there
 * DROP      keys[n], out results[n]. Forgets blocks of this node: from the completion on a miss,
 *           unless other nodes have them. res: dropped
 * HANDOFF_EXPECT  struct weft_arg_expect (out ticket), keys[n], out slots[n]. Names what will
 *           arrive. First completion: WEFT_CQE_MORE and WEFT_CQE_TICKET, ticket is written. Then
 *           one with WEFT_CQE_MORE a push: .layer, .first_block, .nr_blocks have landed, slots are
 *           written. Last, without MORE: res n and a lease on all slots, or a negative errno.
 * HANDOFF_PUSH    struct weft_arg_push, slots[n]. Layers of blocks .first_block .. + n of the
 *           ticket are ready and final in these slots (claimed, or held under a lease). Completes
 *           when they have landed: by reference inside one node, else when the receiver has them.
 *           Each block's layers are pushed in order. res n
 *
 * With WEFT_F_COPY either has places[n] instead of slots, and the layers are copied: PUSH out of
 * its places, which may be read until it completes, EXPECT into its own, which may be written to
 * until its last completion. Those of EXPECT are whole blocks, and nothing is leased then, nor
 * published: handle is 0, keys count for nothing. Those of PUSH may be of its layers alone (.len).
 * On a GPU the handle of PUSH may be an event, as that of PUT: the push waits for it, and nobody
 * else does. With WEFT_F_VERIFY, too, EXPECT has what lands checked, as far as the node can. One
 * that is given up, or whose region is deregistered (-ECANCELED), completes when no copy can touch
 * its places any more
 *
 * With WEFT_F_SIGNAL a struct weft_arg_signal follows the arrays of EXPECT, for its last
 * completion, as for GET
 *
 * With WEFT_F_LAYOUT a struct weft_layout follows the struct of either. EXPECT then takes blocks
 * of any layout with the same layers and head_bytes: of other page sizes, of some heads only, in
 * another order, keys and values apart. PUSH says the layout of what it pushes, without heads that
 * the receiver does not have, and counts its own blocks: block b holds tokens from b * its
 * nr_tokens on. Each element comes once, from one or from several pushers, layer by layer. A layer
 * of a block has landed when all of its elements have. Bytes move inside a node, too. Blocks of all
 * layouts together: at most 16384 heads x tokens x (keys, values) in a layer; and blocks of all
 * pushers of one handoff together, as they count them: at most 16 Mi. With WEFT_F_COPY places are
 * whole blocks on both sides
 * HANDOFF_CANCEL  handle: from the first completion of HANDOFF_EXPECT. res 0; the expectation
 *           completes with -ECANCELED
 *
 * A channel is an ordered stream of messages from one engine to another, of this node or of one
 * that it has as a peer. A message is some slots of one space and what stands in struct
 * weft_arg_message; both engines use the slots in place.
 *
 * CHANNEL_OPEN    struct weft_arg_channel (.bytes; out .ticket). The receiver's end. n: messages,
 *           up to 1024, and .bytes: bytes that may be on their way or not yet released; who sends
 *           more waits. out handle. res 0
 * CHANNEL_JOIN    struct weft_arg_channel (.ticket; out .seq). The sender's end; one at a time.
 *           out handle; .seq is the number of the message that the receiver wants next, not 0 when
 *           an earlier sender was lost. res 0; -EPERM, -ESTALE (closed), -EPIPE (closed meanwhile),
 *           -EBUSY (has a sender), -EXDEV (another space or tenant), -EHOSTUNREACH
 * CHANNEL_SEND    handle, struct weft_arg_message (.bytes, .tag), slots[n]: up to 64 that were
 *           claimed and filled, all but the last to the end. Waits for credit. Completes when the
 *           receiver has them: res n, and the slots are not the engine's any more. After an error
 *           they still are. -ETIMEDOUT for want of credit and -ECANCELED leave the stream as it
 *           was; -EMSGSIZE, -EINVAL, -ESTALE and -ENOMEM too; after others CLOSE, and JOIN anew:
 *           -ECONNRESET, -EPIPE (the receiver has closed), -EBADMSG, -ENOSPC (it has no room)
 * CHANNEL_RECV    handle, out struct weft_arg_message, out slots[n]. The next message, when it is
 *           here: res its slots, out handle: the message. res 0: the sender has closed.
 *           -ECONNRESET: it was lost; another may join, and goes on where this one ended.
 *           -EMSGSIZE: the message has more than n slots, and is still there. -ETIMEDOUT
 * CHANNEL_RELEASE handle: a message. Its slots go back, its credit to the sender. res: slots
 * CHANNEL_CLOSE   handle: a channel's, either end's. What was sent arrives first. res 0
 *
 * ROUTE     keys[n], struct weft_arg_route, in and out routes[m], m from 1 to WEFT_ROUTES_MAX. What
 *           each of some nodes is worth for the engine that will have this chain: how much of it
 *           the node has, how long the rest would take it, how busy it is. routes[].node names the
 *           candidates; where that of the first is 0, they are this node, those that it is
 *           connected to, and members of the cluster that it is not, as far as there is room.
 *           Nothing is fetched or touched. res: how many routes, the best first; candidates that do
 *           not answer by the deadline, or in 250 ms, are WEFT_ROUTE_DEAD and come last
 */
enum weft_opcode {
	WEFT_OP_NOP = 0,
	WEFT_OP_STAT = 1,
	WEFT_OP_CLAIM = 2,
	WEFT_OP_PUT = 3,
	WEFT_OP_MATCH = 4,
	WEFT_OP_GET = 5,
	WEFT_OP_MAP = 6,
	WEFT_OP_RELEASE = 7,
	WEFT_OP_PREFETCH = 8,
	WEFT_OP_DROP = 9,
	WEFT_OP_HANDOFF_EXPECT = 10,
	WEFT_OP_HANDOFF_PUSH = 11,
	WEFT_OP_HANDOFF_CANCEL = 12,
	WEFT_OP_CHANNEL_OPEN = 13,
	WEFT_OP_CHANNEL_JOIN = 14,
	WEFT_OP_CHANNEL_SEND = 15,
	WEFT_OP_CHANNEL_RECV = 16,
	WEFT_OP_CHANNEL_RELEASE = 17,
	WEFT_OP_CHANNEL_CLOSE = 18,
	WEFT_OP_ROUTE = 19,
	WEFT_OP_NR = 20,
};

enum weft_sqe_flags {
	WEFT_F_COPY = 1u << 0,
	WEFT_F_LEASE = 1u << 1,
	WEFT_F_WHERE = 1u << 2,
	WEFT_F_VERIFY = 1u << 3,
	WEFT_F_LAYOUT = 1u << 4,
	WEFT_F_PEEK = 1u << 5,
	WEFT_F_SIGNAL = 1u << 6,
};

enum weft_tier {
	WEFT_TIER_NONE = 0,
	WEFT_TIER_GPU = 1,
	WEFT_TIER_DRAM = 2,
	WEFT_TIER_SSD = 3,
	WEFT_TIER_REMOTE = 4,
	WEFT_TIER_REMOTE_SSD = 5, /* of another node's ssd tier */
};

/*
 * where a block is: its enum weft_tier, and above it
 *   of other nodes'      a hint at the node, 0 when there is none to give: the block may have moved
 *                        when it is asked for
 *   of a GPU's tier      0. It is in memory, and a copy on a GPU where the engine has a region
 *   of slower tiers      the microseconds after which this block and all before it in the prefix
 *                        would be in memory, if they were asked for now, from what the tier's
 *                        bandwidth was measured to be and what is queued; WEFT_WHERE_US_MAX is that
 *                        or longer. An engine that knows what computing takes can tell up to which
 *                        block fetching pays
 */
#define WEFT_WHERE_US_MAX 0xffffffu
#define WEFT_WHERE(tier, above) ((uint32_t)(tier) | (uint32_t)(above) << 8)
#define WEFT_WHERE_TIER(where) ((where)&0xffu)
#define WEFT_WHERE_NODE(where) ((where) >> 8)
#define WEFT_WHERE_US(where) ((where) >> 8)

/**
 * struct weft_sqe - one submission
 * @seq: position + 1, stored last
 * @trace_flags: of @trace_id, W3C trace context level 1
 * @user_data: comes back in the completion
 * @space: from SPACE_OPEN
 * @nr: blocks
 * @arg_off: of the arguments, bytes from the start of the argument area
 * @timeout_us: deadline from the moment the node takes it; 0 means the node's default (5 s)
 * @handle: lease, handoff, channel or message
 * @trace_id, @span_id: zero when there is none
 */
struct weft_sqe {
	uint32_t seq;
	uint8_t op;
	uint8_t flags;
	uint8_t trace_flags;
	uint8_t reserved;
	uint64_t user_data;
	uint32_t space;
	uint32_t nr;
	uint32_t arg_off;
	uint32_t timeout_us;
	uint64_t handle;
	uint8_t trace_id[16];
	uint8_t span_id[8];
};

enum weft_cqe_flags {
	WEFT_CQE_MORE = 1u << 0, /* another completion of this operation follows */
	WEFT_CQE_TICKET = 1u << 1, /* handoff: the ticket is written, handle names the handoff */
	WEFT_CQE_PARTIAL = 1u << 2, /* match: a node that may know of more did not answer in time */
	/* a GPU, or a NIC, has not ended what it was asked for: places may be written to, or read,
	 * until their region is deregistered, those in the arena for as long as it is mapped;
	 * regions on a GPU that hangs are -ENOTCONN from now on */
	WEFT_CQE_UNFENCED = 1u << 3,
};

/**
 * struct weft_cqe - one completion
 * @seq: position + 1, stored last
 * @res: see enum weft_opcode; negative errno when the operation failed as a whole
 * @layer: handoff: first of .nr_layers that landed
 * @nr_layers: handoff: how many
 * @value: handle (lease, handoff); for a layer event first block (low 32 bits) and how many
 */
struct weft_cqe {
	uint32_t seq;
	int32_t res;
	uint64_t user_data;
	uint8_t op;
	uint8_t flags;
	uint16_t layer;
	uint16_t nr_layers;
	uint16_t reserved;
	uint64_t value;
};

struct weft_arg_expect {
	struct weft_ticket ticket;
	struct weft_key parent;
	uint32_t nr_layers;
	uint32_t reserved[11];
};

struct weft_arg_push {
	struct weft_ticket ticket;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t first_block;
	uint32_t reserved[13];
};

struct weft_arg_channel {
	struct weft_ticket ticket;
	uint64_t bytes;
	uint64_t seq;
	uint32_t reserved[12];
};

struct weft_arg_message {
	uint64_t seq; /* 0, 1, ... in this channel */
	uint64_t tag; /* the sender's, for the receiver */
	uint64_t bytes; /* in all slots */
	uint32_t reserved[10];
};

/* a word of 32 bits: in a region that was registered with a memfd, at a multiple of 4 */
struct weft_arg_signal {
	uint64_t off;
	uint32_t region;
	uint32_t value;
};

#define WEFT_ROUTES_MAX 128u

/**
 * struct weft_arg_route - of ROUTE
 * @nr_routes: candidates, or room for them
 * @block_us: what computing one block takes the engine, in microseconds; 0: 1000
 */
struct weft_arg_route {
	uint32_t nr_routes;
	uint32_t block_us;
	uint32_t reserved[14];
};

enum weft_route_flags {
	WEFT_ROUTE_SELF = 1u << 0, /* the node that answers */
	WEFT_ROUTE_DEAD = 1u << 1, /* not connected, or did not answer in time: the rest is 0 */
	WEFT_ROUTE_DRAINING = 1u << 2, /* it is about to leave */
};

/**
 * struct weft_route - one node for one chain
 * @flags: enum weft_route_flags
 * @nr_memory, @nr_ssd: blocks of the chain, from the first on, that it has in memory and in its SSD
 *                      tier
 * @nr_fetch: blocks behind these that other nodes have and it could fetch from them
 * @ssd_us, @fetch_us: what bringing these would take it, by its own measurements
 * @bytes_per_s: of its links to those that it would fetch from, as measured; with nothing to fetch,
 *               of its links on average; 0: not measured yet
 * @load: of 1000: the part of the last second or so in which its worker was busy
 * @nr_ops: operations that it has open
 * @cost_us: what orders the nodes: until the chain is in memory there, brought or, where that is
 *           faster or there is nothing to bring, computed; stretched by the load
 * @rtt_us: how long it took to answer; 0: the node itself
 */
struct weft_route {
	uint64_t node;
	uint32_t flags;
	uint32_t nr_memory;
	uint32_t nr_ssd;
	uint32_t nr_fetch;
	uint32_t ssd_us;
	uint32_t fetch_us;
	uint64_t bytes_per_s;
	uint32_t load;
	uint32_t nr_ops;
	uint64_t cost_us;
	uint32_t rtt_us;
	uint32_t reserved;
};

/* answer to STAT, of the engine's tenant */
struct weft_stat {
	uint64_t blocks_held;
	uint64_t slots_total;
	uint64_t slots_free;
	uint64_t slots_filling;
	uint64_t slots_quarantined;
	uint64_t slots_leased;
	uint64_t arena_bytes;
	uint64_t reserved;
};

/* one side's line: the only one that it writes */
struct weft_ring_line {
	uint32_t head; /* positions consumed: engine of the CQ, node of the SQ */
	uint32_t bell; /* the other side waits on this futex */
	uint32_t sleeping; /* 1: wake me */
	uint32_t reserved[13];
};

struct weft_ring_hdr {
	uint64_t magic;
	uint32_t version;
	uint32_t sq_depth;
	uint32_t cq_depth;
	uint32_t arg_bytes;
	uint64_t sq_off;
	uint64_t cq_off;
	uint64_t arg_off;
	uint64_t len;
	uint64_t reserved;
};

#define WEFT_RING_ENGINE_OFF 64u
#define WEFT_RING_NODE_OFF 128u

/* control messages */

enum weft_ctl_type {
	WEFT_CTL_HELLO = 1,
	WEFT_CTL_RING_OPEN = 2,
	WEFT_CTL_RING_CLOSE = 3,
	WEFT_CTL_SPACE_OPEN = 4,
	WEFT_CTL_REGION_REG = 5,
	WEFT_CTL_REGION_DEREG = 6,
	WEFT_CTL_STATUS = 7,
	WEFT_CTL_LS = 8,
	WEFT_CTL_METRICS = 9,
	WEFT_CTL_DRAIN = 10,
	WEFT_CTL_BYE = 11,
	WEFT_CTL_PEER_HELLO = 12, /* from another node; see the control protocol between nodes */
	WEFT_CTL_STAT = 13,
	WEFT_CTL_BLOCKS = 14,
	WEFT_CTL_TIER_RESIZE = 15,
	WEFT_CTL_SPACE_REMOVE = 16,
	WEFT_CTL_GPU_TIER_RESIZE = 17,
};

#define WEFT_TOKEN_MAX 64

enum weft_ctl_region {
	WEFT_CTL_REGION_HOST = 0,
	WEFT_CTL_REGION_CUDA_IPC = 1, /* memory of cudaMalloc(), by its handle */
	WEFT_CTL_REGION_CUDA_VMM = 2, /* memory of cuMemCreate(): with its descriptor */
	WEFT_CTL_REGION_CUDA_EVENT = 3, /* no memory, but an event for puts */
};

/**
 * struct weft_ctl_req - one request, 512 bytes
 * @hello.token: zero-padded; empty for the default tenant
 * @hello.name: of the engine, for people
 * @ring.sq_depth: power of two, up to WEFT_RING_DEPTH_MAX; 0: 256
 * @ring.cq_depth: power of two >= sq_depth; 0: twice sq_depth
 * @ring.arg_bytes: multiple of 4096; 0: 4 MiB
 * @space: as struct weft_space_opts, strings zero-terminated
 * @region: see REGION_REG. .kind: enum weft_ctl_region. In GPU memory .off and .len lie in an
 *          allocation of .size bytes, and .addr is where the engine has the region; .gpu is the
 *          GPU's UUID, .handle the CUDA IPC handle of the allocation, .driver the version of CUDA
 *          that cuDriverGetVersion() says. Of an event .addr is its CUevent, .gpu where puts wait
 *          for it, .handle its own, the rest is 0. The segments as in struct weft_region_opts.
 *          .has_dmabuf: another fd, the last one, is a dma-buf of the region's pages, for NICs; the
 *          region begins .dmabuf_off bytes into it
 * @blocks.from: 0, or as the last answer's text says
 * @tier.bytes: what its file may take, all in all; or memory of each GPU
 */
struct weft_ctl_req {
	uint64_t magic;
	uint32_t version;
	uint32_t type;
	uint32_t id;
	uint32_t reserved;
	union {
		struct {
			char token[WEFT_TOKEN_MAX];
			char name[WEFT_NAME_MAX];
		} hello;
		struct {
			uint32_t sq_depth;
			uint32_t cq_depth;
			uint32_t arg_bytes;
			uint32_t reserved;
		} ring;
		struct {
			uint64_t block_bytes;
			uint64_t max_blocks;
			uint32_t tokens_per_block;
			uint32_t nr_layers;
			uint32_t dtype;
			uint32_t verify;
			char model[WEFT_NAME_MAX];
			char layout[WEFT_NAME_MAX];
			uint32_t replicas;
			uint32_t reserved;
		} space;
		struct {
			uint64_t addr;
			uint64_t off;
			uint64_t len;
			uint32_t has_fd;
			uint32_t kind;
			uint64_t size;
			uint64_t segment_bytes;
			uint64_t segment_stride;
			uint64_t block_stride;
			uint32_t nr_segments;
			int32_t driver;
			uint8_t gpu[16];
			uint8_t handle[64];
			uint64_t dmabuf_off;
			uint32_t has_dmabuf;
			uint32_t reserved;
		} region;
		struct {
			uint64_t from;
		} blocks;
		struct {
			uint64_t bytes;
		} tier;
		uint8_t bytes[488];
	} u;
};

/**
 * struct weft_ctl_rep - one answer, 256 bytes
 * @status: 0 or negative errno
 * @nr_fds: file descriptors beside this message
 * @why: on error, a sentence for people: what is wrong and what to do
 */
struct weft_ctl_rep {
	uint64_t magic;
	uint32_t type;
	int32_t status;
	uint32_t id;
	uint32_t nr_fds;
	uint64_t len;
	uint64_t incarnation;
	uint64_t node;
	uint8_t secret[16];
	uint64_t reserved;
	char why[184];
};

WEFT_STATIC_ASSERT(sizeof(struct weft_sqe) == 64, "abi");
WEFT_STATIC_ASSERT(offsetof(struct weft_sqe, user_data) == 8, "abi");
WEFT_STATIC_ASSERT(offsetof(struct weft_sqe, handle) == 32, "abi");
WEFT_STATIC_ASSERT(offsetof(struct weft_sqe, trace_id) == 40, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_cqe) == 32, "abi");
WEFT_STATIC_ASSERT(offsetof(struct weft_cqe, value) == 24, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_expect) == 128, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_push) == 128, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_channel) == 128, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_message) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_signal) == 16, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_stat) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_arg_route) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_route) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_ring_hdr) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_ring_line) == 64, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_ctl_req) == 512, "abi");
WEFT_STATIC_ASSERT(sizeof(struct weft_ctl_rep) == 256, "abi");

#ifdef __cplusplus
}
#endif
#endif
