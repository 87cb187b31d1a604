/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include "fake_node.h"
#include "weft_internal/ctl.h"
#include "weft_internal/env.h"
#include "weft_internal/ring_server.h"
#include "weft_internal/util.h"

#define RINGS_MAX 8u
#define REGIONS_MAX 8u
#define BLOCKS_MAX 256u
#define BATCH 64u
#define MAX_NR 1024u

struct fake_region {
	bool used;
	uint64_t addr; /* in the engine, when private */
	char *map; /* when shared */
	uint64_t len;
};

struct fake_block {
	struct weft_key key;
	bool claimed, held;
};

struct fake_node {
	struct wfi_env env;
	pthread_t control, worker;
	pthread_mutex_t lock;
	int listen_fd, stop_fd, conn;
	pid_t engine;
	int arena_fd;
	char *arena;
	uint64_t block_bytes;
	struct wfi_ring *rings[RINGS_MAX];
	struct fake_region regions[REGIONS_MAX];
	struct fake_block blocks[BLOCKS_MAX];
	struct weft_key keys[MAX_NR + 1];
	struct weft_slot slots[MAX_NR];
	int32_t results[MAX_NR];
	struct weft_ctl_rep pending; /* FAKE_MUTE: sent when it is off */
	bool has_pending;
	uint32_t poke; /* futex of the worker */
	uint32_t asleep; /* atomic */
	uint32_t stopping; /* atomic */
	uint32_t faults; /* atomic */
	uint64_t taken; /* atomic */
	char path[108];
};

static unsigned faults(const struct fake_node *n)
{
	return __atomic_load_n(&n->faults, __ATOMIC_ACQUIRE);
}

/* ---- operations ---- */

static struct fake_block *block_find(struct fake_node *n, const struct weft_key *key)
{
	unsigned i;

	for (i = 0; i < BLOCKS_MAX; i++)
		if (n->blocks[i].held && !memcmp(&n->blocks[i].key, key, sizeof(*key)))
			return &n->blocks[i];
	return NULL;
}

static struct weft_slot slot_of(const struct fake_node *n, const struct fake_block *b)
{
	uint64_t idx = (uint64_t)(b - n->blocks);
	bool wild = faults(n) & FAKE_WILD_SLOTS;

	return (struct weft_slot){ .idx = (uint32_t)idx,
				   .gen = 1,
				   .off = wild ? UINT64_MAX - 8 : idx * n->block_bytes };
}

static unsigned nr_slots(const struct fake_node *n)
{
	return (unsigned)wfi_min(BLOCKS_MAX, FAKE_ARENA_BYTES / n->block_bytes);
}

static int do_claim(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned i, got = 0, have = 0;

	for (i = 0; i < nr_slots(n); i++)
		have += !n->blocks[i].claimed && !n->blocks[i].held;
	if (have < sqe->nr)
		return -ENOSPC;
	for (i = 0; got < sqe->nr; i++) {
		if (n->blocks[i].claimed || n->blocks[i].held)
			continue;
		n->blocks[i].claimed = true;
		n->slots[got++] = slot_of(n, &n->blocks[i]);
	}
	wfi_ring_args_write(ring, sqe->arg_off, n->slots, got * sizeof(*n->slots));
	return (int)got;
}

/* one way or the other between an engine's place and a block */
static int place_copy(struct fake_node *n, const struct weft_place *p, char *block, bool in)
{
	uint64_t len = p->len ? p->len : n->block_bytes;
	struct fake_region *r = p->region < REGIONS_MAX ? &n->regions[p->region] : NULL;
	struct iovec local = { .iov_base = block, .iov_len = len };
	struct iovec remote;
	ssize_t ret;

	if (p->region && (!r || !r->used || !wfi_range_ok(p->off, len, r->len)))
		return -EINVAL;
	if (!p->region || r->map) {
		char *at = (p->region ? r->map : n->arena) + p->off;

		memcpy(in ? block : at, in ? at : block, len);
		return 0;
	}
	remote =
		(struct iovec){ .iov_base = (void *)(uintptr_t)(r->addr + p->off), .iov_len = len };
	ret = in ? process_vm_readv(n->engine, &local, 1, &remote, 1, 0)
		 : process_vm_writev(n->engine, &local, 1, &remote, 1, 0);
	return ret == (ssize_t)len ? 0 : -EFAULT;
}

static int put_one(struct fake_node *n, const struct weft_key *key, const struct weft_slot *slot,
		   bool copy)
{
	struct fake_block *b = NULL;
	unsigned i;

	if (!copy) {
		if (slot->idx >= BLOCKS_MAX || !n->blocks[slot->idx].claimed)
			return -ESTALE;
		b = &n->blocks[slot->idx];
		b->claimed = false;
	}
	if (block_find(n, key))
		return -EEXIST;
	for (i = 0; i < nr_slots(n) && !b; i++)
		if (!n->blocks[i].claimed && !n->blocks[i].held)
			b = &n->blocks[i];
	if (!b)
		return -ENOSPC;
	if (copy) {
		struct weft_place place;
		int ret;

		memcpy(&place, slot, sizeof(place));
		ret = place_copy(n, &place, n->arena + slot_of(n, b).off, true);
		if (ret)
			return ret;
	}
	b->key = *key;
	b->held = true;
	return 0;
}

static int do_put(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	uint64_t at = sqe->arg_off, keys = (sqe->nr + 1) * sizeof(struct weft_key);
	unsigned i;
	int held = 0;

	wfi_ring_args_read(ring, at, n->keys, keys);
	wfi_ring_args_read(ring, at + keys, n->slots, sqe->nr * sizeof(*n->slots));
	for (i = 0; i < sqe->nr; i++) {
		n->results[i] = put_one(n, &n->keys[i + 1], &n->slots[i], sqe->flags & WEFT_F_COPY);
		held += !n->results[i] || n->results[i] == -EEXIST;
	}
	wfi_ring_args_write(ring, at + keys + sqe->nr * sizeof(*n->slots), n->results,
			    sqe->nr * sizeof(*n->results));
	return held;
}

static unsigned prefix(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned i;

	wfi_ring_args_read(ring, sqe->arg_off, n->keys, sqe->nr * sizeof(*n->keys));
	for (i = 0; i < sqe->nr; i++) {
		struct fake_block *b = block_find(n, &n->keys[i]);

		if (!b)
			break;
		n->slots[i] = slot_of(n, b);
		n->results[i] = WEFT_TIER_DRAM;
	}
	return i;
}

static int do_match(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned nr = prefix(n, ring, sqe), i;

	for (i = nr; i < sqe->nr; i++)
		n->results[i] = WEFT_TIER_NONE;
	if (sqe->flags & WEFT_F_WHERE)
		wfi_ring_args_write(ring, sqe->arg_off + sqe->nr * sizeof(*n->keys), n->results,
				    sqe->nr * sizeof(*n->results));
	return (int)nr;
}

static int do_map(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned nr = prefix(n, ring, sqe);

	wfi_ring_args_write(ring, sqe->arg_off + sqe->nr * sizeof(*n->keys), n->slots,
			    nr * sizeof(*n->slots));
	return (int)nr;
}

static int do_get(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	uint64_t at = sqe->arg_off + sqe->nr * sizeof(*n->keys);
	struct weft_place place;
	unsigned i;
	int nr = 0;

	wfi_ring_args_read(ring, sqe->arg_off, n->keys, sqe->nr * sizeof(*n->keys));
	for (i = 0; i < sqe->nr; i++) {
		struct fake_block *b = block_find(n, &n->keys[i]);

		wfi_ring_args_read(ring, at + i * sizeof(place), &place, sizeof(place));
		n->results[i] = b ? place_copy(n, &place, n->arena + slot_of(n, b).off, false)
				  : -ENOENT;
		nr += !n->results[i];
	}
	wfi_ring_args_write(ring, at + sqe->nr * sizeof(place), n->results,
			    sqe->nr * sizeof(*n->results));
	return nr;
}

static int do_drop(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned i;
	int nr = 0;

	wfi_ring_args_read(ring, sqe->arg_off, n->keys, sqe->nr * sizeof(*n->keys));
	for (i = 0; i < sqe->nr; i++) {
		struct fake_block *b = block_find(n, &n->keys[i]);

		n->results[i] = b ? 0 : -ENOENT;
		nr += !!b;
		if (b)
			b->held = false;
	}
	wfi_ring_args_write(ring, sqe->arg_off + sqe->nr * sizeof(*n->keys), n->results,
			    sqe->nr * sizeof(*n->results));
	return nr;
}

static int do_release(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	unsigned i;

	if (sqe->handle)
		return faults(n) & FAKE_LEASE_ENDS ? -ENOENT : (int)sqe->handle;
	wfi_ring_args_read(ring, sqe->arg_off, n->slots, sqe->nr * sizeof(*n->slots));
	for (i = 0; i < sqe->nr; i++)
		n->blocks[n->slots[i].idx % BLOCKS_MAX].claimed = false;
	return (int)sqe->nr;
}

static int do_stat(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	const struct weft_stat st = { .slots_total = nr_slots(n), .arena_bytes = FAKE_ARENA_BYTES };

	return wfi_ring_args_write(ring, sqe->arg_off, &st, sizeof(st));
}

/* the ticket, one event for the first half of the blocks, one for the second, then the last */
static int do_expect(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	uint64_t out = sqe->arg_off + sizeof(struct weft_arg_expect) + sqe->nr * 16u;
	struct weft_cqe ev = { .user_data = sqe->user_data,
			       .op = sqe->op,
			       .flags = WEFT_CQE_MORE | WEFT_CQE_TICKET,
			       .value = 77 };
	struct weft_arg_expect arg;
	unsigned i, half = sqe->nr / 2;

	wfi_ring_args_read(ring, sqe->arg_off, &arg, sizeof(arg));
	arg.ticket =
		(struct weft_ticket){ .node = 5, .nr_blocks = sqe->nr, .nr_layers = arg.nr_layers };
	wfi_ring_args_write(ring, sqe->arg_off, &arg.ticket, sizeof(arg.ticket));
	if (wfi_ring_complete(ring, &ev))
		return -EIO;
	for (i = 0; i < sqe->nr; i++)
		n->slots[i] = slot_of(n, &n->blocks[i]);
	wfi_ring_args_write(ring, out, n->slots, sqe->nr * sizeof(*n->slots));
	ev.flags = WEFT_CQE_MORE;
	ev.layer = 3;
	ev.nr_layers = 2;
	ev.value = (uint64_t)half << 32;
	if (wfi_ring_complete(ring, &ev))
		return -EIO;
	ev.value = (uint64_t)(sqe->nr - half) << 32 | half;
	return wfi_ring_complete(ring, &ev) ? -EIO : (int)sqe->nr;
}

static int execute(struct fake_node *n, struct wfi_ring *ring, const struct weft_sqe *sqe)
{
	if (sqe->nr > MAX_NR)
		return -EINVAL;
	switch (sqe->op) {
	case WEFT_OP_NOP:
		return 0;
	case WEFT_OP_STAT:
		return do_stat(n, ring, sqe);
	case WEFT_OP_CLAIM:
		return do_claim(n, ring, sqe);
	case WEFT_OP_PUT:
		return do_put(n, ring, sqe);
	case WEFT_OP_MATCH:
	case WEFT_OP_PREFETCH:
		return do_match(n, ring, sqe);
	case WEFT_OP_GET:
		return do_get(n, ring, sqe);
	case WEFT_OP_MAP:
		return do_map(n, ring, sqe);
	case WEFT_OP_RELEASE:
		return do_release(n, ring, sqe);
	case WEFT_OP_DROP:
		return do_drop(n, ring, sqe);
	case WEFT_OP_HANDOFF_EXPECT:
		return do_expect(n, ring, sqe);
	default:
		return -EOPNOTSUPP;
	}
}

/* ---- the worker ---- */

static unsigned serve(struct fake_node *n, struct wfi_ring *ring)
{
	struct weft_sqe sqes[BATCH];
	int nr = wfi_ring_take(ring, sqes, BATCH), i;

	for (i = 0; i < nr && !(faults(n) & FAKE_HOLD); i++) {
		struct weft_cqe cqe = { .user_data = sqes[i].user_data, .op = sqes[i].op };

		cqe.res = execute(n, ring, &sqes[i]);
		if (sqes[i].op == WEFT_OP_MAP && cqe.res > 0)
			cqe.value = (uint64_t)cqe.res;
		if (faults(n) & FAKE_GARBAGE)
			cqe.user_data ^= 1ull << 40;
		wfi_ring_complete(ring, &cqe);
	}
	wfi_ring_flush(ring);
	if (nr > 0)
		__atomic_fetch_add(&n->taken, (uint64_t)nr, __ATOMIC_RELEASE);
	return nr > 0 ? (unsigned)nr : 0;
}

static void worker_sleep(struct fake_node *n)
{
	struct futex_waitv v[RINGS_MAX + 1];
	struct timespec ts;
	unsigned i, nr = 1;
	bool busy = false;

	v[0] = (struct futex_waitv){ .uaddr = (uintptr_t)&n->poke,
				     .val = __atomic_load_n(&n->poke, __ATOMIC_ACQUIRE),
				     .flags = FUTEX_32 };
	pthread_mutex_lock(&n->lock);
	for (i = 0; i < RINGS_MAX; i++) {
		const uint32_t *futex;
		uint32_t val;

		if (!n->rings[i])
			continue;
		if (wfi_ring_sleep(n->rings[i], &futex, &val))
			busy = true;
		else
			v[nr++] = (struct futex_waitv){ .uaddr = (uintptr_t)futex,
							.val = val,
							.flags = FUTEX_32 };
	}
	pthread_mutex_unlock(&n->lock);
	if (!busy && !__atomic_load_n(&n->stopping, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&n->asleep, nr > 1, __ATOMIC_RELEASE);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_sec++;
		if (syscall(SYS_futex_waitv, v, nr, 0, &ts, CLOCK_MONOTONIC) < 0 && errno == ENOSYS)
			sched_yield();
		__atomic_store_n(&n->asleep, 0, __ATOMIC_RELEASE);
	}
	pthread_mutex_lock(&n->lock);
	for (i = 0; i < RINGS_MAX; i++)
		if (n->rings[i])
			wfi_ring_awake(n->rings[i]);
	pthread_mutex_unlock(&n->lock);
}

static void *worker_main(void *arg)
{
	struct fake_node *n = arg;
	unsigned idle = 0, i;

	while (!__atomic_load_n(&n->stopping, __ATOMIC_ACQUIRE)) {
		unsigned work = 0;

		pthread_mutex_lock(&n->lock);
		for (i = 0; i < RINGS_MAX; i++)
			if (n->rings[i])
				work += serve(n, n->rings[i]);
		pthread_mutex_unlock(&n->lock);
		idle = work ? 0 : idle + 1;
		if (idle > 100) {
			worker_sleep(n);
			idle = 0;
		}
	}
	return NULL;
}

/* ---- control ---- */

static void poke(struct fake_node *n)
{
	__atomic_fetch_add(&n->poke, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &n->poke, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static int on_ring_open(struct fake_node *n, const struct weft_ctl_req *req,
			struct weft_ctl_rep *rep)
{
	const struct wfi_ring_opts opts = { .sq_depth = req->u.ring.sq_depth,
					    .cq_depth = req->u.ring.cq_depth,
					    .arg_bytes = req->u.ring.arg_bytes };
	unsigned i;

	for (i = 0; i < RINGS_MAX && n->rings[i]; i++)
		;
	rep->status = i < RINGS_MAX ? wfi_ring_create(&n->env, &opts, &n->rings[i]) : -ENOSPC;
	if (rep->status)
		return -1;
	rep->id = i;
	rep->len = wfi_ring_len(n->rings[i]) * (faults(n) & FAKE_SHORT_RING ? 2 : 1);
	return wfi_ring_fd(n->rings[i]);
}

static void on_region(struct fake_node *n, const struct weft_ctl_req *req, struct weft_ctl_rep *rep,
		      int fd)
{
	struct fake_region *r = NULL;
	unsigned i;

	if (req->type == WEFT_CTL_REGION_DEREG) {
		r = &n->regions[req->id % REGIONS_MAX];
		if (r->map)
			munmap(r->map, r->len);
		rep->status = r->used ? 0 : -ENOENT;
		*r = (struct fake_region){ 0 };
		return;
	}
	for (i = faults(n) & FAKE_OTHER_REGIONS ? 5 : 1; i < REGIONS_MAX && n->regions[i].used; i++)
		;
	if (i == REGIONS_MAX || req->u.region.has_fd != (fd >= 0)) {
		rep->status = -EINVAL;
		return;
	}
	r = &n->regions[i];
	*r = (struct fake_region){ .used = true,
				   .addr = req->u.region.addr,
				   .len = req->u.region.len };
	if (fd >= 0)
		r->map = mmap(NULL, r->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			      (off_t)req->u.region.off);
	rep->id = i;
}

static int on_text(struct weft_ctl_rep *rep, const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);

	rep->len = strlen(text);
	return write(fd, text, rep->len) == (ssize_t)rep->len ? fd : -1;
}

/* Return: fd that goes with the answer (a copy), or -1 */
static int on_request(struct fake_node *n, const struct weft_ctl_req *req, struct weft_ctl_rep *rep,
		      int fd)
{
	switch (req->type) {
	case WEFT_CTL_HELLO:
		if (req->u.hello.token[0] && strcmp(req->u.hello.token, FAKE_TOKEN)) {
			rep->status = -EACCES;
			snprintf(rep->why, sizeof(rep->why), "no tenant has this token");
			return -1;
		}
		rep->len = FAKE_ARENA_BYTES;
		rep->incarnation = 1;
		return dup(n->arena_fd);
	case WEFT_CTL_RING_OPEN:
		return dup(on_ring_open(n, req, rep));
	case WEFT_CTL_RING_CLOSE:
		wfi_ring_destroy(n->rings[req->id % RINGS_MAX]);
		n->rings[req->id % RINGS_MAX] = NULL;
		return -1;
	case WEFT_CTL_SPACE_OPEN:
		rep->id = 0x10001;
		n->block_bytes = req->u.space.block_bytes;
		memset(rep->secret, faults(n) & FAKE_OTHER_SALT ? 'x' : 's', sizeof(rep->secret));
		rep->status = n->block_bytes <= FAKE_ARENA_BYTES ? 0 : -E2BIG;
		return faults(n) & FAKE_STRAY_FD ? dup(n->arena_fd) : -1;
	case WEFT_CTL_REGION_REG:
	case WEFT_CTL_REGION_DEREG:
		on_region(n, req, rep, fd);
		return -1;
	case WEFT_CTL_STATUS:
		return on_text(rep, "{\"status\":1}");
	case WEFT_CTL_LS:
		return on_text(rep, "{\"ls\":1}");
	case WEFT_CTL_STAT:
		return on_text(rep, "{\"stat\":1}");
	case WEFT_CTL_BLOCKS:
		return on_text(rep,
			       req->id == 7 && req->u.blocks.from == 9 ? "{\"blocks\":1}" : "{}");
	case WEFT_CTL_METRICS:
		return dup(n->arena_fd);
	default:
		return -1;
	}
}

static void send_pending(struct fake_node *n)
{
	if (!n->has_pending || faults(n) & FAKE_MUTE)
		return;
	n->has_pending = false;
	wfi_ctl_send(n->conn, &n->pending, sizeof(n->pending), NULL, 0);
}

static void on_message(struct fake_node *n)
{
	struct weft_ctl_req req;
	struct weft_ctl_rep rep = { .magic = WEFT_CTL_MAGIC };
	unsigned nr = 0;
	int in = -1, out;

	if (wfi_ctl_recv(n->conn, &req, sizeof(req), &in, 1, &nr) != sizeof(req)) {
		close(n->conn);
		n->conn = -1;
		return;
	}
	rep.type = req.type;
	pthread_mutex_lock(&n->lock);
	out = on_request(n, &req, &rep, nr ? in : -1);
	pthread_mutex_unlock(&n->lock);
	poke(n); /* the worker counts its rings again */
	if (faults(n) & FAKE_MUTE) {
		n->pending = rep;
		n->has_pending = true;
	} else {
		wfi_ctl_send(n->conn, &rep, sizeof(rep), &out, out >= 0);
	}
	if (out >= 0)
		close(out);
	if (nr)
		close(in);
}

static void rings_drop(struct fake_node *n)
{
	unsigned i;

	pthread_mutex_lock(&n->lock);
	for (i = 0; i < RINGS_MAX; i++) {
		wfi_ring_destroy(n->rings[i]);
		n->rings[i] = NULL;
	}
	pthread_mutex_unlock(&n->lock);
}

static void on_accept(struct fake_node *n)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (n->conn >= 0)
		close(n->conn);
	rings_drop(n);
	n->conn = accept4(n->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (!getsockopt(n->conn, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		n->engine = cred.pid;
}

static void *control_main(void *arg)
{
	struct fake_node *n = arg;

	while (!__atomic_load_n(&n->stopping, __ATOMIC_ACQUIRE)) {
		struct pollfd pfd[3] = { { .fd = n->stop_fd, .events = POLLIN },
					 { .fd = n->listen_fd, .events = POLLIN },
					 { .fd = n->conn, .events = POLLIN } };
		uint64_t ticks;

		if (poll(pfd, 3, -1) < 0)
			continue;
		if (pfd[0].revents && read(n->stop_fd, &ticks, sizeof(ticks)) > 0)
			send_pending(n);
		if (pfd[1].revents)
			on_accept(n);
		else if (pfd[2].revents)
			on_message(n);
	}
	return NULL;
}

/* ---- start and stop ---- */

struct fake_node *fake_node_start(const char *path)
{
	struct fake_node *n = calloc(1, sizeof(*n));
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(n->path, sizeof(n->path), "%s", path);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	n->conn = -1;
	n->block_bytes = 4096;
	pthread_mutex_init(&n->lock, NULL);
	n->stop_fd = eventfd(0, EFD_CLOEXEC);
	n->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	n->arena_fd = memfd_create("arena", MFD_CLOEXEC);
	if (wfi_env_real_init(&n->env) || ftruncate(n->arena_fd, FAKE_ARENA_BYTES) ||
	    bind(n->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(n->listen_fd, 4))
		abort();
	n->arena = mmap(NULL, FAKE_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, n->arena_fd, 0);
	if (pthread_create(&n->control, NULL, control_main, n) ||
	    pthread_create(&n->worker, NULL, worker_main, n))
		abort();
	return n;
}

static void tick(struct fake_node *n)
{
	uint64_t one = 1;

	if (write(n->stop_fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

void fake_node_stop(struct fake_node *n)
{
	unsigned i;

	__atomic_store_n(&n->stopping, 1, __ATOMIC_RELEASE);
	tick(n);
	poke(n);
	pthread_join(n->control, NULL);
	pthread_join(n->worker, NULL);
	if (n->conn >= 0)
		close(n->conn);
	rings_drop(n);
	for (i = 0; i < REGIONS_MAX; i++)
		if (n->regions[i].map)
			munmap(n->regions[i].map, n->regions[i].len);
	munmap(n->arena, FAKE_ARENA_BYTES);
	close(n->arena_fd);
	close(n->listen_fd);
	close(n->stop_fd);
	unlink(n->path);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

void fake_node_fault(struct fake_node *n, unsigned f)
{
	__atomic_store_n(&n->faults, f, __ATOMIC_RELEASE);
	tick(n);
}

void fake_node_await_sleep(struct fake_node *n)
{
	while (!__atomic_load_n(&n->asleep, __ATOMIC_ACQUIRE))
		sched_yield();
}

void fake_node_await_taken(struct fake_node *n, uint64_t nr)
{
	while (__atomic_load_n(&n->taken, __ATOMIC_ACQUIRE) < nr)
		sched_yield();
}
