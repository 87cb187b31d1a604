/* SPDX-License-Identifier: Apache-2.0 */
/* what the machine has: memory, pages, processors */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include "cli/doctor.h"
#include "weft_internal/memlock.h"
#include "weft_internal/util.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"

bool wfi_doctor_line(const char *path, char *out, size_t len)
{
	FILE *in = fopen(path, "re");
	bool ok;

	if (!in)
		return false;
	ok = fgets(out, (int)len, in) != NULL;
	fclose(in);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

bool wfi_doctor_choice(const char *path, char *out, size_t len)
{
	char line[128], *open, *close;

	if (!wfi_doctor_line(path, line, sizeof(line)))
		return false;
	open = strchr(line, '[');
	close = open ? strchr(open, ']') : NULL;
	if (!close)
		return false;
	*close = 0;
	snprintf(out, len, "%s", open + 1);
	return true;
}

/* a line "Key:   123 kB" of /proc/meminfo. Return: the number, 0 when it is not there */
static uint64_t meminfo(const char *key)
{
	FILE *in = fopen("/proc/meminfo", "re");
	const size_t len = strlen(key);
	uint64_t v = 0;
	char line[128];

	while (in && fgets(line, sizeof(line), in)) {
		if (strncmp(line, key, len) || line[len] != ':')
			continue;
		v = strtoull(line + len + 1, NULL, 10);
		break;
	}
	if (in)
		fclose(in);
	return v;
}

void wfi_check_memlock(struct wfi_finding *f)
{
	struct rlimit lim;
	char text[WFI_TEXT];

	if (getrlimit(RLIMIT_MEMLOCK, &lim)) {
		wfi_found(f, WFI_HEALTH_WARN, NULL, "not known: %s", strerror(errno));
		return;
	}
	if (wfi_memlock_limit() == UINT64_MAX) {
		wfi_found(f, WFI_HEALTH_OK, NULL, "unlimited%s",
			  lim.rlim_cur == RLIM_INFINITY ? "" : " for this user (CAP_IPC_LOCK)");
		return;
	}
	wfi_found(f, lim.rlim_cur >= 1u << 30 ? WFI_HEALTH_OK : WFI_HEALTH_WARN,
		  lim.rlim_cur >= 1u << 30 ? NULL
					   : "LimitMEMLOCK=infinity in the unit, or ulimit -l "
					     "unlimited: NICs and io_uring pin what they use",
		  "%s for this shell", wfi_text_bytes((double)lim.rlim_cur, text));
}

void wfi_check_memory(struct wfi_finding *f)
{
	const double available = (double)meminfo("MemAvailable") * 1024;
	char text[WFI_TEXT], limit[32], group[WFI_TEXT];

	wfi_text_bytes(available, text);
	if (wfi_doctor_line("/sys/fs/cgroup/memory.max", limit, sizeof(limit)) &&
	    strcmp(limit, "max")) {
		wfi_text_bytes(strtod(limit, NULL), group);
		wfi_found(f, WFI_HEALTH_OK, NULL, "%s available, the control group may use %s",
			  text, group);
		return;
	}
	if (available < 1u << 30)
		wfi_found(f, WFI_HEALTH_WARN, "give weftd a smaller arena_bytes",
			  "%s available, less than the default arena", text);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "%s available", text);
}

void wfi_check_hugepages(struct wfi_finding *f)
{
	const uint64_t total = meminfo("HugePages_Total"), nr_free = meminfo("HugePages_Free");
	const uint64_t kib = meminfo("Hugepagesize");

	if (!total)
		wfi_found(f, WFI_HEALTH_WARN,
			  "sysctl vm.nr_hugepages=N, or let transparent huge pages serve shared "
			  "memory",
			  "none reserved (of %" PRIu64 " KiB)", kib);
	else if (!nr_free)
		wfi_found(f, WFI_HEALTH_WARN, "raise vm.nr_hugepages",
			  "%" PRIu64 " of %" PRIu64 " KiB reserved, all in use", total, kib);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL,
			  "%" PRIu64 " of %" PRIu64 " KiB reserved, %" PRIu64 " free", total, kib,
			  nr_free);
}

void wfi_check_thp(struct wfi_finding *f)
{
	char enabled[32] = "not there", shmem[32] = "not there";

	wfi_doctor_choice(THP "enabled", enabled, sizeof(enabled));
	wfi_doctor_choice(THP "shmem_enabled", shmem, sizeof(shmem));
	/* arenas are shared memory: only the second of the two switches decides about them */
	if (!strcmp(shmem, "always") || !strcmp(shmem, "advise") || !strcmp(shmem, "within_size") ||
	    !strcmp(shmem, "force"))
		wfi_found(f, WFI_HEALTH_OK, NULL, "private memory: %s, shared memory: %s", enabled,
			  shmem);
	else
		wfi_found(f, WFI_HEALTH_WARN,
			  "echo advise > " THP "shmem_enabled (arenas are shared memory)",
			  "private memory: %s, shared memory: %s", enabled, shmem);
}

void wfi_check_devshm(struct wfi_finding *f)
{
	char total[WFI_TEXT], avail[WFI_TEXT];
	struct statvfs st;

	/* memfds are no files of this mount; what engines put there themselves is */
	if (statvfs("/dev/shm", &st)) {
		wfi_found(f, WFI_HEALTH_WARN, "mount a tmpfs there for engines that use it",
			  "%s; Weft itself does not use it", strerror(errno));
		return;
	}
	wfi_text_bytes((double)st.f_blocks * (double)st.f_frsize, total);
	wfi_text_bytes((double)st.f_bavail * (double)st.f_frsize, avail);
	wfi_found(f, WFI_HEALTH_OK, NULL, "%s, %s free; arenas are memfds and not bound by it",
		  total, avail);
}

void wfi_check_numa(struct wfi_finding *f)
{
	DIR *dir = opendir("/sys/devices/system/node");
	const struct dirent *e;
	unsigned nr = 0;

	while (dir && (e = readdir(dir)))
		nr += !strncmp(e->d_name, "node", 4) && e->d_name[4] >= '0' && e->d_name[4] <= '9';
	if (dir)
		closedir(dir);
	if (nr > 1)
		wfi_found(f, WFI_HEALTH_WARN,
			  "run one weftd a NUMA node, under numactl --cpunodebind --membind",
			  "%u nodes: memory of another one is slower", nr);
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "one node");
}

#if defined(__x86_64__)
static void cpu_features(bool *crc, bool *wide, const char **widest)
{
	__builtin_cpu_init();
	*crc = __builtin_cpu_supports("sse4.2");
	*wide = __builtin_cpu_supports("avx512f") || __builtin_cpu_supports("avx2");
	*widest = __builtin_cpu_supports("avx512f") ? "avx512" : *wide ? "avx2" : "sse2";
}
#elif defined(__aarch64__)
static void cpu_features(bool *crc, bool *wide, const char **widest)
{
	*crc = getauxval(AT_HWCAP) & (1u << 7); /* HWCAP_CRC32 */
	*wide = true;
	*widest = "neon";
}
#else
static void cpu_features(bool *crc, bool *wide, const char **widest)
{
	*crc = false;
	*wide = false;
	*widest = "no vectors that Weft uses";
}
#endif

void wfi_check_cpu(struct wfi_finding *f)
{
	const char *widest;
	bool crc, wide;

	cpu_features(&crc, &wide, &widest);
	if (crc && wide)
		wfi_found(f, WFI_HEALTH_OK, NULL, "crc32c in hardware, copies with %s", widest);
	else
		wfi_found(f, WFI_HEALTH_WARN, "a newer processor copies and checks faster",
			  "%s, copies with %s", crc ? "crc32c in hardware" : "crc32c in software",
			  widest);
}
