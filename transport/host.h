/* SPDX-License-Identifier: Apache-2.0 */
/**
 * host.h - files and processes of peers on this host
 *
 * What a peer maps, nobody can take from it. So regions have generations, in a table that peers map
 * read-only: an rkey is good while the number that its export carried still stands there.
 */
#ifndef WFI_TRANSPORT_HOST_H
#define WFI_TRANSPORT_HOST_H

#include <sys/types.h>
#include "transport/core.h"

#define WFI_GENS 4096u

/* a mapping of a peer's file */
struct wfi_view {
	void *map; /* to be unmapped, with .map_len */
	uint64_t map_len;
	uint8_t *mem;
};

/* maps [off, off + len) of @fd, if it is a memfd that can't shrink. Return: 0, -EPERM, -ERANGE,
 * ... */
int wfi_view_map(struct wfi_view *view, int fd, uint64_t off, uint64_t len, bool writable);
void wfi_view_unmap(struct wfi_view *view);
/* by the rules that a peer will apply, found out here and not there. Return: as wfi_view_map() */
int wfi_view_check(const struct weft_mr_opts *o);
int wfi_reopen_ro(int fd);
/* a file for a peer that may do @access. Return: fd, -errno */
int wfi_fd_grant(int fd, uint32_t access);

int wfi_pidfd_open(pid_t pid);
/* Return: pid behind a pidfd, in our namespace; -ESRCH, -EINVAL no pidfd */
int wfi_pidfd_pid(int pidfd);
/* Return: 0, -ESRCH the process is gone */
int wfi_pidfd_alive(int pidfd);
/* Return: whether the process has ended; @pidfd < 0: nobody knows */
bool wfi_pidfd_ended(int pidfd);

/* our own generations: uint32_t[WFI_GENS] */
struct wfi_gens {
	struct wfi_map map;
	int ro_fd;
};

/* Return: 0, -errno; logged */
int wfi_gens_init(struct wfi_gens *gens, struct wfi_env *env);
void wfi_gens_fini(struct wfi_gens *gens, struct wfi_env *env);

static inline uint32_t wfi_gens_get(const struct wfi_gens *gens, uint32_t idx)
{
	return __atomic_load_n((uint32_t *)gens->map.addr + idx, __ATOMIC_RELAXED);
}

/* rkeys with the number that stands there are stale from here on */
static inline void wfi_gens_end(struct wfi_gens *gens, uint32_t idx)
{
	/* pairs with the acquire in the peer's wfi_gen_stale() */
	__atomic_store_n((uint32_t *)gens->map.addr + idx, wfi_gens_get(gens, idx) + 1,
			 __ATOMIC_RELEASE);
}

/* maps a peer's. Return: as wfi_view_map() */
static inline int wfi_gens_view(struct wfi_view *view, int fd)
{
	return wfi_view_map(view, fd, 0, WFI_GENS * sizeof(uint32_t), false);
}

static inline const uint32_t *wfi_gens_at(const struct wfi_view *view, uint32_t idx)
{
	return (const uint32_t *)(const void *)view->mem + idx;
}

/* Hot */
static inline bool wfi_gen_stale(const uint32_t *live, uint32_t gen)
{
	/* pairs with the release in the owner's wfi_gens_end() */
	return __atomic_load_n(live, __ATOMIC_ACQUIRE) != gen;
}

#endif
