/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_wire.c - the decoder of messages between nodes, against whatever bytes
 *
 * An input is what one connection says. It is taken in parts, as a stream would bring it, and each
 * message again as a datagram: both ways must find the same. What is let through is used as its
 * handler would. For libFuzzer: LLVMFuzzerTestOneInput(), with tests/fuzz/wire as its corpus. Built
 * with -DFUZZ_STANDALONE, it takes each file of a corpus and changes it, seeded:
 *
 *	fuzz_wire FOLDER [ROUNDS [SEED]]
 *	fuzz_wire --make FOLDER		writes the corpus anew
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/wire.h"
#include "tests/fuzz/fuzz.h"
#include "weft_internal/util.h"

static volatile uint64_t sink;

/* every byte that a handler may look at */
static void use(const void *at, size_t len)
{
	const uint8_t *byte = at;

	while (len--)
		sink += *byte++;
}

static void use_text(const char *text, size_t room)
{
	CHECK(strnlen(text, room) < room);
}

static void use_endpoint(const struct wire_endpoint *ep)
{
	uint32_t i;

	CHECK(ep->addr_fds + ep->nr_arenas <= WIRE_FDS_MAX);
	use(ep->addr, ep->addr_len);
	for (i = 0; i < ep->nr_arenas; i++)
		use(ep->arenas[i].blob, ep->arenas[i].blob_len);
}

static void use_body(const struct wire_head *head, const void *body)
{
	const struct wire_hello *hello = body;

	use(body, head->len);
	switch ((enum wire_kind)head->type) {
	case WIRE_HELLO:
		use_text(hello->name, sizeof(hello->name));
		use_text(hello->transport, sizeof(hello->transport));
		break;
	case WIRE_REFUSE:
		use_text(body, head->len);
		break;
	case WIRE_ENDPOINT:
		use_endpoint(body);
		break;
	case WIRE_STATE:
	case WIRE_NR:
		break;
	}
}

/* Return: what wire_datagram() says of the same bytes, in memory of just that size */
static int datagram(const void *bytes, size_t len)
{
	void *copy = malloc(len + !len);
	int ret;

	CHECK(copy);
	memcpy(copy, bytes, len);
	ret = wire_datagram(copy, len);
	free(copy);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct wfi_env env;
	struct wire_in in = { .have = 0 };
	size_t at = 0, start = 0, room, part;
	unsigned turn = 0;
	void *to;
	int ret;

	CHECK(!wfi_env_real_init(&env));
	while (at < len) {
		room = wire_in_room(&in, &to);
		CHECK(room && room <= WIRE_HEAD + WIRE_BODY_MAX);
		part = wfi_min(wfi_min(room, len - at), 1 + (turn++ * 7) % 97);
		memcpy(to, data + at, part);
		at += part;
		ret = wire_in_got(&in, &env, part);
		if (ret < 0) {
			CHECK(datagram(data + start, at - start) < 0);
			break;
		}
		if (!ret)
			continue;
		CHECK(at - start == WIRE_HEAD + in.head.len);
		CHECK(!datagram(data + start, at - start));
		use_body(&in.head, in.body);
		wire_in_reset(&in, &env);
		start = at;
	}
	wire_in_reset(&in, &env);
	return 0;
}

#ifdef FUZZ_STANDALONE

#define INPUT_MAX 32768u

static uint64_t rand_next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* a number where bounds are found to be wrong */
static uint32_t edge(uint64_t *rand)
{
	static const uint32_t values[] = {
		0,    1,     2,	    15,	 16,	17,	128,	    129,	 1024,
		1025, 16384, 16385, 255, 65535, 65536u, 0x7fffffff, 0x80000000u, UINT32_MAX
	};

	return values[rand_next(rand) % WFI_ARRAY_SIZE(values)] + (uint32_t)(rand_next(rand) % 2);
}

/* Return: its new length */
static size_t mutate(uint8_t *data, size_t len, uint64_t *rand)
{
	const uint32_t value = edge(rand);
	size_t at = len ? rand_next(rand) % len : 0, nr;

	if (!len)
		return 0;
	switch (rand_next(rand) % 6) {
	case 0:
		data[at] ^= (uint8_t)(1u << rand_next(rand) % 8);
		return len;
	case 1:
		data[at] = (uint8_t)rand_next(rand);
		return len;
	case 2: /* a field */
		at &= ~(size_t)3;
		memcpy(data + at, &value, wfi_min(sizeof(value), len - at));
		return len;
	case 3: /* its end is missing */
		return at;
	case 4: /* a piece is */
		nr = wfi_min(rand_next(rand) % 64, len - at);
		memmove(data + at, data + at + nr, len - at - nr);
		return len - nr;
	default: /* or twice there */
		nr = wfi_min(wfi_min(rand_next(rand) % 2048, len - at), INPUT_MAX - len);
		memmove(data + at + nr, data + at, len - at);
		return len + nr;
	}
}

static void run_file(const uint8_t *data, size_t len, unsigned rounds, uint64_t *rand)
{
	static uint8_t copy[INPUT_MAX];
	size_t now = 0;
	unsigned i;

	LLVMFuzzerTestOneInput(data, len);
	for (i = 0; i < rounds; i++) {
		if (i % 8 == 0) {
			memcpy(copy, data, len);
			now = len;
		}
		now = mutate(copy, now, rand);
		LLVMFuzzerTestOneInput(copy, now);
	}
}

static unsigned run_folder(const char *folder, unsigned rounds, uint64_t seed)
{
	static uint8_t data[INPUT_MAX];
	struct dirent **names;
	unsigned nr_files = 0;
	char path[512];
	int nr, i;
	size_t len;
	FILE *in;

	/* in an order of its own, so that a seed says it all */
	nr = scandir(folder, &names, NULL, alphasort);
	for (i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
		in = names[i]->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (in) {
			len = fread(data, 1, sizeof(data), in);
			fclose(in);
			run_file(data, len, rounds, &seed);
			nr_files++;
		}
		free(names[i]);
	}
	if (nr >= 0)
		free(names);
	return nr_files;
}

/* ---- the corpus ---- */

static size_t put(uint8_t *at, enum wire_kind type, const void *body, size_t len)
{
	struct wire_head head;

	wire_head_fill(&head, type, len);
	memcpy(at, &head, sizeof(head));
	memcpy(at + sizeof(head), body, len);
	return sizeof(head) + len;
}

static void save(const char *folder, const char *name, const uint8_t *data, size_t len)
{
	char path[512];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	out = fopen(path, "we");
	CHECK(out && fwrite(data, 1, len, out) == len && !fclose(out));
}

static void make_corpus(const char *folder)
{
	static uint8_t buf[INPUT_MAX];
	static struct wire_endpoint ep = { .max_msg = 4096, .nr_arenas = 2, .addr_len = 24 };
	struct wire_hello hello = { .node = 7, .incarnation = 9, .name = "node-a" };
	struct wire_refuse refuse = { .why = "it has the id of node node-b, 0x7" };
	struct wire_state state = { .draining = 1 };
	size_t len;
	unsigned i;

	strcpy(hello.transport, "ucx");
	for (i = 0; i < WIRE_TENANTS_MAX; i++)
		ep.arenas[i] = (struct wire_arena){ .tag = i + 1, .blob_len = 40 };
	save(folder, "hello", buf, put(buf, WIRE_HELLO, &hello, sizeof(hello)));
	save(folder, "refuse", buf, put(buf, WIRE_REFUSE, &refuse, sizeof(refuse)));
	save(folder, "state", buf, put(buf, WIRE_STATE, &state, sizeof(state)));
	len = put(buf, WIRE_HELLO, &hello, sizeof(hello));
	len += put(buf + len, WIRE_ENDPOINT, &ep, wire_endpoint_len(&ep));
	len += put(buf + len, WIRE_STATE, &state, sizeof(state));
	save(folder, "connect", buf, len);
	ep.nr_arenas = WIRE_TENANTS_MAX;
	ep.addr_len = WEFT_EP_ADDR_MAX;
	ep.addr_fds = WEFT_EP_FDS_MAX;
	ep.arenas[0].has_fd = 1;
	save(folder, "endpoint-full", buf, put(buf, WIRE_ENDPOINT, &ep, sizeof(ep)));
	save(folder, "plain-http", (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18);
	save(folder, "client-hello",
	     (const uint8_t *)"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
}

int main(int argc, char **argv)
{
	const unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000;
	const uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
	unsigned nr;

	if (argc == 3 && !strcmp(argv[1], "--make")) {
		make_corpus(argv[2]);
		return 0;
	}
	if (argc < 2) {
		fprintf(stderr, "usage: fuzz_wire FOLDER [ROUNDS [SEED]]\n");
		return 2;
	}
	nr = run_folder(argv[1], rounds, seed);
	printf("%u files of %s, %u changes of each, seed %llu\n", nr, argv[1], rounds,
	       (unsigned long long)seed);
	return !nr;
}

#endif
