/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "transport/verbs/verbs.h"

#define GIDS_MAX 256

/* FNV-1a: finds what was garbled on the way, not what was forged */
/* bits that two GIDs have in common from the left: addresses of one subnet share most */
static unsigned prefix_bits(const uint8_t *a, const uint8_t *b)
{
	unsigned i;

	for (i = 0; i < 16; i++)
		if (a[i] != b[i])
			return i * 8 + (unsigned)__builtin_clz(a[i] ^ b[i]) - 24;
	return 128;
}

/* the same order of two pairs from either side, where both have equally much in common */
static int pair_cmp(const uint8_t *a1, const uint8_t *a2, const uint8_t *b1, const uint8_t *b2)
{
	bool a_swap = memcmp(a1, a2, 16) > 0, b_swap = memcmp(b1, b2, 16) > 0;
	int ret = memcmp(a_swap ? a2 : a1, b_swap ? b2 : b1, 16);

	return ret ? ret : memcmp(a_swap ? a1 : a2, b_swap ? b1 : b2, 16);
}

int wfi_verbs_gid_pair(const struct wfi_verbs_port *port, const uint8_t (*peer)[16], uint32_t nr,
		       uint32_t *ours, uint32_t *theirs)
{
	unsigned bits, best = 0;
	uint32_t i, j;

	for (i = 0; i < port->nr_gids; i++) {
		for (j = 0; j < nr; j++) {
			const uint8_t *gid = port->gids[i].raw;

			bits = prefix_bits(gid, peer[j]);
			if (bits < best || !bits ||
			    (bits == best &&
			     pair_cmp(gid, peer[j], port->gids[*ours].raw, peer[*theirs]) >= 0))
				continue;
			best = bits;
			*ours = i;
			*theirs = j;
		}
	}
	return best ? 0 : -ENOENT;
}

/* better first: a routable address before a link's own, IPv4 before IPv6; 0: of no use */
static unsigned gid_rank(const struct ibv_gid_entry *gid, uint8_t port, bool ethernet)
{
	static const uint8_t v4[12] = { [10] = 0xff, [11] = 0xff };
	static const uint8_t zero[16];

	if (gid->port_num != port || !memcmp(gid->gid.raw, zero, sizeof(zero)))
		return 0;
	if (!ethernet)
		return gid->gid_type == IBV_GID_TYPE_IB;
	if (gid->gid_type != IBV_GID_TYPE_ROCE_V2)
		return 0;
	if (!memcmp(gid->gid.raw, v4, sizeof(v4)))
		return 3;
	return gid->gid.raw[0] == 0xfe && (gid->gid.raw[1] & 0xc0) == 0x80 ? 1 : 2;
}

static void port_gids(struct ibv_context *ctx, struct wfi_verbs_port *port)
{
	static const unsigned best_rank = 3;
	struct ibv_gid_entry *table = calloc(GIDS_MAX, sizeof(*table));
	ssize_t nr = table ? ibv_query_gid_table(ctx, table, GIDS_MAX, 0) : 0, i;
	unsigned rank;

	for (rank = best_rank; rank; rank--) {
		for (i = 0; i < nr && port->nr_gids < WFI_VERBS_GIDS; i++) {
			if (gid_rank(&table[i], port->num, port->ethernet) != rank)
				continue;
			memcpy(port->gids[port->nr_gids].raw, table[i].gid.raw, 16);
			port->gids[port->nr_gids++].idx = table[i].gid_index;
		}
	}
	free(table);
}

static uint64_t port_speed(const struct ibv_port_attr *attr)
{
	/* widths are 1x, 4x, 8x, 12x as bits 0 to 3, and 2x as bit 4 */
	static const uint8_t lanes[] = { 1, 4, 8, 12, 2 };
	unsigned width = attr->active_width ? (unsigned)__builtin_ctz(attr->active_width) : 0;

	return (uint64_t)attr->active_speed * (width < sizeof(lanes) ? lanes[width] : 1);
}

/* Return: 0, or -ENODEV with @why */
static int port_look(struct ibv_context *ctx, uint8_t num, struct wfi_verbs_port *port, char *why)
{
	const char *name = ibv_get_device_name(ctx->device);
	struct ibv_port_attr attr;

	if (ibv_query_port(ctx, num, &attr) || attr.state != IBV_PORT_ACTIVE) {
		snprintf(why, WEFT_WHY_MAX, "%s: port %u is not active: bring its link up", name,
			 num);
		return -ENODEV;
	}
	memset(port, 0, sizeof(*port));
	port->num = num;
	port->mtu = (uint8_t)attr.active_mtu;
	port->ethernet = attr.link_layer == IBV_LINK_LAYER_ETHERNET;
	port->lid = attr.lid;
	port->max_msg = attr.max_msg_sz;
	port->speed = port_speed(&attr);
	port_gids(ctx, port);
	if (port->nr_gids)
		return 0;
	snprintf(why, WEFT_WHY_MAX, "%s: port %u has no %s GID: give its interface an address",
		 name, num, port->ethernet ? "RoCE v2" : "InfiniBand");
	return -ENODEV;
}

/* keeps the best port of @device in @best. Return: how many are of use */
static int device_look(struct ibv_device *device, unsigned want, struct wfi_verbs_port *best,
		       char *why)
{
	struct ibv_context *ctx = ibv_open_device(device);
	struct wfi_verbs_port port;
	struct ibv_device_attr attr;
	int found = 0;
	unsigned num;

	if (!ctx || ibv_query_device(ctx, &attr)) {
		snprintf(why, WEFT_WHY_MAX, "%s: %s: is /dev/infiniband open to this user?",
			 ibv_get_device_name(device), strerror(errno));
		goto out;
	}
	for (num = 1; num <= attr.phys_port_cnt; num++) {
		if ((want && num != want) || port_look(ctx, (uint8_t)num, &port, why))
			continue;
		found++;
		if (best->device && best->speed >= port.speed)
			continue;
		*best = port;
		best->device = device;
	}
out:
	if (ctx)
		ibv_close_device(ctx);
	return found;
}

int wfi_verbs_port_find(const char *name, struct wfi_verbs_port *out, struct ibv_device **list,
			char *why)
{
	const char *colon = name ? strchr(name, ':') : NULL;
	size_t len = !name ? 0 : colon ? (size_t)(colon - name) : strlen(name);
	unsigned want = colon ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
	int found = 0, named = 0;

	memset(out, 0, sizeof(*out));
	why[0] = '\0';
	for (; *list; list++) {
		const char *have = ibv_get_device_name(*list);

		if (name && (strlen(have) != len || memcmp(have, name, len)))
			continue;
		named++;
		found += device_look(*list, want, out, why);
	}
	if (found)
		return found;
	if (!named)
		snprintf(why, WEFT_WHY_MAX, "no RDMA device%s%s: rdma link shows what there is",
			 name ? " called " : "", name ? name : "");
	else if (!why[0])
		snprintf(why, WEFT_WHY_MAX, "%s: no such port", name);
	return -ENODEV;
}
