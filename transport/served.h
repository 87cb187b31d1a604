/* SPDX-License-Identifier: Apache-2.0 */
/**
 * served.h - what providers share whose reads and writes the provider of the peer carries out
 *
 * No NIC holds a peer to its rights here, so ours does: memory is reached by frames, each with the
 * pieces of one post, and who serves a frame looks each piece up in its own table of exports. A
 * piece costs 24 bytes of description and no copy: pieces are gathered into one frame from where
 * they lie, and land where they belong.
 *
 * The core keeps posts, exports, messages and the life of endpoints. A wire carries frames:
 * a struct wfi_srv_head, which begins a struct wfi_srv_frame and a struct wfi_srv_desc for each
 * piece where there is more to say than in a message, then bytes. Frames of one endpoint arrive
 * whole and in order, or the endpoint breaks.
 *
 * Nobody waits for room in order to serve: messages have credits, requests for bytes
 * (WFI_SRV_READS) and answers (the depth of an endpoint) are bounded, and have their places. So
 * both sides always take what arrives, and never block each other.
 *
 * Answers come in the order of requests; one acknowledges all writes before it.
 *
 * Where all peers are on this host (wfi_srv_device_local()), an export of a memfd to nobody in
 * particular carries its file, and an address the device's generations (transport/host.h) and
 * process: who gets them maps the region, and its posts are copies. Without them, and for all other
 * memory, there are frames.
 */
#ifndef WFI_TRANSPORT_SERVED_H
#define WFI_TRANSPORT_SERVED_H

#include <sys/uio.h>
#include "transport/host.h"

#define WFI_SRV_VERSION 3u
#define WFI_SRV_EP_MAGIC 0x3150455652535457ull /* "WTSRVEP1" */
#define WFI_SRV_RKEY_MAGIC 0x3359454b52535457ull /* "WTSRKEY3" */
#define WFI_SRV_FRAME_MAGIC 0x57u
#define WFI_SRV_PIECES 256u /* most of a post */
#define WFI_SRV_READS 16u /* frames that ask for bytes, open at one side */
#define WFI_SRV_DEPTH 1024u /* most posts of an endpoint */
#define WFI_SRV_EPS 1024u /* most endpoints of a device */
#define WFI_SRV_TX 32u /* frames of one endpoint on their way */
#define WFI_SRV_TX_ANSWERS 8u /* of them only for answers */
#define WFI_SRV_PART (64u << 10) /* bytes of a read that are told before the others land */
#define WFI_SRV_MSG 4096u /* most of a message */
#define WFI_SRV_LOCAL_POST (4u << 20) /* bytes of a post that may be copied at once */
#define WFI_SRV_RECORD 64u /* what a message takes of the receiver's room beside its bytes */

enum wfi_srv_kind {
	WFI_SRV_WRITE = 1,
	WFI_SRV_READ = 2,
	WFI_SRV_ACK = 3, /* of all writes up to .serial; .status and .idx are those of the last */
	WFI_SRV_DATA = 4, /* answer to a READ */
	WFI_SRV_SEND = 5,
	WFI_SRV_CREDIT = 6,
	WFI_SRV_BYE = 7, /* the last of all */
};

#define WFI_SRV_F_IMM 1u /* of a WRITE: .imm is told when it has landed */

/* little-endian, on the wire; all there is in front of a message's bytes, of a CREDIT and a BYE */
struct wfi_srv_head {
	uint64_t to; /* the endpoint, as its address says */
	uint8_t magic;
	uint8_t kind;
	uint16_t nr; /* of a SEND bytes, else descriptors */
	uint32_t credit; /* bytes of messages taken so far, modulo 2^32 */
};

/* of the others */
struct wfi_srv_frame {
	struct wfi_srv_head h;
	uint64_t bytes; /* behind the descriptors */
	uint32_t serial; /* of the request */
	int32_t status; /* of an answer: -errno of piece .idx, or 0 */
	uint32_t idx;
	uint32_t imm;
	uint32_t flags;
	uint32_t reserved;
};

struct wfi_srv_desc {
	uint64_t off;
	uint64_t secret; /* of the export */
	uint32_t len;
	uint32_t export_idx;
};

/* an endpoint's address, little-endian; what the wire adds lies behind it */
struct wfi_srv_ep_blob {
	uint64_t magic;
	uint64_t incarnation; /* random, of the device */
	uint64_t id;
	char wire[8];
	uint32_t version;
	uint32_t check; /* over all of it, with 0 in this place */
	uint32_t room; /* for messages that were not taken yet */
	uint32_t len; /* of what lies behind */
};

struct wfi_srv_rkey_blob {
	struct wfi_rkey_head head;
	uint64_t secret;
	uint64_t off; /* in the file beside it, if there is one */
	uint32_t export_idx;
	uint32_t gen; /* of .export_idx, for who maps the file */
};

/* files of an address, or none */
enum { WFI_SRV_FD_GENS, WFI_SRV_FD_PID, WFI_SRV_FD_NR };

_Static_assert(sizeof(struct wfi_srv_frame) == 48, "wire");
_Static_assert(sizeof(struct wfi_srv_head) == 16, "wire");
_Static_assert(offsetof(struct wfi_srv_frame, serial) == 24, "wire");
_Static_assert(sizeof(struct wfi_srv_desc) == 24, "wire");
_Static_assert(sizeof(struct wfi_srv_ep_blob) == 48, "wire");
_Static_assert(sizeof(struct wfi_srv_rkey_blob) == 56, "wire");

#define WFI_SRV_WIRE_ADDR_MAX (WEFT_EP_ADDR_MAX - sizeof(struct wfi_srv_ep_blob))
#define WFI_SRV_HEAD_MAX                                                                           \
	(sizeof(struct wfi_srv_frame) + WFI_SRV_PIECES * sizeof(struct wfi_srv_desc))

struct wfi_srv_ep;
struct wfi_srv_device;

/* a frame on its way: .iov[0] is the head, or what is left of it */
struct wfi_srv_tx {
	struct wfi_srv_tx *next; /* free, or in the wire's queue */
	struct wfi_srv_ep *ep;
	uint32_t nr_iov;
	uint32_t at; /* of the wire: the first of .iov that is left */
	uint32_t nr_busy; /* of the wire: parts that are under way */
	bool used;
	uint64_t lends; /* memory of ours: a bit for each export, see wfi_srv_export_bit() */
	struct iovec iov[1 + WFI_SRV_PIECES];
	uint8_t head[WFI_SRV_HEAD_MAX];
};

/**
 * struct wfi_srv_wire - what carries frames
 *
 * Context: the thread of the device. None of these calls back but progress().
 */
struct wfi_srv_wire {
	char name[8];
	uint32_t ep_size; /* of the wire's own, which begins with the core's */
	uint32_t head_max; /* bytes of a head that the wire takes; WFI_SRV_HEAD_MAX */
	/* takes and hands on what is there: wfi_srv_rx_*(), wfi_srv_tx_done(), wfi_srv_lost(),
	 * wfi_srv_stopped() */
	void (*progress)(struct wfi_srv_device *dev);
	/* what to sleep on. Return: 1, -EAGAIN something came, -errno */
	int (*arm)(struct wfi_srv_device *dev, struct weft_wait *wait);

	int (*init)(struct wfi_srv_ep *ep);
	/* whatever its state: nothing of it is under way any more when this returns */
	void (*fini)(struct wfi_srv_ep *ep);
	/* Return: bytes of this endpoint's address written, -errno */
	int (*addr)(struct wfi_srv_ep *ep, uint8_t *buf, size_t len);
	/* Return: 0 under way, -EINVAL */
	int (*connect)(struct wfi_srv_ep *ep, const uint8_t *addr, uint32_t len);
	/* @tx is the wire's until wfi_srv_tx_done(). Never fails: what is wrong is a loss */
	void (*push)(struct wfi_srv_ep *ep, struct wfi_srv_tx *tx);
	/* NULL, or a short way for a frame that is all in its head. Return: whether it has left, in
	 * its order, and nothing of it is needed any more; else it has to be pushed. Hot */
	bool (*dart)(struct wfi_srv_ep *ep, const void *head, size_t len);
	/* ends the connection, in some ms at most; wfi_srv_stopped() in a later progress() */
	void (*stop)(struct wfi_srv_ep *ep);
};

/* one mr_export() */
struct wfi_srv_export {
	struct weft_mr *mr; /* NULL: none */
	struct weft_ep *ep; /* the only one that it is for, or NULL */
	uint8_t *mem;
	uint64_t len;
	uint64_t secret;
	uint32_t access;
	uint32_t reserved;
};

/* a poll that is under way, and has told all that there was: messages that come in it are written
 * where it wants them */
struct wfi_srv_poll {
	const struct weft_cq *cq; /* NULL: none */
	struct weft_wc *next;
	const struct weft_wc *end;
};

struct wfi_srv_device {
	struct weft_device base;
	const struct wfi_srv_wire *wire;
	struct wfi_srv_poll poll;
	uint64_t incarnation;
	uint64_t silent_ns;
	uint64_t tick_ns;
	uint32_t polls;
	uint32_t nr_exports; /* room for */
	uint32_t nr_closing; /* endpoints */
	uint32_t stirs; /* moves on when there may be something to tell */
	bool due; /* there may be something to settle */
	bool local; /* .gens and .pidfd are there */
	struct wfi_gens gens; /* of exports */
	int pidfd; /* of this process */
	struct wfi_srv_export *exports;
	struct wfi_srv_ep *first; /* of all */
	struct wfi_srv_ep *eps[WFI_SRV_EPS]; /* by the low half of their ids */
	struct wfi_srv_desc descs[WFI_SRV_PIECES]; /* of the post that is being built */
};

struct wfi_srv_mr {
	struct weft_mr base;
	int fd; /* that peers may map; -1: none */
	uint64_t fd_off;
};

struct wfi_srv_rkey {
	struct weft_rkey base;
	uint64_t secret;
	uint32_t export_idx;
	uint32_t gen;
	const uint32_t *live; /* where .gen stands while it is good */
	struct wfi_view view; /* .mem NULL: by frames */
};

struct wfi_srv_cq {
	struct weft_cq base;
	uint32_t depth;
	uint32_t nr_open; /* posts that were not polled yet */
	struct wfi_srv_ep *lent; /* whose messages are lent until the next poll */
	uint32_t seen; /* .stirs of the device when all was told last */
	struct wfi_srv_ep *turn; /* who comes first next time */
};

/* where bytes go, or come from. .mem NULL: nowhere */
struct wfi_srv_piece {
	uint8_t *mem;
	uint32_t len;
	uint32_t export_idx;
};

struct wfi_srv_open {
	uint64_t cookie;
	int32_t status; /* so far */
	uint32_t idx;
	uint32_t nr; /* pieces in its frame */
	uint8_t op; /* enum weft_wc_op */
	uint8_t scope;
	uint8_t flags;
	bool done;
};

/* an answer that is due */
struct wfi_srv_debt {
	uint32_t serial;
	uint32_t idx;
	uint32_t nr;
	int32_t status;
	bool read;
};

/* the frame that is arriving */
struct wfi_srv_rx {
	struct wfi_srv_frame f;
	struct wfi_srv_piece *to;
	uint32_t nr;
	uint32_t at; /* the piece that comes next */
	uint64_t off; /* in it */
	uint64_t left; /* bytes of the frame */
	uint64_t untold; /* of a read whose parts are told: that have landed since */
	int32_t status;
	uint32_t idx;
	bool busy;
	struct wfi_srv_piece pieces[WFI_SRV_PIECES];
};

struct wfi_srv_ep {
	struct weft_ep base;
	struct wfi_srv_ep *next; /* of the device */
	uint64_t id;
	uint64_t peer_id;
	uint64_t peer_incarnation;
	struct wfi_view peer_gens; /* .mem NULL: it gave none */
	int peer_pidfd; /* -1: unknown */

	enum wfi_ep_state state;
	int close_status;
	/* bits, so that one look sees several */
	bool shut : 1; /* by its owner */
	bool lost : 1; /* the wire, or the peer, is beyond repair */
	bool bye : 1; /* the peer's was here */
	bool said_bye : 1;
	bool stopping;
	bool stopped;
	bool meeting; /* of the wire: the peer has not shown itself yet */
	bool heard; /* since the last tick */
	bool waits; /* an answer was due at the last tick */
	uint64_t heard_ns;
	uint64_t close_ns; /* when patience with a shutdown ends */

	struct wfi_srv_open *opens;
	uint32_t depth;
	uint32_t open_mask;
	uint32_t open_head; /* not polled yet */
	uint32_t open_next; /* not answered yet */
	uint32_t open_tail;
	uint32_t reads_head; /* requests for bytes: answered, and made */
	uint32_t reads_tail;

	struct wfi_srv_tx *tx_mem;
	struct wfi_srv_tx *tx_free;
	uint32_t nr_free;

	uint32_t msg_sent; /* bytes of the peer's room, modulo 2^32 */
	uint32_t msg_credit;
	uint32_t peer_room;
	uint32_t msg_taken;
	uint32_t msg_told;
	uint32_t msg_came;
	uint8_t *ring;
	uint32_t room;
	uint32_t ring_bytes;
	uint32_t ring_tail; /* offset: where the next record goes */
	uint32_t ring_shown; /* offset: the next one to be shown */
	uint32_t nr_msgs; /* records that were not shown yet */
	uint32_t lent_bytes;
	struct wfi_srv_ep *lent_next; /* of .recv_cq, while there are some */

	struct wfi_srv_debt *debts; /* WFI_SRV_DEPTH */
	uint32_t debt_head;
	uint32_t debt_tail;
	uint32_t served_head; /* requests for bytes of the peer's: answered, and here */
	uint32_t served_tail;
	struct wfi_srv_piece (*reads)[WFI_SRV_PIECES]; /* WFI_SRV_READS of ours */
	struct wfi_srv_piece (*served)[WFI_SRV_PIECES]; /* and of the peer's */
	struct wfi_srv_rx rx;
};

static inline struct wfi_srv_device *wfi_srv_device(struct weft_device *dev)
{
	return wfi_container_of(dev, struct wfi_srv_device, base);
}

static inline struct wfi_srv_ep *wfi_srv_ep(struct weft_ep *ep)
{
	return wfi_container_of(ep, struct wfi_srv_ep, base);
}

static inline void wfi_srv_stir(struct wfi_srv_ep *ep)
{
	struct wfi_srv_device *dev = wfi_srv_device(ep->base.dev);

	dev->stirs++;
	dev->due = true;
}

/* exports that share a bit are waited for together, seldom and in vain */
static inline uint64_t wfi_srv_export_bit(uint32_t export_idx)
{
	return 1ull << export_idx % 64;
}

/* ---- for wires ---- */

/* Return: the endpoint, or NULL: it is gone, or never was */
static inline struct wfi_srv_ep *wfi_srv_ep_find(const struct wfi_srv_device *dev, uint64_t id)
{
	struct wfi_srv_ep *ep = dev->eps[(uint32_t)id % WFI_SRV_EPS];

	return ep && ep->id == id ? ep : NULL;
}

/* Return: whether it takes frames */
static inline bool wfi_srv_ep_hears(const struct wfi_srv_ep *ep)
{
	return !ep->lost && (ep->state == WFI_EP_CONNECTED || ep->state == WFI_EP_CLOSING);
}

/* a frame is here that is all in its head, whoever it is for, if that is anybody. Hot */
void wfi_srv_rx_frame(struct wfi_srv_device *dev, const uint8_t *frame, size_t len);
/**
 * wfi_srv_rx_begin - a head has arrived
 * @head: of @len bytes, as the peer sent it
 *
 * Return: bytes of the head, the frame's own bytes are expected now, or of a message that is all
 * here; 0 the head is not whole yet; -EPROTO the peer breaks the rules: call wfi_srv_lost(). Hot.
 */
int wfi_srv_rx_begin(struct wfi_srv_ep *ep, const uint8_t *head, size_t len);
/* bytes of the frame that are still to come */
static inline uint64_t wfi_srv_rx_left(const struct wfi_srv_ep *ep)
{
	return ep->rx.left;
}
/* up to @len of them are here. Return: how many belong to this frame. Hot */
size_t wfi_srv_rx_bytes(struct wfi_srv_ep *ep, const uint8_t *bytes, size_t len);
/* where the next bytes may be put instead, at most @max places of at most @bytes; those that go
 * nowhere end the list. Return: how many places. Then wfi_srv_rx_moved(). Hot */
unsigned wfi_srv_rx_iov(const struct wfi_srv_ep *ep, struct iovec *iov, unsigned max,
			uint64_t bytes);
void wfi_srv_rx_moved(struct wfi_srv_ep *ep, uint64_t bytes);

/* a frame has left, or will not any more. Hot */
static inline void wfi_srv_tx_done(struct wfi_srv_ep *ep, struct wfi_srv_tx *tx)
{
	tx->used = false;
	tx->next = ep->tx_free;
	ep->tx_free = tx;
	ep->heard = true;
	/* what is due waits for the first that is free, and the end for the last */
	if (wfi_unlikely(!ep->nr_free++ || ep->state == WFI_EP_CLOSING))
		wfi_srv_stir(ep);
}
/* the peer is gone, or breaks the rules; the core calls stop() later */
void wfi_srv_lost(struct wfi_srv_ep *ep, int status);
/* nothing is under way any more, and frames that the wire had are all back */
void wfi_srv_stopped(struct wfi_srv_ep *ep);

/* fills what all have; @dev is zeroed. Return: 0, -errno */
int wfi_srv_device_init(struct wfi_srv_device *dev, const struct weft_transport *t,
			struct wfi_env *env, const struct wfi_srv_wire *wire, uint32_t silent_ms);
void wfi_srv_device_fini(struct wfi_srv_device *dev);

/* ---- between the core's own files ---- */

/* Return: 0 with *@mem, or -errno of the piece. Hot */
int wfi_srv_export_find(const struct wfi_srv_ep *ep, const struct wfi_srv_desc *desc, uint32_t need,
			uint8_t **mem);
/* exports for this endpoint end */
void wfi_srv_exports_end(struct wfi_srv_ep *ep);
/* what is due: answers, credits, the end. Hot */
void wfi_srv_ep_settle(struct wfi_srv_ep *ep);
void wfi_srv_ep_tick(struct wfi_srv_ep *ep, uint64_t now_ns);
/* Return: completions of posts written to @wcs */
unsigned wfi_srv_take_posts(struct wfi_srv_ep *ep, struct weft_wc *wcs, unsigned max);
/* the same of messages and the end */
unsigned wfi_srv_take_messages(struct wfi_srv_ep *ep, struct weft_wc *wcs, unsigned max);
/* messages that were lent are over */
void wfi_srv_give_back(struct wfi_srv_ep *ep);
/* posts that nobody is told of leave their places. Hot */
void wfi_srv_reap(struct wfi_srv_ep *ep);
bool wfi_srv_has_posts(const struct wfi_srv_ep *ep);
bool wfi_srv_has_messages(const struct wfi_srv_ep *ep);
/* served_post.c */
extern const struct weft_ep_fast wfi_srv_fast;
/* Return: a free frame of one place, its head, which is to be filled; NULL. Hot */
struct wfi_srv_tx *wfi_srv_tx_get(struct wfi_srv_ep *ep);
/* all of the head but what wfi_srv_tx_push() knows */
void wfi_srv_tx_frame(struct wfi_srv_tx *tx, const struct wfi_srv_frame *f,
		      const struct wfi_srv_desc *descs);
void wfi_srv_tx_push(struct wfi_srv_ep *ep, struct wfi_srv_tx *tx);

/* ---- served_local.c: peers of this host ---- */

/* for a device whose wire reaches nobody else. Return: 0, -errno; logged */
int wfi_srv_device_local(struct wfi_srv_device *dev);
#define WFI_SRV_NO_FD (-1)
/* Return: a file for the peers that map the region, WFI_SRV_NO_FD none, other -errno */
int wfi_srv_local_fd(const struct wfi_srv_device *dev, const struct weft_mr_opts *o);
/* @fds: WFI_SRV_FD_NR of the peer's. Return: 0, -errno */
int wfi_srv_local_meet(struct wfi_srv_ep *ep, const int *fds);
void wfi_srv_local_leave(struct wfi_srv_ep *ep);
/* Return: 0 mapped, or not to be, -errno */
int wfi_srv_local_map(struct wfi_srv_rkey *rkey, const struct wfi_srv_rkey_blob *blob, int fd);
/* Return: pieces that were copied, all up to one whose region is gone. Hot, but for the copying */
uint32_t wfi_srv_local_copy(const struct weft_piece *pieces, uint32_t nr, bool read);

/* ---- ops of a provider's table ---- */

int wfi_srv_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out);
void wfi_srv_mr_dereg(struct weft_mr *mr);
int wfi_srv_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
		      struct weft_export *out);
int wfi_srv_mr_revoke(struct weft_mr *mr, uint64_t id);
int wfi_srv_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			struct weft_rkey **out);
void wfi_srv_rkey_destroy(struct weft_rkey *rkey);
void *wfi_srv_rkey_ptr(const struct weft_rkey *rkey);
int wfi_srv_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		      struct weft_cq **out);
void wfi_srv_cq_destroy(struct weft_cq *cq);
int wfi_srv_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
void wfi_srv_cq_disarm(struct weft_cq *cq);
int wfi_srv_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out);
int wfi_srv_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer);
void wfi_srv_ep_shutdown(struct weft_ep *ep);
int wfi_srv_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		      struct weft_ep **out);
void wfi_srv_ep_destroy(struct weft_ep *ep);

#endif
