/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict_class.h - what a policy that learns knows of a block: a code, and the class it is of
 *
 * A code of seven bits says what a block is: the last of its chain, new (by the number of blocks
 * that are new with it), or used again so often. Its lowest two bits are the block's depth, and
 * stay as they are when it is used. Blocks of one class are believed to fare alike.
 *
 * Context: none; tables that nobody changes.
 */
#ifndef WFI_EVICT_CLASS_H
#define WFI_EVICT_CLASS_H

#include <stdint.h>
#include "kvcache/evict_curve.h"

#define WFI_CLASS_DEPTHS 4u /* to 3, 15, 63, and below */
#define WFI_CLASS_LENGTHS 7u /* 1, to 3, 7, 15, 31, 63, and more */
#define WFI_CLASS_TOUCHES 4u /* so many uses, or more */

#define WFI_KIND_TAIL 0u /* the last block of its chain */
#define WFI_KIND_FRESH 1u /* by the number of new blocks */
#define WFI_KIND_CONTINUED (WFI_KIND_FRESH + WFI_CLASS_LENGTHS)
#define WFI_NR_KINDS (WFI_KIND_CONTINUED + WFI_CLASS_LENGTHS)

#define WFI_CODE_MASK 0x7fu
#define WFI_CODE_DEPTH_MASK (WFI_CLASS_DEPTHS - 1)
#define WFI_CODE_TOUCHED (WFI_NR_KINDS * WFI_CLASS_DEPTHS)
#define WFI_NR_CODES (WFI_CODE_TOUCHED + WFI_CLASS_TOUCHES * WFI_CLASS_DEPTHS)
#define WFI_NR_CLASSES (WFI_NR_KINDS + WFI_CLASS_TOUCHES * WFI_CLASS_DEPTHS)

/* classes of which little is known are believed to be like their kin */
enum wfi_class_kin {
	WFI_KIN_TAIL,
	WFI_KIN_FRESH,
	WFI_KIN_CONTINUED,
	WFI_KIN_PROMPT, /* near the root, and used again and again: by many */
	WFI_KIN_TOUCHED, /* by the number of uses */
	WFI_NR_KIN = WFI_KIN_TOUCHED + WFI_CLASS_TOUCHES,
};

struct wfi_code {
	uint8_t cls;
	uint8_t again; /* the code after another use */
	uint8_t again_cls;
	uint8_t hole; /* four bytes are found by a shift */
};

static inline unsigned wfi_class_log(uint32_t v)
{
	return 31 - (unsigned)__builtin_clz(v | 1);
}

static inline unsigned wfi_class_depth(uint32_t depth)
{
	const unsigned log = wfi_class_log(depth) / 2;

	return log < WFI_CLASS_DEPTHS ? log : WFI_CLASS_DEPTHS - 1;
}

/* Return: the first depth of the class below @depth's; UINT32_MAX: there is none */
static inline uint32_t wfi_class_below(uint32_t depth)
{
	const unsigned class = wfi_class_depth(depth);

	return class + 1 < WFI_CLASS_DEPTHS ? 4u << 2 * class : UINT32_MAX;
}

static inline unsigned wfi_class_length(uint32_t len)
{
	const unsigned log = wfi_class_log(len);

	return log < WFI_CLASS_LENGTHS ? log : WFI_CLASS_LENGTHS - 1;
}

/* the code of a block that was @code and is used, or published, again */
unsigned wfi_code_again(unsigned code);
void wfi_codes_fill(struct wfi_code codes[WFI_NR_CODES]);
struct wfi_curve_prior wfi_class_prior(unsigned cls);

#endif
