/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mock_verbs.h - libibverbs with one device that does what the test says, linked in its place
 *
 * Requests are kept until mock_done() or mock_flush() completes them, in order.
 */
#ifndef MOCK_VERBS_H
#define MOCK_VERBS_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#define MOCK_WRS 4096u

struct mock_wr {
	uint64_t wr_id;
	enum ibv_wr_opcode opcode;
	unsigned flags;
	int num_sge;
	uint32_t len;
	uint64_t remote;
	uint32_t qpn;
};

struct mock {
	/* what it is asked to be */
	unsigned nr_devices; /* atomic, as .nr_lists is */
	enum ibv_port_state state;
	bool no_gid;
	int reg_errno; /* the next registration fails */
	unsigned refuse_at; /* the nth request from now on is refused; 0: none */
	int max_cqe;
	int max_sge;
	int max_sge_rd;
	uint32_t max_inline;
	bool windows; /* of type 2 */
	bool dmabuf;
	bool complete_ctl; /* windows are bound and invalidated at once */
	bool loopback; /* reaches itself */
	bool fast; /* completes all at once, keeps nothing */
	/* what was seen */
	unsigned nr_lists; /* of devices, asked for */
	struct mock_wr wrs[MOCK_WRS]; /* posted and not completed: [head, tail) */
	unsigned head;
	unsigned tail;
	unsigned nr_doorbells;
	unsigned nr_srq;
	unsigned nr_mrs;
	unsigned nr_mws;
	unsigned access; /* of the last registration */
	uint64_t dmabuf_off;
	enum ibv_wr_opcode last_ctl;
	unsigned nr_qps;
	unsigned nr_cqs;
	unsigned nr_srqs;
	enum ibv_qp_state qp_state; /* of the last queue pair modified */
};

extern struct mock mock;

void mock_reset(void);
/* the first @nr requests are done: a completion for signalled ones */
void mock_done(unsigned nr);
/* the first request fails so, and those behind it are flushed; no completion is left out */
void mock_fail(enum ibv_wc_status status);
/* a message or an immediate arrives at @qpn */
void mock_receive(uint32_t qpn, enum ibv_wc_opcode opcode, uint32_t len, bool with_imm,
		  uint32_t imm);
void mock_event(enum ibv_event_type type, void *element);

#endif
