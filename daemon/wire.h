/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wire.h - what two nodes say to each other on a control connection
 *
 * A message is a head of 16 bytes and a body: one fixed struct, in some types with an array of
 * fixed structs behind it. All values are little-endian, holes are named and zero. On TCP messages
 * follow each other; on the unix sockets of one host each is a datagram, with its files beside it.
 *
 * Addresses, queue pair numbers, rkeys and tickets travel in these messages only. A type is a
 * number here, a struct with its size asserted, a check and a row of wire_types[] in wire.c, and a
 * row of on_message[] in control_peer.c. Bodies reach a handler when the check let them pass, so
 * that bounds are looked after in one place; tests/fuzz/fuzz_wire.c finds new rows by itself.
 *
 * Context: any thread; no state but that of the caller's structs.
 */
#ifndef WEFTD_WIRE_H
#define WEFTD_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "weft/transport.h"
#include "weft_internal/env.h"
#include "weft_internal/gather.h"

#define WIRE_MAGIC 0x43544657u /* "WFTC" */
#define WIRE_VERSION 2u
#define WIRE_HEAD sizeof(struct wire_head)
#define WIRE_BODY_MAX 16384u
#define WIRE_NAME_MAX 64u
#define WIRE_TENANTS_MAX 16u
#define WIRE_FDS_MAX (WEFT_EP_FDS_MAX + WIRE_TENANTS_MAX)

enum wire_kind {
	WIRE_HELLO = 1, /* who speaks: the first message of both sides */
	WIRE_REFUSE = 2, /* why there will be no connection: the last message */
	WIRE_ENDPOINT = 3, /* how to reach the speaker's memory */
	WIRE_STATE = 4, /* what has become of the speaker, any time after ENDPOINT */
	WIRE_NR
};

struct wire_head {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t len; /* of the body */
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_head) == 16, "on the wire");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are the wire format");

/* @name, @transport: with their zero */
struct wire_hello {
	uint64_t node;
	uint64_t incarnation;
	char name[WIRE_NAME_MAX];
	char transport[16];
};
_Static_assert(sizeof(struct wire_hello) == 96, "on the wire");

/* @why: one sentence of printable ASCII, with its zero */
struct wire_refuse {
	char why[248];
};
_Static_assert(sizeof(struct wire_refuse) == 248, "on the wire");

/* .tag of the shard of the directory here, behind the arenas where there is room: who does not
 * know it takes it for a tenant that it does not have */
#define WIRE_SHARD_TAG 0x6472616873746677ull /* "wftshard" */

/* read-only rights to the arena of one tenant */
struct wire_arena {
	uint64_t tag; /* of the tenant: equal on all nodes */
	uint32_t blob_len;
	uint32_t has_fd; /* the next one of those beside the message */
	struct wfi_gather_name gather; /* of the same arena, in messages */
	uint32_t reserved;
	uint8_t blob[WEFT_RKEY_BLOB_MAX];
};
_Static_assert(sizeof(struct wire_arena) == 24 + WEFT_RKEY_BLOB_MAX, "on the wire");

/* .nr_arenas of .arenas travel */
struct wire_endpoint {
	uint32_t max_msg; /* of the device's messages */
	uint32_t nr_arenas;
	uint32_t addr_len;
	uint32_t addr_fds; /* the first of those beside the message */
	uint8_t addr[WEFT_EP_ADDR_MAX];
	struct wire_arena arenas[WIRE_TENANTS_MAX];
};
_Static_assert(sizeof(struct wire_endpoint) ==
		       16 + WEFT_EP_ADDR_MAX + WIRE_TENANTS_MAX * sizeof(struct wire_arena),
	       "on the wire");
_Static_assert(sizeof(struct wire_endpoint) <= WIRE_BODY_MAX, "a body");

struct wire_state {
	uint32_t draining;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_state) == 8, "on the wire");

/**
 * struct wire_type - what bodies of one type look like
 * @check: of a body whose length is within bounds; aligned to 8. NULL: any is good.
 *	Return: 0, -EPROTO
 */
struct wire_type {
	const char *name;
	uint32_t min_len, max_len;
	int (*check)(const void *body, size_t len);
};

/* by enum wire_kind; rows without a name are no types */
extern const struct wire_type wire_types[WIRE_NR];

/* bytes of @ep that travel */
size_t wire_endpoint_len(const struct wire_endpoint *ep);

void wire_head_fill(struct wire_head *head, enum wire_kind type, size_t len);

/**
 * wire_datagram - a message that came as a whole
 * @msg: aligned to 8
 *
 * Return: 0, and its type and body may be used; -EPROTO it is none; -EPROTONOSUPPORT of another
 * version.
 */
int wire_datagram(const void *msg, size_t len);

/**
 * struct wire_in - a message that comes in parts; zeroed before its first use
 * @body: NULL while the head is not whole, or the body empty
 * @have: bytes of head and body
 */
struct wire_in {
	struct wire_head head;
	void *body;
	size_t have;
};

/* where the next bytes belong. Return: how many may be put there, at least 1 */
size_t wire_in_room(struct wire_in *in, void **at);
/**
 * wire_in_got - @len of them have come, 1 to what there was room for
 *
 * Who is no node at all is found out by the first bytes; memory is taken for the length that the
 * type may have, when the head is whole.
 *
 * Return: 1 the message is whole and good, 0 more has to come, -EPROTO, -EPROTONOSUPPORT of another
 * version, -ENOMEM: no more is to be read.
 */
int wire_in_got(struct wire_in *in, struct wfi_env *env, size_t len);
/* forgets the message, whole or not */
void wire_in_reset(struct wire_in *in, struct wfi_env *env);

#endif
