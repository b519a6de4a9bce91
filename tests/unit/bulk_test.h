/* For the tests of files that come many at once: a bulk, and what is there of it. */
#ifndef TESTS_UNIT_BULK_TEST_H
#define TESTS_UNIT_BULK_TEST_H

#include "tests/unit/volume_test.h"

#include "fs/volume/bulk.h"

static const struct vol_bulk_what what = {
	.uid = 7, .gid = 8, .dir_mode = 0750, .file_mode = 0640, .kind = 4, .dir_kind = 5, .file_kind = 6};

/* Its content is at the end of the pack. */
static inline struct host_file of(struct vol_bulk *bulk, const char *path, const void *data, size_t len)
{
	off_t at = lseek(vol_bulk_fd(bulk), 0, SEEK_END);

	assert_true(at >= 0 && write(vol_bulk_fd(bulk), data, len) == (ssize_t)len);
	return (struct host_file){.path = path, .offset = (uint64_t)at, .len = len};
}

static inline struct vol_bulk *begin(void)
{
	struct vol_bulk *bulk;

	assert_int_equal(vol_bulk_new(&bulk, vol, &what), 0);
	return bulk;
}

static inline void same(const char *path, const char *data, size_t len)
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

static inline void fsck_is_clean(void)
{
	struct fsck_report report = {0};

	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 0);
}

static inline int blobs_left(void)
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

static inline uint64_t at(const char *path)
{
	struct vol_attr attr;

	assert_int_equal(vol_resolve(vol, VOL_ROOT, path, &attr), 0);
	return attr.ino;
}

static inline void write_at(const char *path, int flags, const char *text, uint64_t offset)
{
	struct vol_file *f;

	assert_int_equal(vol_file_open(vol, at(path), O_RDWR | flags, &f), 0);
	assert_int_equal(vol_write(f, text, strlen(text), offset), strlen(text));
	vol_file_close(f);
}

#endif
