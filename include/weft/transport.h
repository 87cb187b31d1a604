/* SPDX-License-Identifier: Apache-2.0 */
/**
 * weft/transport.h - the provider contract: how bytes and messages reach a peer
 *
 * A transport (provider) is one const table of cold ops; endpoints and completion queues get a
 * table of hot ops when they are created. The nouns are those of libibverbs:
 *
 *   device        one NIC port, one UCX context, this host's memory
 *   mr            registered local memory; exported, it becomes a blob that a peer imports as
 *   rkey          the right to read or write that memory over one endpoint
 *   cq            where completions appear
 *   ep            endpoint: a reliable connection to one endpoint of a peer, or a memory endpoint,
 *                 which has no peer and reaches memory of processes of this host
 *
 * From nothing to bytes:
 *
 *	t->device_open(t, env, NULL, &dev);
 *	t->mr_reg(dev, &mr_opts, &mr);              memory of ours
 *	t->cq_create(dev, &cq_opts, &cq);
 *	t->ep_create(dev, &ep_opts, &ep);
 *	t->ep_addr(ep, &addr);                      carried to the peer by any control channel
 *	t->ep_connect(ep, &peer);                   with the address that came from there
 *	t->rkey_import(ep, &src, &rkey);            with the export that came from there
 *	weft_ep_post_read(ep, &post);               batch of pieces, one completion
 *	weft_cq_poll(cq, wcs, 16);
 *	t->ep_shutdown(ep); poll until WEFT_WC_CLOSED; t->ep_destroy(ep);
 *
 * Where a provider has a way of its own to meet a peer (WEFT_CAP_PORT), nothing is carried:
 *
 *	t->port_open(dev, &port_opts, &port);       one side
 *	t->ep_dial(ep, &dial);                      the other, with a ticket
 *	t->port_poll(port, &ask);                   the ticket is looked at
 *	t->port_accept(port, ask.id, ep);           WEFT_WC_OPEN on both sides
 *
 * Operations
 *
 *   A post is a batch of pieces that moves as one: it is accepted whole or refused whole, it
 *   completes once, whatever becomes of the peer. Pieces of one post may land in any order; posts
 *   of one endpoint complete in the order of posting, but for those whose .local_mr is WEFT_MR_GPU,
 *   which do so among themselves. Bytes of a write followed, in the same or a
 *   later post of the same endpoint, by an immediate are in place when the peer sees the immediate;
 *   the same holds for a message sent after a write.
 *
 *   A post that fails says how far the damage reaches (enum weft_scope). Scope OP: pieces before
 *   .idx have moved, piece .idx has failed, those behind it were not tried; the endpoint goes on.
 *   Scope EP: the endpoint is broken, .idx says nothing; posts that follow complete with
 *   -ECANCELED.
 *   Scope DEVICE: every endpoint of the device is broken.
 *
 * Life of an endpoint
 *
 *   created -> connected -> closing -> closed. ep_shutdown(), a peer that is gone and an error of
 *   scope EP lead to closing: every open post then completes (with its real result or -ECANCELED),
 *   and when nothing of the provider, the NIC or the peer's provider can touch local memory for the
 *   sake of these posts any more, one WEFT_WC_CLOSED appears on the recv_cq: the last completion of
 *   that endpoint, on either queue. This is the fence.
 *
 * Errors are negative errno. Posting: 0 posted; -EAGAIN queue full, poll and retry; -EOPNOTSUPP no
 * such op here; -ENOTCONN not connected, or closing; -EINVAL what the caps rule out (too many
 * pieces, too many bytes). Not 0 means: nothing was posted. What is wrong with one piece (rights,
 * range, memory that is gone) is a completion.
 *
 * Option structs start with .size = sizeof(them); what is missing at the end is zero, and a tail
 * that the provider does not know must be zero, else -EINVAL.
 *
 * Context: a device and all that is made from it belong to one thread, if nothing else is said.
 * What a peer sends (addresses, exports, messages, shared memory) is input: bad input costs an
 * error, never more.
 */
#ifndef WEFT_TRANSPORT_H
#define WEFT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct wfi_env; /* time, randomness, memory; opaque to users of this header */
struct weft_transport;
struct weft_ep_fast;
struct weft_cq_fast;

#define WEFT_RKEY_BLOB_MAX 128u
#define WEFT_EP_ADDR_MAX 1024u
#define WEFT_EP_FDS_MAX 4u
#define WEFT_WHY_MAX 160u
#define WEFT_TICKET_LEN 16u
#define WEFT_PORT_ADDR_MAX 64u

/* ---- what a device can do ---- */

enum weft_cap_flags {
	WEFT_CAP_SYNC = 1u << 0, /* bytes move inside the post: bound what you post at once */
	/* carried out by the peer's provider, whenever the peer's owner polls, sleeps or arms */
	WEFT_CAP_EMU_READ = 1u << 1,
	WEFT_CAP_EMU_WRITE = 1u << 2,
	WEFT_CAP_LOCAL_MR = 1u << 3, /* posts need weft_post.local_mr */
	WEFT_CAP_MEM_EP = 1u << 4, /* WEFT_EP_MEM endpoints, WEFT_RKEY_PROCESS and _MEMFD */
	WEFT_CAP_REVOKE = 1u << 5, /* mr_revoke() takes exports back one by one */
	WEFT_CAP_DMABUF = 1u << 6, /* mr_reg() of WEFT_MR_DMABUF */
	WEFT_CAP_WAIT = 1u << 7, /* cq_arm() works: an idle owner can sleep */
	WEFT_CAP_PORT = 1u << 8, /* port_open() and ep_dial() */
	WEFT_CAP_FELL_BACK = 1u << 9, /* something faster was expected; the log says what */
	WEFT_CAP_SUMS = 1u << 10, /* WEFT_POST_SUMS: bytes are summed up where they lie */
	WEFT_CAP_PARTS = 1u << 11, /* WEFT_POST_PARTS: it is told how much of a read has landed */
};

/**
 * struct weft_caps - of one device, fixed once it is open
 * @max_pieces: per post
 * @max_depth: posts that one endpoint can have open
 * @max_msg: bytes of one message; 0 means no messages
 * @max_inline: messages up to this size cost no local copy or DMA read
 * @max_piece_bytes: of one piece
 * @max_post_bytes: of all pieces of a post
 * @cost_per_piece_ns, @cost_per_mib_ns: measured at open; 0 where a piece costs no more than its
 * bytes, else small pieces may go in messages instead
 */
struct weft_caps {
	uint32_t flags;
	uint32_t max_pieces;
	uint32_t max_depth;
	uint32_t max_msg;
	uint32_t max_inline;
	uint32_t cost_per_piece_ns;
	uint64_t cost_per_mib_ns;
	uint64_t max_piece_bytes;
	uint64_t max_post_bytes;
};

/* ---- objects: a provider's struct starts with (contains) one of these ---- */

/* @name: of the RDMA device, as in /sys/class/infiniband; "" where there is none */
struct weft_device {
	const struct weft_transport *transport;
	struct wfi_env *env;
	struct weft_caps caps;
	char name[64];
};

struct weft_mr {
	struct weft_device *dev;
	void *addr; /* host or device address */
	uint64_t len;
	uint32_t access; /* enum weft_access */
	uint32_t slow; /* 1: it could not be pinned, and its bytes are copied once more; atomic */
};

struct weft_ep;

struct weft_rkey {
	struct weft_ep *ep;
	uint64_t len; /* pieces lie in [0, len) */
	uint32_t access; /* enum weft_access: what the holder may do */
	uint32_t reserved;
};

struct weft_cq {
	const struct weft_cq_fast *fast;
	struct weft_device *dev;
};

struct weft_ep {
	const struct weft_ep_fast *fast;
	struct weft_device *dev;
	struct weft_cq *send_cq;
	struct weft_cq *recv_cq;
	void *ctx; /* of the owner, from weft_ep_opts; comes back in nothing but this struct */
};

/* ---- options of the cold ops ---- */

enum weft_access {
	WEFT_ACCESS_LOCAL_WRITE = 1u << 0, /* reads may land here */
	WEFT_ACCESS_REMOTE_READ = 1u << 1, /* peers may read */
	WEFT_ACCESS_REMOTE_WRITE = 1u << 2, /* peers may write; needs LOCAL_WRITE */
};

/**
 * struct weft_device_opts - a device to open
 * @name: of a NIC or port; NULL: the provider's first
 * @silent_ms: a peer that does not answer for so long is gone, where its own host does not say so;
 *             0: the provider's own measure (verbs: 1200; ucx, tcp: 3000)
 * @addr: of this host on the network where the peers are, numeric, for those that have to choose
 *        by it when there is no name; NULL: not known
 */
struct weft_device_opts {
	size_t size;
	const char *name;
	uint32_t silent_ms;
	uint32_t reserved;
	const char *addr;
};

/**
 * struct weft_probe - what a provider says of this host, for weft doctor
 * @why: when it can't run here, or slowly: a sentence that says why and what to do; else empty
 */
struct weft_probe {
	uint32_t nr_devices;
	uint32_t slow; /* 1: works, but not as fast as it could; see .why */
	char why[WEFT_WHY_MAX];
};

enum weft_mr_kind {
	WEFT_MR_HOST = 0, /* memory of this process */
	WEFT_MR_MEMFD = 1, /* the same, backed by .fd at .fd_off: peers here map it */
	WEFT_MR_DMABUF = 2, /* .addr is a device address, .fd the dma-buf */
	/* .addr is in the memory of a GPU, and this process's: a provider of GPU memory alone takes
	 * it, for posts over endpoints to that GPU */
	WEFT_MR_GPU = 3,
	WEFT_MR_RKEY = 4, /* a region of .rkey, as the local side of posts of others */
};

/**
 * struct weft_mr_opts - local memory to register
 * @addr: lent until mr_dereg()
 * @fd: memfd with F_SEAL_SHRINK, or dma-buf; lent for the call; read only for the kinds with one
 * @rkey: of WEFT_MR_RKEY, where .addr is NULL, .len 0 and .access LOCAL_WRITE; lent until
 *        mr_dereg(). Its offset 0 is at weft_mr.addr, which means nothing to the CPU; posts over
 *        other endpoints of that device read into it. With WEFT_POST_SUMS both sides are summed up
 *        where that can be had, and a difference is a failure, -EBADMSG
 */
struct weft_mr_opts {
	size_t size;
	void *addr;
	uint64_t len;
	uint32_t access;
	uint32_t kind;
	int fd;
	uint32_t reserved;
	uint64_t fd_off;
	const struct weft_rkey *rkey;
};

/**
 * struct weft_export_opts - what to give away of a region
 * @off, @len: part of the region; a peer's offset 0 is .off. .len 0: up to its end
 * @access: REMOTE_READ and/or REMOTE_WRITE, within those of the region
 * @ep: NULL, or the connected endpoint of the one peer that it is for. Where the NIC can (memory
 *      windows) nobody else gets through, it costs no registration, and it ends with that endpoint
 */
struct weft_export_opts {
	size_t size;
	uint64_t off;
	uint64_t len;
	uint32_t access;
	uint32_t reserved;
	struct weft_ep *ep;
};

/**
 * struct weft_export - the right to a region, on its way to a peer
 * @id: for mr_revoke()
 * @fd: -1, or to be passed (SCM_RIGHTS) beside the blob; the caller closes it
 *
 * Whoever holds blob and fd holds the right: carry them over a channel that the peer alone reads.
 */
struct weft_export {
	uint64_t id;
	int fd;
	uint32_t blob_len;
	uint8_t blob[WEFT_RKEY_BLOB_MAX];
};

enum weft_rkey_kind {
	WEFT_RKEY_BLOB = 0, /* from a peer's mr_export() */
	WEFT_RKEY_PROCESS = 1, /* [addr, addr + len) of process pid */
	WEFT_RKEY_MEMFD = 2, /* [off, off + len) of a memfd */
	WEFT_RKEY_GPU = 3, /* GPU memory of process pid, as libweft has exported it */
};

/**
 * struct weft_rkey_src - where an rkey comes from
 * @access: what is wanted, REMOTE_READ and/or REMOTE_WRITE; for a blob within what it grants, 0:
 * all
 * @fd: BLOB: what came beside it, or -1. PROCESS: a pidfd (SO_PEERPIDFD), or -1: one is opened, and
 *      then whoever has the pid at this moment is meant. MEMFD: the memfd, which must have
 *      F_SEAL_SHRINK. GPU: what came beside the blob, or -1. Lent for the call
 * @pid: PROCESS and GPU only, and as the kernel told it (SO_PEERCRED): never as the process said
 * @addr: PROCESS: in that process. MEMFD: offset in the file
 *
 * The kinds PROCESS, MEMFD and GPU work on memory endpoints (WEFT_EP_MEM) of those providers that
 * know them; one of GPU memory reaches that of one GPU (-EXDEV). With pid that of the caller,
 * PROCESS means memory of ours, reached directly: it must stay mapped while the rkey lives.
 */
struct weft_rkey_src {
	size_t size;
	uint32_t kind;
	uint32_t access;
	int fd;
	int32_t pid;
	const void *blob;
	uint64_t blob_len;
	uint64_t addr;
	uint64_t len;
};

struct weft_cq_opts {
	size_t size;
	uint32_t depth; /* completions that fit; 0: 256. Posts that might not fit are -EAGAIN */
	uint32_t reserved;
};

enum weft_ep_flags {
	WEFT_EP_MEM = 1u << 0, /* no peer, no messages: connected from the start */
};

/**
 * struct weft_ep_opts - one endpoint
 * @send_cq: completions of its posts; lent until ep_destroy()
 * @recv_cq: messages, immediates and WEFT_WC_CLOSED; may be the same as send_cq
 * @depth: posts open at once; 0: 64
 * @recv_bytes: room for messages that were not polled yet; 0: 256 KiB
 * @ctx: kept in weft_ep.ctx
 */
struct weft_ep_opts {
	size_t size;
	struct weft_cq *send_cq;
	struct weft_cq *recv_cq;
	uint32_t depth;
	uint32_t flags;
	uint32_t recv_bytes;
	uint32_t reserved;
	void *ctx;
};

/* an endpoint's address, for one peer. fds are the endpoint's: pass them on, do not close them */
struct weft_ep_addr {
	uint32_t blob_len;
	uint32_t nr_fds;
	int fds[WEFT_EP_FDS_MAX];
	uint8_t blob[WEFT_EP_ADDR_MAX];
};

/**
 * struct weft_ep_peer - whom to connect to
 * @blob, @fds: from the peer's ep_addr(); lent for the call
 * @pid: of the peer when it is on this host, as the kernel told it (SO_PEERCRED); 0: not known, and
 *       then memory of the peer that must be reached by pid is refused at rkey_import()
 */
struct weft_ep_peer {
	size_t size;
	const void *blob;
	uint32_t blob_len;
	uint32_t nr_fds;
	const int *fds;
	int32_t pid;
	uint32_t reserved;
};

/* where peers ask for endpoints */
struct weft_port {
	struct weft_device *dev;
	void *ctx; /* of the owner, from weft_port_opts */
};

/**
 * struct weft_port_opts - a port
 * @addr: numeric, "10.0.0.1:7471" or "[fd00::1]:7471", on the network of the device; port 0: any
 * @backlog: peers that may wait for an answer; 0: 64
 */
struct weft_port_opts {
	size_t size;
	const char *addr;
	uint32_t backlog;
	uint32_t reserved;
	void *ctx;
};

/**
 * struct weft_ask - a peer that asks for an endpoint
 * @id: for port_accept() or port_refuse()
 * @incarnation: of the peer's device: random, the same in its exports
 * @ticket: what the peer has shown. The provider has checked that the asking is whole, of our
 *          version, and not the repetition of an earlier one; whether the ticket is good, and
 *          whether it was used before, is for the owner to know
 */
struct weft_ask {
	uint64_t id;
	uint64_t incarnation;
	uint8_t ticket[WEFT_TICKET_LEN];
};

/**
 * struct weft_dial_opts - whom to ask
 * @addr: of the peer's port, numeric
 * @timeout_ms: until WEFT_WC_OPEN; 0: 3000
 */
struct weft_dial_opts {
	size_t size;
	const char *addr;
	uint32_t timeout_ms;
	uint32_t reserved;
	uint8_t ticket[WEFT_TICKET_LEN];
};

/* what to sleep on: either .fd to become readable, or FUTEX_WAIT (shared) on .futex while it is
 * .val */
struct weft_wait {
	int fd; /* -1: use the futex */
	uint32_t val;
	const uint32_t *futex;
};

/* ---- hot: posts and completions ---- */

/**
 * struct weft_piece - one contiguous run of bytes
 * @local: source of a write, target of a read; lent until the completion
 * @remote: byte offset in the region of .rkey
 * @rkey: of the same endpoint; lent until the completion
 */
struct weft_piece {
	void *local;
	uint64_t remote;
	uint64_t len;
	const struct weft_rkey *rkey;
};

enum weft_post_flags {
	WEFT_POST_QUIET = 1u << 0, /* no completion when all went well; failures still appear */
	/* of a provider with WEFT_CAP_SUMS: weft_wc.data has sums of the remote bytes */
	WEFT_POST_SUMS = 1u << 1,
	/* beside SUMS, of a read: nothing moves, and .local and .local_mr mean nothing. What other
	 * devices had written there by then is in the sums, and in the sight of whoever looks
	 * later. All of them come, or the post fails with .idx 0 */
	WEFT_POST_STAY = 1u << 2,
	/* of a read of no bytes from an event: -EAGAIN while it has not come, then 0. Nothing is
	 * posted in either case */
	WEFT_POST_TRY = 1u << 3,
	/* of a read, of a provider with WEFT_CAP_PARTS: there may be WEFT_WC_PARTs before its
	 * completion */
	WEFT_POST_PARTS = 1u << 4,
};

/**
 * struct weft_post - a batch
 * @pieces: at most max_pieces; the array is lent for the call only. A piece of 0 bytes is legal
 * @local_mr: covers all .local; NULL unless WEFT_CAP_LOCAL_MR. Given, it is checked (scope OP)
 * @cookie: comes back in the completion
 * @imm: for post_write_imm()
 */
struct weft_post {
	const struct weft_piece *pieces;
	uint32_t nr_pieces;
	uint32_t flags;
	const struct weft_mr *local_mr;
	uint64_t cookie;
	uint32_t imm;
	uint32_t reserved;
};

/**
 * struct weft_msg - a message in parts: a head, and pieces behind it
 * @head: lent for the call
 * @pieces: .local and .len of each count, nothing else; with the head at most max_msg
 *          bytes. The array is lent for the call
 * @local_mr: covers all .local, which are then lent until the completion: a NIC gathers them from
 *            where they lie. NULL: they are lent for the call, and copied
 * @flags: enum weft_post_flags; who lends pieces until the completion wants one, so not QUIET
 */
struct weft_msg {
	const void *head;
	const struct weft_piece *pieces;
	const struct weft_mr *local_mr;
	uint64_t cookie;
	uint32_t head_len;
	uint32_t nr_pieces;
	uint32_t flags;
	uint32_t reserved;
};

enum weft_wc_op {
	WEFT_WC_READ = 0,
	WEFT_WC_WRITE = 1, /* with or without immediate */
	WEFT_WC_SEND = 2,
	WEFT_WC_RECV = 3, /* a message: .data, .len */
	WEFT_WC_RECV_IMM = 4, /* a write with immediate has landed: .imm */
	WEFT_WC_CLOSED = 5, /* last of .ep; .status 0 after ep_shutdown(), else why it broke */
	WEFT_WC_OPEN = 6, /* after ep_dial() or port_accept(): .ep is connected */
	/* the first .len bytes of .cookie's read have landed, and it does not write to them again;
	 * it stays open. How often, and whether at all, is the provider's choice */
	WEFT_WC_PART = 7,
};

/* how far a failure reaches */
enum weft_scope {
	WEFT_SCOPE_NONE = 0,
	WEFT_SCOPE_OP = 1,
	WEFT_SCOPE_EP = 2,
	WEFT_SCOPE_DEVICE = 3,
};

/**
 * struct weft_wc - one completion
 * @cookie: of the post; 0 for RECV, RECV_IMM, CLOSED, OPEN
 * @status: 0 or negative errno: -EFAULT memory not there, -EACCES without this right, or an rkey of
 *          another endpoint, -ESTALE region no longer registered, or taken back, -ERANGE outside
 *          the region, -ECONNRESET peer gone,
 *          -ECANCELED flushed, -ETIMEDOUT, -EIO
 * @imm, @data, @len: of what was received, else undefined; @len: of a WEFT_WC_PART
 * @idx: see "Operations" above; the number of pieces when all went well
 * @data: RECV: the message, lent until the next poll of this queue. A private copy or memory that
 *        the peer can't change any more. A post with WEFT_POST_SUMS, when all went well: a CRC32C
 *        (uint32_t) of each piece, lent as long, of what was read, or what is there behind a
 *        write; or NULL, when that can't be had now
 */
struct weft_wc {
	uint64_t cookie;
	struct weft_ep *ep;
	int32_t status;
	uint8_t op; /* enum weft_wc_op */
	uint8_t scope; /* enum weft_scope */
	uint16_t reserved;
	uint32_t idx;
	uint32_t imm;
	const void *data;
	uint64_t len;
};

/**
 * struct weft_ep_fast - hot ops of an endpoint, never NULL
 *
 * Context: owner thread. Hot, but for the copying of WEFT_CAP_SYNC providers and their system call
 * a batch where memory can't be mapped. The post struct, its array and @buf are lent for the call.
 * Return: see "Errors" above.
 */
struct weft_ep_fast {
	int (*post_read)(struct weft_ep *ep, const struct weft_post *post);
	int (*post_write)(struct weft_ep *ep, const struct weft_post *post);
	/* .nr_pieces may be 0: an immediate alone */
	int (*post_write_imm)(struct weft_ep *ep, const struct weft_post *post);
	/* a message of 1 .. max_msg bytes; the peer gets it once, whole and in order. @flags: enum
	 * weft_post_flags. Completed means: @buf was taken and order is sure, not that it was
	 * read */
	int (*post_send)(struct weft_ep *ep, const void *buf, uint32_t len, uint64_t cookie,
			 uint32_t flags);
	/* the same for a message in parts, which arrives as one. The struct is lent for the call.
	 * -EINVAL, too: pieces outside of .local_mr */
	int (*post_msg)(struct weft_ep *ep, const struct weft_msg *msg);
};

struct weft_cq_fast {
	/* Return: how many completions were written to @wcs, at most @max. Hot */
	int (*poll)(struct weft_cq *cq, struct weft_wc *wcs, unsigned max);
};

/**
 * struct weft_transport - cold ops of a provider
 *
 * All are set; what a provider can't do is a typed stub that returns -EOPNOTSUPP. @t is the table
 * itself, so that a transport that wraps another can find what it wraps. destroy, close and dereg
 * take NULL. Objects are destroyed before what they were made from: rkeys before their ep, eps
 * before their cqs, all before the device.
 */
struct weft_transport {
	size_t size; /* sizeof(struct weft_transport) */
	const char *name;

	/* Context: any thread. Return: 0, or why it can't run here, with .why */
	int (*probe)(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out);
	/* @env: lent until device_close(). @opts: NULL for the defaults */
	int (*device_open)(const struct weft_transport *t, struct wfi_env *env,
			   const struct weft_device_opts *opts, struct weft_device **out);
	void (*device_close)(struct weft_device *dev);

	/* Context: WEFT_MR_DMABUF also another thread than the owner. Return: 0, -EINVAL, -EPERM
	 * (memfd without F_SEAL_SHRINK), -ENOSPC too many, -ENOMEM */
	int (*mr_reg)(struct weft_device *dev, const struct weft_mr_opts *opts,
		      struct weft_mr **out);
	/* posts that start from here on are refused (-ESTALE). A peer of this host that is in the
	 * middle of one may finish it: before memory is reused, have the peer say that it is done,
	 * or end the endpoint. A NIC is through when this returns */
	void (*mr_dereg)(struct weft_mr *mr);
	/* @opts NULL: all of it, with all rights that the region has */
	int (*mr_export)(struct weft_mr *mr, const struct weft_export_opts *opts,
			 struct weft_export *out);
	/* takes one export back; other exports of the region live on. Return: 0, -ENOENT,
	 * -EOPNOTSUPP */
	int (*mr_revoke)(struct weft_mr *mr, uint64_t id);

	/* Return: 0, -EINVAL malformed, -EACCES, -EPERM (memfd without F_SEAL_SHRINK), -ERANGE
	 * longer than its file, -ESRCH no such process, -ENOTCONN, -ENOMEM */
	int (*rkey_import)(struct weft_ep *ep, const struct weft_rkey_src *src,
			   struct weft_rkey **out);
	/* no post that names it is open */
	void (*rkey_destroy)(struct weft_rkey *rkey);
	/**
	 * rkey_ptr - where the region of an rkey lies in this process
	 *
	 * What a post with this rkey would do now may be done by the CPU instead, until the next
	 * call into the provider; rights and bounds are for the caller to hold. Hot.
	 * Context: owner thread of the endpoint's queue.
	 * Return: NULL when the CPU can't reach it, or a post would be refused.
	 */
	void *(*rkey_ptr)(const struct weft_rkey *rkey);

	int (*cq_create)(struct weft_device *dev, const struct weft_cq_opts *opts,
			 struct weft_cq **out);
	void (*cq_destroy)(struct weft_cq *cq);
	/**
	 * cq_arm - before the owner sleeps
	 *
	 * Return: how many things to sleep on were written to @waits: any of them wakes, 0 means
	 * that nothing can arrive here; -EAGAIN a completion may be there: poll first; -ENOSPC more
	 * than
	 * @max; -EOPNOTSUPP. Call cq_disarm() when awake, and after -EAGAIN nothing. A peer that
	 * dies wakes nobody where futexes are used, nor does room in a full queue: bound your
	 * sleep.
	 */
	int (*cq_arm)(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
	void (*cq_disarm)(struct weft_cq *cq);

	int (*ep_create)(struct weft_device *dev, const struct weft_ep_opts *opts,
			 struct weft_ep **out);
	int (*ep_addr)(struct weft_ep *ep, struct weft_ep_addr *out);
	/* never waits for the peer. Return: 0, -EINVAL malformed, -EISCONN, -ENOTCONN closing */
	int (*ep_connect)(struct weft_ep *ep, const struct weft_ep_peer *peer);
	/* starts the end and never waits; poll until WEFT_WC_CLOSED. Twice is harmless */
	void (*ep_shutdown)(struct weft_ep *ep);
	/* after WEFT_WC_CLOSED, or before any post. Messages still in it are lost */
	void (*ep_destroy)(struct weft_ep *ep);

	/* Return: 0, -EINVAL no such address, -EADDRNOTAVAIL not one of the device's network,
	 * -EADDRINUSE, -EOPNOTSUPP; logged */
	int (*port_open)(struct weft_device *dev, const struct weft_port_opts *opts,
			 struct weft_port **out);
	/* who asked and had no answer is refused; endpoints that were accepted live on */
	void (*port_close)(struct weft_port *port);
	/* the address in @buf, as port_open() takes it, with the port that was given. Return: 0,
	 * -ENOSPC */
	int (*port_addr)(struct weft_port *port, char *buf, size_t len);
	/* Return: 1 and who asks, each once; 0 nobody; -EIO the port is gone: open another */
	int (*port_poll)(struct weft_port *port, struct weft_ask *out);
	/* @ep: created, of the port's device; open when WEFT_WC_OPEN comes. Return: 0, -ENOENT the
	 * peer has given up, -EISCONN */
	int (*port_accept)(struct weft_port *port, uint64_t id, struct weft_ep *ep);
	/* the peer's endpoint ends with -EACCES. Return: 0, -ENOENT */
	int (*port_refuse)(struct weft_port *port, uint64_t id);
	/**
	 * ep_dial - connects to whoever accepts at a port
	 *
	 * Never waits. WEFT_WC_OPEN or WEFT_WC_CLOSED tells: -ECONNREFUSED nobody listens, -EACCES
	 * refused, -EPROTONOSUPPORT the peer is of another version, -EBADMSG one side got what the
	 * other did not send, -ESTALE what was sent has been seen before, -EHOSTUNREACH,
	 * -ETIMEDOUT. Return: 0, -EINVAL, -EISCONN, -ENOTCONN closing, -EOPNOTSUPP
	 */
	int (*ep_dial)(struct weft_ep *ep, const struct weft_dial_opts *opts);
};

static inline int weft_ep_post_read(struct weft_ep *ep, const struct weft_post *post)
{
	return ep->fast->post_read(ep, post);
}

static inline int weft_ep_post_write(struct weft_ep *ep, const struct weft_post *post)
{
	return ep->fast->post_write(ep, post);
}

static inline int weft_ep_post_write_imm(struct weft_ep *ep, const struct weft_post *post)
{
	return ep->fast->post_write_imm(ep, post);
}

static inline int weft_ep_post_send(struct weft_ep *ep, const void *buf, uint32_t len,
				    uint64_t cookie, uint32_t flags)
{
	return ep->fast->post_send(ep, buf, len, cookie, flags);
}

static inline int weft_ep_post_msg(struct weft_ep *ep, const struct weft_msg *msg)
{
	return ep->fast->post_msg(ep, msg);
}

static inline int weft_cq_poll(struct weft_cq *cq, struct weft_wc *wcs, unsigned max)
{
	return cq->fast->poll(cq, wcs, max);
}

#ifdef __cplusplus
}
#endif
#endif
