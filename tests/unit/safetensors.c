/* safetensors: what is written is read back; what lies is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float values[6] = {1, -2, 3.5f, 4, 5, 1e-30f}, more[2] = {7, 8};
static const char *const metadata[] = {"format", "pt", "note", "\"quoted\"\n"};

static struct buf sample(void)
{
	const struct safetensors_tensor tensors[] = {
		{"b.weight", 2, {3, 2}, values, sizeof(values), SAFETENSORS_F32},
		{"a.bias", 1, {2}, more, sizeof(more), SAFETENSORS_F32},
		{"empty", 2, {0, 4}, NULL, 0, SAFETENSORS_F32},
	};
	struct buf b = BUF_INIT;

	assert_int_equal(safetensors_write(&b, tensors, 3, metadata, 2, NULL), 0);
	return b;
}

static void round_trip(void **state)
{
	struct buf b = sample();
	struct safetensors *st;
	const struct safetensors_tensor *t;

	(void)state;
	assert_int_equal(b.len % 4, 0);
	assert_int_equal(safetensors_open(&st, b.data, b.len, NULL), 0);
	assert_int_equal(safetensors_count(st), 3);
	t = safetensors_find(st, "b.weight");
	assert_non_null(t);
	assert_int_equal(t->rank, 2);
	assert_int_equal(t->dims[0], 3);
	assert_int_equal(t->dims[1], 2);
	assert_memory_equal(t->data, values, sizeof(values));
	assert_int_equal((uintptr_t)((const char *)t->data - b.data) % 8, 0);
	t = safetensors_find(st, "a.bias");
	assert_memory_equal(t->data, more, sizeof(more));
	assert_int_equal(safetensors_find(st, "empty")->bytes, 0);
	assert_null(safetensors_find(st, "c"));
	assert_string_equal(safetensors_at(st, 0)->name, "a.bias");
	assert_string_equal(safetensors_metadata(st, "note"), metadata[3]);
	assert_null(safetensors_metadata(st, "none"));
	safetensors_close(st);
	buf_release(&b);
}

static void truncated(void **state)
{
	struct buf b = sample();
	struct safetensors *st;

	(void)state;
	for (size_t n = 0; n < b.len; n++) {
		char *copy = malloc(n ? n : 1);

		memcpy(copy, b.data, n);
		assert_int_equal(safetensors_open(&st, copy, n, NULL), -EBADMSG);
		free(copy);
	}
	buf_add(&b, "x", 1);
	assert_int_equal(safetensors_open(&st, b.data, b.len, NULL), -EBADMSG);
	buf_release(&b);
}

static int open_text(const char *json, size_t data)
{
	struct buf b = BUF_INIT;
	struct safetensors *st;
	char zero[64] = {0};
	uint64_t len = strlen(json);
	int r;

	for (int i = 0; i < 8; i++)
		buf_add(&b, &(char){(char)(len >> (8 * i))}, 1);
	buf_adds(&b, json);
	buf_add(&b, zero, data);
	r = safetensors_open(&st, b.data, b.len, NULL);
	if (r == 0)
		safetensors_close(st);
	buf_release(&b);
	return r;
}

static void lies(void **state)
{
	static const struct {
		const char *json;
		size_t data;
	} bad[] = {
		{"[]", 0},
		{"{\"a\":1}", 0},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4},
		{"{\"a\":{\"dtype\":\"C64\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647,2147483647],\"data_offsets\":[0,"
		 "4]}}",
		 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1e300,1e301]}}", 4},
		/* overlaps and sizes whose sum is right nevertheless */
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		 8},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]},"
		 "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
		 12},
		/* two that overlap, a hole, bytes of nobody, the same name twice */
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
		 4},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
		 12},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8},
		{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
		 8},
	};

	(void)state;
	assert_int_equal(open_text("{}", 0), 0);
	assert_int_equal(open_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}} ", 4), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (open_text(bad[i].json, bad[i].data) != -EBADMSG)
			fail_msg("accepted: %s", bad[i].json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(truncated),
		cmocka_unit_test(lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
