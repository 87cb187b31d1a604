/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: one table of checks; each says ok, warn or fail, and what to do */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "cli/doctor.h"
#include "weft_internal/util.h"

#define SKEW_MS 5000

struct check {
	const char *name;
	void (*look)(struct wfi_finding *f);
};

static const struct check checks[] = {
	{ "memlock", wfi_check_memlock },
	{ "memory", wfi_check_memory },
	{ "huge pages", wfi_check_hugepages },
	{ "transparent huge pages", wfi_check_thp },
	{ "/dev/shm", wfi_check_devshm },
	{ "numa", wfi_check_numa },
	{ "cpu", wfi_check_cpu },
	{ "ptrace scope", wfi_check_ptrace },
	{ "memfd", wfi_check_memfd },
	{ "futex_waitv", wfi_check_futex_waitv },
	{ "pidfd", wfi_check_pidfd },
	{ "process_vm_readv", wfi_check_process_vm },
	{ "io_uring", wfi_check_io_uring },
	{ "transport loop", wfi_check_loop },
	{ "transport shm", wfi_check_shm },
	{ "transport verbs", wfi_check_verbs },
	{ "transport ucx", wfi_check_ucx },
	{ "transport tcp", wfi_check_tcp },
	{ "transport dpdk", wfi_check_dpdk },
};

static const char *const health_names[] = {
	[WFI_HEALTH_OK] = "ok",
	[WFI_HEALTH_WARN] = "warn",
	[WFI_HEALTH_FAIL] = "fail",
};

void wfi_found(struct wfi_finding *f, enum wfi_health health, const char *todo, const char *fmt,
	       ...)
{
	va_list ap;

	f->health = health;
	snprintf(f->todo, sizeof(f->todo), "%s", todo ? todo : "");
	va_start(ap, fmt);
	vsnprintf(f->what, sizeof(f->what), fmt, ap);
	va_end(ap);
}

/* ---- checks that need the options: what a node says ---- */

struct asked {
	const struct wfi_cli_common *common;
	json_t *status; /* NULL: nobody answered */
};

/* what a node that answers says of itself */
static void check_status(const json_t *root, struct wfi_finding *f)
{
	const json_t *tier = json_array_get(json_object_get(root, "tiers"), 0);
	const char *state = wfi_json_str(tier, "state");

	if (!tier || !strcmp(state, "ok") || !strcmp(state, "opening"))
		wfi_found(f, WFI_HEALTH_OK, NULL, "runs and answers");
	else
		wfi_found(f, WFI_HEALTH_WARN, "mend that, then start it anew",
			  "runs and answers, its SSD tier is %s: %s", state,
			  wfi_json_str(tier, "why"));
}

/* does a node run, and does it answer? */
static void check_node(struct asked *a, struct wfi_finding *f)
{
	const struct weft_opts opts = {
		.size = sizeof(opts),
		.socket = a->common->nr_sockets ? a->common->sockets[0] : NULL,
		.token = a->common->token,
		.name = "weft doctor",
	};
	struct weft *w = NULL;
	char *text = NULL;

	if (weft_open(&opts, &w)) {
		wfi_found(f, WFI_HEALTH_WARN,
			  "start one (weftd, or systemctl start weftd), "
			  "or name its socket with --socket",
			  "%s", weft_why());
		return;
	}
	if (weft_status_json(w, &text))
		wfi_found(f, WFI_HEALTH_FAIL, "look at the node's log", "attached, but: %s",
			  weft_why());
	else
		a->status = json_loads(text, 0, NULL);
	if (text)
		check_status(a->status, f);
	free(text);
	weft_close(w);
}

/* Return: whether it is well, as far as the store goes */
static bool store_is_well(const json_t *m, struct wfi_finding *f)
{
	const char *state = wfi_json_str(m, "state");

	if (!strcmp(state, "ok"))
		return true;
	if (!strcmp(state, "refused"))
		wfi_found(f, WFI_HEALTH_FAIL,
			  "give each node a name and a node_id of its own, and a file all of them",
			  "this node is no member: %s", wfi_json_str(m, "why"));
	else
		wfi_found(f, WFI_HEALTH_FAIL,
			  "see that it runs and can be reached; that etcd_user, its password file "
			  "and its role are right; and etcd_ca, etcd_cert, etcd_key",
			  "%s for %llu s: %s", state,
			  (unsigned long long)wfi_json_u64(m, "since_s"), wfi_json_str(m, "why"));
	return false;
}

/* is the store reached, is this node let in, do the clocks agree? */
static void check_membership(struct asked *a, struct wfi_finding *f)
{
	const json_t *m = json_object_get(json_object_get(a->status, "network"), "membership");
	const json_int_t skew_ms = json_integer_value(json_object_get(m, "clock_skew_ms"));

	if (!m)
		wfi_found(f, WFI_HEALTH_OK, NULL, "none, or no node says of one");
	else if (!store_is_well(m, f))
		return;
	else if (skew_ms > SKEW_MS || skew_ms < -SKEW_MS)
		wfi_found(f, WFI_HEALTH_WARN, "set both by NTP: certificates and logs go by them",
			  "the store's clock is %lld s from this node's",
			  (long long)(skew_ms / 1000));
	else if (json_array_size(json_object_get(m, "refused")))
		wfi_found(f, WFI_HEALTH_WARN, "weft members says which, and why",
			  "%zu settings or tenants of the cluster are refused here",
			  json_array_size(json_object_get(m, "refused")));
	else
		wfi_found(f, WFI_HEALTH_OK, NULL, "%zu members, by %s",
			  json_array_size(json_object_get(m, "members")), wfi_json_str(m, "where"));
}

/* the first of a list whose state is not "ok". Return: NULL: there is none */
static const json_t *first_bad(const json_t *list)
{
	const json_t *e;
	size_t i;

	for (i = 0; i < json_array_size(list); i++) {
		e = json_array_get(list, i);
		if (strcmp(wfi_json_str(e, "state"), "ok") != 0)
			return e;
	}
	return NULL;
}

/* do the GPUs that engines have regions on work for the node? */
static void check_node_gpus(struct asked *a, struct wfi_finding *f)
{
	const json_t *gpus = json_object_get(a->status, "gpus"), *g = first_bad(gpus);
	const char *state = wfi_json_str(g, "state");

	if (!g && !json_array_size(gpus))
		wfi_found(f, WFI_HEALTH_OK, NULL, "no engine has memory of a GPU's registered");
	else if (!g)
		wfi_found(f, WFI_HEALTH_OK, NULL, "%zu in use", json_array_size(gpus));
	else if (!strcmp(state, "restart"))
		wfi_found(f, WFI_HEALTH_FAIL, "see dmesg for Xid, then restart the node",
			  "gpu %llu has failed in a way that only a new process gets over",
			  (unsigned long long)wfi_json_u64(g, "gpu"));
	else
		wfi_found(f, WFI_HEALTH_WARN,
			  "see dmesg for Xid; the next region that is registered there opens it "
			  "anew",
			  "gpu %llu has failed", (unsigned long long)wfi_json_u64(g, "gpu"));
}

/* is there a tier on each, if one is wanted? */
static void check_gpu_tiers(struct asked *a, struct wfi_finding *f)
{
	const json_t *tiers = json_object_get(a->status, "gpu_tiers"), *t = first_bad(tiers);
	char size[WFI_TEXT];
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < json_array_size(tiers); i++)
		bytes += wfi_json_u64(json_array_get(tiers, i), "bytes");
	if (t)
		wfi_found(f, WFI_HEALTH_WARN, "mend that, then register a region there anew",
			  "one is %s, and blocks come from memory: %s", wfi_json_str(t, "state"),
			  wfi_json_str(t, "why"));
	else if (json_array_size(tiers))
		wfi_found(f, WFI_HEALTH_OK, NULL, "%zu, of %s in all", json_array_size(tiers),
			  wfi_text_bytes((double)bytes, size));
	else
		wfi_found(f, WFI_HEALTH_OK, NULL,
			  "none (gpu_tier_bytes), or no engine has memory of "
			  "a GPU's registered");
}

static const struct {
	const char *name;
	void (*look)(struct asked *a, struct wfi_finding *f);
} asked_checks[] = {
	{ "node", check_node },
	{ "node's gpus", check_node_gpus },
	{ "gpu tiers", check_gpu_tiers },
	{ "membership", check_membership },
};

/* Return: the array's new element, or NULL */
static json_t *to_json(const char *name, const struct wfi_finding *f)
{
	return json_pack("{s:s,s:s,s:s,s:s}", "check", name, "result", health_names[f->health],
			 "found", f->what, "todo", f->todo);
}

static void show(const char *name, const struct wfi_finding *f)
{
	printf("%-5s %-23s %s\n", health_names[f->health], name, f->what);
	if (f->todo[0])
		printf("%-5s %-23s -> %s\n", "", "", f->todo);
}

struct report {
	unsigned nr[WFI_ARRAY_SIZE(health_names)];
	json_t *all; /* NULL: text */
};

static void report_add(void *ctx, const char *name, const struct wfi_finding *f)
{
	struct report *r = ctx;

	r->nr[f->health]++;
	if (r->all)
		json_array_append_new(r->all, to_json(name, f));
	else
		show(name, f);
}

struct doctor_opts {
	struct wfi_cli_common common;
	const char *config;
};

static const struct wfi_cli_opt doctor_options[] = {
	{ "config", "FILE", WFI_CLI_STRING, offsetof(struct doctor_opts, config),
	  "settings of the node that is looked after (default: weftd's)" },
	{ 0 },
};

static int run_doctor(const void *opts, int argc, char **argv)
{
	const struct doctor_opts *o = opts;
	struct asked asked = { .common = &o->common };
	struct report r = { .all = o->common.json ? json_array() : NULL };
	struct wfi_finding f;
	size_t i;
	int ret;

	(void)argc;
	(void)argv;
	for (i = 0; i < WFI_ARRAY_SIZE(checks); i++) {
		memset(&f, 0, sizeof(f));
		checks[i].look(&f);
		report_add(&r, checks[i].name, &f);
	}
	wfi_check_gpus(report_add, &r);
	memset(&f, 0, sizeof(f));
	wfi_check_tier(o->config, &f);
	report_add(&r, "ssd tier", &f);
	wfi_check_network(o->config, report_add, &r);
	for (i = 0; i < WFI_ARRAY_SIZE(asked_checks); i++) {
		memset(&f, 0, sizeof(f));
		asked_checks[i].look(&asked, &f);
		report_add(&r, asked_checks[i].name, &f);
	}
	json_decref(asked.status);
	ret = r.nr[WFI_HEALTH_FAIL] ? WFI_EXIT_FAILED : WFI_EXIT_OK;
	if (r.all)
		return wfi_cli_print_json(json_pack("{s:b,s:o}", "healthy", !ret, "checks", r.all),
					  2)
			       ? WFI_EXIT_FAILED
			       : ret;
	printf("\n%u ok, %u to look at, %u failed\n", r.nr[WFI_HEALTH_OK], r.nr[WFI_HEALTH_WARN],
	       r.nr[WFI_HEALTH_FAIL]);
	return fflush(stdout) ? WFI_EXIT_FAILED : ret;
}

const struct wfi_cli_cmd wfi_cmd_doctor = {
	.name = "doctor",
	.summary = "what this machine can do for Weft, what it cannot, and why",
	.opts = doctor_options,
	.opts_len = sizeof(struct doctor_opts),
	.examples = "  weft doctor\n"
		    "  weft doctor --config ./weftd.conf\n"
		    "  weft doctor --json | jq '.checks[] | select(.result != \"ok\")'\n",
	.run = run_doctor,
};
