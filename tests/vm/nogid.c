/* SPDX-License-Identifier: Apache-2.0 */
/* nogid.c - preloaded: what a device has of RoCE v2 GIDs is of version 1, as older NICs have it */
#include <dlfcn.h>
#include <infiniband/verbs.h>

/* what ibv_query_gid_table() calls */
__attribute__((visibility("default"))) ssize_t _ibv_query_gid_table(struct ibv_context *ctx,
								    struct ibv_gid_entry *entries,
								    size_t max, uint32_t flags,
								    size_t entry_size)
{
	ssize_t (*real)(struct ibv_context * ctx, struct ibv_gid_entry * entries, size_t max,
			uint32_t flags, size_t entry_size);
	ssize_t i, nr;

	*(void **)&real = dlsym(RTLD_NEXT, "_ibv_query_gid_table");
	nr = real(ctx, entries, max, flags, entry_size);
	for (i = 0; i < nr; i++)
		if (entries[i].gid_type == IBV_GID_TYPE_ROCE_V2)
			entries[i].gid_type = IBV_GID_TYPE_ROCE_V1;
	return nr;
}
