/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/chaos/chaos.h"

#define LOOK_US 20000 /* from one look at a node that does not answer to the next */

static const struct weft_space_opts geometry = {
	.size = sizeof(geometry),
	.block_bytes = CHAOS_BLOCK,
	.model = "chaos",
	.layout = "test",
	.tokens_per_block = 16,
	.nr_layers = CHAOS_LAYERS,
};

uint64_t block_seed(uint64_t name, unsigned i)
{
	return name * 1000 + i;
}

uint32_t seat_rand(struct seat *s, uint32_t below)
{
	return (uint32_t)(test_rand(&s->rand) % below);
}

/* ---- a session ---- */

/* Return: what backs it, -1: nothing */
static int memory_make(struct seat *s)
{
	const size_t len = CHAOS_RUN * CHAOS_BLOCK;
	int fd = s->memfd ? memfd_create("chaos", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;

	if (s->memfd && (fd < 0 || ftruncate(fd, (off_t)len)))
		abort();
	s->memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 s->memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (s->memory == MAP_FAILED)
		abort();
	return fd;
}

void seat_init(struct seat *s, struct chaos *c, unsigned node, const char *name, uint64_t seed)
{
	*s = (struct seat){ .c = c, .node = node, .name = name, .rand = seed, .waits = { -1, -1 } };
	s->memfd = seat_rand(s, 2);
}

static void waits_close(struct seat *s)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		if (s->waits[i] >= 0)
			close(s->waits[i]);
	s->waits[0] = s->waits[1] = -1;
}

/* of this life of the node, if it is known to the thread that started it */
static void waits_open(struct seat *s)
{
	char path[64];

	waits_close(s);
	snprintf(path, sizeof(path), "/proc/%d/schedstat", atomic_load(&s->c->nodes[s->node].pid));
	s->waits[0] = open(path, O_RDONLY | O_CLOEXEC);
	s->waits[1] = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
}

/* Return: false: the thread is gone */
static bool waits_read(int fd, uint64_t *ns)
{
	unsigned long long ran, waited;
	char text[96];
	ssize_t len = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	if (len < 0)
		return false;
	text[len] = 0;
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return false;
	*ns += waited;
	return true;
}

static void seat_close(struct seat *s)
{
	waits_close(s);
	if (s->e.w)
		test_engine_close(&s->e);
	if (s->memory)
		munmap(s->memory, CHAOS_RUN * CHAOS_BLOCK);
	s->memory = NULL;
	s->open = false;
}

void seat_fini(struct seat *s)
{
	seat_close(s);
}

static int seat_open(struct seat *s)
{
	const struct weft_opts opts = { .size = sizeof(opts),
					.socket = s->c->nodes[s->node].proc.socket,
					.token = "",
					.name = s->name };
	struct weft_region_opts region = { .size = sizeof(region), .len = CHAOS_RUN * CHAOS_BLOCK };
	int ret = weft_open(&opts, &s->e.w);

	if (ret) {
		s->e.w = NULL;
		return ret;
	}
	region.fd = memory_make(s);
	region.addr = s->memory;
	ret = weft_space_open(s->e.w, &geometry, &s->e.space);
	if (!ret)
		ret = weft_ring_open(s->e.w, NULL, &s->e.ring);
	if (!ret)
		ret = weft_region_reg(s->e.w, &region, &s->region);
	if (region.fd >= 0)
		close(region.fd);
	if (ret)
		seat_close(s);
	else
		s->open = true;
	return ret;
}

void seat_yield(struct seat *s)
{
	if (atomic_load(&s->c->nodes[s->node].drains))
		seat_close(s);
}

bool seat_ready(struct seat *s)
{
	int ret;

	seat_yield(s);
	if (atomic_load(&s->c->nodes[s->node].drains))
		return false;
	if (s->open && weft_attached(s->e.w))
		return true;
	ret = s->open ? weft_reattach(s->e.w) : seat_open(s);
	/* it went away, it is not there, or it stopped while it was asked */
	if (ret && ret != -ECONNRESET && ret != -ENOENT && ret != -ESHUTDOWN)
		chaos_breach(s->c, "%s can't attach to node-%u: %s (%s)", s->name, s->node,
			     strerror(-ret), weft_why());
	if (!ret)
		waits_open(s);
	return !ret;
}

/* ---- operations, and time ---- */

struct moment seat_moment(struct seat *s)
{
	const struct chaos_node *n = &s->c->nodes[s->node];
	struct moment m = { .at_ns = chaos_now() };
	const uint64_t since_ns = atomic_load(&n->since_ns);

	m.excused_ns = atomic_load(&n->frozen_ns);
	if (!waits_read(s->waits[0], &m.excused_ns))
		waits_open(s);
	(void)waits_read(s->waits[1], &m.excused_ns);
	if (since_ns && since_ns < m.at_ns)
		m.excused_ns += m.at_ns - since_ns;
	return m;
}

uint64_t seat_since(struct seat *s, const struct moment *m)
{
	const struct moment now = seat_moment(s);
	const uint64_t all_ns = now.at_ns - m->at_ns;
	uint64_t excused_ns = 0;

	/* else the node is gone, and what it had waited with it */
	if (now.excused_ns > m->excused_ns)
		excused_ns = now.excused_ns - m->excused_ns;
	return all_ns > excused_ns ? all_ns - excused_ns : 0;
}

int seat_post(struct seat *s, const struct weft_op *op)
{
	int ret;

	while ((ret = weft_submit(s->e.ring, op, 1)) == -EAGAIN)
		chaos_pause_us(100);
	chaos_count(s->c, CHAOS_OPS, 1);
	if (ret != 1 && ret != -ECONNRESET)
		chaos_breach(s->c, "operation %u is not taken: %s", op->op, weft_why());
	return ret;
}

/* one now and then is the machine's: what a hypervisor takes in a turn shows nowhere */
static void late(struct seat *s, const struct weft_completion *done, const struct moment *m,
		 uint64_t took_ns, uint32_t timeout_us)
{
	char text[160];

	snprintf(text, sizeof(text),
		 "%s at node-%u: operation %u took %u ms, of %u, its deadline was %u", s->name,
		 s->node, done->op, (unsigned)(took_ns / WFI_NSEC_PER_MSEC),
		 (unsigned)((chaos_now() - m->at_ns) / WFI_NSEC_PER_MSEC), timeout_us / 1000);
	chaos_count(s->c, CHAOS_LATE, 1);
	if (took_ns > timeout_us * WFI_NSEC_PER_USEC + CHAOS_LATE_NS)
		chaos_breach(s->c, "%s", text);
	else
		chaos_log(s->c, "late: %s", text);
}

int seat_next(struct seat *s, const struct moment *m, uint32_t timeout_us,
	      struct weft_completion *out)
{
	const uint64_t by_ns = timeout_us * WFI_NSEC_PER_USEC + CHAOS_GRACE_NS;
	const struct moment waits = seat_moment(s);
	uint64_t took_ns;

	while (!weft_wait(s->e.ring, out, 1, LOOK_US))
		if (seat_since(s, m) > by_ns + CHAOS_HANG_NS) {
			chaos_breach(s->c, "%s at node-%u: an operation never ends", s->name,
				     s->node);
			/* what it was lent can't be taken back */
			pthread_exit(NULL);
		}
	took_ns = seat_since(s, m);
	/* who comes after the deadline finds the completion there */
	if (took_ns > by_ns && seat_since(s, &waits) > CHAOS_GRACE_NS)
		late(s, out, m, took_ns, timeout_us);
	return out->res;
}

int seat_call(struct seat *s, const struct weft_op *op, struct weft_completion *out)
{
	const struct moment m = seat_moment(s);
	struct weft_completion own;
	int ret = seat_post(s, op);

	return ret == 1 ? seat_next(s, &m, op->timeout_us, out ? out : &own) : ret;
}

bool seat_failed(struct seat *s, const char *what, int ret, const int *also)
{
	bool may = ret == -ECONNRESET || ret == -ETIMEDOUT || ret == -ENOSPC ||
		   ret == -EHOSTUNREACH;

	if (ret >= 0)
		return false;
	chaos_count(s->c, ret == -ECONNRESET ? CHAOS_RESETS : CHAOS_FAILURES, 1);
	for (; also && *also; also++)
		may |= ret == *also;
	if (!may)
		chaos_breach(s->c, "%s at node-%u: %s ends with %s", s->name, s->node, what,
			     strerror(-ret));
	return true;
}

void *seat_slot(const struct seat *s, const struct weft_slot *slot)
{
	return (char *)weft_arena(s->e.w) + slot->off;
}

bool seat_claim(struct seat *s, struct weft_slot *slots, unsigned nr)
{
	const struct weft_op op = { .op = WEFT_OP_CLAIM,
				    .space = s->e.space,
				    .nr = nr,
				    .slots = slots,
				    .timeout_us = 100000 };

	return !seat_failed(s, "claim", seat_call(s, &op, NULL), NULL);
}

void seat_unclaim(struct seat *s, struct weft_slot *slots, unsigned nr)
{
	const struct weft_op op = {
		.op = WEFT_OP_RELEASE, .nr = nr, .slots = slots, .timeout_us = 100000
	};
	const int ret = seat_call(s, &op, NULL);

	if (!seat_failed(s, "release of slots", ret, NULL) && ret != (int)nr)
		chaos_breach(s->c, "%s at node-%u: of %u slots %d went back", s->name, s->node, nr,
			     ret);
}
