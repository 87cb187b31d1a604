/* SPDX-License-Identifier: Apache-2.0 */
/* tenants and spaces. Cold, but for the two that find a space by its name */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "kvcache/crc32c_private.h"
#include "kvcache/kv_private.h"
#include "kvcache/tier.h"
#include "weft_internal/log.h"

#define MIN_BLOCK_BYTES 64ull
#define MAX_BLOCK_BYTES (1ull << 30)
#define REPLICAS_MAX 8u
#define DEFAULT_EXTENT_BYTES (32u << 20)
#define MIN_EXTENT_SHIFT 12
#define GOOD_EXTENTS 64u /* fewer make too coarse a measure for sharing an arena */
#define WHY_BYTES 184

/* ---- tenants ---- */

static uint32_t extent_shift(const struct wfi_kv *kv, uint64_t arena_bytes)
{
	const uint32_t bytes = kv->extent_bytes ? kv->extent_bytes : DEFAULT_EXTENT_BYTES;
	const uint64_t least = kv->extent_bytes ? 1 : GOOD_EXTENTS;
	uint32_t shift = (uint32_t)__builtin_ctz(bytes);

	while (arena_bytes >> shift < least && shift > MIN_EXTENT_SHIFT)
		shift--;
	return shift;
}

/* memfds are opened for writing: a second description of the same file, for peers */
static int open_read_only(int fd)
{
	char path[64];
	int ret;

	if (fd < 0)
		return -EOPNOTSUPP;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ret = open(path, O_RDONLY | O_CLOEXEC);
	return ret < 0 ? -errno : ret;
}

/* @but: has it already, or NULL. Return: 0 and @token, zero-padded; -EEXIST somebody else has name
 * or token; logged */
static int token_check(const struct wfi_kv *kv, const struct wfi_tenant_opts *opts,
		       const struct wfi_tenant *but, char token[WEFT_TOKEN_MAX])
{
	memset(token, 0, WEFT_TOKEN_MAX);
	memcpy(token, opts->token, strnlen(opts->token, WEFT_TOKEN_MAX));
	for (uint32_t i = 0; i < kv->nr_tenants; i++) {
		const struct wfi_tenant *t = kv->tenants[i];

		if (t == but || (strcmp(t->name, opts->name) != 0 &&
				 sodium_memcmp(t->token, token, WEFT_TOKEN_MAX)))
			continue;
		wfi_err("tenants '%s' and '%s' have one name or token: give each its own", t->name,
			opts->name);
		return -EEXIST;
	}
	return 0;
}

static int tenant_check(const struct wfi_kv *kv, const struct wfi_tenant_opts *opts,
			char token[WEFT_TOKEN_MAX])
{
	const size_t name_len = strnlen(opts->name, WEFT_NAME_MAX);
	const size_t token_len = strnlen(opts->token, WEFT_TOKEN_MAX + 1);

	if (!name_len || name_len == WEFT_NAME_MAX || token_len > WEFT_TOKEN_MAX ||
	    opts->arena_bytes < 1ull << MIN_EXTENT_SHIFT) {
		wfi_err("tenant '%.*s': a name of 1 to %d bytes, a token of up to %d, an arena of "
			"at least %d wanted",
			(int)name_len, opts->name, WEFT_NAME_MAX - 1, WEFT_TOKEN_MAX,
			1 << MIN_EXTENT_SHIFT);
		return -EINVAL;
	}
	if (token_check(kv, opts, NULL, token))
		return -EEXIST;
	if (kv->nr_tenants == KV_MAX_TENANTS) {
		wfi_err("tenant '%s': there are %u already, the most that a node takes", opts->name,
			KV_MAX_TENANTS);
		return -ENOMEM;
	}
	return 0;
}

int wfi_kv_tenant_add(struct wfi_kv *kv, const struct wfi_tenant_opts *opts,
		      struct wfi_tenant **out)
{
	struct wfi_tenant *t;
	char token[WEFT_TOKEN_MAX];
	unsigned flags = opts->map_flags | WFI_MAP_SHARED_FD;
	int ret;

	ret = tenant_check(kv, opts, token);
	if (ret)
		return ret;
	t = wfi_alloc(kv->env, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->kv = kv;
	strcpy(t->name, opts->name);
	memcpy(t->token, token, sizeof(token));
	memcpy(t->salt, opts->salt, sizeof(t->salt));
	t->extent_shift = extent_shift(kv, opts->arena_bytes);
	t->nr_extents = (uint32_t)wfi_min(opts->arena_bytes >> t->extent_shift, INT32_MAX);
	t->nr_free_extents = t->nr_extents;
	t->extent_used = wfi_alloc(kv->env, t->nr_extents);
	ret = -ENOMEM;
	if (!t->extent_used)
		goto err_free;
	/* pages that come and go: none of those that an administrator set aside for good */
	if (kv->memory_bytes != UINT64_MAX)
		flags |= WFI_MAP_SPARSE;
	ret = kv->env->mem->map(kv->env, (uint64_t)t->nr_extents << t->extent_shift, flags,
				&t->arena);
	if (ret) {
		wfi_err("tenant '%s': no arena of %" PRIu64 " bytes: %s", t->name,
			opts->arena_bytes, strerror(-ret));
		goto err_free_used;
	}
	ret = wfi_share_join(kv, t, opts);
	if (ret)
		goto err_unmap;
	t->ro_fd = open_read_only(t->arena.fd);
	t->idx = kv->nr_tenants;
	kv->tenants[kv->nr_tenants++] = t;
	*out = t;
	return 0;

err_unmap:
	kv->env->mem->unmap(kv->env, &t->arena);
err_free_used:
	wfi_free(kv->env, t->extent_used, t->nr_extents);
err_free:
	wfi_free(kv->env, t, sizeof(*t));
	return ret;
}

static void space_destroy(struct wfi_kv *kv, struct kv_space *space)
{
	wfi_space_free_runs(kv, space);
	space->policy->destroy(space->evict);
	wfi_free(kv->env, space, sizeof(*space));
}

void wfi_tenant_destroy(struct wfi_tenant *t)
{
	struct wfi_kv *kv = t->kv;

	while (t->spaces) {
		struct kv_space *space = t->spaces;

		t->spaces = space->next;
		space_destroy(kv, space);
	}
	if (t->ro_fd >= 0)
		close(t->ro_fd);
	kv->env->mem->unmap(kv->env, &t->arena);
	wfi_free(kv->env, t->extent_used, t->nr_extents);
	wfi_free(kv->env, t, sizeof(*t));
}

int wfi_kv_tenant_set(struct wfi_tenant *t, const struct wfi_tenant_opts *opts)
{
	char token[WEFT_TOKEN_MAX];
	int ret;

	if (strnlen(opts->token, WEFT_TOKEN_MAX + 1) > WEFT_TOKEN_MAX)
		return -EINVAL;
	ret = token_check(t->kv, opts, t, token);
	if (!ret)
		ret = wfi_share_change(t, opts);
	if (!ret)
		memcpy(t->token, token, sizeof(token));
	return ret;
}

void wfi_kv_tenant_close(struct wfi_tenant *t, bool closed)
{
	t->closed = closed;
}

bool wfi_tenant_closed(const struct wfi_tenant *t)
{
	return t->closed;
}

struct wfi_tenant *wfi_kv_tenant_find(struct wfi_kv *kv, const char token[WEFT_TOKEN_MAX])
{
	struct wfi_tenant *found = NULL;

	/* all of them, always: the time says nothing of which one */
	for (uint32_t i = 0; i < kv->nr_tenants; i++)
		if (!sodium_memcmp(kv->tenants[i]->token, token, WEFT_TOKEN_MAX) &&
		    !kv->tenants[i]->closed)
			found = kv->tenants[i];
	return found;
}

const struct wfi_map *wfi_tenant_arena(const struct wfi_tenant *t)
{
	return &t->arena;
}

const char *wfi_tenant_name(const struct wfi_tenant *t)
{
	return t->name;
}

int wfi_tenant_arena_ro_fd(const struct wfi_tenant *t)
{
	return t->ro_fd;
}

/* ---- opening a space ---- */

int wfi_space_refuse(const struct wfi_tenant *t, char *why, int ret, const char *fmt, ...)
{
	char text[WHY_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	wfi_warn("tenant '%s': space refused: %s", t->name, text);
	if (why)
		memcpy(why, text, sizeof(text));
	return ret;
}

static bool name_ok(const char *name)
{
	const size_t len = name ? strnlen(name, WEFT_NAME_MAX) : WEFT_NAME_MAX;

	if (len == WEFT_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
			return false;
	return true;
}

static int opts_check(const struct wfi_tenant *t, const struct weft_space_opts *o, char *why)
{
	if (o->size < sizeof(*o))
		return wfi_space_refuse(t, why, -EINVAL, "options of %zu bytes, %zu wanted",
					o->size, sizeof(*o));
	for (size_t i = sizeof(*o); i < o->size; i++)
		if (((const uint8_t *)o)[i])
			return wfi_space_refuse(t, why, -EINVAL,
						"options of a newer version: byte %zu is not 0", i);
	if (o->block_bytes < MIN_BLOCK_BYTES || o->block_bytes > MAX_BLOCK_BYTES)
		return wfi_space_refuse(t, why, -EINVAL,
					"blocks of %" PRIu64 " bytes, 64 to 1 GiB wanted",
					o->block_bytes);
	if (o->nr_layers && o->block_bytes % o->nr_layers)
		return wfi_space_refuse(t, why, -EINVAL,
					"%" PRIu64 " bytes are no multiple of %u layers",
					o->block_bytes, o->nr_layers);
	if (!name_ok(o->model) || !name_ok(o->layout))
		return wfi_space_refuse(
			t, why, -EINVAL,
			"model and layout: up to %d bytes each, no control characters",
			WEFT_NAME_MAX - 1);
	if (!o->tokens_per_block)
		return wfi_space_refuse(t, why, -EINVAL, "tokens_per_block is 0");
	if (o->dtype > WEFT_DTYPE_INT8)
		return wfi_space_refuse(t, why, -EINVAL, "dtype %u is not known", o->dtype);
	if (o->verify > 1)
		return wfi_space_refuse(t, why, -EINVAL, "verify is %u, 0 or 1 wanted", o->verify);
	if (o->replicas > REPLICAS_MAX)
		return wfi_space_refuse(t, why, -EINVAL, "replicas is %u, at most %u wanted",
					o->replicas, REPLICAS_MAX);
	return 0;
}

/*
 * as few extents as lose little of the arena: to the end of a run that is no whole slot, or to
 * extents that are left when the rest is cut into runs
 */
static int cut_runs(struct kv_space *space, char *why)
{
	const struct wfi_tenant *t = space->tenant;
	const uint64_t extent = 1ull << t->extent_shift, stride = space->info.stride;
	const uint64_t ideal = ((uint64_t)t->nr_extents << t->extent_shift) / stride;
	const uint64_t first = (stride + extent - 1) >> t->extent_shift;
	uint64_t best = 0;

	for (uint64_t nr = first; nr < first + 8 && nr <= t->nr_extents; nr++) {
		const uint64_t slots = (nr << t->extent_shift) / stride;
		const uint64_t sum = t->nr_extents / nr * slots;

		if (sum <= best || slots > INDEX_SLOT_MAX)
			continue;
		best = sum;
		space->run_slots = (uint32_t)slots;
		space->run_extents = (uint32_t)nr;
		if (sum >= ideal - ideal / 16)
			break;
	}
	if (!best)
		return wfi_space_refuse(t, why, -E2BIG,
					"a block of %" PRIu64
					" bytes does not fit the arena of %" PRIu64
					": make the arena larger",
					space->info.block_bytes,
					(uint64_t)t->nr_extents << t->extent_shift);
	return 0;
}

static bool same_geometry(const struct kv_space *s, const struct weft_space_opts *o)
{
	return s->info.block_bytes == o->block_bytes &&
	       s->tokens_per_block == o->tokens_per_block &&
	       s->info.nr_layers == (o->nr_layers ? o->nr_layers : 1) && s->dtype == o->dtype &&
	       !strcmp(s->model, o->model) && !strcmp(s->layout, o->layout);
}

/* what moves a CRC past one block, a byte of the CRC at a time */
static void crc_shift_init(struct kv_crc_shift *shift, uint64_t len)
{
	const uint32_t power = wfi_crc32c_power(len);

	for (unsigned byte = 0; byte < 4; byte++)
		for (uint32_t v = 0; v < 256; v++)
			shift->table[byte][v] = wfi_crc32c_mul(v << 8 * byte, power);
}

static void space_fill(struct kv_space *space, struct wfi_tenant *t,
		       const struct weft_space_opts *o)
{
	uint8_t sum[crypto_generichash_BYTES_MIN];

	space->tenant = t;
	strcpy(space->model, o->model);
	strcpy(space->layout, o->layout);
	space->tokens_per_block = o->tokens_per_block;
	space->dtype = o->dtype;
	space->max_blocks = o->max_blocks ? o->max_blocks : UINT64_MAX;
	space->info.block_bytes = o->block_bytes;
	space->info.stride = wfi_align_up(o->block_bytes, WFI_CACHELINE);
	space->info.nr_layers = o->nr_layers ? o->nr_layers : 1;
	space->info.verify = o->verify;
	space->info.tag = wfi_space_tag(t->salt, o);
	wfi_space_secret(t->salt, o, space->info.secret);
	crypto_generichash(sum, sizeof(sum), (const uint8_t *)o->layout, strlen(o->layout), NULL,
			   0);
	memcpy(&space->layout_id, sum, sizeof(space->layout_id));
	crc_shift_init(&space->crc_shift, o->block_bytes);
}

/* the policy, and the way from its numbers to runs: for as many as the arena can give */
static int locals_create(struct wfi_kv *kv, struct kv_space *space, uint64_t seed)
{
	const uint32_t nr_runs = space->tenant->nr_extents / space->run_extents;
	int ret;

	space->nr_granules = nr_runs * kv_run_granules(space);
	space->granules = wfi_alloc(kv->env, space->nr_granules * sizeof(*space->granules));
	if (!space->granules)
		return -ENOMEM;
	space->policy = kv->policy;
	ret = space->policy->create(kv->env, space->nr_granules << KV_GRANULE_BITS, seed,
				    &space->evict);
	if (ret)
		wfi_free(kv->env, space->granules, space->nr_granules * sizeof(*space->granules));
	return ret;
}

/* Return: the first number that no space has, KV_MAX_SPACES: none is left */
static uint32_t space_number(const struct wfi_kv *kv)
{
	uint32_t idx = 0;

	while (idx < kv->nr_spaces && kv->spaces[idx])
		idx++;
	return idx;
}

static int space_create(struct wfi_kv *kv, struct wfi_tenant *t, const struct weft_space_opts *o,
			struct kv_space **out, char *why)
{
	struct kv_space *space;
	uint64_t seed;
	int ret;

	if (space_number(kv) == KV_MAX_SPACES || t->nr_spaces == WFI_TENANT_SPACES_MAX)
		return wfi_space_refuse(t, why, -E2BIG,
					"the node has %u spaces at most, %u of one tenant: remove "
					"some (weft space remove)",
					KV_MAX_SPACES, WFI_TENANT_SPACES_MAX);
	space = wfi_alloc(kv->env, sizeof(*space));
	if (!space)
		return wfi_space_refuse(t, why, -E2BIG, "no memory for another space");
	space_fill(space, t, o);
	ret = cut_runs(space, why);
	if (ret)
		goto err_free;
	ret = kv->env->rng->bytes(kv->env, &space->salt, sizeof(space->salt));
	if (!ret)
		ret = kv->env->rng->bytes(kv->env, &seed, sizeof(seed));
	if (!ret)
		ret = locals_create(kv, space, seed);
	if (ret) {
		ret = wfi_space_refuse(t, why, -E2BIG, "no memory for another space: %s",
				       strerror(-ret));
		goto err_free;
	}
	*out = space;
	return 0;

err_free:
	wfi_free(kv->env, space, sizeof(*space));
	return ret;
}

/* tags are hashes */
static struct kv_space **bucket_of(struct wfi_kv *kv, uint64_t tag)
{
	return &kv->spaces_by_tag[tag & (KV_SPACE_BUCKETS - 1)];
}

static void space_add(struct wfi_kv *kv, struct kv_space *space)
{
	const uint32_t idx = space_number(kv);
	struct wfi_tenant *t = space->tenant;

	space->info.id = kv->space_gen | idx;
	kv->spaces[idx] = space;
	space->same_bucket = *bucket_of(kv, space->info.tag);
	*bucket_of(kv, space->info.tag) = space;
	kv->nr_spaces = (uint32_t)wfi_max(kv->nr_spaces, idx + 1);
	space->next = t->spaces;
	t->spaces = space;
	t->nr_spaces++;
	if (kv->mover)
		wfi_mover_opened(kv->mover, space);
}

void wfi_space_delete(struct wfi_kv *kv, struct kv_space *space)
{
	struct wfi_tenant *t = space->tenant;
	struct kv_space **at = &t->spaces;

	while (*at != space)
		at = &(*at)->next;
	*at = space->next;
	for (at = bucket_of(kv, space->info.tag); *at != space; at = &(*at)->same_bucket)
		;
	*at = space->same_bucket;
	t->nr_spaces--;
	kv->spaces[space->info.id & (KV_MAX_SPACES - 1)] = NULL;
	/* who still has its id finds nothing, whoever gets the number */
	kv->space_gen += KV_MAX_SPACES;
	if (!kv->space_gen)
		kv->space_gen = KV_MAX_SPACES;
	space_destroy(kv, space);
}

int wfi_kv_space_open(struct wfi_kv *kv, struct wfi_tenant *t, const struct weft_space_opts *opts,
		      struct wfi_space_info *out, char *why)
{
	struct kv_space *space;
	int ret;

	ret = opts_check(t, opts, why);
	if (ret)
		return ret;
	for (space = t->spaces; space; space = space->next)
		if (same_geometry(space, opts))
			break;
	if (space && space->leaving)
		return wfi_space_refuse(t, why, -EAGAIN,
					"the space of these options is being removed: try again");
	if (!space) {
		ret = space_create(kv, t, opts, &space, why);
		if (ret)
			return ret;
		space_add(kv, space);
	} else {
		/* who shares a space shares its bound: the most that one of them asked for */
		space->max_blocks = wfi_max(space->max_blocks,
					    opts->max_blocks ? opts->max_blocks : UINT64_MAX);
	}
	space->info.replicas = (uint32_t)wfi_max(space->info.replicas, opts->replicas);
	*out = space->info;
	return 0;
}

/* ---- finding one ---- */

int wfi_kv_space_get(struct wfi_kv *kv, const struct wfi_tenant *t, uint32_t id,
		     struct wfi_space_info *out)
{
	const struct kv_space *space = kv_space(kv, id);

	if (!space || space->tenant != t)
		return -ENOENT;
	*out = space->info;
	return 0;
}

int wfi_kv_space_of_peer(struct wfi_kv *kv, const struct wfi_geometry *g,
			 struct wfi_space_info *out)
{
	const struct weft_space_opts o = {
		.size = sizeof(o),
		.block_bytes = g->block_bytes,
		.model = g->model,
		.layout = g->layout,
		.tokens_per_block = g->tokens_per_block,
		.nr_layers = g->nr_layers,
		.dtype = g->dtype,
		.verify = g->verify,
		.max_blocks = g->max_blocks,
		.replicas = g->replicas,
	};
	char why[sizeof(((struct weft_ctl_rep *)0)->why)];

	if (!wfi_kv_space_by_tag(kv, g->tag, out))
		return 0;
	if (!memchr(g->model, 0, sizeof(g->model)) || !memchr(g->layout, 0, sizeof(g->layout)))
		return -EINVAL;
	for (uint32_t i = 0; i < kv->nr_tenants; i++)
		if (wfi_space_tag(kv->tenants[i]->salt, &o) == g->tag)
			return wfi_kv_space_open(kv, kv->tenants[i], &o, out, why);
	return -ENOENT;
}

int wfi_kv_space_any(const struct wfi_kv *kv, uint32_t id, struct wfi_space_info *out)
{
	const struct kv_space *space = kv_space(kv, id);

	if (!space)
		return -ENOENT;
	*out = space->info;
	return 0;
}

int wfi_kv_space_by_tag(struct wfi_kv *kv, uint64_t tag, struct wfi_space_info *out)
{
	const struct kv_space *space = *bucket_of(kv, tag);

	while (space && space->info.tag != tag)
		space = space->same_bucket;
	if (!space || space->leaving)
		return -ENOENT;
	*out = space->info;
	return 0;
}
