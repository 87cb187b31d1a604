/* SPDX-License-Identifier: Apache-2.0 */
/* verbs_rig.h - a node over a libibverbs that does what it is told */
#ifndef TEST_VERBS_RIG_H
#define TEST_VERBS_RIG_H

#include "daemon/node.h"

/* with one tenant of 1 MiB; the mock is as it is to be. @env: kept until verbs_node_close() */
void verbs_node_open(struct wfi_env *env, struct node **out);
/* its worker, for pthread_create(); ends when the node is told to stop. @node: it */
void *verbs_node_run(void *node);
/* without a worker; nothing of the device's may be left */
void verbs_node_close(struct node *node);

#endif
