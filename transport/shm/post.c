/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "transport/shm/shm.h"
#include "weft_internal/log.h"

#define RUNS 64u
#define KEY_IDX_BITS 9u /* a key is a remote offset, and below it which piece it was */

_Static_assert(WFI_SHM_IOVS == 1u << KEY_IDX_BITS, "one key for each piece");

void wfi_shm_wake(const struct wfi_msgring *ring)
{
	syscall(SYS_futex, &ring->sh->producer.bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- mapped memory ---- */

/* Return: how many pieces from the first were moved: all up to one that is not mapped, or stale */
static uint32_t move_mapped(const struct wfi_shm_device *dev, const struct weft_piece *pieces,
			    uint32_t nr, enum weft_wc_op op, uint64_t batch_bytes)
{
	const struct weft_rkey *last = NULL;
	struct wfi_copy_run runs[RUNS];
	uint32_t done = 0, i = 0;
	bool more = true;

	while (more && done < nr) {
		for (i = 0; i < RUNS && done + i < nr; i++) {
			const struct weft_piece *piece = &pieces[done + i];
			const struct wfi_shm_rkey *rkey = wfi_shm_rkey(piece->rkey);

			if (piece->rkey != last && (!rkey->sync.mem || wfi_shm_rkey_stale(rkey))) {
				more = false;
				break;
			}
			last = piece->rkey;
			runs[i].len = piece->len;
			runs[i].dst = op == WEFT_WC_READ ? piece->local
							 : rkey->sync.mem + piece->remote;
			runs[i].src = op == WEFT_WC_READ ? rkey->sync.mem + piece->remote
							 : piece->local;
		}
		wfi_copy_runs(dev->copy, runs, i, batch_bytes);
		done += i;
	}
	return done;
}

/* ---- memory of a process ---- */

static int vm_failed(const struct wfi_shm_rkey *rkey, int err)
{
	if (err == EPERM)
		wfi_warn_once("shm: may not touch the memory of process %d; give weftd "
			      "CAP_SYS_PTRACE, or have the engine call prctl(PR_SET_PTRACER)",
			      (int)rkey->pid);
	return err == ESRCH ? -ECONNRESET : -err;
}

/* stable, by all but the low KEY_IDX_BITS. Return: @keys or @spare, whichever holds the result */
static uint64_t *sort_keys(uint64_t *keys, uint64_t *spare, uint32_t nr)
{
	uint64_t differ = 0, *swap;
	uint32_t i, shift;

	for (i = 1; i < nr; i++)
		differ |= keys[i] ^ keys[0];
	for (shift = KEY_IDX_BITS; shift < 64; shift += 8) {
		uint32_t start[257] = { 0 };

		if (!(differ >> shift & 0xff))
			continue;
		for (i = 0; i < nr; i++)
			start[(keys[i] >> shift & 0xff) + 1]++;
		for (i = 1; i < 257; i++)
			start[i] += start[i - 1];
		for (i = 0; i < nr; i++)
			spare[start[keys[i] >> shift & 0xff]++] = keys[i];
		swap = keys;
		keys = spare;
		spare = swap;
	}
	return keys;
}

/* behind the last of @nr, or as part of it. Return: how many there are now */
static uint32_t iov_add(struct iovec *iov, uint32_t nr, void *addr, uint64_t len)
{
	if (nr && (uint8_t *)iov[nr - 1].iov_base + iov[nr - 1].iov_len == addr) {
		iov[nr - 1].iov_len += len;
		return nr;
	}
	iov[nr] = (struct iovec){ .iov_base = addr, .iov_len = len };
	return nr + 1;
}

static ssize_t vm_move(const struct wfi_shm_device *dev, pid_t pid, enum weft_wc_op op,
		       uint32_t nr_local, uint32_t nr_remote)
{
	if (op == WEFT_WC_READ)
		return process_vm_readv(pid, dev->local, nr_local, dev->remote, nr_remote, 0);
	return process_vm_writev(pid, dev->local, nr_local, dev->remote, nr_remote, 0);
}

/*
 * The kernel pins pages, and takes the lock of that memory, for each remote range: so the pieces go
 * in order of their remote addresses, neighbours as one. Return: whether all of them moved
 */
static bool vm_call_sorted(struct wfi_shm_device *dev, const struct wfi_shm_rkey *rkey,
			   const struct weft_piece *pieces, uint32_t nr, enum weft_wc_op op)
{
	uint32_t i, nr_local = 0, nr_remote = 0;
	uint64_t *keys = dev->keys[0], len = 0;

	for (i = 0; i < nr; i++)
		keys[i] = (pieces[i].remote << KEY_IDX_BITS) | i;
	keys = sort_keys(keys, dev->keys[1], nr);
	for (i = 0; i < nr; i++) {
		const struct weft_piece *piece = &pieces[keys[i] & (WFI_SHM_IOVS - 1)];

		nr_local = iov_add(dev->local, nr_local, piece->local, piece->len);
		nr_remote = iov_add(dev->remote, nr_remote,
				    (void *)(uintptr_t)(rkey->addr + piece->remote), piece->len);
		len += piece->len;
	}
	return vm_move(dev, rkey->pid, op, nr_local, nr_remote) == (ssize_t)len;
}

/* in the order given. Return: pieces that moved whole; *status says why it stopped, 0: go on behind
 * them */
static uint32_t vm_call_in_order(struct wfi_shm_device *dev, const struct wfi_shm_rkey *rkey,
				 const struct weft_piece *pieces, uint32_t nr, enum weft_wc_op op,
				 int *status)
{
	uint32_t i;
	ssize_t got;

	for (i = 0; i < nr; i++) {
		dev->local[i].iov_base = pieces[i].local;
		dev->local[i].iov_len = pieces[i].len;
		dev->remote[i].iov_base = (void *)(uintptr_t)(rkey->addr + pieces[i].remote);
		dev->remote[i].iov_len = pieces[i].len;
	}
	got = vm_move(dev, rkey->pid, op, nr, nr);
	if (got < 0) {
		*status = vm_failed(rkey, errno);
		return 0;
	}
	for (i = 0; i < nr && (uint64_t)got >= pieces[i].len; i++)
		got -= (ssize_t)pieces[i].len;
	if (!i)
		*status = -EFAULT; /* some of its bytes, and not the rest */
	return i;
}

/* one batch. Return and *status: as above */
static uint32_t vm_call(struct wfi_shm_device *dev, const struct wfi_shm_rkey *rkey,
			const struct weft_piece *pieces, uint32_t nr, enum weft_wc_op op,
			int *status)
{
	uint32_t done = nr;

	*status = wfi_pidfd_alive(rkey->pidfd) ? -ECONNRESET : 0;
	if (*status)
		return 0;
	/* what did not move whole moves again, to learn where it stops */
	if (!vm_call_sorted(dev, rkey, pieces, nr, op))
		done = vm_call_in_order(dev, rkey, pieces, nr, op, status);
	/* alive now, so it was this process all along: never bytes of one that got its pid */
	if (op == WEFT_WC_READ && wfi_pidfd_alive(rkey->pidfd)) {
		*status = -ECONNRESET;
		return 0;
	}
	return done;
}

/* pieces of one rkey. Return: how many moved; *status: of the next one, or 0 */
static uint32_t move_process(struct wfi_shm_device *dev, const struct weft_piece *pieces,
			     uint32_t nr, enum weft_wc_op op, int *status)
{
	const struct weft_rkey *rkey = pieces[0].rkey;
	uint32_t done = 0, n;

	*status = wfi_shm_rkey_stale(wfi_shm_rkey(rkey)) ? -ESTALE : 0;
	while (!*status && done < nr && pieces[done].rkey == rkey) {
		for (n = 1; n < WFI_SHM_IOVS && done + n < nr; n++)
			if (pieces[done + n].rkey != rkey)
				break;
		done += vm_call(dev, wfi_shm_rkey(rkey), pieces + done, n, op, status);
	}
	return done;
}

/* ---- posts ---- */

static void move_pieces(struct wfi_shm_ep *ep, const struct weft_post *post, enum weft_wc_op op,
			struct wfi_post_plan *plan)
{
	struct wfi_shm_device *dev = wfi_shm_device(ep->sync.base.dev);
	const struct weft_piece *pieces = post->pieces;
	uint32_t done = 0;
	int status = 0;

	while (!status && done < plan->nr_good) {
		done += move_mapped(dev, pieces + done, plan->nr_good - done, op, plan->bytes);
		if (done == plan->nr_good)
			break;
		if (wfi_shm_rkey(pieces[done].rkey)->sync.mem)
			status = -ESTALE;
		else
			done += move_process(dev, pieces + done, plan->nr_good - done, op, &status);
	}
	if (!status)
		return;
	plan->nr_good = done;
	plan->status = status;
}

static int shm_post(struct weft_ep *base, const struct weft_post *post, enum weft_wc_op op,
		    uint32_t need)
{
	struct wfi_shm_ep *ep = wfi_shm_ep(base);
	struct wfi_post_plan plan;
	int ret;

	ret = wfi_sync_post_begin(&ep->sync, post, need, &plan);
	if (ret)
		return ret;
	move_pieces(ep, post, op, &plan);
	wfi_sync_complete(&ep->sync, post->cookie, op, post->flags, plan.status, plan.nr_good);
	return 0;
}

static int shm_post_read(struct weft_ep *ep, const struct weft_post *post)
{
	return shm_post(ep, post, WEFT_WC_READ, WEFT_ACCESS_REMOTE_READ);
}

static int shm_post_write(struct weft_ep *ep, const struct weft_post *post)
{
	return shm_post(ep, post, WEFT_WC_WRITE, WEFT_ACCESS_REMOTE_WRITE);
}

static int tx_room(struct wfi_shm_ep *ep, uint32_t len)
{
	int ret = wfi_msgring_room(&ep->tx, len);

	if (wfi_unlikely(ret == -EPROTO)) {
		wfi_sync_ep_close(&ep->sync, -EPROTO, 0);
		return -ENOTCONN;
	}
	return ret;
}

/* there is room: tx_room() said so, and only we produce */
static int tx_put(struct wfi_shm_ep *ep, enum wfi_msg_kind kind, uint32_t imm, const void *buf,
		  uint32_t len)
{
	int ret = wfi_msgring_put(&ep->tx, kind, imm, buf, len);

	if (!ret && wfi_msgring_ring_bell(&ep->tx))
		wfi_shm_wake(&ep->tx);
	return ret;
}

static int shm_post_write_imm(struct weft_ep *base, const struct weft_post *post)
{
	struct wfi_shm_ep *ep = wfi_shm_ep(base);
	struct wfi_post_plan plan;
	int ret;

	ret = tx_room(ep, 0);
	if (!ret)
		ret = wfi_sync_post_begin(&ep->sync, post, WEFT_ACCESS_REMOTE_WRITE, &plan);
	if (ret)
		return ret;
	move_pieces(ep, post, WEFT_WC_WRITE, &plan);
	/* bytes that did not land are not announced */
	if (!plan.status)
		plan.status = tx_put(ep, WFI_MSG_IMM, post->imm, NULL, 0);
	wfi_sync_complete(&ep->sync, post->cookie, WEFT_WC_WRITE, post->flags, plan.status,
			  plan.nr_good);
	return 0;
}

static int shm_post_send(struct weft_ep *base, const void *buf, uint32_t len, uint64_t cookie,
			 uint32_t flags)
{
	const struct weft_post none = { .nr_pieces = 0 };
	struct wfi_shm_ep *ep = wfi_shm_ep(base);
	struct wfi_post_plan plan;
	int ret;

	if (wfi_unlikely(!len || len > WFI_MAX_MSG))
		return -EINVAL;
	ret = tx_room(ep, len);
	if (!ret)
		ret = wfi_sync_post_begin(&ep->sync, &none, 0, &plan);
	if (!ret)
		ret = tx_put(ep, WFI_MSG_SEND, 0, buf, len);
	if (ret)
		return ret;
	wfi_sync_complete(&ep->sync, cookie, WEFT_WC_SEND, flags, 0, 0);
	return 0;
}

const struct weft_ep_fast wfi_shm_fast = {
	.post_read = shm_post_read,
	.post_write = shm_post_write,
	.post_write_imm = shm_post_write_imm,
	.post_send = shm_post_send,
	.post_msg = wfi_ep_flat_msg,
};

const struct weft_ep_fast wfi_shm_mem_fast = {
	.post_read = shm_post_read,
	.post_write = shm_post_write,
	.post_write_imm = wfi_ep_no_imm,
	.post_send = wfi_ep_no_send,
	.post_msg = wfi_ep_no_msg,
};
