/* SPDX-License-Identifier: Apache-2.0 */
/**
 * spin.h - whether to spin before a sleep
 *
 * A spin spares who comes soon a wake-up. What did not come during the last few spins takes longer
 * than these, or waits for the very core that they keep: then one in many is tried, and the others
 * sleep at once.
 */
#ifndef WFI_SPIN_H
#define WFI_SPIN_H

#include <stdbool.h>
#include <stdint.h>

#define WFI_SPINS_VAIN 4u
#define WFI_SPIN_TRY 32u

/* zeros are one that has not been used */
struct wfi_spin {
	uint32_t vain; /* in a row */
	uint32_t skipped; /* since the last one */
};

/* Return: whether to spin now; then wfi_spin_end() is to follow */
static inline bool wfi_spin_begin(struct wfi_spin *s)
{
	if (s->vain < WFI_SPINS_VAIN || ++s->skipped == WFI_SPIN_TRY) {
		s->skipped = 0;
		return true;
	}
	return false;
}

static inline void wfi_spin_end(struct wfi_spin *s, bool came)
{
	if (came)
		s->vain = 0;
	else if (s->vain < WFI_SPINS_VAIN)
		s->vain++;
}

#endif
