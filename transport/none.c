/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "transport/none.h"

int wfi_none_device_open(const struct weft_transport *t, struct wfi_env *env,
			 const struct weft_device_opts *opts, struct weft_device **out)
{
	(void)t;
	(void)env;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_none_device_close(struct weft_device *dev)
{
	(void)dev;
}

int wfi_none_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_none_mr_dereg(struct weft_mr *mr)
{
	(void)mr;
}

int wfi_none_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
		       struct weft_export *out)
{
	(void)mr;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

int wfi_none_mr_revoke(struct weft_mr *mr, uint64_t id)
{
	(void)mr;
	(void)id;
	return -EOPNOTSUPP;
}

int wfi_none_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			 struct weft_rkey **out)
{
	(void)ep;
	(void)src;
	(void)out;
	return -EOPNOTSUPP;
}

void *wfi_none_rkey_ptr(const struct weft_rkey *rkey)
{
	(void)rkey;
	return NULL;
}

void wfi_none_rkey_destroy(struct weft_rkey *rkey)
{
	(void)rkey;
}

int wfi_none_cq_create(struct weft_device *dev, const struct weft_cq_opts *opts,
		       struct weft_cq **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

void wfi_none_cq_destroy(struct weft_cq *cq)
{
	(void)cq;
}

int wfi_none_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max)
{
	(void)cq;
	(void)waits;
	(void)max;
	return -EOPNOTSUPP;
}

void wfi_none_cq_disarm(struct weft_cq *cq)
{
	(void)cq;
}

int wfi_none_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		       struct weft_ep **out)
{
	(void)dev;
	(void)opts;
	(void)out;
	return -EOPNOTSUPP;
}

int wfi_none_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out)
{
	(void)ep;
	(void)out;
	return -EOPNOTSUPP;
}

int wfi_none_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer)
{
	(void)ep;
	(void)peer;
	return -EOPNOTSUPP;
}

void wfi_none_ep_shutdown(struct weft_ep *ep)
{
	(void)ep;
}

void wfi_none_ep_destroy(struct weft_ep *ep)
{
	(void)ep;
}
