/* SPDX-License-Identifier: Apache-2.0 */
/* one line a fact. Cold, so one lock holds everything together */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "weft_internal/log.h"

#define LINE_BYTES 1024
#define WINDOW_NS 1000000000ull

static struct {
	pthread_mutex_t lock;
	enum wfi_log_level max_level;
	char name[64];
	bool journal; /* stderr is the journal's, which reads the level from a prefix */
	bool times;
	void (*sink)(void *ctx, enum wfi_log_level level, const char *line);
	void *ctx;
} state = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.max_level = WFI_LOG_INFO,
};

static const struct {
	const char *name;
	int syslog;
} levels[] = {
	[WFI_LOG_ERR] = { "error", 3 },
	[WFI_LOG_WARN] = { "warning", 4 },
	[WFI_LOG_INFO] = { "info", 6 },
	[WFI_LOG_DEBUG] = { "debug", 7 },
};

static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       !fstat(STDERR_FILENO, &st) && st.st_dev == dev && st.st_ino == ino;
}

void wfi_log_init(enum wfi_log_level max_level, const char *name)
{
	pthread_mutex_lock(&state.lock);
	state.max_level = max_level;
	snprintf(state.name, sizeof(state.name), "%s", name);
	state.journal = stderr_is_journal();
	pthread_mutex_unlock(&state.lock);
}

void wfi_log_times(void)
{
	pthread_mutex_lock(&state.lock);
	state.times = true;
	pthread_mutex_unlock(&state.lock);
}

void wfi_log_set_level(enum wfi_log_level max_level)
{
	pthread_mutex_lock(&state.lock);
	state.max_level = max_level;
	pthread_mutex_unlock(&state.lock);
}

void wfi_log_set_sink(void (*sink)(void *ctx, enum wfi_log_level level, const char *line),
		      void *ctx)
{
	pthread_mutex_lock(&state.lock);
	state.sink = sink;
	state.ctx = ctx;
	pthread_mutex_unlock(&state.lock);
}

/* names and paths in a line may come from a peer: they get no line and no escape of their own */
static void defuse(char *line)
{
	for (; *line; line++)
		if ((unsigned char)*line < ' ' || *line == 0x7f)
			*line = '?';
}

/* "2026-11-30T15:52:41.123Z " */
static void say_time(char out[32])
{
	struct timespec now;
	struct tm tm;

	out[0] = 0;
	if (clock_gettime(CLOCK_REALTIME, &now) || !gmtime_r(&now.tv_sec, &tm))
		return;
	snprintf(out + strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm), 8, ".%03uZ ",
		 (unsigned)now.tv_nsec / 1000000u);
}

static void emit(enum wfi_log_level level, char *text)
{
	const char *colon = state.name[0] ? ": " : "";
	char line[LINE_BYTES + sizeof(state.name) + 64], time[32] = "";
	ssize_t ret;
	int len;

	defuse(text);
	if (state.sink) {
		snprintf(line, sizeof(line), "%s%s%s", state.name, colon, text);
		state.sink(state.ctx, level, line);
		return;
	}
	if (state.times)
		say_time(time);
	if (state.journal)
		len = snprintf(line, sizeof(line), "<%d>%s%s%s\n", levels[level].syslog, state.name,
			       colon, text);
	else
		len = snprintf(line, sizeof(line), "%s%s%s%s: %s\n", time, state.name, colon,
			       levels[level].name, text);
	/* one write, so that lines of several processes do not mix; a lost line is no failure */
	ret = write(STDERR_FILENO, line, (size_t)len);
	(void)ret;
}

static unsigned long long mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (unsigned long long)ts.tv_sec * 1000000000ull + (unsigned long long)ts.tv_nsec;
}

/* Return: true when the site may speak; first it confesses what it held back */
static bool site_admit(struct wfi_log_site *site, enum wfi_log_level level)
{
	const unsigned long long now = mono_ns();
	char text[80];

	if (!site->window_ns || now - site->window_ns >= WINDOW_NS) {
		if (site->suppressed) {
			snprintf(text, sizeof(text), "%u more of the next line were not logged",
				 site->suppressed);
			emit(level, text);
		}
		*site = (struct wfi_log_site){ .window_ns = now };
	}
	if (site->count == WFI_LOG_BURST) {
		site->suppressed++;
		return false;
	}
	site->count++;
	return true;
}

void wfi_log_write(struct wfi_log_site *site, enum wfi_log_level level, const char *fmt, ...)
{
	const int saved_errno = errno;
	char text[LINE_BYTES];
	va_list args;

	pthread_mutex_lock(&state.lock);
	if (level <= state.max_level && site_admit(site, level)) {
		va_start(args, fmt);
		/* %m prints the caller's */
		errno = saved_errno;
		vsnprintf(text, sizeof(text), fmt, args);
		va_end(args);
		emit(level, text);
	}
	pthread_mutex_unlock(&state.lock);
	errno = saved_errno;
}
