/* SPDX-License-Identifier: Apache-2.0 */
/* move.h - what export and import share */
#ifndef WFI_CLI_MOVE_H
#define WFI_CLI_MOVE_H

#include "cli/cli.h"
#include "cli/export.h"

/* the space on the node's side: what names it, and the way to it */
struct wfi_move {
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
	struct wfi_export_header geometry; /* up to .check and the names */
	uint8_t *bytes; /* of one block */
};

/* opens the space that @geometry describes, for keys, get and put. @exists: it is open already, and
 * its bound is left alone. Return: exit code, after a message */
int wfi_move_open(struct wfi_move *m, bool exists);
void wfi_move_close(struct wfi_move *m);
/* from what the node says of a space */
void wfi_move_geometry(const json_t *space, struct wfi_export_header *out);

#endif
