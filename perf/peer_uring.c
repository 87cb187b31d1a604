/* SPDX-License-Identifier: Apache-2.0 */
/* peer_uring.c - io_uring's NOP: what it costs to ask the kernel nothing */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include "perf/peers.h"
#include "perf/perf.h"

#define DEPTH 256u

struct wfi_peer_uring {
	struct wfi_peer_trips trips;
	struct io_uring ring;
};

int wfi_peer_uring_create(const struct wfi_peer_trips *trips, struct wfi_peer_uring **out)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	struct wfi_peer_uring *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	u->trips = *trips;
	ret = io_uring_queue_init_params(DEPTH, &u->ring, &params);
	/* the flags are of Linux 6.1 */
	if (ret == -EINVAL)
		ret = io_uring_queue_init(DEPTH, &u->ring, 0);
	if (ret) {
		free(u);
		return ret;
	}
	*out = u;
	return 0;
}

void wfi_peer_uring_destroy(struct wfi_peer_uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	free(u);
}

/* takes what is there, until no more than @most of *@nr_open are left */
static void take(struct io_uring *ring, unsigned *nr_open, unsigned most)
{
	struct io_uring_cqe *cqes[WFI_PEER_URING_BATCH];
	unsigned i, got;

	do {
		got = io_uring_peek_batch_cqe(ring, cqes, WFI_PEER_URING_BATCH);
		for (i = 0; i < got; i++)
			wfi_perf_use(cqes[i]->user_data);
		io_uring_cq_advance(ring, got);
		*nr_open -= got;
	} while (*nr_open > most);
}

int wfi_peer_uring_nop_round(void *ctx, double *ns)
{
	struct wfi_peer_uring *u = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	unsigned nr_open;
	uint32_t i;
	int ret;

	for (i = 0; i < u->trips.nr; i++) {
		io_uring_prep_nop(io_uring_get_sqe(&u->ring));
		ret = io_uring_submit_and_wait(&u->ring, 1);
		if (ret < 0)
			return ret;
		nr_open = 1;
		take(&u->ring, &nr_open, 0);
	}
	*ns = (double)(wfi_perf_now_ns() - start_ns) / u->trips.nr;
	return 0;
}

int wfi_peer_uring_batch_round(void *ctx, double *rate)
{
	struct wfi_peer_uring *u = ctx;
	uint64_t start_ns = wfi_perf_now_ns();
	unsigned nr_open = 0, n;
	uint32_t i;
	int ret;

	for (i = 0; i < u->trips.nr; i++) {
		for (n = 0; n < WFI_PEER_URING_BATCH; n++)
			io_uring_prep_nop(io_uring_get_sqe(&u->ring));
		ret = io_uring_submit(&u->ring);
		if (ret < 0)
			return ret;
		nr_open += WFI_PEER_URING_BATCH;
		take(&u->ring, &nr_open, (WFI_PEER_URING_OPEN - 1) * WFI_PEER_URING_BATCH);
	}
	take(&u->ring, &nr_open, 0);
	*rate = WFI_PEER_URING_BATCH * 1e3 * u->trips.nr / (double)(wfi_perf_now_ns() - start_ns);
	return 0;
}
