/* SPDX-License-Identifier: Apache-2.0 */
/* route_json.h - a route as JSON, the same for weft route and over HTTP */
#ifndef WEFTD_ROUTE_JSON_H
#define WEFTD_ROUTE_JSON_H

#include "weft/ring.h"

struct json_t;

/* "up", "this node", "draining", "dead" */
const char *route_state(const struct weft_route *w);
/* @name: of the node, "" when it is not known. Return: an object; NULL: no memory */
struct json_t *route_json(const struct weft_route *w, const char *name);

#endif
