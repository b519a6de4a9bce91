/* A disk that takes no more writes, by RLIMIT_FSIZE, and what is on it before that counts. */
#include "tests/unit/volume_test.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_status),
		T(test_large_put),
	};

	signal(SIGXFSZ, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
