/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>

#include "doze.h"
#include "weft_internal/env.h"
#include "weft_internal/util.h"

/* newer than the headers of some of the systems that this is built on */
#define OP_FUTEX_WAITV 53
#define ENTRIES 64u

struct doze {
	struct io_uring ring;
	struct wfi_env *env;
	unsigned nr_open; /* requests that were not answered */
};

static void answers_take(struct doze *d)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&d->ring, &cqe)) {
		io_uring_cqe_seen(&d->ring, cqe);
		d->nr_open--;
	}
}

/* what the last sleep did not wait for is not woken instead of the next one. Return: 0, -errno */
static int rest_cancel(struct doze *d)
{
	struct io_uring_sqe *sqe;
	int ret = 0;

	answers_take(d);
	if (!d->nr_open)
		return 0;
	sqe = io_uring_get_sqe(&d->ring);
	io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
	d->nr_open++;
	while (d->nr_open && (ret >= 0 || ret == -EINTR)) {
		ret = io_uring_submit_and_wait(&d->ring, d->nr_open);
		answers_take(d);
	}
	return wfi_min(ret, 0);
}

int doze_wait(struct doze *d, const struct futex_waitv *v, unsigned nr, const int *fds,
	      unsigned nr_fds, uint64_t timeout_ns)
{
	struct __kernel_timespec ts = { .tv_sec = (long long)(timeout_ns / WFI_NSEC_PER_SEC),
					.tv_nsec = (long long)(timeout_ns % WFI_NSEC_PER_SEC) };
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	unsigned i;
	int ret = rest_cancel(d);

	if (ret || nr_fds > DOZE_FDS_MAX)
		return ret ? ret : -EINVAL;
	for (i = 0; i < nr_fds; i++) {
		sqe = io_uring_get_sqe(&d->ring);
		io_uring_prep_poll_add(sqe, fds[i], POLLIN);
	}
	if (nr) {
		sqe = io_uring_get_sqe(&d->ring);
		io_uring_prep_rw(OP_FUTEX_WAITV, sqe, 0, v, nr, 0);
	}
	d->nr_open += nr_fds + !!nr;
	ret = io_uring_submit_and_wait_timeout(&d->ring, &cqe, 1, &ts, NULL);
	answers_take(d);
	return ret < 0 && ret != -ETIME && ret != -EINTR ? ret : 0;
}

void doze_leave(struct doze *d)
{
	/* what goes wrong the next wait says */
	(void)rest_cancel(d);
}

/* a futex that has another value is answered at once, and so is what this kernel does not know */
static bool knows_futexes(struct doze *d)
{
	const uint32_t one = 1;
	struct futex_waitv v = { .uaddr = (uintptr_t)&one, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG };
	struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_rw(OP_FUTEX_WAITV, sqe, 0, &v, 1, 0);
	if (io_uring_submit_and_wait(&d->ring, 1) != 1 || io_uring_peek_cqe(&d->ring, &cqe))
		return false;
	res = cqe->res;
	io_uring_cqe_seen(&d->ring, cqe);
	return res == -EAGAIN;
}

struct doze *doze_open(struct wfi_env *env)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER |
					      IORING_SETUP_DEFER_TASKRUN };
	struct doze *d = wfi_alloc(env, sizeof(*d));

	if (!d)
		return NULL;
	d->env = env;
	if (io_uring_queue_init_params(ENTRIES, &d->ring, &p)) {
		wfi_free(env, d, sizeof(*d));
		return NULL;
	}
	if (knows_futexes(d))
		return d;
	doze_close(d);
	return NULL;
}

void doze_close(struct doze *d)
{
	if (!d)
		return;
	io_uring_queue_exit(&d->ring);
	wfi_free(d->env, d, sizeof(*d));
}
