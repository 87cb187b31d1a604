/* SPDX-License-Identifier: Apache-2.0 */
/*
 * put, get, drop: bytes as a chain of blocks under a name. In front of the bytes stands a header
 * with their length and digest, so that the name alone gives the whole back.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/cli.h"
#include "daemon/value.h"
#include "weft_internal/util.h"

#define FILE_MAGIC 0x454c494654464557ull /* "WEFTFILE" */
#define NAME_BYTES 256
#define BATCH_BLOCKS 256u
#define BATCH_BYTES (64ull << 20)
#define DIGEST_BYTES 16

struct file_header {
	uint64_t magic;
	uint64_t len;
	uint8_t digest[DIGEST_BYTES];
};

WEFT_STATIC_ASSERT(sizeof(struct file_header) == 32, "no holes");

struct blocks_opts {
	struct wfi_cli_common common;
	struct wfi_cli_space space;
	const char *key;
	bool raw;
};

static const struct blocks_opts defaults = {
	.space = WFI_CLI_SPACE_DEFAULTS(1 << 20),
};

static const struct wfi_cli_opt put_opts[] = {
	{ "key", "KEY", WFI_CLI_STRING, offsetof(struct blocks_opts, key),
	  "name: text, or 0x and hex digits (default: a digest of the bytes)" },
	{ "raw", NULL, WFI_CLI_FLAG, offsetof(struct blocks_opts, raw),
	  "one block as it is, under the hash --key" },
	WFI_CLI_SPACE_OPTS(blocks_opts, space),
	{ 0 },
};

static const struct wfi_cli_opt get_opts[] = {
	{ "key", "KEY", WFI_CLI_STRING, offsetof(struct blocks_opts, key),
	  "what put was given, or printed" },
	{ "raw", NULL, WFI_CLI_FLAG, offsetof(struct blocks_opts, raw),
	  "one block as it is, under the hash --key" },
	WFI_CLI_SPACE_OPTS(blocks_opts, space),
	{ 0 },
};

/* one run of put, get or drop */
struct job {
	const struct blocks_opts *opts;
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
	uint8_t name[NAME_BYTES + 1 + sizeof(uint64_t)]; /* and room for the block's number */
	size_t name_len;
};

static int job_open(struct job *j, const struct blocks_opts *opts, const char *cmd)
{
	int ret;

	memset(j, 0, sizeof(*j));
	j->opts = opts;
	if (opts->space.block_bytes < 64 || opts->space.block_bytes > 1ull << 30)
		return wfi_cli_usage(cmd, "%s: --block-bytes goes from 64 to 1G", cmd);
	if (opts->raw && !opts->key)
		return wfi_cli_usage(cmd, "%s: --raw wants --key", cmd);
	ret = wfi_cli_open(&opts->common, 0, &j->w);
	if (ret)
		return ret;
	ret = wfi_cli_space_open(j->w, &opts->space, cmd, &j->space);
	if (ret)
		return ret;
	ret = weft_ring_open(j->w, NULL, &j->ring);
	return ret ? wfi_cli_failed("opening a ring", ret) : WFI_EXIT_OK;
}

static void job_close(struct job *j)
{
	weft_close(j->w);
}

/* Return: WFI_EXIT_OK, WFI_EXIT_USAGE after a message */
static int job_name(struct job *j, const char *key, const char *cmd)
{
	const size_t len = strlen(key);
	int n;

	if (key[0] == '0' && key[1] == 'x') {
		n = wfi_value_hex(key + 2, j->name, NAME_BYTES);
		if (n <= 0)
			return wfi_cli_usage(cmd, "%s: \"%s\" is not 0x and pairs of hex digits",
					     cmd, key);
		j->name_len = (size_t)n;
		return WFI_EXIT_OK;
	}
	if (!len || len > NAME_BYTES)
		return wfi_cli_usage(cmd, "%s: a key has 1 to %d bytes", cmd, NAME_BYTES);
	memcpy(j->name, key, len);
	j->name_len = len;
	return WFI_EXIT_OK;
}

static int block_key(struct job *j, uint64_t idx, struct weft_key *out)
{
	const uint64_t le = htole64(idx);

	if (j->opts->raw)
		return weft_key_from_hash(j->space, j->name, j->name_len, out);
	j->name[j->name_len] = 0;
	memcpy(j->name + j->name_len + 1, &le, sizeof(le));
	return weft_key_from_hash(j->space, j->name, j->name_len + 1 + sizeof(le), out);
}

static int block_keys(struct job *j, uint64_t first, unsigned nr, struct weft_key *keys)
{
	unsigned i;
	int ret;

	for (i = 0; i < nr; i++) {
		ret = block_key(j, first + i, &keys[i]);
		if (ret)
			return ret;
	}
	return 0;
}

static unsigned batch_of(const struct job *j, uint64_t left)
{
	const uint64_t fit = wfi_max(1, BATCH_BYTES / j->opts->space.block_bytes);

	return (unsigned)wfi_min(left, wfi_min(fit, BATCH_BLOCKS));
}

/* ---- bytes of files ---- */

/* reads all of @fd behind @front bytes of room. Return: 0, -errno */
static int read_all(int fd, size_t front, uint8_t **out, size_t *out_len)
{
	size_t room = 1 << 20, len = front;
	uint8_t *buf, *grown;
	ssize_t n = 0;

	buf = malloc(room);
	if (!buf)
		return -ENOMEM;
	for (;;) {
		n = read(fd, buf + len, room - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
		if (len < room)
			continue;
		grown = realloc(buf, 2 * room);
		if (!grown) {
			free(buf);
			return -ENOMEM;
		}
		buf = grown;
		room *= 2;
	}
	if (n < 0) {
		n = -errno;
		free(buf);
		return (int)n;
	}
	*out = buf;
	*out_len = len - front;
	return 0;
}

/* the argument's file, with @front bytes of room before its bytes. Return: exit code */
static int load_file(int argc, char **argv, size_t front, uint8_t **out, size_t *len)
{
	const bool is_stdin = !argc || !strcmp(argv[0], "-");
	const char *path = is_stdin ? "standard input" : argv[0];
	int fd = STDIN_FILENO, ret;

	if (!is_stdin)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return wfi_cli_file_failed(path, -errno);
	ret = read_all(fd, front, out, len);
	if (!is_stdin)
		close(fd);
	return ret ? wfi_cli_file_failed(path, ret) : WFI_EXIT_OK;
}

static int save_file(int argc, char **argv, const uint8_t *buf, size_t len)
{
	const bool is_stdout = !argc || !strcmp(argv[0], "-");
	const char *path = is_stdout ? "standard output" : argv[0];
	int fd = STDOUT_FILENO, ret;

	if (!is_stdout)
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return wfi_cli_file_failed(path, -errno);
	ret = wfi_cli_write(fd, buf, len);
	if (!is_stdout && close(fd) && !ret)
		ret = -errno;
	return ret ? wfi_cli_file_failed(path, ret) : WFI_EXIT_OK;
}

/* ---- put ---- */

/* publishes @buf as blocks; the last one is filled up with zeros. Return: exit code */
static int put_blocks(struct job *j, const uint8_t *buf, size_t len, uint64_t nr)
{
	const uint64_t block_bytes = j->opts->space.block_bytes;
	struct weft_key keys[BATCH_BLOCKS], parent = { 0, 0 };
	const void *bufs[BATCH_BLOCKS];
	uint8_t *last;
	uint64_t done;
	unsigned i, n;
	int ret = WFI_EXIT_OK;

	last = calloc(1, block_bytes);
	if (!last)
		return wfi_cli_file_failed("the last block", -ENOMEM);
	memcpy(last, buf + (nr - 1) * block_bytes, len - (nr - 1) * block_bytes);
	for (done = 0; done < nr && !ret; done += n) {
		n = batch_of(j, nr - done);
		ret = block_keys(j, done, n, keys);
		for (i = 0; i < n; i++)
			bufs[i] = done + i == nr - 1 ? last : buf + (done + i) * block_bytes;
		if (!ret)
			ret = weft_put(j->ring, j->space, done ? &parent : NULL, keys, n, bufs);
		if (ret == (int)n)
			ret = 0;
		else
			ret = wfi_cli_failed("put", ret < 0 ? ret : -ENOSPC);
		parent = keys[n - 1];
	}
	free(last);
	return ret;
}

static int put_report(const struct job *j, const char *name, size_t len, uint64_t nr)
{
	char hex[2 * NAME_BYTES + 3] = "0x";
	json_t *key;

	if (!j->opts->common.json) {
		printf("%s\n", name);
		return fflush(stdout) ? WFI_EXIT_FAILED : WFI_EXIT_OK;
	}
	key = json_string(name);
	if (!key) {
		sodium_bin2hex(hex + 2, sizeof(hex) - 2, j->name, j->name_len);
		key = json_string(hex);
	}
	return wfi_cli_print_json(json_pack("{s:o,s:I,s:I,s:I}", "key", key, "bytes",
					    (json_int_t)len, "blocks", (json_int_t)nr,
					    "block_bytes", (json_int_t)j->opts->space.block_bytes),
				  0);
}

static int put_bytes(struct job *j, uint8_t *buf, size_t len, size_t front)
{
	const uint64_t block_bytes = j->opts->space.block_bytes;
	const size_t total = front + len;
	const uint64_t nr = (total + block_bytes - 1) / block_bytes;
	char hex[2 * DIGEST_BYTES + 3] = "0x";
	const char *name = j->opts->key;
	struct file_header header = { .magic = htole64(FILE_MAGIC), .len = htole64(len) };
	int ret;

	if (j->opts->raw && len != block_bytes)
		return wfi_cli_usage("put", "put: --raw wants %" PRIu64 " bytes and got %zu",
				     block_bytes, len);
	crypto_generichash(header.digest, sizeof(header.digest), buf + front, len, NULL, 0);
	if (front)
		memcpy(buf, &header, sizeof(header));
	if (!name) {
		sodium_bin2hex(hex + 2, sizeof(hex) - 2, header.digest, sizeof(header.digest));
		name = hex;
	}
	ret = job_name(j, name, "put");
	if (!ret)
		ret = put_blocks(j, buf, total, nr);
	return ret ? ret : put_report(j, name, len, nr);
}

static int run_put(const void *arg, int argc, char **argv)
{
	const struct blocks_opts *opts = arg;
	const size_t front = opts->raw ? 0 : sizeof(struct file_header);
	uint8_t *buf = NULL;
	struct job j;
	size_t len = 0;
	int ret;

	ret = job_open(&j, opts, "put");
	if (!ret)
		ret = load_file(argc, argv, front, &buf, &len);
	if (!ret)
		ret = put_bytes(&j, buf, len, front);
	free(buf);
	job_close(&j);
	return ret;
}

/* ---- get and drop ---- */

static int say_miss(const struct job *j, uint64_t idx, uint64_t nr)
{
	if (j->opts->raw || !idx)
		fprintf(stderr, "weft: no block under this key\n");
	else
		fprintf(stderr, "weft: block %" PRIu64 " of %" PRIu64 " is not held any more\n",
			idx + 1, nr);
	return WFI_EXIT_MISS;
}

/* Blocks first .. nr - 1 to @buf, which is where block 0 would be. Each batch begins with the block
 * before it, by which the node knows where more of their chain is. Return: exit code */
static int get_blocks(struct job *j, uint64_t first, uint64_t nr, uint8_t *buf)
{
	const uint64_t block_bytes = j->opts->space.block_bytes;
	struct weft_key keys[1 + BATCH_BLOCKS];
	void *bufs[1 + BATCH_BLOCKS];
	unsigned i, n;
	int ret;

	while (first < nr) {
		const uint64_t from = first ? first - 1 : 0;

		n = (unsigned)(first - from) + batch_of(j, nr - first);
		for (i = 0; i < n; i++)
			bufs[i] = buf + (from + i) * block_bytes;
		ret = block_keys(j, from, n, keys);
		if (!ret)
			ret = weft_get(j->ring, j->space, keys, n, bufs);
		if (ret < 0)
			return wfi_cli_failed("get", ret);
		if (ret < (int)n)
			return say_miss(j, from + (unsigned)ret, nr);
		first = from + n;
	}
	return WFI_EXIT_OK;
}

/* Return: 0 and how many blocks there are, -EBADMSG when this is no first block of put's */
static int header_check(const struct job *j, const uint8_t *block, struct file_header *header,
			uint64_t *nr)
{
	const uint64_t block_bytes = j->opts->space.block_bytes;
	uint64_t total;

	memcpy(header, block, sizeof(*header));
	header->len = le64toh(header->len);
	if (le64toh(header->magic) != FILE_MAGIC || header->len > weft_arena_bytes(j->w) ||
	    wfi_add_overflows(header->len, sizeof(*header) + block_bytes - 1, &total)) {
		fputs("weft: the block under this key was not put by weft put; --raw shows it\n",
		      stderr);
		return -EBADMSG;
	}
	*nr = total / block_bytes;
	return 0;
}

/* all blocks, the first of which is known. Return: exit code; @buf is the caller's to free */
static int get_rest(struct job *j, uint8_t **buf, struct file_header *header)
{
	uint8_t digest[DIGEST_BYTES], *grown;
	uint64_t nr = 0;
	int ret;

	if (header_check(j, *buf, header, &nr))
		return WFI_EXIT_FAILED;
	grown = realloc(*buf, nr * j->opts->space.block_bytes);
	if (!grown)
		return wfi_cli_file_failed("the blocks", -ENOMEM);
	*buf = grown;
	ret = get_blocks(j, 1, nr, *buf);
	if (ret)
		return ret;
	crypto_generichash(digest, sizeof(digest), *buf + sizeof(*header), header->len, NULL, 0);
	if (!memcmp(digest, header->digest, sizeof(digest)))
		return WFI_EXIT_OK;
	fputs("weft: the bytes do not have the digest that they were put with\n", stderr);
	return WFI_EXIT_FAILED;
}

static int get_report(const struct job *j, uint64_t len)
{
	if (!j->opts->common.json)
		return WFI_EXIT_OK;
	return wfi_cli_print_json(json_pack("{s:I,s:b}", "bytes", (json_int_t)len, "verified", 1),
				  0);
}

static int get_bytes(struct job *j, int argc, char **argv)
{
	struct file_header header;
	uint64_t len = j->opts->space.block_bytes;
	size_t front = 0;
	uint8_t *buf;
	int ret;

	buf = malloc(len);
	if (!buf)
		return wfi_cli_file_failed("a block", -ENOMEM);
	ret = get_blocks(j, 0, 1, buf);
	if (!ret && !j->opts->raw) {
		ret = get_rest(j, &buf, &header);
		front = sizeof(header);
		len = header.len;
	}
	if (!ret)
		ret = save_file(argc, argv, buf + front, len);
	if (!ret)
		ret = get_report(j, len);
	free(buf);
	return ret;
}

static int run_get(const void *arg, int argc, char **argv)
{
	const struct blocks_opts *opts = arg;
	struct job j;
	int ret;

	if (!opts->key)
		return wfi_cli_usage("get", "get: wants --key");
	if (opts->common.json && (!argc || !strcmp(argv[0], "-")))
		return wfi_cli_usage("get", "get: --json wants a file for the bytes");
	ret = job_open(&j, opts, "get");
	if (!ret)
		ret = job_name(&j, opts->key, "get");
	if (!ret)
		ret = get_bytes(&j, argc, argv);
	job_close(&j);
	return ret;
}

/* Return: exit code, and how many blocks the name has in @nr */
static int count_blocks(struct job *j, uint64_t *nr)
{
	struct file_header header;
	uint8_t *buf;
	int ret;

	*nr = 1;
	if (j->opts->raw)
		return WFI_EXIT_OK;
	buf = malloc(j->opts->space.block_bytes);
	if (!buf)
		return wfi_cli_file_failed("a block", -ENOMEM);
	ret = get_blocks(j, 0, 1, buf);
	if (!ret && header_check(j, buf, &header, nr))
		ret = WFI_EXIT_FAILED;
	free(buf);
	return ret;
}

static int drop_blocks(struct job *j)
{
	struct weft_key keys[BATCH_BLOCKS];
	uint64_t nr, done, dropped = 0;
	unsigned n;
	int ret;

	ret = count_blocks(j, &nr);
	if (ret)
		return ret;
	for (done = 0; done < nr; done += n) {
		n = (unsigned)wfi_min(nr - done, BATCH_BLOCKS);
		ret = block_keys(j, done, n, keys);
		if (!ret)
			ret = weft_drop(j->ring, j->space, keys, n);
		if (ret < 0)
			return wfi_cli_failed("drop", ret);
		dropped += (unsigned)ret;
	}
	if (!dropped)
		return say_miss(j, 0, nr);
	if (j->opts->common.json)
		return wfi_cli_print_json(json_pack("{s:I}", "dropped", (json_int_t)dropped), 0);
	printf("dropped %" PRIu64 " block%s\n", dropped, dropped == 1 ? "" : "s");
	return WFI_EXIT_OK;
}

static int run_drop(const void *arg, int argc, char **argv)
{
	const struct blocks_opts *opts = arg;
	struct job j;
	int ret;

	(void)argc;
	(void)argv;
	if (!opts->key)
		return wfi_cli_usage("drop", "drop: wants --key");
	ret = job_open(&j, opts, "drop");
	if (!ret)
		ret = job_name(&j, opts->key, "drop");
	if (!ret)
		ret = drop_blocks(&j);
	job_close(&j);
	return ret;
}

const struct wfi_cli_cmd wfi_cmd_put = {
	.name = "put",
	.summary = "put a file, or the standard input, as a chain of blocks",
	.opts = put_opts,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.args = "[FILE]",
	.max_args = 1,
	.examples = "  weft put --key greeting hello.txt\n"
		    "  tar c docs | weft put                     prints the key for get\n"
		    "  weft put --raw --key 0x5f2a --block-bytes 4K block.bin\n",
	.run = run_put,
};

const struct wfi_cli_cmd wfi_cmd_get = {
	.name = "get",
	.summary = "get what put has put; exit status 3 when it is not held",
	.opts = get_opts,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.args = "--key KEY [FILE]",
	.max_args = 1,
	.examples = "  weft get --key greeting\n"
		    "  weft get --key 0x8f1e... docs.tar\n"
		    "  weft get --key greeting out.txt --json\n",
	.run = run_get,
};

const struct wfi_cli_cmd wfi_cmd_drop = {
	.name = "drop",
	.summary = "forget what put has put; exit status 3 when it is not held",
	.opts = get_opts,
	.defaults = &defaults,
	.opts_len = sizeof(defaults),
	.args = "--key KEY",
	.examples = "  weft drop --key greeting\n  weft drop --raw --key 0x5f2a --block-bytes 4K\n",
	.run = run_drop,
};
