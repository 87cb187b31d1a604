/* SPDX-License-Identifier: Apache-2.0 */
/**
 * verbs.h - the RDMA provider, inside
 *
 * An endpoint is an RC queue pair. Its work requests are numbered: .sq_tail counts those posted,
 * .sq_head those done, and wr_id carries the number, so that one completion stands for all before
 * it. A post is done when the number behind its last request is reached.
 *
 * Messages land in buffers of a shared receive queue, one a receiving completion queue. A sender
 * has one credit a buffer that was promised to it; the receiver writes how many messages it has
 * taken into a word of the sender (.credit), so credits travel without messages. One buffer more is
 * promised for the last message of all, the farewell.
 *
 * Completion queues have room for every request of every endpoint on them, signalled or not: when a
 * queue pair breaks, each request is flushed with a completion of its own.
 */
#ifndef WFI_TRANSPORT_VERBS_H
#define WFI_TRANSPORT_VERBS_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include "transport/core.h"
#include "transport/verbs/provider.h"

#define WFI_VERBS_EP_MAGIC 0x3150455342525657ull /* "WVRBSEP1" */
#define WFI_VERBS_RKEY_MAGIC 0x3259454b42525657ull /* "WVRBKEY2" */
#define WFI_VERBS_VERSION 3u
#define WFI_VERBS_GIDS 4u
#define WFI_VERBS_MSG_BYTES 65536u /* most of one message; docs/performance.md says why */
#define WFI_VERBS_PIECES 64u /* most of one post */
#define WFI_VERBS_SGES 16u /* most of one request: more makes queues larger */
#define WFI_VERBS_OPEN_LENT 0x80u /* wfi_verbs_open.flags: a message that is read where it lies */
#define WFI_VERBS_SQ_CTL 4u /* requests of our own: credit, sign of life, farewell, marker */
#define WFI_VERBS_SQ_POSTS 3u /* of most pieces that a queue has room for, at least */
#define WFI_VERBS_SRQ_BUFS 4096u /* most of one receiving queue */
#define WFI_VERBS_CREDITS_MAX 1024u
#define WFI_VERBS_CREDIT_BYTES 128u /* two words, a cache line each */
#define WFI_VERBS_BUCKETS 1024u
#define WFI_VERBS_REQUEST_BYTES (4u << 20) /* most of one request */
#define WFI_VERBS_SIGNAL_BYTES (1u << 20) /* most of the requests between two that signal */
#define WFI_VERBS_BATCH 16u /* completions taken from the NIC at once */
#define WFI_VERBS_LENT 64u /* messages that one poll hands out */

#define WFI_VERBS_SEEN 1024u /* askings that are remembered */
#define WFI_VERBS_RETRIES 7u
#define WFI_VERBS_RNR_RETRIES 6u
#define WFI_VERBS_CM_POLLS 8u /* polls a look at the connection manager, while it is at work */

struct wfi_verbs_ep;
struct wfi_verbs_line; /* cm.c */
struct rdma_event_channel;

/* an endpoint's address, little-endian */
struct wfi_verbs_ep_blob {
	uint64_t magic;
	uint64_t incarnation; /* random, of the device */
	uint64_t credit_addr;
	uint32_t credit_rkey;
	uint32_t credits; /* messages and immediates that the peer may have under way */
	uint32_t version;
	uint32_t check; /* over the blob, with 0 in this place */
	uint32_t qpn;
	uint32_t psn;
	uint16_t lid; /* 0 on Ethernet */
	uint8_t mtu; /* enum ibv_mtu */
	uint8_t nr_gids;
	uint8_t reads; /* that this side answers at once */
	uint8_t reserved[3];
	uint8_t gids[WFI_VERBS_GIDS][16];
};

/* what an export carries, little-endian */
struct wfi_verbs_rkey_blob {
	struct wfi_rkey_head head;
	uint64_t addr;
	uint32_t rkey;
	uint32_t reserved;
};

_Static_assert(sizeof(struct wfi_verbs_ep_blob) == 120, "wire");
_Static_assert(sizeof(struct wfi_verbs_rkey_blob) == 48, "wire");

struct wfi_verbs_gid {
	uint8_t raw[16];
	uint32_t idx; /* in the port's table */
};

/* registered memory, in one piece */
struct wfi_verbs_slab {
	struct wfi_verbs_slab *next;
	struct ibv_mr *mr;
	uint8_t *mem;
	size_t len;
};

/* a part of one */
struct wfi_verbs_buf {
	struct wfi_verbs_buf *next; /* free ones of a pool */
	uint8_t *mem;
	uint32_t lkey;
};

/* buffers of one size that come and go without being registered; grows, and never shrinks */
struct wfi_verbs_pool {
	struct wfi_verbs_device *dev;
	struct wfi_verbs_buf *free;
	struct wfi_verbs_grown *grown; /* pool.c */
	uint32_t buf_bytes;
	uint32_t nr; /* of all */
	uint32_t max;
	int access;
};

/* which port of which device, as found */
struct wfi_verbs_port {
	struct ibv_device *device;
	uint8_t num;
	uint8_t mtu;
	uint8_t ethernet;
	uint16_t lid;
	uint32_t max_msg;
	uint64_t speed; /* to rank by */
	uint32_t nr_gids;
	struct wfi_verbs_gid gids[WFI_VERBS_GIDS];
};

/* who has asked at a port */
struct wfi_verbs_seen {
	uint64_t incarnation;
	uint64_t nonce;
};

struct wfi_verbs_device {
	struct weft_device base;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct wfi_verbs_port port;
	uint64_t incarnation;
	uint64_t last_export;
	uint64_t tick_ns;
	uint64_t silent_ns; /* the patience with peers */
	uint32_t last_gen;
	uint32_t sq_max;
	uint32_t srq_max;
	uint32_t cqe_max;
	uint32_t write_sges; /* of one request */
	uint32_t read_sges;
	uint8_t reads_out;
	uint8_t reads_in;
	bool failed;
	bool has_windows; /* type 2 */
	pthread_mutex_t pin_lock; /* of .pinned: cold */
	struct wfi_verbs_pinned *pinned;
	struct wfi_verbs_pool tx; /* messages on their way out */
	struct wfi_verbs_pool credits; /* words of credit: of peers, and for them */
	struct rdma_event_channel *cm; /* NULL: there is no connection manager here */
	uint32_t nr_dialing; /* endpoints */
	uint32_t last_seen;
	uint64_t last_ask;
	struct wfi_verbs_seen seen[WFI_VERBS_SEEN];
	struct wfi_verbs_ep *buckets[WFI_VERBS_BUCKETS]; /* by QPN */
	/* the chain that a post is built in: .next is set, from first to last */
	struct ibv_send_wr wrs[WFI_VERBS_PIECES + 1];
	struct ibv_sge sges[WFI_VERBS_PIECES];
};

/* a registration of our own NIC's, with local rights only, and who uses it */
struct wfi_verbs_pinned {
	struct wfi_verbs_pinned *next; /* on the device, when it can be shared */
	struct ibv_mr *mr;
	void *addr;
	uint64_t len;
	uint64_t off; /* in its file */
	uint64_t dev; /* and the file's identity */
	uint64_t ino;
	int access;
	uint32_t refs;
};

struct wfi_verbs_mr {
	struct weft_mr base;
	uint32_t lkey;
	int fd; /* dma-buf, or -1 */
	uint64_t fd_off;
	struct wfi_verbs_pinned *pinned;
	struct wfi_verbs_export *exports;
};

/* a right that was given away: a registration of its own, or a window of one endpoint's */
struct wfi_verbs_export {
	struct wfi_verbs_export *next;
	struct ibv_mr *mr;
	struct ibv_mw *mw;
	struct wfi_verbs_ep *ep; /* of the window; NULL: it ended, and the window with it */
	struct wfi_verbs_export *next_window; /* of .ep */
	uint64_t id;
};

struct wfi_verbs_rkey {
	struct weft_rkey base;
	uint64_t addr; /* of offset 0, as the peer's NIC knows it */
	uint32_t rkey;
};

/* a message that was received */
struct wfi_verbs_rx {
	struct wfi_verbs_ep *ep; /* NULL: gone meanwhile */
	uint32_t buf;
	uint32_t len;
	uint32_t imm;
	uint8_t op; /* enum weft_wc_op */
};

struct wfi_verbs_cq {
	struct weft_cq base;
	struct ibv_cq *cq;
	struct ibv_comp_channel *chan;
	int epoll_fd; /* the channel's and the device's events */
	uint32_t depth;
	uint32_t nr_open; /* posts, but for quiet ones, that were not polled yet */
	uint32_t nr_cqes; /* promised to endpoints */
	uint32_t polls;
	struct wfi_verbs_ep *ready; /* send side: with posts that may be done */
	struct wfi_verbs_ep *eps; /* receive side: all */
	uint32_t nr_closing; /* of them */
	uint32_t nr_opening; /* of them: WEFT_WC_OPEN is due */
	bool tell_later; /* credits are due at peers of some */

	struct ibv_srq *srq;
	struct wfi_verbs_slab *slabs;
	struct wfi_verbs_buf *bufs;
	uint32_t nr_bufs;
	uint32_t nr_promised;
	struct wfi_verbs_rx *rx; /* ring of WFI_VERBS_SRQ_BUFS */
	uint32_t rx_head;
	uint32_t rx_tail;
	uint32_t nr_lent;
	struct wfi_verbs_rx lent[WFI_VERBS_LENT];
};

/* a post on its way */
struct wfi_verbs_open {
	uint64_t cookie;
	struct wfi_verbs_buf *buf; /* of the message, or NULL */
	uint32_t end; /* number behind its last request */
	uint32_t idx;
	int32_t status; /* -errno of scope OP, or 0 */
	uint8_t op;
	uint8_t scope; /* of .status */
	uint8_t flags;
	uint8_t large; /* more than WFI_VERBS_SIGNAL_BYTES */
};

struct wfi_verbs_ep {
	struct weft_ep base;
	struct ibv_qp *qp;
	struct wfi_verbs_open *opens;
	uint64_t wr_base; /* upper half of wr_id: tells endpoints apart that had this QPN */
	uint32_t open_head;
	uint32_t open_tail;
	uint32_t open_mask;
	uint32_t depth;
	uint32_t sq_size;
	uint32_t sq_head;
	uint32_t sq_tail;
	uint32_t unsignalled; /* requests since the last signalled one */
	uint32_t quiet_run; /* posts since then */

	uint32_t tx_sent; /* messages and immediates */
	uint32_t tx_limit; /* .tx_sent when credits end */
	uint32_t tx_credits;
	struct wfi_verbs_buf *credit_buf;
	struct ibv_mr *credit_mr; /* of the word that the peer writes, and of nothing else */
	uint32_t *credit; /* its words: [0] the peer writes, [16] source of what we write there */
	uint64_t peer_credit_addr;
	uint32_t peer_credit_rkey;

	uint32_t rx_credits;
	uint32_t rx_taken;
	uint32_t rx_told;
	uint32_t told_at; /* number behind the last request that told */
	uint32_t nr_staged;

	enum wfi_ep_state state;
	int close_status;
	bool broken; /* a request failed: .err_at and .err_status count */
	bool err_said;
	bool silent; /* the peer was, for too long */
	bool in_error; /* the queue pair was told to fail */
	bool fenced; /* the queue pair is reset */
	bool say_open; /* WEFT_WC_OPEN is due */
	bool is_ready;
	bool alive; /* heard of since the last tick */
	uint8_t scope;
	int err_status;
	uint32_t err_at; /* number behind the first request that failed */
	uint32_t psn;
	uint64_t alive_ns;
	uint64_t close_ns; /* when patience ends; .in_error: when that was */
	uint64_t watch_ns; /* .sq_head has been .watch_head since */
	uint32_t watch_head;
	uint64_t peer_incarnation;
	struct wfi_verbs_export *windows; /* bound here */
	struct wfi_verbs_line *line; /* NULL: connected by ep_connect(), or not at all */
	struct wfi_verbs_ep *next_qpn;
	struct wfi_verbs_ep *next_ready;
	struct wfi_verbs_ep *next; /* on its recv_cq */
};

static inline struct wfi_verbs_device *wfi_verbs_device(struct weft_device *dev)
{
	return wfi_container_of(dev, struct wfi_verbs_device, base);
}

static inline struct wfi_verbs_cq *wfi_verbs_cq(struct weft_cq *cq)
{
	return wfi_container_of(cq, struct wfi_verbs_cq, base);
}

static inline struct wfi_verbs_ep *wfi_verbs_ep(struct weft_ep *ep)
{
	return wfi_container_of(ep, struct wfi_verbs_ep, base);
}

/* pool.c */

/* Return: NULL; logged */
struct wfi_verbs_slab *wfi_verbs_slab_open(struct wfi_verbs_device *dev, size_t len, int access);
void wfi_verbs_slab_close(struct wfi_verbs_device *dev, struct wfi_verbs_slab *slab);
/* @first: buffers that are there from the start. Return: 0, -ENOMEM */
int wfi_verbs_pool_init(struct wfi_verbs_pool *pool, struct wfi_verbs_device *dev,
			uint32_t buf_bytes, uint32_t first, uint32_t max, int access);
/* of one that was never initialised, too */
void wfi_verbs_pool_fini(struct wfi_verbs_pool *pool);
/* makes as many more as there are. Return: 0, -ENOMEM. Cold */
int wfi_verbs_pool_grow(struct wfi_verbs_pool *pool);

/* Return: NULL when there are none, and there will be none before some come back. Hot */
static inline struct wfi_verbs_buf *wfi_verbs_buf_get(struct wfi_verbs_pool *pool)
{
	struct wfi_verbs_buf *buf;

	if (wfi_unlikely(!pool->free) && wfi_verbs_pool_grow(pool))
		return NULL;
	buf = pool->free;
	pool->free = buf->next;
	return buf;
}

/* Hot */
static inline void wfi_verbs_buf_put(struct wfi_verbs_pool *pool, struct wfi_verbs_buf *buf)
{
	buf->next = pool->free;
	pool->free = buf;
}

/* a post is over. Hot */
static inline void wfi_verbs_open_end(const struct wfi_verbs_ep *ep,
				      const struct wfi_verbs_open *open)
{
	if (open->buf)
		wfi_verbs_buf_put(&wfi_verbs_device(ep->base.dev)->tx, open->buf);
}

/* port.c */

/* Return: number of ports that Weft can use, the fastest in @out; or -ENODEV with @why */
int wfi_verbs_port_find(const char *name, struct wfi_verbs_port *out, struct ibv_device **list,
			char *why);
/* which of ours and of the peer's belong together: both sides find the same pair. Return: 0,
 * -ENOENT */
int wfi_verbs_gid_pair(const struct wfi_verbs_port *port, const uint8_t (*peer)[16], uint32_t nr,
		       uint32_t *ours, uint32_t *theirs);

/* device.c */
int wfi_verbs_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out);
int wfi_verbs_device_open(const struct weft_transport *t, struct wfi_env *env,
			  const struct weft_device_opts *opts, struct weft_device **out);
void wfi_verbs_device_close(struct weft_device *dev);
/* takes all asynchronous events. Cold */
void wfi_verbs_device_events(struct wfi_verbs_device *dev);
/* it failed, or was taken away: every endpoint of it ends */
void wfi_verbs_device_lost(struct wfi_verbs_device *dev);
struct wfi_verbs_ep *wfi_verbs_ep_find(struct wfi_verbs_device *dev, uint32_t qpn);

/* mem.c */
int wfi_verbs_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts,
		     struct weft_mr **out);
void wfi_verbs_mr_dereg(struct weft_mr *mr);
int wfi_verbs_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
			struct weft_export *out);
int wfi_verbs_mr_revoke(struct weft_mr *mr, uint64_t id);
int wfi_verbs_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			  struct weft_rkey **out);
void wfi_verbs_rkey_destroy(struct weft_rkey *rkey);
void *wfi_verbs_rkey_ptr(const struct weft_rkey *rkey);
/* @ep ends: peers have nothing of its windows any more. Cold */
void wfi_verbs_windows_drop(struct wfi_verbs_ep *ep);

/* cost.c */

/* what a piece and a MiB cost on this port, from here to here; 0 where that can't be told. Cold */
void wfi_verbs_cost_measure(struct wfi_verbs_device *dev);

/* pin.c */

/* memory of our own for the NIC. Return: NULL, with errno; logged */
struct ibv_mr *wfi_verbs_pin(struct wfi_verbs_device *dev, void *mem, size_t len, int access);
/* the same for memory of any kind */
struct ibv_mr *wfi_verbs_pin_opts(struct wfi_verbs_device *dev, const struct weft_mr_opts *o,
				  int access);
/* a registration, shared with whoever has the same one */
int wfi_verbs_pinned_get(struct wfi_verbs_device *dev, const struct weft_mr_opts *o, int access,
			 struct wfi_verbs_pinned **out);
void wfi_verbs_pinned_put(struct wfi_verbs_device *dev, struct wfi_verbs_pinned *p);

/* cq.c */
int wfi_verbs_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
			struct weft_cq **out);
void wfi_verbs_cq_destroy(struct weft_cq *cq);
int wfi_verbs_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
void wfi_verbs_cq_disarm(struct weft_cq *cq);
/* room for @nr more completions at once. Return: 0, -ENOSPC */
int wfi_verbs_cq_reserve(struct wfi_verbs_cq *cq, uint32_t nr);
/* @nr receive buffers more for somebody. Return: 0, -ENOSPC, -ENOMEM */
int wfi_verbs_cq_promise(struct wfi_verbs_cq *cq, uint32_t nr);
/* what the NIC has ready is taken over. Return: false when that was all */
bool wfi_verbs_cq_drain(struct wfi_verbs_cq *cq);
void wfi_verbs_cq_ready(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep);
/* @ep goes: nothing names it any more */
void wfi_verbs_cq_forget(struct wfi_verbs_cq *cq, struct wfi_verbs_ep *ep);

/* post.c. Hot */
extern const struct weft_ep_fast wfi_verbs_fast;
/* a request of our own, signalled. Return: 0, or -EAGAIN and none was posted */
int wfi_verbs_post_ctl(struct wfi_verbs_ep *ep, struct ibv_send_wr *wr);
/* tells the peer what was taken. Return: 0, -EAGAIN the last telling is under way */
int wfi_verbs_post_credit(struct wfi_verbs_ep *ep);

/* ep.c */
int wfi_verbs_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
			struct weft_ep **out);
int wfi_verbs_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out);
int wfi_verbs_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer);
void wfi_verbs_ep_shutdown(struct weft_ep *ep);
void wfi_verbs_ep_destroy(struct weft_ep *ep);
/* what the peer has said of itself is taken over */
void wfi_verbs_ep_meet(struct wfi_verbs_ep *ep, uint32_t credits, uint64_t credit_addr,
		       uint32_t credit_rkey, uint64_t incarnation);
/* our own settings, over those that came from elsewhere; @reads: that the peer answers at once */
void wfi_verbs_qp_limits(const struct wfi_verbs_device *dev, struct ibv_qp_attr *attr,
			 uint8_t reads);
/* the way to a peer, by our GID @ours, into @attr */
void wfi_verbs_gid_set(const struct wfi_verbs_port *port, uint32_t ours, const uint8_t *theirs,
		       struct ibv_qp_attr *attr);
/* to RTR and RTS, with all that @attr says of the peer. Return: 0, -errno */
int wfi_verbs_qp_start(const struct wfi_verbs_device *dev, struct ibv_qp *qp,
		       struct ibv_qp_attr *attr, uint8_t reads);
/* dialing -> connected */
void wfi_verbs_ep_open(struct wfi_verbs_ep *ep);
/* connected -> closing, for a reason; later ones change nothing. Cold */
void wfi_verbs_ep_break(struct wfi_verbs_ep *ep, int status, enum weft_scope scope);
/* closing: goes on as far as it can. Return: true when CLOSED is due. Cold */
bool wfi_verbs_ep_close_step(struct wfi_verbs_ep *ep);
/* now and then: is the peer alive? Cold */
void wfi_verbs_ep_tick(struct wfi_verbs_ep *ep, uint64_t now);
/* the farewell has come */
void wfi_verbs_ep_farewell(struct wfi_verbs_ep *ep);
/* a send completion with an error. Cold */
void wfi_verbs_ep_error(struct wfi_verbs_ep *ep, uint32_t at, enum ibv_wc_status status);

/* cm.c */
int wfi_verbs_port_open(struct weft_device *dev, const struct weft_port_opts *opts,
			struct weft_port **out);
void wfi_verbs_port_close(struct weft_port *port);
int wfi_verbs_port_addr(struct weft_port *port, char *buf, size_t len);
int wfi_verbs_port_poll(struct weft_port *port, struct weft_ask *out);
int wfi_verbs_port_accept(struct weft_port *port, uint64_t id, struct weft_ep *ep);
int wfi_verbs_port_refuse(struct weft_port *port, uint64_t id);
int wfi_verbs_ep_dial(struct weft_ep *ep, const struct weft_dial_opts *opts);
/* Return: 0, or why there is no connection manager */
int wfi_verbs_cm_open(struct wfi_verbs_device *dev);
void wfi_verbs_cm_close(struct wfi_verbs_device *dev);
/* takes all events. Cold */
void wfi_verbs_cm_events(struct wfi_verbs_device *dev);
/* the handshake is through. Cold */
void wfi_verbs_cm_established(struct wfi_verbs_ep *ep);
/* dialing: is it time to give up? Cold */
void wfi_verbs_cm_tick(struct wfi_verbs_ep *ep, uint64_t now);
/* @ep goes. Cold */
void wfi_verbs_cm_forget(struct wfi_verbs_ep *ep);

#endif
