/* SPDX-License-Identifier: Apache-2.0 */
/* the registry: entries grow from the front of the segment, values from its end */
#include <errno.h>
#include <string.h>

#include "base/metrics_seg.h"
#include "weft_internal/log.h"

struct wfi_metrics {
	struct wfi_env *env;
	struct wfi_map map;
	struct wfi_seg_header *header;
	struct wfi_seg_entry *entries;
	unsigned nr;
	uint64_t values_off; /* all below it is free, down to the entries */
};

void wfi_seg_family(const struct wfi_seg_entry *entry, char family[WFI_SEG_FAMILY_BYTES])
{
	const size_t name_len = strlen(entry->name), unit_len = strlen(entry->unit);
	const char *tail = entry->name + name_len - wfi_min(unit_len, name_len);

	memcpy(family, entry->name, name_len + 1);
	if (!unit_len || (name_len > unit_len && !strcmp(tail, entry->unit) && tail[-1] == '_'))
		return;
	family[name_len] = '_';
	memcpy(family + name_len + 1, entry->unit, unit_len + 1);
}

/* the C locale's, whatever the process has set */
static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Return: length of the identifier that @text starts with; 0: none */
static size_t identifier_len(const char *text, bool colons)
{
	size_t len = 0;

	while (is_letter(text[len]) || (colons && text[len] == ':') || (len && is_digit(text[len])))
		len++;
	return len;
}

/* Return: length of the value at @text with its quotes; 0: none */
static size_t quoted_len(const char *text)
{
	size_t len = 1;

	if (text[0] != '"')
		return 0;
	for (; text[len] != '"'; len++) {
		if (text[len] < ' ' || text[len] > '~')
			return 0;
		if (text[len] == '\\' && !strchr("\\\"n", text[++len]))
			return 0;
		if (!text[len])
			return 0;
	}
	return len + 1;
}

static bool labels_ok(const char *at)
{
	size_t len;

	if (!*at)
		return true;
	for (;;) {
		len = identifier_len(at, false);
		if (!len || at[len] != '=' || (len == 2 && !strncmp(at, "le", 2)))
			return false;
		at += len + 1;
		len = quoted_len(at);
		if (!len)
			return false;
		at += len;
		if (!*at)
			return true;
		if (*at++ != ',')
			return false;
	}
}

static bool printable(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

/* suffixes that OpenMetrics gives to samples, so that two families would share one */
static bool suffix_reserved(const char *family)
{
	static const char *const suffixes[] = { "_total", "_created", "_bucket",
						"_count", "_sum",     "_info" };
	const size_t len = strlen(family);
	size_t idx, suffix_len;

	for (idx = 0; idx < WFI_ARRAY_SIZE(suffixes); idx++) {
		suffix_len = strlen(suffixes[idx]);
		if (len >= suffix_len && !strcmp(family + len - suffix_len, suffixes[idx]))
			return true;
	}
	return false;
}

static bool terminated(const char *text, size_t size)
{
	return memchr(text, 0, size);
}

const char *wfi_seg_entry_fault(const struct wfi_seg_entry *entry)
{
	char family[WFI_SEG_FAMILY_BYTES];

	if (!terminated(entry->name, sizeof(entry->name)) ||
	    !terminated(entry->labels, sizeof(entry->labels)) ||
	    !terminated(entry->unit, sizeof(entry->unit)) ||
	    !terminated(entry->help, sizeof(entry->help)))
		return "a string is too long";
	if (!entry->name[0] || identifier_len(entry->name, true) != strlen(entry->name))
		return "the name is not [a-zA-Z_:][a-zA-Z0-9_:]*";
	if (identifier_len(entry->unit, false) != strlen(entry->unit))
		return "the unit is not [a-zA-Z_][a-zA-Z0-9_]*";
	wfi_seg_family(entry, family);
	if (suffix_reserved(family))
		return "the name ends with a suffix that the text adds";
	if (!labels_ok(entry->labels))
		return "the labels are not name=\"value\", with commas between, of ASCII";
	if (!printable(entry->help))
		return "the help is not printable ASCII";
	if (entry->kind > WFI_METRIC_HIST)
		return "there is no such kind";
	return NULL;
}

bool wfi_seg_same_family(const struct wfi_seg_entry *a, const struct wfi_seg_entry *b)
{
	return a->kind == b->kind && !strcmp(a->unit, b->unit) && !strcmp(a->help, b->help);
}

int wfi_metrics_create(struct wfi_env *env, size_t max_bytes, struct wfi_metrics **out)
{
	const unsigned flags = WFI_MAP_SHARED_FD | WFI_MAP_PREFAULT | WFI_MAP_FD_READERS;
	struct wfi_metrics *m;
	int ret;

	m = wfi_alloc(env, sizeof(*m));
	if (!m)
		return -ENOMEM;
	ret = env->mem->map(env, max_bytes, flags, &m->map);
	if (ret) {
		wfi_free(env, m, sizeof(*m));
		return ret;
	}
	m->env = env;
	m->header = m->map.addr;
	m->entries = (struct wfi_seg_entry *)(m->header + 1);
	m->values_off = m->map.len;
	*m->header = (struct wfi_seg_header){
		.magic = WFI_SEG_MAGIC,
		.version = WFI_SEG_VERSION,
		.hist_steps_log2 = WFI_HIST_STEPS_LOG2,
		.hist_nr_buckets = WFI_HIST_NR_BUCKETS,
		.len = m->map.len,
	};
	*out = m;
	return 0;
}

void wfi_metrics_destroy(struct wfi_metrics *m)
{
	if (!m)
		return;
	m->env->mem->unmap(m->env, &m->map);
	wfi_free(m->env, m, sizeof(*m));
}

int wfi_metrics_fd(const struct wfi_metrics *m)
{
	return m->map.fd;
}

/* what does not fit loses its end mark, and wfi_seg_entry_fault() tells */
static void copy_string(char *to, size_t size, const char *from)
{
	memcpy(to, from, strnlen(from, size));
}

/*
 * Return: NULL and *@place (NULL when the metric is new), or why the family of @entry does not take
 * it
 */
static const char *find_place(const struct wfi_metrics *m, const struct wfi_seg_entry *entry,
			      void **place)
{
	char family[WFI_SEG_FAMILY_BYTES], other[WFI_SEG_FAMILY_BYTES];
	unsigned idx;

	*place = NULL;
	wfi_seg_family(entry, family);
	for (idx = 0; idx < m->nr; idx++) {
		wfi_seg_family(&m->entries[idx], other);
		if (strcmp(family, other))
			continue;
		if (!wfi_seg_same_family(&m->entries[idx], entry))
			return "the name has another kind, unit or help elsewhere";
		if (!strcmp(m->entries[idx].labels, entry->labels))
			*place = (char *)m->map.addr + m->entries[idx].value_off;
	}
	return NULL;
}

/* Return: the new metric's values, or NULL when there is no room */
static void *append(struct wfi_metrics *m, struct wfi_seg_entry *entry)
{
	const uint64_t entries_end =
		sizeof(*m->header) + (uint64_t)(m->nr + 1) * sizeof(m->entries[0]);
	const uint64_t value_len = wfi_seg_value_len(entry->kind);

	if (m->nr == WFI_METRICS_MAX || entries_end + value_len > m->values_off)
		return NULL;
	m->values_off -= value_len;
	entry->value_off = m->values_off;
	m->entries[m->nr++] = *entry;
	/* pairs with the acquire in wfi_metrics_view_open(): the entry first, then its count */
	__atomic_store_n(&m->header->nr_entries, m->nr, __ATOMIC_RELEASE);
	return (char *)m->map.addr + entry->value_off;
}

static void *metric_add(struct wfi_metrics *m, enum wfi_metric_kind kind, const char *name,
			const char *labels, const char *unit, const char *help)
{
	struct wfi_seg_entry entry = { .kind = kind };
	void *place = NULL;
	const char *fault;

	copy_string(entry.name, sizeof(entry.name), name);
	copy_string(entry.labels, sizeof(entry.labels), labels);
	copy_string(entry.unit, sizeof(entry.unit), unit);
	copy_string(entry.help, sizeof(entry.help), help);
	fault = wfi_seg_entry_fault(&entry);
	if (!fault)
		fault = find_place(m, &entry, &place);
	if (!fault && !place) {
		place = append(m, &entry);
		if (!place)
			fault = "the segment is full; make it larger";
	}
	if (fault)
		wfi_warn("metric %s{%s} is not shown: %s", name, labels, fault);
	return place;
}

struct wfi_counter *wfi_metrics_counter(struct wfi_metrics *m, const char *name, const char *labels,
					const char *unit, const char *help)
{
	return metric_add(m, WFI_METRIC_COUNTER, name, labels, unit, help);
}

struct wfi_counter *wfi_metrics_gauge(struct wfi_metrics *m, const char *name, const char *labels,
				      const char *unit, const char *help)
{
	return metric_add(m, WFI_METRIC_GAUGE, name, labels, unit, help);
}

struct wfi_hist *wfi_metrics_hist(struct wfi_metrics *m, const char *name, const char *labels,
				  const char *unit, const char *help)
{
	return metric_add(m, WFI_METRIC_HIST, name, labels, unit, help);
}
