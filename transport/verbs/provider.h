/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WFI_TRANSPORT_VERBS_PROVIDER_H
#define WFI_TRANSPORT_VERBS_PROVIDER_H

#include "weft/transport.h"

/* RDMA NICs through libibverbs; built without it, a table that says so when it is probed */
extern const struct weft_transport wfi_transport_verbs;

#endif
