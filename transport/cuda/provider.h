/* SPDX-License-Identifier: Apache-2.0 */
/* provider.h - the provider's table */
#ifndef WFI_TRANSPORT_CUDA_PROVIDER_H
#define WFI_TRANSPORT_CUDA_PROVIDER_H

#include "weft/transport.h"

extern const struct weft_transport wfi_transport_cuda;

#endif
