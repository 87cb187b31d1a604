/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WFI_TRANSPORT_UCX_PROVIDER_H
#define WFI_TRANSPORT_UCX_PROVIDER_H

#include "weft/transport.h"

/* whatever UCX reaches, through UCP; built without it, a table that says so when it is probed */
extern const struct weft_transport wfi_transport_ucx;

#endif
