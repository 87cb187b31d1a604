/* SPDX-License-Identifier: Apache-2.0 */
/**
 * msgring.h - a single-producer, single-consumer ring of messages in shared memory
 *
 * A record starts at a multiple of 64 bytes: struct wfi_msgrec, then its bytes. The record is there
 * when .kind is not 0. The producer clears the .kind behind the record before it publishes the
 * record, so that the consumer needs nobody's index. The consumer publishes how far it has read.
 * Positions are free-running bytes. Sleeping is that of weft/ring.h, section 4.
 *
 * Each side trusts nothing that the other can write: copied once, then checked, -EPROTO.
 */
#ifndef WFI_TRANSPORT_MSGRING_H
#define WFI_TRANSPORT_MSGRING_H

#include <stdbool.h>
#include <stdint.h>
#include "weft_internal/util.h"

#define WFI_MSGRING_MAGIC 0x31474e5247534d57ull /* "WMSGRNG1" */
#define WFI_MSGRING_MIN 8192u
#define WFI_MSGRING_MAX (1u << 28)

enum wfi_msg_kind { WFI_MSG_NONE, WFI_MSG_SEND, WFI_MSG_IMM };

/* one side's line: the only one that it writes */
struct wfi_msgring_line {
	uint32_t head; /* consumer: bytes taken */
	uint32_t bell; /* producer: the consumer sleeps on it */
	uint32_t sleeping; /* consumer */
	uint32_t closed; /* either: I am gone */
	uint32_t reserved[12];
};

struct wfi_msgring_shared {
	uint64_t magic;
	uint32_t data_bytes; /* power of two */
	uint32_t reserved[13];
	struct wfi_msgring_line consumer;
	struct wfi_msgring_line producer;
};

struct wfi_msgrec {
	uint32_t kind;
	uint32_t len;
	uint32_t imm;
	uint32_t reserved;
};

_Static_assert(sizeof(struct wfi_msgring_line) == WFI_CACHELINE, "one writer per line");
_Static_assert(offsetof(struct wfi_msgring_shared, consumer) == WFI_CACHELINE, "abi");
_Static_assert(sizeof(struct wfi_msgring_shared) == 3 * WFI_CACHELINE, "abi");
_Static_assert(sizeof(struct wfi_msgrec) == 16, "abi");

/* one end; private */
struct wfi_msgring {
	struct wfi_msgring_shared *sh;
	uint8_t *data;
	uint32_t bytes;
	uint32_t pos; /* ours: producer's tail or consumer's head */
	uint32_t seen; /* producer: the consumer's head as last read */
};

/* bytes of memory for @data_bytes (a power of two) of ring */
static inline uint64_t wfi_msgring_len(uint32_t data_bytes)
{
	return sizeof(struct wfi_msgring_shared) + data_bytes;
}

/* the consumer, who owns the memory, zeroed */
void wfi_msgring_init(struct wfi_msgring *ring, void *mem, uint32_t data_bytes);
/* the producer. @len: of the mapping. Return: 0, -EPROTO */
int wfi_msgring_attach(struct wfi_msgring *ring, void *mem, uint64_t len);

/* Hot. Return: 0, -EAGAIN full, -EPROTO the consumer's index is out of bounds */
int wfi_msgring_put(struct wfi_msgring *ring, enum wfi_msg_kind kind, uint32_t imm, const void *buf,
		    uint32_t len);
/* Hot. Return: 0 when a message of this length would be taken, else as wfi_msgring_put() */
int wfi_msgring_room(struct wfi_msgring *ring, uint32_t len);
/* Hot. @rec: a checked copy. Return: 1, 0 nothing there, -EPROTO */
int wfi_msgring_take(struct wfi_msgring *ring, struct wfi_msgrec *rec, void *buf, uint32_t max);
bool wfi_msgring_empty(const struct wfi_msgring *ring);
/* producer: after wfi_msgring_put(). Return: true when the consumer must be woken on .bell */
bool wfi_msgring_ring_bell(struct wfi_msgring *ring);

#endif
