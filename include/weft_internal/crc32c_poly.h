/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32c_poly.h - arithmetic modulo the polynomial of CRC32C, for all that sums up by parts: on
 * CPUs and, compiled by nvcc, on GPUs
 */
#ifndef WFI_CRC32C_POLY_H
#define WFI_CRC32C_POLY_H

#include <stdint.h>

#define WFI_CRC32C_POLY 0x82f63b78u /* Castagnoli, reflected */

#ifdef __CUDACC__
#define WFI_POLY_FN static inline __host__ __device__
#else
#define WFI_POLY_FN static inline
#endif

/* Hot. Product; bit 31 is the coefficient of x^0 */
WFI_POLY_FN uint32_t wfi_crc32c_mul(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (unsigned bit = 0; bit < 32; bit++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		b = b >> 1 ^ (WFI_CRC32C_POLY & -(b & 1));
	}
	return product;
}

/* x^(8 * len): wfi_crc32c_mul(crc, wfi_crc32c_power(len)) moves crc past @len bytes */
WFI_POLY_FN uint32_t wfi_crc32c_power(uint64_t len)
{
	uint32_t square = 1u << 23; /* x^8 */
	uint32_t power = 1u << 31; /* 1 */

	for (; len; len >>= 1) {
		if (len & 1)
			power = wfi_crc32c_mul(power, square);
		square = wfi_crc32c_mul(square, square);
	}
	return power;
}

#undef WFI_POLY_FN

#endif
