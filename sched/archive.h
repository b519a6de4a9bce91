/*
 * Private to sched: what counts as an archive, which names and how much may come out of one. The worker that unpacks
 * (sched/worker/unpack.c) keeps to these rules with words for the user; the daemon holds what it is sent against them again
 * (sched/unpack.c), since a worker may be in the hands of its archive.
 */
#ifndef SCHED_ARCHIVE_H
#define SCHED_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All chosen. The batch has 10,000 images; the most that a format packs honest images by is far below RATIO (zeros in gzip:
 * 1,000; JPEG and PNG: 1). */
#define ARCHIVE_FILES  100000
#define ARCHIVE_ONE    (UINT64_C(64) << 20) /* bytes of one file: as much as an instance may have */
#define ARCHIVE_TOTAL  (UINT64_C(4) << 30)
#define ARCHIVE_RATIO  200
#define ARCHIVE_GRACE  (UINT64_C(16) << 20) /* whatever the ratio */
#define ARCHIVE_PATH   1024                 /* NUL included */
#define ARCHIVE_DEPTH  32
#define ARCHIVE_MEMORY (UINT64_C(512) << 20) /* of the worker: RLIMIT_DATA; xz -9 wants 65 MiB */

/* One ENTRIES message: so much is written between two looks at the room that is left. */
#define ARCHIVE_PACK       (UINT64_C(4) << 20)
#define ARCHIVE_PACK_FILES 1024
#define ARCHIVE_PACK_NAMES (64 * 1024)
#define ARCHIVE_AHEAD      3

/* The length of the name without the ending of an archive (.tar.gz …), 0: it is none. */
size_t archive_stem(const char *name);

struct archive_limits {
	uint32_t files;
	uint64_t one, total; /* bytes */
};
/* Of an archive of so many bytes. */
struct archive_limits archive_limits(uint64_t len);

/*
 * The path below the batch directory of an entry of this name: parts between single slashes. -EINVAL: absolute, or with "..";
 * -ENAMETOOLONG: a part beyond 255 bytes, the whole beyond ARCHIVE_PATH or too deep; -ENOENT: nothing is left of it ("./").
 */
int archive_path(char ret[ARCHIVE_PATH], const char *name);
/* Hidden and waiting names (.x, x~, x.tmp, x.part) are no instances, and stay in the archive. */
bool archive_leaves_out(const char *path);

/*
 * Whether an honest worker may have sent these, of an archive of which so much came before: paths as archive_path makes them, none
 * that is left out, all within the limits and, if they lie inside of the archive, within its `shared` bytes (0: none may). *ret_len,
 * *ret_written: how many bytes they have together, and those that don't lie inside. -EPROTO: no.
 */
struct wire_entries;
int archive_check_entries(const struct wire_entries *m, const struct archive_limits *limits, uint32_t files,
			  uint64_t bytes, uint64_t shared, uint64_t *ret_len, uint64_t *ret_written);

#endif
