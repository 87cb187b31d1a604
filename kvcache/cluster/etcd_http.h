/* SPDX-License-Identifier: Apache-2.0 */
/**
 * etcd_http.h - one request at a time, and one answer that goes on: over libcurl, in one thread
 */
#ifndef WFI_ETCD_HTTP_H
#define WFI_ETCD_HTTP_H

#include <curl/curl.h>

#include "kvcache/cluster/etcd_wire.h"

struct etcd_buf {
	char *data; /* MEMBER_STORE_MAX bytes */
	size_t len, off; /* what is before .off was taken */
	bool full; /* more came than there is room for */
};

struct etcd_http {
	struct wfi_env *env;
	CURLM *multi;
	CURL *call, *watch;
	struct curl_slist *headers;
	struct etcd_buf call_buf, watch_buf;
	bool call_done, watch_done, watching;
	CURLcode call_result, watch_result;
	const char *base; /* the endpoint */
	int wake_fd;
	const _Atomic bool *stop; /* a call ends at once; NULL: not any more */
	uint64_t timeout_ns; /* of a call */
	int64_t skew_ms; /* the store's clock less ours */
	char curl_why[CURL_ERROR_SIZE];
};

/* Return: 0, -ENOMEM */
int etcd_http_init(struct etcd_http *h, struct wfi_env *env, const struct wfi_members_opts *opts,
		   int wake_fd, const _Atomic bool *stop);
void etcd_http_fini(struct etcd_http *h);
/* the token goes with all that follows; NULL: none. Return: 0, -ENOMEM */
int etcd_http_token(struct etcd_http *h, const char *token);

/**
 * etcd_http_call - asks and waits; the watch goes on meanwhile
 * @body: handed over; NULL: -ENOMEM
 *
 * Return: the answer, of the caller's; NULL, and in *@err: -ENOTCONN nobody answers (in time),
 * -ECANCELED stopped, or as etcd_answer(); and @why
 */
json_t *etcd_http_call(struct etcd_http *h, const char *path, char *body, int *err, char *why,
		       size_t why_len);

/* ends the watch before. @body: handed over. Return: 0, -ENOMEM */
int etcd_http_watch(struct etcd_http *h, char *body);
void etcd_http_unwatch(struct etcd_http *h);
/**
 * etcd_http_watched - the next line of the watch
 * @line: until the next call of any of these
 *
 * Return: bytes; 0: none yet; -ENOTCONN: it has ended, and @why
 */
long etcd_http_watched(struct etcd_http *h, const char **line, char *why, size_t why_len);
/* sleeps until something comes, it is woken, or @ns are over */
void etcd_http_wait(struct etcd_http *h, uint64_t ns);

#endif
