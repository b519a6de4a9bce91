/* Many files at once: all of them or none, as other calls see them, after a restart and after a crash. */
#include "tests/unit/bulk_test.h"

#include "fs/volume/private.h"

#include <signal.h>
#include <sys/wait.h>

#define LARGE 300000 /* beyond what is inline, and what is given back before its pack goes */

static char large[LARGE];

static int add(struct vol_bulk *bulk, const char *path, const char *text)
{
	struct host_file f = of(bulk, path, text, strlen(text));

	return vol_bulk_add(bulk, &f, 1);
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
	struct host_file files[4];
	struct host_op ops[] = {
		{.type = HOST_PUT, .key = "k", .key_len = 1, .value = "v", .value_len = 1},
		{.type = HOST_STATE, .key = "user.state", .key_len = 10, .value = "ok", .value_len = 2}};
	struct vol_bulk *bulk = begin();
	struct vol_attr attr, root, expected;
	char value[16];
	int n = 0;

	(void)state;
	memset(large, 'L', LARGE);
	files[0] = of(bulk, "x", "one", 3);
	files[1] = of(bulk, "a/b/y", large, LARGE);
	files[2] = of(bulk, "a/z", "", 0);
	files[3] = of(bulk, "a/b/w", "four", 4);
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
		files[i] = of(bulk, names[i], names[i], strlen(names[i]));
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
	struct vol_bulk *bulk = begin();
	struct host_file y;

	(void)state;
	y = of(bulk, "large", large, LARGE);
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

static struct inode_rec rec_at(const char *path)
{
	struct inode_rec rec;

	assert_int_equal(inode_read(vol, at(path), &rec), 0);
	return rec;
}

static void three_files(const char *name)
{
	struct vol_bulk *bulk = begin();
	struct host_file files[3];

	memset(large, 'L', LARGE);
	files[0] = of(bulk, "before", "before", 6);
	files[1] = of(bulk, "large", large, LARGE);
	files[2] = of(bulk, "after", "after", 5);
	assert_int_equal(vol_bulk_add(bulk, files, 3), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, name, NULL, 0), 0);
	vol_bulk_free(bulk);
}

static void remove_three(const char *name)
{
	uint64_t dir = at(name);

	assert_int_equal(vol_unlink(vol, dir, "before", NULL), 0);
	assert_int_equal(vol_unlink(vol, dir, "large", NULL), 0);
	assert_int_equal(vol_unlink(vol, dir, "after", NULL), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, name, NULL), 0);
}

/* A change makes the content the file's own; who has the file open sees it, and the neighbours stay as they are. */
static void test_changed(void **state)
{
	static char bytes[LARGE];
	struct vol_attr attr = {.size = 100};
	struct vol_file *reader, *other;
	char got[8];

	(void)state;
	three_files("b");
	assert_int_equal(rec_at("b/large").storage, STORAGE_PACK);
	assert_int_equal(blobs_left(), 1);
	assert_int_equal(vol_file_open(vol, at("b/large"), O_RDONLY, &reader), 0);
	assert_int_equal(vol_file_open(vol, at("b/after"), O_RDONLY, &other), 0);
	assert_int_equal(vol_read(reader, got, 4, 0), 4);
	assert_int_equal(vol_read(reader, got, 8, LARGE - 2), 2); /* not the next one's bytes */
	assert_int_equal(vol_read(reader, got, 8, LARGE), 0);
	assert_int_equal(vol_seek(reader, 0, SEEK_HOLE), LARGE);
	assert_int_equal(vol_backing_fd(reader, false), -ENODATA); /* nobody else may read all of the pack */
	write_at("b/large", 0, "new", LARGE - 1); /* over the end: of what follows it in the pack too */
	assert_int_equal(vol_read(reader, got, 8, LARGE - 2), 4);
	assert_memory_equal(got, "Lnew", 4);
	assert_int_equal(vol_read(other, got, 8, 0), 5);
	assert_memory_equal(got, "after", 5);
	write_at("b/before", O_TRUNC, "anew", 0);
	vol_file_close(reader);
	vol_file_close(other);
	for (int round = 0; round < 2; round++) {
		memset(bytes, 'L', LARGE);
		same("b/before", "anew", 4);
		same("b/after", "after", 5);
		assert_int_equal(vol_getattr(vol, at("b/large"), &attr), 0);
		assert_int_equal(attr.size, LARGE + 2);
		assert_int_equal(rec_at("b/large").storage, STORAGE_BLOB);
		assert_int_equal(rec_at("b/before").storage, STORAGE_INLINE);
		assert_int_equal(rec_at("b/after").storage, STORAGE_PACK);
		assert_int_equal(blobs_left(), 2);
		reopen();
	}
	attr.size = 3; /* the last that is in the pack: it goes */
	assert_int_equal(vol_setattr(vol, at("b/after"), &attr, VOL_SET_SIZE, &attr), 0);
	same("b/after", "aft", 3);
	assert_int_equal(blobs_left(), 1);
	remove_three("b");
	assert_int_equal(blobs_left(), 0);
}

/* A pack lives until the last of its inodes ends, which may have another name or be open; and a rename over one is an end too. */
static void test_ends(void **state)
{
	struct vol_file *f, *written;
	char got[8];

	(void)state;
	three_files("b");
	three_files("c");
	assert_int_equal(blobs_left(), 2);
	assert_int_equal(vol_link(vol, at("b/after"), VOL_ROOT, "link", NULL), 0);
	assert_int_equal(vol_file_open(vol, at("b/before"), O_RDONLY, &f), 0);
	remove_three("b");
	assert_int_equal(blobs_left(), 2);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "link", NULL), 0);
	assert_int_equal(vol_read(f, got, 8, 0), 6);
	assert_memory_equal(got, "before", 6);
	vol_file_close(f);
	assert_int_equal(blobs_left(), 1);
	assert_int_equal(vol_unlink(vol, at("c"), "large", NULL), 0);
	same("c/after", "after", 5); /* what the large one had is given back, no more */
	same("c/before", "before", 6);
	assert_int_equal(vol_file_open(vol, at("c/before"), O_RDWR, &written), 0);
	assert_int_equal(vol_rename(vol, at("c"), "after", at("c"), "before", 0, -1), 0);
	assert_int_equal(vol_write(written, "x", 1, 70000), 1); /* to a blob, without a name */
	assert_int_equal(vol_unlink(vol, at("c"), "before", NULL), 0);
	vol_file_close(written);
	assert_int_equal(blobs_left(), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "c", NULL), 0);
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

static int keys(enum cf cf, const char *from, const char *to)
{
	int n = 0;

	assert_int_equal(db_scan(&vol->db, cf, from, strlen(from), to, to ? strlen(to) : 0, count_key, &n),
			 0);
	return n;
}

enum moment { ADDED, PUT, CHANGED, OPEN_UNLINKED, UNLINKED_BUT_ONE, UNLINKED, MOMENTS };

/* In a process that is about to die. */
static bool reach(enum moment moment)
{
	struct vol_bulk *bulk;
	struct host_file files[2];
	struct vol_file *f;
	struct vol_attr attr;
	uint64_t dir;

	if (volume_open(&vol, state_dir, 0, NULL) != 0 || vol_bulk_new(&bulk, vol, &what) != 0)
		return false;
	files[0] = of(bulk, "x", "one", 3);
	files[1] = of(bulk, "y", large, LARGE);
	/* others take numbers in between */
	if (vol_bulk_add(bulk, files, 2) != 0 ||
	    vol_create(vol, VOL_ROOT, "other", &(struct vol_new){.mode = S_IFREG | 0600}, &attr) != 0 ||
	    add(bulk, "z", "three") != 0)
		return false;
	if (moment == ADDED)
		return true;
	if (vol_bulk_put(bulk, VOL_ROOT, "batch", NULL, 0) != 0)
		return false;
	dir = ino_of(VOL_ROOT, "batch");
	if (moment == CHANGED)
		return vol_file_open(vol, files[0].ino, O_RDWR, &f) == 0 && vol_write(f, "O", 1, 0) == 1 &&
		       vol_file_open(vol, files[1].ino, O_RDWR, &f) == 0 && vol_write(f, "O", 1, 0) == 1;
	if (moment == OPEN_UNLINKED) /* written too, which nobody will see */
		return vol_file_open(vol, files[1].ino, O_RDWR, &f) == 0 &&
		       vol_unlink(vol, dir, "y", NULL) == 0 && vol_write(f, "O", 1, 0) == 1;
	if (moment >= UNLINKED_BUT_ONE &&
	    (vol_unlink(vol, dir, "x", NULL) != 0 || vol_unlink(vol, dir, "y", NULL) != 0))
		return false;
	/* as if it died between the batch and what follows: the pack's count is 0 and the file is there */
	if (moment == UNLINKED) {
		struct inode_rec rec;
		struct batch b;
		struct node *node;
		bool gone;

		if (inode_read(vol, ino_of(dir, "z"), &rec) != 0 || batch_init(&b, vol) != 0 ||
		    node_get(vol, ino_of(dir, "z"), &node) != 0)
			return false;
		pthread_mutex_unlock(&node->lock);
		purge_drop_link(vol, &b, node, &rec, &gone);
		b.n_packs = 0;
		{
			struct node *parent;
			struct inode_rec dir_rec;
			struct dentry d;

			if (node_get_dir(vol, dir, &parent) != 0 || dentry_find(vol, dir, "z", &d) != 0)
				return false;
			dir_rec = parent->rec;
			dentry_remove(&b, dir, &dir_rec, "z", &d);
			node_batch(&b, parent, &dir_rec);
		}
		return batch_commit(&b, false) == 0;
	}
	return true;
}

/* The process dies at each moment in the life of a pack: nothing is lost, and nothing is left over. */
static void test_crash(void **state)
{
	static const struct {
		int blobs_after_crash, blobs, packs;
	} expected[MOMENTS] = {
		[ADDED] = {1, 0, 0},
		[PUT] = {1, 1, 1},
		[CHANGED] = {2, 2, 1},
		[OPEN_UNLINKED] = {2, 1, 1},
		[UNLINKED_BUT_ONE] = {1, 1, 1},
		[UNLINKED] = {1, 0, 0},
	};

	(void)state;
	memset(large, 'L', LARGE);
	for (enum moment moment = 0; moment < MOMENTS; moment++) {
		int status;
		pid_t pid;

		volume_close(vol);
		vol = NULL;
		pid = fork();
		if (pid == 0) {
			if (reach(moment))
				kill(getpid(), SIGKILL);
			_exit(1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		fsck_is_clean();
		assert_int_equal(blobs_left(), expected[moment].blobs_after_crash);
		assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
		assert_int_equal(blobs_left(), expected[moment].blobs);
		assert_int_equal(keys(CF_DEFAULT, "P", "Q"), expected[moment].packs);
		assert_int_equal(keys(CF_DEFAULT, "B", "C"), 0);
		if (moment == ADDED) {
			assert_int_equal(ino_of(VOL_ROOT, "batch"), 0);
		} else {
			uint64_t dir = ino_of(VOL_ROOT, "batch");

			if (moment != UNLINKED)
				same("batch/z", "three", 5);
			if (moment < UNLINKED_BUT_ONE)
				same("batch/x", moment == CHANGED ? "One" : "one", 3);
			if (moment == PUT)
				same("batch/y", large, LARGE);
			vol_unlink(vol, dir, "x", NULL);
			vol_unlink(vol, dir, "y", NULL);
			vol_unlink(vol, dir, "z", NULL);
			assert_int_equal(vol_rmdir(vol, VOL_ROOT, "batch", NULL), 0);
		}
		assert_int_equal(blobs_left(), 0);
		assert_int_equal(vol_unlink(vol, VOL_ROOT, "other", NULL), 0);
		volume_close(vol);
		vol = NULL;
		fsck_is_clean(); /* what is left without an inode would be faults now */
		assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	}
}

/* A volume of format 1: it is one of format 2 from its first pack on, and what a crash left of an archive then goes. */
static void test_format(void **state)
{
	char key[KEY_MAX], value[8];
	size_t len = 0;
	struct batch b;

	(void)state;
	assert_int_equal(db_get(&vol->db, CF_DEFAULT, "V", 1, value, 8, &len), 0);
	assert_int_equal(get_le64(value), 1);
	assert_int_equal(batch_init(&b, vol), 0);
	put_le64(value, 5000);
	batch_put(&b, CF_DEFAULT, key, key_tagged(key, 'U', 4000), value, 8);
	batch_put(&b, CF_DATA, key, key_ino(key, 4321), "stray", 5);
	assert_int_equal(batch_commit(&b, false), 0);
	batch_release(&b);
	volume_close(vol);
	vol = NULL;
	fsck_is_clean();
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	assert_int_equal(keys(CF_DEFAULT, "U", "V"), 0);
	assert_int_equal(keys(CF_DATA, "", NULL), 0);
	three_files("b");
	reopen();
	same("b/after", "after", 5);
	assert_int_equal(db_get(&vol->db, CF_DEFAULT, "V", 1, value, 8, &len), 0);
	assert_int_equal(get_le64(value), 2);
}

static char said[4096];

static void note(void *data, const char *line)
{
	(void)data;
	snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s\n", line);
}

/* fsck says so; of what can be mended nothing stays after a repair. */
static void found(const char *expect, uint64_t stays)
{
	struct fsck_report report;

	volume_close(vol);
	vol = NULL;
	said[0] = 0;
	assert_int_equal(volume_fsck(state_dir, false, note, NULL, &report, NULL), 0);
	if (!strstr(said, expect))
		print_message("%s", said);
	assert_non_null(strstr(said, expect));
	assert_int_equal(volume_fsck(state_dir, true, NULL, NULL, &report, NULL), 0);
	assert_int_equal(report.faults - report.repaired, stays);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
}

static int truncateat(const char *name, off_t len)
{
	int fd = openat(vol->blobs_fd, name, O_WRONLY), r = fd < 0 ? -1 : ftruncate(fd, len);

	close(fd);
	return r;
}

static void test_damage(void **state)
{
	char key[KEY_MAX], value[8], name[32];
	struct inode_rec rec;
	struct vol_file *f;
	struct batch b;
	void *content;
	size_t n;

	(void)state;
	for (int count = -1; count < 8; count += 4) { /* no record, one of 3 and one of 7; there are 3 */
		three_files("b");
		rec = rec_at("b/after");
		assert_int_equal(batch_init(&b, vol), 0);
		put_le64(value, (uint64_t)(count < 0 ? 0 : count == 3 ? 2 : count));
		if (count < 0)
			batch_delete(&b, CF_DEFAULT, key, key_tagged(key, 'P', rec.pack));
		else
			batch_put(&b, CF_DEFAULT, key, key_tagged(key, 'P', rec.pack), value, 8);
		assert_int_equal(batch_commit(&b, false), 0);
		batch_release(&b);
		found("inodes and has 3", 0);
		same("b/large", large, LARGE);
		remove_three("b");
		assert_int_equal(blobs_left(), 0);
	}
	/* too short: what lies beyond can't be read, the others can */
	three_files("b");
	rec = rec_at("b/after");
	blob_name(name, rec.pack);
	assert_int_equal(truncateat(name, (off_t)rec.offset + 2), 0);
	found("bytes of", 1);
	same("b/before", "before", 6);
	assert_int_equal(vol_content(vol, at("b/after"), 100, &content, &n), -EIO);
	assert_int_equal(vol_file_open(vol, at("b/after"), O_RDWR, &f), 0);
	assert_int_equal(vol_read(f, key, 5, 0), -EIO);
	assert_int_equal(vol_write(f, "x", 1, 1), -EIO); /* nor half of it be kept */
	vol_file_close(f);
	/* not there at all */
	assert_int_equal(unlinkat(vol->blobs_fd, name, 0), 0);
	found("is not there", 1);
	assert_int_equal(vol_content(vol, at("b/before"), 100, &content, &n), -EIO);
	remove_three("b");
}

#define THREADS 4
#define EACH    500

struct remover {
	uint64_t dir;
	int first;
};

static void *remove_each(void *arg)
{
	const struct remover *r = arg;
	char name[16];

	for (int i = r->first; i < THREADS * EACH; i += THREADS) {
		struct vol_file *f;
		struct vol_attr attr;

		sprintf(name, "%d", i);
		if (i % 5 == 0 && vol_lookup(vol, r->dir, name, &attr) == 0 &&
		    vol_file_open(vol, attr.ino, O_RDWR, &f) == 0) { /* it leaves, and goes */
			vol_write(f, "x", 1, 0);
			vol_file_close(f);
		}
		if (vol_unlink(vol, r->dir, name, NULL) != 0)
			return arg;
	}
	return NULL;
}

/* Its inodes end in all threads at once: none of them is counted twice, or not at all. */
static void test_threads(void **state)
{
	static struct host_file files[THREADS * EACH + 1];
	static char names[THREADS * EACH + 1][16];
	struct vol_bulk *bulk = begin();
	struct remover removers[THREADS];
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i <= THREADS * EACH; i++) {
		sprintf(names[i], "%d", i);
		files[i] = of(bulk, names[i], names[i], strlen(names[i]));
	}
	assert_int_equal(vol_bulk_add(bulk, files, THREADS * EACH + 1), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "b", NULL, 0), 0);
	vol_bulk_free(bulk);
	for (int i = 0; i < THREADS; i++) {
		removers[i] = (struct remover){at("b"), i};
		assert_int_equal(pthread_create(&threads[i], NULL, remove_each, &removers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		void *failed;

		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	assert_int_equal(blobs_left(), 1);
	same("b/2000", "2000", 4); /* the last one */
	assert_int_equal(vol_unlink(vol, at("b"), "2000", NULL), 0);
	assert_int_equal(blobs_left(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_all),     T(test_many),   T(test_refused), T(test_setgid),
					   T(test_changed), T(test_ends),   T(test_crash),   T(test_format),
					   T(test_damage),  T(test_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
