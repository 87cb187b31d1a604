/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fatal.c - preloaded: libibverbs says once that the device is broken, when the file that
 * WEFT_FATAL names is there, which it removes
 */
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((visibility("default"))) int ibv_get_async_event(struct ibv_context *ctx,
							       struct ibv_async_event *event)
{
	static int (*real)(struct ibv_context * ctx, struct ibv_async_event * event);
	const char *file = getenv("WEFT_FATAL");

	if (file && !unlink(file)) {
		event->event_type = IBV_EVENT_DEVICE_FATAL;
		return 0;
	}
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ibv_get_async_event");
	return real(ctx, event);
}
