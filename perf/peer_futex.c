/* SPDX-License-Identifier: Apache-2.0 */
/* peer_futex.c - two threads that wake each other with a bare futex, after idleness */
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "perf/peers.h"
#include "perf/perf.h"
#include "weft_internal/util.h"

struct bells {
	_Alignas(WFI_CACHELINE) _Atomic uint32_t there;
	_Alignas(WFI_CACHELINE) _Atomic uint32_t back;
	uint32_t nr;
};

static void ring_bell(_Atomic uint32_t *bell)
{
	atomic_fetch_add_explicit(bell, 1, memory_order_release);
	syscall(SYS_futex, bell, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_past(_Atomic uint32_t *bell, uint32_t seen)
{
	while (atomic_load_explicit(bell, memory_order_acquire) == seen)
		syscall(SYS_futex, bell, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void *partner(void *arg)
{
	struct bells *bells = arg;
	uint32_t i;

	for (i = 0; i < bells->nr; i++) {
		wait_past(&bells->there, i);
		ring_bell(&bells->back);
	}
	return NULL;
}

int wfi_peer_futex_round(void *ctx, double *ns)
{
	const struct wfi_peer_trips *trips = ctx;
	struct bells bells = { .nr = trips->nr };
	uint64_t sum_ns = 0, start_ns;
	pthread_t thread;
	uint32_t i;
	int ret;

	ret = wfi_perf_partner(&thread, partner, &bells);
	if (ret)
		return ret;
	for (i = 0; i < trips->nr; i++) {
		wfi_perf_sleep_ns(trips->idle_ns);
		start_ns = wfi_perf_now_ns();
		ring_bell(&bells.there);
		wait_past(&bells.back, i);
		sum_ns += wfi_perf_now_ns() - start_ns;
	}
	pthread_join(thread, NULL);
	*ns = (double)sum_ns / trips->nr;
	return 0;
}
