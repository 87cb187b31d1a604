/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ucx.h - the UCX provider, inside
 *
 * Frames (transport/served.h) travel as active messages of UCP, eager ones, so that they come in
 * order: the first has the frame's head as its header and some of its bytes, others what is left.
 * UCP's own put and get are left alone: UCX serves whoever can reach its port with any byte of the
 * process, and over TCP it emulates them. Without UCP_FEATURE_RMA it answers none. Memory of peers
 * of this host is mapped instead, where they let us.
 */
#ifndef WFI_TRANSPORT_UCX_H
#define WFI_TRANSPORT_UCX_H

#include "transport/served.h"
#include "transport/ucx/lib.h"
#include "transport/ucx/provider.h"

#define WFI_UCX_TLS_MAX 128u

struct wfi_ucx_device {
	struct wfi_srv_device srv;
	struct wfi_srv_wire wire; /* with what this worker can do */
	const struct wfi_ucp *ucp;
	ucp_context_h context;
	ucp_worker_h worker;
	int efd;
	uint32_t nr_queued; /* frames that UCX has not all of */
	uint32_t nr_stopping; /* endpoints */
	uint32_t part; /* bytes that UCX sends in one go */
	bool tries; /* peers' addresses in a child first */
};

/* header of the parts of a frame behind the first */
struct wfi_ucx_part {
	uint64_t to;
	uint64_t magic;
};

struct wfi_ucx_ep {
	struct wfi_srv_ep srv;
	ucp_ep_h ep;
	ucs_status_ptr_t closing;
	uint64_t since_ns; /* it connects; or is to stop */
	bool failed; /* UCX knows of it */
	bool closed; /* .closing is over */
	struct wfi_srv_tx *first; /* frames with parts that were not sent yet */
	struct wfi_srv_tx **last;
	uint64_t off; /* in .first's .iov[.at] */
	uint32_t nr_flying; /* parts that UCX has */
	struct wfi_ucx_part part;
};

static inline struct wfi_ucx_device *wfi_ucx_device(struct weft_device *dev)
{
	return wfi_container_of(wfi_srv_device(dev), struct wfi_ucx_device, srv);
}

/* what a device's name says: TLS of UCX with '+' between them, then perhaps '@' and a network
 * device, or its address. NULL: RDMA where there is some, else TCP, where peers find this host */
struct wfi_ucx_place {
	char tls[WFI_UCX_TLS_MAX];
	char net[WFI_UCX_TLS_MAX];
	bool fell_back; /* to TCP, nobody asked for it */
};

/* device.c */
int wfi_ucx_probe(const struct weft_transport *t, struct wfi_env *env, struct weft_probe *out);
int wfi_ucx_device_open(const struct weft_transport *t, struct wfi_env *env,
			const struct weft_device_opts *opts, struct weft_device **out);
void wfi_ucx_device_close(struct weft_device *dev);

/* Return: whether a list of transports is there and names none but these */
bool wfi_ucx_tls_among(const char *tls, const char *const *names);

/* trial.c: those whose endpoints a child can begin to make and leave */
bool wfi_ucx_trial_possible(const char *tls);
/* Return: 0 UCX can be given this address, -EINVAL, -errno there is no telling */
int wfi_ucx_trial(const struct wfi_ucx_device *dev, const ucp_ep_params_t *params);

/* wire.c */
extern const struct wfi_srv_wire wfi_ucx_wire;
int wfi_ucx_worker_listen(struct wfi_ucx_device *dev);

#endif
