/* SPDX-License-Identifier: Apache-2.0 */
/**
 * shm.h - the shared-memory provider, inside
 *
 * Regions have generations (transport/host.h). Each endpoint owns one memfd with the ring of
 * messages that it receives; the peer maps it and produces. Memory is reached through a mapping of
 * the memfd that backs it, or by process_vm_readv/writev.
 */
#ifndef WFI_TRANSPORT_SHM_H
#define WFI_TRANSPORT_SHM_H

#include <sys/uio.h>
#include "transport/host.h"
#include "transport/msgring.h"
#include "weft_internal/copy.h"

#define WFI_SHM_MAGIC 0x31314d4853544657ull /* "WFTSHM11" */
#define WFI_SHM_IOVS 512u

enum wfi_shm_mem { WFI_SHM_MAPPED = 1, WFI_SHM_PRIVATE = 2 };

/* what an export carries */
struct wfi_shm_rkey_blob {
	uint64_t magic;
	uint64_t device; /* random, of the exporter */
	uint64_t addr; /* offset in the file, or address in the exporter's process */
	uint64_t len;
	uint32_t kind; /* enum wfi_shm_mem */
	uint32_t access;
	uint32_t mr_idx;
	uint32_t mr_gen;
};

/* an endpoint's address; fds: message ring, table of generations (read-only), pidfd */
struct wfi_shm_ep_blob {
	uint64_t magic;
	uint64_t device;
};

_Static_assert(sizeof(struct wfi_shm_rkey_blob) == 48, "wire");
_Static_assert(sizeof(struct wfi_shm_ep_blob) == 16, "wire");

enum { WFI_SHM_FD_RING, WFI_SHM_FD_TABLE, WFI_SHM_FD_PID, WFI_SHM_FD_NR };

struct wfi_shm_device {
	struct weft_device base;
	const struct wfi_copy_ops *copy;
	uint64_t id;
	struct wfi_gens gens;
	int pidfd; /* of this process */
	bool mr_used[WFI_GENS];
	struct iovec local[WFI_SHM_IOVS];
	struct iovec remote[WFI_SHM_IOVS];
	uint64_t keys[2][WFI_SHM_IOVS]; /* scratch of the sorting by remote address */
};

struct wfi_shm_mr {
	struct weft_mr base;
	uint32_t idx;
	uint32_t gen;
	int fd; /* -1: private memory */
	uint64_t fd_off;
};

struct wfi_shm_rkey {
	struct wfi_sync_rkey sync;
	const uint32_t *live; /* the exporter's generation; NULL: no exporter */
	uint32_t gen;
	pid_t pid; /* when not mapped */
	int pidfd;
	uint64_t addr;
	struct wfi_view view; /* when it is */
};

struct wfi_shm_ep {
	struct wfi_sync_ep sync;
	bool mem_only;
	struct wfi_map ring;
	struct wfi_msgring rx;
	struct wfi_msgring tx;
	struct wfi_view peer_ring;
	struct wfi_view peer_gens;
	uint64_t peer_device;
	pid_t peer_pid; /* as the kernel told it, or 0 */
	int peer_pidfd; /* -1: unknown */
};

static inline struct wfi_shm_device *wfi_shm_device(struct weft_device *dev)
{
	return wfi_container_of(dev, struct wfi_shm_device, base);
}

static inline struct wfi_shm_ep *wfi_shm_ep(struct weft_ep *ep)
{
	return wfi_container_of(wfi_container_of(ep, struct wfi_sync_ep, base), struct wfi_shm_ep,
				sync);
}

static inline struct wfi_shm_rkey *wfi_shm_rkey(const struct weft_rkey *rkey)
{
	return wfi_container_of(wfi_sync_rkey(rkey), struct wfi_shm_rkey, sync);
}

static inline bool wfi_shm_rkey_stale(const struct wfi_shm_rkey *rkey)
{
	return rkey->live && wfi_gen_stale(rkey->live, rkey->gen);
}

/* mem.c */
int wfi_shm_mr_reg(struct weft_device *dev, const struct weft_mr_opts *opts, struct weft_mr **out);
void wfi_shm_mr_dereg(struct weft_mr *mr);
int wfi_shm_mr_export(struct weft_mr *mr, const struct weft_export_opts *opts,
		      struct weft_export *out);
int wfi_shm_mr_revoke(struct weft_mr *mr, uint64_t id);
int wfi_shm_rkey_import(struct weft_ep *ep, const struct weft_rkey_src *src,
			struct weft_rkey **out);
void wfi_shm_rkey_destroy(struct weft_rkey *rkey);
void *wfi_shm_rkey_ptr(const struct weft_rkey *rkey);

/* post.c. Hot, but for the copying and one system call per WFI_SHM_IOVS pieces */
extern const struct weft_ep_fast wfi_shm_fast;
extern const struct weft_ep_fast wfi_shm_mem_fast;
/* wakes the receiver of @ring */
void wfi_shm_wake(const struct wfi_msgring *ring);

/* ep.c */
int wfi_shm_cq_arm(struct weft_cq *cq, struct weft_wait *waits, unsigned max);
void wfi_shm_cq_disarm(struct weft_cq *cq);
int wfi_shm_ep_create(struct weft_device *dev, const struct weft_ep_opts *opts,
		      struct weft_ep **out);
int wfi_shm_ep_addr(struct weft_ep *ep, struct weft_ep_addr *out);
int wfi_shm_ep_connect(struct weft_ep *ep, const struct weft_ep_peer *peer);
void wfi_shm_ep_shutdown(struct weft_ep *ep);
void wfi_shm_ep_destroy(struct weft_ep *ep);

/* shm.c */
extern const struct weft_transport wfi_transport_shm;

#endif
