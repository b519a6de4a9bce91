/* A disk that takes no more writes, by RLIMIT_FSIZE, or has no room for some; and what is on it before that counts. */
#include "tests/unit/volume_test.h"

#include <dlfcn.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int synced;

/* In place of libc's, for all of the program. */
int fdatasync(int fd)
{
	synced++;
	return (int)syscall(SYS_fdatasync, fd);
}

static bool full; /* RocksDB's log finds no room */

void rocksdb_write(rocksdb_t *db, const rocksdb_writeoptions_t *options, rocksdb_writebatch_t *batch,
		   char **errptr)
{
	__typeof__(rocksdb_write) *whole = (__typeof__(rocksdb_write) *)dlsym(RTLD_NEXT, "rocksdb_write");

	if (full)
		*errptr = strdup("IO error: No space left on device");
	else
		whole(db, options, batch, errptr);
}

static void limit(rlim_t bytes)
{
	struct rlimit r;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static int put_file(const char *name, const void *data, size_t len, bool status, uint64_t *ret_ino)
{
	struct vol_put put = {.when.tv_sec = 12345, .status = status};
	int r = vol_reserve(vol, &put.ino);

	if (ret_ino)
		*ret_ino = put.ino;
	return r < 0 ? r
		     : vol_put(vol, VOL_ROOT, name,
			       &(struct vol_new){.mode = S_IFREG | 0444, .content = data, .content_len = len},
			       &put, NULL);
}

static void expect_text(const char *name, const char *text)
{
	struct vol_attr attr;
	void *data = NULL;
	size_t len;

	assert_int_equal(vol_lookup(vol, VOL_ROOT, name, &attr), 0);
	assert_int_equal(attr.size, strlen(text));
	assert_int_equal(vol_content(vol, attr.ino, 1 << 20, &data, &len), 0);
	assert_string_equal(data, text);
	free(data);
}

static int inos_of(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	(void)cookie;
	if (strcmp(name, "status") == 0)
		*(uint64_t *)data = attr->ino;
	return 0;
}

/* As a process of its own: what has failed is not closed, but ends as by kill -9. */
static void failing(void)
{
	struct vol_attr attr, kept;
	struct vol_file *f, *reading;
	uint64_t ino, stored, listed = 0;
	char line[256], text[8];

	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	assert_int_equal(
		vol_create(vol, VOL_ROOT, "kept",
			   &(struct vol_new){.mode = S_IFREG | 0644, .content = "kept", .content_len = 4},
			   &kept),
		0);
	assert_int_equal(put_file("status", "well", 4, true, &stored), 0);
	assert_int_equal(vol_file_open(vol, kept.ino, O_RDWR, &f), 0);
	assert_false(volume_trouble(vol, line, sizeof(line)));

	limit(1);
	assert_int_equal(vol_create(vol, VOL_ROOT, "new", &(struct vol_new){.mode = S_IFREG | 0644}, &attr),
			 -EIO);
	assert_true(volume_trouble(vol, line, sizeof(line)));
	assert_non_null(strstr(line, "volume read-only since 20"));
	assert_non_null(strstr(line, "mount again"));
	/* What can't be kept is refused at the call … */
	assert_int_equal(vol_write(f, "x", 1, 0), -EROFS);
	assert_int_equal(vol_fallocate(f, 0, 0, 100), -EROFS);
	assert_int_equal(vol_fsync(f, false), -EROFS);
	assert_int_equal(vol_setattr(vol, kept.ino, &(struct vol_attr){0}, VOL_SET_SIZE, NULL), -EROFS);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "kept", NULL), -EROFS);
	assert_int_equal(vol_setxattr(vol, kept.ino, "user.x", "y", 1, 0), -EROFS);
	assert_int_equal(put_file("answer", "x", 1, false, NULL), -EROFS);
	vol_file_close(f);
	expect_text("kept", "kept");
	/* … and what inferfs says of itself is there, and only there. */
	assert_int_equal(put_file("status", "failed", 6, true, &ino), 0);
	assert_int_not_equal(ino, stored);
	expect_text("status", "failed");
	assert_int_equal(vol_readdir(vol, VOL_ROOT, 0, true, inos_of, &listed), 0);
	assert_int_equal(listed, ino);
	assert_int_equal(vol_file_open(vol, ino, O_RDWR, &reading), -EROFS);
	assert_int_equal(vol_file_open(vol, ino, O_RDONLY, &reading), 0);
	assert_int_equal(put_file("status", "failed again", 12, true, NULL), 0);
	expect_text("status", "failed again");
	assert_int_equal(vol_read(reading, text, sizeof(text), 0), 6);
	assert_memory_equal(text, "failed", 6);
	vol_file_close(reading);
	assert_int_equal(vol_getattr(vol, ino, &attr), -ESTALE);
	assert_int_equal(put_file("other", "new", 3, true, NULL), 0);
	expect_text("other", "new");

	limit(RLIM_INFINITY);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "kept", NULL), -EROFS); /* until the log was read */
	volume_close(vol);
}

static void test_status(void **state)
{
	struct vol_attr attr;
	char line[256];
	int status;
	pid_t pid;

	(void)state;
	volume_close(vol);
	vol = NULL;
	pid = fork();
	if (pid == 0) {
		failing();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	expect_text("status", "well");
	expect_text("kept", "kept");
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "new", &attr), -ENOENT);
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "other", &attr), -ENOENT);
	assert_int_equal(vol_create(vol, VOL_ROOT, "new", &(struct vol_new){.mode = S_IFREG | 0644}, &attr),
			 0);
	assert_true(attr.ino < UINT64_C(1) << 62);
	assert_false(volume_trouble(vol, line, sizeof(line)));
}

/* Its record may get to the disk with anybody's fsync: the bytes of a large file that is put must be there before. */
static void test_large_put(void **state)
{
	static char data[100000];
	uint64_t ino;
	char path[128];
	struct fsck_report report;

	(void)state;
	synced = 0;
	assert_int_equal(put_file("small", "x", 1, false, NULL), 0);
	assert_int_equal(synced, 0);
	assert_int_equal(put_file("large", data, sizeof(data), false, &ino), 0);
	assert_int_equal(synced, 1);
	/* So one that is short is a fault, as after an fsync. */
	volume_close(vol);
	vol = NULL;
	snprintf(path, sizeof(path), "%s/blobs/%02x/%016x", state_dir, (unsigned)ino & 0xff, (unsigned)ino);
	assert_int_equal(truncate(path, 10), 0);
	assert_int_equal(volume_fsck(state_dir, false, NULL, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 1);
	assert_int_equal(truncate(path, sizeof(data)), 0);
}

#define SMALL 1000
#define LARGE 100000

/* What is there: n bytes, those before `from` zero, the others x. */
static void expect_end(uint64_t ino, size_t n, size_t from)
{
	struct vol_attr attr;
	void *data = NULL;
	size_t len;

	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	assert_int_equal(attr.size, n);
	assert_int_equal(vol_content(vol, ino, 1 << 20, &data, &len), 0);
	assert_int_equal(len, n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(((char *)data)[i], i < from ? 0 : 'x');
	free(data);
}

/* A file of old bytes is opened with O_TRUNC, and then `written` bytes, which are kept nowhere, are refused. */
static struct vol_file *refused(const char *name, size_t old, size_t written, uint64_t *ret_ino)
{
	static char data[LARGE];
	struct vol_file *f;

	memset(data, 'o', sizeof(data));
	*ret_ino = file(VOL_ROOT, name);
	assert_int_equal(vol_file_open(vol, *ret_ino, O_RDWR, &f), 0);
	assert_int_equal(vol_write(f, data, old, 0), old);
	vol_file_close(f);
	assert_int_equal(vol_file_open(vol, *ret_ino, O_RDWR | O_TRUNC, &f), 0);
	full = true;
	assert_int_equal(vol_write(f, data, written, 0), -ENOSPC);
	full = false;
	return f;
}

/* The truncation by an open holds when the write after it fails: nothing of what was there comes back, nor of the write. */
static void test_truncated(void **state)
{
	static const struct {
		const char *name;
		size_t old, written;
	} cases[] = {
		{"small, small", SMALL, 2 * SMALL},
		{"small, large", SMALL, LARGE},
		{"large, large", LARGE, LARGE / 2},
	};
	uint64_t ino[3], again[3];
	struct vol_file *f;
	char name[32], byte;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		f = refused(cases[i].name, cases[i].old, cases[i].written, &ino[i]);
		expect_end(ino[i], 0, 0);
		assert_int_equal(vol_read(f, &byte, 1, 0), 0);
		vol_file_close(f);
		expect_end(ino[i], 0, 0);
		snprintf(name, sizeof(name), "%s, x", cases[i].name);
		f = refused(name, cases[i].old, cases[i].written, &again[i]);
		assert_int_equal(vol_write(f, "x", 1, 3 * SMALL), 1);
		vol_file_close(f);
		expect_end(again[i], 3 * SMALL + 1, 3 * SMALL);
	}
	reopen();
	for (size_t i = 0; i < 3; i++) {
		expect_end(ino[i], 0, 0);
		expect_end(again[i], 3 * SMALL + 1, 3 * SMALL);
	}
}

/* Without a truncation a write that fails changes nothing. */
static void test_kept(void **state)
{
	uint64_t ino = file(VOL_ROOT, "f");
	struct vol_file *f;

	(void)state;
	assert_int_equal(vol_file_open(vol, ino, O_RDWR, &f), 0);
	assert_int_equal(vol_write(f, "xx", 2, 1), 2);
	full = true;
	assert_int_equal(vol_write(f, "oooo", 4, 0), -ENOSPC);
	assert_int_equal(vol_fallocate(f, 0, 0, 100), -ENOSPC);
	full = false;
	expect_end(ino, 3, 1);
	vol_file_close(f);
	expect_end(ino, 3, 1);
	reopen();
	expect_end(ino, 3, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_status),
		T(test_large_put),
		T(test_truncated),
		T(test_kept),
	};

	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
