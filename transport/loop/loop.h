/* SPDX-License-Identifier: Apache-2.0 */
/* loop.h - the loop provider's one symbol, for transport/registry.c */
#ifndef WFI_TRANSPORT_LOOP_H
#define WFI_TRANSPORT_LOOP_H

#include "weft/transport.h"

extern const struct weft_transport wfi_transport_loop;

#endif
