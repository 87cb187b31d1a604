/* SPDX-License-Identifier: Apache-2.0 */
/*
 * the simulated world. One thread, one clock, one seed: the same calls in the same order see the
 * same world. Three generators, so that more faults do not shift what a test or a node draws.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/sim_store.h"

#define DISK_DEPTH 64
#define SECTOR 512u
/* completed writes that a crash can still take back */
#define NR_VOLATILE 64
/* 2020-01-01, so that a log of the simulated world looks like one */
#define WALL_START_NS (1577836800ull * WFI_NSEC_PER_SEC)

struct sim_rng {
	uint64_t state;
};

/* stands in front of each allocation; as long as a line, to keep what follows aligned */
struct sim_block {
	_Alignas(WFI_CACHELINE) struct sim_block *prev;
	struct sim_block *next;
	size_t len;
};

#define SIM_MAP_ASKED 3u

struct sim_mapping {
	struct sim_mapping *next;
	struct wfi_map map;
	unsigned asked; /* how often whether it is ready */
};

struct sim_write {
	uint64_t off;
	size_t len;
	void *bytes;
};

/* outlives its openers and crashes */
struct sim_file {
	struct sim_file *next;
	char *path;
	uint64_t len;
	unsigned char *now; /* what reads see */
	unsigned char *safe; /* what no crash takes back: @now without the last writes */
	struct sim_write volatile_writes[NR_VOLATILE]; /* a ring, oldest at first_write */
	unsigned first_write;
	unsigned nr_writes;
	struct sim_disk *opener;
};

struct sim_request {
	uint64_t off;
	void *buf;
	size_t len;
	uint64_t cookie;
	uint64_t due_ns;
	bool write;
};

struct sim_disk {
	struct wfi_disk base;
	struct sim_node *node;
	struct sim_file *file;
	struct sim_request requests[DISK_DEPTH];
	unsigned nr_requests;
};

struct sim_node {
	struct wfi_env env;
	struct wfi_sim *sim;
	struct sim_rng rng;
	struct sim_block blocks; /* head of a ring */
	struct sim_mapping *mappings;
	struct sim_file *files;
};

struct wfi_sim {
	uint64_t now_ns;
	struct sim_rng rng;
	struct sim_rng fault_rng;
	struct wfi_sim_faults faults;
	struct sim_store store;
	struct sim_node nodes[WFI_SIM_MAX_NODES];
};

static struct sim_node *to_node(struct wfi_env *env)
{
	return wfi_container_of(env, struct sim_node, env);
}

/* splitmix64 */
static uint64_t rng_next(struct sim_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* @bound is not 0; the bias is far below what a test could see */
static uint64_t rng_below(struct sim_rng *rng, uint64_t bound)
{
	return rng_next(rng) % bound;
}

static bool strikes(struct wfi_sim *sim, uint32_t ppm)
{
	return ppm && rng_below(&sim->fault_rng, 1000000) < ppm;
}

static uint64_t sim_now_ns(struct wfi_env *env)
{
	return to_node(env)->sim->now_ns;
}

static uint64_t sim_wall_ns(struct wfi_env *env)
{
	return WALL_START_NS + to_node(env)->sim->now_ns;
}

static const struct wfi_clock_ops sim_clock = {
	.now_ns = sim_now_ns,
	.wall_ns = sim_wall_ns,
};

static int sim_bytes(struct wfi_env *env, void *buf, size_t len)
{
	unsigned char *to = buf;
	uint64_t word;
	size_t part;

	for (; len; len -= part, to += part) {
		word = rng_next(&to_node(env)->rng);
		part = wfi_min(len, sizeof(word));
		memcpy(to, &word, part);
	}
	return 0;
}

static const struct wfi_rng_ops sim_rng_ops = {
	.bytes = sim_bytes,
};

static bool memory_fails(struct wfi_sim *sim)
{
	if (sim->faults.alloc_fail_nth && !--sim->faults.alloc_fail_nth)
		return true;
	return strikes(sim, sim->faults.alloc_fail_ppm);
}

static void *sim_alloc(struct wfi_env *env, size_t len)
{
	struct sim_node *node = to_node(env);
	struct sim_block *block;

	if (len > PTRDIFF_MAX - sizeof(*block) || memory_fails(node->sim))
		return NULL;
	block = wfi_os_alloc(sizeof(*block) + len);
	if (!block)
		return NULL;
	block->len = len;
	block->prev = &node->blocks;
	block->next = node->blocks.next;
	block->next->prev = block;
	node->blocks.next = block;
	return block + 1;
}

static void sim_free(struct wfi_env *env, void *ptr, size_t len)
{
	struct sim_block *block;

	(void)env;
	if (!ptr)
		return;
	block = (struct sim_block *)ptr - 1;
	assert(block->len == len);
	(void)len;
	block->prev->next = block->next;
	block->next->prev = block->prev;
	free(block);
}

static int sim_map(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	struct sim_node *node = to_node(env);
	struct sim_mapping *mapping;
	int ret;

	if (memory_fails(node->sim))
		return -ENOMEM;
	mapping = malloc(sizeof(*mapping));
	if (!mapping)
		return -ENOMEM;
	mapping->asked = 0;
	/* small pages always: what the machine has set aside is no part of this world */
	ret = wfi_os_map(len, flags & ~(unsigned)WFI_MAP_HUGE, &mapping->map);
	if (ret) {
		free(mapping);
		return ret;
	}
	mapping->next = node->mappings;
	node->mappings = mapping;
	*out = mapping->map;
	return 0;
}

static void sim_unmap(struct wfi_env *env, struct wfi_map *map)
{
	struct sim_mapping **at = &to_node(env)->mappings;
	struct sim_mapping *mapping;

	if (!map->addr)
		return;
	while (*at && (*at)->map.addr != map->addr)
		at = &(*at)->next;
	assert(*at);
	mapping = *at;
	*at = mapping->next;
	free(mapping);
	wfi_os_unmap(map);
}

static struct sim_mapping *mapping_of(struct wfi_env *env, const struct wfi_map *map)
{
	struct sim_mapping *mapping = to_node(env)->mappings;

	while (mapping->map.addr != map->addr)
		mapping = mapping->next;
	return mapping;
}

/* a background that takes until it was asked a few times */
static void sim_populate(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len)
{
	(void)off;
	(void)len;
	mapping_of(env, map)->asked = 0;
}

/* its address is known at once: tests that want it late have a table of their own */
static void sim_map_begin(struct wfi_env *env, size_t len, unsigned flags, struct wfi_map *out)
{
	*out = (struct wfi_map){ .fd = -1 };
	(void)!sim_map(env, len, flags, out);
}

static size_t sim_populated(struct wfi_env *env, struct wfi_map *map)
{
	uint32_t asked;

	if (!map->addr)
		return SIZE_MAX;
	asked = mapping_of(env, map)->asked++;
	return asked < SIM_MAP_ASKED ? map->len / SIM_MAP_ASKED * asked : SIZE_MAX;
}

static int sim_discard(struct wfi_env *env, struct wfi_map *map, size_t off, size_t len)
{
	(void)env;
	return wfi_os_discard(map, off, len);
}

static const struct wfi_alloc_ops sim_mem = {
	.alloc = sim_alloc,
	.free = sim_free,
	.map = sim_map,
	.unmap = sim_unmap,
	.map_begin = sim_map_begin,
	.populate = sim_populate,
	.populated = sim_populated,
	.unmap_begin = sim_unmap,
	.discard = sim_discard,
};

static void file_free(struct sim_file *file)
{
	unsigned idx;

	for (idx = 0; idx < NR_VOLATILE; idx++)
		free(file->volatile_writes[idx].bytes);
	free(file->now);
	free(file->safe);
	free(file->path);
	free(file);
}

static struct sim_file *file_create(struct sim_node *node, const char *path, uint64_t len)
{
	struct sim_file *file = calloc(1, sizeof(*file));

	if (!file)
		return NULL;
	file->len = len;
	file->path = strdup(path);
	file->now = calloc(1, len);
	file->safe = calloc(1, len);
	if (!file->path || !file->now || !file->safe) {
		file_free(file);
		return NULL;
	}
	file->next = node->files;
	node->files = file;
	return file;
}

static int sim_open(struct wfi_env *env, const char *path, uint64_t len, struct wfi_disk **out)
{
	struct sim_node *node = to_node(env);
	struct sim_file *file = node->files;
	struct sim_disk *disk;

	if (!len || len % WFI_DISK_ALIGN || len > PTRDIFF_MAX)
		return -EINVAL;
	while (file && strcmp(file->path, path))
		file = file->next;
	if (file && file->opener)
		return -EBUSY;
	if (!file)
		file = file_create(node, path, len);
	if (!file)
		return -ENOSPC;
	if (file->len < len)
		return -ENOSPC;
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	disk->base.len = len;
	disk->node = node;
	disk->file = file;
	file->opener = disk;
	*out = &disk->base;
	return 0;
}

static struct sim_disk *to_sim_disk(struct wfi_disk *disk)
{
	return wfi_container_of(disk, struct sim_disk, base);
}

static int disk_queue(struct wfi_disk *base, struct sim_request *req)
{
	struct sim_disk *disk = to_sim_disk(base);
	struct wfi_sim *sim = disk->node->sim;
	int ret;

	ret = wfi_disk_check(base, req->off, req->buf, req->len);
	if (ret)
		return ret;
	if (disk->nr_requests == DISK_DEPTH)
		return -EAGAIN;
	req->due_ns = sim->now_ns;
	if (sim->faults.disk_latency_ns)
		req->due_ns += rng_below(&sim->fault_rng, sim->faults.disk_latency_ns);
	disk->requests[disk->nr_requests++] = *req;
	return 0;
}

static int sim_read(struct wfi_disk *disk, uint64_t off, void *buf, size_t len, uint64_t cookie)
{
	struct sim_request req = { .off = off, .buf = buf, .len = len, .cookie = cookie };

	return disk_queue(disk, &req);
}

static int sim_write(struct wfi_disk *disk, uint64_t off, const void *buf, size_t len,
		     uint64_t cookie)
{
	/* only read from, as .write says */
	struct sim_request req = { .off = off,
				   .buf = (void *)(uintptr_t)buf,
				   .len = len,
				   .cookie = cookie,
				   .write = true };

	return disk_queue(disk, &req);
}

/* the oldest write that a crash could take back becomes safe from it */
static void file_settle(struct sim_file *file)
{
	struct sim_write *write = &file->volatile_writes[file->first_write];

	memcpy(file->safe + write->off, write->bytes, write->len);
	free(write->bytes);
	write->bytes = NULL;
	file->first_write = (file->first_write + 1) % NR_VOLATILE;
	file->nr_writes--;
}

static int sim_lend(struct wfi_disk *disk, void *addr, uint64_t len)
{
	(void)disk;
	(void)addr;
	(void)len;
	return 0;
}

/* Return: 0, -ENOMEM */
static int file_resize(struct sim_file *file, uint64_t len)
{
	unsigned char *now = calloc(1, len), *safe = calloc(1, len);

	if (!now || !safe) {
		free(now);
		free(safe);
		return -ENOMEM;
	}
	while (file->nr_writes)
		file_settle(file);
	memcpy(now, file->now, wfi_min(len, file->len));
	memcpy(safe, file->safe, wfi_min(len, file->len));
	free(file->now);
	free(file->safe);
	file->now = now;
	file->safe = safe;
	file->len = len;
	return 0;
}

static int sim_resize(struct wfi_disk *base, uint64_t len)
{
	struct sim_disk *disk = to_sim_disk(base);
	int ret;

	if (!len || len % WFI_DISK_ALIGN)
		return -EINVAL;
	if (strikes(disk->node->sim, disk->node->sim->faults.disk_full_ppm))
		return -ENOSPC;
	ret = len == disk->file->len ? 0 : file_resize(disk->file, len);
	if (!ret)
		base->len = len;
	return ret;
}

static void flip_bit(struct wfi_sim *sim, unsigned char *bytes, size_t len)
{
	const uint64_t bit = rng_below(&sim->fault_rng, (uint64_t)len * 8);

	bytes[bit / 8] ^= (unsigned char)(1u << (bit % 8));
}

/* Return: bytes written, or -errno */
static int64_t file_write(struct wfi_sim *sim, struct sim_file *file, const struct sim_request *req,
			  size_t len)
{
	struct sim_write *write;
	void *bytes;

	if (!len)
		return 0;
	bytes = malloc(len);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, req->buf, len);
	if (strikes(sim, sim->faults.disk_flip_ppm))
		flip_bit(sim, bytes, len);
	if (file->nr_writes == NR_VOLATILE)
		file_settle(file);
	write = &file->volatile_writes[(file->first_write + file->nr_writes++) % NR_VOLATILE];
	*write = (struct sim_write){ .off = req->off, .len = len, .bytes = bytes };
	memcpy(file->now + req->off, bytes, len);
	return (int64_t)len;
}

static int64_t disk_execute(struct sim_disk *disk, const struct sim_request *req)
{
	struct wfi_sim *sim = disk->node->sim;
	size_t len = req->len;

	if (strikes(sim, sim->faults.disk_error_ppm))
		return -EIO;
	if (strikes(sim, sim->faults.disk_short_ppm))
		len = rng_below(&sim->fault_rng, len / SECTOR) * SECTOR;
	if (req->write && strikes(sim, sim->faults.disk_full_ppm))
		return -ENOSPC;
	/* somebody has cut the file */
	len = (size_t)wfi_min(len, disk->file->len - wfi_min(req->off, disk->file->len));
	if (req->write)
		return file_write(sim, disk->file, req, len);
	memcpy(req->buf, disk->file->now + req->off, len);
	if (len && strikes(sim, sim->faults.disk_flip_ppm))
		flip_bit(sim, req->buf, len);
	return (int64_t)len;
}

/* Return: index of the request that is done first, at the latest @until_ns; or nr_requests */
static unsigned disk_first_due(const struct sim_disk *disk, uint64_t until_ns)
{
	unsigned idx, first = disk->nr_requests;

	for (idx = 0; idx < disk->nr_requests; idx++) {
		if (disk->requests[idx].due_ns > until_ns)
			continue;
		if (first == disk->nr_requests ||
		    disk->requests[idx].due_ns < disk->requests[first].due_ns)
			first = idx;
	}
	return first;
}

static int64_t disk_finish(struct sim_disk *disk, unsigned idx, uint64_t *cookie)
{
	struct sim_request *req = &disk->requests[idx];
	const int64_t res = disk_execute(disk, req);

	*cookie = req->cookie;
	disk->nr_requests--;
	/* keeps their order, in which those of one time are done */
	memmove(req, req + 1, (disk->nr_requests - idx) * sizeof(*req));
	return res;
}

static int sim_poll(struct wfi_disk *base, uint64_t *cookies, int64_t *res, unsigned max)
{
	struct sim_disk *disk = to_sim_disk(base);
	unsigned nr = 0, idx;

	while (nr < max) {
		idx = disk_first_due(disk, disk->node->sim->now_ns);
		if (idx == disk->nr_requests)
			break;
		res[nr] = disk_finish(disk, idx, &cookies[nr]);
		nr++;
	}
	return (int)nr;
}

static void disk_free(struct sim_disk *disk)
{
	disk->file->opener = NULL;
	free(disk);
}

static void sim_close(struct wfi_disk *base)
{
	struct sim_disk *disk;
	uint64_t cookie;

	if (!base)
		return;
	disk = to_sim_disk(base);
	while (disk->nr_requests)
		disk_finish(disk, disk_first_due(disk, UINT64_MAX), &cookie);
	disk_free(disk);
}

static const struct wfi_disk_ops sim_disk_ops = {
	.open = sim_open,
	.read = sim_read,
	.write = sim_write,
	.lend = sim_lend,
	.resize = sim_resize,
	.poll = sim_poll,
	.close = sim_close,
};

static const struct wfi_member_view *store_view(struct wfi_env *env)
{
	struct sim_node *node = to_node(env);
	struct wfi_sim *sim = node->sim;

	return sim_store_view(&sim->store, (unsigned)(node - sim->nodes), sim->now_ns);
}

static int sim_members(struct wfi_env *env, struct wfi_member *out, unsigned max, uint64_t *epoch)
{
	const struct wfi_member_view *view = store_view(env);

	if (!view)
		return -ENOMEM;
	*epoch = view->epoch;
	return (int)wfi_member_view_copy(view, out, max);
}

static uint64_t sim_changes(struct wfi_env *env)
{
	const struct wfi_member_view *view = store_view(env);

	return view ? view->changes : 0;
}

static int sim_publish(struct wfi_env *env, const struct wfi_member *self)
{
	struct sim_node *node = to_node(env);
	struct wfi_sim *sim = node->sim;

	sim_store_publish(&sim->store, (unsigned)(node - sim->nodes), self, sim->now_ns);
	return 0;
}

static const struct wfi_membership_ops sim_membership = {
	.members = sim_members,
	.changes = sim_changes,
	.publish = sim_publish,
};

static const struct weft_transport *const no_transports[] = { NULL };

static void node_init(struct wfi_sim *sim, struct sim_node *node, uint64_t seed)
{
	node->env = (struct wfi_env){
		.clock = &sim_clock,
		.rng = &sim_rng_ops,
		.mem = &sim_mem,
		.disk = &sim_disk_ops,
		.membership = &sim_membership,
		.transports = no_transports,
	};
	node->sim = sim;
	node->rng.state = seed;
	node->blocks.prev = &node->blocks;
	node->blocks.next = &node->blocks;
}

int wfi_sim_create(uint64_t seed, struct wfi_sim **out)
{
	struct sim_rng seeds = { .state = seed };
	struct wfi_sim *sim;
	unsigned idx;

	sim = wfi_os_alloc(sizeof(*sim));
	if (!sim)
		return -ENOMEM;
	/* not 0, which many a field uses for never */
	sim->now_ns = WFI_NSEC_PER_SEC;
	sim->rng.state = rng_next(&seeds);
	sim->fault_rng.state = rng_next(&seeds);
	sim->store.seed = ~seed;
	for (idx = 0; idx < WFI_SIM_MAX_NODES; idx++)
		node_init(sim, &sim->nodes[idx], rng_next(&seeds));
	*out = sim;
	return 0;
}

static void node_drop_mappings(struct sim_node *node)
{
	struct sim_mapping *mapping;

	while ((mapping = node->mappings)) {
		node->mappings = mapping->next;
		wfi_os_unmap(&mapping->map);
		free(mapping);
	}
}

static void node_drop_blocks(struct sim_node *node)
{
	struct sim_block *block;

	while ((block = node->blocks.next) != &node->blocks)
		sim_free(&node->env, block + 1, block->len);
}

/*
 * Each of the last writes is lost by itself, as a drive's cache gives no order: what survives goes
 * on top of what was safe, oldest first. A torn one keeps some of its first sectors.
 */
static void file_crash(struct wfi_sim *sim, struct sim_file *file)
{
	struct sim_write *write;

	while (file->nr_writes) {
		write = &file->volatile_writes[file->first_write];
		if (strikes(sim, sim->faults.disk_lost_ppm)) {
			if (rng_next(&sim->fault_rng) & 1)
				write->len = 0;
			else
				write->len = rng_below(&sim->fault_rng, write->len / SECTOR + 1) *
					     SECTOR;
		}
		file_settle(file);
	}
	memcpy(file->now, file->safe, file->len);
}

/* writes under way reach the drive or not, and then are as unsafe as the last ones */
static void disk_crash(struct sim_disk *disk)
{
	struct wfi_sim *sim = disk->node->sim;
	unsigned idx;

	for (idx = 0; idx < disk->nr_requests; idx++)
		if (disk->requests[idx].write && rng_next(&sim->fault_rng) & 1)
			disk_execute(disk, &disk->requests[idx]);
	disk_free(disk);
}

void wfi_sim_crash(struct wfi_sim *sim, unsigned idx)
{
	struct sim_node *node = &sim->nodes[idx];
	struct sim_file *file;

	for (file = node->files; file; file = file->next) {
		if (file->opener)
			disk_crash(file->opener);
		file_crash(sim, file);
	}
	node_drop_mappings(node);
	node_drop_blocks(node);
	sim_store_crash(&sim->store, idx, sim->now_ns);
}

void wfi_sim_destroy(struct wfi_sim *sim)
{
	struct sim_file *file;
	unsigned idx;

	if (!sim)
		return;
	for (idx = 0; idx < WFI_SIM_MAX_NODES; idx++) {
		/* blocks stay: whoever forgot one hears of it from the leak checker */
		node_drop_mappings(&sim->nodes[idx]);
		while ((file = sim->nodes[idx].files)) {
			sim->nodes[idx].files = file->next;
			free(file->opener);
			file_free(file);
		}
	}
	sim_store_fini(&sim->store);
	free(sim);
}

struct wfi_env *wfi_sim_node(struct wfi_sim *sim, unsigned idx)
{
	return idx < WFI_SIM_MAX_NODES ? &sim->nodes[idx].env : NULL;
}

void wfi_sim_advance(struct wfi_sim *sim, uint64_t ns)
{
	sim->now_ns += ns;
}

uint64_t wfi_sim_rand(struct wfi_sim *sim)
{
	return rng_next(&sim->rng);
}

static struct sim_file *file_find(struct wfi_sim *sim, unsigned idx, const char *path)
{
	struct sim_file *file = sim->nodes[idx].files;

	while (file && strcmp(file->path, path))
		file = file->next;
	return file;
}

unsigned char *wfi_sim_file(struct wfi_sim *sim, unsigned idx, const char *path, uint64_t *len)
{
	struct sim_file *file = file_find(sim, idx, path);

	if (!file)
		return NULL;
	while (file->nr_writes)
		file_settle(file);
	*len = file->len;
	return file->now;
}

int wfi_sim_truncate(struct wfi_sim *sim, unsigned idx, const char *path, uint64_t len)
{
	struct sim_file *file = file_find(sim, idx, path);

	return file ? file_resize(file, len) : -ENOENT;
}

void wfi_sim_set_faults(struct wfi_sim *sim, const struct wfi_sim_faults *faults)
{
	sim->faults = *faults;
	sim->store.delay_ns = faults->store_delay_ns;
	sim->store.lost_ppm = faults->store_lost_ppm;
}

void wfi_sim_store_reach(struct wfi_sim *sim, unsigned idx, bool reached)
{
	sim_store_reach(&sim->store, idx, reached, sim->now_ns);
}

void wfi_sim_store_down(struct wfi_sim *sim, bool down)
{
	sim_store_down(&sim->store, down, sim->now_ns);
}

void wfi_sim_store_wipe(struct wfi_sim *sim)
{
	sim_store_wipe(&sim->store, sim->now_ns);
}

void wfi_sim_store_compact(struct wfi_sim *sim)
{
	sim_store_compact(&sim->store);
}

void wfi_sim_store_lose(struct wfi_sim *sim, unsigned idx)
{
	sim_store_lose(&sim->store, idx, sim->now_ns);
}

int wfi_sim_set_members(struct wfi_sim *sim, const struct wfi_member *members, unsigned nr)
{
	if (nr > WFI_MEMBERS_MAX)
		return -EINVAL;
	sim_store_set(&sim->store, members, nr);
	return 0;
}
