/* What tests of serving share: the world w with an endpoint of two slices, on the fake clock. A program of its own each. */
#ifndef TESTS_SUPPORT_SERVING_H
#define TESTS_SUPPORT_SERVING_H

#include "tests/support/fake_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

/* 100 ms on the accurate slice, 20 ms on the fast one, at any fill. */
#define MODEL                                                        \
	"{\"classes\":10,\"submodels\":["                            \
	"{\"slice\":0.25,\"accuracy\":0.5,\"ms\":20,\"one_ms\":20}," \
	"{\"slice\":1,\"accuracy\":0.9,\"ms\":100,\"one_ms\":100}]}"
#define SPEC "{\"model\":\"m\",\"batch\":4}"

static struct world w;

static inline int setup(void **state)
{
	(void)state;
	world_init(&w, MODEL, SPEC);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	assert_int_equal(w.host.key_faults, 0);
	world_release(&w);
	return 0;
}

/* Ends everything and looks at what must be so then. */
static inline void assert_all_done(void)
{
	world_run(&w, 20000);
	assert_int_equal(fake_count_keys(&w.host, "t/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "p/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "r/"), 0);
	assert_int_equal(fake_count_keys(&w.host, "x/"), 0);
}

static inline int64_t visible_ms(const char *path)
{
	char out[512];

	snprintf(out, sizeof(out), "infer/app/out/%s", path);
	return fake_visible_at(&w.host, out) / NS_PER_MS;
}

/* A test with a world of its own. */
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
