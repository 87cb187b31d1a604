/* SPDX-License-Identifier: Apache-2.0 */
/**
 * env.h - the environment table: all time, randomness and I/O of a node
 *
 * A node never asks the kernel for the time, for random bytes, for memory of any size, for a
 * disk, a transport or the membership: it asks its environment. wfi_env_real() is the outside
 * world; wfi_env_sim_create() is a simulated one, in which many nodes run in one process under one
 * clock, deterministic from a seed, with faults.
 *
 * Everything is handed down from the top: there is no global environment.
 */
#ifndef WFI_ENV_H
#define WFI_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wfi_env;
struct weft_transport; /* weft/transport.h */

#define WFI_NSEC_PER_USEC 1000ull
#define WFI_NSEC_PER_MSEC 1000000ull
#define WFI_NSEC_PER_SEC 1000000000ull

struct wfi_clock_ops {
	/* monotonic, ns since an arbitrary point; never goes back. Hot (no system call: vdso) */
	uint64_t (*now_ns)(struct wfi_env *env);
	/* CLOCK_REALTIME, ns since 1970. Cold */
	uint64_t (*wall_ns)(struct wfi_env *env);
};

struct wfi_rng_ops {
	/* fills @buf with bytes fit for secrets (getrandom); Return: 0 or -errno */
	int (*bytes)(struct wfi_env *env, void *buf, size_t len);
};

enum wfi_map_flags {
	WFI_MAP_HUGE = 1u << 0, /* ask for huge pages; said once in the log if not to be had */
	WFI_MAP_SHARED_FD = 1u << 1, /* back it by a memfd, given in wfi_map.fd */
	WFI_MAP_PREFAULT = 1u << 2, /* touch every page now, so that -ENOSPC comes now */
};

/* a large mapping; the small and cold use plain malloc through .alloc */
struct wfi_map {
	void *addr;
	size_t len;
	size_t page_bytes; /* what was really got: 4 KiB or 2 MiB */
	int fd; /* memfd (sealed F_SEAL_SHRINK|F_SEAL_GROW), or -1 */
};

struct wfi_alloc_ops {
	void *(*alloc)(struct wfi_env *env, size_t len); /* zeroed, NULL when none */
	void (*free)(struct wfi_env *env, void *ptr, size_t len);
	int (*map)(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out);
	void (*unmap)(struct wfi_env *env, struct wfi_map *map);
};

/* block device or file of an ssd tier; asynchronous, one completion a request */
struct wfi_disk;
struct wfi_disk_ops {
	int (*open)(struct wfi_env *env, const char *path, uint64_t len, struct wfi_disk **out);
	/* Return: 0 accepted, -EAGAIN poll and retry. @buf is lent until the completion */
	int (*read)(struct wfi_disk *disk, uint64_t off, void *buf, size_t len, uint64_t cookie);
	int (*write)(struct wfi_disk *disk, uint64_t off, const void *buf, size_t len, uint64_t cookie);
	/* Return: number of completions; each is a cookie and bytes moved or -errno */
	int (*poll)(struct wfi_disk *disk, uint64_t *cookies, int64_t *res, unsigned max);
	void (*close)(struct wfi_disk *disk);
};

/* one member of the cluster */
struct wfi_member {
	uint64_t node; /* id, stable over restarts */
	char name[64];
	char addr[108]; /* control address: unix socket path, or host:port */
};

struct wfi_membership_ops {
	/* Return: number of members (at most @max) and their epoch, or -errno */
	int (*members)(struct wfi_env *env, struct wfi_member *out, unsigned max, uint64_t *epoch);
};

/**
 * struct wfi_env - one table of tables
 *
 * Context: any thread, if the tables say nothing else; the simulated one is single-threaded.
 */
struct wfi_env {
	const struct wfi_clock_ops *clock;
	const struct wfi_rng_ops *rng;
	const struct wfi_alloc_ops *mem;
	const struct wfi_disk_ops *disk;
	const struct wfi_membership_ops *membership;
	const struct weft_transport *const *transports; /* NULL-terminated */
};

static inline uint64_t wfi_now(struct wfi_env *env)
{
	return env->clock->now_ns(env);
}

static inline void *wfi_alloc(struct wfi_env *env, size_t len)
{
	return env->mem->alloc(env, len);
}

static inline void wfi_free(struct wfi_env *env, void *ptr, size_t len)
{
	env->mem->free(env, ptr, len);
}

/* the outside world; .transports and .membership are filled in by the caller that wires them */
int wfi_env_real_init(struct wfi_env *env);

/**
 * The simulated world: time stands still until it is moved, bytes come from a seeded generator,
 * allocations fail on demand (the nth, or with a probability), disks are memory with faults (short
 * I/O, errors, flipped bits, lost writes at a crash), members are a list that the test edits.
 * Each node of a simulation gets its own view (wfi_env_sim_node()), sharing clock and seed.
 */
struct wfi_sim;
struct wfi_sim_faults {
	uint32_t alloc_fail_ppm;
	uint32_t disk_error_ppm;
	uint32_t disk_short_ppm;
	uint32_t disk_flip_ppm;
};
int wfi_sim_create(uint64_t seed, struct wfi_sim **out);
void wfi_sim_destroy(struct wfi_sim *sim);
struct wfi_env *wfi_sim_node(struct wfi_sim *sim, unsigned idx);
void wfi_sim_advance(struct wfi_sim *sim, uint64_t ns);
uint64_t wfi_sim_rand(struct wfi_sim *sim);
void wfi_sim_set_faults(struct wfi_sim *sim, const struct wfi_sim_faults *faults);
int wfi_sim_set_members(struct wfi_sim *sim, const struct wfi_member *members, unsigned nr);

#endif
