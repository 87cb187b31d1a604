/* SPDX-License-Identifier: Apache-2.0 */
/**
 * weft/weft.h - libweft: put and get KV blocks, hand them over, from an engine
 *
 * In short:
 *
 *	struct weft *w;
 *	struct weft_space *space;
 *	struct weft_ring *ring;
 *
 *	weft_open(NULL, &w);                          attach to the node of this host
 *	weft_space_open(w, &geometry, &space);        one model, one block size
 *	weft_ring_open(w, NULL, &ring);               one per thread that submits
 *	weft_key_chain(space, NULL, tokens, nr, keys, max);
 *	weft_put(ring, space, NULL, keys, nr, bufs);  blocks in
 *	weft_get(ring, space, keys, nr, bufs);        blocks out
 *
 * Those calls block. Below them lies what they are made of: weft_submit() posts any number of
 * operations at the cost of a few stores, weft_poll() takes completions, weft_wait() sleeps for
 * them.
 *
 * Errors are negative errno. Objects that a call gives are destroyed by the caller with the
 * matching close; arguments are lent for the call unless a comment says otherwise.
 *
 * Pointers that are WEFT_NONNULL are to something: compilers say where one may not be, and nothing
 * else looks. Of the others those may be NULL that a comment says it of, arrays too where they have
 * no elements; else NULL is -EINVAL, as an array of more than INT_MAX elements is.
 *
 * Structs with .size may grow; the others, struct weft_op and struct weft_completion above all,
 * have one size wherever the soname of libweft is one: who needs them larger changes it.
 * libweft.so.0 is what there is before the first release, and promises nothing: build engines with
 * its own header.
 *
 * Threads: struct weft, spaces and regions may be used from any thread. A ring belongs to one
 * thread at a time. A child made by fork() is another engine, which opens a session of its own: it
 * has neither arena nor rings of the parent's, and of what the parent opened it may use
 * weft_close() alone, which frees memory and leaves the parent's session as it is.
 */
#ifndef WEFT_WEFT_H
#define WEFT_WEFT_H

#include <stddef.h>
#include <stdint.h>
#include "weft/kv.h"
#include "weft/ring.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WEFT_API __attribute__((visibility("default"))) __attribute__((warn_unused_result))
#define WEFT_API_VOID __attribute__((visibility("default")))
#define WEFT_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))
#else
#define WEFT_API
#define WEFT_API_VOID
#define WEFT_NONNULL(...)
#endif

struct weft;
struct weft_space;
struct weft_ring;

/* ---- attaching ---- */

enum weft_mode {
	WEFT_ATTACH = 0, /* to the weftd of this host */
	WEFT_EMBEDDED = 1, /* the node's worker runs in a thread of this process */
};

/**
 * struct weft_opts - how to attach
 * @size: sizeof(struct weft_opts); fields added later are zero for programs that do not know them,
 *        and a tail that this library does not know must be zero, else -EINVAL
 * @mode: enum weft_mode
 * @socket: path of the node's socket; NULL: WEFT_SOCKET, else $XDG_RUNTIME_DIR/weft/weftd.sock when
 *          that exists, else /run/weft/weftd.sock
 * @token: of the tenant; NULL: WEFT_TOKEN, else empty (the default tenant)
 * @name: of this engine, shown in weft status; NULL: the program's name
 * @arena_bytes: WEFT_EMBEDDED only; 0: 256 MiB
 * @gpu_tier_bytes: WEFT_EMBEDDED only: memory of each GPU with a region of this program's, for
 *                  copies of blocks that it gets there again and again; 0: none
 */
struct weft_opts {
	size_t size;
	uint32_t mode;
	uint32_t reserved;
	const char *socket;
	const char *token;
	const char *name;
	uint64_t arena_bytes;
	uint64_t gpu_tier_bytes;
};

/**
 * weft_open - attach to a node, or start one in this process
 * @opts: NULL for the defaults
 *
 * Return: 0; -ENOENT no node listens there; -ETIMEDOUT it does not answer; -EACCES wrong token;
 * -EPROTO another ABI version; -EINVAL bad options; -ENOMEM. weft_why() has the sentence.
 */
WEFT_API WEFT_NONNULL(2) int weft_open(const struct weft_opts *opts, struct weft **out);

/* closes rings, spaces and regions too, and waits for a node that does not answer but once; what
 * was claimed or leased goes back. Takes NULL */
WEFT_API_VOID void weft_close(struct weft *w);

/**
 * weft_why - a sentence about this thread's last error in a call of this library
 *
 * Return: never NULL; valid until this thread's next call.
 */
WEFT_API const char *weft_why(void);

/**
 * weft_reattach - attach again after -ECONNRESET
 *
 * A node that stops or dies completes every open operation with -ECONNRESET, and so does each later
 * one. This attaches to the node's next life, with the same spaces, regions and rings. Slots,
 * leases and tickets of the earlier life are gone; the old arena stays mapped, unchanged by anyone,
 * until the next weft_reattach() or weft_close(), so that stray readers do not fault.
 *
 * Context: no other thread uses @w or its rings meanwhile. weft_put() and weft_get() and the other
 * blocking calls do this by themselves once, before they fail, when @w has one ring only.
 * Return: 0, or as weft_open(); -ENOENT while the node is away: try again later.
 */
WEFT_API WEFT_NONNULL(1) int weft_reattach(struct weft *w);

/* Return: 1 attached, 0 the node is gone. Context: any thread; no system call */
WEFT_API WEFT_NONNULL(1) int weft_attached(const struct weft *w);

/* the tenant's arena in this process: where slots lie. Changes with weft_reattach() */
WEFT_API WEFT_NONNULL(1) void *weft_arena(const struct weft *w);
WEFT_API WEFT_NONNULL(1) uint64_t weft_arena_bytes(const struct weft *w);

/* ---- spaces and keys ---- */

/**
 * weft_space_open - name a KV geometry; engines with equal options share its blocks
 *
 * Return: 0; -EINVAL a field is out of range; -E2BIG a block is larger than the arena.
 */
WEFT_API WEFT_NONNULL(1, 3) int weft_space_open(struct weft *w, const struct weft_space_opts *opts,
						struct weft_space **out);
WEFT_API_VOID void weft_space_close(struct weft_space *space);
WEFT_API WEFT_NONNULL(1) uint64_t weft_space_block_bytes(const struct weft_space *space);

/**
 * weft_key_chain - keys of the full blocks of a prompt
 * @parent: key of the block before, or NULL at the start of a prompt
 * @tokens: nr_tokens token ids
 * @keys: room for @max keys
 *
 * SipHash-2-4-128 under the space's secret of (parent, tokens of the block).
 *
 * Return: number of keys: full blocks in the tokens, at most @max.
 */
WEFT_API WEFT_NONNULL(1) int weft_key_chain(const struct weft_space *space,
					    const struct weft_key *parent, const uint32_t *tokens,
					    size_t nr_tokens, struct weft_key *keys, unsigned max);

/**
 * weft_key_from_hash - the key for an engine's own block hash
 * @hash: e.g. vLLM's 32 bytes, a string of LMCache's; must itself stand for the whole prefix
 *
 * Return: 0, -EINVAL when @len is 0.
 */
WEFT_API WEFT_NONNULL(1, 4) int weft_key_from_hash(const struct weft_space *space, const void *hash,
						   size_t len, struct weft_key *out);

/* ---- regions: the engine's own memory ---- */

enum weft_region_kind {
	WEFT_REGION_MEMORY = 0, /* of the host */
	WEFT_REGION_GPU = 1, /* of a GPU: by cudaMalloc(), or cuMemCreate() with file descriptors */
};

/**
 * struct weft_region_opts - memory that the node may copy from and to
 * @addr: start in this process; of a GPU: the device pointer, e.g. a tensor's data_ptr()
 * @len: bytes; of a GPU: of one allocation
 * @kind: enum weft_region_kind. The memory stays the caller's, and stays allocated and mapped there
 *        until weft_region_dereg() returns, even when the node is gone meanwhile
 * @fd: memfd that @addr maps from @fd_off on (fastest: the node maps it too), or -1: private
 * memory.
 *      It is sealed against shrinking and growing if it is not yet, so it needs MFD_ALLOW_SEALING.
 *      -1 for memory of a GPU
 * @nr_segments: of GPU memory where the bytes of a block do not lie in one run: a block is so many
 *               segments of .segment_bytes, .segment_stride bytes from one to the next, and the
 *               next block begins .block_stride bytes behind it. Bytes of the region are then
 *               counted block by block: block b begins at weft_place.off b * nr_segments *
 *               segment_bytes. 0: they lie as they are counted
 *
 * The places of one operation are in host memory, or in that of one GPU. What a GPU does not take
 * or give, because it failed, is a result of -EIO for its blocks, and -ENOTCONN from then on.
 */
struct weft_region_opts {
	size_t size;
	void *addr;
	uint64_t len;
	int fd;
	uint32_t kind;
	uint64_t fd_off;
	uint64_t segment_bytes;
	uint64_t segment_stride;
	uint64_t block_stride;
	uint32_t nr_segments;
	uint32_t reserved;
};

/* Return: 0, region number in @out; -EPERM the node may not reach private memory of this
 * process, or takes none (private_memory in weftd.conf). Of a GPU: -ENODEV no driver, here or at
 * the node, or a GPU that it does not see; -ESTALE no GPU memory is there, or no longer; -EINVAL
 * more than one allocation; -EOPNOTSUPP memory that no other process can have; -EPROTO the node's
 * driver is of another version; -ESRCH the node is in another pid namespace; -EIO the GPU has
 * failed; -ENOMEM. weft_why() says what to do */
WEFT_API WEFT_NONNULL(1, 3) int weft_region_reg(struct weft *w, const struct weft_region_opts *opts,
						uint32_t *out);
/**
 * weft_event_reg - an event that puts and pushes out of GPU memory wait for, so that the engine
 *                  need not
 * @event: a CUevent or cudaEvent_t, made with CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING (in
 *         torch: Event(interprocess=True).cuda_event); the caller's until weft_region_dereg()
 * @region: of this session, in memory of the GPU that puts are to come from; kept as long
 * @out: number for weft_op.handle of WEFT_OP_PUT and WEFT_OP_HANDOFF_PUSH with WEFT_F_COPY
 *
 * Such a put reads its places when all that was in the stream at the last record has been done, and
 * its deadline counts from the submission on. So: record, then submit; and record anew when the put
 * has completed. The same holds for a push; of layers that are under way at a time each has an
 * event of its own. Numbers are those of regions, and are given back as those are.
 *
 * Return: 0; -EOPNOTSUPP another kind of event; -EINVAL no such region; as weft_region_reg()
 */
WEFT_API WEFT_NONNULL(1, 4) int weft_event_reg(struct weft *w, void *event, uint32_t region,
					       uint32_t *out);
/* waits until no operation touches it; afterwards the memory is the engine's alone */
WEFT_API WEFT_NONNULL(1) int weft_region_dereg(struct weft *w, uint32_t region);

/* ---- rings ---- */

/* @depth: submissions in flight, power of two, 0: 256. @arg_bytes: 0: 4 MiB */
struct weft_ring_opts {
	size_t size;
	uint32_t depth;
	uint32_t arg_bytes;
};

WEFT_API WEFT_NONNULL(1, 3) int weft_ring_open(struct weft *w, const struct weft_ring_opts *opts,
					       struct weft_ring **out);
/*
 * Open operations end as if cancelled; their memory is the caller's again on return. This waits for
 * copies that are under way, and for puts and pushes behind events until their deadlines: for 30 s
 * at most. Where a GPU, or the node, hangs for longer, their memory may still be read or written
 * until the node has ended.
 */
WEFT_API_VOID void weft_ring_close(struct weft_ring *ring);

/**
 * struct weft_message - of a channel, beside its slots
 * @seq: its number in the channel, from 0 on
 * @tag: what the sender likes
 * @bytes: in all slots; all but the last are full
 */
struct weft_message {
	uint64_t seq;
	uint64_t tag;
	uint64_t bytes;
};

/**
 * struct weft_signal - the end of a get, or of a handoff that was expected, for streams of a GPU
 * @addr: of a word of 32 bits, as GPUs see it
 * @value: the get has ended when the word has reached it: (int32_t)(word - value) >= 0
 */
struct weft_signal {
	uint64_t addr;
	uint32_t value;
	uint32_t reserved;
};

/**
 * struct weft_op - one operation; fields that an opcode does not use are zero (weft/ring.h says
 * which it uses)
 * @op, @flags: enum weft_opcode, enum weft_sqe_flags
 * @keys, @places, @parent: lent for the call of weft_submit(); @places of HANDOFF_EXPECT and
 *         HANDOFF_PUSH with WEFT_F_COPY, instead of @slots
 * @slots: in: lent for the call; out (CLAIM, MAP, HANDOFF_EXPECT, CHANNEL_RECV): lent until the
 *         completion
 * @results, @where, @ticket, @stat: out, or NULL where not wanted; lent until the completion
 *           (HANDOFF_PUSH and CHANNEL_JOIN read @ticket, for the call)
 * @layout: of HANDOFF_EXPECT and HANDOFF_PUSH with WEFT_F_LAYOUT; read for the call
 * @message: of CHANNEL_OPEN .bytes, of CHANNEL_SEND .bytes and .tag, read for the call; of
 *           CHANNEL_JOIN, where it may be NULL, .seq, of CHANNEL_RECV all: out, lent until the
 *           completion
 * @handle: lease, handoff, channel or message; of PUT and HANDOFF_PUSH with WEFT_F_COPY: 0, or an
 *          event
 * @timeout_us: 0: the node's default
 * @trace: W3C trace context, 16 + 8 + 1 bytes, or NULL
 * @routes: of ROUTE: .node of each is read for the call; out, lent until the completion
 * @nr_routes, @block_us: of ROUTE, as in struct weft_arg_route
 * @signal: of GET and HANDOFF_EXPECT with WEFT_F_SIGNAL: out, written by weft_submit()
 */
struct weft_op {
	uint8_t op;
	uint8_t flags;
	uint16_t reserved;
	uint32_t nr;
	uint64_t user_data;
	const struct weft_space *space;
	const struct weft_key *parent;
	const struct weft_key *keys;
	const struct weft_place *places;
	struct weft_slot *slots;
	int32_t *results;
	uint32_t *where;
	struct weft_ticket *ticket;
	struct weft_stat *stat;
	uint64_t handle;
	uint32_t timeout_us;
	uint32_t layer;
	uint32_t nr_layers;
	uint32_t first_block;
	const uint8_t *trace;
	struct weft_message *message;
	const struct weft_layout *layout;
	struct weft_route *routes;
	uint32_t nr_routes;
	uint32_t block_us;
	struct weft_signal *signal;
};

/**
 * struct weft_completion - what became of an operation
 * @res: as weft/ring.h says for the opcode
 * @flags: enum weft_cqe_flags; WEFT_CQE_MORE: not the last of this operation; WEFT_CQE_PARTIAL: a
 *         match that may have found less than there is; WEFT_CQE_UNFENCED: its places may
 *         still be written to, or read, until weft_region_dereg() of theirs returns
 * @handle: lease or handoff; of GET and MAP the budget, in us, for fetching from slower
 *          tiers and other nodes
 * @layer, @nr_layers, @first_block, @nr_blocks: what landed, in a handoff's layer event
 */
struct weft_completion {
	uint64_t user_data;
	int32_t res;
	uint8_t op;
	uint8_t flags;
	uint16_t layer;
	uint16_t nr_layers;
	uint16_t reserved;
	uint32_t first_block;
	uint32_t nr_blocks;
	uint32_t reserved2;
	uint64_t handle;
};

/**
 * weft_completion_why - a sentence about a completion whose .res is an error, or about a result of
 *                       one block, with its .op and the result as .res: what is wrong, what to do
 *
 * Return: never NULL; lives as long as the library
 */
WEFT_API WEFT_NONNULL(1) const char *weft_completion_why(const struct weft_completion *completion);

/**
 * weft_submit - post operations
 *
 * Context: the ring's thread. Hot (a system call only when the node sleeps).
 * Return: how many were posted, from the first on, at least 1; -EAGAIN ring or argument area full:
 * poll, then retry; -EINVAL ops[0] is malformed; -ECONNRESET the node is gone.
 */
WEFT_API WEFT_NONNULL(1, 2) int weft_submit(struct weft_ring *ring, const struct weft_op *ops,
					    unsigned nr);

/**
 * weft_poll - take completions, without waiting
 *
 * When the node is gone, every open operation completes with -ECONNRESET.
 *
 * Context: the ring's thread. Hot.
 * Return: number written to @out, 0 when there is none.
 */
WEFT_API WEFT_NONNULL(1, 2) int weft_poll(struct weft_ring *ring, struct weft_completion *out,
					  unsigned max);

/**
 * weft_wait - take completions, sleeping until there is at least one
 * @timeout_us: 0 waits for ever (the node ends every operation by its deadline)
 *
 * Spins for a few microseconds first.
 * Return: as weft_poll(); 0 only after the timeout.
 */
WEFT_API WEFT_NONNULL(1, 2) int weft_wait(struct weft_ring *ring, struct weft_completion *out,
					  unsigned max, uint64_t timeout_us);

/**
 * weft_signals_open - let streams of GPUs wait for gets of this ring, and for what it expects, so
 *                     that the engine need not
 * @region: of this session, in memory of a GPU that this process uses
 *
 *	weft_signals_open(ring, region);              once
 *	op.flags |= WEFT_F_SIGNAL;
 *	op.signal = &signal;
 *	weft_submit(ring, &op, 1);                    a get
 *	weft_signal_wait(ring, &signal, stream);
 *	kernel<<<..., stream>>>();                    reads what the get brings
 *	weft_wait(ring, &completion, 1, 0);           any time later: did it bring all?
 *
 * A signal says that the get has ended, not how: what kernels behind it have computed is good when
 * the completion says that all blocks arrived. It is given whatever becomes of the get: at the end
 * of its deadline (of 5 s where .timeout_us is 0), within a second after that where the node does
 * not answer at all, and at once when the node is gone or the ring is closed. A thread of this
 * library sees to that. A node that did not answer may still write to the places, until the
 * completion is here.
 *
 * weft_ring_close() then waits until nothing runs on that GPU in the primary context.
 *
 * Return: 0; -EALREADY; -EINVAL no such region; -EOPNOTSUPP a driver whose streams can't, or an
 * embedded node: CUDA may put its copies in one queue behind the stream that waits for them; as
 * weft_region_reg()
 */
WEFT_API WEFT_NONNULL(1) int weft_signals_open(struct weft_ring *ring, uint32_t region);
/**
 * weft_signal_wait - what is asked of a stream from now on begins when the get has ended
 * @stream: CUstream or cudaStream_t; not one that is being captured
 *
 * cuStreamWaitValue32() with what @signal has and CU_STREAM_WAIT_VALUE_GEQ: engines may as well
 * call that. A signal may be waited for by any number of streams, and when it was given long ago.
 *
 * Context: the ring's thread, in the stream's CUDA context.
 * Return: 0; -EINVAL the ring has no signals; as the driver says
 */
WEFT_API WEFT_NONNULL(1) int weft_signal_wait(struct weft_ring *ring,
					      const struct weft_signal *signal, void *stream);

/**
 * weft_call - submit one operation and wait for its last completion
 *
 * Context: the ring's thread; not while other operations of this ring are open (-EBUSY).
 * Return: the completion's res; @out may be NULL.
 */
WEFT_API WEFT_NONNULL(1, 2) int weft_call(struct weft_ring *ring, const struct weft_op *op,
					  struct weft_completion *out);

/* ---- the simple calls, made of weft_call() ---- */

/**
 * weft_put - copy blocks in and publish them
 * @parent: key before keys[0] in its chain, or NULL
 * @bufs: nr pointers to a block's bytes each
 *
 * Return: blocks now held (nr), or -errno: -ENOSPC nothing can be evicted to make room.
 */
WEFT_API WEFT_NONNULL(1) int weft_put(struct weft_ring *ring, const struct weft_space *space,
				      const struct weft_key *parent, const struct weft_key *keys,
				      unsigned nr, const void *const *bufs);

/**
 * weft_get - copy the longest prefix of @keys that is held into @bufs, checksums verified
 * @keys: from the first of their chain on; ring.h, GET, says what else other nodes' are found by
 *
 * Return: blocks copied, from the first on; 0 when keys[0] is a miss.
 */
WEFT_API WEFT_NONNULL(1) int weft_get(struct weft_ring *ring, const struct weft_space *space,
				      const struct weft_key *keys, unsigned nr, void *const *bufs);

/* Return: length of the longest prefix held */
WEFT_API WEFT_NONNULL(1) int weft_match(struct weft_ring *ring, const struct weft_space *space,
					const struct weft_key *keys, unsigned nr);

/**
 * weft_map - lease the longest prefix held, for reading in place
 * @slots: room for nr; weft_arena(w) + slots[i].off is block i
 * @lease: for weft_release()
 *
 * Return: blocks leased.
 */
WEFT_API WEFT_NONNULL(1, 6) int weft_map(struct weft_ring *ring, const struct weft_space *space,
					 const struct weft_key *keys, unsigned nr,
					 struct weft_slot *slots, uint64_t *lease);
WEFT_API WEFT_NONNULL(1) int weft_release(struct weft_ring *ring, uint64_t lease);

/* Return: blocks forgotten */
WEFT_API WEFT_NONNULL(1) int weft_drop(struct weft_ring *ring, const struct weft_space *space,
				       const struct weft_key *keys, unsigned nr);

/**
 * weft_route - what each node would be worth for the engine that will have this chain
 * @block_us: what computing one block takes that engine, in microseconds; 0: 1000
 * @routes: .node of each candidate, or .node 0 of the first: all nodes that this one knows, as far
 *          as there is room. Written as ROUTE in weft/ring.h says, the best first
 * @nr_routes: up to WEFT_ROUTES_MAX
 *
 * For routers of requests: nothing is fetched. Who does not answer is WEFT_ROUTE_DEAD, and last.
 *
 * Return: how many routes
 */
WEFT_API WEFT_NONNULL(1) int weft_route(struct weft_ring *ring, const struct weft_space *space,
					const struct weft_key *keys, unsigned nr, uint32_t block_us,
					struct weft_route *routes, unsigned nr_routes);

/* ---- channels: a stream of messages from one engine to another ---- */

/**
 * weft_channel_open - the receiver's end
 * @space: its slots hold the messages
 * @nr: messages that may be on their way, or with the receiver, at a time: up to 1024
 * @bytes: the same of bytes, at least a block
 * @ticket: for the sender, carried there by any way
 *
 * Return: 0, handle in @channel; -EINVAL, -EAGAIN too many channels in this node
 */
WEFT_API WEFT_NONNULL(1, 6) int weft_channel_open(struct weft_ring *ring,
						  const struct weft_space *space, unsigned nr,
						  uint64_t bytes, struct weft_ticket *ticket,
						  uint64_t *channel);
/**
 * weft_channel_join - the sender's end
 * @space: with the geometry of the receiver's
 * @next_seq: number of the message to begin with, or NULL
 *
 * Return: 0, handle in @channel; or as CHANNEL_JOIN in weft/ring.h
 */
WEFT_API WEFT_NONNULL(1, 4) int weft_channel_join(struct weft_ring *ring,
						  const struct weft_space *space,
						  const struct weft_ticket *ticket,
						  uint64_t *channel, uint64_t *next_seq);
/**
 * weft_channel_send - give @nr claimed slots, filled with @bytes, to the receiver
 *
 * Return: @nr, or an error and the slots are still ours, as CHANNEL_SEND in weft/ring.h
 */
WEFT_API WEFT_NONNULL(1) int weft_channel_send(struct weft_ring *ring, uint64_t channel,
					       const struct weft_slot *slots, unsigned nr,
					       uint64_t bytes, uint64_t tag);
/**
 * weft_channel_recv - wait for the next message
 * @slots: room for @nr; weft_arena(w) + slots[i].off is where it lies
 * @info: or NULL
 * @message: for weft_channel_release()
 *
 * Return: its slots; 0 the sender has closed; or as CHANNEL_RECV in weft/ring.h
 */
WEFT_API WEFT_NONNULL(1, 6) int weft_channel_recv(struct weft_ring *ring, uint64_t channel,
						  struct weft_slot *slots, unsigned nr,
						  struct weft_message *info, uint64_t *message);
/* Return: slots that went back */
WEFT_API WEFT_NONNULL(1) int weft_channel_release(struct weft_ring *ring, uint64_t message);
WEFT_API WEFT_NONNULL(1) int weft_channel_close(struct weft_ring *ring, uint64_t channel);

/* ---- watching a node ---- */

/* JSON texts, malloc'ed: free() them. @out is zero-terminated */
WEFT_API WEFT_NONNULL(1, 2) int weft_status_json(struct weft *w, char **out);
WEFT_API WEFT_NONNULL(1, 2) int weft_ls_json(struct weft *w, char **out);
/* of each space: occupancy, and how long blocks live, lie idle and wait for their next use */
WEFT_API WEFT_NONNULL(1, 2) int weft_stat_json(struct weft *w, char **out);
/* some blocks of the space that weft_ls_json() gives this id, from @from on (0: the first); where
 * the text has a "next", there are more from that one on */
WEFT_API WEFT_NONNULL(1, 4) int weft_blocks_json(struct weft *w, uint32_t space_id, uint64_t from,
						 char **out);
/* the node's metrics segment; the caller closes the fd */
WEFT_API WEFT_NONNULL(1) int weft_metrics_fd(struct weft *w);
/* ask the node to take no new engine, and to stop when the last has left. -EPERM: only its own
 * user, and root, may */
WEFT_API WEFT_NONNULL(1) int weft_drain(struct weft *w);
/**
 * weft_space_remove - let the node forget a space, and all that it holds of it
 * @space_id: as weft_ls_json() gives it
 *
 * Blocks go from memory and from the SSD tier, and other nodes are told; on return all have gone,
 * and the memory is the tenant's for other spaces. Handles that this engine has of it come to
 * nothing, and are closed as ever.
 * Return: 0; -ENOENT no such space, or another tenant's; -EBUSY another engine has it open, a
 * handoff or a channel is in it, or slots of it are claimed, leased or being moved: then nothing
 * has changed, and weft_why() says what to wait for.
 */
WEFT_API WEFT_NONNULL(1) int weft_space_remove(struct weft *w, uint32_t space_id);
/**
 * weft_tier_resize - let the file of the node's SSD tier take more or fewer bytes, while in use
 *
 * It is larger on return; it gets smaller afterwards, as the status shows.
 * Return: 0; -EPERM only the node's own user, and root, may; -ENOENT no tier; -EINVAL out of
 * bounds; -EBUSY not open yet, or still getting smaller; -ENOSPC.
 */
WEFT_API WEFT_NONNULL(1) int weft_tier_resize(struct weft *w, uint64_t bytes);
/**
 * weft_gpu_tier_resize - let copies of blocks take more or less memory of each GPU, while in use
 * @bytes: of each, made somewhat more to fit; 0: none
 *
 * There is more on return; less is given back afterwards, when nobody reads there any more, as the
 * status shows. A tier that has failed gives back what it has, and begins anew, if its GPU still
 * can. It is for this life of the node: the next has what its configuration says.
 * Return: 0; with nothing changed: -EPERM only the node's own user, and root, may; -EINVAL more
 * than four times of what a GPU's tier began with (make it 0 before), or than 1 TiB; -ENOMEM a GPU
 * has not so much; -EBUSY it is still getting smaller, or has failed and a copy there has not
 * ended; -EOPNOTSUPP a GPU that gives no memory in parts (make it 0 before), or no kernels; -EIO,
 * -ENODEV.
 */
WEFT_API WEFT_NONNULL(1) int weft_gpu_tier_resize(struct weft *w, uint64_t bytes);

/* "0.1.0" */
WEFT_API const char *weft_version(void);

#ifdef __cplusplus
}
#endif
#endif
