/* Contents that lie in the archive they came in: neither's changes reach the other, also over a crash. */
#include "tests/unit/bulk_test.h"

#include "fs/volume/private.h"

#include <signal.h>
#include <sys/wait.h>

#define ARCHIVE 200000

static char archive_bytes[ARCHIVE];

static void share_bytes(void)
{
	for (int i = 0; i < ARCHIVE; i++)
		archive_bytes[i] = (char)(i * 7 + i / 256);
}

/* A file of ARCHIVE bytes, in a blob, and a batch of which a and b lie in it, c does not. */
static uint64_t share(const char *name, const char *batch)
{
	struct vol_new new = {.mode = S_IFREG | 0644, .content = archive_bytes, .content_len = ARCHIVE};
	struct vol_bulk *bulk = begin();
	struct host_file files[3];
	struct vol_attr attr;
	uint64_t len;
	int fd;

	share_bytes();
	assert_int_equal(vol_create(vol, VOL_ROOT, name, &new, &attr), 0);
	assert_int_equal(vol_bulk_share(bulk, attr.ino, &fd, &len), 0);
	assert_int_equal(len, ARCHIVE);
	assert_int_equal(vol_bulk_share(bulk, attr.ino, &fd, &len), -EINVAL);
	files[0] = (struct host_file){.path = "a", .offset = 100, .len = 1000, .shared = true};
	files[1] = (struct host_file){.path = "b", .offset = 1500, .len = 150000, .shared = true};
	files[2] = of(bulk, "c", "written", 7);
	assert_int_equal(vol_bulk_add(bulk, files, 3), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, batch, NULL, 0), 0);
	vol_bulk_free(bulk);
	return attr.ino;
}

static void same_member(const char *batch, const char *name, const void *data, size_t len)
{
	char path[32];

	assert_true(snprintf(path, sizeof(path), "%s/%s", batch, name) < (int)sizeof(path));
	same(path, data, len);
}

static void same_shared(const char *batch)
{
	same_member(batch, "a", archive_bytes + 100, 1000);
	same_member(batch, "b", archive_bytes + 1500, 150000);
	same_member(batch, "c", "written", 7);
}

static void remove_shared(const char *batch)
{
	uint64_t dir = at(batch);

	assert_int_equal(vol_unlink(vol, dir, "a", NULL), 0);
	assert_int_equal(vol_unlink(vol, dir, "b", NULL), 0);
	assert_int_equal(vol_unlink(vol, dir, "c", NULL), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, batch, NULL), 0);
}

/* Contents that lie in the archive: whatever is done to it, they stay; whatever becomes of them, it stays. */
static void test_shared(void **state)
{
	struct vol_attr attr = {.size = 10};
	struct vol_file *f, *reader;
	char got[8];

	(void)state;
	share("x.tar", "x");
	assert_int_equal(blobs_left(), 3);
	same_shared("x");
	assert_int_equal(vol_file_open(vol, at("x.tar"), O_RDONLY, &reader), 0);
	assert_int_equal(vol_read(reader, got, 8, 100), 8);
	assert_int_equal(vol_backing_fd(reader, false), -ENODATA); /* it will be another file */
	/* written in place */
	assert_int_equal(vol_file_open(vol, at("x.tar"), O_RDWR, &f), 0);
	assert_int_equal(vol_write(f, "changed", 7, 100), 7);
	assert_int_equal(vol_read(reader, got, 8, 100), 8); /* who had it open sees it */
	assert_memory_equal(got, "changed", 7);
	vol_file_close(f);
	vol_file_close(reader);
	same_shared("x");
	reopen();
	same_shared("x");
	memcpy(archive_bytes + 100, "changed", 7);
	same("x.tar", archive_bytes, ARCHIVE);
	remove_shared("x");
	assert_int_equal(blobs_left(), 1);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "x.tar", NULL), 0);
	/* shortened; emptied; removed */
	share("x.tar", "x");
	assert_int_equal(vol_setattr(vol, at("x.tar"), &attr, VOL_SET_SIZE, &attr), 0);
	same("x.tar", archive_bytes, 10);
	same_shared("x");
	share("y.tar", "y");
	write_at("y.tar", O_TRUNC, "short", 0);
	same("y.tar", "short", 5);
	same_shared("y");
	share("z.tar", "z");
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "z.tar", NULL), 0);
	same_shared("z");
	/* the room of a large member is not given back where the archive has it, nor are its neighbours' bytes */
	share("v.tar", "v");
	assert_int_equal(vol_unlink(vol, at("v"), "b", NULL), 0);
	same("v.tar", archive_bytes, ARCHIVE);
	same("v/a", archive_bytes + 100, 1000);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "v.tar", NULL), 0);
	same("v/a", archive_bytes + 100, 1000);
	/* the members go, and are changed, first */
	share("w.tar", "w");
	write_at("w/a", 0, "mine", 0);
	same("w.tar", archive_bytes, ARCHIVE);
	same("w/b", archive_bytes + 1500, 150000);
	remove_shared("w");
	same("w.tar", archive_bytes, ARCHIVE);
	reopen();
	same("w.tar", archive_bytes, ARCHIVE);
	write_at("w.tar", 0, "again", 0); /* alone again: in place */
	assert_int_equal(blobs_left(), 11);
	assert_int_equal(vol_unlink(vol, at("v"), "a", NULL), 0);
	assert_int_equal(vol_unlink(vol, at("v"), "c", NULL), 0);
	remove_shared("x");
	remove_shared("y");
	remove_shared("z");
	assert_int_equal(blobs_left(), 3);
}

/* What can't be shared is said to be so. */
static void test_unshared(void **state)
{
	struct vol_bulk *bulk = begin();
	struct host_file f = {.path = "f", .offset = 1, .len = 1, .shared = true};
	struct vol_file *open;
	uint64_t len;
	int fd;

	(void)state;
	assert_int_equal(vol_bulk_add(bulk, &f, 1), -EINVAL);
	file(VOL_ROOT, "small");
	assert_int_equal(vol_bulk_share(bulk, at("small"), &fd, &len), -ENODATA);
	share("x.tar", "x");
	assert_int_equal(vol_bulk_share(bulk, at("x/b"), &fd, &len), -ENODATA);
	assert_int_equal(vol_file_open(vol, at("x.tar"), O_RDWR, &open), 0);
	assert_int_equal(vol_bulk_share(bulk, at("x.tar"), &fd, &len), -ENODATA);
	vol_file_close(open);
	assert_int_equal(vol_bulk_share(bulk, at("x.tar"), &fd, &len), 0); /* a second time */
	vol_bulk_free(bulk);
	same_shared("x");
}

/* Dies while the archive is being changed, between any two steps that last. */
static void test_share_crash(void **state)
{
	(void)state;
	for (int moment = 0; moment < 3; moment++) {
		char name[32], batch[32];
		int status;
		pid_t pid;

		sprintf(name, "%d.tar", moment);
		sprintf(batch, "%d", moment);
		volume_close(vol);
		vol = NULL;
		pid = fork();
		if (pid == 0) {
			struct inode_rec rec;
			struct node *node;
			struct vol_file *f;
			struct vol_bulk *bulk;
			uint64_t ino, len;
			int fd;

			if (volume_open(&vol, state_dir, 0, NULL) != 0)
				_exit(1);
			ino = share(name, batch);
			if (moment == 0) { /* shared once more, and never put */
				bulk = begin();
				vol_bulk_share(bulk, ino, &fd, &len);
			} else if (moment == 1) { /* its record is short, its blob still the shared one */
				node_get(vol, ino, &node);
				rec = node->rec;
				rec.size = 10;
				node_commit(vol, node, &rec, false);
			} else { /* changed, and not synced */
				vol_file_open(vol, ino, O_RDWR, &f);
				vol_write(f, "changed", 7, 0);
			}
			kill(getpid(), SIGKILL);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		share_bytes();
		fsck_is_clean();
		assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
		same_shared(batch);
		if (moment == 2)
			memcpy(archive_bytes, "changed", 7);
		same(name, archive_bytes, moment == 1 ? 10 : ARCHIVE);
		share_bytes();
		if (moment == 1) {
			struct vol_attr attr = {.size = 30}; /* what was cut must not come back */
			char expected[30] = "";

			memcpy(expected, archive_bytes, 10);
			assert_int_equal(vol_setattr(vol, at(name), &attr, VOL_SET_SIZE, &attr), 0);
			same(name, expected, 30);
			same_shared(batch);
		}
		assert_int_equal(blobs_left(), 3);
		remove_shared(batch);
		assert_int_equal(vol_unlink(vol, VOL_ROOT, name, NULL), 0);
		assert_int_equal(blobs_left(), 0);
	}
}

static bool is_memory(const char *path)
{
	uint64_t len;
	bool ret;
	int fd;

	assert_int_equal(vol_content_fd(vol, at(path), &fd, &len), 0);
	ret = fcntl(fd, F_GET_SEALS) >= 0;
	close(fd);
	return ret;
}

/* One large content in a file of its own: given to others as it is, and gone with its name. */
static void test_apart(void **state)
{
	int before = blobs_left(), fd;
	struct vol_bulk *bulk = begin();
	struct host_file files[2];
	uint64_t len;

	(void)state;
	share_bytes();
	assert_int_equal(vol_bulk_apart(bulk, &fd), 0);
	assert_int_equal(vol_bulk_apart(bulk, &fd), -EINVAL);
	assert_int_equal(write(fd, archive_bytes, ARCHIVE), ARCHIVE);
	files[0] = of(bulk, "model.json", "{}", 2);
	files[1] = (struct host_file){.path = "weights", .len = ARCHIVE, .shared = true};
	assert_int_equal(vol_bulk_add(bulk, files, 2), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "m", NULL, 0), 0);
	vol_bulk_free(bulk);
	assert_int_equal(blobs_left(), before + 2);
	same("m/model.json", "{}", 2);
	same("m/weights", archive_bytes, ARCHIVE);
	assert_false(is_memory("m/weights"));
	reopen();
	same("m/weights", archive_bytes, ARCHIVE);
	assert_false(is_memory("m/weights"));
	assert_int_equal(vol_unlink(vol, at("m"), "weights", NULL), 0);
	assert_int_equal(blobs_left(), before + 1);
	assert_int_equal(vol_unlink(vol, at("m"), "model.json", NULL), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "m", NULL), 0);
	assert_int_equal(blobs_left(), before);
	/* the whole of an archive, too, but not a part at its beginning */
	share("x.tar", "x");
	assert_true(is_memory("x/a"));
	bulk = begin();
	assert_int_equal(vol_bulk_share(bulk, at("x.tar"), &fd, &len), 0);
	files[0] = (struct host_file){.path = "part", .len = 1000, .shared = true};
	files[1] = (struct host_file){.path = "all", .len = ARCHIVE, .shared = true};
	assert_int_equal(vol_bulk_add(bulk, files, 2), 0);
	assert_int_equal(vol_bulk_put(bulk, VOL_ROOT, "y", NULL, 0), 0);
	vol_bulk_free(bulk);
	assert_true(is_memory("y/part"));
	assert_false(is_memory("y/all"));
	write_at("x.tar", 0, "changed", 0);
	same("y/all", archive_bytes, ARCHIVE);
	remove_shared("x");
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "x.tar", NULL), 0);
	assert_int_equal(vol_unlink(vol, at("y"), "part", NULL), 0);
	assert_int_equal(vol_unlink(vol, at("y"), "all", NULL), 0);
	assert_int_equal(vol_rmdir(vol, VOL_ROOT, "y", NULL), 0);
	/* not put */
	bulk = begin();
	assert_int_equal(vol_bulk_apart(bulk, &fd), 0);
	assert_int_equal(write(fd, archive_bytes, ARCHIVE), ARCHIVE);
	vol_bulk_free(bulk);
	assert_int_equal(blobs_left(), before);
	volume_close(vol);
	fsck_is_clean();
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_shared), T(test_unshared), T(test_apart),
					   T(test_share_crash)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
