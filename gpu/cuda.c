/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "gpu/cuda.h"
#include "weft_internal/gpu.h"

static struct wfi_cuda calls;
static char failure[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* a pointer to an object becomes one to a function: POSIX has dlsym() work so, ISO C has no word */
static bool lookup(void *lib, const char *symbol, void *to)
{
	void *sym = dlsym(lib, symbol);

	memcpy(to, &sym, sizeof(sym));
	return sym;
}

static void missing(const char *symbol)
{
	snprintf(failure, sizeof(failure),
		 "libcuda.so.1 has no %s: install a driver of CUDA 11.7 (515) or newer", symbol);
}

static void load(void)
{
	void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	int res;

	if (!lib) {
		snprintf(failure, sizeof(failure),
			 "libcuda.so.1 is not here: install NVIDIA's driver");
		return;
	}
#define LOOKUP(name, symbol, args)                                                                 \
	if (!lookup(lib, symbol, &calls.name))                                                     \
		missing(symbol);
	WFI_CUDA_CALLS(LOOKUP)
#undef LOOKUP
#define LOOKUP(name, symbol, args) lookup(lib, symbol, &calls.name);
	WFI_CUDA_MAYBE(LOOKUP)
#undef LOOKUP
	if (failure[0])
		return;
	res = calls.cuInit(0);
	if (res)
		snprintf(failure, sizeof(failure), "%s", wfi_cuda_why(res));
}

const struct wfi_cuda *wfi_cuda_load(const char **why)
{
	pthread_once(&once, load);
	*why = failure;
	return failure[0] ? NULL : &calls;
}
