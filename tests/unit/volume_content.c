/* Contents: small and large ones, holes, truncation, what close, fsync and unlink promise. */
#include "tests/unit/volume_test.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define INLINE_MAX (64 * 1024)
#define LARGE      (INLINE_MAX + 5000)

static struct vol_file *open_(uint64_t ino, int flags)
{
	struct vol_file *f;

	assert_int_equal(vol_file_open(vol, ino, flags, &f), 0);
	return f;
}

static void fill(char *data, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		data[i] = (char)((i * 2654435761u + seed) >> 13);
}

static void put(uint64_t ino, const void *data, size_t n, uint64_t offset)
{
	struct vol_file *f = open_(ino, O_WRONLY);

	assert_int_equal(vol_write(f, data, n, offset), n);
	vol_file_close(f);
}

static void expect(uint64_t ino, const char *data, size_t n)
{
	struct vol_attr attr;
	void *content;
	size_t len;

	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	assert_int_equal(attr.size, n);
	assert_int_equal(vol_content(vol, ino, n, &content, &len), 0);
	assert_int_equal(len, n);
	assert_memory_equal(content, data, n);
	free(content);
}

static int blobs(void)
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

static void set_size(uint64_t ino, uint64_t size)
{
	struct vol_attr set = {.size = size};

	assert_int_equal(vol_setattr(vol, ino, &set, VOL_SET_SIZE, NULL), 0);
}

static void test_small(void **state)
{
	uint64_t ino = file(VOL_ROOT, "f");
	struct vol_file *f = open_(ino, O_RDWR), *g = open_(ino, O_RDONLY), *h = open_(ino, O_WRONLY);
	struct vol_attr attr;
	char data[16];

	(void)state;
	assert_int_equal(vol_file_ino(f), ino);
	assert_int_equal(vol_read(f, data, sizeof(data), 0), 0);
	assert_int_equal(vol_write(f, "world", 5, 6), 5);
	assert_int_equal(vol_read(g, data, sizeof(data), 0), 11);
	assert_memory_equal(data, "\0\0\0\0\0\0world", 11);
	assert_int_equal(vol_write(h, "hello,", 6, 0), 6);
	assert_int_equal(vol_getattr(vol, ino, &attr), 0); /* before any flush */
	assert_int_equal(attr.size, 11);
	assert_int_equal(vol_read(g, data, 4, 9), 2);
	assert_int_equal(vol_write(g, "x", 1, 0), -EBADF);
	assert_int_equal(vol_read(h, data, 1, 0), -EBADF);
	assert_int_equal(vol_write(f, "x", 1, INT64_MAX), -EFBIG);
	assert_int_equal(vol_flush(f), 0);
	assert_int_equal(vol_fsync(f, false), 0);
	vol_file_close(f);
	vol_file_close(g);
	vol_file_close(h);
	reopen();
	expect(ino, "hello,world", 11);
	assert_int_equal(blobs(), 0);
	assert_int_equal(vol_file_open(vol, VOL_ROOT, O_RDONLY, &f), -EISDIR);
	assert_int_equal(vol_file_open(vol, 777, O_RDONLY, &f), -ESTALE);
	assert_int_equal(vol_fsync_dir(vol, VOL_ROOT), 0);
	assert_int_equal(vol_fsync_dir(vol, ino), -ENOTDIR);
}

/* A file grows over the threshold while it is written, in pieces, with an overwrite. */
static void test_large(void **state)
{
	uint64_t ino = file(VOL_ROOT, "f");
	struct vol_file *f = open_(ino, O_RDWR);
	static char data[4 * LARGE], got[4 * LARGE];
	struct vol_attr attr;

	(void)state;
	fill(data, sizeof(data), 1);
	for (size_t at = 0; at < sizeof(data); at += 5000) {
		size_t n = sizeof(data) - at < 5000 ? sizeof(data) - at : 5000;

		assert_int_equal(vol_write(f, data + at, n, at), n);
		if (at == 20000)
			assert_int_equal(vol_flush(f), 0);
	}
	fill(data + 100, 3000, 2);
	assert_int_equal(vol_write(f, data + 100, 3000, 100), 3000);
	assert_int_equal(vol_read(f, got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got, data, sizeof(got));
	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	assert_int_equal(attr.size, sizeof(data));
	assert_in_range(attr.blocks, sizeof(data) / 512, sizeof(data) / 512 + 64);
	vol_file_close(f);
	assert_int_equal(blobs(), 1);
	reopen();
	expect(ino, data, sizeof(data));
	f = open_(ino, O_RDWR);
	assert_int_equal(vol_write(f, "x", 1, 7), 1);
	data[7] = 'x';
	assert_int_equal(vol_fsync(f, true), 0);
	vol_file_close(f);
	expect(ino, data, sizeof(data));
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), 0);
	assert_int_equal(blobs(), 0);
}

static void test_truncate(void **state)
{
	static char data[LARGE], zeros[4 * LARGE];
	uint64_t s = file(VOL_ROOT, "small"), l = file(VOL_ROOT, "large"), g = file(VOL_ROOT, "grown");
	struct vol_file *f;

	(void)state;
	fill(data, sizeof(data), 3);
	put(s, data, 1000, 0);
	set_size(s, 10);
	expect(s, data, 10);
	set_size(s, 20); /* the cut bytes must not come back */
	memcpy(zeros, data, 10);
	expect(s, zeros, 20);
	memset(zeros, 0, 10);
	f = open_(s, O_WRONLY); /* the same, in memory only */
	set_size(s, 5);
	assert_int_equal(vol_write(f, "z", 1, 9), 1);
	vol_file_close(f);
	memcpy(zeros, data, 5);
	zeros[9] = 'z';
	expect(s, zeros, 10);
	memset(zeros, 0, 10);

	put(l, data, LARGE, 0);
	set_size(l, 70);
	expect(l, data, 70);
	set_size(l, LARGE);
	memcpy(zeros, data, 70);
	expect(l, zeros, LARGE);
	reopen();
	expect(l, zeros, LARGE);
	memset(zeros, 0, 70);
	f = open_(l, O_WRONLY | O_TRUNC);
	vol_file_close(f);
	expect(l, "", 0);

	set_size(g, 4 * LARGE); /* sparse */
	expect(g, zeros, 4 * LARGE);
	put(s, data, 10, 0);
	f = open_(s, O_WRONLY | O_TRUNC);
	assert_int_equal(vol_write(f, "ab", 2, 1), 2);
	vol_file_close(f);
	reopen();
	expect(s, "\0ab", 3);
}

static void test_holes(void **state)
{
	static char data[4 * LARGE], got[4 * LARGE];
	uint64_t ino = file(VOL_ROOT, "f"), s = file(VOL_ROOT, "s");
	struct vol_file *f = open_(ino, O_RDWR), *g = open_(s, O_RDWR);
	struct vol_attr attr;

	(void)state;
	fill(data, sizeof(data), 5);
	assert_int_equal(vol_write(f, data, sizeof(data), 0), sizeof(data));
	assert_int_equal(vol_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 65536), 0);
	memset(data + 8192, 0, 65536);
	assert_int_equal(vol_read(f, got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got, data, sizeof(got));
	assert_int_equal(vol_seek(f, 0, SEEK_HOLE), 8192);
	assert_int_equal(vol_seek(f, 8192, SEEK_DATA), 8192 + 65536);
	assert_int_equal(vol_seek(f, sizeof(data), SEEK_DATA), -ENXIO);
	assert_int_equal(vol_seek(f, 0, SEEK_SET), -EINVAL);
	assert_int_equal(vol_fallocate(f, 0, 0, sizeof(data) + 4096), 0);
	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	assert_int_equal(attr.size, sizeof(data) + 4096);
	assert_int_equal(vol_fallocate(f, FALLOC_FL_KEEP_SIZE, 0, sizeof(data) + 65536), 0);
	assert_int_equal(vol_getattr(vol, ino, &attr), 0);
	assert_int_equal(attr.size, sizeof(data) + 4096);
	assert_int_equal(vol_fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	assert_int_equal(vol_fallocate(f, 0, 0, 0), -EINVAL);
	vol_file_close(f);

	assert_int_equal(vol_write(g, "abcdef", 6, 0), 6);
	assert_int_equal(vol_fallocate(g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2), 0);
	assert_int_equal(vol_fallocate(g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5, 100), 0);
	assert_int_equal(vol_fallocate(g, FALLOC_FL_ZERO_RANGE, 4, 4), 0);
	assert_int_equal(vol_seek(g, 2, SEEK_DATA), 2);
	assert_int_equal(vol_seek(g, 2, SEEK_HOLE), 8);
	vol_file_close(g);
	expect(s, "a\0\0d\0\0\0\0", 8);
}

static void unlinked(size_t size)
{
	static char data[LARGE], got[LARGE];
	uint64_t ino = file(VOL_ROOT, "f");
	struct vol_file *f = open_(ino, O_RDWR), *g = open_(ino, O_RDONLY);
	struct vol_attr attr;

	fill(data, size, 9);
	assert_int_equal(vol_write(f, data, size, 0), size);
	assert_int_equal(vol_setxattr(vol, ino, "user.a", "b", 1, 0), 0);
	assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", &attr), 0);
	assert_int_equal(attr.nlink, 0);
	assert_int_equal(vol_read(g, got, size, 0), size);
	assert_memory_equal(got, data, size);
	assert_int_equal(vol_write(f, "x", 1, 0), 1);
	assert_int_equal(vol_link(vol, ino, VOL_ROOT, "again", NULL), -ENOENT);
	assert_int_equal(vol_flush(f), 0);
	vol_file_close(f);
	assert_int_equal(vol_read(g, got, 1, 0), 1);
	assert_int_equal(got[0], 'x');
	vol_file_close(g);
	assert_int_equal(vol_getattr(vol, ino, &attr), -ESTALE);
	assert_int_equal(vol_getxattr(vol, ino, "user.a", NULL, 0), -ESTALE);
	assert_int_equal(blobs(), 0);
}

static void test_unlinked_while_open(void **state)
{
	(void)state;
	unlinked(100);
	unlinked(LARGE);
}

static void test_replaced_while_open(void **state)
{
	uint64_t a = file(VOL_ROOT, "a"), b = file(VOL_ROOT, "b");
	struct vol_file *f = open_(b, O_RDWR);
	struct vol_attr attr;
	char got[4];

	(void)state;
	assert_int_equal(vol_write(f, "old", 3, 0), 3);
	assert_int_equal(vol_rename(vol, VOL_ROOT, "a", VOL_ROOT, "b", 0, -1), 0);
	assert_int_equal(ino_of(VOL_ROOT, "b"), a);
	assert_int_equal(vol_read(f, got, 3, 0), 3);
	assert_memory_equal(got, "old", 3);
	vol_file_close(f);
	assert_int_equal(vol_getattr(vol, b, &attr), -ESTALE);
}

static void content_fd(uint64_t ino, const char *data, size_t n)
{
	uint64_t len;
	char *map;
	int fd;

	assert_int_equal(vol_content_fd(vol, ino, &fd, &len), 0);
	assert_int_equal(len, n);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
	assert_int_equal(write(fd, "x", 1), -1);
	map = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_memory_equal(map, data, n);
	munmap(map, n);
	close(fd);
}

static void test_content(void **state)
{
	static char data[LARGE];
	struct vol_new what = {.mode = S_IFREG | 0444, .content = data};
	struct vol_attr attr;

	(void)state;
	fill(data, sizeof(data), 11);
	what.content_len = 500;
	assert_int_equal(vol_create(vol, VOL_ROOT, "s", &what, &attr), 0);
	assert_int_equal(attr.size, 500);
	what.content_len = LARGE;
	assert_int_equal(vol_create(vol, VOL_ROOT, "l", &what, &attr), 0);
	assert_int_equal(vol_create(vol, VOL_ROOT, "l", &what, &attr), -EEXIST);
	reopen();
	assert_int_equal(blobs(), 1);
	expect(ino_of(VOL_ROOT, "s"), data, 500);
	expect(ino_of(VOL_ROOT, "l"), data, LARGE);
	content_fd(ino_of(VOL_ROOT, "s"), data, 500);
	content_fd(ino_of(VOL_ROOT, "l"), data, LARGE);
}

/* What a crashed run wrote beyond the size must not show when the file grows later. */
static void test_bytes_beyond_the_size(void **state)
{
	static char data[LARGE], zeros[LARGE + 100];
	uint64_t ino = file(VOL_ROOT, "f");
	char path[128];
	int fd;

	(void)state;
	put(ino, data, LARGE, 0);
	snprintf(path, sizeof(path), "%s/blobs/%02x/%016x", state_dir, (unsigned)ino & 0xff, (unsigned)ino);
	fd = open(path, O_WRONLY | O_APPEND);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "stale", 5), 5);
	close(fd);
	set_size(ino, LARGE + 100);
	expect(ino, zeros, LARGE + 100);
}

/* A file that is written in very many pieces becomes a blob; a few do not make it one. */
static void test_pieces(void **state)
{
	static char data[INLINE_MAX];
	uint64_t few = file(VOL_ROOT, "few"), many = file(VOL_ROOT, "many");
	struct vol_file *f = open_(few, O_WRONLY);

	(void)state;
	fill(data, sizeof(data), 19);
	for (int i = 0; i < 16; i++)
		assert_int_equal(vol_write(f, data + i * 4096, 4096, i * 4096), 4096);
	vol_file_close(f);
	assert_int_equal(blobs(), 0);
	expect(few, data, 65536);
	f = open_(many, O_WRONLY);
	for (int i = 0; i < 4000; i++)
		assert_int_equal(vol_write(f, data + i, 1, i), 1);
	vol_file_close(f);
	assert_int_equal(blobs(), 1);
	expect(many, data, 4000);
}

/* As after a kill: what was written is there; orphans and half-made blobs of the process that died are gone at the next open. */
static void test_crash(void **state)
{
	static char data[LARGE];
	uint64_t ino = file(VOL_ROOT, "kept"), grown = file(VOL_ROOT, "grown");
	struct fsck_report report;
	char path[256], folder[128];
	int status, fd;
	pid_t pid;

	(void)state;
	put(ino, "kept", 4, 0);
	put(grown, "kept", 4, 0);
	fill(data, sizeof(data), 17);
	volume_close(vol);
	vol = NULL;
	pid = fork();
	if (pid == 0) {
		struct vol_file *f, *g, *h;
		struct vol_attr a;

		if (volume_open(&vol, state_dir, 0, NULL) < 0)
			_exit(1);
		if (vol_create(vol, VOL_ROOT, "o", &(struct vol_new){.mode = S_IFREG | 0600}, &a) < 0 ||
		    vol_file_open(vol, a.ino, O_RDWR, &f) < 0 || vol_write(f, data, LARGE, 0) < 0 ||
		    vol_flush(f) < 0 || vol_unlink(vol, VOL_ROOT, "o", NULL) < 0)
			_exit(2);
		if (vol_create(vol, VOL_ROOT, "p", &(struct vol_new){.mode = S_IFREG | 0600}, &a) < 0 ||
		    vol_file_open(vol, a.ino, O_RDWR, &g) < 0 || vol_write(g, data, LARGE, 0) < 0)
			_exit(3);
		if (vol_file_open(vol, grown, O_RDWR, &h) < 0 || vol_write(h, data, LARGE, 0) < 0)
			_exit(4);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(blobs(), 3);
	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 0);
	/* one that grew beyond the inline size when it was killed, before its record was written */
	snprintf(folder, sizeof(folder), "%s/blobs/%02x", state_dir, (unsigned)ino & 0xff);
	snprintf(path, sizeof(path), "%s/%016x", folder, (unsigned)ino);
	mkdir(folder, 0700);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	assert_int_equal(blobs(), 2);
	expect(ino, "kept", 4);
	expect(grown, data, LARGE);
	expect(ino_of(VOL_ROOT, "p"), data, LARGE);
}

/* A power cut may take the bytes and even the name of a blob that was not fsynced, while its record stayed:
 * no fault, and zeros after the next open. After an fsync it is a fault. */
static void test_power_cut(void **state)
{
	static char data[LARGE], zeros[LARGE];
	uint64_t inos[2] = {file(VOL_ROOT, "a"), file(VOL_ROOT, "b")};
	struct fsck_report report;
	struct vol_file *f;
	char path[128];

	(void)state;
	fill(data, sizeof(data), 13);
	for (int i = 0; i < 2; i++)
		put(inos[i], data, LARGE, 0);
	volume_close(vol);
	vol = NULL;
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/blobs/%02x/%016x", state_dir, (unsigned)inos[i] & 0xff,
			 (unsigned)inos[i]);
		assert_int_equal(i ? unlink(path) : truncate(path, 70000), 0);
	}
	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 0);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	memset(data + 70000, 0, LARGE - 70000);
	expect(inos[0], data, LARGE);
	expect(inos[1], zeros, LARGE);

	/* The mark went at that open; writing puts it again, fsync takes it away. */
	f = open_(inos[0], O_WRONLY);
	assert_int_equal(vol_write(f, "x", 1, 0), 1);
	assert_int_equal(vol_fsync(f, false), 0);
	vol_file_close(f);
	volume_close(vol);
	vol = NULL;
	snprintf(path, sizeof(path), "%s/blobs/%02x/%016x", state_dir, (unsigned)inos[0] & 0xff,
		 (unsigned)inos[0]);
	assert_int_equal(truncate(path, 10), 0);
	assert_int_equal(volume_fsck(state_dir, false, NULL, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 1);
	assert_int_equal(truncate(path, LARGE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_small),
		T(test_large),
		T(test_truncate),
		T(test_holes),
		T(test_unlinked_while_open),
		T(test_replaced_while_open),
		T(test_content),
		T(test_bytes_beyond_the_size),
		T(test_pieces),
		T(test_crash),
		T(test_power_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
