/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include "gpu/cuda.h"
#include "gpu/error.h"
#include "weft_internal/gpu.h"
#include "weft_internal/log.h"
#include "weft_internal/util.h"

int wfi_gpu_count(const struct wfi_cuda *cuda)
{
	int nr, res = cuda->cuDeviceGetCount(&nr);

	return res ? wfi_cuda_errno(res) : nr;
}

/* Return: a CUresult */
static int look(const struct wfi_cuda *cuda, int dev, struct wfi_gpu_info *out)
{
	int major = 0, minor = 0, dmabuf = 0, gpudirect = 0, vmm = 0, vmm_fd = 0, res;
	int ordering = 0, flush = 0;
	const struct {
		int attr;
		int *value;
	} asked[] = {
		{ WFI_CUDA_ATTR_NR_SM, &out->nr_sm },	 { WFI_CUDA_ATTR_CC_MAJOR, &major },
		{ WFI_CUDA_ATTR_CC_MINOR, &minor },	 { WFI_CUDA_ATTR_DMABUF, &dmabuf },
		{ WFI_CUDA_ATTR_GPUDIRECT, &gpudirect }, { WFI_CUDA_ATTR_VMM, &vmm },
		{ WFI_CUDA_ATTR_VMM_FD, &vmm_fd },	 { WFI_CUDA_ATTR_ORDERING, &ordering },
		{ WFI_CUDA_ATTR_FLUSH, &flush },
	};
	struct wfi_cuda_uuid uuid;
	size_t bytes, i;

	for (i = 0; i < WFI_ARRAY_SIZE(asked); i++) {
		res = cuda->cuDeviceGetAttribute(asked[i].value, asked[i].attr, dev);
		if (res)
			return res;
	}
	res = cuda->cuDeviceGetName(out->name, sizeof(out->name), dev);
	if (!res)
		res = cuda->cuDeviceGetPCIBusId(out->pci, sizeof(out->pci), dev);
	if (!res)
		res = cuda->cuDeviceGetUuid(&uuid, dev);
	if (!res)
		res = cuda->cuDeviceTotalMem(&bytes, dev);
	if (!res)
		res = cuda->cuDriverGetVersion(&out->driver);
	if (res)
		return res;
	/* the driver writes hexadecimal digits as it likes, the kernel small ones */
	for (i = 0; out->pci[i]; i++)
		out->pci[i] = (char)tolower((unsigned char)out->pci[i]);
	memcpy(out->uuid, uuid.bytes, sizeof(out->uuid));
	out->bytes = bytes;
	out->sm = major * 10 + minor;
	out->dmabuf = dmabuf;
	out->gpudirect = gpudirect;
	out->vmm_fd = vmm && vmm_fd;
	out->nic_ordered = ordering >= WFI_CUDA_FLUSH_OWNER;
	out->nic_flush = flush & WFI_CUDA_FLUSH_HOST && cuda->cuFlushGPUDirectRDMAWrites;
	return 0;
}

int wfi_gpu_info(const struct wfi_cuda *cuda, int ordinal, struct wfi_gpu_info *out)
{
	struct wfi_gpu_info info = { .name = "" };
	int dev, res;

	res = cuda->cuDeviceGet(&dev, ordinal);
	if (!res)
		res = look(cuda, dev, &info);
	if (res) {
		wfi_err("gpu %d: %s", ordinal, wfi_cuda_why(res));
		return wfi_cuda_errno(res);
	}
	*out = info;
	return 0;
}

int wfi_gpu_find(const struct wfi_cuda *cuda, const uint8_t uuid[16], struct wfi_gpu_info *out)
{
	struct wfi_gpu_info info;
	int i, ret, nr = wfi_gpu_count(cuda);

	for (i = 0; i < nr; i++) {
		ret = wfi_gpu_info(cuda, i, &info);
		if (ret)
			return ret;
		if (memcmp(info.uuid, uuid, sizeof(info.uuid)) != 0)
			continue;
		*out = info;
		return i;
	}
	return nr < 0 ? nr : -ENODEV;
}

int wfi_gpu_peer(const struct wfi_cuda *cuda, int ordinal, int peer, int *rank)
{
	int a, b, access, value, res;

	res = cuda->cuDeviceGet(&a, ordinal);
	if (!res)
		res = cuda->cuDeviceGet(&b, peer);
	if (!res)
		res = cuda->cuDeviceGetP2PAttribute(&access, WFI_CUDA_P2P_ACCESS, a, b);
	if (!res && !access)
		res = WFI_CUDA_PEER_UNSUPPORTED;
	if (!res)
		res = cuda->cuDeviceGetP2PAttribute(&value, WFI_CUDA_P2P_RANK, a, b);
	if (!res)
		*rank = value;
	return wfi_cuda_errno(res);
}
