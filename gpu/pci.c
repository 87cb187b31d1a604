/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Distance by sysfs: a device's real folder lies in that of the bridge above it, and so on up to
 * the host bridge, "pci0000:16". What two devices have in common of it is what their traffic turns
 * around in.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "weft_internal/gpu.h"

#define NVIDIA 0x10deu
#define CLASS_DISPLAY 0x03u /* of which 3D controllers are some */

/* a small file with one number. Return: false when it is not there */
static bool number(const char *folder, const char *file, long *out)
{
	char path[PATH_MAX];
	FILE *in;
	bool ok;

	if (snprintf(path, sizeof(path), "%s/%s", folder, file) >= (int)sizeof(path))
		return false;
	in = fopen(path, "re");
	if (!in)
		return false;
	ok = fscanf(in, "%li", out) == 1;
	fclose(in);
	return ok;
}

/* from the host bridge on, without the slash; NULL: not below one */
static const char *below_root(const char *path)
{
	const char *p = strstr(path, "/pci");

	return p ? p + 1 : NULL;
}

static unsigned count_slashes(const char *p)
{
	unsigned nr = 0;

	for (; *p; p++)
		nr += *p == '/';
	return nr;
}

/* how many leading components are the same; *rest_a, *rest_b: how many are not */
static unsigned common(const char *a, const char *b, unsigned *rest_a, unsigned *rest_b)
{
	const unsigned len_a = count_slashes(a) + 1, len_b = count_slashes(b) + 1;
	unsigned same = 0;
	size_t i;

	for (i = 0; a[i] == b[i] && a[i]; i++)
		same += a[i] == '/';
	/* one ends where the other goes on, or both do */
	if ((!a[i] || a[i] == '/') && (!b[i] || b[i] == '/'))
		same++;
	*rest_a = len_a - same;
	*rest_b = len_b - same;
	return same;
}

static enum wfi_pci_near by_numa(const char *a, const char *b)
{
	long node_a = -1, node_b = -1;

	number(a, "numa_node", &node_a);
	number(b, "numa_node", &node_b);
	/* where there is one node, the kernel says -1 of it */
	return node_a == node_b ? WFI_PCI_NUMA : WFI_PCI_FAR;
}

struct wfi_pci_distance wfi_pci_distance(const char *a, const char *b)
{
	struct wfi_pci_distance d = { .near = WFI_PCI_UNKNOWN };
	char real_a[PATH_MAX], real_b[PATH_MAX];
	const char *tail_a, *tail_b;
	unsigned same, rest_a, rest_b;

	if (!realpath(a, real_a) || !realpath(b, real_b))
		return d;
	tail_a = below_root(real_a);
	tail_b = below_root(real_b);
	if (!tail_a || !tail_b)
		return d;
	same = common(tail_a, tail_b, &rest_a, &rest_b);
	if (!same) {
		d.near = by_numa(real_a, real_b);
		return d;
	}
	/* the host bridge, and what else */
	d.near = same > 1 ? WFI_PCI_SWITCH : WFI_PCI_BRIDGE;
	d.hops = rest_a + rest_b;
	return d;
}

int wfi_pci_compare(struct wfi_pci_distance a, struct wfi_pci_distance b)
{
	if (a.near != b.near)
		return a.near < b.near ? -1 : 1;
	return (a.hops > b.hops) - (a.hops < b.hops);
}

const char *wfi_pci_text(struct wfi_pci_distance d, char *buf, size_t len)
{
	static const char *const words[] = {
		[WFI_PCI_SWITCH] = "one PCIe switch",
		[WFI_PCI_BRIDGE] = "one PCIe host bridge",
		[WFI_PCI_NUMA] = "two PCIe host bridges of one NUMA node",
		[WFI_PCI_FAR] = "PCIe host bridges of two NUMA nodes",
		[WFI_PCI_UNKNOWN] = "not both on PCIe",
	};

	if (d.hops)
		snprintf(buf, len, "%s, %u links", words[d.near], d.hops);
	else
		snprintf(buf, len, "%s", words[d.near]);
	return buf;
}

unsigned wfi_pci_gpus(const char *sysfs)
{
	char path[PATH_MAX], device[PATH_MAX];
	const struct dirent *e;
	unsigned nr = 0;
	long vendor, class;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/bus/pci/devices", sysfs ? sysfs : "/sys");
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.' || snprintf(device, sizeof(device), "%s/%s", path,
						    e->d_name) >= (int)sizeof(device))
			continue;
		nr += number(device, "vendor", &vendor) && vendor == NVIDIA &&
		      number(device, "class", &class) && class >> 16 == CLASS_DISPLAY;
	}
	if (dir)
		closedir(dir);
	return nr;
}
