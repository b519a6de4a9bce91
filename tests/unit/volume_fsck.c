/* fsck: each kind of damage, done on purpose below the volume's back, is named; what can be mended is. */
#include "fs/volume/private.h"
#include "tests/unit/volume_test.h"

#include <dirent.h>

static char said[4096];

static void note(void *data, const char *line)
{
	(void)data;
	snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s\n", line);
}

static uint64_t dir_ino, file_ino, large_ino, sub_ino;

static int setup_tree(void **state)
{
	static char data[INLINE_MAX + 1];
	struct vol_new small = {.mode = S_IFREG | 0644, .content = "hello", .content_len = 5};
	struct vol_new large = {.mode = S_IFREG | 0644, .content = data, .content_len = sizeof(data)};
	struct vol_attr attr;

	if (setup(state) < 0)
		return -1;
	vol->keeps_nodes = false; /* the tests change records beneath it */
	dir_ino = folder(VOL_ROOT, "d");
	sub_ino = folder(dir_ino, "sub");
	assert_int_equal(vol_create(vol, dir_ino, "f", &small, &attr), 0);
	file_ino = attr.ino;
	assert_int_equal(vol_create(vol, dir_ino, "large", &large, &attr), 0);
	large_ino = attr.ino;
	assert_int_equal(vol_link(vol, file_ino, VOL_ROOT, "link", NULL), 0);
	assert_int_equal(vol_setxattr(vol, file_ino, "user.a", "x", 1, 0), 0);
	/* Marks make a missing blob no fault: as after an fsync. */
	{
		struct vol_file *f;

		assert_int_equal(vol_file_open(vol, large_ino, O_RDWR, &f), 0);
		assert_int_equal(vol_fsync(f, false), 0);
		vol_file_close(f);
	}
	return 0;
}

static struct batch batch;

static void damage(void)
{
	assert_int_equal(batch_init(&batch, vol), 0);
}

/* Commits the damage; fsck must name `expect`; a repair must leave nothing, or what `stays`. */
static void found(const char *expect, uint64_t stays)
{
	struct fsck_report report;

	assert_int_equal(batch_commit(&batch, false), 0);
	batch_release(&batch);
	volume_close(vol);
	vol = NULL;
	said[0] = 0;
	assert_int_equal(volume_fsck(state_dir, false, note, NULL, &report, NULL), 0);
	if (!strstr(said, expect))
		print_message("%s", said);
	assert_non_null(strstr(said, expect));
	assert_true(report.faults > 0);
	assert_int_equal(volume_fsck(state_dir, true, NULL, NULL, &report, NULL), 0);
	assert_int_equal(report.faults - report.repaired, stays);
	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, stays);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
}

static char key[KEY_MAX], value[INODE_MAX];

static void put_inode(uint64_t ino, const struct inode_rec *rec)
{
	batch_put(&batch, CF_INODES, key, key_ino(key, ino), value, record_put_inode(value, rec));
}

static struct inode_rec rec_of(uint64_t ino)
{
	struct inode_rec rec;

	assert_int_equal(inode_read(vol, ino, &rec), 0);
	return rec;
}

static void test_dangling(void **state)
{
	struct vol_attr attr;

	(void)state;
	damage();
	batch_delete(&batch, CF_INODES, key, key_ino(key, sub_ino));
	found("its inode", 0);
	assert_int_equal(vol_lookup(vol, dir_ino, "sub", &attr), -ENOENT);
	assert_int_equal(vol_lookup(vol, dir_ino, "f", &attr), 0);
}

static void test_no_cookie(void **state)
{
	struct dentry d;

	(void)state;
	assert_int_equal(dentry_find(vol, dir_ino, "f", &d), 0);
	damage();
	batch_single_delete(&batch, CF_DENTRIES, key, key_cookie(key, dir_ino, d.cookie));
	found("does not lead to it", 0);
}

static void test_no_name(void **state)
{
	(void)state;
	damage();
	batch_single_delete(&batch, CF_DENTRIES, key, key_name(key, dir_ino, "sub", 3));
	found("can't be found by its name", 0);
	assert_int_equal(ino_of(dir_ino, "sub"), sub_ino);
}

static void test_nlink(void **state)
{
	struct inode_rec rec = rec_of(file_ino);

	(void)state;
	rec.nlink = 5;
	damage();
	put_inode(file_ino, &rec);
	found("nlink is 5, should be 2", 0);
	assert_int_equal(rec_of(file_ino).nlink, 2);
}

static void test_dir(void **state)
{
	struct inode_rec rec = rec_of(dir_ino);

	(void)state;
	rec.nlink = 9;
	rec.entries = 1;
	damage();
	put_inode(dir_ino, &rec);
	found("nlink is 9, should be 3", 0);
	assert_non_null(strstr(said, "counts 1 entries and has 3"));
	rec = rec_of(sub_ino);
	rec.parent = VOL_ROOT;
	damage();
	put_inode(sub_ino, &rec);
	found("its parent is", 0);
	rec = rec_of(dir_ino);
	rec.first_cookie = rec.next_cookie = 1000;
	rec.next_cookie++;
	damage();
	put_inode(dir_ino, &rec);
	found("a cookie is outside", 0);
}

static void test_damaged_record(void **state)
{
	struct vol_attr attr;
	struct vol_file *f;

	(void)state;
	damage();
	batch_put(&batch, CF_INODES, key, key_ino(key, file_ino), "garbage", 7);
	found("its record is damaged", 1);
	assert_int_equal(vol_getattr(vol, file_ino, &attr), -EIO);
	assert_int_equal(vol_lookup(vol, dir_ino, "f", &attr), -EIO);
	assert_int_equal(vol_unlink(vol, dir_ino, "f", &attr), -EIO);
	assert_int_equal(vol_file_open(vol, file_ino, O_RDONLY, &f), -EIO);
	damage();
	batch_delete(&batch, CF_INODES, key, key_ino(key, file_ino));
	found("its inode", 0);
}

static void test_lost(void **state)
{
	struct inode_rec rec = {.mode = S_IFREG | 0600, .nlink = 1};
	struct vol_attr attr;
	char name[32];

	(void)state;
	damage();
	put_inode(500, &rec);
	rec = rec_of(sub_ino);
	put_inode(501, &rec);
	found("inode 500: no name leads to it", 0);
	assert_non_null(strstr(said, "directory 501: no name leads to it"));
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "lost+found", &attr), 0);
	snprintf(name, sizeof(name), "#%d", 500);
	assert_int_equal(ino_of(attr.ino, name), 500);
	assert_int_equal(ino_of(attr.ino, "#501"), 501);
}

static void test_stray(void **state)
{
	struct inode_rec rec = {.mode = S_IFREG | 0600, .nlink = 0};

	(void)state;
	damage();
	put_be64(key, 777);
	memcpy(key + 8, "user.a", 6);
	batch_put(&batch, CF_XATTRS, key, 14, "x", 1);
	batch_put(&batch, CF_DATA, key, 8, "x", 1);
	batch_put(&batch, CF_DEFAULT, key, key_tagged(key, 'O', file_ino), "", 0);
	batch_put(&batch, CF_INODES, key, key_ino(key, 600), value, record_put_inode(value, &rec));
	found("xattr of inode 777", 0);
	assert_non_null(strstr(said, "content of inode 777"));
	assert_non_null(strstr(said, "which is linked"));
	assert_non_null(strstr(said, "inode 600 was removed and is still there"));
}

static void test_counter(void **state)
{
	struct vol_attr attr;

	(void)state;
	damage();
	put_le64(value, 2);
	batch_put(&batch, CF_DEFAULT, "I", 1, value, 8);
	found("above the counter 2", 0);
	assert_int_equal(vol_create(vol, VOL_ROOT, "new", &(struct vol_new){.mode = S_IFREG}, &attr), 0);
	assert_true(attr.ino > large_ino);
}

static void test_content(void **state)
{
	struct inode_rec rec = rec_of(file_ino);
	void *content;
	size_t len;

	(void)state;
	rec.size = 7;
	damage();
	put_inode(file_ino, &rec);
	assert_int_equal(batch_commit(&batch, false), 0);
	assert_int_equal(vol_content(vol, file_ino, 100, &content, &len), -EIO);
	found("size is 7, its content has 5 bytes", 0);
	assert_int_equal(vol_content(vol, file_ino, 100, &content, &len), 0);
	assert_string_equal(content, "hello");
	free(content);
}

static void test_loop(void **state)
{
	struct inode_rec rec;
	struct dentry d, e = {.ino = dir_ino, .type = DT_DIR};
	size_t len;

	/* d/sub and sub/d: cut from the root. */
	(void)state;
	rec = rec_of(VOL_ROOT);
	assert_int_equal(dentry_find(vol, VOL_ROOT, "d", &d), 0);
	damage();
	dentry_remove(&batch, VOL_ROOT, &rec, "d", &d);
	put_inode(VOL_ROOT, &rec);
	rec = rec_of(sub_ino);
	dentry_add(&batch, sub_ino, &rec, "d", &e);
	put_inode(sub_ino, &rec);
	found("is not below the root", 2);
	/* By hand, so that the last check is of a whole volume. */
	damage();
	rec = rec_of(sub_ino);
	assert_int_equal(dentry_find(vol, sub_ino, "d", &e), 0);
	dentry_remove(&batch, sub_ino, &rec, "d", &e);
	rec.nlink = 2;
	put_inode(sub_ino, &rec);
	len = key_ino(key, dir_ino);
	assert_int_equal(len, 8);
	found("no name leads to it", 0);
}

static void test_blobs(void **state)
{
	struct fsck_report report;
	char path[256], name[128];
	FILE *f;

	(void)state;
	blob_name(name, large_ino);
	snprintf(path, sizeof(path), "%s/blobs/%s", state_dir, name);
	volume_close(vol);
	vol = NULL;
	assert_int_equal(truncate(path, 100), 0);
	said[0] = 0;
	assert_int_equal(volume_fsck(state_dir, false, note, NULL, &report, NULL), 0);
	assert_non_null(strstr(said, "has 100 bytes of 65537"));
	assert_int_equal(rename(path, strcat(strcpy(name, state_dir), "/blobs/x")), 0);
	said[0] = 0;
	assert_int_equal(volume_fsck(state_dir, false, note, NULL, &report, NULL), 0);
	assert_non_null(strstr(said, "is not there"));
	assert_non_null(strstr(said, "blobs/x: not the name of a blob"));
	assert_int_equal(report.faults, 2);
	assert_int_equal(rename(name, path), 0);
	assert_int_equal(truncate(path, 65537), 0);

	snprintf(path, sizeof(path), "%s/blobs/%02x/%016x", state_dir, (unsigned)large_ino,
		 0x1000 + (unsigned)large_ino);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	said[0] = 0;
	assert_int_equal(volume_fsck(state_dir, true, note, NULL, &report, NULL), 0);
	assert_non_null(strstr(said, "no inode has this blob"));
	assert_int_equal(report.repaired, 1);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
}

static void test_no_volume(void **state)
{
	struct fsck_report report = {.faults = 42};
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(volume_fsck("/nonexistent", false, NULL, NULL, &report, &err), -ENOENT);
	assert_int_equal(volume_fsck("/usr", true, NULL, NULL, &report, &err), -ENOENT);
	assert_int_equal(err.code, ERR_NO_VOLUME);
	assert_int_equal(volume_fsck(state_dir, false, NULL, NULL, &report, &err), -EBUSY);
	assert_int_equal(report.faults, 42);
}

static void test_block(void **state)
{
	(void)state;
	damage();
	batch_delete(&batch, CF_DENTRIES, key, key_block(key, dir_ino, 0));
	put_le64(value, 3);
	batch_put(&batch, CF_DENTRIES, key, key_block(key, sub_ino, 7), value, 8);
	found("block 0 counts 0 entries and has 3", 0);
	assert_non_null(strstr(said, "block 7 counts 3 entries and has 0"));
}

int main(void)
{
#define F(f) cmocka_unit_test_setup_teardown(f, setup_tree, teardown)
	const struct CMUnitTest tests[] = {
		F(test_dangling), F(test_block),     F(test_no_cookie),      F(test_no_name),
		F(test_nlink),    F(test_dir),       F(test_damaged_record), F(test_lost),
		F(test_stray),    F(test_counter),   F(test_content),        F(test_loop),
		F(test_blobs),    F(test_no_volume),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
