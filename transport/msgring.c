/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include "transport/msgring.h"

#define ALIGN 64u

static uint32_t rec_bytes(uint32_t len)
{
	return (uint32_t)wfi_align_up(sizeof(struct wfi_msgrec) + len, ALIGN);
}

static struct wfi_msgrec *rec_at(const struct wfi_msgring *ring, uint32_t pos)
{
	return (struct wfi_msgrec *)(void *)(ring->data + (pos & (ring->bytes - 1)));
}

static void bytes_in(const struct wfi_msgring *ring, uint32_t pos, const void *buf, uint32_t len)
{
	uint32_t off = pos & (ring->bytes - 1);
	uint32_t first = (uint32_t)wfi_min(len, ring->bytes - off);

	memcpy(ring->data + off, buf, first);
	memcpy(ring->data, (const uint8_t *)buf + first, len - first);
}

static void bytes_out(const struct wfi_msgring *ring, uint32_t pos, void *buf, uint32_t len)
{
	uint32_t off = pos & (ring->bytes - 1);
	uint32_t first = (uint32_t)wfi_min(len, ring->bytes - off);

	memcpy(buf, ring->data + off, first);
	memcpy((uint8_t *)buf + first, ring->data, len - first);
}

void wfi_msgring_init(struct wfi_msgring *ring, void *mem, uint32_t data_bytes)
{
	memset(ring, 0, sizeof(*ring));
	ring->sh = mem;
	ring->data = (uint8_t *)mem + sizeof(*ring->sh);
	ring->bytes = data_bytes;
	ring->sh->data_bytes = data_bytes;
	ring->sh->magic = WFI_MSGRING_MAGIC;
}

int wfi_msgring_attach(struct wfi_msgring *ring, void *mem, uint64_t len)
{
	struct wfi_msgring_shared *sh = mem;
	uint32_t bytes;

	if (len < sizeof(*sh))
		return -EPROTO;
	bytes = __atomic_load_n(&sh->data_bytes, __ATOMIC_RELAXED);
	if (__atomic_load_n(&sh->magic, __ATOMIC_RELAXED) != WFI_MSGRING_MAGIC ||
	    !wfi_is_pow2(bytes) || bytes < WFI_MSGRING_MIN || bytes > WFI_MSGRING_MAX ||
	    wfi_msgring_len(bytes) > len)
		return -EPROTO;
	memset(ring, 0, sizeof(*ring));
	ring->sh = sh;
	ring->data = (uint8_t *)mem + sizeof(*sh);
	ring->bytes = bytes;
	return 0;
}

int wfi_msgring_room(struct wfi_msgring *ring, uint32_t len)
{
	/* one more line: the .kind behind the record is cleared before the record is shown */
	uint32_t need = rec_bytes(len) + ALIGN;

	if (wfi_likely(ring->pos - ring->seen + need <= ring->bytes))
		return 0;
	/* pairs with the release in wfi_msgring_take(): what was taken may be overwritten */
	ring->seen = __atomic_load_n(&ring->sh->consumer.head, __ATOMIC_ACQUIRE);
	if (wfi_unlikely(ring->pos - ring->seen > ring->bytes || (ring->seen & (ALIGN - 1)))) {
		ring->seen = ring->pos - ring->bytes; /* stays full, and stays in bounds */
		return -EPROTO;
	}
	return ring->pos - ring->seen + need <= ring->bytes ? 0 : -EAGAIN;
}

int wfi_msgring_put(struct wfi_msgring *ring, enum wfi_msg_kind kind, uint32_t imm, const void *buf,
		    uint32_t len)
{
	struct wfi_msgrec *rec = rec_at(ring, ring->pos);
	uint32_t next = ring->pos + rec_bytes(len);
	int ret = wfi_msgring_room(ring, len);

	if (wfi_unlikely(ret))
		return ret;
	if (len)
		bytes_in(ring, ring->pos + (uint32_t)sizeof(*rec), buf, len);
	rec->len = len;
	rec->imm = imm;
	rec->reserved = 0;
	__atomic_store_n(&rec_at(ring, next)->kind, WFI_MSG_NONE, __ATOMIC_RELAXED);
	/* pairs with the acquire in wfi_msgring_take(): bytes, and all writes before, are in
	 * place */
	__atomic_store_n(&rec->kind, (uint32_t)kind, __ATOMIC_RELEASE);
	ring->pos = next;
	return 0;
}

int wfi_msgring_take(struct wfi_msgring *ring, struct wfi_msgrec *rec, void *buf, uint32_t max)
{
	const struct wfi_msgrec *from = rec_at(ring, ring->pos);

	/* pairs with the release in wfi_msgring_put() */
	rec->kind = __atomic_load_n(&from->kind, __ATOMIC_ACQUIRE);
	if (rec->kind == WFI_MSG_NONE)
		return 0;
	rec->len = __atomic_load_n(&from->len, __ATOMIC_RELAXED);
	rec->imm = __atomic_load_n(&from->imm, __ATOMIC_RELAXED);
	if (wfi_unlikely(rec->kind > WFI_MSG_IMM || rec->len > max ||
			 (rec->kind == WFI_MSG_IMM && rec->len) ||
			 (rec->kind == WFI_MSG_SEND && !rec->len)))
		return -EPROTO;
	bytes_out(ring, ring->pos + (uint32_t)sizeof(*from), buf, rec->len);
	ring->pos += rec_bytes(rec->len);
	/* pairs with the acquire in wfi_msgring_room() */
	__atomic_store_n(&ring->sh->consumer.head, ring->pos, __ATOMIC_RELEASE);
	return 1;
}

bool wfi_msgring_empty(const struct wfi_msgring *ring)
{
	return __atomic_load_n(&rec_at(ring, ring->pos)->kind, __ATOMIC_ACQUIRE) == WFI_MSG_NONE;
}

bool wfi_msgring_ring_bell(struct wfi_msgring *ring)
{
	struct wfi_msgring_shared *sh = ring->sh;

	/* pairs with the fence of the sleeper: it sees the record, or we see it asleep */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (wfi_likely(__atomic_load_n(&sh->consumer.sleeping, __ATOMIC_RELAXED) != 1))
		return false;
	__atomic_store_n(&sh->producer.bell,
			 __atomic_load_n(&sh->producer.bell, __ATOMIC_RELAXED) + 1,
			 __ATOMIC_RELEASE);
	return true;
}
