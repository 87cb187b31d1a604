/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs.h"

const struct weft_transport wfi_transport_verbs = {
	.size = sizeof(struct weft_transport),
	.name = "verbs",
	.probe = wfi_verbs_probe,
	.device_open = wfi_verbs_device_open,
	.device_close = wfi_verbs_device_close,
	.mr_reg = wfi_verbs_mr_reg,
	.mr_dereg = wfi_verbs_mr_dereg,
	.mr_export = wfi_verbs_mr_export,
	.mr_revoke = wfi_verbs_mr_revoke,
	.rkey_import = wfi_verbs_rkey_import,
	.rkey_destroy = wfi_verbs_rkey_destroy,
	.cq_create = wfi_verbs_cq_create,
	.cq_destroy = wfi_verbs_cq_destroy,
	.cq_arm = wfi_verbs_cq_arm,
	.cq_disarm = wfi_verbs_cq_disarm,
	.ep_create = wfi_verbs_ep_create,
	.ep_addr = wfi_verbs_ep_addr,
	.ep_connect = wfi_verbs_ep_connect,
	.ep_shutdown = wfi_verbs_ep_shutdown,
	.ep_destroy = wfi_verbs_ep_destroy,
};
