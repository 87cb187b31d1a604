/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pki.h - the small CA of weft pki: one authority, certificates of nodes
 *
 * Keys are of P-256 (FIPS 186-5), signatures ECDSA with SHA-256, certificates as RFC 5280 and the
 * X.509-SVID standard of SPIFFE want them. Files that are there are never touched.
 */
#ifndef WFI_PKI_H
#define WFI_PKI_H

#include <stdint.h>
#include <stdio.h>

#define WFI_PKI_WHY 512

/* makes @dir, if it is not there, and in it ca.crt and ca.key. Return: 0, -errno and @why */
int wfi_pki_init(const char *dir, const char *domain, uint64_t days, char why[WFI_PKI_WHY]);
/* a certificate for the node @name, signed by the authority in @dir: NAME.crt and NAME.key there.
 * @hosts: of @nr; IP addresses and host names. Return: 0, -errno and @why */
int wfi_pki_node(const char *dir, const char *name, const char *const *hosts, unsigned nr,
		 uint64_t days, char why[WFI_PKI_WHY]);

struct wfi_pki_cert {
	char subject[256], issuer[256];
	char id[256]; /* "": it has no URI, or a strange one */
	char hosts[512];
	char key[64];
	char sha256[65];
	int64_t from_s, until_s;
	int is_ca;
};
/* the first certificate of a PEM file. Return: 0, -errno and @why */
int wfi_pki_show(const char *path, struct wfi_pki_cert *out, char why[WFI_PKI_WHY]);

#endif
