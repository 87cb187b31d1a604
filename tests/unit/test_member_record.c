/* SPDX-License-Identifier: Apache-2.0 */
/* records of members, files of them, and what etcd answers: good ones, and everything else */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kvcache/cluster/etcd_wire.h"
#include "weft_internal/util.h"

static char why[256];

static int decode(const char *text, struct member_record *r)
{
	json_t *json = member_json(text, strlen(text), why, sizeof(why));
	int ret = json ? member_decode(json, r, why, sizeof(why)) : -EINVAL;

	json_decref(json);
	return ret;
}

static void test_record_there_and_back(void **ctx)
{
	struct member_record r = { .base = 77,
				   .m = { .node = UINT64_MAX,
					  .incarnation = 0x8000000000000001ull,
					  .born_ns = UINT64_MAX,
					  .capacity = 1ull << 46,
					  .flags = WFI_MEMBER_DRAINING,
					  .name = "node-a_1.x",
					  .host = "boot.1",
					  .socket = "/run/weft \"x\"",
					  .addr = "[::1]:7470,10.0.0.1:7471",
					  .transport = "verbs",
					  .version = "0.1.0" } };
	struct member_record back;
	char *text = member_encode(&r);

	(void)ctx;
	assert_non_null(text);
	assert_int_equal(decode(text, &back), 0);
	assert_memory_equal(&r, &back, sizeof(r));
	free(text);
	r.m.flags = 0;
	r.leaving = true;
	text = member_encode(&r);
	assert_int_equal(decode(text, &back), 0);
	assert_true(back.leaving);
	free(text);
}

static void test_record_least(void **ctx)
{
	struct member_record r;

	(void)ctx;
	assert_int_equal(decode("{\"name\":\"a\",\"of_a_later_version\":[1,{}]}", &r), 0);
	assert_int_equal(r.m.node, wfi_member_id("a"));
	assert_int_not_equal(wfi_member_id("a"), wfi_member_id("b"));
	assert_int_equal(decode("{\"name\":\"a\",\"node\":5,\"capacity\":\"0x10\"}", &r), 0);
	assert_int_equal(r.m.node, 5);
	assert_int_equal(r.m.capacity, 16);
}

static void test_record_bad(void **ctx)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "", "no JSON" },
		{ "5", "no JSON" },
		{ "{", "no JSON" },
		{ "{\"name\":\"a\"}x", "no JSON" },
		{ "{\"name\":\"a\",\"name\":\"b\"}", "no JSON" },
		{ "{\"name\":\"\\u0000\"}", "no JSON" },
		{ "{\"name\":\"\xff\"}", "no JSON" },
		{ "[]", "object" },
		{ "{}", "is none" },
		{ "{\"name\":5}", "name is no text" },
		{ "{\"name\":\"a b\"}", "is none" },
		{ "{\"name\":\"../a\"}", "is none" },
		{ "{\"name\":\"a\",\"node\":-1}", "node is no number" },
		{ "{\"name\":\"a\",\"node\":1.5}", "node is no number" },
		{ "{\"name\":\"a\",\"node\":\"-1\"}", "node is no number" },
		{ "{\"name\":\"a\",\"node\":\"0x1ffffffffffffffff\"}", "node is no number" },
		{ "{\"name\":\"a\",\"node\":\"1 \"}", "node is no number" },
		{ "{\"name\":\"a\",\"incarnation\":{}}", "incarnation is no number" },
		{ "{\"name\":\"a\",\"base\":\"0xffffffffffffffff\"}", "base" },
		{ "{\"name\":\"a\",\"socket\":\"x\"}", "socket" },
		{ "{\"name\":\"a\",\"address\":\"\\n\"}", "address has a character" },
		{ "{\"name\":\"a\",\"address\":\"\\u00e9\"}", "address has a character" },
		{ "{\"name\":\"a\",\"state\":\"gone\"}", "state" },
		{ "{\"name\":\"a\",\"state\":1}", "state" },
		{ "{\"x\":[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]}", "deeper" },
	};
	struct member_record r;
	char text[512], name[300];
	unsigned i;

	(void)ctx;
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		assert_int_equal(decode(bad[i].text, &r), -EINVAL);
		if (!strstr(why, bad[i].why))
			fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].text, why, bad[i].why);
	}
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = 0;
	snprintf(text, sizeof(text), "{\"name\":\"%s\"}", name);
	assert_int_equal(decode(text, &r), -EINVAL);
	/* 63 bytes are the most */
	snprintf(text, sizeof(text), "{\"name\":\"%.63s\"}", name);
	assert_int_equal(decode(text, &r), 0);
}

static int file(const char *text, struct member_file *f)
{
	return member_file_decode(text, strlen(text), f, why, sizeof(why));
}

static void test_file(void **ctx)
{
	static struct member_file f;
	static const char *const bad[] = {
		"[]",
		"{\"members\":{}}",
		"{\"members\":[5]}",
		"{\"members\":[{\"name\":\"a\"},{\"name\":\"a\"}]}",
		"{\"members\":[{\"name\":\"a\",\"node\":7},{\"name\":\"b\",\"node\":7}]}",
		"{\"settings\":[]}",
		"{\"tenants\":{\"a/b\":{}}}",
		"{\"tenants\":{\"\":{}}}",
	};
	char *text = malloc(65536);
	unsigned i, used;

	(void)ctx;
	assert_int_equal(file("{\"members\":[{\"name\":\"a\"},{\"name\":\"b\"}],"
			      "\"settings\":{\"spin_us\":5,\"insecure\":false,\"policy\":\"lru\"},"
			      "\"tenants\":{\"blue\":{\"token\":\"x\"}}}",
			      &f),
			 0);
	assert_int_equal(f.nr, 2);
	assert_string_equal(json_string_value(json_object_get(f.values, "settings/spin_us")), "5");
	assert_string_equal(json_string_value(json_object_get(f.values, "settings/insecure")),
			    "false");
	assert_string_equal(json_string_value(json_object_get(f.values, "settings/policy")), "lru");
	assert_string_equal(json_string_value(json_object_get(f.values, "tenants/blue")),
			    "{\"token\":\"x\"}");
	json_decref(f.values);
	assert_int_equal(file("{}", &f), 0);
	assert_int_equal(f.nr, 0);
	json_decref(f.values);
	for (i = 0; i < WFI_ARRAY_SIZE(bad); i++) {
		assert_int_equal(file(bad[i], &f), -EINVAL);
		assert_null(f.values);
	}
	used = (unsigned)sprintf(text, "{\"members\":[");
	for (i = 0; i <= WFI_MEMBERS_MAX; i++)
		used += (unsigned)sprintf(text + used, "%s{\"name\":\"n%u\"}", i ? "," : "", i);
	sprintf(text + used, "]}");
	assert_int_equal(file(text, &f), -EINVAL);
	free(text);
}

/* ---- etcd ---- */

static int answer_err(const char *text)
{
	int err = 0;
	json_t *a = etcd_answer(text, strlen(text), &err, why, sizeof(why));

	json_decref(a);
	return a ? 0 : err;
}

static void test_answers(void **ctx)
{
	static const char text[] = "{\"result\":{\"header\":{\"revision\":\"12\"},\"TTL\":\"7\"}}";
	json_t *a;
	int err;

	(void)ctx;
	a = etcd_answer(text, sizeof(text) - 1, &err, why, sizeof(why));
	assert_int_equal(etcd_revision(a), 12);
	assert_int_equal(etcd_number(a, "TTL"), 7);
	assert_int_equal(etcd_number(a, "ID"), 0);
	json_decref(a);
	assert_int_equal(answer_err("{}"), 0);
	assert_int_equal(answer_err("x"), -EBADMSG);
	assert_int_equal(answer_err("[]"), -EBADMSG);
	assert_int_equal(answer_err("{\"error\":\"e\",\"code\":16}"), -EACCES);
	assert_int_equal(answer_err("{\"error\":\"e\",\"code\":7}"), -EPERM);
	assert_int_equal(answer_err("{\"error\":\"e\",\"code\":5}"), -ENOENT);
	assert_int_equal(answer_err("{\"error\":{\"grpc_code\":16,\"message\":\"m\"}}"), -EACCES);
	assert_int_equal(answer_err("{\"error\":{}}"), -EREMOTEIO);
	assert_int_equal(answer_err("{\"error\":null}"), -EREMOTEIO);
}

static void test_numbers(void **ctx)
{
	static const struct {
		const char *text;
		uint64_t value;
	} cases[] = {
		{ "{\"n\":\"9223372036854775807\"}", INT64_MAX },
		{ "{\"n\":\"9223372036854775808\"}", 0 },
		{ "{\"n\":\"99999999999999999999999\"}", 0 },
		{ "{\"n\":\"-1\"}", 0 },
		{ "{\"n\":\" 1\"}", 0 },
		{ "{\"n\":\"1x\"}", 0 },
		{ "{\"n\":\"\"}", 0 },
		{ "{\"n\":-5}", 0 },
		{ "{\"n\":5}", 5 },
		{ "{\"n\":[]}", 0 },
	};
	unsigned i;

	(void)ctx;
	for (i = 0; i < WFI_ARRAY_SIZE(cases); i++) {
		json_t *json = json_loads(cases[i].text, 0, NULL);

		assert_int_equal(etcd_number(json, "n"), cases[i].value);
		json_decref(json);
	}
}

static int kv_of(const char *text, struct etcd_kv *kv)
{
	json_t *json = json_loads(text, 0, NULL);
	int ret = etcd_kv_decode(json, kv);

	json_decref(json);
	return ret;
}

static void test_kvs(void **ctx)
{
	static const char head[] = "{\"key\":\"YQ==\",\"value\":\"";
	static struct etcd_kv kv;
	char *big = malloc(20000);

	(void)ctx;
	assert_int_equal(kv_of("{\"key\":\"YQ==\",\"value\":\"aGk=\",\"mod_revision\":\"4\"}", &kv),
			 0);
	assert_string_equal(kv.key, "a");
	assert_string_equal(kv.value, "hi");
	assert_int_equal(kv.len, 2);
	assert_int_equal(kv.mod_rev, 4);
	assert_null(kv.bad);
	assert_int_equal(kv_of("{\"key\":\"YQ==\"}", &kv), 0);
	assert_int_equal(kv.len, 0);
	assert_int_equal(kv_of("{\"key\":\"\"}", &kv), -EBADMSG);
	assert_int_equal(kv_of("{\"value\":\"aGk=\"}", &kv), -EBADMSG);
	assert_int_equal(kv_of("{\"key\":\"YQ==YQ==\"}", &kv), -EBADMSG);
	assert_int_equal(kv_of("{\"key\":\"!\"}", &kv), -EBADMSG);
	assert_int_equal(kv_of("{\"key\":5}", &kv), -EBADMSG);
	assert_int_equal(kv_of("[]", &kv), -EBADMSG);
	assert_int_equal(kv_of("{\"key\":\"YQ==\",\"value\":\"!!!!\"}", &kv), -EBADMSG);
	/* with a zero inside, and too long: those are left out, and hold nobody up */
	assert_int_equal(kv_of("{\"key\":\"YQ==\",\"value\":\"aABp\"}", &kv), 0);
	assert_non_null(kv.bad);
	assert_int_equal(kv_of("{\"key\":\"YQBi\"}", &kv), 0);
	assert_string_equal(kv.key, "");
	memset(big, 'A', 20000);
	memcpy(big, head, sizeof(head) - 1);
	strcpy(big + sizeof(head) - 1 + 5468, "\"}");
	assert_int_equal(kv_of(big, &kv), 0);
	assert_non_null(kv.bad);
	free(big);
}

static void test_requests(void **ctx)
{
	char *text = etcd_req_range("/weft/a/", false);
	json_t *json = json_loads(text, 0, NULL);

	(void)ctx;
	/* "/weft/a/" and "/weft/a0" */
	assert_string_equal(json_string_value(json_object_get(json, "key")), "L3dlZnQvYS8=");
	assert_string_equal(json_string_value(json_object_get(json, "range_end")), "L3dlZnQvYTA=");
	json_decref(json);
	free(text);
	text = etcd_req_put("k", "v", 5, true, 0);
	assert_non_null(strstr(text, "\"create_revision\":\"0\""));
	free(text);
	text = etcd_req_put("k", "v", 5, false, 9);
	assert_non_null(strstr(text, "\"mod_revision\":\"9\""));
	free(text);
	text = etcd_req_auth("a\"b", "\\");
	json = json_loads(text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(json, "name")), "a\"b");
	json_decref(json);
	free(text);
}

/* whatever bytes come, they are an answer or an error */
static void test_noise(void **ctx)
{
	static const char seed[] =
		"{\"header\":{\"revision\":\"7\"},\"kvs\":[{\"key\":\"YQ==\",\"value\":"
		"\"eyJuYW1lIjoiYSJ9\",\"mod_revision\":\"4\"}],\"events\":[{\"type\":\"DELETE\"}]}";
	static struct etcd_kv kv;
	struct member_record r;
	uint64_t state = 1;
	char text[sizeof(seed)];
	unsigned round, k;
	json_t *a;
	int err;

	(void)ctx;
	for (round = 0; round < 20000; round++) {
		memcpy(text, seed, sizeof(seed));
		for (k = 0; k < 1 + round % 3; k++) {
			state = state * 6364136223846793005ull + 1442695040888963407ull;
			text[(state >> 33) % (sizeof(seed) - 1)] = (char)(state >> 25);
		}
		err = 0;
		a = etcd_answer(text, sizeof(seed) - 1, &err, why, sizeof(why));
		assert_true(!a == !!err);
		if (a && !etcd_kv_decode(json_array_get(json_object_get(a, "kvs"), 0), &kv))
			(void)decode(kv.value, &r);
		json_decref(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_there_and_back),
		cmocka_unit_test(test_record_least),
		cmocka_unit_test(test_record_bad),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_kvs),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests_name("member_record", tests, NULL, NULL);
}
