/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvcache/cluster/etcd_http.h"
#include "weft_internal/util.h"

#define CONNECT_MS 2000L
#define WAIT_MAX_MS 60000
#define ANSWER_OK 200L

static size_t on_data(char *data, size_t size, size_t nr, void *arg)
{
	struct etcd_buf *b = arg;

	/* size is 1, by contract */
	if (b->off) {
		b->len -= b->off;
		memmove(b->data, b->data + b->off, b->len);
		b->off = 0;
	}
	if (nr > MEMBER_STORE_MAX - b->len) {
		b->full = true;
		return 0;
	}
	memcpy(b->data + b->len, data, size * nr);
	b->len += nr;
	return nr;
}

/* the store's clock, which its certificates and logs go by */
static size_t on_header(char *line, size_t size, size_t nr, void *arg)
{
	struct etcd_http *h = arg;
	char date[64];
	time_t at;

	if (nr > 5 && nr < sizeof(date) && !strncasecmp(line, "Date:", 5)) {
		snprintf(date, sizeof(date), "%.*s", (int)nr - 5, line + 5);
		at = curl_getdate(date, NULL);
		if (at > 0)
			h->skew_ms = (int64_t)at * 1000 -
				     (int64_t)(h->env->clock->wall_ns(h->env) / WFI_NSEC_PER_MSEC);
	}
	return size * nr;
}

static bool some(const char *text)
{
	return text && *text;
}

static CURL *easy_create(const struct wfi_members_opts *opts, struct etcd_buf *buf)
{
	CURL *easy = curl_easy_init();

	buf->data = malloc(MEMBER_STORE_MAX);
	if (!easy || !buf->data) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, buf);
	if (some(opts->ca_file))
		curl_easy_setopt(easy, CURLOPT_CAINFO, opts->ca_file);
	if (some(opts->cert_file))
		curl_easy_setopt(easy, CURLOPT_SSLCERT, opts->cert_file);
	if (some(opts->key_file))
		curl_easy_setopt(easy, CURLOPT_SSLKEY, opts->key_file);
	return easy;
}

int etcd_http_init(struct etcd_http *h, struct wfi_env *env, const struct wfi_members_opts *opts,
		   int wake_fd, const _Atomic bool *stop)
{
	memset(h, 0, sizeof(*h));
	h->env = env;
	h->wake_fd = wake_fd;
	h->stop = stop;
	h->multi = curl_multi_init();
	h->call = easy_create(opts, &h->call_buf);
	h->watch = easy_create(opts, &h->watch_buf);
	if (!h->multi || !h->call || !h->watch)
		return -ENOMEM;
	curl_easy_setopt(h->call, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(h->call, CURLOPT_HEADERDATA, h);
	curl_easy_setopt(h->call, CURLOPT_ERRORBUFFER, h->curl_why);
	return etcd_http_token(h, NULL);
}

void etcd_http_fini(struct etcd_http *h)
{
	etcd_http_unwatch(h);
	curl_easy_cleanup(h->call);
	curl_easy_cleanup(h->watch);
	if (h->multi)
		curl_multi_cleanup(h->multi);
	curl_slist_free_all(h->headers);
	free(h->call_buf.data);
	free(h->watch_buf.data);
}

int etcd_http_token(struct etcd_http *h, const char *token)
{
	/* without Expect curl asks first whether it may send */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more;
	char line[1024];

	if (list && token) {
		snprintf(line, sizeof(line), "Authorization: %s", token);
		more = curl_slist_append(list, line);
		if (!more)
			curl_slist_free_all(list);
		list = more;
	}
	if (!list)
		return -ENOMEM;
	curl_easy_setopt(h->call, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(h->watch, CURLOPT_HTTPHEADER, list);
	curl_slist_free_all(h->headers);
	h->headers = list;
	return 0;
}

static void turn(struct etcd_http *h)
{
	CURLMsg *msg;
	int running, left;

	curl_multi_perform(h->multi, &running);
	while ((msg = curl_multi_info_read(h->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		if (msg->easy_handle == h->call) {
			h->call_done = true;
			h->call_result = msg->data.result;
		} else {
			h->watch_done = true;
			h->watch_result = msg->data.result;
		}
	}
}

static char *line_end(const struct etcd_buf *b)
{
	return b->len > b->off ? memchr(b->data + b->off, '\n', b->len - b->off) : NULL;
}

void etcd_http_wait(struct etcd_http *h, uint64_t ns)
{
	struct curl_waitfd wake = { .fd = h->wake_fd, .events = CURL_WAIT_POLLIN };
	const uint64_t ms = (ns + WFI_NSEC_PER_MSEC - 1) / WFI_NSEC_PER_MSEC;
	uint64_t n;

	turn(h);
	/* what that turn brought is not waited for */
	if (h->watching && (h->watch_done || line_end(&h->watch_buf)))
		return;
	curl_multi_poll(h->multi, &wake, 1, (int)wfi_min(ms, (uint64_t)WAIT_MAX_MS), NULL);
	(void)!read(h->wake_fd, &n, sizeof(n));
	turn(h);
}

/* Return: 0, -ENOMEM */
static int easy_start(struct etcd_http *h, CURL *easy, struct etcd_buf *buf, const char *path,
		      char *body)
{
	char url[512];

	snprintf(url, sizeof(url), "%s%s", h->base, path);
	buf->len = buf->off = 0;
	buf->full = false;
	curl_easy_setopt(easy, CURLOPT_URL, url);
	if (!body || curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, body))
		return -ENOMEM;
	return curl_multi_add_handle(h->multi, easy) ? -ENOMEM : 0;
}

static bool stopped(const struct etcd_http *h)
{
	return h->stop && atomic_load_explicit(h->stop, memory_order_relaxed);
}

static void call_wait(struct etcd_http *h)
{
	const uint64_t end_ns = wfi_now(h->env) + h->timeout_ns;
	uint64_t now_ns = wfi_now(h->env);
	struct curl_waitfd wake = { .fd = h->wake_fd, .events = CURL_WAIT_POLLIN };
	uint64_t n;

	turn(h);
	while (!h->call_done && now_ns < end_ns && !stopped(h)) {
		curl_multi_poll(h->multi, &wake, 1,
				(int)((end_ns - now_ns) / WFI_NSEC_PER_MSEC) + 1, NULL);
		(void)!read(h->wake_fd, &n, sizeof(n));
		turn(h);
		now_ns = wfi_now(h->env);
	}
}

json_t *etcd_http_call(struct etcd_http *h, const char *path, char *body, int *err, char *why,
		       size_t why_len)
{
	json_t *answer = NULL;
	long status = 0;

	h->call_done = false;
	h->call_result = CURLE_OK;
	h->curl_why[0] = 0;
	*err = easy_start(h, h->call, &h->call_buf, path, body);
	free(body);
	if (*err) {
		member_complain(why, why_len, "out of memory");
		return NULL;
	}
	call_wait(h);
	curl_multi_remove_handle(h->multi, h->call);
	curl_easy_getinfo(h->call, CURLINFO_RESPONSE_CODE, &status);
	*err = -ENOTCONN;
	if (stopped(h) && !h->call_done)
		*err = -ECANCELED;
	else if (!h->call_done)
		member_complain(why, why_len, "no answer within %u ms",
				(unsigned)(h->timeout_ns / WFI_NSEC_PER_MSEC));
	else if (h->call_buf.full)
		member_complain(why, why_len, "an answer of more than %u bytes", MEMBER_STORE_MAX);
	else if (h->call_result != CURLE_OK)
		member_complain(why, why_len, "%s",
				h->curl_why[0] ? h->curl_why : curl_easy_strerror(h->call_result));
	else
		answer = etcd_answer(h->call_buf.data, h->call_buf.len, err, why, why_len);
	if (!answer || status == ANSWER_OK)
		return answer;
	json_decref(answer);
	*err = -EBADMSG;
	member_complain(why, why_len, "what answers is no etcd: status %ld", status);
	return NULL;
}

void etcd_http_unwatch(struct etcd_http *h)
{
	if (h->watching)
		curl_multi_remove_handle(h->multi, h->watch);
	h->watching = false;
	h->watch_done = false;
	h->watch_buf.len = h->watch_buf.off = 0;
}

int etcd_http_watch(struct etcd_http *h, char *body)
{
	int ret;

	etcd_http_unwatch(h);
	ret = easy_start(h, h->watch, &h->watch_buf, "/v3/watch", body);
	free(body);
	h->watching = !ret;
	return ret;
}

long etcd_http_watched(struct etcd_http *h, const char **line, char *why, size_t why_len)
{
	struct etcd_buf *b = &h->watch_buf;
	char *end;
	long len;

	while ((end = line_end(b))) {
		*line = b->data + b->off;
		len = end - *line;
		b->off += (size_t)len + 1;
		if (len)
			return len;
	}
	if (!h->watch_done)
		return 0;
	if (b->full)
		member_complain(why, why_len, "news of more than %u bytes", MEMBER_STORE_MAX);
	else
		member_complain(why, why_len, "the watch has ended: %s",
				h->watch_result ? curl_easy_strerror(h->watch_result)
						: "the store closed it");
	return -ENOTCONN;
}
