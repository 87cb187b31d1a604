/* SPDX-License-Identifier: Apache-2.0 */
/* tls_none.c - built without OpenSSL */
#include <errno.h>
#include <stdio.h>

#include "tls.h"

int tls_create(const struct tls_opts *opts, struct secure **out, char why[SECURE_WHY])
{
	(void)opts;
	(void)out;
	snprintf(why, SECURE_WHY,
		 "this weftd was built without TLS: install libssl-dev and build it with "
		 "-Dtls=enabled");
	return -EOPNOTSUPP;
}

void tls_destroy(struct secure *s)
{
	(void)s;
}
