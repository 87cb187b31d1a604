/* SPDX-License-Identifier: Apache-2.0 */
/* pki_none.c - built without OpenSSL */
#include <errno.h>
#include "cli/pki.h"

static int absent(char why[WFI_PKI_WHY])
{
	snprintf(why, WFI_PKI_WHY,
		 "this weft was built without TLS: install libssl-dev and build it with "
		 "-Dtls=enabled");
	return -EOPNOTSUPP;
}

int wfi_pki_init(const char *dir, const char *domain, uint64_t days, char why[WFI_PKI_WHY])
{
	(void)dir;
	(void)domain;
	(void)days;
	return absent(why);
}

int wfi_pki_node(const char *dir, const char *name, const char *const *hosts, unsigned nr,
		 uint64_t days, char why[WFI_PKI_WHY])
{
	(void)dir;
	(void)name;
	(void)hosts;
	(void)nr;
	(void)days;
	return absent(why);
}

int wfi_pki_show(const char *path, struct wfi_pki_cert *out, char why[WFI_PKI_WHY])
{
	(void)path;
	(void)out;
	return absent(why);
}
