/* SPDX-License-Identifier: Apache-2.0 */
/* reader.c - threads that look up beside the owner; index.h says what they see */
#include <errno.h>
#include "kvcache/kv_private.h"

struct wfi_kv_reader {
	struct index_reader reader;
	struct wfi_kv *kv;
	struct index_salt salt; /* the thread reads nothing of the space, which is the owner's */
};

int wfi_kv_reader_create(struct wfi_kv *kv, uint32_t space_id, struct wfi_kv_reader **out)
{
	const struct kv_space *space = kv_space(kv, space_id);
	struct wfi_kv_reader *r;

	if (!space)
		return -ENOENT;
	r = wfi_alloc(kv->env, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->kv = kv;
	r->salt = space->salt;
	wfi_index_reader_add(&kv->index, &r->reader);
	*out = r;
	return 0;
}

void wfi_kv_reader_destroy(struct wfi_kv_reader *r)
{
	struct wfi_kv *kv;

	if (!r)
		return;
	kv = r->kv;
	wfi_index_reader_del(&kv->index, &r->reader);
	wfi_free(kv->env, r, sizeof(*r));
}

int wfi_kv_reader_match(struct wfi_kv_reader *r, const struct weft_key *keys, uint32_t nr,
			uint32_t *slots)
{
	uint32_t found;

	wfi_index_reader_enter(&r->kv->index, &r->reader);
	found = wfi_index_match(&r->kv->index, &r->salt, keys, nr, slots);
	wfi_index_reader_leave(&r->reader);
	return (int)found;
}

int wfi_kv_reader_lookup(struct wfi_kv_reader *r, const struct weft_key *keys, uint32_t nr,
			 uint32_t *slots)
{
	uint32_t found;

	wfi_index_reader_enter(&r->kv->index, &r->reader);
	found = wfi_index_lookup(&r->kv->index, &r->salt, keys, nr, slots);
	wfi_index_reader_leave(&r->reader);
	return (int)found;
}
