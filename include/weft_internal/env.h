/* SPDX-License-Identifier: Apache-2.0 */
/**
 * env.h - the environment table: all time, randomness and I/O of a node
 *
 * A node never asks the kernel for the time, for random bytes, for memory of any size, for a
 * disk, a transport or the membership: it asks its environment. wfi_env_real_init() is the outside
 * world; wfi_sim_create() is a simulated one, in which many nodes run in one process under one
 * clock, deterministic from a seed, with faults.
 *
 * Everything is handed down from the top: there is no global environment.
 */
#ifndef WFI_ENV_H
#define WFI_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wfi_copy_ops;
struct wfi_env;
struct wfi_members;
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
	WFI_MAP_PREFAULT = 1u << 2, /* touch every page now, so that -ENOMEM, -ENOSPC come now */
	WFI_MAP_FD_READERS = 1u << 3, /* others that get the memfd can map it for reading only */
	WFI_MAP_SPARSE = 1u << 4, /* most will not be touched: takes none of what was set aside */
};

/* a large mapping; the small and cold use plain malloc through .alloc */
struct wfi_map {
	void *addr;
	size_t len; /* at least what was asked for: whole pages */
	size_t page_bytes; /* what was really got: 4 KiB (also when not sure) or 2 MiB */
	/*
	 * memfd, or -1. Sealed for good (F_SEAL_SHRINK, _GROW, _SEAL; _FUTURE_WRITE for readers): a
	 * peer that holds it could otherwise add F_SEAL_FUTURE_WRITE and lock the next peer out
	 */
	int fd;
	struct wfi_map_job *job; /* of what comes in the background: the environment's own */
};

struct wfi_alloc_ops {
	/* zeroed, aligned to a cache line, NULL when none */
	void *(*alloc)(struct wfi_env *env, size_t len);
	void (*free)(struct wfi_env *env, void *ptr, size_t len);
	/* Return: 0, -EINVAL, -ENOMEM, -ENOSPC, -EMFILE; logged */
	int (*map)(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out);
	/* closes the memfd too, and zeroes *@map; does nothing to a map that is zero */
	void (*unmap)(struct wfi_env *env, struct wfi_map *map);
	/*
	 * For workers, which can't wait for as long as the kernel takes to map, clear or free many
	 * pages. One thread at a time for one map.
	 *
	 * populate: those from @off on come in the background, if there is memory; behind what was
	 * asked for before, when that is not done yet. Meanwhile they can be used, but who touches
	 * one first waits for it.
	 * map_begin: as map and populate of all of it, in the background, when nothing is to be
	 * populated. The map has no address until populated() finds it.
	 * populated: Return: the offset up to which pages have come; SIZE_MAX: all that were asked
	 * for, and if there is no address by then, mapping failed.
	 * unmap_begin: as unmap, in the background, whatever is under way
	 */
	void (*map_begin)(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out);
	void (*populate)(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len);
	size_t (*populated)(struct wfi_env *env, struct wfi_map *map);
	void (*unmap_begin)(struct wfi_env *env, struct wfi_map *map);
	/*
	 * pages of a map that nobody uses go back to the system; they read as zeros when they are
	 * touched again. Waits for the kernel, about 1 us a small page: in slices.
	 * Return: 0, -errno
	 */
	int (*discard)(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len);
};

/* what offsets, lengths and buffers of disk I/O are multiples of */
#define WFI_DISK_ALIGN 4096u

/* block device or file of an ssd tier; asynchronous, one completion a request, in any order */
struct wfi_disk;
struct wfi_disk_ops {
	/*
	 * makes the file when there is none, and room for @len bytes. One opener at a time; a
	 * device that is mounted has one. Return: 0, -EBUSY, -ENOSPC, -EOPNOTSUPP (built without
	 * asynchronous I/O), or what the system says; logged
	 */
	int (*open)(struct wfi_env *env, const char *path, uint64_t len, struct wfi_disk **out);
	/*
	 * Context of these and of poll, close: the thread that owns the disk.
	 * Return: 0 accepted, -EAGAIN poll and retry, -EINVAL outside of the disk or not aligned.
	 * @buf is lent until the completion
	 */
	int (*read)(struct wfi_disk *disk, uint64_t off, void *buf, size_t len, uint64_t cookie);
	int (*write)(struct wfi_disk *disk, uint64_t off, const void *buf, size_t len,
		     uint64_t cookie);
	/*
	 * memory that most requests use, told once: they then cost less. Takes its pages, as if it
	 * was written. Return: 0, or -errno: requests work as before. Cold
	 */
	int (*lend)(struct wfi_disk *disk, void *addr, uint64_t len);
	/*
	 * room for @len bytes from now on; less than before cuts the end off. Nothing is under way
	 * there. Return: 0, -ENOSPC, -EINVAL; logged. Cold
	 */
	int (*resize)(struct wfi_disk *disk, uint64_t len);
	/* Return: number of completions; each is a cookie and bytes moved or -errno */
	int (*poll)(struct wfi_disk *disk, uint64_t *cookies, int64_t *res, unsigned max);
	/*
	 * takes NULL. Waits for what is still under way, whose completions are lost: poll until
	 * there is none before, where that matters
	 */
	void (*close)(struct wfi_disk *disk);
};

#define WFI_MEMBERS_MAX 64u

enum wfi_member_flags {
	WFI_MEMBER_DRAINING = 1u << 0, /* takes nothing new, and goes when it is empty */
};

/* one member of the cluster, as its record says: checked, but no more than a claim */
struct wfi_member {
	uint64_t node; /* id, stable over restarts */
	uint64_t incarnation; /* of its present life; 0: not known (a file's) */
	/*
	 * of its record: each life, and each return of a node whose record was lost, has a later
	 * one, in the order of the store. 0 where there is no store
	 */
	uint64_t epoch;
	/*
	 * when its life began, by the monotonic clock of its host: of two lives in one place the
	 * later one has the name (wfi_member_may_take()). 0: not known
	 */
	uint64_t born_ns;
	uint64_t capacity; /* bytes of its arenas */
	uint32_t flags; /* enum wfi_member_flags */
	char name[64];
	char host[72]; /* nodes with equal ones reach each other's sockets; "": not known */
	char socket[108]; /* unix socket, for nodes of its host; "": none */
	char addr[108]; /* IP:PORT, with commas for rails, for those of others; "": none */
	char transport[16]; /* to nodes of other hosts; "": none */
	char version[16];
};

/*
 * Who is in the cluster, as far as this node has heard: a member may be gone that is still shown,
 * and the other way round. Records live under leases: that tells who is alive, never who owns.
 * When the store can't be reached, what was known last stays.
 *
 * Context: any thread. None of these waits.
 */
struct wfi_membership_ops {
	/*
	 * ordered by id, this node among them while it is one. @epoch: of the store when it last
	 * told of a change.
	 * Return: number of members, at most @max; -EOPNOTSUPP this node has no membership
	 */
	int (*members)(struct wfi_env *env, struct wfi_member *out, unsigned max, uint64_t *epoch);
	/* changes so far: while it stays, so does what members() says. One load, where nothing is
	 * simulated */
	uint64_t (*changes)(struct wfi_env *env);
	/*
	 * what this node says of itself from now on, whole but for .epoch; NULL: it leaves. Copied.
	 * Return: 0, -EOPNOTSUPP
	 */
	int (*publish)(struct wfi_env *env, const struct wfi_member *self);
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
	struct wfi_members *members; /* of .membership: its own (weft_internal/member.h) */
	const struct weft_transport *const *transports; /* NULL-terminated */
	/*
	 * labelled points of the code, where a test kills the node or looks on: may not return.
	 * NULL in the real world
	 */
	void (*point)(struct wfi_env *env, const char *label);
	const struct wfi_copy_ops *copy; /* wfi_copy_best()'s; NULL: not asked for yet. Atomic */
};

/* a point at which a crash is tried; not for code that runs once a block */
static inline void wfi_point(struct wfi_env *env, const char *label)
{
	if (__builtin_expect(env->point != NULL, 0))
		env->point(env, label);
}

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

/**
 * wfi_env_real_init - the outside world
 *
 * .transports is an empty list and .membership answers -EOPNOTSUPP until the caller that wires
 * them puts its own there.
 */
int wfi_env_real_init(struct wfi_env *env);

/**
 * The simulated world: time stands still until it is moved, bytes come from a seeded generator,
 * allocations fail on demand (the nth, or with a probability), disks are memory with faults (short
 * I/O, errors, flipped bits, lost writes at a crash), members are the records of a store that
 * nodes publish themselves to, or a list that the test edits.
 * Each node of a simulation gets its own view (wfi_sim_node()), sharing clock and seed; files
 * belong to their node.
 *
 * What a node gets from its view goes back before wfi_sim_destroy(), but for what wfi_sim_crash()
 * took.
 */
#define WFI_SIM_MAX_NODES 64
struct wfi_sim;
struct wfi_sim_faults {
	uint32_t alloc_fail_ppm;
	uint32_t disk_error_ppm;
	uint32_t disk_short_ppm;
	uint32_t disk_flip_ppm; /* one bit: in the buffer read, on the disk written */
	uint32_t disk_lost_ppm; /* of the last 64 writes, at a crash; half torn, half gone */
	uint32_t disk_full_ppm; /* a write finds no space */
	uint32_t alloc_fail_nth; /* the nth allocation or map from now on fails, once; 0: none */
	uint64_t disk_latency_ns; /* a request takes 0 to this long; 0: done at the next poll */
	uint64_t store_delay_ns; /* records take 0 to this long to the store, and news from there */
	uint32_t store_lost_ppm; /* news is lost; the node reads all after WFI_SIM_REREAD_NS */
};
int wfi_sim_create(uint64_t seed, struct wfi_sim **out);
void wfi_sim_destroy(struct wfi_sim *sim);
/* Return: NULL from WFI_SIM_MAX_NODES on. .transports is an empty list; the caller wires its own */
struct wfi_env *wfi_sim_node(struct wfi_sim *sim, unsigned idx);
void wfi_sim_advance(struct wfi_sim *sim, uint64_t ns);
uint64_t wfi_sim_rand(struct wfi_sim *sim);
/*
 * the bytes of a node's file, as a drive holds them, to be read and spoilt at rest
 * Return: NULL when there is no such file; valid until it is resized
 */
unsigned char *wfi_sim_file(struct wfi_sim *sim, unsigned idx, const char *path, uint64_t *len);
/* cuts a file that may be open: what reads meet is the end. Return: 0, -ENOENT */
int wfi_sim_truncate(struct wfi_sim *sim, unsigned idx, const char *path, uint64_t len);
void wfi_sim_set_faults(struct wfi_sim *sim, const struct wfi_sim_faults *faults);
/*
 * The store of members. A record lives WFI_SIM_LEASE_NS longer than its node runs and reaches the
 * store; a node whose record was lost publishes it anew when it can. Of two nodes that claim one
 * name or id, the first has it until its lease ends, or until the next life of its place takes it
 * (wfi_member_may_take()). A watch tells each node of changes in their order, late and in parts.
 */
#define WFI_SIM_LEASE_NS (2 * WFI_NSEC_PER_SEC)
#define WFI_SIM_REREAD_NS WFI_NSEC_PER_SEC
/* cut off from the store, or no longer: its members stay as they are, its lease runs out */
void wfi_sim_store_reach(struct wfi_sim *sim, unsigned idx, bool reached);
/* nobody reaches the store, or all do again; no lease runs out meanwhile */
void wfi_sim_store_down(struct wfi_sim *sim, bool down);
/* it has lost all records */
void wfi_sim_store_wipe(struct wfi_sim *sim);
/* who has not heard of a change yet reads all: the watch does not tell it any more */
void wfi_sim_store_compact(struct wfi_sim *sim);
/* a node's record is lost, and it knows */
void wfi_sim_store_lose(struct wfi_sim *sim, unsigned idx);
/* in place of all records, without leases, known to all at once; the next epoch begins. At most
 * WFI_MEMBERS_MAX. Return: 0, -EINVAL */
int wfi_sim_set_members(struct wfi_sim *sim, const struct wfi_member *members, unsigned nr);
/* the node's process dies: its memory, maps and open disks go; its files lose writes (faults); its
 * lease runs out */
void wfi_sim_crash(struct wfi_sim *sim, unsigned idx);

#endif
