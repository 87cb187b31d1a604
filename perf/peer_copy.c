/* SPDX-License-Identifier: Apache-2.0 */
/* peer_copy.c - the same pieces, moved by glibc, by the kernel, and by the best loop there is */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define VM_PIECES 512u /* of one call */

_Static_assert(VM_PIECES <= IOV_MAX, "one call takes them");

static void copy_glibc(void *dst, const void *src, uint64_t len)
{
	memcpy(dst, src, len);
}

static double time_us(const struct wfi_peer_copy *c,
		      void (*copy)(void *dst, const void *src, uint64_t len), uint32_t nr_repeats)
{
	uint64_t start_ns = wfi_perf_now_ns();
	uint32_t r, i;

	for (r = 0; r < nr_repeats; r++)
		for (i = 0; i < c->nr; i++)
			copy(c->dst[i], c->src[i], c->len);
	return (double)(wfi_perf_now_ns() - start_ns) / 1e3 / nr_repeats;
}

int wfi_peer_memcpy_us(void *ctx, double *us)
{
	const struct wfi_peer_copy *c = ctx;

	*us = time_us(c, copy_glibc, c->nr_repeats);
	return 0;
}

static double rate_of(const struct wfi_peer_copy *c, double us)
{
	return (double)c->nr * (double)c->len / us / 1e3;
}

int wfi_peer_memcpy_rate(void *ctx, double *rate)
{
	const struct wfi_peer_copy *c = ctx;

	*rate = rate_of(c, time_us(c, copy_glibc, c->nr_repeats));
	return 0;
}

int wfi_peer_best_copy_rate(void *ctx, double *rate)
{
	const struct wfi_peer_copy *c = ctx;

	*rate = rate_of(c, time_us(c, c->best, c->nr_repeats));
	return 0;
}

void wfi_peer_best_copy_find(struct wfi_peer_copy *copy)
{
	const struct wfi_peer_copy_loop *loop;
	double best_us = time_us(copy, copy_glibc, 2), us;
	unsigned turn;

	copy->best = copy_glibc;
	for (turn = 0; turn < 3; turn++) {
		for (loop = wfi_peer_copy_loops(); loop->name; loop++) {
			us = time_us(copy, loop->copy, 1);
			if (us < best_us) {
				best_us = us;
				copy->best = loop->copy;
			}
		}
	}
}

/* Return: pieces written, -errno */
static int vm_write(const struct wfi_peer_copy *c, uint32_t first, uint32_t nr)
{
	struct iovec local[VM_PIECES], remote[VM_PIECES];
	ssize_t len;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		local[i] = (struct iovec){ (void *)c->src[first + i], c->len };
		remote[i] = (struct iovec){ c->dst[first + i], c->len };
	}
	len = process_vm_writev(c->pid, local, nr, remote, nr, 0);
	if (len < 0)
		return -errno;
	return (uint64_t)len == nr * c->len ? 0 : -EIO;
}

int wfi_peer_vm_writev_us(void *ctx, double *us)
{
	const struct wfi_peer_copy *c = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	uint32_t r, i, nr;
	int ret;

	for (r = 0; r < c->nr_repeats; r++) {
		for (i = 0; i < c->nr; i += nr) {
			nr = c->nr - i < VM_PIECES ? c->nr - i : VM_PIECES;
			ret = vm_write(c, i, nr);
			if (ret)
				return ret;
		}
	}
	*us = (double)(wfi_perf_now_ns() - start_ns) / 1e3 / c->nr_repeats;
	return 0;
}
