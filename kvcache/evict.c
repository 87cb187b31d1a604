/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <string.h>
#include "kvcache/evict_policies.h"

const struct wfi_evict_policy *const wfi_evict_policies[] = {
	&wfi_evict_gittins, &wfi_evict_lru, &wfi_evict_s3fifo, &wfi_evict_arc, &wfi_evict_lfu, NULL,
};

const struct wfi_evict_policy *wfi_evict_find(const char *name)
{
	for (unsigned i = 0; wfi_evict_policies[i]; i++) {
		if (!strcmp(wfi_evict_policies[i]->name, name))
			return wfi_evict_policies[i];
	}
	return NULL;
}
