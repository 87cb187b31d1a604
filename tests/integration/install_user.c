/* SPDX-License-Identifier: Apache-2.0 */
/* a user's program: everything it needs comes from the installed package */
#include <errno.h>
#include <stdio.h>
#include <weft/weft.h>

int main(void)
{
	struct weft_opts opts = { .size = sizeof(opts), .socket = "/nonexistent/weft.sock" };
	struct weft *w = NULL;
	int ret = weft_open(&opts, &w);

	if (ret == 0) {
		fprintf(stderr, "attached to a node that does not exist\n");
		weft_close(w);
		return 1;
	}
	printf("refused as it should be: %d, %s\n", ret, weft_why());
	return ret == -ENOENT || ret == -ECONNREFUSED ? 0 : 1;
}
