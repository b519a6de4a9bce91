#include "sched/archive.h"

#include "sched/task.h"
#include "sched/wire.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* The longer ones first. */
static const char *const endings[] = {".tar.zst", ".tar.bz2", ".tar.gz", ".tar.xz", ".tzst", ".tbz2",
				      ".tgz",     ".txz",     ".tar",    ".zip",    ".7z"};

size_t archive_stem(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		size_t n = strlen(endings[i]);

		if (len > n && strcasecmp(name + len - n, endings[i]) == 0)
			return len - n;
	}
	return 0;
}

struct archive_limits archive_limits(uint64_t len)
{
	struct archive_limits limits = {.files = ARCHIVE_FILES, .one = ARCHIVE_ONE, .total = ARCHIVE_TOTAL};

	if (len < (ARCHIVE_TOTAL - ARCHIVE_GRACE) / ARCHIVE_RATIO)
		limits.total = ARCHIVE_GRACE + len * ARCHIVE_RATIO;
	return limits;
}

int archive_path(char ret[ARCHIVE_PATH], const char *name)
{
	size_t at = 0;
	int depth = 0;

	if (*name == '/')
		return -EINVAL;
	for (const char *part = name; *part;) {
		size_t len = strcspn(part, "/");

		if (len == 2 && memcmp(part, "..", 2) == 0)
			return -EINVAL;
		if (len && !(len == 1 && *part == '.')) {
			if (len > 255 || ++depth > ARCHIVE_DEPTH || at + len + 2 > ARCHIVE_PATH)
				return -ENAMETOOLONG;
			if (at)
				ret[at++] = '/';
			memcpy(ret + at, part, len);
			at += len;
		}
		part += len + (part[len] == '/');
	}
	ret[at] = '\0';
	return at ? 0 : -ENOENT;
}

bool archive_leaves_out(const char *path)
{
	return instance_name_waits(path);
}

int archive_check_entries(const struct wire_entries *m, const struct archive_limits *limits, uint32_t files,
			  uint64_t bytes, uint64_t shared, uint64_t *ret_len, uint64_t *ret_written)
{
	uint64_t left = limits->total - bytes, len = 0, written = 0;

	if (!m->n_files || m->n_files > ARCHIVE_PACK_FILES || files > limits->files ||
	    m->n_files > limits->files - files || bytes > limits->total)
		return -EPROTO;
	for (uint32_t i = 0; i < m->n_files; i++) {
		const struct wire_member *f = &m->files[i];
		char path[ARCHIVE_PATH];

		if (f->len > left - len || f->len > limits->one || archive_path(path, f->path) < 0 ||
		    strcmp(path, f->path) != 0 || archive_leaves_out(path) ||
		    (f->inside && (f->inside > shared || f->len > shared - f->inside)))
			return -EPROTO;
		len += f->len;
		written += f->inside ? 0 : f->len;
	}
	*ret_len = len;
	*ret_written = written;
	return 0;
}
