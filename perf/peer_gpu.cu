/* SPDX-License-Identifier: Apache-2.0 */
/* what kernels are measured beside: nothing, reading alone, and moving as many bytes */
#include <stdint.h>

extern "C" __global__ void peer_empty(void)
{
}

extern "C" __global__ void __launch_bounds__(1024)
peer_read(const uint4 *src, uint64_t nr, uint32_t *out)
{
	const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
	uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint32_t sum = 0;

	for (; i + 3 * step < nr; i += 4 * step) {
		const uint4 a = __ldcs(src + i), b = __ldcs(src + i + step);
		const uint4 c = __ldcs(src + i + 2 * step), d = __ldcs(src + i + 3 * step);

		sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w;
		sum ^= c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
	}
	for (; i < nr; i += step)
		sum ^= src[i].x ^ src[i].y ^ src[i].z ^ src[i].w;
	/* so that nothing is left out */
	if (sum == 0x12345678)
		*out = sum;
}

/* reads @nr words of 16 bytes and writes half as many, or the other way round */
extern "C" __global__ void __launch_bounds__(1024)
peer_halve(const uint4 *src, uint4 *dst, uint64_t nr)
{
	const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

	for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < nr / 2; i += step) {
		const uint4 a = __ldcs(src + i), b = __ldcs(src + nr / 2 + i);

		__stcs(dst + i, make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w));
	}
}

extern "C" __global__ void __launch_bounds__(1024)
peer_double(const uint4 *src, uint4 *dst, uint64_t nr)
{
	const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

	for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < nr / 2; i += step) {
		const uint4 a = __ldcs(src + i);

		__stcs(dst + i, a);
		__stcs(dst + nr / 2 + i, a);
	}
}
