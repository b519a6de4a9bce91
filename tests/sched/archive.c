/* What counts as an archive, and which names may come out of one. */
#include "sched/archive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

static void test_stem(void **state)
{
	(void)state;
	assert_int_equal(archive_stem("a.tar"), 1);
	assert_int_equal(archive_stem("a.b.tar.gz"), 3);
	assert_int_equal(archive_stem("A.TGZ"), 1);
	assert_int_equal(archive_stem("a.tar.zst"), 1);
	assert_int_equal(archive_stem("a.Zip"), 1);
	assert_int_equal(archive_stem("a.7z"), 1);
	assert_int_equal(archive_stem(".tar"), 0);
	assert_int_equal(archive_stem("tar"), 0);
	assert_int_equal(archive_stem("a.png"), 0);
	assert_int_equal(archive_stem("a.gz"), 0); /* one file, packed: not a batch */
	assert_int_equal(archive_stem("a.tar.part"), 0);
	assert_int_equal(archive_stem(""), 0);
}

static const struct {
	const char *name, *path;
	int r;
} names[] = {
	{"a.png", "a.png", 0},     {"./a.png", "a.png", 0},
	{"a/b/c", "a/b/c", 0},     {"a//b/./c", "a/b/c", 0},
	{"dir/", "dir", 0},        {"...", "...", 0},
	{"..a/b..", "..a/b..", 0}, {"a b\n\xff", "a b\n\xff", 0},
	{"", "", -ENOENT},         {"./", "", -ENOENT},
	{"././/", "", -ENOENT},    {"/a", "", -EINVAL},
	{"/", "", -EINVAL},        {"..", "", -EINVAL},
	{"a/..", "", -EINVAL},     {"a/../b", "", -EINVAL},
	{"./../b", "", -EINVAL},
};

static void test_path(void **state)
{
	char path[ARCHIVE_PATH], name[2 * ARCHIVE_PATH];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(archive_path(path, names[i].name), names[i].r);
		if (names[i].r == 0)
			assert_string_equal(path, names[i].path);
	}
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(archive_path(path, name), -ENAMETOOLONG);
	name[255] = '\0';
	assert_int_equal(archive_path(path, name), 0);
	assert_string_equal(path, name);
	/* as long as fits, and a byte more */
	for (size_t i = 0; i < sizeof(name); i++)
		name[i] = i % 200 == 199 ? '/' : 'n';
	name[ARCHIVE_PATH - 1] = '\0';
	assert_int_equal(archive_path(path, name), 0);
	assert_string_equal(path, name);
	name[ARCHIVE_PATH - 1] = 'n';
	name[ARCHIVE_PATH] = '\0';
	assert_int_equal(archive_path(path, name), -ENAMETOOLONG);
	name[0] = '\0';
	for (int i = 0; i < ARCHIVE_DEPTH; i++)
		strcat(name, "d/");
	assert_int_equal(archive_path(path, name), 0);
	strcat(name, "d");
	assert_int_equal(archive_path(path, name), -ENAMETOOLONG);
}

static void test_left_out(void **state)
{
	(void)state;
	assert_true(archive_leaves_out(".DS_Store"));
	assert_true(archive_leaves_out("__MACOSX/._a.png"));
	assert_true(archive_leaves_out(".git/a.png"));
	assert_true(archive_leaves_out("a.png~"));
	assert_true(archive_leaves_out("x.part/a.png"));
	assert_false(archive_leaves_out("a/b.png"));
}

static void test_limits(void **state)
{
	struct archive_limits none = archive_limits(0), much = archive_limits(UINT64_MAX), edge;

	(void)state;
	assert_int_equal(none.total, ARCHIVE_GRACE);
	assert_int_equal(much.total, ARCHIVE_TOTAL);
	assert_int_equal(archive_limits(1000).total, ARCHIVE_GRACE + 1000 * ARCHIVE_RATIO);
	edge = archive_limits(ARCHIVE_TOTAL / ARCHIVE_RATIO);
	assert_int_equal(edge.total, ARCHIVE_TOTAL);
	assert_int_equal(none.files, ARCHIVE_FILES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_stem), cmocka_unit_test(test_path),
					   cmocka_unit_test(test_left_out), cmocka_unit_test(test_limits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
