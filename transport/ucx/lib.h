/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lib.h - libucp, loaded when it is first wanted
 *
 * It is not linked: its constructors put handlers of their own on SIGSEGV and SIGBUS and keep
 * everybody else from setting theirs, and patch mmap() in the whole process, unless the environment
 * says otherwise before it is loaded.
 */
#ifndef WFI_TRANSPORT_UCX_LIB_H
#define WFI_TRANSPORT_UCX_LIB_H

#include <ucp/api/ucp.h>

#define WFI_UCP_CALLS(X)                                                                           \
	X(ucp_get_version)                                                                         \
	X(ucp_config_read)                                                                         \
	X(ucp_config_modify)                                                                       \
	X(ucp_config_release)                                                                      \
	X(ucp_init_version)                                                                        \
	X(ucp_cleanup)                                                                             \
	X(ucp_context_query)                                                                       \
	X(ucp_worker_create)                                                                       \
	X(ucp_worker_destroy)                                                                      \
	X(ucp_worker_query)                                                                        \
	X(ucp_worker_get_address)                                                                  \
	X(ucp_worker_release_address)                                                              \
	X(ucp_worker_get_efd)                                                                      \
	X(ucp_worker_arm)                                                                          \
	X(ucp_worker_progress)                                                                     \
	X(ucp_worker_set_am_recv_handler)                                                          \
	X(ucp_ep_create)                                                                           \
	X(ucp_ep_close_nbx)                                                                        \
	X(ucp_am_send_nbx)                                                                         \
	X(ucp_request_check_status)                                                                \
	X(ucp_request_free)

#define WFI_UCP_MEMBER(name) __typeof__(name) *name;
struct wfi_ucp {
	WFI_UCP_CALLS(WFI_UCP_MEMBER)
};
#undef WFI_UCP_MEMBER

/* Context: any thread. Return: NULL: no libucp here, or not one of this major version; @why says
 * so */
const struct wfi_ucp *wfi_ucp_load(const char **why);

#endif
