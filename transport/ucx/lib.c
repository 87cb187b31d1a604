/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "transport/ucx/lib.h"
#include "weft_internal/util.h"

static struct wfi_ucp calls;
static const char *failure;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* a pointer to an object becomes one to a function: POSIX has dlsym() work so, ISO C has no word */
static void *lookup(void *lib, const char *name, void *to)
{
	void *sym = dlsym(lib, name);

	memcpy(to, &sym, sizeof(sym));
	return sym;
}

static void load(void)
{
	unsigned major, minor, release;
	void *lib;

	/* whoever set these knows why */
	setenv("UCX_HANDLE_ERRORS", "none", 0);
	setenv("UCX_ERROR_SIGNALS", "", 0);
	setenv("UCX_MEM_EVENTS", "no", 0);
	setenv("UCX_WARN_UNUSED_ENV_VARS", "no", 0);
	setenv("UCX_LOG_LEVEL", "fatal", 0); /* to stdout; what matters comes as a status */
	/* one system call for what it copies together, not eight */
	setenv("UCX_TCP_TX_SEG_SIZE", "64k", 0);
	/* shared memory, too, must tell of peers that are gone */
	setenv("UCX_MM_ERROR_HANDLING", "y", 0);
	lib = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!lib) {
		failure = "libucp.so.0 is not here: install libucx0";
		return;
	}
#define LOOKUP(name)                                                                               \
	if (!lookup(lib, #name, &calls.name))                                                      \
		failure = "libucp.so.0 has no " #name ": install UCX 1.13 or newer";
	WFI_UCP_CALLS(LOOKUP)
#undef LOOKUP
	if (failure)
		return;
	calls.ucp_get_version(&major, &minor, &release);
	if (major != UCP_API_MAJOR || minor < UCP_API_MINOR)
		failure = "libucp.so.0 is older than the UCX that this was built with: update "
			  "libucx0";
}

const struct wfi_ucp *wfi_ucp_load(const char **why)
{
	pthread_once(&once, load);
	*why = failure;
	return failure ? NULL : &calls;
}
