/* SPDX-License-Identifier: Apache-2.0 */
/* http_route.h - one question of /route on its way through the worker */
#ifndef WEFTD_HTTP_ROUTE_H
#define WEFTD_HTTP_ROUTE_H

#include "http_query.h"
#include "node.h"

struct http_route;

/* Context: control thread, all of these. Return: NULL: no memory */
struct http_route *http_route_create(struct node *node);
/* it has not begun, or is over. Takes NULL */
void http_route_destroy(struct http_route *r);
/* to be filled in before it begins */
struct http_query *http_route_query(struct http_route *r);
/*
 * The worker pokes when it is over. Return: 0; -ENOENT the tenant has no such space; -EINVAL;
 * -ENOMEM; with a sentence in @why
 */
int http_route_begin(struct http_route *r, const struct wfi_tenant *tenant, char why[HTTP_WHY]);
bool http_route_over(const struct http_route *r);
/* over on return */
void http_route_cancel(struct http_route *r);
/* what came of one that is over. Return: NULL: no memory */
struct json_t *http_route_json(struct http_route *r);

#endif
