/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_direct.c - engines' memory on GPUs that NICs read and write themselves
 *
 * libweft passes a dma-buf beside the region, and each NIC that is to reach that GPU registers it:
 * the nearest of those that can. What a NIC may do there is no more than what the engine may, and
 * what it brings is summed up by the GPU in the region itself, so that a dma-buf of other memory
 * costs its engine misses and nobody else anything. The registration keeps the memory, whatever the
 * engine frees; it goes before the region does, when nothing is under way.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "weft_internal/log.h"

struct gpu_direct {
	struct wfi_env *env;
	int fd;
	uint64_t off; /* of the region in there */
	uint64_t len;
	uint32_t nets; /* bits: registered with these, while they are there */
	struct wfi_nic_memory memory; /* .mrs by net */
};

_Static_assert(NODE_NETS_MAX <= WFI_RAILS_MAX, "a registration for each");

/* ---- which NICs ---- */

static void path_look(const struct node *node, unsigned net, const struct wfi_gpu_info *info,
		      struct gpu_path *p, struct wfi_pci_distance *d)
{
	const struct node_link *link = &node->nets[net];
	const char *why = NULL, *name;

	*d = (struct wfi_pci_distance){ .near = WFI_PCI_UNKNOWN };
	if (!link->dev) {
		snprintf(p->nic, sizeof(p->nic), "%s", link->device);
		snprintf(p->why, sizeof(p->why), "the NIC is away");
		return;
	}
	name = link->dev->name;
	if (*name)
		*d = wfi_gpu_nic_distance(info, name);
	if (!*name)
		why = "there the CPU copies";
	else if (!(node->gpu.dev->caps.flags & WEFT_CAP_SUMS))
		why = "built without kernels, which alone can check what came";
	else
		why = wfi_gpu_nic_refused(info, link->dev->caps.flags & WEFT_CAP_DMABUF, *d);
	snprintf(p->nic, sizeof(p->nic), "%s", *name ? name : link->transport->name);
	snprintf(p->why, sizeof(p->why), "%s", why ? why : "");
	p->direct = !why;
}

/* of those that can, the nearest do */
static void paths_look(const struct node *node, const struct wfi_gpu_info *info,
		       struct gpu_path paths[NODE_NETS_MAX])
{
	struct wfi_pci_distance d[NODE_NETS_MAX];
	unsigned i, best = NODE_NETS_MAX;

	for (i = 0; i < node->nr_nets; i++) {
		path_look(node, i, info, &paths[i], &d[i]);
		if (paths[i].direct &&
		    (best == NODE_NETS_MAX || wfi_pci_compare(d[i], d[best]) < 0))
			best = i;
	}
	for (i = 0; i < node->nr_nets; i++) {
		if (!paths[i].direct || !wfi_pci_compare(d[i], d[best]))
			continue;
		paths[i].direct = false;
		snprintf(paths[i].why, sizeof(paths[i].why), "%s is nearer", paths[best].nic);
	}
}

static void paths_say(const struct node *node, const struct node_gpu *g)
{
	unsigned i;

	for (i = 0; i < node->nr_nets; i++) {
		const struct gpu_path *p = &g->paths[i];

		if (p->direct)
			wfi_info("gpu %d: blocks that %s brings go straight to its memory",
				 g->ordinal, p->nic);
		else
			wfi_info("gpu %d: blocks that %s brings stop in host memory: %s",
				 g->ordinal, p->nic, p->why);
	}
}

struct look_call {
	struct node_gpu gpu;
	unsigned idx;
};

static void run_look(struct node *node, void *arg)
{
	const struct look_call *c = arg;

	node->gpus[c->idx] = c->gpu;
	node->nr_gpus = wfi_max(node->nr_gpus, c->idx + 1);
}

int gpu_look(struct node *node, const uint8_t uuid[16])
{
	const char *no_driver;
	const struct wfi_cuda *cuda = wfi_cuda_load(&no_driver);
	struct look_call c = { .idx = 0 };
	const struct node_gpu *g;
	struct wfi_gpu_info info;
	int ordinal = cuda ? wfi_gpu_find(cuda, uuid, &info) : -ENODEV;

	if (ordinal < 0)
		return ordinal;
	/* written by the worker while this thread waits for it, and never else */
	while (c.idx < node->nr_gpus && node->gpus[c.idx].ordinal != ordinal)
		c.idx++;
	if (c.idx == NODE_GPUS_MAX)
		return -ENOSPC;
	g = &node->gpus[c.idx];
	c.gpu.ordinal = ordinal;
	snprintf(c.gpu.pci, sizeof(c.gpu.pci), "%s", info.pci);
	paths_look(node, &info, c.gpu.paths);
	if (c.idx == node->nr_gpus || memcmp(c.gpu.paths, g->paths, sizeof(g->paths)) != 0)
		paths_say(node, &c.gpu);
	node_call(node, run_look, &c);
	return (int)c.idx;
}

/* ---- registrations ---- */

static int mr_reg(struct node *node, struct gpu_direct *d, unsigned net)
{
	const struct weft_mr_opts o = {
		.size = sizeof(o),
		.addr = (void *)d->memory.base,
		.len = d->len,
		.access = WEFT_ACCESS_LOCAL_WRITE,
		.kind = WEFT_MR_DMABUF,
		.fd = d->fd,
		.fd_off = d->off,
	};
	struct weft_device *dev = node->nets[net].dev;

	return dev->transport->mr_reg(dev, &o, &d->memory.mrs[net]);
}

static void mr_dereg(struct gpu_direct *d, unsigned net)
{
	struct weft_mr *mr = d->memory.mrs[net];

	d->memory.mrs[net] = NULL;
	if (mr)
		mr->dev->transport->mr_dereg(mr);
}

struct gpu_direct *gpu_direct_open(struct node *node, unsigned gpu, int dmabuf, uint64_t off,
				   const struct wfi_gpu_source *from, struct weft_rkey *rkey)
{
	const struct node_gpu *g = &node->gpus[gpu];
	struct gpu_direct *d;
	uint64_t end;
	unsigned i;

	for (i = 0; i < node->nr_nets && !g->paths[i].direct; i++)
		;
	if (i == node->nr_nets || dmabuf < 0 ||
	    wfi_add_overflows(from->memory.addr, from->memory.len, &end) ||
	    wfi_add_overflows(off, from->memory.len, &end))
		return NULL;
	d = wfi_alloc(node->env, sizeof(*d));
	if (!d)
		return NULL;
	*d = (struct gpu_direct){
		.env = node->env,
		.fd = fcntl(dmabuf, F_DUPFD_CLOEXEC, 0),
		.off = off,
		.len = from->memory.len,
		.memory = { .rkey = rkey, .base = from->memory.addr, .shape = from->shape },
	};
	for (; d->fd >= 0 && i < node->nr_nets; i++)
		if (g->paths[i].direct && !mr_reg(node, d, i))
			d->nets |= 1u << i;
	if (d->nets)
		return d;
	gpu_direct_close(d);
	return NULL;
}

void gpu_direct_close(struct gpu_direct *d)
{
	unsigned i;

	if (!d)
		return;
	for (i = 0; i < NODE_NETS_MAX; i++)
		mr_dereg(d, i);
	if (d->fd >= 0)
		close(d->fd);
	wfi_free(d->env, d, sizeof(*d));
}

const struct wfi_nic_memory *gpu_direct_memory(const struct gpu_direct *d)
{
	return d ? &d->memory : NULL;
}

/* ---- NICs that go and come ---- */

static void session_net(struct node *node, struct session *s, unsigned net, bool there)
{
	unsigned i;

	for (i = 0; i < SESSION_REGIONS_MAX; i++) {
		struct gpu_direct *d = s->regions[i].rkey ? s->regions[i].direct : NULL;

		if (!d)
			continue;
		if (!there)
			mr_dereg(d, net);
		else if (d->nets >> net & 1)
			mr_reg(node, d, net); /* or not: then over others, or by host memory */
	}
}

void gpu_directs_net(struct node *node, const struct node_link *link, bool there)
{
	struct session *s;
	unsigned i;

	for (i = 0; i < node->nr_sessions; i++)
		session_net(node, node->sessions[i], (unsigned)(link - node->nets), there);
	for (s = node->ending_sessions; s; s = s->next_ending)
		session_net(node, s, (unsigned)(link - node->nets), there);
}
