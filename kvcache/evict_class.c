/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "kvcache/evict_class.h"

#define CHAINS 64.0f /* worth of belief in a prior */
#define AGES 4096.0f /* uses' worth of belief in the ages of kin */

static_assert(WFI_NR_CODES <= WFI_CODE_MASK, "seven bits");

/* depth matters to what was used: what lies deep is one session's, shared prompts are not */
static unsigned class_of(unsigned code)
{
	return code < WFI_CODE_TOUCHED ? code / WFI_CLASS_DEPTHS
				       : code - WFI_CODE_TOUCHED + WFI_NR_KINDS;
}

unsigned wfi_code_again(unsigned code)
{
	unsigned touches = 0;

	if (code >= WFI_CODE_TOUCHED)
		touches = (code - WFI_CODE_TOUCHED) / WFI_CLASS_DEPTHS + 1;
	if (touches == WFI_CLASS_TOUCHES)
		touches--;
	return WFI_CODE_TOUCHED + touches * WFI_CLASS_DEPTHS + code % WFI_CLASS_DEPTHS;
}

void wfi_codes_fill(struct wfi_code codes[WFI_NR_CODES])
{
	for (unsigned code = 0; code < WFI_NR_CODES; code++) {
		const unsigned again = wfi_code_again(code);

		codes[code] = (struct wfi_code){
			.cls = (uint8_t)class_of(code),
			.again = (uint8_t)again,
			.again_cls = (uint8_t)class_of(again),
		};
	}
}

static unsigned class_kin(unsigned cls)
{
	const unsigned touched = cls - WFI_NR_KINDS;

	if (cls == WFI_KIND_TAIL)
		return WFI_KIN_TAIL;
	if (cls < WFI_KIND_CONTINUED)
		return WFI_KIN_FRESH;
	if (cls < WFI_NR_KINDS)
		return WFI_KIN_CONTINUED;
	if (touched == (WFI_CLASS_TOUCHES - 1) * WFI_CLASS_DEPTHS)
		return WFI_KIN_PROMPT;
	return WFI_KIN_TOUCHED + touched / WFI_CLASS_DEPTHS;
}

/* blocks of a chain fare alike: so many are in the class together, and tell no more than one */
static float class_together(unsigned cls)
{
	static const float new[WFI_CLASS_LENGTHS] = { 1, 2.5f, 5, 11, 22, 45, 90 };
	static const float touched[WFI_CLASS_DEPTHS] = { 4, 12, 40, 80 };

	if (cls == WFI_KIND_TAIL)
		return 1;
	if (cls < WFI_NR_KINDS)
		return new[(cls - WFI_KIND_FRESH) % WFI_CLASS_LENGTHS];
	return touched[(cls - WFI_NR_KINDS) % WFI_CLASS_DEPTHS];
}

/*
 * Long first turns come back less often than short ones; a short addition to a chain that was held
 * is somebody's next turn, a long one a stranger under a shared prompt; what was used often is used
 * again; the last block of a chain is seldom full, and then never used again.
 */
static float class_chance(unsigned cls)
{
	static const float continued[] = { .45f, .45f, .3f, .15f, .07f, .07f, .07f };

	if (cls == WFI_KIND_TAIL)
		return .03f;
	if (cls < WFI_KIND_CONTINUED)
		return .38f - .04f * (float)(cls - WFI_KIND_FRESH);
	if (cls < WFI_NR_KINDS)
		return continued[cls - WFI_KIND_CONTINUED];
	return 1 - 1.1f / (float)(2 + (cls - WFI_NR_KINDS) / WFI_CLASS_DEPTHS);
}

struct wfi_curve_prior wfi_class_prior(unsigned cls)
{
	const unsigned kin = class_kin(cls);

	return (struct wfi_curve_prior){
		.chance = class_chance(cls),
		.weight = CHAINS * class_together(cls),
		/* these have no kin but themselves */
		.ages = kin == WFI_KIN_TAIL || kin == WFI_KIN_PROMPT ? 0 : AGES,
		.kin = kin,
	};
}
