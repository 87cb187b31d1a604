/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include "gpu/cuda.h"
#include "gpu/error.h"
#include "tests/unit/mock_cuda.h"

struct mock_cuda mock_cuda;

/* the driver's own names: the compiler sees here what the table expects of them */
#define DECLARE(name, symbol, args) int name args __asm__(symbol);
WFI_CUDA_CALLS(DECLARE)
#undef DECLARE

void mock_cuda_reset(void)
{
	mock_cuda = (struct mock_cuda){ .nr_gpus = 2, .dmabuf = true, .peers = true };
}

const struct wfi_cuda *mock_cuda_table(void)
{
	static const struct wfi_cuda table = {
#define MEMBER(name, symbol, args) .name = name,
		WFI_CUDA_CALLS(MEMBER)
#undef MEMBER
	};

	return &table;
}

/* Return: what this call is to end with */
static int fault(const char *name)
{
	return mock_cuda.fail_call && !strcmp(mock_cuda.fail_call, name) ? mock_cuda.fail_res : 0;
}

static int no_device(int dev)
{
	return dev >= 0 && dev < mock_cuda.nr_gpus ? 0 : WFI_CUDA_INVALID_DEVICE;
}

int cuInit(unsigned flags)
{
	return flags ? WFI_CUDA_INVALID_VALUE : fault("cuInit");
}

int cuDriverGetVersion(int *version)
{
	*version = 13000;
	return fault("cuDriverGetVersion");
}

int cuDeviceGetCount(int *nr)
{
	*nr = mock_cuda.nr_gpus;
	return fault("cuDeviceGetCount");
}

int cuDeviceGet(int *dev, int ordinal)
{
	*dev = ordinal;
	return no_device(ordinal);
}

int cuDeviceGetName(char *name, int len, int dev)
{
	snprintf(name, (size_t)len, "Mock GPU");
	return no_device(dev);
}

int cuDeviceGetUuid(struct wfi_cuda_uuid *uuid, int dev)
{
	memset(uuid, dev + 1, sizeof(*uuid));
	return no_device(dev);
}

int cuDeviceTotalMem(size_t *bytes, int dev)
{
	*bytes = (size_t)80 << 30;
	return no_device(dev);
}

int cuDeviceGetAttribute(int *value, int attr, int dev)
{
	switch (attr) {
	case WFI_CUDA_ATTR_NR_SM:
		*value = 132;
		break;
	case WFI_CUDA_ATTR_CC_MAJOR:
		*value = 9;
		break;
	case WFI_CUDA_ATTR_CC_MINOR:
		*value = 0;
		break;
	case WFI_CUDA_ATTR_DMABUF:
		*value = mock_cuda.dmabuf;
		break;
	case WFI_CUDA_ATTR_GPUDIRECT:
	case WFI_CUDA_ATTR_VMM:
	case WFI_CUDA_ATTR_VMM_FD:
		*value = 1;
		break;
	default:
		return WFI_CUDA_INVALID_VALUE;
	}
	return no_device(dev) ? no_device(dev) : fault("cuDeviceGetAttribute");
}

int cuDeviceGetPCIBusId(char *id, int len, int dev)
{
	snprintf(id, (size_t)len, "0000:%02X:00.0", 0xa0 + dev);
	return no_device(dev);
}

int cuDeviceGetP2PAttribute(int *value, int attr, int src, int dst)
{
	*value = attr == WFI_CUDA_P2P_ACCESS ? mock_cuda.peers : 0;
	return no_device(src) || no_device(dst) || src == dst ? WFI_CUDA_INVALID_DEVICE
							      : fault("cuDeviceGetP2PAttribute");
}
