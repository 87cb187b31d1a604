/* SPDX-License-Identifier: Apache-2.0 */
/* put a block, get it back: cc hello.c $(pkg-config --cflags --libs weft) */
#include <stdio.h>
#include <weft/weft.h>

int main(int argc, char **argv)
{
	const struct weft_opts opts = {
		.size = sizeof(opts),
		.mode = argc > 1 ? WEFT_EMBEDDED : WEFT_ATTACH, /* any argument: no weftd needed */
	};
	const struct weft_space_opts geometry = {
		.size = sizeof(geometry),
		.block_bytes = 4096,
		.model = "hello",
		.layout = "text",
		.tokens_per_block = 4,
	};
	const uint32_t prompt[4] = { 1, 2, 3, 4 };
	char in[4096] = "KV of four tokens", out[4096] = "";
	struct weft_space *space;
	struct weft_ring *ring;
	struct weft_key key;
	struct weft *w = NULL;
	int ok;

	ok = !weft_open(&opts, &w) && !weft_space_open(w, &geometry, &space) &&
	     !weft_ring_open(w, NULL, &ring) &&
	     weft_key_chain(space, NULL, prompt, 4, &key, 1) == 1 &&
	     weft_put(ring, space, NULL, &key, 1, (const void *const[]){ in }) == 1 &&
	     weft_get(ring, space, &key, 1, (void *const[]){ out }) == 1;
	printf("%s: %s\n", argv[0], ok ? out : weft_why());
	weft_close(w);
	return !ok;
}
