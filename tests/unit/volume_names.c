/* Names of the volume: what each call changes, and each way it must refuse. */
#include "tests/unit/volume_test.h"

#include <linux/fs.h>

static uint32_t nlink_of(uint64_t ino)
{
	struct vol_attr attr;

	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	return attr.nlink;
}

static int rename_(uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
		   unsigned flags)
{
	return vol_rename(vol, parent, name, new_parent, new_name, flags, -1);
}

static bool newer(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static void test_create(void **state)
{
	struct vol_attr attr, root, before;
	struct vol_new what = {.mode = S_IFREG | 0640, .uid = 7, .gid = 8, .kind = 3};
	char name[257];

	(void)state;
	assert_int_equal(vol_getattr(vol, VOL_ROOT, &before), 0);
	assert_int_equal(before.mode, S_IFDIR | 0755);
	assert_int_equal(before.nlink, 2);
	assert_int_equal(vol_create(vol, VOL_ROOT, "a", &what, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0640);
	assert_int_equal(attr.uid, 7);
	assert_int_equal(attr.gid, 8);
	assert_int_equal(attr.kind, 3);
	assert_int_equal(attr.nlink, 1);
	assert_int_equal(attr.size, 0);
	assert_int_equal(vol_getattr(vol, VOL_ROOT, &root), 0);
	assert_true(newer(root.mtime, before.mtime) && newer(root.ctime, before.ctime));
	assert_int_equal(vol_create(vol, VOL_ROOT, "a", &what, NULL), -EEXIST);
	assert_int_equal(vol_create(vol, attr.ino, "b", &what, NULL), -ENOTDIR);
	assert_int_equal(vol_create(vol, 9999, "b", &what, NULL), -ESTALE);
	assert_int_equal(vol_create(vol, VOL_ROOT, "", &what, NULL), -EINVAL);
	assert_int_equal(vol_create(vol, VOL_ROOT, ".", &what, NULL), -EINVAL);
	assert_int_equal(vol_create(vol, VOL_ROOT, "..", &what, NULL), -EINVAL);
	assert_int_equal(vol_create(vol, VOL_ROOT, "a/b", &what, NULL), -EINVAL);
	memset(name, 'x', 256);
	name[256] = 0;
	assert_int_equal(vol_create(vol, VOL_ROOT, name, &what, NULL), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(vol_create(vol, VOL_ROOT, name, &what, NULL), 0);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, name, NULL), 0);

	folder(VOL_ROOT, "d");
	assert_int_equal(nlink_of(VOL_ROOT), 3);
	what = (struct vol_new){.mode = S_IFBLK | 0600, .rdev = 0x1234};
	assert_int_equal(vol_create(vol, VOL_ROOT, "dev", &what, &attr), 0);
	assert_int_equal(attr.rdev, 0x1234);
	what = (struct vol_new){.mode = 0644};
	assert_int_equal(vol_create(vol, VOL_ROOT, "typeless", &what, NULL), -EINVAL);

	reopen();
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "a", &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 0640);
	assert_int_equal(attr.kind, 3);
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "dev", &attr), 0);
	assert_int_equal(attr.rdev, 0x1234);
}

static void test_setgid(void **state)
{
	struct vol_attr attr, set = {.mode = 02775, .gid = 77};
	struct vol_new what = {.mode = S_IFDIR | 0755, .gid = 5};
	uint64_t dir = folder(VOL_ROOT, "shared");

	(void)state;
	assert_int_equal(vol_setattr(vol, dir, &set, VOL_SET_MODE | VOL_SET_GID, NULL), 0);
	assert_int_equal(vol_create(vol, dir, "sub", &what, &attr), 0);
	assert_int_equal(attr.gid, 77);
	assert_int_equal(attr.mode, S_IFDIR | 02755);
}

static void test_lookup(void **state)
{
	struct vol_attr attr;
	uint64_t d = folder(VOL_ROOT, "d"), f = file(d, "f");

	(void)state;
	assert_int_equal(ino_of(d, "f"), f);
	assert_int_equal(ino_of(d, "."), d);
	assert_int_equal(ino_of(f, "."), f);
	assert_int_equal(ino_of(d, ".."), VOL_ROOT);
	assert_int_equal(ino_of(VOL_ROOT, ".."), VOL_ROOT);
	assert_int_equal(vol_lookup(vol, d, "g", &attr), -ENOENT);
	assert_int_equal(vol_lookup(vol, f, "g", &attr), -ENOTDIR);
	assert_int_equal(vol_lookup(vol, f, "..", &attr), -ENOTDIR);
	assert_int_equal(vol_lookup(vol, 424242, "g", &attr), -ESTALE);
	assert_int_equal(vol_lookup(vol, 424242, ".", &attr), -ESTALE);
}

static void test_remove(void **state)
{
	struct vol_attr attr;
	uint64_t d = folder(VOL_ROOT, "d"), f = file(d, "f");

	(void)state;
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "d", NULL), -ENOTEMPTY);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "d", NULL), -EISDIR);
	assert_int_equal(vol_rmdir(vol, d, "f", NULL), -ENOTDIR);
	assert_int_equal(vol_rmdir(vol, d, ".", NULL), -EINVAL);
	assert_int_equal(vol_unlink(vol, d, "g", NULL), -ENOENT);
	assert_int_equal(vol_unlink(vol, d, "f", &attr), 0);
	assert_int_equal(attr.ino, f);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(vol_getattr(vol, f, &attr), -ESTALE);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "d", &attr), 0);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(nlink_of(VOL_ROOT), 2);
	assert_int_equal(vol_create(vol, d, "x", &(struct vol_new){.mode = S_IFREG}, NULL), -ESTALE);
	assert_true(folder(VOL_ROOT, "d") > f); /* numbers are not used again … */
	reopen();
	assert_true(file(VOL_ROOT, "e") > ino_of(VOL_ROOT, "d")); /* … also after a restart */
}

static void test_link(void **state)
{
	struct vol_attr attr;
	uint64_t f = file(VOL_ROOT, "f"), d = folder(VOL_ROOT, "d");

	(void)state;
	assert_int_equal(vol_link(vol, f, d, "g", &attr), 0);
	assert_int_equal(attr.nlink, 2);
	assert_int_equal(vol_link(vol, f, d, "g", NULL), -EEXIST);
	assert_int_equal(vol_link(vol, d, d, "h", NULL), -EPERM);
	assert_int_equal(vol_link(vol, d, VOL_ROOT, "h", NULL), -EPERM);
	assert_int_equal(vol_link(vol, 9999, d, "h", NULL), -ESTALE);
	assert_int_equal(vol_link(vol, f, f, "h", NULL), -EPERM);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", &attr), 0);
	assert_int_equal(attr.nlink, 1);
	assert_int_equal(ino_of(d, "g"), f);
}

static void test_symlink(void **state)
{
	struct vol_attr attr;
	struct vol_new what = {.mode = S_IFLNK | 0777, .target = "../a/b"};
	char text[64], longest[4097];

	(void)state;
	assert_int_equal(vol_create(vol, VOL_ROOT, "l", &what, &attr), 0);
	assert_int_equal(attr.size, 6);
	assert_int_equal(vol_readlink(vol, attr.ino, text, sizeof(text)), 6);
	assert_string_equal(text, "../a/b");
	assert_int_equal(vol_readlink(vol, attr.ino, text, 6), -ERANGE);
	assert_int_equal(vol_readlink(vol, VOL_ROOT, text, sizeof(text)), -EINVAL);
	what.target = "";
	assert_int_equal(vol_create(vol, VOL_ROOT, "m", &what, NULL), -ENOENT);
	memset(longest, 'x', 4096);
	longest[4096] = 0;
	what.target = longest;
	assert_int_equal(vol_create(vol, VOL_ROOT, "m", &what, NULL), -ENAMETOOLONG);
}

static void test_rename(void **state)
{
	struct vol_attr attr, before;
	uint64_t d = folder(VOL_ROOT, "d"), e = folder(VOL_ROOT, "e"), f = file(d, "f"), g = file(e, "g");
	uint64_t sub = folder(d, "sub"), below = folder(sub, "below");

	(void)state;
	assert_int_equal(rename_(d, "none", e, "x", 0), -ENOENT);
	assert_int_equal(rename_(d, "f", e, "g", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(rename_(d, "f", e, "x", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(rename_(d, "f", e, "x", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	assert_int_equal(rename_(d, "f", e, "x", RENAME_WHITEOUT), -EINVAL);
	assert_int_equal(rename_(d, "f", e, ".", 0), -EINVAL);
	assert_int_equal(rename_(d, "f", 4242, "x", 0), -ESTALE);
	assert_int_equal(rename_(d, "f", g, "x", 0), -ENOTDIR);

	/* Over a file, in another directory. */
	assert_int_equal(vol_getattr(vol, d, &before), 0);
	assert_int_equal(rename_(d, "f", e, "g", 0), 0);
	assert_int_equal(ino_of(d, "f"), 0);
	assert_int_equal(ino_of(e, "g"), f);
	assert_int_equal(vol_getattr(vol, g, &attr), -ESTALE);
	assert_int_equal(vol_getattr(vol, d, &attr), 0);
	assert_true(newer(attr.mtime, before.mtime));
	/* Within one. */
	assert_int_equal(rename_(e, "g", e, "h", 0), 0);
	assert_int_equal(ino_of(e, "h"), f);
	assert_int_equal(rename_(e, "h", e, "h", 0), 0);
	/* Two names of one inode: nothing happens. */
	assert_int_equal(vol_link(vol, f, d, "also", NULL), 0);
	assert_int_equal(rename_(e, "h", d, "also", 0), 0);
	assert_int_equal(ino_of(e, "h"), f);

	/* Types and emptiness. */
	assert_int_equal(rename_(e, "h", VOL_ROOT, "d", 0), -EISDIR);
	assert_int_equal(rename_(VOL_ROOT, "d", e, "h", 0), -ENOTDIR);
	assert_int_equal(rename_(VOL_ROOT, "e", VOL_ROOT, "d", 0), -ENOTEMPTY);
	/* A directory below itself; over its own ancestor. */
	assert_int_equal(rename_(VOL_ROOT, "d", sub, "x", 0), -EINVAL);
	assert_int_equal(rename_(VOL_ROOT, "d", d, "x", 0), -EINVAL);
	assert_int_equal(rename_(sub, "below", VOL_ROOT, "d", 0), -ENOTEMPTY);
	assert_int_equal(rename_(d, "sub", VOL_ROOT, "d", 0), -ENOTEMPTY);
	assert_int_equal(rename_(sub, "below", VOL_ROOT, "d", RENAME_EXCHANGE), -EINVAL);

	/* A directory moves: "..", nlink of both parents. */
	assert_int_equal(nlink_of(d), 3);
	assert_int_equal(nlink_of(e), 2);
	assert_int_equal(rename_(d, "sub", e, "moved", 0), 0);
	assert_int_equal(nlink_of(d), 2);
	assert_int_equal(nlink_of(e), 3);
	assert_int_equal(ino_of(sub, ".."), e);
	assert_int_equal(ino_of(sub, "below"), below);
	/* Over an empty directory. */
	folder(d, "empty");
	assert_int_equal(nlink_of(d), 3);
	assert_int_equal(rename_(e, "moved", d, "empty", 0), 0);
	assert_int_equal(nlink_of(d), 3);
	assert_int_equal(nlink_of(e), 2);
	assert_int_equal(ino_of(sub, ".."), d);
}

static void test_exchange(void **state)
{
	uint64_t d = folder(VOL_ROOT, "d"), e = folder(VOL_ROOT, "e");
	uint64_t f = file(d, "f"), s = folder(e, "s"), g = file(d, "g");

	(void)state;
	assert_int_equal(rename_(d, "f", e, "s", RENAME_EXCHANGE), 0);
	assert_int_equal(ino_of(d, "f"), s);
	assert_int_equal(ino_of(e, "s"), f);
	assert_int_equal(ino_of(s, ".."), d);
	assert_int_equal(nlink_of(d), 3);
	assert_int_equal(nlink_of(e), 2);
	assert_int_equal(rename_(d, "f", d, "g", RENAME_EXCHANGE), 0);
	assert_int_equal(ino_of(d, "g"), s);
	assert_int_equal(ino_of(d, "f"), g);
	assert_int_equal(nlink_of(d), 3);
}

static int count(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	(void)value;
	(void)value_len;
	assert_memory_equal(key, "t/1", key_len);
	++*(int *)data;
	return 0;
}

/* The publisher's step: inode, content, name and the scheduler's records are one batch. */
static void test_put(void **state)
{
	uint64_t in = file(VOL_ROOT, "instance"), old = file(VOL_ROOT, "out.json");
	struct vol_new what = {.mode = S_IFREG | 0444, .content = "{}\n", .content_len = 3, .kind = 9};
	const struct host_op ops[] = {
		{.type = HOST_PUT, .key = "t/1", .key_len = 3, .value = "done", .value_len = 4},
		{.type = HOST_STATE,
		 .ino = in,
		 .key = "user.state",
		 .key_len = 10,
		 .value = "ok",
		 .value_len = 2},
		{.type = HOST_STATE,
		 .ino = 99999,
		 .key = "user.state",
		 .key_len = 10,
		 .value = "ok",
		 .value_len = 2},
	};
	struct vol_put put = {.when.tv_sec = 12345, .ops = ops, .n_ops = 3}, bad;
	struct vol_attr attr;
	char text[8];
	void *content;
	size_t len;
	int n = 0;

	(void)state;
	folder(VOL_ROOT, "dir");
	assert_int_equal(vol_reserve(vol, &put.ino), 0);
	assert_int_equal(vol_put(vol, VOL_ROOT, "out.json", &what, &put, &attr), 0);
	assert_int_equal(attr.ino, old);
	assert_int_equal(attr.nlink, 0);
	reopen();
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "out.json", &attr), 0);
	assert_int_equal(attr.ino, put.ino);
	assert_int_equal(attr.kind, 9);
	assert_int_equal(attr.mtime.tv_sec, 12345);
	assert_int_equal(vol_content(vol, attr.ino, 3, &content, &len), 0);
	assert_string_equal(content, "{}\n");
	free(content);
	assert_int_equal(vol_content(vol, attr.ino, 2, &content, &len), -EFBIG);
	assert_int_equal(vol_getattr(vol, old, &attr), -ESTALE);
	assert_int_equal(vol_getxattr(vol, in, "user.state", text, sizeof(text)), 2);
	assert_int_equal(vol_getxattr(vol, 99999, "user.state", text, sizeof(text)), -ESTALE);
	assert_int_equal(vol_scan(vol, "t/", 2, count, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(vol_commit(vol, &(struct host_op){.type = HOST_DEL, .key = "t/1", .key_len = 3}, 1),
			 0);
	assert_int_equal(vol_scan(vol, "t/", 2, count, &n), 0);
	assert_int_equal(n, 1);
	/* A refused op leaves what was there. */
	bad = (struct vol_put){.ops = &(struct host_op){.type = HOST_STATE, .ino = in}, .n_ops = 1};
	assert_int_equal(vol_reserve(vol, &bad.ino), 0);
	assert_int_equal(vol_put(vol, VOL_ROOT, "out.json", &what, &bad, NULL), -ERANGE);
	assert_int_equal(ino_of(VOL_ROOT, "out.json"), put.ino);
	assert_int_equal(vol_getattr(vol, bad.ino, &attr), -ESTALE);
	assert_int_equal(vol_put(vol, VOL_ROOT, "dir", &what, &bad, NULL), -EISDIR);
	assert_int_equal(vol_put(vol, VOL_ROOT, "a/b", &what, &bad, NULL), -EINVAL);
	assert_int_equal(vol_put(vol, in, "b", &what, &bad, NULL), -ENOTDIR);
}

static void symlink_(uint64_t parent, const char *name, const char *target)
{
	struct vol_new what = {.mode = S_IFLNK | 0777, .target = target};

	assert_int_equal(vol_create(vol, parent, name, &what, NULL), 0);
}

static void test_resolve(void **state)
{
	struct vol_attr attr;
	uint64_t a = folder(VOL_ROOT, "a"), b = folder(a, "b"), f = file(b, "f");
	char name[256];

	(void)state;
	symlink_(a, "to-f", "b/f");
	symlink_(b, "up", "../to-f");
	symlink_(VOL_ROOT, "loop", "loop");
	symlink_(VOL_ROOT, "abs", "/etc");
	symlink_(VOL_ROOT, "out", "a/../../etc");
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "a/b/f", &attr), 0);
	assert_int_equal(attr.ino, f);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "a//./b/../b/up", &attr), 0);
	assert_int_equal(attr.ino, f);
	assert_int_equal(vol_resolve(vol, b, "", &attr), 0);
	assert_int_equal(attr.ino, b);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "loop", &attr), -ELOOP);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "abs", &attr), -EXDEV);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "out", &attr), -EXDEV);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "a/b/f/x", &attr), -ENOTDIR);
	assert_int_equal(vol_resolve(vol, VOL_ROOT, "a/x", &attr), -ENOENT);

	assert_int_equal(vol_dir_name(vol, b, name, sizeof(name)), 0);
	assert_string_equal(name, "b");
	assert_int_equal(rename_(a, "b", VOL_ROOT, "bb", 0), 0);
	assert_int_equal(vol_dir_name(vol, b, name, sizeof(name)), 0);
	assert_string_equal(name, "bb");
	assert_int_equal(vol_dir_name(vol, b, name, 2), -ERANGE);
	assert_int_equal(vol_dir_name(vol, VOL_ROOT, name, sizeof(name)), -EINVAL);
	assert_int_equal(vol_dir_name(vol, f, name, sizeof(name)), -ENOTDIR);
}

static void test_attributes(void **state)
{
	struct vol_attr set = {.mode = S_IFDIR | 04755,
			       .uid = 1,
			       .gid = 2,
			       .atime = {10, 1},
			       .mtime = {20, 2},
			       .ctime = {30, 3},
			       .kind = 5,
			       .size = 100};
	struct vol_attr attr;
	uint64_t f = file(VOL_ROOT, "f");

	(void)state;
	assert_int_equal(vol_setattr(vol, f, &set, 255, &attr), 0);
	reopen();
	assert_int_equal(vol_getattr(vol, f, &attr), 0);
	assert_int_equal(attr.mode, S_IFREG | 04755);
	assert_int_equal(attr.uid, 1);
	assert_int_equal(attr.gid, 2);
	assert_int_equal(attr.atime.tv_sec, 10);
	assert_int_equal(attr.mtime.tv_nsec, 2);
	assert_int_equal(attr.ctime.tv_sec, 30);
	assert_int_equal(attr.kind, 5);
	assert_int_equal(attr.size, 100);
	set.mtime.tv_nsec = 1000000000;
	assert_int_equal(vol_setattr(vol, f, &set, VOL_SET_MTIME, NULL), -EINVAL);
	assert_int_equal(vol_setattr(vol, VOL_ROOT, &set, VOL_SET_SIZE, NULL), -EISDIR);
	assert_int_equal(vol_setattr(vol, 999, &set, VOL_SET_UID, NULL), -ESTALE);
}

static void test_locked(void **state)
{
	struct volume *other;
	struct err err = ERR_INIT;
	struct statvfs st;

	(void)state;
	assert_int_equal(volume_open(&other, state_dir, 0, &err), -EBUSY);
	assert_int_equal(err.code, ERR_VOLUME_BUSY);
	assert_int_equal(volume_open(&other, state_dir, VOLUME_READ_ONLY, &err), -EBUSY);
	assert_int_equal(volume_open(&other, "/nonexistent/inferfs", 0, &err), -ENOENT);
	assert_int_equal(volume_open(&other, "/tmp", VOLUME_READ_ONLY, &err), -ENOENT);
	assert_int_equal(volume_statvfs(vol, &st), 0);
	assert_int_equal(st.f_namemax, 255);
	assert_int_equal(volume_sync(vol), 0);
}

static void test_read_only(void **state)
{
	struct vol_attr attr, set = {.mode = 0};
	struct vol_file *f;
	uint64_t ino = file(VOL_ROOT, "f");

	(void)state;
	volume_close(vol);
	vol = NULL;
	assert_int_equal(volume_open(&vol, state_dir, VOLUME_READ_ONLY, NULL), 0);
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "f", &attr), 0);
	assert_int_equal(vol_create(vol, VOL_ROOT, "g", &(struct vol_new){.mode = S_IFREG}, NULL), -EROFS);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), -EROFS);
	assert_int_equal(vol_setattr(vol, ino, &set, VOL_SET_MODE, NULL), -EROFS);
	assert_int_equal(vol_setxattr(vol, ino, "user.a", "", 0, 0), -EROFS);
	assert_int_equal(vol_file_open(vol, ino, O_RDWR, &f), -EROFS);
	assert_int_equal(rename_(VOL_ROOT, "f", VOL_ROOT, "g", 0), -EROFS);
	assert_int_equal(vol_file_open(vol, ino, O_RDONLY, &f), 0);
	vol_file_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_create),    T(test_setgid),     T(test_lookup),   T(test_remove),  T(test_link),
		T(test_symlink),   T(test_rename),     T(test_exchange), T(test_resolve), T(test_locked),
		T(test_read_only), T(test_attributes), T(test_put),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
