/* SPDX-License-Identifier: Apache-2.0 */
/* evict_policies.h - the tables that kvcache/evict.c lists; others go through wfi_evict_find() */
#ifndef WFI_EVICT_POLICIES_H
#define WFI_EVICT_POLICIES_H

#include "weft_internal/evict.h"

/* learns what blocks earn for their place; the default (docs/eviction.md) */
extern const struct wfi_evict_policy wfi_evict_gittins;
/* least recently used, the tail of a chain first */
extern const struct wfi_evict_policy wfi_evict_lru;
/* references (evict_lists.c) */
extern const struct wfi_evict_policy wfi_evict_s3fifo;
extern const struct wfi_evict_policy wfi_evict_arc;
extern const struct wfi_evict_policy wfi_evict_lfu;

#endif
