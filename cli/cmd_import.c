/* SPDX-License-Identifier: Apache-2.0 */
/* import: blocks of a file of weft export into a space, while the node serves */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/move.h"
#include "weft_internal/kvcache.h"

#define ROOM_EVERY 64u /* blocks put, until the node is asked again how many fit */

struct import_opts {
	struct wfi_cli_common common;
	bool evict;
};

static const struct wfi_cli_opt import_opts[] = {
	{ "evict", NULL, WFI_CLI_FLAG, offsetof(struct import_opts, evict),
	  "go on when the space is full, at the cost of what it holds" },
	{ 0 },
};

struct import {
	struct wfi_move m;
	const struct import_opts *opts;
	const char *path;
	int fd;
	struct wfi_export_header h;
	uint64_t room; /* blocks that fit without an eviction, as the node said last */
	uint64_t put, kept, bad, no_room;
	bool truncated;
};

/* ---- the file ---- */

/* Return: bytes read, fewer than @len at the end of the file only; or -errno */
static ssize_t read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = read(fd, (uint8_t *)buf + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

__attribute__((format(printf, 2, 3))) static int refuse(const struct import *im, const char *fmt,
							...)
{
	va_list ap;

	fprintf(stderr, "weft: %s: ", im->path);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return WFI_EXIT_FAILED;
}

static int header_read(struct import *im)
{
	const struct wfi_export_header *h = &im->h;
	const ssize_t n = read_full(im->fd, &im->h, sizeof(im->h));

	if (n < 0)
		return wfi_cli_file_failed(im->path, (int)n);
	if (n < (ssize_t)offsetof(struct wfi_export_header, block_bytes) ||
	    h->magic != WFI_EXPORT_MAGIC)
		return refuse(im, "this is no file of weft export");
	if (h->version != WFI_EXPORT_VERSION)
		return refuse(im, "a file of version %u; this weft reads version %u", h->version,
			      WFI_EXPORT_VERSION);
	if (n < (ssize_t)sizeof(*h) || h->header_bytes != sizeof(*h) ||
	    h->crc != wfi_crc32c(0, h, offsetof(struct wfi_export_header, crc)))
		return refuse(im, "its header is not whole: export it again");
	if (!memchr(h->model, 0, sizeof(h->model)) || !memchr(h->layout, 0, sizeof(h->layout)) ||
	    h->block_bytes < 64 || h->block_bytes > 1ull << 30)
		return refuse(im, "its header names no space that there may be");
	return WFI_EXIT_OK;
}

/* ---- the space ---- */

static void geometry_text(const struct wfi_export_header *h, char *out, size_t len)
{
	snprintf(out, len, "%s:%s, %" PRIu64 " bytes and %u tokens a block, %u layers, dtype %u",
		 h->model, h->layout, h->block_bytes, h->tokens_per_block, h->nr_layers, h->dtype);
}

static bool same_geometry(const struct wfi_export_header *a, const struct wfi_export_header *b)
{
	return a->block_bytes == b->block_bytes && a->tokens_per_block == b->tokens_per_block &&
	       a->nr_layers == b->nr_layers && a->dtype == b->dtype &&
	       !strcmp(a->model, b->model) && !strcmp(a->layout, b->layout);
}

/* the space that was named is to be that of the file */
static int named_check(struct import *im, const char *name)
{
	struct wfi_export_header theirs;
	char ours[512], other[512];
	json_t *space;
	int ret;

	ret = wfi_cli_space_find(im->m.w, name, &space);
	if (ret)
		return ret;
	wfi_move_geometry(space, &theirs);
	json_decref(space);
	if (same_geometry(&theirs, &im->h))
		return WFI_EXIT_OK;
	geometry_text(&im->h, other, sizeof(other));
	geometry_text(&theirs, ours, sizeof(ours));
	return refuse(im, "blocks of another geometry: the file has %s; the space %s", other, ours);
}

/* Return: exit code; how many blocks fit, and whether the space is there at all */
static int ask_room(struct import *im, bool *exists)
{
	struct wfi_export_header theirs;
	char *text = NULL;
	json_t *root, *s;
	size_t i;
	int ret;

	ret = weft_stat_json(im->m.w, &text);
	if (ret < 0)
		return wfi_cli_failed("stat", ret);
	root = json_loads(text, 0, NULL);
	free(text);
	*exists = false;
	json_array_foreach(json_object_get(root, "spaces"), i, s)
	{
		wfi_move_geometry(s, &theirs);
		if (!same_geometry(&theirs, &im->h))
			continue;
		*exists = true;
		im->room = wfi_json_u64(s, "slots_room");
	}
	json_decref(root);
	return WFI_EXIT_OK;
}

static int space_open(struct import *im, const char *name)
{
	bool exists;
	int ret;

	ret = name ? named_check(im, name) : WFI_EXIT_OK;
	if (!ret)
		ret = ask_room(im, &exists);
	if (ret)
		return ret;
	im->m.geometry = im->h;
	ret = wfi_move_open(&im->m, exists);
	if (ret)
		return ret;
	if (memcmp(&im->m.geometry.check, &im->h.check, sizeof(im->h.check)))
		return refuse(im, "its keys are none of this tenant's: nodes share blocks where "
				  "their tenants have one salt");
	return ask_room(im, &exists);
}

/* ---- blocks ---- */

static bool block_ok(const struct import *im, const struct wfi_export_block *b, uint64_t idx)
{
	return b->magic == WFI_EXPORT_BLOCK_MAGIC &&
	       b->crc == wfi_crc32c(0, b, offsetof(struct wfi_export_block, crc)) &&
	       b->idx == idx && (b->key.lo || b->key.hi) &&
	       b->body_crc == wfi_crc32c(0, im->m.bytes, im->h.block_bytes);
}

static int block_put(struct import *im, const struct wfi_export_block *b)
{
	const struct weft_key *parent = b->parent.lo || b->parent.hi ? &b->parent : NULL;
	const void *buf = im->m.bytes;
	bool exists;
	int ret;

	ret = weft_match(im->m.ring, im->m.space, &b->key, 1);
	if (ret < 0)
		return wfi_cli_failed("match", ret);
	if (ret) {
		im->kept++;
		return WFI_EXIT_OK;
	}
	if (!im->opts->evict && (!im->room || im->put % ROOM_EVERY == ROOM_EVERY - 1)) {
		ret = ask_room(im, &exists);
		if (ret)
			return ret;
	}
	if (!im->opts->evict && !im->room) {
		im->no_room++;
		return WFI_EXIT_OK;
	}
	ret = weft_put(im->m.ring, im->m.space, parent, &b->key, 1, &buf);
	if (ret < 0 && ret != -ENOSPC)
		return wfi_cli_failed("put", ret);
	im->put += ret == 1;
	im->no_room += ret != 1;
	im->room -= im->room && ret == 1;
	return WFI_EXIT_OK;
}

static int blocks_read(struct import *im)
{
	const size_t len = im->h.block_bytes;
	struct wfi_export_block b;
	ssize_t n;
	int ret;

	for (uint64_t i = 0; i < im->h.nr_blocks; i++) {
		n = read_full(im->fd, &b, sizeof(b));
		if (n == (ssize_t)sizeof(b))
			n = read_full(im->fd, im->m.bytes, len);
		if (n < 0)
			return wfi_cli_file_failed(im->path, (int)n);
		im->truncated = n < (ssize_t)len;
		if (im->truncated)
			break;
		if (!block_ok(im, &b, i)) {
			im->bad++;
			continue;
		}
		ret = block_put(im, &b);
		if (ret)
			return ret;
	}
	return WFI_EXIT_OK;
}

static int report(const struct import *im)
{
	int ret = WFI_EXIT_OK;

	if (im->opts->common.json)
		ret = wfi_cli_print_json(
			json_pack("{s:I, s:I, s:I, s:I, s:b}", "put", (json_int_t)im->put,
				  "held_before", (json_int_t)im->kept, "no_room",
				  (json_int_t)im->no_room, "bad", (json_int_t)im->bad, "truncated",
				  (int)im->truncated),
			0);
	else
		printf("%" PRIu64 " blocks put, %" PRIu64 " held before; left out: %" PRIu64
		       " for which there is no room%s, %" PRIu64 " that are bad\n",
		       im->put, im->kept, im->no_room,
		       im->no_room && !im->opts->evict ? " (--evict makes some)" : "", im->bad);
	if (im->bad)
		ret = refuse(im, "%" PRIu64 " blocks are not as they were exported", im->bad);
	if (im->truncated)
		ret = refuse(im, "the file is shorter than it says: %" PRIu64 " blocks wanted",
			     im->h.nr_blocks);
	return ret ? ret : wfi_cli_flushed();
}

static int run_import(const void *arg, int argc, char **argv)
{
	struct import im = { .opts = arg };
	int ret;

	if (!argc)
		return wfi_cli_usage("import", "import: wants a file");
	im.path = argv[0];
	im.fd = open(im.path, O_RDONLY | O_CLOEXEC);
	if (im.fd < 0)
		return wfi_cli_file_failed(im.path, -errno);
	ret = header_read(&im);
	if (!ret)
		ret = wfi_cli_open(&im.opts->common, 0, &im.m.w);
	if (!ret)
		ret = space_open(&im, argc > 1 ? argv[1] : NULL);
	if (!ret)
		ret = blocks_read(&im);
	if (!ret)
		ret = report(&im);
	close(im.fd);
	wfi_move_close(&im.m);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_import = {
	.name = "import",
	.summary = "bring blocks of a file of weft export into a space",
	.opts = import_opts,
	.opts_len = sizeof(struct import_opts),
	.args = "FILE [SPACE]",
	.max_args = 2,
	.examples = "  weft import /var/tmp/warm\n"
		    "  weft import --evict /var/tmp/warm llama-3-8b --json\n",
	.run = run_import,
};
