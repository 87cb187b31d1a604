/* SPDX-License-Identifier: Apache-2.0 */
/* http_none.c - built without libmicrohttpd */
#include <errno.h>

#include "http.h"
#include "weft_internal/log.h"

int http_create(const struct http_opts *opts, struct http **out)
{
	(void)out;
	wfi_err("http_listen is %s and this weftd was built without HTTP: install "
		"libmicrohttpd-dev and build it with -Dhttp=enabled",
		opts->listen);
	return -EOPNOTSUPP;
}

void http_destroy(struct http *h)
{
	(void)h;
}

const struct control_guest *http_guest(const struct http *h)
{
	(void)h;
	return NULL;
}
