/* SPDX-License-Identifier: Apache-2.0 */
/**
 * raw.h - an engine made of weft/ring.h alone, which breaks every rule when it is told to
 *
 * Context: children of a test (see test_must()).
 */
#ifndef TEST_RAW_H
#define TEST_RAW_H

#include <stdbool.h>
#include <stdint.h>
#include "weft/ring.h"

#define RAW_FDS_MAX 40

struct raw {
	int fd; /* -1: not connected, or hung up on */
	uint64_t arena_bytes;
	char *seg;
	struct weft_ring_hdr hdr;
	uint32_t sq_pos, cq_pos;
	uint32_t space;
	uint32_t ring;
};

struct raw_msg {
	const void *buf;
	size_t len;
	int fds[RAW_FDS_MAX];
	unsigned nr_fds;
};

void raw_connect(struct raw *r, const char *socket);
/* Return: false when the node has hung up, or takes nothing more */
bool raw_send(struct raw *r, const struct raw_msg *m);
/* an answer, with up to RAW_FDS_MAX descriptors that are the caller's. Return: bytes, 0 hung up */
size_t raw_recv(struct raw *r, void *buf, size_t len, int fds[RAW_FDS_MAX], unsigned *nr_fds);
/* one request in good form. Return: its status; -ECONNRESET hung up. @fd_out may be NULL */
int raw_request(struct raw *r, struct weft_ctl_req *req, int fd, struct weft_ctl_rep *rep,
		int *fd_out);
void raw_close(struct raw *r);

/* HELLO, one space of 4 KiB blocks with 4 layers, one ring of 64 entries and 1 MiB of arguments */
void raw_attach(struct raw *r, const char *socket, const char *token);
int raw_ring_open(struct raw *r, uint32_t depth, uint32_t arg_bytes);
/* into the next place of the submission queue; .seq is filled in. Return: false when it is full */
bool raw_submit(struct raw *r, const struct weft_sqe *sqe);
/* Return: whether a completion was there */
bool raw_take(struct raw *r, struct weft_cqe *cqe);
void raw_ring_bell(struct raw *r);
/* waits for a completion, 10 s. Return: false when the node hung up instead */
bool raw_next(struct raw *r, struct weft_cqe *cqe);

/* another thread may write to the same places: everything goes in whole words */
void raw_store(void *to, const void *from, size_t len);

static inline struct weft_ring_line *raw_line(const struct raw *r)
{
	return (struct weft_ring_line *)(r->seg + WEFT_RING_ENGINE_OFF);
}

static inline char *raw_args(const struct raw *r)
{
	return r->seg + r->hdr.arg_off;
}

#endif
