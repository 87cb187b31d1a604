/* SPDX-License-Identifier: Apache-2.0 */
/* client_gpu.c - memory of the engine's on a GPU, on its way to the node */
#include <errno.h>
#include <string.h>
#include "client_priv.h"

int wfi_region_export(const struct region *region, struct weft_ctl_req *req, int *fd, int *dmabuf)
{
	const char *no_driver;
	const struct wfi_cuda *cuda = wfi_cuda_load(&no_driver);
	char why[WFI_GPU_WHY_MAX];
	struct wfi_gpu_export e;
	int ret;

	if (!cuda) {
		wfi_client_why("no memory is on a GPU here: %s", no_driver);
		return -ENODEV;
	}
	*fd = -1;
	ret = region->kind == WFI_REGION_EVENT
		      ? wfi_gpu_event_export(cuda, region->addr, region->beside, &e, why)
		      : wfi_gpu_export(cuda, (uintptr_t)region->addr, region->len, &e, fd, why);
	if (ret) {
		wfi_client_why("it can't be passed to the node: %s", why);
		return ret;
	}
	req->u.region.addr = e.addr;
	req->u.region.off = e.off;
	req->u.region.len = e.len;
	req->u.region.has_fd = *fd >= 0;
	req->u.region.kind = e.kind;
	req->u.region.size = e.size;
	req->u.region.driver = e.driver;
	memcpy(req->u.region.gpu, e.uuid, sizeof(e.uuid));
	memcpy(req->u.region.handle, e.handle, sizeof(e.handle));
	req->u.region.segment_bytes = region->shape.segment_bytes;
	req->u.region.segment_stride = region->shape.segment_stride;
	req->u.region.block_stride = region->shape.block_stride;
	req->u.region.nr_segments = region->shape.nr_segments;
	/* without one the node copies: doctor and status say so */
	req->u.region.has_dmabuf =
		region->kind != WFI_REGION_EVENT &&
		!wfi_gpu_dmabuf(cuda, e.addr, e.len, dmabuf, &req->u.region.dmabuf_off, why);
	return 0;
}
