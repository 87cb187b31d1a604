/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_query.c - the question of /route, as JSON and as an argument, against whatever bytes
 *
 * The first byte says which of the two. What is let through holds what http_query.h says. For
 * libFuzzer: LLVMFuzzerTestOneInput(). Built with -DFUZZ_STANDALONE, it changes questions of its
 * own, seeded:
 *
 *	fuzz_query [ROUNDS [SEED]]
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_query.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX 4096u

static int ask(struct http_query *q, const uint8_t *data, size_t len, char why[HTTP_WHY])
{
	char text[INPUT_MAX + 1], *value;

	if (data[0] % 2)
		return http_query_json(q, (const char *)data + 1, len - 1, why);
	if (len > sizeof(text))
		return 0;
	memcpy(text, data + 1, len - 1);
	text[len - 1] = 0;
	value = strchr(text, '=');
	if (value)
		*value++ = 0;
	return http_query_arg(q, text, value ? value : "", why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct http_query q;
	char why[HTTP_WHY] = "";
	uint32_t i;
	int ret;

	if (!len)
		return 0;
	/* the lists are long: what lies behind their ends is never read */
	memset(&q, 0, offsetof(struct http_query, keys));
	ret = ask(&q, data, len, why);
	CHECK(!ret == !*why && strnlen(why, HTTP_WHY) < HTTP_WHY);
	if (!ret)
		ret = http_query_check(&q, why);
	CHECK(strnlen(q.space, sizeof(q.space)) < sizeof(q.space));
	CHECK(q.nr_keys <= HTTP_KEYS_MAX && q.nr_tokens <= HTTP_TOKENS_MAX);
	CHECK(q.nr_nodes <= WEFT_ROUTES_MAX);
	for (i = 0; i < q.nr_nodes; i++)
		CHECK(*q.nodes[i] && strnlen(q.nodes[i], sizeof(q.nodes[i])) < sizeof(q.nodes[i]));
	CHECK(ret || (!q.nr_keys != !q.nr_tokens && *q.space));
	return 0;
}

#ifdef FUZZ_STANDALONE

static const char *const seeds[] = {
	"1{\"space\": \"m\", \"keys\": [\"00000000000000000000000000000001\"], \"block_us\": 7}",
	"1{\"space\": \"m:l\", \"tokens\": [1, 2, 3], \"nodes\": [\"a\", \"0x7\"]}",
	"0keys=00000000000000000000000000000001,00000000000000000000000000000002",
	"0tokens=1,2,3",
	"0nodes=a,b,0x77",
	"0space=model",
	"0block_us=1000",
};

static uint64_t rnd(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

int main(int argc, char **argv)
{
	const uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000;
	uint64_t state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1, i;
	const size_t nr = sizeof(seeds) / sizeof(seeds[0]);
	uint8_t buf[INPUT_MAX];
	size_t len, n;

	for (i = 0; i < rounds; i++) {
		len = strlen(seeds[i % nr]);
		memcpy(buf, seeds[i % nr], len);
		for (n = i < nr ? 0 : 1 + rnd(&state) % 8; n; n--) {
			const size_t at = 1 + rnd(&state) % (len - 1);

			if (rnd(&state) % 3) {
				buf[at] = (uint8_t)rnd(&state);
			} else if (rnd(&state) % 2) {
				len = at + 1;
			} else if (2 * len < sizeof(buf)) {
				memmove(buf + at, buf + 1, len - 1);
				len += at - 1;
			}
		}
		LLVMFuzzerTestOneInput(buf, len);
	}
	return 0;
}

#endif
