/*
 * exercise_data DIR [OPERATIONS [SEED]]: random operations on the contents of four files below DIR, each checked
 * against a model in memory; the same seed makes the same operations. Prints seed and result. At a difference: the
 * first byte that differs, the last operations (number, file, what, offset, length), status 1; the files stay.
 *
 * Every file is reached by six ways at once, which have to agree: read and write, a shared mapping that lives as
 * long as the handle, O_DIRECT (past the kernel's cache), a handle for appending, and one that only reads, with a mapping of its
 * own whose descriptor is closed (the kernel may go past the filesystem for them: fs/mount/passthrough.h). Offsets and lengths prefer
 * what is special: the 64 KiB up to which a content lies in the database, page borders, the end of the file.
 */
#include "engine/base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES      4
#define IO_MAX     (256 * 1024)
#define INLINE_MAX (64 * 1024) /* fs/volume/private.h */
#define PAGE       4096
#define LOG_LAST   64
#define CHECK_ALL  2000 /* operations between two looks at everything */

struct file {
	char path[PATH_MAX];
	size_t max;
	int fd, direct_fd, append_fd, read_fd;
	char *map; /* max bytes of fd; touched below size only */
	char *read_map;
	char *model;
	size_t size;
	unsigned made; /* times */
	bool map_dirty; /* SEEK_DATA asks the filesystem, which knows nothing of pages that are not written back */
};

static struct {
	struct rng rng;
	uint64_t seed, n;
	struct file files[FILES];
	char *buf; /* IO_MAX, for O_DIRECT */
	char log[LOG_LAST][128];
} x;

static void note(const char *what, const struct file *f, uint64_t offset, uint64_t len)
{
	snprintf(x.log[x.n % LOG_LAST], sizeof(x.log[0]),
		 "%" PRIu64 ": file %d (%zu bytes) %s %" PRIu64 " + %" PRIu64, x.n, (int)(f - x.files),
		 f->size, what, offset, len);
}

__attribute__((format(printf, 1, 2), noreturn)) static void differ(const char *format, ...)
{
	uint64_t first = x.n >= LOG_LAST ? x.n - LOG_LAST + 1 : 0;
	va_list args;

	for (uint64_t i = first; i <= x.n; i++)
		fprintf(stderr, "%s\n", x.log[i % LOG_LAST]);
	fprintf(stderr, "seed %" PRIu64 ", operation %" PRIu64 ": ", x.seed, x.n);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(1);
}

static void need(bool ok, const char *what)
{
	if (!ok)
		differ("%s: %s", what, strerror(errno));
}

static void same(const struct file *f, const char *got, size_t offset, size_t len, const char *how)
{
	if (memcmp(got, f->model + offset, len) == 0)
		return;
	for (size_t i = 0; i < len; i++)
		if (got[i] != f->model[offset + i])
			differ("%s: byte %zu is 0x%02x, should be 0x%02x", how, offset + i,
			       (unsigned char)got[i], (unsigned char)f->model[offset + i]);
}

/* --- what to do it to --- */

static size_t below(size_t n)
{
	return n ? rng_below(&x.rng, n) : 0;
}

static size_t pick_len(void)
{
	static const size_t most[] = {16, 600, 5000, 70000, IO_MAX};

	return 1 + below(most[below(sizeof(most) / sizeof(most[0]))]);
}

static size_t near(size_t at, size_t max)
{
	size_t d = below(40);

	at = below(2) ? at + d : at - (d < at ? d : at);
	return at < max ? at : max;
}

/* 0 … max */
static size_t pick_offset(const struct file *f, size_t max)
{
	switch (below(8)) {
	case 0:
		return near(INLINE_MAX, max);
	case 1:
		return near(f->size, max);
	case 2:
		return near(below(max / PAGE + 1) * PAGE, max);
	case 3:
		return below(max / PAGE + 1) * PAGE;
	case 4:
		return below((max < 2 * INLINE_MAX ? max : 2 * INLINE_MAX) + 1);
	default:
		return below(max + 1);
	}
}

/* A range within the first `max` bytes; max > 0. */
static void pick_range(const struct file *f, size_t max, size_t *offset, size_t *len)
{
	*offset = pick_offset(f, max - 1);
	*len = pick_len();
	if (*len > max - *offset)
		*len = max - *offset;
}

static void fill(char *at, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t r = rng_next(&x.rng);

		memcpy(at + i, &r, len - i < 8 ? len - i : 8);
	}
}

static void grown(struct file *f, size_t end)
{
	if (end > f->size)
		f->size = end;
}

/* --- opening --- */

static void open_file(struct file *f, int flags)
{
	int fd;

	if (!flags) /* as the first of all, or after a writer */
		f->read_fd = open(f->path, O_RDONLY | O_CLOEXEC);
	f->fd = open(f->path, O_RDWR | O_CLOEXEC | flags, 0644);
	need(f->fd >= 0, "open");
	if (flags)
		f->read_fd = open(f->path, O_RDONLY | O_CLOEXEC);
	need(f->read_fd >= 0, "open, O_RDONLY");
	fd = open(f->path, O_RDONLY | O_CLOEXEC);
	f->read_map = mmap(NULL, f->max, PROT_READ, MAP_SHARED, fd, 0);
	need(f->read_map != MAP_FAILED && close(fd) == 0, "mmap, read-only");
	f->direct_fd = open(f->path, O_RDWR | O_CLOEXEC | O_DIRECT);
	need(f->direct_fd >= 0, "open, O_DIRECT");
	f->append_fd = open(f->path, O_WRONLY | O_CLOEXEC | O_APPEND);
	need(f->append_fd >= 0, "open, O_APPEND");
	f->map = mmap(NULL, f->max, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	need(f->map != MAP_FAILED, "mmap");
}

static void close_file(struct file *f)
{
	need(munmap(f->map, f->max) == 0 && munmap(f->read_map, f->max) == 0 && close(f->read_fd) == 0,
	     "munmap");
	need(close(f->append_fd) == 0 && close(f->direct_fd) == 0 && close(f->fd) == 0, "close");
}

static void new_file(struct file *f)
{
	memset(f->model, 0, f->max);
	f->size = 0;
	f->map_dirty = false;
	f->made++;
	open_file(f, O_CREAT | O_EXCL);
}

/* --- operations --- */

static void op_read(struct file *f)
{
	size_t offset = pick_offset(f, f->max), len = pick_len();
	size_t want = offset < f->size ? f->size - offset : 0;
	ssize_t n;
	bool only = below(2);

	note(only ? "read, read-only" : "read", f, offset, len);
	n = pread(only ? f->read_fd : f->fd, x.buf, len, (off_t)offset);
	need(n >= 0, "read");
	want = want < len ? want : len;
	if ((size_t)n != want)
		differ("read gave %zd bytes, should be %zu", n, want);
	same(f, x.buf, offset, want, "read");
}

static void op_write(struct file *f)
{
	size_t offset, len;

	pick_range(f, f->max, &offset, &len);
	note("write", f, offset, len);
	fill(f->model + offset, len);
	need(pwrite(f->fd, f->model + offset, len, (off_t)offset) == (ssize_t)len, "write");
	grown(f, offset + len);
}

static void op_append(struct file *f)
{
	size_t len = pick_len();

	if (len > f->max - f->size)
		len = f->max - f->size;
	note("append", f, f->size, len);
	if (len == 0)
		return;
	fill(f->model + f->size, len);
	need(write(f->append_fd, f->model + f->size, len) == (ssize_t)len, "append");
	grown(f, f->size + len);
}

static void op_direct_read(struct file *f)
{
	size_t offset = below(f->max / PAGE) * PAGE, len = (1 + below(IO_MAX / PAGE)) * PAGE;
	size_t want = offset < f->size ? f->size - offset : 0;
	ssize_t n;

	note("direct read", f, offset, len);
	n = pread(f->direct_fd, x.buf, len, (off_t)offset);
	need(n >= 0, "direct read");
	want = want < len ? want : len;
	if ((size_t)n != want)
		differ("direct read gave %zd bytes, should be %zu", n, want);
	same(f, x.buf, offset, want, "direct read");
}

static void op_direct_write(struct file *f)
{
	size_t offset = below(f->max / PAGE) * PAGE, len = (1 + below(IO_MAX / PAGE)) * PAGE;

	if (len > f->max - offset)
		len = f->max - offset;
	note("direct write", f, offset, len);
	fill(x.buf, len);
	memcpy(f->model + offset, x.buf, len);
	need(pwrite(f->direct_fd, x.buf, len, (off_t)offset) == (ssize_t)len, "direct write");
	grown(f, offset + len);
}

static void op_truncate(struct file *f)
{
	size_t size = pick_offset(f, f->max);
	bool by_name = below(3) == 0;

	if (below(20) == 0)
		size = 0;
	note(by_name ? "truncate by name" : "truncate", f, size, 0);
	need((by_name ? truncate(f->path, (off_t)size) : ftruncate(f->fd, (off_t)size)) == 0, "truncate");
	if (size < f->size)
		memset(f->model + size, 0, f->size - size);
	f->size = size;
}

static void op_map_read(struct file *f)
{
	bool only = below(2);
	const char *map = only ? f->read_map : f->map;
	size_t offset, len;

	if (f->size == 0)
		return;
	pick_range(f, f->size, &offset, &len);
	note(only ? "read by mapping, read-only" : "read by mapping", f, offset, len);
	same(f, map + offset, offset, len, "mapping");
	/* What is left of the last page is zeros. */
	for (size_t i = f->size; i % PAGE; i++)
		if (map[i])
			differ("mapping: byte %zu is 0x%02x, beyond the end at %zu", i, (unsigned char)map[i],
			       f->size);
}

static void op_map_write(struct file *f)
{
	size_t offset, len;

	if (f->size == 0)
		return;
	pick_range(f, f->size, &offset, &len);
	note("write by mapping", f, offset, len);
	fill(f->model + offset, len);
	memcpy(f->map + offset, f->model + offset, len);
	f->map_dirty = true;
	if (below(4) == 0) {
		need(msync(f->map, f->max, MS_SYNC) == 0, "msync");
		f->map_dirty = false;
	}
}

static void allocate(struct file *f, int mode, const char *what, bool clears)
{
	size_t offset, len;

	pick_range(f, f->max, &offset, &len);
	note(what, f, offset, len);
	if (fallocate(f->fd, mode, (off_t)offset, (off_t)len) < 0) {
		need(errno == EOPNOTSUPP && mode & FALLOC_FL_ZERO_RANGE, what); /* as tmpfs beneath it does */
		return;
	}
	if (clears && offset < f->size)
		memset(f->model + offset, 0, offset + len < f->size ? len : f->size - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		grown(f, offset + len);
}

static void op_allocate(struct file *f)
{
	if (below(2))
		allocate(f, 0, "allocate", false);
	else
		allocate(f, FALLOC_FL_KEEP_SIZE, "allocate, keeping the size", false);
}

static void op_punch(struct file *f)
{
	allocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch", true);
}

static void op_zero(struct file *f)
{
	if (below(2))
		allocate(f, FALLOC_FL_ZERO_RANGE, "zero", true);
	else
		allocate(f, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, "zero, keeping the size", true);
}

/* From any of the files to this one. */
static void op_copy(struct file *f)
{
	struct file *from = &x.files[below(FILES)];
	size_t offset, to, len;

	if (from->size == 0)
		return;
	pick_range(from, from->size, &offset, &len);
	to = pick_offset(f, f->max - 1);
	if (len > f->max - to)
		len = f->max - to;
	if (from == f && offset < to + len && to < offset + len)
		return; /* overlapping: EINVAL, which is the kernel's to check */
	note("copy to", f, to, len);
	memcpy(f->model + to, from->model + offset, len);
	grown(f, to + len);
	for (size_t done = 0; done < len;) {
		off_t in = (off_t)(offset + done), out = (off_t)(to + done);
		ssize_t n = copy_file_range(from->fd, &in, f->fd, &out, len - done, 0);

		need(n > 0, "copy_file_range");
		done += (size_t)n;
	}
}

static void zeros(const struct file *f, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (f->model[i])
			differ("byte %zu lies in a hole and should be 0x%02x", i, (unsigned char)f->model[i]);
}

/* Walks all data and holes from an offset on: what is not data has to be zeros. */
static void op_seek(struct file *f)
{
	off_t at = (off_t)pick_offset(f, f->max), size = (off_t)f->size, data, hole;

	note("seek data, hole", f, (uint64_t)at, 0);
	if (f->map_dirty)
		need(fdatasync(f->fd) == 0, "fdatasync");
	f->map_dirty = false;
	if (at >= size) {
		if (lseek(f->fd, at, SEEK_DATA) >= 0 || errno != ENXIO || lseek(f->fd, at, SEEK_HOLE) >= 0 ||
		    errno != ENXIO)
			differ("seek beyond the end is not ENXIO");
		return;
	}
	while (at < size) {
		data = lseek(f->fd, at, SEEK_DATA);
		need(data >= 0 || errno == ENXIO, "SEEK_DATA");
		if (data < 0) {
			zeros(f, (size_t)at, f->size);
			return;
		}
		if (data < at || data >= size)
			differ("SEEK_DATA from %jd gives %jd", (intmax_t)at, (intmax_t)data);
		zeros(f, (size_t)at, (size_t)data);
		hole = lseek(f->fd, data, SEEK_HOLE);
		need(hole >= 0, "SEEK_HOLE");
		if (hole <= data || hole > size)
			differ("SEEK_HOLE from %jd gives %jd", (intmax_t)data, (intmax_t)hole);
		at = hole;
	}
}

static void op_sync(struct file *f)
{
	note("fsync, out of the cache", f, 0, 0);
	need((below(2) ? fsync(f->fd) : fdatasync(f->fd)) == 0, "fsync");
	f->map_dirty = false;
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void op_reopen(struct file *f)
{
	note("reopen", f, 0, 0);
	close_file(f);
	f->map_dirty = false; /* closing writes it back */
	open_file(f, 0);
}

/* Contents that have grown stay out of the database: only a new file begins there again. */
static void op_remake(struct file *f)
{
	bool open = below(2);

	note(open ? "unlink while open, make" : "unlink, make", f, 0, 0);
	if (open) {
		need(unlink(f->path) == 0, "unlink");
		f->map_dirty = false;
		for (int i = 0; i < 4; i++) { /* an unlinked file is a file still */
			op_write(f);
			op_read(f);
			op_map_read(f);
		}
		close_file(f);
	} else {
		close_file(f);
		need(unlink(f->path) == 0, "unlink");
	}
	new_file(f);
}

static void op_stat(struct file *f)
{
	struct stat a, b;

	note("stat", f, 0, 0);
	need(fstat(f->fd, &a) == 0 && stat(f->path, &b) == 0, "stat");
	if ((size_t)a.st_size != f->size || (size_t)b.st_size != f->size || a.st_ino != b.st_ino)
		differ("stat says %jd and %jd bytes", (intmax_t)a.st_size, (intmax_t)b.st_size);
}

static const struct {
	void (*run)(struct file *f);
	unsigned weight;
} ops[] = {
	{op_read, 16},    {op_write, 16},   {op_append, 6},    {op_direct_read, 6}, {op_direct_write, 4},
	{op_truncate, 8}, {op_map_read, 8}, {op_map_write, 8}, {op_allocate, 4},    {op_punch, 5},
	{op_zero, 4},     {op_copy, 6},     {op_seek, 4},      {op_sync, 2},        {op_reopen, 6},
	{op_remake, 3},   {op_stat, 4},
};

static void run_one(void)
{
	struct file *f = &x.files[below(FILES)];
	unsigned sum = 0, r;
	size_t i;

	for (i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		sum += ops[i].weight;
	r = (unsigned)below(sum);
	for (i = 0; r >= ops[i].weight; i++)
		r -= ops[i].weight;
	note("nothing", f, 0, 0);
	ops[i].run(f);
}

static void check_all(struct file *f)
{
	op_stat(f);
	note("look at everything", f, 0, f->size);
	for (size_t at = 0; at < f->size; at += IO_MAX) {
		size_t len = f->size - at < IO_MAX ? f->size - at : IO_MAX;

		need(pread(f->direct_fd, x.buf, IO_MAX, (off_t)at) == (ssize_t)len, "read");
		same(f, x.buf, at, len, "read");
		same(f, f->map + at, at, len, "mapping");
	}
}

int main(int argc, char **argv)
{
	static const size_t sizes[FILES] = {INLINE_MAX - 3000, INLINE_MAX + 50000, 1 << 20, 6 << 20};
	uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;

	if (argc < 2 || argc > 4 || count < 1) {
		fprintf(stderr, "usage: exercise_data DIR [OPERATIONS [SEED]]\n");
		return 2;
	}
	x.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
	x.rng = rng_init(x.seed, 0);
	x.buf = aligned_alloc(PAGE, IO_MAX);
	printf("seed %" PRIu64 "\n", x.seed);
	fflush(stdout);
	for (int i = 0; i < FILES; i++) {
		struct file *f = &x.files[i];

		snprintf(f->path, sizeof(f->path), "%s/data%d", argv[1], i);
		f->max = sizes[i];
		f->model = malloc(f->max);
		if (!x.buf || !f->model) {
			fprintf(stderr, "out of memory\n");
			return 2;
		}
		new_file(f);
	}
	for (x.n = 0; x.n < count; x.n++) {
		run_one();
		for (int i = 0; x.n % CHECK_ALL == CHECK_ALL - 1 && i < FILES; i++)
			check_all(&x.files[i]);
	}
	for (int i = 0; i < FILES; i++) {
		check_all(&x.files[i]);
		close_file(&x.files[i]);
		free(x.files[i].model);
	}
	free(x.buf);
	printf("%" PRIu64 " operations, no difference; files made anew: %u %u %u %u\n", count,
	       x.files[0].made, x.files[1].made, x.files[2].made, x.files[3].made);
	return 0;
}
