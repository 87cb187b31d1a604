/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "transport/ucx/ucx.h"
#include "weft_internal/log.h"

#define RDMA_CLASS "/sys/class/infiniband"

static bool rdma_is_here(void)
{
	DIR *dir = opendir(RDMA_CLASS);
	const struct dirent *e;
	bool found = false;

	if (!dir)
		return false;
	while (!found && (e = readdir(dir)))
		found = e->d_name[0] != '.';
	closedir(dir);
	return found;
}

/* UCX knows interfaces, people addresses. Return: whether one has it; its name in @out */
static bool interface_of(const char *addr, char *out, size_t len)
{
	uint8_t ip[sizeof(struct in6_addr)];
	const int family = strchr(addr, ':') ? AF_INET6 : AF_INET;
	struct ifaddrs *all, *i;
	bool found = false;

	if (inet_pton(family, addr, ip) != 1 || getifaddrs(&all))
		return false;
	for (i = all; i && !found; i = i->ifa_next) {
		const void *a = i->ifa_addr;

		if (!a || i->ifa_addr->sa_family != family)
			continue;
		/* all of 127.0.0.0/8 is the loopback's, which has one address */
		found = family == AF_INET
				? !memcmp(&((const struct sockaddr_in *)a)->sin_addr, ip,
					  ip[0] == IN_LOOPBACKNET ? 1 : 4)
				: !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, ip, 16);
		if (found)
			snprintf(out, len, "%s", i->ifa_name);
	}
	freeifaddrs(all);
	return found;
}

static bool named(const char *tls, size_t len, const char *const *names)
{
	for (; *names; names++)
		if (strlen(*names) == len && !strncmp(*names, tls, len))
			return true;
	return false;
}

bool wfi_ucx_tls_among(const char *tls, const char *const *names)
{
	const bool some = *tls;
	size_t len;

	for (; *tls; tls += len + (tls[len] == ',')) {
		len = strcspn(tls, ",");
		if (!named(tls, len, names))
			return false;
	}
	return some;
}

/* none of them leaves this host */
static bool is_local(const char *tls)
{
	static const char *const local[] = { "posix", "sysv", "cma", "xpmem", "knem",
					     "shm",   "sm",   "mm",  "self",  NULL };

	return wfi_ucx_tls_among(tls, local);
}

/* Return: 0, -ENODEV */
static int place_read(const char *name, const char *addr, struct wfi_ucx_place *out)
{
	const char *at = name ? strchr(name, '@') : NULL;
	size_t len = !name ? 0 : at ? (size_t)(at - name) : strlen(name);
	const char *net = at ? at + 1 : NULL;
	char *c;

	memset(out, 0, sizeof(*out));
	if (len >= sizeof(out->tls) || (net && (!net[0] || strlen(net) >= sizeof(out->net))))
		return -ENODEV;
	if (name)
		memcpy(out->tls, name, len);
	for (c = out->tls; *c; c++)
		if (*c == '+')
			*c = ',';
	if (net && !interface_of(net, out->net, sizeof(out->net)))
		snprintf(out->net, sizeof(out->net), "%s", net);
	/* a list in UCX_TLS is somebody's wish, too */
	if (len || getenv("UCX_TLS"))
		return 0;
	out->fell_back = !rdma_is_here();
	snprintf(out->tls, sizeof(out->tls), "%s", out->fell_back ? "tcp" : "ib");
	if (out->fell_back && !net && addr && !interface_of(addr, out->net, sizeof(out->net)))
		return -ENODEV;
	return 0;
}

int wfi_ucx_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out)
{
	struct wfi_ucx_place place;
	const char *why;

	(void)t;
	(void)env;
	memset(out, 0, sizeof(*out));
	if (!wfi_ucp_load(&why)) {
		snprintf(out->why, sizeof(out->why), "%s", why);
		return -EOPNOTSUPP;
	}
	out->nr_devices = 1;
	out->slow = !place_read(NULL, NULL, &place) && place.fell_back;
	if (out->slow)
		snprintf(out->why, sizeof(out->why),
			 "no RDMA device here, so UCX goes over TCP; where that is all there is, "
			 "transport = \"tcp\" is faster");
	return 0;
}

static int modify(const struct wfi_ucp *ucp, ucp_config_t *config, const char *what,
		  const char *value)
{
	if (!value[0] || ucp->ucp_config_modify(config, what, value) == UCS_OK)
		return 0;
	wfi_err("ucx: %s can't be set to %s", what, value);
	return -EINVAL;
}

static int context_open(struct wfi_ucx_device *dev, const struct wfi_ucx_place *place)
{
	const ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES,
		.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
	};
	const struct wfi_ucp *ucp = dev->ucp;
	ucp_config_t *config;
	ucs_status_t st;
	int ret;

	if (ucp->ucp_config_read(NULL, NULL, &config) != UCS_OK) {
		wfi_err("ucx: its settings can't be read: look at UCX_* in the environment");
		return -EINVAL;
	}
	ret = modify(ucp, config, "TLS", place->tls);
	if (!ret)
		ret = modify(ucp, config, "NET_DEVICES", place->net);
	/* sending from where bytes lie, UCX 1.13 aborts the process when the peer leaves */
	if (!ret)
		ret = modify(ucp, config, "ZCOPY_THRESH", "inf");
	st = ret ? UCS_OK
		 : ucp->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config,
					 &dev->context);
	ucp->ucp_config_release(config);
	if (st != UCS_OK) {
		wfi_err("ucx: no device for %s%s%s: name TLS and network device as ucx_info -d "
			"shows them",
			place->tls[0] ? place->tls : "UCX_TLS", place->net[0] ? " on " : "",
			place->net);
		return -ENODEV;
	}
	return ret;
}

static int worker_open(struct wfi_ucx_device *dev)
{
	const ucp_worker_params_t params = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
					     .thread_mode = UCS_THREAD_MODE_SERIALIZED };
	const struct wfi_ucp *ucp = dev->ucp;

	if (ucp->ucp_worker_create(dev->context, &params, &dev->worker) != UCS_OK) {
		wfi_err("ucx: no worker, out of memory or file descriptors");
		return -ENOMEM;
	}
	if (ucp->ucp_worker_get_efd(dev->worker, &dev->efd) != UCS_OK) {
		wfi_err("ucx: none of these transports can wake a sleeper: name others");
		return -EOPNOTSUPP;
	}
	return wfi_ucx_worker_listen(dev);
}

int wfi_ucx_device_open(const struct weft_transport *t, struct wfi_env *env,
			const struct weft_device_opts *opts, struct weft_device **out)
{
	struct weft_device_opts o;
	struct wfi_ucx_place place;
	struct wfi_ucx_device *dev;
	const char *why;
	int ret;

	if (wfi_opts_read(&o, sizeof(o), opts) || o.reserved)
		return -EINVAL;
	ret = place_read(o.name, o.addr, &place);
	if (ret)
		return ret;
	dev = wfi_alloc(env, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->ucp = wfi_ucp_load(&why);
	if (!dev->ucp) {
		wfi_err("ucx: %s", why);
		ret = -EOPNOTSUPP;
		goto err_dev;
	}
	if (place.fell_back)
		wfi_warn_once("ucx: no RDMA device here, falling back to TCP: say so with device = "
			      "\"tcp\", or take transport = \"tcp\", which is faster");
	ret = context_open(dev, &place);
	if (ret)
		goto err_dev;
	ret = worker_open(dev);
	if (ret)
		goto err_context;
	ret = wfi_srv_device_init(&dev->srv, t, env, &dev->wire, o.silent_ms);
	if (!ret && is_local(place.tls))
		ret = wfi_srv_device_local(&dev->srv);
	if (ret)
		goto err_context;
	dev->tries = wfi_ucx_trial_possible(place.tls);
	if (place.fell_back)
		dev->srv.base.caps.flags |= WEFT_CAP_FELL_BACK;
	*out = &dev->srv.base;
	return 0;

err_context:
	if (dev->worker)
		dev->ucp->ucp_worker_destroy(dev->worker);
	dev->ucp->ucp_cleanup(dev->context);
err_dev:
	wfi_free(env, dev, sizeof(*dev));
	return ret;
}

void wfi_ucx_device_close(struct weft_device *base)
{
	struct wfi_ucx_device *dev;

	if (!base)
		return;
	dev = wfi_ucx_device(base);
	dev->ucp->ucp_worker_destroy(dev->worker);
	dev->ucp->ucp_cleanup(dev->context);
	wfi_srv_device_fini(&dev->srv);
	wfi_free(base->env, dev, sizeof(*dev));
}
