/* SPDX-License-Identifier: Apache-2.0 */
/* cm.h - what travels in librdmacm's private data, and what the rest of the provider asks of it */
#ifndef WFI_TRANSPORT_VERBS_CM_H
#define WFI_TRANSPORT_VERBS_CM_H

#include <rdma/rdma_cma.h>
#include "transport/verbs/verbs.h"

#define WFI_VERBS_HELLO_MAGIC 0x31485657u /* "WVH1" */

enum wfi_verbs_hello_kind {
	WFI_VERBS_HELLO_ASK = 1,
	WFI_VERBS_HELLO_ANSWER = 2,
	WFI_VERBS_HELLO_NO = 3,
};

/* all that fits: 56 bytes; numbers and addresses of queue pairs are the connection manager's part.
 * Little-endian */
struct wfi_verbs_hello {
	uint32_t magic;
	uint8_t version;
	uint8_t kind;
	uint8_t credits_log2;
	union {
		uint8_t reserved; /* on the wire: 0 */
		uint8_t reads; /* after it was read: that the peer answers at once */
	};
	uint64_t incarnation;
	uint64_t nonce; /* random; an answer repeats it */
	uint64_t credit_addr;
	uint32_t credit_rkey;
	uint32_t check; /* over the hello, with 0 in this place */
	uint8_t ticket[WEFT_TICKET_LEN];
};

struct wfi_verbs_refusal {
	uint32_t magic;
	uint8_t version;
	uint8_t kind;
	uint8_t reason;
	uint8_t reserved;
};

_Static_assert(sizeof(struct wfi_verbs_hello) == 56, "wire");
_Static_assert(sizeof(struct wfi_verbs_refusal) == 8, "wire");

#endif
