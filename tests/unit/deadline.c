/* The texts of user.deadline: what is understood, and what setxattr must answer with EINVAL. */
#include "sched/sched.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_understood(void **state)
{
	static const struct {
		const char *text;
		bool absolute;
		int64_t ns;
	} cases[] = {
		{"5", false, 5000000000},
		{"5\n", false, 5000000000},
		{"5s", false, 5000000000},
		{"800ms", false, 800000000},
		{"2m", false, 120000000000},
		{"0.5", false, 500000000},
		{"0.001ms", false, 1000},
		{"1.5m", false, 90000000000},
		{"@1769000000.5", true, 1769000000500000000},
		{"@1769000000", true, 1769000000000000000},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct deadline d = {0};

		assert_int_equal(deadline_parse(&d, cases[i].text, strlen(cases[i].text), NULL), 0);
		assert_true(d.set);
		assert_int_equal(d.absolute, cases[i].absolute);
		assert_int_equal(d.ns, cases[i].ns);
	}
}

static void test_refused(void **state)
{
	static const char *const texts[] = {"",
					    "\n",
					    "0",
					    "-5",
					    "+5",
					    " 5",
					    "5 s",
					    "5h",
					    "5s\n\n",
					    "soon",
					    "1e9",
					    "nan",
					    "inf",
					    "0x10",
					    "5ss",
					    "ms",
					    "@",
					    "@5s",
					    "@-1",
					    ".",
					    "s5",
					    "..5",
					    "99999999999999999999",
					    "0.0000000001"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct deadline d = {.ns = 42};
		struct err err = ERR_INIT;

		assert_int_equal(deadline_parse(&d, texts[i], strlen(texts[i]), &err), -EINVAL);
		assert_int_equal(err.code, ERR_BAD_DEADLINE);
		assert_int_equal(d.ns, 42);
	}
	assert_int_equal(deadline_parse(&(struct deadline){0}, "5\0s", 3, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_understood), cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
