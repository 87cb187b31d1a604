/* SPDX-License-Identifier: Apache-2.0 */
/* guard.c - what becomes of a shared mapping whose pages are gone */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define NR_GUARDED 16384u

/* read by the handler, in any thread: @len is set last and cleared first */
struct guarded {
	uintptr_t from; /* 0: free */
	size_t len;
	bool hit;
};

static struct guarded table[NR_GUARDED];
static uint32_t nr_used; /* never less than the highest place in use */
static bool installed;
uint32_t wfi_guard_hits_;

static struct guarded *find(uintptr_t addr)
{
	const uint32_t nr = __atomic_load_n(&nr_used, __ATOMIC_ACQUIRE);
	uint32_t i;

	for (i = 0; i < nr; i++) {
		/* pairs with the release in wfi_guard_add(): with its length it has its start */
		const size_t len = __atomic_load_n(&table[i].len, __ATOMIC_ACQUIRE);
		const uintptr_t from = __atomic_load_n(&table[i].from, __ATOMIC_RELAXED);

		if (len && addr - from < len)
			return &table[i];
	}
	return NULL;
}

/* only what may be called in a signal handler. Faults of several threads in one mapping meet here:
 * each maps zeros, and they count one hit */
static void mend(int sig, siginfo_t *info, void *context)
{
	struct guarded *g = info->si_code > 0 ? find((uintptr_t)info->si_addr) : NULL;
	const int err = errno;

	(void)context;
	if (!g ||
	    mmap((void *)g->from, g->len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
		/* it comes again as soon as we return, and ends the process */
		signal(sig, SIG_DFL);
		return;
	}
	if (!__atomic_exchange_n(&g->hit, true, __ATOMIC_RELAXED))
		__atomic_fetch_add(&wfi_guard_hits_, 1, __ATOMIC_RELAXED);
	errno = err;
}

int wfi_guard_install(void)
{
	struct sigaction act = { .sa_sigaction = mend, .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&act.sa_mask);
	if (sigaction(SIGBUS, &act, NULL))
		return -errno;
	installed = true;
	return 0;
}

int wfi_guard_add(void *addr, size_t len)
{
	uintptr_t none;
	uint32_t i, nr;

	if (!installed)
		return 0;
	for (i = 0; i < NR_GUARDED; i++) {
		none = 0;
		if (__atomic_compare_exchange_n(&table[i].from, &none, (uintptr_t)addr, false,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			break;
	}
	if (i == NR_GUARDED) {
		wfi_err("more than %u shared mappings: register fewer, larger regions", NR_GUARDED);
		return -ENOSPC;
	}
	nr = __atomic_load_n(&nr_used, __ATOMIC_RELAXED);
	while (nr <= i && !__atomic_compare_exchange_n(&nr_used, &nr, i + 1, false,
						       __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	__atomic_store_n(&table[i].hit, false, __ATOMIC_RELAXED);
	__atomic_store_n(&table[i].len, len, __ATOMIC_RELEASE);
	return 0;
}

void wfi_guard_del(void *addr)
{
	struct guarded *g = find((uintptr_t)addr);

	if (!g)
		return;
	__atomic_store_n(&g->len, 0, __ATOMIC_RELAXED);
	/* pairs with the acquire of who takes the place next */
	__atomic_store_n(&g->from, 0, __ATOMIC_RELEASE);
}

bool wfi_guard_hit(const void *addr)
{
	const struct guarded *g = find((uintptr_t)addr);

	return g && __atomic_load_n(&g->hit, __ATOMIC_RELAXED);
}
