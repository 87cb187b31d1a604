/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "transport/cuda/provider.h"
#include "transport/loop/loop.h"
#include "transport/shm/shm.h"
#include "transport/tcp/provider.h"
#include "transport/ucx/provider.h"
#include "transport/verbs/provider.h"
#include "weft_internal/transport_registry.h"

const struct weft_transport *const wfi_transports[] = {
	&wfi_transport_shm,
	&wfi_transport_verbs,
	&wfi_transport_ucx,
	&wfi_transport_tcp,
	&wfi_transport_cuda,
	&wfi_transport_loop,
	NULL,
};

const struct weft_transport *wfi_transport_find(const struct weft_transport *const *list,
						const char *name)
{
	if (!list)
		list = wfi_transports;
	for (; *list; list++)
		if (!strcmp((*list)->name, name))
			return *list;
	return NULL;
}
