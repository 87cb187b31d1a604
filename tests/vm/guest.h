/* SPDX-License-Identifier: Apache-2.0 */
/* guest.h - what tests between two processes or two guests share: words over TCP, and time */
#ifndef GUEST_H
#define GUEST_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include "weft_internal/env.h"

#define GUEST_SLOWEST 8u

/* how much less than usual this guest gets of a processor, as guest_begin() found it */
extern uint64_t guest_slowness;

/* measures that. Return: whether this is a guest of tests/vm/run; else it says so */
bool guest_begin(struct wfi_env *env, struct sockaddr_in *where, unsigned port);
/* the other side: a process of its own in one guest, the guest with WEFT_VM_HOST=1 of two. Return:
 * true where this is that one, with what it ended with in @status; false: it is there, or will be
 */
bool guest_serves(const struct sockaddr_in *where, int (*server)(int sock), int *status);
/* whether what began at @start_ns took less than @ms of a guest that has a processor. The host may
 * have more to do by now */
bool guest_in_time(struct wfi_env *env, uint64_t start_ns, uint64_t ms);

/* a variable that tests/vm/run sets */
bool guest_is(const char *name, const char *value);

/* all of it */
void guest_move(int sock, void *buf, size_t len, int out);
int guest_listen(const struct sockaddr_in *where);
/* until the other side answers: its machine may be starting anew. @more goes first */
int guest_dial(const struct sockaddr_in *where, char more);

/* runs it; it must go well */
void guest_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
