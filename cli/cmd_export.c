/* SPDX-License-Identifier: Apache-2.0 */
/* export: the blocks of a space into a file, while the node serves */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/move.h"
#include "daemon/value.h"
#include "weft_internal/kvcache.h"
#include "weft_internal/util.h"

struct export_opts {
	struct wfi_cli_common common;
	bool all;
};

static const struct wfi_cli_opt export_opts[] = {
	{ "all", NULL, WFI_CLI_FLAG, offsetof(struct export_opts, all),
	  "blocks of the SSD tier too, which pass through memory" },
	{ 0 },
};

struct entry {
	struct weft_key key;
	struct weft_key parent;
	uint32_t depth;
	bool done;
};

struct export
{
	struct wfi_move m;
	const struct export_opts *opts;
	const char *path;
	char temp[4096];
	int fd;
	struct entry *entries; /* in the order of their keys */
	uint32_t *stack;
	size_t nr, room;
	uint64_t written, gone, bad;
};

/* ---- what there is ---- */

static int key_order(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->key.hi != y->key.hi)
		return x->key.hi < y->key.hi ? -1 : 1;
	return x->key.lo < y->key.lo ? -1 : x->key.lo > y->key.lo;
}

/* Return: 0 when there is none */
static int key_read(const json_t *b, const char *name, struct weft_key *out)
{
	const char *text = wfi_json_str(b, name);
	uint8_t raw[sizeof(*out)];

	memset(out, 0, sizeof(*out));
	if (wfi_value_hex(text, raw, sizeof(raw)) != sizeof(raw))
		return 0;
	for (unsigned i = 0; i < 8; i++) {
		out->hi = out->hi << 8 | raw[i];
		out->lo = out->lo << 8 | raw[8 + i];
	}
	return 1;
}

/* Return: 0, -ENOMEM */
static int entry_add(struct export *e, const json_t *b)
{
	struct entry *grown, *at;

	if (strcmp(wfi_json_str(b, "state"), "held") ||
	    (!e->opts->all && strcmp(wfi_json_str(b, "tier"), "dram")))
		return 0;
	if (e->nr == e->room) {
		grown = realloc(e->entries, (2 * e->room + 1024) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		e->entries = grown;
		e->room = 2 * e->room + 1024;
	}
	at = &e->entries[e->nr];
	memset(at, 0, sizeof(*at));
	at->depth = (uint32_t)wfi_json_u64(b, "depth");
	key_read(b, "parent", &at->parent);
	e->nr += (size_t)key_read(b, "key", &at->key);
	return 0;
}

/* what moved while it was listed, or lies in two tiers */
static void drop_twins(struct export *e)
{
	size_t kept = 0;

	for (size_t i = 0; i < e->nr; i++)
		if (!kept || key_order(&e->entries[kept - 1], &e->entries[i]))
			e->entries[kept++] = e->entries[i];
	e->nr = kept;
}

static int list_blocks(struct export *e, uint32_t id)
{
	uint64_t from = 0;
	json_t *root, *blocks;
	size_t i;
	int ret;

	do {
		ret = wfi_cli_blocks(e->m.w, id, from, &root);
		if (ret)
			return ret;
		blocks = json_object_get(root, "blocks");
		for (i = 0; i < json_array_size(blocks) && !ret; i++)
			ret = entry_add(e, json_array_get(blocks, i));
		from = wfi_json_u64(root, "next");
		json_decref(root);
		if (ret)
			return wfi_cli_failed("the list of blocks", ret);
	} while (from);
	if (e->nr)
		qsort(e->entries, e->nr, sizeof(*e->entries), key_order);
	drop_twins(e);
	return WFI_EXIT_OK;
}

/* ---- writing ---- */

/* the node holds the block while it is copied, and checks it; for its policy it is no use of it.
 * Return: 1, 0 not held, -errno */
static int peek(struct wfi_move *m, const struct weft_key *key, void *buf)
{
	struct weft_slot slot;
	const struct weft_op op = {
		.op = WEFT_OP_MAP,
		.flags = WEFT_F_VERIFY | WEFT_F_PEEK,
		.nr = 1,
		.space = m->space,
		.keys = key,
		.slots = &slot,
	};
	struct weft_completion cpl;
	int ret = weft_call(m->ring, &op, &cpl);

	if (ret <= 0)
		return ret;
	if (!wfi_range_ok(slot.off, m->geometry.block_bytes, weft_arena_bytes(m->w)))
		return -EPROTO;
	memcpy(buf, (char *)weft_arena(m->w) + slot.off, m->geometry.block_bytes);
	ret = weft_release(m->ring, cpl.handle);
	/* a lease that ended while we copied: the slot may have been written meanwhile */
	return ret == -ENOENT ? 0 : ret < 0 ? ret : 1;
}

/* Return: exit code. What is not held any more is counted, and left out */
static int write_block(struct export *e, const struct entry *at)
{
	struct wfi_export_block h = {
		.magic = WFI_EXPORT_BLOCK_MAGIC,
		.depth = at->depth,
		.key = at->key,
		.parent = at->parent,
		.idx = e->written,
	};
	void *buf = e->m.bytes;
	int ret;

	ret = peek(&e->m, &at->key, buf);
	if (ret < 0 && ret != -EBADMSG)
		return wfi_cli_failed("get", ret);
	e->gone += !ret;
	e->bad += ret < 0;
	if (ret != 1)
		return WFI_EXIT_OK;
	h.body_crc = wfi_crc32c(0, buf, e->m.geometry.block_bytes);
	h.crc = wfi_crc32c(0, &h, offsetof(struct wfi_export_block, crc));
	ret = wfi_cli_write(e->fd, &h, sizeof(h));
	if (!ret)
		ret = wfi_cli_write(e->fd, buf, e->m.geometry.block_bytes);
	if (ret)
		return wfi_cli_file_failed(e->temp, ret);
	e->written++;
	return WFI_EXIT_OK;
}

/* a block after all those of its chain that are to be written */
static int write_chain(struct export *e, uint32_t at)
{
	size_t nr = 0;
	int ret = WFI_EXIT_OK;

	while (!e->entries[at].done) {
		const struct entry want = { .key = e->entries[at].parent };
		const struct entry *up;

		e->entries[at].done = true;
		e->stack[nr++] = at;
		up = bsearch(&want, e->entries, e->nr, sizeof(*up), key_order);
		if (!up)
			break;
		at = (uint32_t)(up - e->entries);
	}
	while (nr && !ret)
		ret = write_block(e, &e->entries[e->stack[--nr]]);
	return ret;
}

static int write_file(struct export *e)
{
	struct wfi_export_header *h = &e->m.geometry;
	const off_t start = sizeof(*h);
	int ret = WFI_EXIT_OK;

	if (lseek(e->fd, start, SEEK_SET) != start)
		return wfi_cli_file_failed(e->temp, -errno);
	for (uint32_t i = 0; i < e->nr && !ret; i++)
		ret = write_chain(e, i);
	if (ret)
		return ret;
	h->nr_blocks = e->written;
	h->crc = wfi_crc32c(0, h, offsetof(struct wfi_export_header, crc));
	if (lseek(e->fd, 0, SEEK_SET))
		return wfi_cli_file_failed(e->temp, -errno);
	ret = wfi_cli_write(e->fd, h, sizeof(*h));
	if (!ret && fsync(e->fd) && errno != EINVAL)
		ret = -errno;
	return ret ? wfi_cli_file_failed(e->temp, ret) : WFI_EXIT_OK;
}

static int write_whole(struct export *e)
{
	int ret;

	if (snprintf(e->temp, sizeof(e->temp), "%s.XXXXXX", e->path) >= (int)sizeof(e->temp))
		return wfi_cli_file_failed(e->path, -ENAMETOOLONG);
	e->fd = mkostemp(e->temp, O_CLOEXEC);
	if (e->fd < 0)
		return wfi_cli_file_failed(e->path, -errno);
	ret = write_file(e);
	if (close(e->fd) && !ret)
		ret = wfi_cli_file_failed(e->temp, -errno);
	if (!ret && rename(e->temp, e->path))
		ret = wfi_cli_file_failed(e->path, -errno);
	if (ret)
		unlink(e->temp);
	return ret;
}

static int report(const struct export *e)
{
	const uint64_t bytes = e->written * e->m.geometry.block_bytes;
	char text[WFI_TEXT];

	if (e->opts->common.json)
		return wfi_cli_print_json(json_pack("{s:I, s:I, s:I, s:I}", "blocks",
						    (json_int_t)e->written, "bytes",
						    (json_int_t)bytes, "evicted_meanwhile",
						    (json_int_t)e->gone, "bad", (json_int_t)e->bad),
					  0);
	printf("%" PRIu64 " blocks, %s; left out: %" PRIu64 " evicted meanwhile, %" PRIu64
	       " whose check failed\n",
	       e->written, wfi_text_bytes((double)bytes, text), e->gone, e->bad);
	return wfi_cli_flushed();
}

static int run_export(const void *arg, int argc, char **argv)
{
	struct export e = { .opts = arg, .fd = -1 };
	json_t *space = NULL;
	int ret;

	if (argc != 2)
		return wfi_cli_usage("export", "export: wants a space and a file");
	e.path = argv[1];
	ret = wfi_cli_open(&e.opts->common, 0, &e.m.w);
	if (!ret)
		ret = wfi_cli_space_find(e.m.w, argv[0], &space);
	if (!ret) {
		wfi_move_geometry(space, &e.m.geometry);
		ret = wfi_move_open(&e.m, true);
	}
	if (!ret)
		ret = list_blocks(&e, (uint32_t)wfi_json_u64(space, "id"));
	if (!ret) {
		e.stack = malloc((e.nr + 1) * sizeof(*e.stack));
		ret = e.stack ? write_whole(&e)
			      : wfi_cli_file_failed("the list of blocks", -ENOMEM);
	}
	if (!ret)
		ret = report(&e);
	json_decref(space);
	free(e.stack);
	free(e.entries);
	wfi_move_close(&e.m);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_export = {
	.name = "export",
	.summary = "write the blocks of a space to a file, for weft import",
	.opts = export_opts,
	.opts_len = sizeof(struct export_opts),
	.args = "SPACE FILE",
	.max_args = 2,
	.examples = "  weft export llama-3-8b /var/tmp/warm\n"
		    "  weft export --all llama-3-8b:nhd /mnt/warm --json\n",
	.run = run_export,
};
