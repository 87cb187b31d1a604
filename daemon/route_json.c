/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "daemon/route_json.h"

const char *route_state(const struct weft_route *w)
{
	if (w->flags & WEFT_ROUTE_DEAD)
		return "dead";
	if (w->flags & WEFT_ROUTE_DRAINING)
		return "draining";
	return w->flags & WEFT_ROUTE_SELF ? "this node" : "up";
}

json_t *route_json(const struct weft_route *w, const char *name)
{
	char id[24];

	snprintf(id, sizeof(id), "%#" PRIx64, w->node);
	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:I,s:I,s:I}", "node", name,
			 "id", id, "state", route_state(w), "memory", (json_int_t)w->nr_memory,
			 "ssd", (json_int_t)w->nr_ssd, "fetch", (json_int_t)w->nr_fetch, "ssd_us",
			 (json_int_t)w->ssd_us, "fetch_us", (json_int_t)w->fetch_us, "bytes_per_s",
			 (json_int_t)w->bytes_per_s, "load", w->load / 1000.0, "open_ops",
			 (json_int_t)w->nr_ops, "cost_us", (json_int_t)w->cost_us, "rtt_us",
			 (json_int_t)w->rtt_us);
}
