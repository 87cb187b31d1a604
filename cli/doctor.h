/* SPDX-License-Identifier: Apache-2.0 */
/* doctor.h - what weft doctor looks at, and what it finds */
#ifndef WFI_DOCTOR_H
#define WFI_DOCTOR_H

#include <stdbool.h>
#include "cli/cli.h"
#include "weft_internal/env.h"

enum wfi_health { WFI_HEALTH_OK, WFI_HEALTH_WARN, WFI_HEALTH_FAIL };

/* @todo: what to do about it, "" when there is nothing */
struct wfi_finding {
	enum wfi_health health;
	char what[256];
	char todo[256];
};

/* fill a finding; @todo may be NULL */
void wfi_found(struct wfi_finding *f, enum wfi_health health, const char *todo, const char *fmt,
	       ...) __attribute__((format(printf, 4, 5)));

/* first line of a small file of /proc or /sys. Return: true when there was one */
bool wfi_doctor_line(const char *path, char *out, size_t len);
/* the choice in brackets, as in "always [madvise] never". Return: true when there was one */
bool wfi_doctor_choice(const char *path, char *out, size_t len);

/* the SSD tier of the settings in @file, NULL: of the default one if it is there (doctor_tier.c) */
void wfi_check_tier(const char *file, struct wfi_finding *f);

/* each looks at one thing (doctor_host.c, doctor_kernel.c) */
void wfi_check_memlock(struct wfi_finding *f);
void wfi_check_memory(struct wfi_finding *f);
void wfi_check_hugepages(struct wfi_finding *f);
void wfi_check_thp(struct wfi_finding *f);
void wfi_check_devshm(struct wfi_finding *f);
void wfi_check_numa(struct wfi_finding *f);
void wfi_check_cpu(struct wfi_finding *f);
void wfi_check_ptrace(struct wfi_finding *f);
void wfi_check_memfd(struct wfi_finding *f);
void wfi_check_futex_waitv(struct wfi_finding *f);
void wfi_check_pidfd(struct wfi_finding *f);
void wfi_check_process_vm(struct wfi_finding *f);
void wfi_check_io_uring(struct wfi_finding *f);
void wfi_check_loop(struct wfi_finding *f);
void wfi_check_shm(struct wfi_finding *f);
void wfi_check_verbs(struct wfi_finding *f);
void wfi_check_ucx(struct wfi_finding *f);
void wfi_check_tcp(struct wfi_finding *f);
void wfi_check_dpdk(struct wfi_finding *f);

/* GPUs, what they can do with each other and with NICs (doctor_gpu.c) */
void wfi_check_gpus(void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		    void *ctx);

struct wfi_config;

/* RDMA devices of a node with these settings, opened as it opens them (doctor_device.c) */
void wfi_check_devices(const struct wfi_config *cfg, struct wfi_env *env,
		       void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		       void *ctx);

/*
 * devices, certificates, and each peer on another host, as a node with these settings would find
 * them (doctor_network.c). @config: NULL: the file that weftd reads, if there is one
 */
void wfi_check_network(const char *config,
		       void (*found)(void *ctx, const char *name, const struct wfi_finding *f),
		       void *ctx);

#endif
