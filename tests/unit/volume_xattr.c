/* Extended attributes and the scheduler's key space. */
#include "tests/unit/volume_test.h"

#include <linux/limits.h>
#include <sys/xattr.h>

static void test_xattr(void **state)
{
	static char big[XATTR_SIZE_MAX + 1], got[XATTR_SIZE_MAX];
	uint64_t f = file(VOL_ROOT, "f"), g = file(VOL_ROOT, "g");
	struct vol_attr before, after;
	char text[64], name[257];

	(void)state;
	assert_int_equal(vol_getattr(vol, f, &before), 0);
	assert_int_equal(vol_setxattr(vol, f, "user.b", "two", 3, 0), 0);
	assert_int_equal(vol_getattr(vol, f, &after), 0);
	assert_true(after.ctime.tv_sec > before.ctime.tv_sec || after.ctime.tv_nsec > before.ctime.tv_nsec);
	assert_memory_equal(&after.mtime, &before.mtime, sizeof(after.mtime));
	assert_int_equal(vol_setxattr(vol, f, "user.a", "", 0, XATTR_CREATE), 0);
	assert_int_equal(vol_setxattr(vol, f, "user.a", "x", 1, XATTR_CREATE), -EEXIST);
	assert_int_equal(vol_setxattr(vol, f, "user.c", "x", 1, XATTR_REPLACE), -ENODATA);
	assert_int_equal(vol_setxattr(vol, f, "user.c", "x", 1, XATTR_REPLACE | XATTR_CREATE), -EINVAL);
	assert_int_equal(vol_setxattr(vol, f, "user.b", "three", 5, XATTR_REPLACE), 0);
	assert_int_equal(vol_setxattr(vol, f, "", "x", 1, 0), -ERANGE);
	memset(name, 'n', 256);
	name[256] = 0;
	assert_int_equal(vol_setxattr(vol, f, name, "x", 1, 0), -ERANGE);
	assert_int_equal(vol_setxattr(vol, f, "user.big", big, sizeof(big), 0), -E2BIG);
	assert_int_equal(vol_setxattr(vol, 999, "user.a", "x", 1, 0), -ESTALE);

	assert_int_equal(vol_getxattr(vol, f, "user.b", text, sizeof(text)), 5);
	assert_memory_equal(text, "three", 5);
	assert_int_equal(vol_getxattr(vol, f, "user.b", NULL, 0), 5);
	assert_int_equal(vol_getxattr(vol, f, "user.b", text, 4), -ERANGE);
	assert_int_equal(vol_getxattr(vol, f, "user.a", text, 4), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.z", text, 4), -ENODATA);
	assert_int_equal(vol_getxattr(vol, g, "user.a", text, 4), -ENODATA);
	assert_int_equal(vol_getxattr(vol, 999, "user.a", text, 4), -ESTALE);

	assert_int_equal(vol_listxattr(vol, f, NULL, 0), 14);
	assert_int_equal(vol_listxattr(vol, f, text, 13), -ERANGE);
	assert_int_equal(vol_listxattr(vol, f, text, 14), 14);
	assert_memory_equal(text, "user.a\0user.b\0", 14);
	assert_int_equal(vol_listxattr(vol, g, text, 14), 0);
	assert_int_equal(vol_listxattr(vol, 999, text, 14), -ESTALE);

	big[7] = 'x';
	assert_int_equal(vol_setxattr(vol, VOL_ROOT, "user.big", big, XATTR_SIZE_MAX, 0), 0);
	reopen();
	assert_int_equal(vol_getxattr(vol, VOL_ROOT, "user.big", got, sizeof(got)), XATTR_SIZE_MAX);
	assert_memory_equal(got, big, sizeof(got));
	assert_int_equal(vol_removexattr(vol, f, "user.a"), 0);
	assert_int_equal(vol_removexattr(vol, f, "user.a"), -ENODATA);
	assert_int_equal(vol_listxattr(vol, f, text, sizeof(text)), 7);
	/* The inode takes them with it: fsck would name what stays. */
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), 0);
}

struct seen {
	char text[256];
	int limit;
};

static int see(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct seen *s = data;
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%.*s=%.*s ", (int)key_len, (const char *)key,
		 (int)value_len, (const char *)value);
	return --s->limit == 0;
}

static const char *scan(const char *prefix, int limit)
{
	static struct seen s;

	s = (struct seen){.limit = limit};
	assert_int_equal(vol_scan(vol, prefix, strlen(prefix), see, &s), 0);
	return s.text;
}

static struct host_op op(enum host_op_type type, const char *key, const char *value)
{
	return (struct host_op){.type = type,
				.key = key,
				.key_len = strlen(key),
				.value = value,
				.value_len = value ? strlen(value) : 0};
}

static void test_kv(void **state)
{
	uint64_t f = file(VOL_ROOT, "f");
	struct host_op ops[4] = {op(HOST_PUT, "t/2", "b"), op(HOST_PUT, "t/1", "a"),
				 op(HOST_PUT, "t\xff", "high"), op(HOST_PUT, "u", "other")};
	char text[8];

	(void)state;
	assert_int_equal(vol_commit(vol, ops, 4), 0);
	assert_int_equal(vol_commit(vol, NULL, 0), 0);
	assert_string_equal(scan("t/", 9), "t/1=a t/2=b ");
	assert_string_equal(scan("t\xff", 9), "t\xff=high ");
	assert_string_equal(scan("", 9), "t/1=a t/2=b t\xff=high u=other ");
	assert_string_equal(scan("\xff\xff", 9), "");
	assert_string_equal(scan("", 1), "t/1=a ");
	reopen();
	ops[0] = op(HOST_DEL, "t/1", NULL);
	ops[1] = op(HOST_STATE, "user.state", "running");
	ops[1].ino = f;
	assert_int_equal(vol_commit(vol, ops, 2), 0);
	assert_string_equal(scan("t/", 9), "t/2=b ");
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), 7);
	/* All or nothing. */
	ops[0] = op(HOST_DEL, "t/2", NULL);
	ops[1].key_len = 0;
	assert_int_equal(vol_commit(vol, ops, 2), -ERANGE);
	assert_string_equal(scan("t/", 9), "t/2=b ");
	ops[1].type = (enum host_op_type)77;
	assert_int_equal(vol_commit(vol, ops, 2), -EINVAL);
	/* The inode is gone: no error, and nothing is left behind. */
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), 0);
	ops[0] = op(HOST_STATE, "user.state", "ok");
	ops[0].ino = f;
	assert_int_equal(vol_commit(vol, ops, 1), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), -ESTALE);
}

/* In memory: it hides what is stored, is listed once, and goes with a HOST_STATE, a removal, the inode or the volume. */
static void test_mark(void **state)
{
	uint64_t f = file(VOL_ROOT, "f"), g = file(VOL_ROOT, "g");
	struct host_op op_ok = op(HOST_STATE, "user.state", "ok");
	char text[64];

	(void)state;
	op_ok.ino = f;
	assert_int_equal(vol_setxattr(vol, f, "user.a", "1", 1, 0), 0);
	assert_int_equal(vol_mark(vol, f, "user.state", "queued"), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", NULL, 0), 6);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, 5), -ERANGE);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), 6);
	assert_memory_equal(text, "queued", 6);
	assert_int_equal(vol_listxattr(vol, f, text, sizeof(text)), 18);
	assert_int_equal(vol_listxattr(vol, f, NULL, 0), 18);
	assert_int_equal(vol_commit(vol, &op_ok, 1), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), 2);
	assert_int_equal(vol_mark(vol, f, "user.state", "queued"), 0);
	assert_int_equal(vol_mark(vol, f, "user.state", "running"), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), 7);
	assert_int_equal(vol_listxattr(vol, f, NULL, 0), 18);
	assert_int_equal(vol_removexattr(vol, f, "user.state"), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), -ENODATA);
	assert_int_equal(vol_removexattr(vol, f, "user.state"), -ENODATA);
	assert_int_equal(vol_mark(vol, f, "user.state", "running"), 0);
	assert_int_equal(vol_removexattr(vol, f, "user.state"), 0);
	assert_int_equal(vol_removexattr(vol, f, "user.state"), -ENODATA);
	assert_int_equal(vol_mark(vol, f, "user.state", "running"), 0);
	assert_int_equal(vol_mark(vol, g, "user.state", "running"), 0);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), 0);
	assert_int_equal(vol_getxattr(vol, f, "user.state", text, sizeof(text)), -ESTALE);
	reopen();
	assert_int_equal(vol_getxattr(vol, g, "user.state", text, sizeof(text)), -ENODATA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_xattr), T(test_kv), T(test_mark)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
