/* SPDX-License-Identifier: Apache-2.0 */
/**
 * etcd.h - an etcd of the test's own, in a folder that goes with it
 */
#ifndef TEST_ETCD_H
#define TEST_ETCD_H

#include "tests/integration/node.h"

struct test_etcd {
	pid_t pid;
	unsigned port, peer_port;
	bool tls; /* with the certificates in .dir: ca.pem, server.pem, server.key */
	bool client_certs; /* are asked for */
	const char *addr; /* where it listens; loopback, until somebody says otherwise */
	int ns[TEST_NS_MAX]; /* as struct test_node's */
	char dir[64];
	char url[64];
};

/* Return: why there is no etcd to test with, or NULL */
const char *test_etcd_missing(void);
void test_etcd_init(struct test_etcd *e);
/* as test_etcd_start(), and does not wait for it to answer */
void test_etcd_launch(struct test_etcd *e);
/* on return it answers */
void test_etcd_start(struct test_etcd *e);
/* SIGKILL */
void test_etcd_kill(struct test_etcd *e);
/* it forgets everything. Not while it runs */
void test_etcd_wipe(struct test_etcd *e);
void test_etcd_fini(struct test_etcd *e);
/* a folder, or a file, and what is below it. Not there: nothing happens */
void test_tree_remove(const char *path);
/* etcdctl with these arguments, up to 12, ended by NULL. Return: its exit status */
int test_etcdctl(const struct test_etcd *e, char *out, size_t out_len, ...)
	__attribute__((sentinel));
/* certificates of a new authority in e->dir, by openssl: server.pem for 127.0.0.1, client.pem,
 * and other.pem of another authority. Return: false: there is no openssl */
bool test_etcd_certs(struct test_etcd *e);
/* a port that nobody listens on, for now */
unsigned test_port(void);

#endif
