/* SPDX-License-Identifier: Apache-2.0 */
/* the RDMA devices that a node with these settings would open, opened as it opens them */
#include <errno.h>
#include <string.h>
#include "cli/doctor.h"
#include "daemon/config.h"
#include "daemon/value.h"
#include "weft_internal/log.h"
#include "weft_internal/memlock.h"
#include "weft_internal/transport_registry.h"

/* the first reason that the provider gives is the one */
static void hear(void *ctx, enum wfi_log_level level, const char *line)
{
	struct wfi_finding *f = ctx;

	if (level == WFI_LOG_ERR && !f->what[0])
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "%s", line);
}

static uint64_t arenas_bytes(const struct wfi_config *cfg)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < cfg->nr_tenants; i++)
		sum += cfg->tenants[i].arena_bytes;
	return sum;
}

/* @nr: devices up to this one, each of which pins all arenas */
static void look(const struct weft_transport *t, struct wfi_env *env, const char *name, unsigned nr,
		 const struct wfi_config *cfg, struct wfi_finding *f)
{
	const struct weft_device_opts opts = { .size = sizeof(opts), .name = name };
	const uint64_t need = nr * arenas_bytes(cfg), limit = wfi_memlock_limit();
	struct weft_device *dev = NULL;
	char text[WFI_TEXT];
	int ret;

	wfi_log_set_sink(hear, f);
	ret = t->device_open(t, env, &opts, &dev);
	t->device_close(dev);
	wfi_log_set_sink(NULL, NULL);
	if (ret && f->what[0])
		return;
	memset(f, 0, sizeof(*f));
	if (ret) {
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "does not open: %s", strerror(-ret));
	} else if (need > limit) {
		f->health = WFI_HEALTH_FAIL;
		wfi_memlock_says(need, limit, f->what, sizeof(f->what));
		snprintf(f->todo, sizeof(f->todo),
			 "that, or less arena_bytes; the limit is this shell's, the node's may be "
			 "another");
	} else {
		wfi_found(f, WFI_HEALTH_OK, NULL, "opens, and the arenas (%s) may be pinned",
			  wfi_text_bytes((double)arenas_bytes(cfg), text));
	}
}

static const struct weft_transport *rdma_of(const struct wfi_config *cfg, struct wfi_env *env)
{
	const struct weft_transport *t = wfi_transport_find(NULL, "verbs");
	struct weft_probe probe;

	if (t && !strcmp(cfg->transport, "auto") && t->probe(t, env, &probe))
		return NULL;
	return !strcmp(cfg->transport, "verbs") || !strcmp(cfg->transport, "auto") ? t : NULL;
}

void wfi_check_devices(const struct wfi_config *cfg, struct wfi_env *env,
		       void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		       void *ctx)
{
	const struct weft_transport *t = rdma_of(cfg, env);
	const char *names[WFI_CONFIG_RAILS] = { NULL };
	char text[sizeof(cfg->device)], title[80];
	unsigned nr, i;

	memcpy(text, cfg->device, sizeof(text));
	nr = wfi_value_split(text, names, WFI_CONFIG_RAILS);
	for (i = 0; t && i < (nr ? nr : 1); i++) {
		struct wfi_finding f = { .todo = "" };

		look(t, env, names[i], i + 1, cfg, &f);
		snprintf(title, sizeof(title), "device%s%s", names[i] ? " " : "",
			 names[i] ? names[i] : "");
		found(ctx, title, &f);
	}
}
