/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sleep.c - the worker's sleep, and what ends it
 *
 * Bells of engines and of nodes of this host are futexes, news of other links are files. io_uring
 * waits for both at once. Where it can't, the worker waits for the futexes, and a sleep arms the
 * files: the control thread, which waits for those, rings the worker's own bell. The first news
 * disarm them: who is awake looks for itself, and is not to share its core with a thread that has
 * nothing to say.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "doze.h"
#include "node.h"
#include "weft_internal/log.h"

#define SLEEP_MAX_NS (100 * WFI_NSEC_PER_MSEC) /* a peer that dies rings no bell */
#define SLEEP_GPU_NS (50 * WFI_NSEC_PER_USEC) /* between looks at copies of GPUs */
#define SLEEP_BLIND_NS                                                                             \
	WFI_NSEC_PER_MSEC /* when not everything that may wake us can be waited for */
#define WAITS_MAX 128u /* FUTEX_WAITV_MAX */
#define NEWS_MAX 16

struct waits {
	struct futex_waitv v[WAITS_MAX];
	unsigned nr;
	int fds[DOZE_FDS_MAX];
	unsigned nr_fds;
	bool blind; /* something may happen that rings no bell of these */
	bool soon; /* it will: GPUs have nothing that one could sleep on */
};

static void waits_add(struct waits *w, const uint32_t *addr, uint32_t val, bool shared)
{
	if (w->nr == WAITS_MAX) {
		w->blind = true;
		return;
	}
	w->v[w->nr++] = (struct futex_waitv){
		.val = val,
		.uaddr = (uintptr_t)addr,
		.flags = FUTEX_32 | (shared ? 0 : FUTEX_PRIVATE_FLAG),
	};
}

/* once more, until there is news of it */
static bool news_arm(const struct node *node, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT };

	return !epoll_ctl(node->news_fd, EPOLL_CTL_MOD, fd, &ev) ||
	       (errno == ENOENT && !epoll_ctl(node->news_fd, EPOLL_CTL_ADD, fd, &ev));
}

void node_news(struct node *node)
{
	struct epoll_event events[NEWS_MAX];

	/* taken, so that they are not told again */
	if (epoll_wait(node->news_fd, events, NEWS_MAX, 0) > 0)
		node_ring_bell(node);
}

static void waits_add_fd(const struct node *node, struct waits *w, int fd)
{
	unsigned i;

	/* queues of one device may share theirs */
	for (i = 0; i < w->nr_fds; i++)
		if (w->fds[i] == fd)
			return;
	if (w->nr_fds == DOZE_FDS_MAX || (!node->doze && !news_arm(node, fd)))
		w->blind = true;
	else
		w->fds[w->nr_fds++] = fd;
}

/* Return: false when there is something to do */
static bool waits_link(const struct node *node, struct waits *w, struct node_link *link)
{
	struct weft_wait waits[LINK_WAITS_MAX];
	int nr = link_arm(link, waits), k;

	if (nr == -EAGAIN)
		return false;
	if (nr < 0)
		w->blind = true;
	for (k = 0; k < nr; k++)
		if (waits[k].fd < 0)
			waits_add(w, waits[k].futex, waits[k].val, true);
		else
			waits_add_fd(node, w, waits[k].fd);
	return true;
}

/* Return: false when there is something to do; rings up to *nr_asleep were told of a sleep */
static bool waits_collect(struct node *node, struct waits *w, unsigned *nr_asleep)
{
	const uint32_t *addr;
	uint32_t val;
	unsigned i;

	for (i = 0; i < node->nr_rings; i++) {
		*nr_asleep = i + 1;
		if (node->rings[i]->session->broken)
			continue;
		if (wfi_ring_sleep(node->rings[i]->ring, &addr, &val))
			return false;
		waits_add(w, addr, val, true);
	}
	if (node->gpu.dev)
		w->soon = !waits_link(node, w, &node->gpu);
	if (!node->nr_peers)
		return true;
	if (!waits_link(node, w, &node->host))
		return false;
	for (i = 0; i < node->nr_nets; i++)
		if (node->nets[i].dev && !waits_link(node, w, &node->nets[i]))
			return false;
	return true;
}

static uint64_t next_event_ns(struct node *node)
{
	uint64_t at_ns = wfi_min(wfi_kv_next_event_ns(node->kv), rails_next_event_ns(node));

	at_ns = wfi_min(at_ns, wfi_xfer_next_event_ns(node->xfer));
	at_ns = wfi_min(at_ns, gpu_tiers_next_event_ns(node));
	at_ns = wfi_min(at_ns, wfi_handoffs_next_event_ns(node->handoffs));
	at_ns = wfi_min(at_ns, wfi_cluster_next_event_ns(node->cluster));
	if (node->self && self_waits(node))
		return 0;
	return wfi_min(at_ns, wfi_channels_next_event_ns(node->channels));
}

/* files are armed from the next sleep on */
static __attribute__((cold, noinline)) void doze_end(struct node *node)
{
	wfi_warn_once("node: io_uring does not wait any more: the control thread wakes the worker");
	doze_close(node->doze);
	node->doze = NULL;
}

static void worker_wait(struct node *node, struct waits *w)
{
	uint64_t now_ns = wfi_now(node->env), end_ns = next_event_ns(node);
	struct timespec ts;

	end_ns = wfi_min(end_ns, now_ns + (w->blind ? SLEEP_BLIND_NS : SLEEP_MAX_NS));
	if (w->soon)
		end_ns = wfi_min(end_ns, now_ns + SLEEP_GPU_NS);
	if (end_ns <= now_ns)
		return;
	if (w->blind)
		wfi_warn_once(
			"node: more rings than one futex_waitv takes: an idle node wakes each ms");
	wfi_count(node->wakeups, 1);
	if (node->doze) {
		if (doze_wait(node->doze, w->v, w->nr, w->fds, w->nr_fds, end_ns - now_ns))
			doze_end(node);
		return;
	}
	ts.tv_sec = (time_t)(end_ns / WFI_NSEC_PER_SEC);
	ts.tv_nsec = (long)(end_ns % WFI_NSEC_PER_SEC);
	if (syscall(SYS_futex_waitv, w->v, w->nr, 0, &ts, CLOCK_MONOTONIC) < 0 && errno == ENOSYS) {
		wfi_warn_once("node: no futex_waitv before linux 5.16: an idle node wakes each ms");
		ts = (struct timespec){ .tv_nsec = SLEEP_BLIND_NS };
		clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
	}
}

void node_sleep(struct node *node)
{
	struct waits w = { .nr = 0 };
	unsigned nr_asleep = 0, i;

	/* pairs with the release in node_ring_bell() */
	waits_add(&w, (const uint32_t *)&node->bell,
		  atomic_load_explicit(&node->bell, memory_order_acquire), false);
	if (!atomic_load_explicit(&node->call, memory_order_acquire) &&
	    !atomic_load_explicit(&node->stop, memory_order_acquire) && !node->nr_ending &&
	    waits_collect(node, &w, &nr_asleep))
		worker_wait(node, &w);
	for (i = 0; i < nr_asleep; i++)
		wfi_ring_awake(node->rings[i]->ring);
	link_disarm(&node->host);
	link_disarm(&node->gpu);
	for (i = 0; i < node->nr_nets; i++)
		link_disarm(&node->nets[i]);
}
