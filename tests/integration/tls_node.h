/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tls_node.h - nodes of this process that meet over TLS, their certificates, and what they show
 *
 * The reference transport carries their blocks, real sockets of loopback what they say. What a node
 * shows is asked of it by weft, named by the environment: WEFT. What goes wrong here fails the
 * test.
 */
#ifndef TEST_TLS_NODE_H
#define TEST_TLS_NODE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <cmocka.h>

#include "daemon/control.h"
#include "daemon/tls.h"

#define WAIT_MS 30000u

/* the worker of all nodes; and from now on the log is kept, for logged() */
void workers_start(void);
void workers_stop(void);

/* some line of the log has the text, since log_forget() */
bool logged(const char *text);
void log_forget(void);
uint64_t now_ms(void);
unsigned fds_open(void);
/* some go in the background, with the memory of nodes that were stopped */
void await_fds(unsigned before);

/* ---- a folder of certificates ---- */

/* those of one CA are in pki/, expired ones of it in old/, of another in other/; live/ is empty */
extern char dir[64];
int tls_setup(void **state);
int tls_cleanup(void **state);
/* a path in it; good for the next seven calls */
const char *in_dir(const char *name);
/* whole at once, as those do it who renew certificates */
void dir_copy(const char *from, const char *to);

/* ---- nodes ---- */

struct side {
	struct wfi_env env;
	struct node *node;
	struct control *control;
	struct secure *secure;
	pthread_t thread;
	char socket[96], listen[32], peer[32];
	unsigned port;
};

struct side_opts {
	const char *name;
	const char *pki; /* folder with its certificate; NULL: plain */
	const char *allow;
	const char *peer; /* whom it calls */
	unsigned port; /* there */
	/* the first is what it reaches other nodes over; NULL: the reference transport */
	const struct weft_transport *const *transports;
};

/* s->secure, with s->env */
void side_secure(struct side *s, const struct side_opts *o);
void side_start(struct side *s, const struct side_opts *o);
void side_stop(struct side *s);

/* ---- what a node shows ---- */

/* some entry of a list has the text */
bool shows(const struct side *s, const char *list, const char *key, const char *text);
void await_shown(const struct side *s, const char *list, const char *key, const char *text);
/* certificates were loaded so often, and are @complains about */
void await_loads(const struct side *s, int64_t loads, bool complains);

#endif
