/* Many files at once: all of them or none, as other calls see them, after a restart and after a crash. */
#include "tests/unit/volume_test.h"

#include "fs/volume/bulk.h"
#include "fs/volume/private.h"

#include <signal.h>
#include <sys/wait.h>

#define LARGE 100000 /* in a blob */

static const struct vol_bulk_what what = {
	.uid = 7, .gid = 8, .dir_mode = 0750, .file_mode = 0640, .kind = 4, .dir_kind = 5, .file_kind = 6};

static char large[LARGE];

static struct host_file of(const char *path, const void *data, size_t len)
{
	return (struct host_file){.path = path, .data = data, .len = len};
}

static int add(struct vol_bulk *bulk, const char *path, const char *text)
{
	struct host_file f = of(path, text, strlen(text));

	return vol_bulk_add(bulk, &f, 1);
}

static struct vol_bulk *begin(void)
{
	struct vol_bulk *bulk;

	assert_int_equal(vol_bulk_new(&bulk, vol, &what), 0);
	return bulk;
}

static void same(const char *path, const char *data, size_t len)
{
	struct vol_attr attr;
	void *content;
	size_t n;

	assert_int_equal(vol_resolve(vol, VOL_ROOT, path, &attr), 0);
	assert_int_equal(vol_content(vol, attr.ino, 1 << 20, &content, &n), 0);
	assert_int_equal(n, len);
	assert_memory_equal(content, data, len);
	free(content);
}

static int count(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	(void)name;
	(void)cookie;
	(void)attr;
	++*(int *)data;
	return 0;
}

static void test_all(void **state)
{
	struct host_file files[] = {of("x", "one", 3), of("a/b/y", large, LARGE), of("a/z", "", 0),
				    of("a/b/w", "four", 4)};
	struct host_op ops[] = {
		{.type = HOST_PUT, .key = "k", .key_len = 1, .value = "v", .value_len = 1},
		{.type = HOST_STATE, .key = "user.state", .key_len = 10, .value = "ok", .value_len = 2}};
	struct vol_bulk *bulk = begin();
	struct vol_attr attr, root, expected;
	char value[16];
	int n = 0;

	(void)state;
	memset(large, 'L', LARGE);
	ops[1].ino = file(VOL_ROOT, "archive");
	assert_int_equal(vol_bulk_add(bulk, files, 2), 0);
	assert_int_equal(vol_bulk_add(bulk, files + 2, 2), 0);
	assert_int_equal(vol_bulk_xattr(bulk, "user.deadline", "5s"), 0);
	assert_int_equal(vol_getattr(vol, files[0].ino, &attr), -ESTALE);
	assert_int_equal(vol_bulk_attr(bulk, VOL_ROOT, &expected), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "batch", ops, 2), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "again", NULL, 0), -EINVAL);
	vol_bulk_free(bulk);
	for (int round = 0; round < 2; round++) {
		same("batch/x", "one", 3);
		same("batch/a/b/y", large, LARGE);
		same("batch/a/z", "", 0);
		same("batch/a/b/w", "four", 4);
		assert_int_equal(vol_resolve(vol, VOL_ROOT, "batch/a/b/w", &attr), 0);
		assert_int_equal(attr.ino, files[3].ino);
		assert_int_equal(attr.mode, S_IFREG | 0640);
		assert_int_equal(attr.uid, 7);
		assert_int_equal(attr.gid, 8);
		assert_int_equal(attr.kind, 6);
		assert_int_equal(vol_resolve(vol, VOL_ROOT, "batch/a", &attr), 0);
		assert_int_equal(attr.mode, S_IFDIR | 0750);
		assert_int_equal(attr.kind, 5);
		assert_int_equal(attr.nlink, 3);
		assert_int_equal(vol_resolve(vol, VOL_ROOT, "batch", &attr), 0);
		assert_int_equal(attr.ino, expected.ino);
		assert_int_equal(attr.mode, expected.mode);
		assert_int_equal(attr.nlink, expected.nlink);
		assert_int_equal(attr.kind, 4);
		assert_int_equal(vol_getxattr(vol, attr.ino, "user.deadline", value, sizeof(value)), 2);
		assert_int_equal(vol_getattr(vol, VOL_ROOT, &root), 0);
		assert_int_equal(root.nlink, 3);
		assert_int_equal(vol_getxattr(vol, ops[1].ino, "user.state", value, sizeof(value)), 2);
		reopen();
	}
	/* it is a directory like others */
	assert_int_equal(vol_readdir(vol, attr.ino, 0, true, count, &n), 0);
	assert_int_equal(n, 2);
	file(attr.ino, "more");
	assert_int_equal(vol_unlink(vol, attr.ino, "x", NULL), 0);
	assert_int_equal(vol_rename(vol, attr.ino, "a", VOL_ROOT, "moved", 0, -1), 0);
	assert_int_equal(vol_unlink(vol, attr.ino, "more", NULL), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "batch", NULL), 0);
}

/* Beyond one block of cookies, and one batch of deletes. */
static void test_many(void **state)
{
	static struct host_file files[5000];
	static char names[5000][24];
	struct vol_bulk *bulk = begin();
	int n = 0;

	(void)state;
	for (int i = 0; i < 5000; i++) {
		snprintf(names[i], sizeof(names[i]), "%s%d", i % 3 ? "" : "sub/", i);
		files[i] = of(names[i], names[i], strlen(names[i]));
	}
	for (int i = 0; i < 5000; i += 500)
		assert_int_equal(vol_bulk_add(bulk, files + i, 500), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "many", NULL, 0), 0);
	vol_bulk_free(bulk);
	assert_int_equal(vol_readdir(vol, ino_of(VOL_ROOT, "many"), 0, true, count, &n), 0);
	assert_int_equal(n, 3334);
	for (int i = 0; i < 5000; i += 7) {
		char path[40];

		strcat(strcpy(path, "many/"), names[i]);
		same(path, names[i], strlen(names[i]));
	}
	bulk = begin(); /* and dropped: fsck sees that nothing is left */
	for (int i = 0; i < 5000; i += 500)
		assert_int_equal(vol_bulk_add(bulk, files + i, 500), 0);
	vol_bulk_free(bulk);
}

static void test_refused(void **state)
{
	char name[300];
	struct host_file y = of("large", large, LARGE);
	struct vol_bulk *bulk = begin();

	(void)state;
	assert_int_equal(add(bulk, "a/x", "1"), 0);
	assert_int_equal(add(bulk, "a/x", "2"), -EEXIST);
	assert_int_equal(add(bulk, "a", "2"), -EEXIST);
	assert_int_equal(add(bulk, "a/x/y", "2"), -ENOTDIR);
	assert_int_equal(add(bulk, "", "2"), -EINVAL);
	assert_int_equal(add(bulk, "a//y", "2"), -EINVAL);
	assert_int_equal(add(bulk, "a/../y", "2"), -EINVAL);
	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	assert_int_equal(add(bulk, name, "2"), -ENAMETOOLONG);
	name[255] = '\0';
	assert_int_equal(add(bulk, name, "2"), 0);
	assert_int_equal(vol_bulk_add(bulk, &y, 1), 0);
	file(VOL_ROOT, "there");
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "there", NULL, 0), -EEXIST);
	assert_int_equal(vol_bulk_put(bulk, ino_of(VOL_ROOT, "there"), "x", NULL, 0), -ENOTDIR);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "elsewhere", NULL, 0), 0);
	vol_bulk_free(bulk);
	same("elsewhere/large", large, LARGE);
}

static void test_setgid(void **state)
{
	uint64_t dir = make(VOL_ROOT, "dir", S_IFDIR | S_ISGID | 0755);
	struct vol_bulk *bulk;
	struct vol_bulk_what other = what;
	struct vol_attr attr;

	(void)state;
	other.gid = 99;
	assert_int_equal(vol_bulk_new(&bulk, vol, &other), 0);
	assert_int_equal(add(bulk, "a/x", "1"), 0);
	assert_int_equal(vol_bulk_put(bulk, dir, "b", NULL, 0), 0);
	vol_bulk_free(bulk);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "dir/b/a", &attr), 0);
	assert_int_equal(attr.gid, 8);
	assert_true(attr.mode & S_ISGID);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "dir/b/a/x", &attr), 0);
	assert_int_equal(attr.gid, 8);
}

static void fsck_is_clean(void)
{
	struct fsck_report report = {0};

	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 0);
}

static int data_left(void)
{
	char command[160];
	FILE *p;
	int n = -1;

	snprintf(command, sizeof(command), "find %s/blobs -type f | wc -l", state_dir);
	p = popen(command, "r");
	assert_non_null(p);
	assert_int_equal(fscanf(p, "%d", &n), 1);
	pclose(p);
	return n;
}

static int count_key(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	(void)key;
	(void)key_len;
	(void)value;
	(void)value_len;
	++*(int *)data;
	return 0;
}

/* A process that dies between adding and putting, and one that dies after. */
static void test_crash(void **state)
{
	(void)state;
	volume_close(vol);
	vol = NULL;
	for (int put = 0; put < 2; put++) {
		pid_t pid = fork();
		int status, ranges = 0, contents = 0;

		if (pid == 0) {
			struct host_file files[] = {of("x", "one", 3), of("a/y", large, LARGE)};
			struct vol_bulk *bulk;
			struct vol_attr attr;

			if (volume_open(&vol, state_dir, 0, NULL) == 0 &&
			    vol_bulk_new(&bulk, vol, &what) == 0 && vol_bulk_add(bulk, files, 2) == 0 &&
			    /* others take numbers in between */
			    vol_create(vol, VOL_ROOT, put ? "b" : "a",
				       &(struct vol_new){.mode = S_IFREG | 0600}, &attr) == 0 &&
			    add(bulk, "z", "three") == 0 &&
			    (!put || vol_bulk_put(bulk, VOL_ROOT, "batch", NULL, 0) == 0))
				kill(getpid(), SIGKILL);
			_exit(1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		fsck_is_clean();
		assert_int_equal(data_left(), 1); /* as the crash left it */
		assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
		assert_int_equal(data_left(), put);
		assert_int_equal(db_scan(&vol->db, CF_DEFAULT, "U", 1, "V", 1, count_key, &ranges), 0);
		assert_int_equal(db_scan(&vol->db, CF_DATA, "", 0, NULL, 0, count_key, &contents), 0);
		assert_int_equal(ranges, 0);
		assert_int_equal(contents, put ? 2 : 0);
		if (put)
			same("batch/z", "three", 5);
		else
			assert_int_equal(ino_of(VOL_ROOT, "batch"), 0);
		assert_int_not_equal(ino_of(VOL_ROOT, put ? "b" : "a"), 0);
		volume_close(vol);
		vol = NULL;
		fsck_is_clean(); /* contents without an inode would be faults now */
	}
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_all), T(test_many), T(test_refused), T(test_setgid),
					   T(test_crash)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
