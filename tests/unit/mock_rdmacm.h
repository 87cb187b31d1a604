/* SPDX-License-Identifier: Apache-2.0 */
/* mock_rdmacm.h - librdmacm that says what the test wants, linked in its place */
#ifndef MOCK_RDMACM_H
#define MOCK_RDMACM_H

#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>

struct mock_cm {
	/* what it is asked to be */
	bool none; /* no rdma_ucm */
	bool elsewhere; /* ways lead through another device */
	int bind_errno;
	/* what was seen */
	struct rdma_cm_id *last; /* id made */
	unsigned nr_ids;
	unsigned nr_connects;
	unsigned nr_accepts;
	unsigned nr_rejects;
	unsigned nr_established;
	int from_family;
	uint8_t said[64]; /* last private data */
	uint8_t said_len;
};

extern struct mock_cm mock_cm;

void mock_cm_reset(void);
void mock_cm_event(struct rdma_cm_id *id, enum rdma_cm_event_type type, int status,
		   const void *data, uint8_t len);
/* a peer asks at a port. Return: its id */
struct rdma_cm_id *mock_cm_ask(struct rdma_cm_id *listener, const void *data, uint8_t len);

#endif
