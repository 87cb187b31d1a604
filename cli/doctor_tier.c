/* SPDX-License-Identifier: Apache-2.0 */
/*
 * the SSD tier that the settings name: what a node would make of it at its start. Nothing is made
 * or changed; the head of the file is judged by the node's own code
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "cli/doctor.h"
#include "daemon/config.h"
#include "weft_internal/tier.h"
#include "weft_internal/util.h"

#define BUSY_TRIES 50u
#define BUSY_MS 10

struct look {
	struct wfi_finding *f;
	const char *path;
	uint64_t bytes; /* that it is to have */
	uint64_t have; /* that it has: blocks of a file, size of a device */
	uint64_t node;
	uint8_t *head;
	bool direct;
	bool in_use;
};

static void fail(struct look *l, const char *todo, const char *what)
{
	wfi_found(l->f, WFI_HEALTH_FAIL, todo, "%s: %s", l->path, what);
}

/* what is left of the file system that a path is on, or would be. Return: false, said */
static bool room(struct look *l, const char *folder)
{
	char need[WFI_TEXT], have[WFI_TEXT];
	struct statvfs st;
	uint64_t left;

	if (statvfs(folder, &st)) {
		fail(l, "mkdir, or another tier_path", strerror(errno));
		return false;
	}
	left = (geteuid() ? st.f_bavail : st.f_bfree) * st.f_frsize;
	if (l->bytes <= l->have || l->bytes - l->have <= left)
		return true;
	wfi_found(
		l->f, WFI_HEALTH_FAIL, "a smaller tier_bytes, or free some",
		"%s: tier_bytes is %s, and %s are left on the file system: no space left on device",
		l->path, wfi_text_bytes((double)(l->bytes - l->have), need),
		wfi_text_bytes((double)left, have));
	return false;
}

/* there is no such file yet */
static void look_for_room(struct look *l)
{
	char *folder = strdup(l->path), *slash = folder ? strrchr(folder, '/') : NULL;
	char text[WFI_TEXT];

	if (!slash) {
		fail(l, "an absolute tier_path", "no folder");
		free(folder);
		return;
	}
	slash[slash == folder] = 0;
	if (!room(l, folder))
		; /* said */
	else if (access(folder, W_OK | X_OK))
		fail(l, "let the node's user write to that folder", strerror(errno));
	else
		wfi_found(l->f, WFI_HEALTH_OK, NULL, "%s: to be made, %s", l->path,
			  wfi_text_bytes((double)l->bytes, text));
	free(folder);
}

/* Return: fd, or -1, said. The kernel takes a device from a node that has ended a little later */
static int open_as_node(struct look *l, bool device)
{
	const int flags = O_RDWR | O_CLOEXEC | (device ? O_EXCL : 0);
	unsigned tries = 0;
	int fd;

	do
		fd = open(l->path, flags | O_DIRECT);
	while (fd < 0 && errno == EBUSY && ++tries < BUSY_TRIES && !poll(NULL, 0, BUSY_MS));

	l->direct = fd >= 0;
	if (fd < 0 && errno == EINVAL)
		fd = open(l->path, flags);
	if (fd < 0 && errno == EBUSY)
		fail(l,
		     "umount it, or name another device; if it is this machine's node that has it, "
		     "all is well",
		     "it is mounted, or a node has it");
	else if (fd < 0)
		fail(l,
		     errno == EACCES
			     ? "let the node's user read and write it"
			     : "name a file or a block device on a disk that can be written to",
		     strerror(errno));
	return fd;
}

/* Return: false, said */
static bool device_ok(struct look *l, int fd)
{
	char need[WFI_TEXT], have[WFI_TEXT];
	int sector = 0;

	if (ioctl(fd, BLKGETSIZE64, &l->have) || ioctl(fd, BLKSSZGET, &sector)) {
		fail(l, "name another device", strerror(errno));
		return false;
	}
	if ((unsigned)sector > WFI_DISK_ALIGN) {
		wfi_found(l->f, WFI_HEALTH_FAIL,
			  "format it with blocks of 512 or 4096 bytes (nvme format)",
			  "%s: its blocks have %d bytes, the tier writes %u", l->path, sector,
			  WFI_DISK_ALIGN);
		return false;
	}
	if (l->have >= l->bytes)
		return true;
	wfi_found(l->f, WFI_HEALTH_FAIL, "a smaller tier_bytes",
		  "%s: tier_bytes is %s, the device %s", l->path,
		  wfi_text_bytes((double)l->bytes, need), wfi_text_bytes((double)l->have, have));
	return false;
}

static void report(struct look *l, enum wfi_tier_file file)
{
	char text[WFI_TEXT];

	wfi_text_bytes((double)l->bytes, text);
	if (!l->direct)
		wfi_found(l->f, WFI_HEALTH_WARN, "a file on ext4 or xfs, or a block device",
			  "%s: %s without O_DIRECT there: the page cache holds a second copy",
			  l->path, text);
	else
		wfi_found(l->f, WFI_HEALTH_OK, NULL, "%s: %s, %s%s", l->path,
			  file == WFI_TIER_FILE_NEW ? "empty" : "a tier of this node", text,
			  l->in_use ? ", which a node has open now" : "");
}

static void judge(struct look *l, int fd, bool device)
{
	char why[200];
	const enum wfi_tier_file file =
		wfi_tier_ssd_look(l->head, l->node, &l->bytes, why, sizeof(why));

	if (file == WFI_TIER_FILE_REFUSED)
		fail(l, "until then the node serves without it", why);
	else if (device ? device_ok(l, fd) : room(l, l->path))
		report(l, file);
}

static void look_into(struct look *l, const struct stat *st)
{
	const bool device = S_ISBLK(st->st_mode);
	const int fd = open_as_node(l, device);

	if (fd < 0)
		return;
	l->in_use = flock(fd, LOCK_SH | LOCK_NB) != 0;
	l->have = (uint64_t)st->st_size;
	if (pread(fd, l->head, WFI_TIER_HEAD, 0) < 0)
		fail(l, "look at the kernel's log", strerror(errno));
	else
		judge(l, fd, device);
	close(fd);
}

static void look_at(struct look *l)
{
	struct stat st;

	if (!stat(l->path, &st) && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		look_into(l, &st);
	else if (!access(l->path, F_OK))
		fail(l, "name a file or a block device",
		     strerror(S_ISDIR(st.st_mode) ? EISDIR : EINVAL));
	else if (errno == ENOENT)
		look_for_room(l);
	else
		fail(l, "let the node's user pass through its folders", strerror(errno));
}

void wfi_check_tier(const char *file, struct wfi_finding *f)
{
	static struct wfi_config cfg;
	char why[WFI_CONFIG_WHY];
	struct look l = { .f = f };
	int ret = 0;

	wfi_config_defaults(&cfg);
	if (!file && !access(WFI_CONFIG_DEFAULT_FILE, F_OK))
		file = WFI_CONFIG_DEFAULT_FILE;
	if (file)
		ret = wfi_config_load(file, &cfg, why, sizeof(why));
	if (!ret)
		ret = wfi_config_finish(&cfg, why, sizeof(why));
	if (ret) {
		wfi_found(f, WFI_HEALTH_FAIL, "weftd --check says more", "%s", why);
		return;
	}
	if (!cfg.tier_path[0]) {
		wfi_found(f, WFI_HEALTH_OK, NULL, "none: %s %s",
			  file ? "no tier_path in" : "there is no",
			  file ? file : WFI_CONFIG_DEFAULT_FILE);
		return;
	}
	l.path = cfg.tier_path;
	l.bytes = cfg.tier_bytes;
	l.node = cfg.node_id;
	l.head = aligned_alloc(WFI_DISK_ALIGN, WFI_TIER_HEAD);
	if (!l.head) {
		wfi_found(f, WFI_HEALTH_FAIL, NULL, "no memory");
		return;
	}
	memset(l.head, 0, WFI_TIER_HEAD);
	look_at(&l);
	free(l.head);
}
