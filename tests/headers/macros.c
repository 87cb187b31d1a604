/* SPDX-License-Identifier: Apache-2.0 */
/* Expands every public macro, as C and as C++: one that nobody ever expanded may not even parse. */
#include "weft/kv.h"
#include "weft/ring.h"
#include "weft/transport.h"
#include "weft/weft.h"

WEFT_STATIC_ASSERT(WEFT_REGION_ARENA == 0, "the arena is region 0");
WEFT_STATIC_ASSERT(WEFT_NAME_MAX > 1, "room for a name and its end");
WEFT_STATIC_ASSERT(WEFT_TOKEN_MAX > 1, "room for a token");
WEFT_STATIC_ASSERT(WEFT_RING_MAGIC != WEFT_CTL_MAGIC, "segments and messages differ");
WEFT_STATIC_ASSERT(WEFT_ABI_VERSION >= 1, "versions count from 1");
WEFT_STATIC_ASSERT((WEFT_RING_DEPTH_MAX & (WEFT_RING_DEPTH_MAX - 1)) == 0, "a power of two");
WEFT_STATIC_ASSERT(WEFT_ARG_BYTES_MAX % WEFT_ARG_ALIGN == 0, "arguments are aligned");
WEFT_STATIC_ASSERT(WEFT_CTL_REQ_MAX >= sizeof(struct weft_ctl_req), "room to grow");
WEFT_STATIC_ASSERT(WEFT_ROUTES_MAX <= 255, "libweft counts them in a byte");
WEFT_STATIC_ASSERT(WEFT_OP_BLOCKS_MAX <= WEFT_ARG_BYTES_MAX / sizeof(struct weft_key),
		   "the keys of the largest operation fit");
WEFT_STATIC_ASSERT(WEFT_RING_ENGINE_OFF < WEFT_RING_NODE_OFF, "one writer a cache line");
WEFT_STATIC_ASSERT(WEFT_RKEY_BLOB_MAX <= 255 && WEFT_EP_ADDR_MAX <= 65535, "their lengths fit");
WEFT_STATIC_ASSERT(WEFT_EP_FDS_MAX >= 1 && WEFT_WHY_MAX > 1, "room for one");
WEFT_STATIC_ASSERT(WEFT_TICKET_LEN >= 16 && WEFT_PORT_ADDR_MAX > 46, "no guess, any address");
WEFT_STATIC_ASSERT(WEFT_WHERE(WEFT_TIER_SSD, WEFT_WHERE_US_MAX) == 0xffffff03u &&
			   WEFT_WHERE_US(0x203u) == 2,
		   "tier and time");
WEFT_STATIC_ASSERT(WEFT_WHERE_TIER(0x103u) == WEFT_TIER_SSD && WEFT_WHERE_NODE(0x103u) == 1,
		   "two parts");
/* their sizes are libweft's soname: weft.h */
WEFT_STATIC_ASSERT(sizeof(void *) != 8 || sizeof(struct weft_op) == 160, "another soname");
WEFT_STATIC_ASSERT(sizeof(struct weft_completion) == 40, "another soname");
WEFT_STATIC_ASSERT(sizeof(struct weft_message) == 24, "another soname");
WEFT_STATIC_ASSERT(sizeof(struct weft_signal) == 16, "another soname");

WEFT_API WEFT_NONNULL(1) int weft_test_checked(const void *arg);
WEFT_API_VOID void weft_test_void(void);
