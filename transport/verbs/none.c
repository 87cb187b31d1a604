/* SPDX-License-Identifier: Apache-2.0 */
/* the RDMA provider of a build without libibverbs and librdmacm */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "transport/core.h"
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

static int none_device_open(const struct weft_transport *t, struct wfi_env *env,
			    const struct weft_device_opts *opts, struct weft_device **out)
{
	(void)t;
	(void)env;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

static void none_device_close(struct weft_device *dev)
{
	(void)dev;
}

static int none_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts,
		       struct weft_mr **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

static void none_mr_dereg(struct weft_mr *mr)
{
	(void)mr;
}

static int none_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
			  struct weft_export *out)
{
	(void)mr;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

static int none_mr_revoke(struct weft_mr *mr, uint64_t id)
{
	(void)mr;
	(void)id;
	return -EOPNOTSUPP;
}

static int none_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			    struct weft_rkey **out)
{
	(void)ep;
	(void)src;
	(void)out;
	return -EOPNOTSUPP;
}

static void *none_rkey_ptr(const struct weft_rkey *rkey)
{
	(void)rkey;
	return NULL;
}

static void none_rkey_destroy(struct weft_rkey *rkey)
{
	(void)rkey;
}

static int none_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
			  struct weft_cq **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

static void none_cq_destroy(struct weft_cq *cq)
{
	(void)cq;
}

static int none_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max)
{
	(void)cq;
	(void)waits;
	(void)max;
	return -EOPNOTSUPP;
}

static void none_cq_disarm(struct weft_cq *cq)
{
	(void)cq;
}

static int none_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
			  struct weft_ep **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

static int none_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out)
{
	(void)ep;
	(void)out;
	return -EOPNOTSUPP;
}

static int none_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer)
{
	(void)ep;
	(void)peer;
	return -EOPNOTSUPP;
}

static void none_ep_shutdown(struct weft_ep *ep)
{
	(void)ep;
}

static void none_ep_destroy(struct weft_ep *ep)
{
	(void)ep;
}

const struct weft_transport wfi_transport_verbs = {
	.size = sizeof(struct weft_transport),
	.name = "verbs",
	.probe = none_probe,
	.device_open = none_device_open,
	.device_close = none_device_close,
	.mr_reg = none_mr_reg,
	.mr_dereg = none_mr_dereg,
	.mr_export = none_mr_export,
	.mr_revoke = none_mr_revoke,
	.rkey_import = none_rkey_import,
	.rkey_destroy = none_rkey_destroy,
	.rkey_ptr = none_rkey_ptr,
	.cq_create = none_cq_create,
	.cq_destroy = none_cq_destroy,
	.cq_arm = none_cq_arm,
	.cq_disarm = none_cq_disarm,
	.ep_create = none_ep_create,
	.ep_addr = none_ep_addr,
	.ep_connect = none_ep_connect,
	.ep_shutdown = none_ep_shutdown,
	.ep_destroy = none_ep_destroy,
	.port_open = wfi_no_port_open,
	.port_close = wfi_no_port_close,
	.port_addr = wfi_no_port_addr,
	.port_poll = wfi_no_port_poll,
	.port_accept = wfi_no_port_accept,
	.port_refuse = wfi_no_port_refuse,
	.ep_dial = wfi_no_ep_dial,
};
