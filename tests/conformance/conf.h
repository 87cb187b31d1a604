/* SPDX-License-Identifier: Apache-2.0 */
/* conf.h - two sides of one connection, for tests of providers */
#ifndef CONF_H
#define CONF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "weft/transport.h"
#include "weft_internal/env.h"

#define SIDE_MEM (4u << 20)

struct side {
	const struct weft_transport *t;
	struct weft_device *dev;
	struct weft_cq *send_cq;
	struct weft_cq *recv_cq;
	struct weft_ep *ep;
	struct side *peer; /* who has a turn while this side waits; NULL: it is elsewhere */
	uint32_t depth;
	struct wfi_map map; /* memfd, registered as .mr with all rights */
	uint8_t *mem;
	struct weft_mr *mr;
	uint8_t *heap; /* private memory, registered as .heap_mr */
	struct weft_mr *heap_mr;
};

struct pair {
	struct wfi_env env;
	struct side a;
	struct side b;
	struct weft_rkey *rkey; /* a's right to b.mem */
	struct weft_rkey *heap_rkey; /* a's right to b.heap */
};

/* of every device that a side opens */
extern struct weft_device_opts side_device_opts;

void side_open(struct side *s, const struct weft_transport *t, struct wfi_env *env,
	       uint32_t cq_depth, uint32_t depth);
void side_close(struct side *s, struct wfi_env *env);
void pair_open(struct pair *p, const struct weft_transport *t, uint32_t cq_depth, uint32_t depth);
void pair_close(struct pair *p);
/* new endpoints and rkeys between the same devices and regions */
void pair_reconnect(struct pair *p);
void connect_to(struct weft_ep *ep, const struct weft_ep_addr *addr, int pid);
struct weft_rkey *import_export(struct weft_ep *ep, const struct weft_export *ex);
struct weft_rkey *import(struct weft_ep *ep, struct weft_mr *mr,
			 const struct weft_export_opts *opts);

/* has the provider move what is under way, and takes no completion */
void side_turn(struct side *s);
/* polls, a bounded number of times, until a completion of @s is there; RECV come from recv_cq */
struct weft_wc wait_wc(struct side *s, struct weft_cq *cq);
/* the same, and it must be of @op, with @status */
struct weft_wc expect_wc(struct side *s, struct weft_cq *cq, enum weft_wc_op op, int status);
/* nothing comes */
void expect_none(struct side *s);

/* one packet with file descriptors beside it, between processes */
void send_fds(int sock, const void *buf, size_t len, const int *fds, unsigned nr);
void recv_fds(int sock, void *buf, size_t len, int *fds, unsigned nr);

#endif
