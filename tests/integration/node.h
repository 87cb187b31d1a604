/* SPDX-License-Identifier: Apache-2.0 */
/**
 * node.h - a weftd of the test's own, and what the tests of engines share
 *
 * The program is named by the environment: WEFTD. A node's files lie in a folder of its own, which
 * test_node_fini() removes. What goes wrong here fails the test.
 */
#ifndef TEST_NODE_H
#define TEST_NODE_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <cmocka.h>
#include "tests/integration/port.h"
#include "weft/weft.h"
#include "weft_internal/util.h"

#define TEST_SETS_MAX 16
#define TEST_NS_MAX 2

/* sanitizers keep freed memory back: what a process holds says nothing */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SANITIZED 1
#elif defined(__has_feature)
#define TEST_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define TEST_SANITIZED 0
#endif

/**
 * struct test_node - one weftd
 * @pid: 0 while it does not run
 * @ns: namespaces that it runs in, beside those of this process; 0: none
 * @apart: it sees no process but its own, as in a container; such a node is ended by
 *	test_node_kill() alone
 * @log: what all its lives wrote to stderr
 */
struct test_node {
	pid_t pid;
	int ns[TEST_NS_MAX];
	bool apart;
	char dir[64];
	char socket[96];
	char log[96];
	char peers[160]; /* room for a setting of that name */
	const char *sets[TEST_SETS_MAX + 1];
};

/* makes a folder of the test's own, named after @what */
void test_folder(char dir[64], const char *what);

/* @sets: "key=value" each, ended by NULL; the array is copied, the strings are lent */
void test_node_init(struct test_node *n, const char *const sets[]);
/* on return it listens */
void test_node_start(struct test_node *n);
/* SIGTERM; it must end in good order */
void test_node_stop(struct test_node *n);
void test_node_kill(struct test_node *n);
/* a node that runs is stopped first */
void test_node_fini(struct test_node *n);
/* how many times @text stands in its log */
unsigned test_node_logged(const struct test_node *n, const char *text);
unsigned test_node_fds(const struct test_node *n);
uint64_t test_node_rss(const struct test_node *n);

/* two nodes of one host, started: "near", and "far", which near dials. Each has 64 MiB */
void test_pair_start(struct test_node *near, struct test_node *far);
void test_pair_fini(struct test_node *near, struct test_node *far);

/* whether .apart can be had here */
bool test_node_can_be_apart(void);
/* in a child after fork(); it ends where that can't be */
void test_ns_enter(const int ns[TEST_NS_MAX]);

/* a program with its limits: runs to its end, 30 s at most. Return: exit status, or 128 + signal */
struct test_run {
	const char *argv[16]; /* argv[0] NULL: weftd */
	int resource; /* of setrlimit(), when limit is not 0 */
	uint64_t limit;
	char out[8192]; /* what it wrote, stdout and stderr */
};
int test_run(struct test_run *r);

uint64_t test_now_ms(void);
/* asks again and again, a millisecond apart. Return: what @cond said last */
bool test_until(unsigned ms, bool (*cond)(void *ctx), void *ctx);

/* bytes that tell one block from every other */
void test_fill(void *buf, size_t len, uint64_t seed);
bool test_filled(const void *buf, size_t len, uint64_t seed);
uint64_t test_rand(uint64_t *state);
/* to begin with: WEFT_TEST_SEED, or another in each run; it is printed */
uint64_t test_seed(void);

/* ---- engines ---- */

/* a session with one space and one ring */
struct test_engine {
	struct weft *w;
	struct weft_space *space;
	struct weft_ring *ring;
};

/* @n: NULL: an embedded node */
void test_engine_open(struct test_engine *e, const struct test_node *n, const char *token,
		      const struct weft_space_opts *space);
void test_engine_close(struct test_engine *e);
/* keys of a chain that @name stands for */
void test_keys(const struct test_engine *e, uint64_t name, unsigned nr, struct weft_key *keys);
/* the next completion, within 10 s */
void test_next(struct weft_ring *ring, struct weft_completion *out);
struct weft_stat test_stat(struct weft_ring *ring);
/* waits for slots_filling and slots_leased to be what @want has, for @ms. Return: whether they
 * are */
bool test_stat_settles(struct weft_ring *ring, const struct weft_stat *want, unsigned ms);
/* how many are attached */
unsigned test_engines(struct weft *w);
/* waits until no other engine is attached */
bool test_alone(struct weft *w, unsigned ms);
/* the sum over all labels of a counter of the node's */
uint64_t test_counter(struct weft *w, const char *name);
/* the same of weft_metrics_fd(), while the session waits for the node */
uint64_t test_counter_in(int fd, const char *name);

/* ---- engines in processes of their own: forked, so that they can be killed ---- */

struct test_child {
	pid_t pid;
	int to, from; /* pipes */
};

/* @run runs in the child, which ends with _exit(0) when it returns. @ctx is lent to the fork */
void test_child_start(struct test_child *c, void (*run)(int in, int out, void *ctx), void *ctx);
/* whole messages. Return: false at the end of the pipe */
bool test_say(int fd, const void *msg, size_t len);
bool test_hear(int fd, void *msg, size_t len);
/* SIGKILL, and reaped */
void test_child_kill(struct test_child *c);
/* waits for its end, which must be good */
void test_child_join(struct test_child *c);
/* in children, where an assertion of cmocka's would go on with the parent's tests */
#define test_must(cond) ((cond) ? (void)0 : test_child_die(#cond, __FILE__, __LINE__))
__attribute__((noreturn)) void test_child_die(const char *what, const char *file, int line);

#endif
