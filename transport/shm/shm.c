/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "transport/shm/shm.h"
#include "weft_internal/log.h"

/* Yama: 0 any process of the user, 1 descendants and those that allow it, 2 with a capability, 3
 * none */
static int ptrace_scope(void)
{
	FILE *f = fopen("/proc/sys/kernel/yama/ptrace_scope", "re");
	int scope = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%d", &scope) != 1)
		scope = 0;
	fclose(f);
	return scope;
}

static int shm_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	int fd, scope = ptrace_scope();

	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	fd = memfd_create("weft-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		fd = -errno;
		snprintf(out->why, sizeof(out->why), "memfd_create: %s", strerror(-fd));
		return fd;
	}
	close(fd);
	fd = wfi_pidfd_open(getpid());
	if (fd < 0) {
		snprintf(out->why, sizeof(out->why), "pidfd_open: %s; Linux 5.3 is needed",
			 strerror(-fd));
		return fd;
	}
	close(fd);
	out->nr_devices = 1;
	if (scope && geteuid() != 0) {
		out->slow = 1;
		snprintf(out->why, sizeof(out->why),
			 "kernel.yama.ptrace_scope is %d: engines' private memory is out of reach "
			 "without CAP_SYS_PTRACE",
			 scope);
	}
	return 0;
}

static int shm_device_open(const struct weft_transport *t, struct wfi_env *env,
			   const struct weft_device_opts *opts, struct weft_device **out)
{
	struct wfi_shm_device *dev;
	struct weft_device_opts o;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts))
		return -EINVAL;
	if (o.name && strcmp(o.name, "shm") != 0)
		return -ENODEV;
	dev = wfi_alloc(env, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	ret = env->rng->bytes(env, &dev->id, sizeof(dev->id));
	if (ret)
		goto err_dev;
	ret = wfi_gens_init(&dev->gens, env);
	if (ret)
		goto err_dev;
	ret = wfi_pidfd_open(getpid());
	if (ret < 0) {
		wfi_err("shm: pidfd_open: %s; Linux 5.3 is needed", strerror(-ret));
		goto err_gens;
	}
	dev->pidfd = ret;
	dev->copy = wfi_copy_best(env);
	dev->base.transport = t;
	dev->base.env = env;
	dev->base.caps = (struct weft_caps){
		.flags = WEFT_CAP_SYNC | WEFT_CAP_MEM_EP | WEFT_CAP_WAIT,
		.max_pieces = WFI_MAX_PIECES,
		.max_depth = WFI_MAX_DEPTH,
		.max_msg = WFI_MAX_MSG,
		.max_inline = WFI_MAX_MSG,
		.max_piece_bytes = WFI_MAX_POST_BYTES,
		.max_post_bytes = WFI_MAX_POST_BYTES,
	};
	*out = &dev->base;
	return 0;

err_gens:
	wfi_gens_fini(&dev->gens, env);
err_dev:
	wfi_free(env, dev, sizeof(*dev));
	return ret;
}

static void shm_device_close(struct weft_device *base)
{
	struct wfi_shm_device *dev;
	struct wfi_env *env;

	if (!base)
		return;
	dev = wfi_shm_device(base);
	env = base->env;
	close(dev->pidfd);
	wfi_gens_fini(&dev->gens, env);
	wfi_free(env, dev, sizeof(*dev));
}

const struct weft_transport wfi_transport_shm = {
	.size = sizeof(struct weft_transport),
	.name = "shm",
	.probe = shm_probe,
	.device_open = shm_device_open,
	.device_close = shm_device_close,
	.mr_reg = wfi_shm_mr_reg,
	.mr_dereg = wfi_shm_mr_dereg,
	.mr_export = wfi_shm_mr_export,
	.mr_revoke = wfi_shm_mr_revoke,
	.rkey_import = wfi_shm_rkey_import,
	.rkey_destroy = wfi_shm_rkey_destroy,
	.rkey_ptr = wfi_shm_rkey_ptr,
	.cq_create = wfi_sync_cq_create,
	.cq_destroy = wfi_sync_cq_destroy,
	.cq_arm = wfi_shm_cq_arm,
	.cq_disarm = wfi_shm_cq_disarm,
	.ep_create = wfi_shm_ep_create,
	.ep_addr = wfi_shm_ep_addr,
	.ep_connect = wfi_shm_ep_connect,
	.ep_shutdown = wfi_shm_ep_shutdown,
	.ep_destroy = wfi_shm_ep_destroy,
	.port_open = wfi_no_port_open,
	.port_close = wfi_no_port_close,
	.port_addr = wfi_no_port_addr,
	.port_poll = wfi_no_port_poll,
	.port_accept = wfi_no_port_accept,
	.port_refuse = wfi_no_port_refuse,
	.ep_dial = wfi_no_ep_dial,
};
