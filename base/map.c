/* SPDX-License-Identifier: Apache-2.0 */
/* large mappings: memfds or private memory, on huge pages where there are any */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "weft_internal/guard.h"
#include "weft_internal/log.h"

#define HUGE_BYTES (2ul << 20)
#define MIB(bytes) ((size_t)((bytes) >> 20))

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Return: fd, or -errno */
static int memfd_open(unsigned flags)
{
	int fd;

	flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
	/* vm.memfd_noexec=2 wants the flag, Linux before 6.3 does not know it */
	fd = memfd_create("weft", flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("weft", flags);
	return fd < 0 ? -errno : fd;
}

/* after our own mapping: F_SEAL_FUTURE_WRITE is for those that come later */
static int memfd_seal(int fd, unsigned flags)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

	if (flags & WFI_MAP_FD_READERS)
		seals |= F_SEAL_FUTURE_WRITE;
	return fcntl(fd, F_ADD_SEALS, seals) ? -errno : 0;
}

/* Return: bytes that new pages can take before something is killed for them */
static uint64_t mem_available(void)
{
	uint64_t kib = UINT64_MAX >> 10;
	char line[128];
	FILE *file;

	file = fopen("/proc/meminfo", "re");
	if (!file)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	fclose(file);
	return kib << 10;
}

/*
 * transparent_hugepage/shmem_enabled is "never" where nobody chose it, and collapsing works all the
 * same ("deny" forbids it): from one page in each huge one, so that the small ones are not made
 * first. Where it fails, prefault() finishes with what there is
 */
static void collapse(const struct wfi_map *map)
{
	size_t off;

	for (off = 0; off < map->len; off += HUGE_BYTES)
		if (madvise((char *)map->addr + off, 1, MADV_POPULATE_WRITE))
			return;
	madvise(map->addr, map->len, MADV_COLLAPSE);
}

static int prefault(const struct wfi_map *map, bool thp)
{
	if (thp && map->fd >= 0)
		collapse(map);
	if (!madvise(map->addr, map->len, MADV_POPULATE_WRITE))
		return 0;
	switch (errno) {
	case EFAULT: /* SIGBUS, had we touched it */
		return -ENOSPC;
	case EINVAL: /* before Linux 5.14: have the space, pages are mapped as they are touched */
		return map->fd >= 0 && fallocate(map->fd, 0, 0, (off_t)map->len) ? -errno : 0;
	default:
		return -errno;
	}
}

/* sums what the kernel says of the one area that holds @map. Return: true when all is huge */
static bool all_huge(const struct wfi_map *map)
{
	const unsigned long first = (unsigned long)map->addr;
	unsigned long start, end, from = 0, to = 0, kib, huge = 0;
	char line[256], name[32];
	FILE *file;

	file = fopen("/proc/self/smaps", "re");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			if (to)
				break;
			if (start <= first && first + map->len <= end) {
				from = start;
				to = end;
			}
		} else if (to && sscanf(line, "%31[A-Za-z]: %lu kB", name, &kib) == 2 &&
			   (!strcmp(name, "AnonHugePages") || !strcmp(name, "ShmemPmdMapped"))) {
			huge += kib << 10;
		}
	}
	fclose(file);
	return to && huge == to - from;
}

static void *map_pages(int fd, size_t len, int flags)
{
	flags |= fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	return mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
}

/* transparent huge pages need an address that is a multiple of theirs */
static void *map_aligned(int fd, size_t len)
{
	const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	char *area, *addr;
	size_t head;
	void *ret;

	area = mmap(NULL, len + HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (area == MAP_FAILED)
		return MAP_FAILED;
	head = wfi_align_up((uintptr_t)area, HUGE_BYTES) - (uintptr_t)area;
	addr = area + head;
	ret = mmap(addr, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (ret == MAP_FAILED) {
		munmap(area, len + HUGE_BYTES);
		return MAP_FAILED;
	}
	if (head)
		munmap(area, head);
	munmap(addr + len, HUGE_BYTES - head);
	return ret;
}

/* Return: 0, or -errno and @map as before */
static int map_memory(struct wfi_map *map, unsigned memfd_flags, int mmap_flags, unsigned flags,
		      bool thp)
{
	int ret;

	if (flags & WFI_MAP_SHARED_FD) {
		ret = memfd_open(memfd_flags);
		if (ret < 0)
			return ret;
		map->fd = ret;
		if (ftruncate(map->fd, (off_t)map->len))
			goto err_errno;
	}
	map->addr = thp ? map_aligned(map->fd, map->len) : map_pages(map->fd, map->len, mmap_flags);
	if (map->addr == MAP_FAILED)
		goto err_errno;
	if (thp && madvise(map->addr, map->len, MADV_HUGEPAGE))
		wfi_warn_once("no transparent huge pages: %s", strerror(errno));
	ret = flags & WFI_MAP_PREFAULT ? prefault(map, thp) : 0;
	if (!ret && map->fd >= 0)
		ret = memfd_seal(map->fd, flags);
	if (!ret && map->fd >= 0)
		ret = wfi_guard_add(map->addr, map->len);
	if (ret)
		goto err_unmap;
	return 0;

err_errno:
	ret = -errno;
	map->addr = NULL;
err_unmap:
	if (map->addr)
		munmap(map->addr, map->len);
	if (map->fd >= 0)
		close(map->fd);
	map->fd = -1;
	return ret;
}

/* pages that the administrator set aside: huge for sure, or not to be had. Quiet */
static int map_reserved(size_t len, unsigned flags, struct wfi_map *map)
{
	map->len = wfi_align_up(len, HUGE_BYTES);
	map->page_bytes = HUGE_BYTES;
	return map_memory(map, MFD_HUGETLB | MFD_HUGE_2MB, MAP_HUGETLB | MAP_HUGE_2MB, flags,
			  false);
}

static int map_plain(size_t len, unsigned flags, struct wfi_map *map)
{
	const bool thp = flags & WFI_MAP_HUGE;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t avail;
	int ret;

	map->len = wfi_align_up(len, thp ? HUGE_BYTES : page);
	map->page_bytes = page;
	/* memfds have no limit of their own: without a look ahead the OOM killer gives the
	 * answer */
	avail = flags & WFI_MAP_PREFAULT ? mem_available() : UINT64_MAX;
	if (map->len > avail) {
		wfi_err("%zu MiB of memory wanted, %zu MiB available: ask for less", MIB(map->len),
			MIB(avail));
		return -ENOMEM;
	}
	ret = map_memory(map, 0, 0, flags, thp);
	if (ret) {
		wfi_err("mapping %zu MiB: %s; see the limits of the process and its cgroup",
			MIB(map->len), strerror(-ret));
		return ret;
	}
	/* not touched yet, they may still come huge: and looking takes long where much is mapped */
	if (!thp || !(flags & WFI_MAP_PREFAULT))
		return 0;
	if (all_huge(map))
		map->page_bytes = HUGE_BYTES;
	else
		wfi_warn_once("%zu MiB on pages of %zu KiB: for huge ones, set vm.nr_hugepages to "
			      "%zu more, or transparent_hugepage/%s",
			      MIB(map->len), page >> 10, map->len / HUGE_BYTES,
			      map->fd >= 0 ? "shmem_enabled to advise" : "enabled to madvise");
	return 0;
}

int wfi_os_map(size_t len, unsigned flags, struct wfi_map *out)
{
	struct wfi_map map = { .fd = -1 };
	int ret = -ENOENT;

	if (!len)
		return -EINVAL;
	if (len > PTRDIFF_MAX - HUGE_BYTES)
		return -ENOMEM;
	/* less than one huge page is not worth one */
	if (len < HUGE_BYTES)
		flags &= ~(unsigned)WFI_MAP_HUGE;
	if (flags & WFI_MAP_HUGE && !(flags & WFI_MAP_SPARSE))
		ret = map_reserved(len, flags, &map);
	if (ret)
		ret = map_plain(len, flags, &map);
	if (!ret)
		*out = map;
	return ret;
}

void wfi_os_unmap(struct wfi_map *map)
{
	if (!map->addr)
		return;
	wfi_guard_del(map->addr);
	munmap(map->addr, map->len);
	if (map->fd >= 0)
		close(map->fd);
	*map = (struct wfi_map){ .fd = -1 };
}

int wfi_os_discard(const struct wfi_map *map, size_t off, size_t len)
{
	const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	int ret;

	if (map->fd >= 0)
		ret = fallocate(map->fd, how, (off_t)off, (off_t)len);
	else
		ret = madvise((char *)map->addr + off, len, MADV_DONTNEED);
	return ret ? -errno : 0;
}
