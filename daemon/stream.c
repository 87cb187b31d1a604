/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "inet.h"
#include "stream.h"

#define TLS_ALERT 0x15
#define TLS_HANDSHAKE 0x16

__attribute__((format(printf, 3, 4))) static int over(struct stream *s, int ret, const char *fmt,
						      ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
	return ret;
}

int stream_init(struct stream *s, struct wfi_env *env, int fd, bool dialled, struct secure *secure)
{
	memset(s, 0, sizeof(*s));
	s->env = env;
	s->fd = fd;
	s->dialled = dialled;
	s->connected = !dialled;
	s->secure = secure;
	return secure ? secure->ops->start(secure, fd, dialled, &s->session) : 0;
}

void stream_fini(struct stream *s)
{
	if (s->session)
		s->secure->ops->end(s->session);
	if (s->env)
		wire_in_reset(&s->in, s->env);
	if (s->out)
		wfi_free(s->env, s->out, s->out_len);
	memset(s, 0, sizeof(*s));
}

/* ---- until it is ready ---- */

static int connected(struct stream *s)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err)
		return over(s, -err, "can't be reached: %s", strerror(err));
	return inet_pending(s->fd) ? -EAGAIN : 0;
}

/* a node that speaks plain text hears why it is hung up on: what it said is out of the way first,
 * or the answer would be lost with it */
static void answer_plain(struct stream *s)
{
	struct {
		struct wire_head head;
		struct wire_refuse body;
	} msg = { .body.why = "it speaks TLS only: set tls_cert, tls_key and tls_ca" };
	char buf[4096];

	wire_head_fill(&msg.head, WIRE_REFUSE, sizeof(msg.body));
	(void)!recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT);
	(void)!send(s->fd, &msg, sizeof(msg), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* what speaks no TLS is told apart from what speaks it badly, by its first bytes: once libssl has
 * read, others come. Return: 0, -EAGAIN, -EPROTO */
static int look(struct stream *s)
{
	unsigned char head[sizeof(uint32_t)];
	const uint32_t magic = WIRE_MAGIC;
	ssize_t len = recv(s->fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);

	/* who calls speaks first */
	if (len < 0 && errno == EAGAIN && !s->dialled)
		return -EAGAIN;
	s->looked = true;
	/* the session meets ends and errors, too */
	if (len <= 0 || head[0] == TLS_HANDSHAKE || head[0] == TLS_ALERT)
		return 0;
	if (!memcmp(head, &magic, (size_t)len)) {
		if (!s->dialled)
			answer_plain(s);
		return over(s, -EPROTO, "%s", SECURE_PLAIN);
	}
	return over(s, -EPROTO, "speaks neither TLS nor the language of nodes");
}

int stream_ready(struct stream *s)
{
	int ret = 0;

	if (s->ready)
		return 0;
	if (!s->connected)
		ret = connected(s);
	if (ret)
		return ret;
	s->connected = true;
	if (s->session && !s->looked)
		ret = look(s);
	if (!ret && s->session) {
		ret = s->secure->ops->shake(s->session);
		if (ret && ret != -EAGAIN)
			over(s, ret, "%s", s->secure->ops->why(s->session));
	}
	/* who is not let in has a session, too, to hear it on */
	s->ready = !ret || (ret == -EACCES && s->secure->ops->node(s->session));
	return ret;
}

/* ---- messages ---- */

static ssize_t get(struct stream *s, void *buf, size_t room)
{
	ssize_t len;

	if (s->session) {
		len = s->secure->ops->read(s->session, buf, room);
		if (len < 0 && len != -EAGAIN)
			over(s, 0, "%s", s->secure->ops->why(s->session));
		return len;
	}
	len = recv(s->fd, buf, room, MSG_DONTWAIT);
	if (!len)
		return over(s, -ECONNRESET, "hung up");
	if (len < 0 && errno != EAGAIN)
		return over(s, -errno, "is gone: %s", strerror(errno));
	return len < 0 ? -EAGAIN : len;
}

static int explain(struct stream *s, int ret)
{
	const unsigned char *head = (const unsigned char *)&s->in.head;

	if (ret == -EPROTONOSUPPORT)
		return over(s, ret, "speaks version %u, this node %u: run one release on both",
			    s->in.head.version, WIRE_VERSION);
	if (ret == -ENOMEM)
		return over(s, ret, "can't be heard: out of memory");
	if (s->in.head.magic == WIRE_MAGIC)
		return over(s, ret, "sent what is no message of this version (type %u, %u bytes)",
			    s->in.head.type, s->in.head.len);
	if (!s->session && (head[0] == TLS_HANDSHAKE || head[0] == TLS_ALERT) && head[1] == 3)
		return over(s, ret,
			    "speaks TLS, and this node has no certificates: set tls_cert, tls_key "
			    "and tls_ca here, too");
	return over(s, ret, "is no node of weft");
}

int stream_next(struct stream *s, struct stream_msg *msg)
{
	ssize_t len;
	size_t room;
	void *at;
	int ret;

	if (s->whole)
		wire_in_reset(&s->in, s->env);
	s->whole = false;
	do {
		room = wire_in_room(&s->in, &at);
		len = get(s, at, room);
		if (len < 0)
			return (int)len;
		ret = wire_in_got(&s->in, s->env, (size_t)len);
	} while (!ret);
	if (ret < 0)
		return explain(s, ret);
	s->whole = true;
	*msg = (struct stream_msg){
		.type = (enum wire_kind)s->in.head.type,
		.body = s->in.body,
		.len = s->in.head.len,
	};
	return 1;
}

/* Return: bytes that the socket has taken, 0 none, -errno */
static ssize_t put(struct stream *s, const void *buf, size_t len)
{
	ssize_t ret;

	if (s->session) {
		ret = s->secure->ops->write(s->session, buf, len);
		if (ret < 0 && ret != -EAGAIN)
			over(s, 0, "%s", s->secure->ops->why(s->session));
	} else {
		ret = send(s->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		ret = ret < 0 ? -errno : ret;
		if (ret < 0 && ret != -EAGAIN)
			over(s, 0, "is gone: %s", strerror((int)-ret));
	}
	return ret == -EAGAIN ? 0 : ret;
}

int stream_flush(struct stream *s)
{
	ssize_t ret = 1;

	while (s->out && ret > 0) {
		ret = put(s, s->out + s->out_off, s->out_len - s->out_off);
		if (ret > 0)
			s->out_off += (size_t)ret;
		if (s->out_off == s->out_len) {
			wfi_free(s->env, s->out, s->out_len);
			s->out = NULL;
			s->out_len = s->out_off = 0;
		}
	}
	return ret < 0 ? (int)ret : 0;
}

int stream_send(struct stream *s, enum wire_kind type, const void *body, size_t len)
{
	const size_t left = s->out_len - s->out_off, need = left + WIRE_HEAD + len;
	struct wire_head head;
	char *out;

	if (need > STREAM_OUT_MAX)
		return over(s, -ENOBUFS, "does not read what it is told");
	out = wfi_alloc(s->env, need);
	if (!out)
		return over(s, -ENOMEM, "can't be told anything: out of memory");
	wire_head_fill(&head, type, len);
	if (s->out) {
		memcpy(out, s->out + s->out_off, left);
		wfi_free(s->env, s->out, s->out_len);
	}
	memcpy(out + left, &head, sizeof(head));
	memcpy(out + left + sizeof(head), body, len);
	s->out = out;
	s->out_len = need;
	s->out_off = 0;
	return stream_flush(s);
}

bool stream_wants_write(const struct stream *s)
{
	return !s->connected || s->out || (s->session && s->secure->ops->wants_write(s->session));
}

const char *stream_proved(const struct stream *s)
{
	return s->session && s->ready ? s->secure->ops->node(s->session) : NULL;
}
