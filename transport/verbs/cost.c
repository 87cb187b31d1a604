/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a piece costs, for the transfer engine to know which are better sent in messages: written
 * from this port to itself over two queue pairs, as a peer is not there yet. A NIC that does not
 * reach itself says nothing, and pieces are posted.
 */
#include <errno.h>
#include <string.h>
#include "transport/verbs/verbs.h"
#include "weft_internal/log.h"

#define PIECES 32u
#define PIECE_BYTES 64u
#define BULK_BYTES (128u << 10)
#define ROUNDS 3u
#define LIMIT_NS (100 * WFI_NSEC_PER_MSEC) /* a round that takes longer ends it */
#define LIMIT_POLLS (1u << 24) /* should the clock stand still */
#define PSN 1

struct loopback {
	struct wfi_verbs_device *dev;
	struct wfi_verbs_slab *slab; /* the first half is written to the second */
	struct ibv_cq *cq;
	struct ibv_qp *qps[2];
};

static struct ibv_qp *qp_open(const struct loopback *l)
{
	struct ibv_qp_init_attr init = {
		.send_cq = l->cq,
		.recv_cq = l->cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = PIECES,
			 .max_recv_wr = 1,
			 .max_send_sge = 1,
			 .max_recv_sge = 1 },
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = l->dev->port.num,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
	};
	struct ibv_qp *qp = ibv_create_qp(l->dev->pd, &init);

	if (qp &&
	    ibv_modify_qp(qp, &attr,
			  IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)) {
		ibv_destroy_qp(qp);
		qp = NULL;
	}
	return qp;
}

static int qp_join(const struct loopback *l, struct ibv_qp *qp, const struct ibv_qp *to)
{
	const struct wfi_verbs_port *port = &l->dev->port;
	struct ibv_qp_attr attr = {
		.path_mtu = port->mtu,
		.dest_qp_num = to->qp_num,
		.rq_psn = PSN,
		.sq_psn = PSN,
		.ah_attr = { .port_num = port->num, .dlid = port->lid },
	};

	wfi_verbs_gid_set(port, 0, port->gids[0].raw, &attr);
	return wfi_verbs_qp_start(l->dev, qp, &attr, 1);
}

static void loopback_close(struct loopback *l)
{
	unsigned i;

	for (i = 0; i < WFI_ARRAY_SIZE(l->qps); i++)
		if (l->qps[i])
			ibv_destroy_qp(l->qps[i]);
	if (l->cq)
		ibv_destroy_cq(l->cq);
	if (l->slab)
		wfi_verbs_slab_close(l->dev, l->slab);
}

static int loopback_open(struct loopback *l)
{
	unsigned i;

	l->slab = wfi_verbs_slab_open(l->dev, 2 * BULK_BYTES,
				      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	l->cq = ibv_create_cq(l->dev->ctx, 2 * PIECES, NULL, NULL, 0);
	if (!l->slab || !l->cq)
		return -ENOMEM;
	for (i = 0; i < WFI_ARRAY_SIZE(l->qps); i++) {
		l->qps[i] = qp_open(l);
		if (!l->qps[i])
			return -ENOMEM;
	}
	if (qp_join(l, l->qps[0], l->qps[1]) || qp_join(l, l->qps[1], l->qps[0]))
		return -EIO;
	return 0;
}

/* Return: 0 with *@ns from the post to the completion of the last, -EIO, -ETIMEDOUT */
static int write_once(const struct loopback *l, uint32_t nr, uint32_t bytes, uint64_t *ns)
{
	struct wfi_env *env = l->dev->base.env;
	const uint64_t start_ns = wfi_now(env);
	struct ibv_send_wr wrs[PIECES], *bad;
	struct ibv_sge sges[PIECES];
	uint32_t i, polls = 0;
	struct ibv_wc wc;

	for (i = 0; i < nr; i++) {
		sges[i] = (struct ibv_sge){ .addr = (uintptr_t)l->slab->mem + (size_t)i * bytes,
					    .length = bytes,
					    .lkey = l->slab->mr->lkey };
		wrs[i] = (struct ibv_send_wr){
			.next = i + 1 < nr ? &wrs[i + 1] : NULL,
			.sg_list = &sges[i],
			.num_sge = 1,
			.opcode = IBV_WR_RDMA_WRITE,
			.send_flags = i + 1 < nr ? 0 : IBV_SEND_SIGNALED,
			.wr.rdma = { sges[i].addr + BULK_BYTES, l->slab->mr->rkey },
		};
	}
	if (ibv_post_send(l->qps[0], wrs, &bad))
		return -EIO;
	while (!ibv_poll_cq(l->cq, 1, &wc))
		if (++polls == LIMIT_POLLS || wfi_now(env) - start_ns > LIMIT_NS)
			return -ETIMEDOUT;
	*ns = wfi_now(env) - start_ns;
	return wc.status ? -EIO : 0;
}

/* the best of some rounds: what disturbs makes it longer only */
static int write_best(const struct loopback *l, uint32_t nr, uint32_t bytes, uint64_t *ns)
{
	uint64_t round_ns;
	unsigned i;
	int ret;

	*ns = UINT64_MAX;
	for (i = 0; i < ROUNDS; i++) {
		ret = write_once(l, nr, bytes, &round_ns);
		if (ret)
			return ret;
		*ns = wfi_min(*ns, round_ns);
	}
	return 0;
}

void wfi_verbs_cost_measure(struct wfi_verbs_device *dev)
{
	struct weft_caps *caps = &dev->base.caps;
	struct loopback l = { .dev = dev };
	uint64_t one, many, bulk;
	int ret = loopback_open(&l);

	if (!ret)
		ret = write_best(&l, 1, PIECE_BYTES, &one);
	if (!ret)
		ret = write_best(&l, PIECES, PIECE_BYTES, &many);
	if (!ret)
		ret = write_best(&l, 1, BULK_BYTES, &bulk);
	loopback_close(&l);
	if (ret) {
		wfi_info("verbs: %s does not reach itself (%s): small pieces are posted",
			 ibv_get_device_name(dev->ctx->device), strerror(-ret));
		return;
	}
	if (many > one)
		caps->cost_per_piece_ns =
			(uint32_t)wfi_min((many - one) / (PIECES - 1), UINT32_MAX);
	if (bulk > one)
		caps->cost_per_mib_ns = (bulk - one) * ((1u << 20) / BULK_BYTES);
	wfi_debug("verbs: %s: %u ns a piece, %llu a MiB", ibv_get_device_name(dev->ctx->device),
		  caps->cost_per_piece_ns, (unsigned long long)caps->cost_per_mib_ns);
}
