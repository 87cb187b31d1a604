/* SPDX-License-Identifier: Apache-2.0 */
/* rnd.h - numbers that look random and are the same in each run */
#ifndef TEST_RND_H
#define TEST_RND_H

#include <stdint.h>

/* xorshift64 */
static inline uint64_t rnd(void)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

#endif
