/* SPDX-License-Identifier: Apache-2.0 */
/* What the RDMA provider registers, shares and gives away, and devices that can do less */
#include <errno.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include "mock_rdmacm.h"
#include "mock_verbs.h"
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"
#include "weft_internal/memlock.h"

#define MEM 65536u
#define ALL (WEFT_ACCESS_LOCAL_WRITE | WEFT_ACCESS_REMOTE_READ | WEFT_ACCESS_REMOTE_WRITE)

struct rig {
	struct wfi_sim *sim;
	struct wfi_env *env;
	struct weft_device *dev;
	struct weft_cq *cq;
	struct weft_ep *ep;
	uint8_t mem[MEM];
};

static const struct weft_transport *const t = &wfi_transport_verbs;
static char last_line[1024];

static void sink(void *ctx, enum wfi_log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

/* the device is as the mock says by then */
static void start(struct rig *r)
{
	struct weft_cq_opts cq = { .size = sizeof(cq) };
	struct weft_ep_opts ep = { .size = sizeof(ep) };
	struct weft_ep_peer peer = { .size = sizeof(peer) };
	struct weft_ep_addr addr;

	assert_int_equal(t->device_open(t, r->env, NULL, &r->dev), 0);
	assert_int_equal(t->cq_create(r->dev, &cq, &r->cq), 0);
	ep.send_cq = r->cq;
	ep.recv_cq = r->cq;
	assert_int_equal(t->ep_create(r->dev, &ep, &r->ep), 0);
	assert_int_equal(t->ep_addr(r->ep, &addr), 0);
	peer.blob = addr.blob;
	peer.blob_len = addr.blob_len;
	assert_int_equal(t->ep_connect(r->ep, &peer), 0);
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	mock_reset();
	mock_cm_reset();
	wfi_log_set_sink(sink, NULL);
	assert_int_equal(wfi_sim_create(7, &r->sim), 0);
	r->env = wfi_sim_node(r->sim, 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	t->ep_destroy(r->ep);
	t->cq_destroy(r->cq);
	t->device_close(r->dev);
	assert_int_equal(mock.nr_mrs + mock.nr_mws + mock.nr_qps + mock.nr_cqs + mock.nr_srqs, 0);
	wfi_sim_destroy(r->sim);
	wfi_log_set_sink(NULL, NULL);
	free(r);
	return 0;
}

static struct weft_mr *reg(struct rig *r, uint32_t kind, int fd, uint64_t off, uint32_t access)
{
	struct weft_mr_opts o = { .size = sizeof(o), .addr = r->mem, .len = MEM };
	struct weft_mr *mr = NULL;

	o.kind = kind;
	o.fd = fd;
	o.fd_off = off;
	o.access = access;
	assert_int_equal(t->mr_reg(r->dev, &o, &mr), 0);
	return mr;
}

static int file(void)
{
	int fd = memfd_create("weft", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 2 * MEM), 0);
	return fd;
}

/* the NIC gets no right that nobody asked for, and never pages on demand */
static void test_least_access(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .access = WEFT_ACCESS_REMOTE_READ };
	struct rig *r = *state;
	struct weft_export ex;
	struct weft_mr *mr;

	start(r);
	mr = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	assert_int_equal(mock.access, IBV_ACCESS_LOCAL_WRITE);
	assert_int_equal(t->mr_export(mr, &o, &ex), 0);
	assert_int_equal(mock.access, IBV_ACCESS_REMOTE_READ);
	t->mr_dereg(mr);
	mr = reg(r, WEFT_MR_HOST, -1, 0, WEFT_ACCESS_REMOTE_READ);
	assert_int_equal(mock.access, 0);
	t->mr_dereg(mr);
}

/* one registration for one range of one file, whoever asks; memory without a name has its own */
static void test_shared(void **state)
{
	struct rig *r = *state;
	struct weft_mr *a, *b, *c, *d;
	unsigned base;
	int fd = file(), other = file();

	start(r);
	base = mock.nr_mrs;
	a = reg(r, WEFT_MR_MEMFD, fd, 0, ALL);
	b = reg(r, WEFT_MR_MEMFD, fd, 0, ALL);
	assert_int_equal(mock.nr_mrs, base + 1);
	/* the first user goes, the other's stays good */
	t->mr_dereg(a);
	assert_int_equal(mock.nr_mrs, base + 1);
	/* the same address, but not the same memory */
	a = reg(r, WEFT_MR_MEMFD, other, 0, ALL);
	c = reg(r, WEFT_MR_MEMFD, fd, 4096, ALL);
	d = reg(r, WEFT_MR_MEMFD, fd, 0, WEFT_ACCESS_REMOTE_READ);
	assert_int_equal(mock.nr_mrs, base + 4);
	t->mr_dereg(d);
	t->mr_dereg(c);
	t->mr_dereg(b);
	t->mr_dereg(a);
	assert_int_equal(mock.nr_mrs, base);
	/* what ended is not believed again */
	a = reg(r, WEFT_MR_MEMFD, fd, 0, ALL);
	assert_int_equal(mock.nr_mrs, base + 1);
	b = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	c = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	assert_int_equal(mock.nr_mrs, base + 3);
	t->mr_dereg(a);
	t->mr_dereg(b);
	t->mr_dereg(c);
	close(fd);
	close(other);
}

/* memory of a GPU: by its file, at the right place in it, and shared like any other */
static void test_dmabuf(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .off = 4096, .access = 0 };
	struct rig *r = *state;
	struct weft_export ex;
	struct weft_mr *a, *b;
	unsigned base;
	int fd = file();

	mock.dmabuf = true;
	start(r);
	assert_true(r->dev->caps.flags & WEFT_CAP_DMABUF);
	base = mock.nr_mrs;
	a = reg(r, WEFT_MR_DMABUF, fd, 8192, ALL);
	assert_int_equal(mock.dmabuf_off, 8192);
	b = reg(r, WEFT_MR_DMABUF, fd, 8192, ALL);
	assert_int_equal(mock.nr_mrs, base + 1);
	/* exports need the file when the caller has closed it */
	close(fd);
	o.access = WEFT_ACCESS_REMOTE_WRITE;
	assert_int_equal(t->mr_export(a, &o, &ex), 0);
	assert_int_equal(mock.dmabuf_off, 8192 + 4096);
	assert_int_equal(mock.access, IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE);
	t->mr_dereg(a);
	t->mr_dereg(b);
}

static void test_no_dmabuf(void **state)
{
	struct weft_mr_opts o = { .size = sizeof(o), .len = MEM, .kind = WEFT_MR_DMABUF };
	struct rig *r = *state;
	struct weft_mr *mr = NULL;
	int fd = file();

	start(r);
	assert_false(r->dev->caps.flags & WEFT_CAP_DMABUF);
	o.addr = r->mem;
	o.access = ALL;
	o.fd = fd;
	assert_int_equal(t->mr_reg(r->dev, &o, &mr), -EOPNOTSUPP);
	close(fd);
}

static uint32_t blob_rkey(const struct weft_export *ex)
{
	struct wfi_verbs_rkey_blob blob;

	memcpy(&blob, ex->blob, sizeof(blob));
	return blob.rkey;
}

/* for one peer: a window is bound, nothing is pinned; taken back, it is invalidated */
static void test_window(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .access = WEFT_ACCESS_REMOTE_WRITE };
	struct weft_export first, second;
	struct rig *r = *state;
	struct weft_mr *mr;
	unsigned base;

	mock.windows = true;
	mock.complete_ctl = true;
	start(r);
	mr = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	assert_int_equal(mock.access, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	base = mock.nr_mrs;
	o.ep = r->ep;
	o.len = 4096;
	assert_int_equal(t->mr_export(mr, &o, &first), 0);
	assert_int_equal(mock.last_ctl, IBV_WR_BIND_MW);
	assert_int_equal(t->mr_export(mr, &o, &second), 0);
	assert_int_equal(mock.nr_mrs, base);
	assert_int_equal(mock.nr_mws, 2);
	assert_int_not_equal(blob_rkey(&first), blob_rkey(&second));
	assert_int_equal(t->mr_revoke(mr, first.id), 0);
	assert_int_equal(mock.last_ctl, IBV_WR_LOCAL_INV);
	assert_int_equal(mock.nr_mws, 1);
	assert_int_equal(t->mr_revoke(mr, first.id), -ENOENT);
	/* the endpoint takes the other with it */
	t->ep_destroy(r->ep);
	r->ep = NULL;
	assert_int_equal(mock.nr_mws, 0);
	assert_int_equal(t->mr_revoke(mr, second.id), 0);
	t->mr_dereg(mr);
}

/* the NIC says nothing of the window: it is a registration instead, and the caller can't tell */
static void test_window_refused(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .access = WEFT_ACCESS_REMOTE_WRITE };
	struct rig *r = *state;
	struct weft_export ex;
	struct weft_mr *mr;
	unsigned base;

	mock.windows = true;
	start(r);
	mr = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	base = mock.nr_mrs;
	o.ep = r->ep;
	t->ep_shutdown(r->ep);
	assert_int_equal(t->mr_export(mr, &o, &ex), 0);
	assert_int_equal(mock.nr_mrs, base + 1);
	assert_int_equal(mock.nr_mws, 0);
	t->mr_dereg(mr);
}

static void test_no_windows(void **state)
{
	struct weft_export_opts o = { .size = sizeof(o), .access = WEFT_ACCESS_REMOTE_WRITE };
	struct rig *r = *state;
	struct weft_export ex;
	struct weft_mr *mr;
	unsigned base;

	start(r);
	mr = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	base = mock.nr_mrs;
	o.ep = r->ep;
	assert_int_equal(t->mr_export(mr, &o, &ex), 0);
	assert_int_equal(mock.nr_mrs, base + 1);
	assert_int_equal(t->mr_revoke(mr, ex.id), 0);
	assert_int_equal(mock.nr_mrs, base);
	t->mr_dereg(mr);
}

/* large memory that nobody has touched is present before it is pinned */
static void test_populate(void **state)
{
	const size_t len = 192u << 20;
	struct weft_mr_opts o = { .size = sizeof(o), .len = len, .fd = -1, .access = ALL };
	struct rig *r = *state;
	struct weft_mr *mr = NULL;
	uint8_t *there = calloc(len / 4096, 1);
	size_t i, missing = 0;

	start(r);
	o.addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(o.addr, MAP_FAILED);
	assert_non_null(there);
	if (madvise(o.addr, 4096, 23)) {
		munmap(o.addr, len);
		free(there);
		skip(); /* a kernel before 5.14 */
	}
	assert_int_equal(t->mr_reg(r->dev, &o, &mr), 0);
	assert_int_equal(mincore(o.addr, len, there), 0);
	for (i = 0; i < len / 4096; i++)
		missing += !(there[i] & 1);
	assert_int_equal(missing, 0);
	t->mr_dereg(mr);
	munmap(o.addr, len);
	free(there);
}

/* @on: whether this process may pin what it wants, if it may at all */
static void may_lock(bool on)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	const uint32_t bit = CAP_TO_MASK(CAP_IPC_LOCK);

	assert_int_equal(syscall(SYS_capget, &head, data), 0);
	data[0].effective = on ? data[0].effective | (data[0].permitted & bit)
			       : data[0].effective & ~bit;
	assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

static void test_memlock(void **state)
{
	struct weft_mr_opts o = { .size = sizeof(o), .len = MEM, .fd = -1, .access = ALL };
	struct rlimit was, low = { 32u << 10, 0 };
	struct weft_probe probe;
	struct rig *r = *state;
	struct weft_mr *mr = NULL;

	start(r);
	o.addr = r->mem;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &was), 0);
	low.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	may_lock(false);
	mock.reg_errno = ENOMEM;
	assert_int_equal(t->mr_reg(r->dev, &o, &mr), -ENOMEM);
	assert_non_null(strstr(last_line, "64 KiB can't be pinned"));
	assert_non_null(strstr(last_line, "RLIMIT_MEMLOCK is 32 KiB"));
	assert_non_null(strstr(last_line, "ulimit -l"));
	/* doctor sees it beforehand */
	assert_int_equal(t->probe(t, r->env, &probe), 0);
	assert_int_equal(probe.slow, 1);
	assert_non_null(strstr(probe.why, "RLIMIT_MEMLOCK is 32 KiB"));
	/* root's limit does not hold for it */
	may_lock(true);
	assert_int_equal(t->probe(t, r->env, &probe), 0);
	if (wfi_memlock_limit() == UINT64_MAX)
		assert_int_equal(probe.slow, 0);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &was), 0);
}

/* one SGE, nothing inline, no windows, no dma-buf, as some NICs are: it takes more requests */
static void test_poor_device(void **state)
{
	struct weft_rkey_src src = { .size = sizeof(src), .fd = -1 };
	struct weft_piece pieces[4];
	struct weft_post p = { .pieces = pieces, .nr_pieces = 4, .cookie = 3 };
	struct rig *r = *state;
	struct weft_rkey *rkey = NULL;
	struct weft_export ex;
	struct weft_mr *mr;
	struct weft_wc wc;
	unsigned i;

	mock.max_sge = 1;
	mock.max_sge_rd = 1;
	mock.max_inline = 0;
	start(r);
	assert_int_equal(r->dev->caps.max_inline, 0);
	mr = reg(r, WEFT_MR_HOST, -1, 0, ALL);
	assert_int_equal(t->mr_export(mr, NULL, &ex), 0);
	src.blob = ex.blob;
	src.blob_len = ex.blob_len;
	assert_int_equal(t->rkey_import(r->ep, &src, &rkey), 0);
	for (i = 0; i < 4; i++)
		pieces[i] = (struct weft_piece){ r->mem + i * 64, i * 16, 16, rkey };
	p.local_mr = mr;
	assert_int_equal(weft_ep_post_write(r->ep, &p), 0);
	assert_int_equal(mock.tail - mock.head, 4);
	assert_int_equal(weft_ep_post_send(r->ep, "x", 1, 0, WEFT_POST_QUIET), 0);
	for (i = mock.head; i != mock.tail; i++) {
		assert_int_equal(mock.wrs[i].num_sge, 1);
		assert_false(mock.wrs[i].flags & IBV_SEND_INLINE);
	}
	mock_done(5);
	assert_int_equal(weft_cq_poll(r->cq, &wc, 1), 1);
	assert_int_equal(wc.cookie, 3);
	assert_int_equal(wc.idx, 4);
	t->rkey_destroy(rkey);
	t->mr_dereg(mr);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(least_access), TEST(shared),	  TEST(dmabuf),	    TEST(no_dmabuf),
		TEST(window),	    TEST(window_refused), TEST(no_windows), TEST(populate),
		TEST(memlock),	    TEST(poor_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
