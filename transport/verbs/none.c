/* SPDX-License-Identifier: Apache-2.0 */
/* the RDMA provider of a build without libibverbs and librdmacm */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "transport/none.h"
#include "transport/verbs/provider.h"

static int none_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	snprintf(out->why, sizeof(out->why),
		 "built without RDMA: install libibverbs-dev and librdmacm-dev, build anew");
	return -EOPNOTSUPP;
}

const struct weft_transport wfi_transport_verbs = {
	.size = sizeof(struct weft_transport),
	.name = "verbs",
	.probe = none_probe,
	WFI_NONE_OPS,
};
