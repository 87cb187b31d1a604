/* SPDX-License-Identifier: Apache-2.0 */
/**
 * log.h - one line a fact, to stderr or syslog-style file descriptor, rate-limited
 *
 * Lower case, no newline inside. Who first turns a fact into an errno logs it, with what to do
 * about it; callers pass the errno on in silence. Never called on a hot path.
 */
#ifndef WFI_LOG_H
#define WFI_LOG_H

#include <stdbool.h>

enum wfi_log_level { WFI_LOG_ERR, WFI_LOG_WARN, WFI_LOG_INFO, WFI_LOG_DEBUG };

/* Context: before threads start. @name stands in front of each line, e.g. "weftd[node-a]" */
void wfi_log_init(enum wfi_log_level max_level, const char *name);
/* from now on lines on stderr begin with the time, in UTC; the journal's do not: it has its own.
 * Context: as wfi_log_init() */
void wfi_log_times(void);
/* Context: any thread */
void wfi_log_set_level(enum wfi_log_level max_level);
/*
 * for tests and embedding: lines (without level and newline) go to @sink instead of stderr, which
 * runs under the log's lock: one at a time, and it must not log; NULL restores stderr
 */
void wfi_log_set_sink(void (*sink)(void *ctx, enum wfi_log_level level, const char *line),
		      void *ctx);

/*
 * Context: any thread; keeps errno. At most 20 lines a second per call site; its next line after
 * that second is preceded by one that counts the rest. Control characters come out as '?', what is
 * longer than 1 KiB is cut. Time is CLOCK_MONOTONIC, not an environment's: one process, one log
 */
#define WFI_LOG_BURST 20
struct wfi_log_site {
	unsigned long long window_ns;
	unsigned count;
	unsigned suppressed;
};
void wfi_log_write(struct wfi_log_site *site, enum wfi_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define WFI_LOG_AT(level, ...)                                                                     \
	do {                                                                                       \
		static struct wfi_log_site wfi_site_;                                              \
		wfi_log_write(&wfi_site_, (level), __VA_ARGS__);                                   \
	} while (0)
#define wfi_err(...) WFI_LOG_AT(WFI_LOG_ERR, __VA_ARGS__)
#define wfi_warn(...) WFI_LOG_AT(WFI_LOG_WARN, __VA_ARGS__)
#define wfi_info(...) WFI_LOG_AT(WFI_LOG_INFO, __VA_ARGS__)
#define wfi_debug(...) WFI_LOG_AT(WFI_LOG_DEBUG, __VA_ARGS__)
/* said once in the life of the process: slow paths (invariant 9) */
#define wfi_warn_once(...)                                                                         \
	do {                                                                                       \
		static bool wfi_said_;                                                             \
		if (!__atomic_exchange_n(&wfi_said_, true, __ATOMIC_RELAXED))                      \
			wfi_warn(__VA_ARGS__);                                                     \
	} while (0)

#endif
