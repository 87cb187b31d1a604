/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "gpu/error.h"
#include "weft_internal/gpu.h"
#include "weft_internal/util.h"

#define DOUBT "; what is under way there may go on: restart this process to use the GPU again"
#define RESTART "; this process can't use the GPU any more: start it anew"

/*
 * What cuda.h says of each, in its words of CUDA 13.0. It ends a process for an error after which
 * "any further CUDA work will return the same error": those fence. So does a context that is not
 * there: there is no other in any call of ours. Of errors of memory and of NVLink, of MPS, and of
 * those without a name it does not say what becomes of copies that were asked for.
 */
struct meaning {
	int first;
	int last; /* 0: the first alone */
	int err;
	enum wfi_cuda_reach reach;
	const char *why;
};

static const struct meaning meanings[] = {
	{ WFI_CUDA_SUCCESS, 0, 0, WFI_CUDA_CALL, "no error" },
	{ WFI_CUDA_INVALID_VALUE, 0, -EINVAL, WFI_CUDA_CALL,
	  "the driver finds an argument that is no address, size or handle of its own" },
	{ WFI_CUDA_OUT_OF_MEMORY, 0, -ENOMEM, WFI_CUDA_CALL,
	  "the GPU has no memory left: give the engine or the node less (nvidia-smi shows who has "
	  "it)" },
	{ WFI_CUDA_NOT_INITIALIZED, WFI_CUDA_DEINITIALIZED, -ENODEV, WFI_CUDA_DOUBT,
	  "the driver is not initialised, or this process is ending or was forked" },
	{ WFI_CUDA_STUB_LIBRARY, 0, -ENODEV, WFI_CUDA_CALL,
	  "libcuda.so.1 is the toolkit's stub: put the driver's before it in the library path" },
	{ WFI_CUDA_NEWER_DRIVER, 0, -EPROTO, WFI_CUDA_CALL,
	  "the driver is too old: install a newer one" },
	{ WFI_CUDA_DEVICE_UNAVAILABLE, 0, -ENODEV, WFI_CUDA_CALL,
	  "the GPU is in use by another process alone: see its compute mode (nvidia-smi)" },
	{ WFI_CUDA_NO_DEVICE, 0, -ENODEV, WFI_CUDA_CALL,
	  "no GPU is visible: see nvidia-smi, CUDA_VISIBLE_DEVICES, in containers /dev/nvidia*" },
	{ WFI_CUDA_INVALID_DEVICE, 0, -ENODEV, WFI_CUDA_CALL, "there is no GPU of that number" },
	{ WFI_CUDA_INVALID_IMAGE, 0, -ENOEXEC, WFI_CUDA_CALL,
	  "the kernels can't be read by this driver: install a newer one" },
	{ WFI_CUDA_INVALID_CONTEXT, 0, -EIO, WFI_CUDA_CONTEXT, "the context is no longer there" },
	{ WFI_CUDA_MAP_FAILED, 0, -ESTALE, WFI_CUDA_CALL,
	  "the memory can't be mapped: its process has ended, freed it, or is on another driver" },
	{ WFI_CUDA_ALREADY_MAPPED, 0, -EBUSY, WFI_CUDA_CALL, "the memory is mapped here already" },
	{ WFI_CUDA_NO_BINARY, 0, -ENOEXEC, WFI_CUDA_CALL,
	  "no kernel fits this GPU: build with an nvcc that knows it" },
	{ WFI_CUDA_ECC, 0, -EIO, WFI_CUDA_DOUBT,
	  "the GPU's memory has an error that can't be corrected: see nvidia-smi -q -d ECC" DOUBT },
	{ WFI_CUDA_PEER_UNSUPPORTED, 0, -EOPNOTSUPP, WFI_CUDA_CALL,
	  "these two GPUs can't reach each other's memory" },
	{ WFI_CUDA_NVLINK, 0, -EIO, WFI_CUDA_DOUBT,
	  "NVLink has failed: see nvidia-smi nvlink -e" DOUBT },
	{ WFI_CUDA_NO_JIT, WFI_CUDA_PTX_VERSION, -ENOEXEC, WFI_CUDA_CALL,
	  "this driver can't compile the kernels for this GPU: install a newer one" },
	{ WFI_CUDA_CONTAINED, 0, -EIO, WFI_CUDA_PROCESS,
	  "the GPU had an error and contained it" RESTART },
	{ WFI_CUDA_OPERATING_SYSTEM, 0, -EIO, WFI_CUDA_CALL,
	  "a system call of the driver failed: see dmesg, and /dev/nvidia* in containers" },
	{ WFI_CUDA_INVALID_HANDLE, 0, -ESTALE, WFI_CUDA_CALL,
	  "the handle is not, or no longer, one of this driver's: its process has ended or freed "
	  "it" },
	{ WFI_CUDA_NOT_FOUND, 0, -ENOENT, WFI_CUDA_CALL, "there is nothing of that name" },
	{ WFI_CUDA_NOT_READY, 0, -EAGAIN, WFI_CUDA_CALL, "not done yet" },
	{ WFI_CUDA_ILLEGAL_ADDRESS, 0, -EIO, WFI_CUDA_PROCESS,
	  "a kernel or copy touched memory that is not, or no longer, there" RESTART },
	{ WFI_CUDA_LAUNCH_RESOURCES, 0, -EINVAL, WFI_CUDA_CALL,
	  "the kernel wants more registers or shared memory than this GPU has" },
	{ WFI_CUDA_LAUNCH_TIMEOUT, 0, -EIO, WFI_CUDA_PROCESS, "a kernel ran for too long" RESTART },
	{ WFI_CUDA_PEER_ALREADY, 0, -EALREADY, WFI_CUDA_CALL,
	  "these GPUs reach each other already" },
	{ WFI_CUDA_CONTEXT_DESTROYED, 0, -EIO, WFI_CUDA_CONTEXT, "the context was destroyed" },
	{ WFI_CUDA_HOST_ALREADY, 0, -EALREADY, WFI_CUDA_CALL,
	  "this host memory is registered already" },
	{ WFI_CUDA_HARDWARE_STACK, WFI_CUDA_LAUNCH_FAILED, -EIO, WFI_CUDA_PROCESS,
	  "a kernel failed" RESTART },
	{ WFI_CUDA_TENSOR_LEAK, 0, -EIO, WFI_CUDA_PROCESS, "a kernel failed" RESTART },
	{ WFI_CUDA_NOT_PERMITTED, 0, -EPERM, WFI_CUDA_CALL,
	  "the driver does not permit that here" },
	{ WFI_CUDA_NOT_SUPPORTED, 0, -EOPNOTSUPP, WFI_CUDA_CALL,
	  "this GPU, driver or kind of memory can't do that" },
	{ WFI_CUDA_SYSTEM_NOT_READY, 0, -ENODEV, WFI_CUDA_CALL,
	  "the GPUs are not ready: see that nvidia-fabricmanager runs" },
	{ WFI_CUDA_DRIVER_MISMATCH, WFI_CUDA_COMPAT_UNSUPPORTED, -EPROTO, WFI_CUDA_CALL,
	  "libcuda.so.1 and the driver in the kernel are of two versions: reboot, or install both "
	  "anew" },
	{ WFI_CUDA_MPS_CONNECTION, 0, -ENODEV, WFI_CUDA_CALL,
	  "MPS does not answer: see that nvidia-cuda-mps-control runs, and "
	  "CUDA_MPS_PIPE_DIRECTORY" },
	{ WFI_CUDA_MPS_RPC, 0, -EIO, WFI_CUDA_CALL, "a call of MPS's server failed: see its log" },
	{ WFI_CUDA_MPS_NOT_READY, 0, -ENODEV, WFI_CUDA_CALL,
	  "MPS's server takes nobody now, as when it recovers: try again, and see its log" },
	{ WFI_CUDA_MPS_CLIENTS, WFI_CUDA_MPS_CONNECTIONS, -EBUSY, WFI_CUDA_CALL,
	  "MPS has too many clients: end some" },
	{ WFI_CUDA_MPS_TERMINATED, 0, -EIO, WFI_CUDA_PROCESS,
	  "the MPS server has ended this client: see its log" RESTART },
	{ WFI_CUDA_EXTERNAL_DEVICE, 0, -EIO, WFI_CUDA_PROCESS,
	  "a device beside the GPU has failed" RESTART },
	{ WFI_CUDA_UNKNOWN, 0, -EIO, WFI_CUDA_DOUBT,
	  "the driver has an error that it does not name: see dmesg for Xid" DOUBT },
};

static const struct meaning other = { .err = -EIO,
				      .reach = WFI_CUDA_CALL,
				      .why = "the driver has an error that is not known here: see "
					     "dmesg for Xid" };

static const struct meaning *meaning_of(int res)
{
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(meanings); i++) {
		const struct meaning *m = &meanings[i];

		if (res == m->first || (res > m->first && res <= m->last))
			return m;
	}
	return &other;
}

int wfi_cuda_errno(int res)
{
	return meaning_of(res)->err;
}

const char *wfi_cuda_why(int res)
{
	return meaning_of(res)->why;
}

enum wfi_cuda_reach wfi_cuda_reach(int res)
{
	return meaning_of(res)->reach;
}

bool wfi_cuda_fences(int res)
{
	return wfi_cuda_reach(res) >= WFI_CUDA_CONTEXT;
}
