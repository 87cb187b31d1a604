/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WFI_TRANSPORT_TCP_PROVIDER_H
#define WFI_TRANSPORT_TCP_PROVIDER_H

#include "weft/transport.h"

/* hosts with nothing but a kernel's NIC */
extern const struct weft_transport wfi_transport_tcp;

#endif
