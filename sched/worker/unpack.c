/*
 * The unpack worker: one archive in, its files out: contents one after the other into the file that came with it, or where they lie in
 * the archive, names in packs of some hundred in messages. libarchive decides by the content what the archive is. Anything odd ends it with FAILED: the daemon submits all of an
 * archive or nothing. Archives within it are files like others.
 *
 * A tar has an end marker; libarchive takes one that is cut between two entries for whole. So the bytes that the last look for an
 * entry took are counted: padding is less than a block, the marker is at least one.
 */
#include "sched/worker/worker.h"

#include "engine/base/buf.h"
#include "engine/base/io.h"
#include "sched/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 262144 /* chosen */
#define OUT_BYTES  262144
#define TAR_BLOCK  512

struct unpacking {
	struct worker *w;
	struct archive *a;
	struct archive_limits limits;
	uint32_t window;  /* packs that may be sent before the next NEXT */
	uint32_t files;   /* so far */
	uint32_t headers; /* also of what is left out */
	uint64_t total;   /* bytes so far */
	uint64_t written; /* of these, to fd */
	/* The archive, mapped for reading; contents that lie in it as they are need not be written when it is shared. */
	const char *map;
	uint64_t map_len;
	bool shared;
	int fd; /* where the contents go */
	/* what is to be written to it next: a system call for each small file would be half of the work */
	uint64_t out_at;
	size_t out_len;
	char *out;                                   /* (OUT_BYTES) */
	struct wire_member file[ARCHIVE_PACK_FILES]; /* (n); path is an offset into names until it is sent */
	uint32_t n;
	uint64_t bytes; /* of these */
	struct buf names;
};

static int failed(struct unpacking *u, struct err *err, const char *path)
{
	const char *said = archive_error_string(u->a);

	return err_set(err, archive_errno(u->a) == ENOMEM ? ERR_NO_MEMORY : ERR_BAD_ARCHIVE, "%s%s%s", path,
		       *path ? ": " : "", said ? said : "unknown cause");
}

static int flush(struct unpacking *u)
{
	int r = u->out_len ? io_pwrite(u->fd, u->out, u->out_len, u->out_at, NULL) : 0;

	u->out_len = 0;
	return r;
}

static int put(struct unpacking *u, const void *data, size_t len, uint64_t at)
{
	int r = 0;

	if (len == 0) /* data may be NULL */
		return 0;
	if (at != u->out_at + u->out_len || len > OUT_BYTES - u->out_len) {
		r = flush(u);
		u->out_at = at;
	}
	if (r < 0 || len > OUT_BYTES)
		return r < 0 ? r : io_pwrite(u->fd, data, len, at, NULL);
	memcpy(u->out + u->out_len, data, len);
	u->out_len += len;
	return 0;
}

static int wait_for_window(struct unpacking *u)
{
	while (!u->window) {
		struct wire_message m;
		int r = wire_recv(&u->w->channel, &m, 0);

		if (r < 0)
			return r;
		if (m.type != WIRE_NEXT || m.next.packs > ARCHIVE_AHEAD)
			r = -EPROTO;
		else
			u->window += m.next.packs;
		wire_clear(&m);
		if (r < 0)
			return r;
	}
	return 0;
}

static int send_pack(struct unpacking *u)
{
	struct wire_message m = {.type = WIRE_ENTRIES, .entries = {u->file, u->n}};
	int r = buf_status(&u->names);

	if (r == 0 && u->n == 0)
		return 0;
	for (uint32_t i = 0; r == 0 && i < u->n; i++)
		u->file[i].path = u->names.data + (uintptr_t)u->file[i].path;
	if (r == 0)
		r = flush(u);
	if (r == 0)
		r = wait_for_window(u);
	if (r == 0)
		r = worker_send(u->w, &m);
	u->window--;
	u->n = 0;
	u->bytes = 0;
	buf_clear(&u->names);
	return r;
}

/* libarchive hands out what it has: of what is stored as it is, the archive's own bytes. At its start is no content. */
static bool lies_inside(const struct unpacking *u, const void *data, size_t len)
{
	const char *at = data;

	return u->shared && len && at > u->map && at < u->map + u->map_len &&
	       len <= (size_t)(u->map + u->map_len - at);
}

/* The content goes to the end of the file, if it is not inside of the archive; its holes stay holes. */
static int read_content(struct unpacking *u, const char *path, uint64_t stated, uint64_t *ret_len,
			uint64_t *ret_inside, struct err *err)
{
	uint64_t most = u->limits.total - u->total, end = stated;
	const char *begin = NULL; /* inside of the archive, so_far bytes */
	uint64_t so_far = 0;
	bool is_inside = true;
	const void *data;
	int64_t offset;
	size_t len;
	int r;

	if (most > u->limits.one)
		most = u->limits.one;
	do {
		if (end > most)
			return err_set(err, ERR_ARCHIVE_SIZE,
				       most == u->limits.one ? "%s has more than %" PRIu64 " bytes"
							     : "with %s it is more than %" PRIu64 " bytes",
				       path, most == u->limits.one ? most : u->limits.total);
		r = archive_read_data_block(u->a, &data, &len, &offset);
		if (r == ARCHIVE_EOF)
			break;
		if (r != ARCHIVE_OK)
			return failed(u, err, path);
		if (offset < 0 || (uint64_t)offset > most || len > most - (uint64_t)offset) {
			end = most + 1; /* says so above */
			continue;
		}
		if ((uint64_t)offset + len > end)
			end = (uint64_t)offset + len;
		if (is_inside && lies_inside(u, data, len) && (uint64_t)offset == so_far) {
			const char *at = data;

			if (so_far == 0)
				begin = at;
			if (at == begin + so_far) {
				so_far += len;
				continue;
			}
		}
		if (len == 0)
			continue;
		if (is_inside && so_far) /* it is not, after all */
			r = put(u, begin, so_far, u->written);
		is_inside = false;
		if (r >= 0)
			r = put(u, data, len, u->written + (uint64_t)offset);
		if (r < 0)
			return r;
	} while (true);
	*ret_inside = 0;
	if (is_inside && so_far) {
		if (so_far == end)
			*ret_inside = (uint64_t)(begin - u->map);
		else /* it ends in a hole */
			r = put(u, begin, so_far, u->written);
	}
	*ret_len = end;
	return r < 0 ? r : 0;
}

static int take_file(struct unpacking *u, struct archive_entry *e, const char *path, struct err *err)
{
	uint64_t stated = archive_entry_size_is_set(e) && archive_entry_size(e) > 0
				  ? (uint64_t)archive_entry_size(e)
				  : 0,
		 len = 0, inside = 0;
	int r;

	if (u->files == u->limits.files)
		return err_set(err, ERR_ARCHIVE_SIZE, "more than %" PRIu32 " files", u->limits.files);
	r = read_content(u, path, stated, &len, &inside, err);
	if (r < 0)
		return r;
	u->file[u->n++] = (struct wire_member){
		.path = (const char *)(uintptr_t)u->names.len, .len = len, .inside = inside};
	buf_add(&u->names, path, strlen(path) + 1);
	u->bytes += len;
	u->total += len;
	u->written += inside ? 0 : len;
	u->files++;
	return u->bytes >= ARCHIVE_PACK || u->n == ARCHIVE_PACK_FILES ||
			       u->names.len >= ARCHIVE_PACK_NAMES - ARCHIVE_PATH
		       ? send_pack(u)
		       : 0;
}

static int take_entry(struct unpacking *u, struct archive_entry *e, struct err *err)
{
	const char *name = archive_entry_pathname(e);
	char path[ARCHIVE_PATH];
	mode_t type = archive_entry_filetype(e);
	int r;

	if (!name)
		name = archive_entry_pathname_utf8(e);
	if (!name)
		return err_set(err, ERR_ARCHIVE_ENTRY, "entry %" PRIu32 " has a name that can't be read",
			       u->headers);
	if (u->headers++ > 2 * u->limits.files)
		return err_set(err, ERR_ARCHIVE_SIZE, "more than %" PRIu32 " entries", 2 * u->limits.files);
	r = archive_path(path, name);
	if (r == -EINVAL)
		return err_set(err, ERR_ARCHIVE_ENTRY, "%.300s leads out of it", name);
	if (r == -ENAMETOOLONG)
		return err_set(err, ERR_ARCHIVE_ENTRY, "%.300s… is too long a name, or too deep", name);
	if (r < 0 || archive_leaves_out(path))
		return 0;
	if (archive_entry_hardlink(e))
		return err_set(err, ERR_ARCHIVE_ENTRY, "%.300s is a hard link", path);
	if (type == AE_IFDIR)
		return 0;
	if (type != AE_IFREG)
		return err_set(err, ERR_ARCHIVE_ENTRY, "%.300s is a %s", path,
			       type == AE_IFLNK ? "symbolic link" : "special file");
	if (archive_entry_is_encrypted(e))
		return err_set(err, ERR_BAD_ARCHIVE, "%.300s is encrypted", path);
	return take_file(u, e, path, err);
}

static bool is_tar(struct archive *a)
{
	return (archive_format(a) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
}

static int unpack(struct unpacking *u, int fd, struct err *err)
{
	struct archive_entry *e;
	struct stat st;
	int64_t before;
	void *map;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	u->limits = archive_limits((uint64_t)st.st_size);
	map = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
	if (map != MAP_FAILED) {
		u->map = map;
		u->map_len = (uint64_t)st.st_size;
	}
	if ((u->map ? archive_read_open_memory(u->a, u->map, u->map_len)
		    : archive_read_open_fd(u->a, fd, READ_BYTES)) != ARCHIVE_OK)
		return failed(u, err, "");
	for (;;) {
		before = archive_filter_bytes(u->a, 0);
		r = archive_read_next_header(u->a, &e);
		if (r == ARCHIVE_EOF)
			break;
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN) /* a warning is about a name or a time */
			return failed(u, err, "");
		r = take_entry(u, e, err);
		if (r < 0)
			return r;
	}
	if (is_tar(u->a) && archive_filter_bytes(u->a, 0) - before < TAR_BLOCK)
		return err_set(err, ERR_BAD_ARCHIVE,
			       "it is cut short: a tar ends with a mark, this one does not");
	if (archive_read_has_encrypted_entries(u->a) > 0)
		return err_set(err, ERR_BAD_ARCHIVE, "it is encrypted");
	r = send_pack(u);
	if (r == 0 && ftruncate(u->fd, (off_t)u->written) < 0) /* the last file may end in a hole */
		r = -errno;
	return r;
}

/* No others: each is code that an archive can reach. */
static int readers(struct archive *a)
{
	static int (*const enable[])(struct archive *) = {
		archive_read_support_format_tar,   archive_read_support_format_zip_seekable,
		archive_read_support_format_7zip,  archive_read_support_filter_gzip,
		archive_read_support_filter_bzip2, archive_read_support_filter_xz,
		archive_read_support_filter_zstd,
	};

	for (size_t i = 0; i < sizeof(enable) / sizeof(enable[0]); i++)
		if (enable[i](a) != ARCHIVE_OK)
			return -ENOMEM;
	return 0;
}

/* Until the daemon hangs up: it still says NEXT, and would take a closed socket for a death. */
static void linger(struct worker *w)
{
	struct wire_message m;

	while (wire_recv(&w->channel, &m, 0) == 0)
		wire_clear(&m);
}

int unpack_worker(struct worker *w)
{
	struct unpacking *u = calloc(1, sizeof(*u));
	struct err err = ERR_INIT;
	struct wire_message m = {0};
	int r = u ? wire_recv(&w->channel, &m, 0) : -ENOMEM;

	if (r < 0)
		goto out;
	u->w = w;
	setlocale(LC_CTYPE, "C.UTF-8"); /* names of zip and 7z; built into glibc, no file is read */
	u->a = archive_read_new();
	u->out = malloc(OUT_BYTES);
	r = u->a && u->out ? readers(u->a) : -ENOMEM;
	if (r == 0 && m.type != WIRE_UNPACK)
		r = -EPROTO;
	if (r == 0) {
		u->window = m.unpack.ahead;
		u->shared = m.unpack.shared;
		u->fd = m.fds[1];
		r = unpack(u, m.fds[0], &err);
	}
	if (r == 0)
		r = worker_send(w, &(struct wire_message){.type = WIRE_UNPACKED, .unpacked = {u->files}});
	else if (r != -EPIPE)
		r = worker_send_failed(w, r, &err);
	if (r == 0)
		linger(w);
	archive_read_free(u->a);
	buf_release(&u->names);
	free(u->out);
	wire_clear(&m);
out:
	free(u);
	return r;
}
