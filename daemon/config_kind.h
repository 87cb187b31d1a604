/* SPDX-License-Identifier: Apache-2.0 */
/**
 * config_kind.h - what a setting is made of: the kinds of values, private to config*.c
 */
#ifndef WFI_CONFIG_KIND_H
#define WFI_CONFIG_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* where a value stands, for messages */
struct wfi_config_source {
	const char *file;
	unsigned line; /* 0: an override, which has none */
	const char *list; /* key of the list that the value is in, or NULL */
	char *why;
	size_t why_len;
	bool inline_secret;
};

struct wfi_config_setting;

/* what kind of value a setting has; one table each */
struct wfi_config_kind {
	const char *expects;
	unsigned takes; /* enum wfi_config_takes */
	int (*parse)(struct wfi_config_source *src, const struct wfi_config_setting *s,
		     const char *text, void *base);
	/* NULL: not shown. Writes a value as a file would have it */
	void (*print)(const struct wfi_config_setting *s, const void *base, FILE *out);
};

enum wfi_config_takes {
	WFI_CONFIG_TAKES_BOOL = 1u << 0,
	WFI_CONFIG_TAKES_NUMBER = 1u << 1,
	WFI_CONFIG_TAKES_STRING = 1u << 2,
};

/* a list of groups: each group is a struct, its settings a table of their own */
struct wfi_config_list {
	const struct wfi_config_setting *settings;
	unsigned nr;
	unsigned max;
	size_t entry_bytes;
	size_t nr_off;
	const char *one; /* what an entry is called */
};

enum wfi_config_flags {
	WFI_CONFIG_REQUIRED = 1u << 0,
	WFI_CONFIG_UNIQUE = 1u << 1,
	WFI_CONFIG_UNIQUE_SET = 1u << 2, /* unless it is empty */
	WFI_CONFIG_LIVE = 1u << 3, /* may change while the node runs */
};

struct wfi_config_setting {
	const char *key;
	const struct wfi_config_kind *kind;
	size_t off;
	size_t room;
	uint64_t min;
	uint64_t max;
	uint64_t unit_ns;
	const char *(*choice)(unsigned idx);
	const struct wfi_config_list *list;
	const char *def; /* as in an override; NULL: found out by wfi_config_defaults() */
	const char *example; /* for the annotated file, where the default says too little */
	const char *help; /* lines of up to 90 bytes */
	unsigned flags;
};

static inline void *wfi_config_field(const struct wfi_config_setting *s, void *base)
{
	return (char *)base + s->off;
}

static inline const void *wfi_config_field_const(const struct wfi_config_setting *s,
						 const void *base)
{
	return (const char *)base + s->off;
}

/* fills the source's sentence. @key: NULL when no one setting is meant. Return: -EINVAL */
int wfi_config_complain(struct wfi_config_source *src, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

extern const struct wfi_config_kind wfi_config_kind_bool;
extern const struct wfi_config_kind wfi_config_kind_name;
extern const struct wfi_config_kind wfi_config_kind_path;
extern const struct wfi_config_kind wfi_config_kind_address;
extern const struct wfi_config_kind wfi_config_kind_device;
extern const struct wfi_config_kind wfi_config_kind_any_path;
extern const struct wfi_config_kind wfi_config_kind_ids;
extern const struct wfi_config_kind wfi_config_kind_policy;
extern const struct wfi_config_kind wfi_config_kind_level;
extern const struct wfi_config_kind wfi_config_kind_size;
extern const struct wfi_config_kind wfi_config_kind_duration;
extern const struct wfi_config_kind wfi_config_kind_count;
extern const struct wfi_config_kind wfi_config_kind_id;
extern const struct wfi_config_kind wfi_config_kind_token;
extern const struct wfi_config_kind wfi_config_kind_salt;
extern const struct wfi_config_kind wfi_config_kind_token_file;
extern const struct wfi_config_kind wfi_config_kind_salt_file;
extern const struct wfi_config_kind wfi_config_kind_membership;
extern const struct wfi_config_kind wfi_config_kind_list;

#endif
