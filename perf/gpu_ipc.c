/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_ipc.c - a second process that shares its GPU memory, as a prefill engine would */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "gpu/error.h"
#include "perf/gpu_rig.h"

struct answer {
	int err;
	struct wfi_gpu_export region;
};

uint64_t wfi_gpu_ipc_word(uint64_t i)
{
	return wfi_perf_rand(~i);
}

/* Return: 0, -errno */
static int share(uint64_t bytes, struct wfi_gpu_export *region)
{
	const char *why;
	const struct wfi_cuda *cuda = wfi_cuda_load(&why);
	uint64_t *words = malloc(bytes), mem;
	char no[WFI_GPU_WHY_MAX];
	struct CUctx_st *ctx;
	int fd, dev, res = cuda ? 0 : WFI_CUDA_NOT_INITIALIZED;

	if (!words)
		return -ENOMEM;
	for (uint64_t i = 0; i < bytes / 8; i++)
		words[i] = wfi_gpu_ipc_word(i);
	if (!res)
		res = cuda->cuDeviceGet(&dev, 0);
	if (!res)
		res = cuda->cuDevicePrimaryCtxRetain(&ctx, dev);
	if (!res)
		res = cuda->cuCtxPushCurrent(ctx);
	if (!res)
		res = cuda->cuMemAlloc(&mem, bytes);
	if (!res)
		res = cuda->cuMemcpyAsync(mem, (uintptr_t)words, bytes, NULL);
	if (!res)
		res = cuda->cuCtxSynchronize();
	free(words);
	return res ? wfi_cuda_errno(res) : wfi_gpu_export(cuda, mem, bytes, region, &fd, no);
}

static void child(int fd)
{
	struct answer answer = { .err = 0 };
	uint64_t bytes;
	char end;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(fd, &bytes, sizeof(bytes)) != sizeof(bytes))
		_exit(0);
	answer.err = share(bytes, &answer.region);
	/* the memory lasts until the other side hangs up */
	if (write(fd, &answer, sizeof(answer)) == sizeof(answer) && read(fd, &end, 1))
		_exit(1);
	_exit(0);
}

int wfi_gpu_ipc_fork(struct wfi_gpu_ipc *ipc)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return wfi_perf_fail(-errno, "gpu: no socket");
	ipc->pid = fork();
	if (!ipc->pid) {
		close(fds[0]);
		child(fds[1]);
	}
	close(fds[1]);
	ipc->fd = fds[0];
	if (ipc->pid > 0)
		return 0;
	close(fds[0]);
	return wfi_perf_fail(-errno, "gpu: no second process");
}

int wfi_gpu_ipc_open(struct wfi_gpu_ipc *ipc, struct wfi_gpu_rig *rig, uint64_t bytes,
		     struct wfi_gpu_region *region)
{
	struct answer answer;

	if (write(ipc->fd, &bytes, sizeof(bytes)) != sizeof(bytes) ||
	    recv(ipc->fd, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
		return wfi_perf_fail(-ECONNRESET, "gpu: the second process has ended");
	if (answer.err)
		return wfi_perf_fail(answer.err, "gpu: the second process has no memory to share");
	return wfi_gpu_import(rig->gpu, &answer.region, -1, region);
}

void wfi_gpu_ipc_end(struct wfi_gpu_ipc *ipc)
{
	close(ipc->fd);
	waitpid(ipc->pid, NULL, 0);
}
