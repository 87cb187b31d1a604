/* SPDX-License-Identifier: Apache-2.0 */
/**
 * chaos.h - real nodes and a real etcd on hosts of their own, under faults, with engines at work
 *
 * One process is one cluster. Its main thread starts and kills nodes and etcd, cuts wires and puts
 * them back (schedule.c), and looks whether all is well afterwards (health.c). Threads are engines
 * that never rest meanwhile: workers (worker.c) put, get, match, map and drop; couriers (courier.c)
 * carry handoffs and channels from node to node. What a block holds follows from its key.
 *
 * What is checked all the time: bytes are right or not there; operations end by their deadlines;
 * errors are those that the operation may end with.
 *
 * hosts.c    namespaces, wires, packets that are lost
 * cluster.c  the processes
 * certs.c    what they prove themselves with, where they do
 * seat.c     an engine's session with one node, and the time that its operations take
 */
#ifndef CHAOS_H
#define CHAOS_H

#include <pthread.h>
#include <stdatomic.h>
#include "tests/chaos/hosts.h"
#include "tests/integration/etcd.h"
#include "weft_internal/env.h"

#define CHAOS_NODES_MAX (HOSTS_MAX - 1) /* etcd has a host, too */
#define CHAOS_BLOCK 8192u
#define CHAOS_LAYERS 4u
#define CHAOS_RUN 8u /* blocks of one operation, at most */
#define CHAOS_CHAINS 24u
#define CHAOS_CHAIN_LEN 24u
#define CHAOS_GRACE_NS (100 * WFI_NSEC_PER_MSEC) /* from a deadline to the completion */
#define CHAOS_LEASE_SURE_NS (200 * WFI_NSEC_PER_MSEC) /* of the 300 ms that nodes give */
#define CHAOS_LATE_NS WFI_NSEC_PER_SEC /* no operation is that late, whatever the machine does */
#define CHAOS_HANG_NS (15 * WFI_NSEC_PER_SEC) /* after that nobody waits for it any more */
#define CHAOS_ANSWER_NS (5 * WFI_NSEC_PER_SEC) /* from healing until the cluster answers */

struct chaos_node {
	struct test_node proc;
	atomic_int pid; /* that .proc has, for other threads */
	char sets[7][128]; /* texts of .proc.sets */
	unsigned cert; /* which of its certificates it shows */
	bool frozen;
	bool leaving; /* SIGTERM was sent */
	atomic_bool drains; /* engines are to go: then it does */
	bool hurries; /* and is told to stop when it takes long */
	uint64_t told_ns; /* that it is to go */
	atomic_uint_fast64_t frozen_ns; /* that it stood still, all in all */
	atomic_uint_fast64_t since_ns; /* that it stands still; 0: it does not */
};

enum chaos_count {
	CHAOS_OPS,
	CHAOS_BLOCKS, /* that arrived, right */
	CHAOS_REMOTE, /* of them, known to be on other nodes before */
	CHAOS_HANDOFFS, /* between two nodes, to the end */
	CHAOS_MESSAGES, /* of channels between two nodes */
	CHAOS_RESETS, /* operations that ended with their node */
	CHAOS_FAILURES, /* that ended with another error */
	CHAOS_DRAINED, /* nodes that went when their engines had gone */
	CHAOS_RENEWED, /* certificates */
	CHAOS_LATE, /* operations that ended after their deadline and the grace */
	CHAOS_NR_COUNTS,
};

struct chaos {
	unsigned nr; /* nodes; etcd is on host .nr */
	bool tls;
	char dir[64];
	struct hosts hosts;
	struct test_etcd etcd;
	bool etcd_frozen;
	struct chaos_node nodes[CHAOS_NODES_MAX];
	struct seat *control; /* one for each node, of the main thread */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t threads[4 * CHAOS_NODES_MAX];
	unsigned nr_threads, nr_parked;
	bool park, quit; /* they are to */
	unsigned nr_sessions; /* of all threads, on each node, at most */

	atomic_bool failed;
	char what[512]; /* the first breach */
	atomic_uint_fast64_t counts[CHAOS_NR_COUNTS];
};

/* something that must not be: the first is kept. Any thread */
void chaos_breach(struct chaos *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void chaos_count(struct chaos *c, enum chaos_count what, uint64_t more);
uint64_t chaos_now(void);
/* a line in the cluster's own log, beside those of its nodes. The main thread's */
void chaos_log(struct chaos *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- cluster.c: processes ---- */

/* Return: false: this host can't, @why says what it lacks; or, with c->tls not set though @tls was
 * asked for, true, and why it has none */
bool cluster_init(struct chaos *c, unsigned nr, bool tls, char *why, size_t why_len);
void cluster_fini(struct chaos *c);
/* what is dead is started, what stands still goes on; on return nodes listen, but for one that
 * drains while another stands still: that one goes on draining */
void node_up(struct chaos *c, unsigned node);
void node_kill(struct chaos *c, unsigned node);
void node_freeze(struct chaos *c, unsigned node);
void node_thaw(struct chaos *c, unsigned node);
/* SIGTERM; node_up() waits for its end */
void node_leave(struct chaos *c, unsigned node);
/* as weft drain does; node_up() waits for its end. @hurries: SIGTERM comes first */
void node_drain(struct chaos *c, unsigned node, bool hurries);
/* is told to go, and has not been waited for */
bool node_goes(const struct chaos *c, unsigned node);
void etcd_up(struct chaos *c);
void etcd_kill(struct chaos *c);
void etcd_freeze(struct chaos *c);
/* a breach when one has ended by itself */
void cluster_check_alive(struct chaos *c);

/* ---- certs.c: certificates of all nodes ---- */

/* c->tls, from then on. Return: false: there are none, @why says what lacks */
bool certs_init(struct chaos *c, char *why, size_t why_len);
void certs_fini(struct chaos *c);
/* a node gets another one. @told: it hears of it */
void certs_renew(struct chaos *c, unsigned node, bool told);
/* how many days the one that it shows was made for */
int64_t certs_days(const struct chaos *c, unsigned node);

/* ---- seat.c: an engine at one node ---- */

/* when an operation began, and how long its node, and its engine, had stood still until then, or
 * waited for a processor */
struct moment {
	uint64_t at_ns;
	uint64_t excused_ns;
};

struct seat {
	struct chaos *c;
	unsigned node;
	const char *name;
	uint64_t rand;
	bool memfd; /* of its region; else private memory */
	bool open;
	int waits[2]; /* files: how long the node's worker, and this thread, waited to run */
	struct test_engine e;
	uint32_t region;
	uint8_t *memory; /* CHAOS_RUN blocks */
};

void seat_init(struct seat *s, struct chaos *c, unsigned node, const char *name, uint64_t seed);
void seat_fini(struct seat *s);
/* goes where its node wants to: no more engines */
void seat_yield(struct seat *s);
/* attaches where it is not. Return: whether it is. From the first time on one thread has it */
bool seat_ready(struct seat *s);
struct moment seat_moment(struct seat *s);
/* ns since @m, without those */
uint64_t seat_since(struct seat *s, const struct moment *m);
/* posts it. Return: 1, -ECONNRESET */
int seat_post(struct seat *s, const struct weft_op *op);
/* the next completion of this ring, which belongs to an operation that began at @m and may take
 * @timeout_us; a breach when it is late. Return: its res */
int seat_next(struct seat *s, const struct moment *m, uint32_t timeout_us,
	      struct weft_completion *out);
/* both. @out: NULL where only its res is wanted */
int seat_call(struct seat *s, const struct weft_op *op, struct weft_completion *out);
/* counts an error; a breach when it is none of those that an operation may end with under faults.
 * @also: more that may be, MAY(-E...), or NULL. Return: whether @ret is one */
bool seat_failed(struct seat *s, const char *what, int ret, const int *also);
#define MAY(...) ((const int[]){ __VA_ARGS__, 0 })
uint32_t seat_rand(struct seat *s, uint32_t below);
void *seat_slot(const struct seat *s, const struct weft_slot *slot);
/* claims and fills nothing. Return: whether it could */
bool seat_claim(struct seat *s, struct weft_slot *slots, unsigned nr);
void seat_unclaim(struct seat *s, struct weft_slot *slots, unsigned nr);
/* what stands in block @i of chain @name */
uint64_t block_seed(uint64_t name, unsigned i);

/* ---- worker.c, courier.c: threads. health.c: the main thread's ---- */

/* Return: false when the thread is to end. Waits while it is to be parked */
bool chaos_goes_on(struct chaos *c);
void chaos_pause_us(uint32_t us);
void engines_start(struct chaos *c, uint64_t seed);
/* all have let go of what they held, until engines_resume() */
void engines_park(struct chaos *c);
void engines_resume(struct chaos *c);
void engines_stop(struct chaos *c);
void worker_turn(struct seat *s);
/* @from, @to: a seat for each node */
void handoff_turn(struct seat *from, struct seat *to);
void channel_turn(struct seat *from, struct seat *to);

/* waits until each node knows all others and gives what they hold. Return: how long it took; a
 * breach when that was too long */
uint64_t health_answers(struct chaos *c, uint64_t healed_ns);
/* engines are parked: nothing is held that nobody has */
void health_conserved(struct chaos *c);

/* ---- schedule.c ---- */

/* makes faults by a seed, and heals all. Return: when that was */
uint64_t schedule_run(struct chaos *c, uint64_t seed);

#endif
