/* SPDX-License-Identifier: Apache-2.0 */
/**
 * core.h - what providers that copy by CPU share: options, queues, endpoints, checks
 *
 * Their posts are done when they return, so a completion queue is a private ring that posts fill
 * and polls empty, plus a list of endpoints to receive from. No locks: one owner thread.
 */
#ifndef WFI_TRANSPORT_CORE_H
#define WFI_TRANSPORT_CORE_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/transport.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define WFI_MAX_MSG 4096u
#define WFI_MAX_PIECES 4096u
#define WFI_MAX_POST_BYTES (1ull << 30)
#define WFI_MAX_DEPTH 4096u
#define WFI_REMOTE_ACCESS ((uint32_t)(WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE))

/**
 * wfi_opts_read - a private, zero-extended copy of an option struct
 * @src: starts with its size_t size; NULL gives zeros
 *
 * Return: 0, -EINVAL when its tail has non-zero bytes that we do not know.
 */
int wfi_opts_read(void *dst, size_t known, const void *src);

/* a sum over what peers hand each other, against what went wrong on the way: FNV-1a */
uint32_t wfi_blob_check(const void *blob, size_t len);

enum wfi_ep_state {
	WFI_EP_CREATED,
	WFI_EP_DIALING,
	WFI_EP_CONNECTED,
	WFI_EP_CLOSING,
	WFI_EP_CLOSED,
};

/* what an export carries begins so, where peers get bytes and no files. Little-endian */
struct wfi_rkey_head {
	uint64_t magic; /* the provider's */
	uint64_t incarnation; /* of the owner's device */
	uint64_t len;
	uint32_t access; /* enum weft_access */
	uint32_t check; /* over all of it, with 0 in this place */
};

/* @head: of @len bytes, all but the sum are there */
void wfi_rkey_write(struct wfi_rkey_head *head, size_t len, uint64_t id, struct weft_export *out);
/**
 * wfi_rkey_read - the bytes of an export
 * @s: a copy of @src, whose .access is what the rkey is to have
 * @state: of the endpoint that it is imported to
 * @head: of @len bytes; .magic and .incarnation say what is wanted
 *
 * Return: 0, -EINVAL garbled, -EOPNOTSUPP of another kind, -EACCES more rights than there are,
 * -ENOTCONN, -ESTALE of an earlier life of the peer, or of another node
 */
int wfi_rkey_read(struct weft_rkey_src *s, const struct weft_rkey_src *src, enum wfi_ep_state state,
		  struct wfi_rkey_head *head, size_t len);

struct wfi_sync_ep;

struct wfi_sync_ep_ops {
	/* one message into @wc and @buf (WFI_MAX_MSG bytes). Return: 1, 0 none, -errno broken */
	int (*recv)(struct wfi_sync_ep *ep, struct weft_wc *wc, void *buf);
	/* is the peer gone? Cold. Return: 0, or why it is closed */
	int (*check)(struct wfi_sync_ep *ep);
	/* before CLOSED is shown: nobody reaches us any more. Cold */
	void (*closed)(struct wfi_sync_ep *ep);
};

struct wfi_sync_ep {
	struct weft_ep base;
	const struct wfi_sync_ep_ops *ops;
	struct wfi_sync_ep *next; /* on its recv_cq */
	uint32_t depth;
	uint32_t nr_open; /* completions that were not polled yet */
	uint32_t rx_left; /* closing: messages that may still be taken */
	enum wfi_ep_state state;
	int close_status;
};

struct wfi_sync_cq {
	struct weft_cq base;
	struct weft_wc *wcs;
	uint8_t *arena; /* messages lent until the next poll */
	struct wfi_sync_ep *eps;
	uint32_t depth; /* power of two */
	uint32_t head;
	uint32_t tail;
	uint32_t idle; /* polls in a row that found nothing */
};

/* an rkey to memory that is mapped here */
struct wfi_sync_rkey {
	struct weft_rkey base;
	uint8_t *mem; /* NULL: not mapped */
};

static inline struct wfi_sync_rkey *wfi_sync_rkey(const struct weft_rkey *rkey)
{
	return wfi_container_of(rkey, struct wfi_sync_rkey, base);
}

int wfi_sync_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out);
void wfi_sync_cq_destroy(struct weft_cq *cq);
/* Return: true when a poll would find a completion of a post */
bool wfi_sync_cq_pending(const struct wfi_sync_cq *cq);

/* checks @opts, fills @ep and puts it on its queue; @ep is the caller's and zeroed */
int wfi_sync_ep_init(struct wfi_sync_ep *ep, struct weft_device *dev,
		     const struct weft_ep_opts *opts, const struct wfi_sync_ep_ops *ops);
void wfi_sync_ep_fini(struct wfi_sync_ep *ep);
/* connected or created -> closing; later calls change nothing. @rx_left: messages still wanted */
void wfi_sync_ep_close(struct wfi_sync_ep *ep, int status, uint32_t rx_left);
/* hot table of an endpoint that is not connected */
extern const struct weft_ep_fast wfi_ep_unconnected;
/* of a memory endpoint */
int wfi_ep_no_imm(struct weft_ep *ep, const struct weft_post *post);
int wfi_ep_no_send(struct weft_ep *ep, const void *buf, uint32_t len, uint64_t cookie,
		   uint32_t flags);
int wfi_ep_no_msg(struct weft_ep *ep, const struct weft_msg *msg);
/* post_msg() of those that gather nothing: put together, and sent by post_send() */
int wfi_ep_flat_msg(struct weft_ep *ep, const struct weft_msg *msg);
/* Return: bytes of it, -EINVAL none, too many, or pieces outside of its region */
int wfi_msg_len(const struct weft_ep *ep, const struct weft_msg *msg);
/* one behind the other. Return: where they end */
uint8_t *wfi_pieces_copy(uint8_t *to, const struct weft_piece *pieces, uint32_t nr);

/* what a post may do, as found before it starts */
struct wfi_post_plan {
	uint64_t bytes; /* of the good pieces */
	uint32_t nr_good; /* pieces before the first bad one */
	int status; /* of that one, or 0 */
};

/* @ep: the endpoint of the post; @need: the right that the rkey must have. Return: 0, or -errno of
 * the piece. Hot */
int wfi_piece_check(const struct weft_ep *ep, const struct weft_post *post,
		    const struct weft_piece *piece, uint32_t need);

/**
 * wfi_sync_post_begin - room for a completion, and all pieces checked
 * @need: the right that each rkey must have
 *
 * Return: 0 go on, -EAGAIN, -EINVAL. Hot.
 */
int wfi_sync_post_begin(struct wfi_sync_ep *ep, const struct weft_post *post, uint32_t need,
			struct wfi_post_plan *plan);
/* the one completion of a post; success of a quiet one leaves none. Hot */
void wfi_sync_complete(struct wfi_sync_ep *ep, uint64_t cookie, enum weft_wc_op op, uint32_t flags,
		       int status, uint32_t idx);

/* of a provider without ports */
int wfi_no_port_open(struct weft_device *dev, const struct weft_port_opts *opts,
		     struct weft_port **out);
void wfi_no_port_close(struct weft_port *port);
int wfi_no_port_addr(struct weft_port *port, char *buf, size_t len);
int wfi_no_port_poll(struct weft_port *port, struct weft_ask *out);
int wfi_no_port_accept(struct weft_port *port, uint64_t id, struct weft_ep *ep);
int wfi_no_port_refuse(struct weft_port *port, uint64_t id);
int wfi_no_ep_dial(struct weft_ep *ep, const struct weft_dial_opts *opts);

/* checks for mr_reg and mr_export that do not depend on the provider */
int wfi_mr_opts_check(const struct weft_mr_opts *opts);
/* how mr_reg begins. Return: 0, -EINVAL; -EOPNOTSUPP a dma-buf, good for who takes them */
int wfi_mr_opts_read(struct weft_mr_opts *out, const struct weft_mr_opts *in);
/* what all regions have */
void wfi_mr_init(struct weft_mr *mr, struct weft_device *dev, const struct weft_mr_opts *opts);
int wfi_export_opts_check(const struct weft_mr *mr, const struct weft_export_opts *in,
			  struct weft_export_opts *out);

#endif
