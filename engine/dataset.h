/*
 * Data sets: what a user copied in, decoded once into a cache that is memory-mapped afterwards.
 *
 *	struct dataset_scan *scan;
 *	dataset_scan_new(&scan, &(struct dataset_scan_options){ .seed = 1 }, &err);
 *	for each file below the data set's directory, in any order:
 *		dataset_scan_file(scan, "train/cat/1.png", bytes, n);
 *	dataset_scan_finish(scan, cache_fd, &json, &err);	// json becomes dataset.json
 *
 *	struct dataset *ds;
 *	dataset_open(&ds, cache_fd, &err);
 *	const uint8_t *pixels = dataset_image(ds, DATASET_TRAIN, i);	// (H, W, C)
 *
 * Understood: ImageFolder (`[train|val|test/]CLASS/NAME.{png,jpg,jpeg}`) and IDX pairs
 * (`*-images-idx3-ubyte[.gz]` with `*-labels-idx1-ubyte[.gz]`; a name with `train` is the training split,
 * `t10k` or `test` the test split). Without a val split, a seeded tenth of each class of train becomes val.
 * A file that can't be used is listed in dataset.json with its reason and skipped; hidden files and those
 * of other kinds are only counted. `labels.txt` or `classes.txt` gives names to the classes, one a line, in
 * their order (IDX: numeric; folders: by name). The functions take bytes, not paths: the caller has the
 * files. The result depends on the files, not on the order they come in.
 */
#ifndef ENGINE_DATASET_H
#define ENGINE_DATASET_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum dataset_split { DATASET_TRAIN, DATASET_VAL, DATASET_TEST, DATASET_SPLITS };

struct dataset_scan_options {
	/* What the cache holds. Channels 0: 1 when all images are grey, else 3. Height and width 0: as the
	 * data are when all are alike and at most 128 pixels a side, else 64×64. */
	int channels, height, width;
	uint64_t seed;    /* of the 90/10 split */
	const char *name; /* goes into dataset.json; borrowed during _new */
	/* Where pixels wait for _finish: an empty file open for reading and writing; best the very file that
	 * _finish gets as cache_fd, for then they are written once. 0: in memory (a memfd). Borrowed until
	 * _free. */
	int spool_fd;
};

struct dataset_scan;
struct dataset;

int dataset_scan_new(struct dataset_scan **ret, const struct dataset_scan_options *options, struct err *err);
/* One file. 0 also when the file was bad and noted as such; negative only when the scan itself can't go on.
 * `data` is borrowed during the call. relpath is hostile: it is only ever compared and quoted. */
int dataset_scan_file(struct dataset_scan *scan, const char *relpath, const void *data, size_t len,
		      struct err *err);
/* A file that the caller found bad by itself: dataset.json lists it. 0, or -ENOMEM. */
int dataset_scan_bad(struct dataset_scan *scan, const char *relpath, const char *reason);
/* Writes the cache to cache_fd (from offset 0, truncated) and the text of dataset.json (one newline at the
 * end). An empty data set gives a dataset.json that says so and -ENODATA. */
int dataset_scan_finish(struct dataset_scan *scan, int cache_fd, struct buf *ret_json, struct err *err);
void dataset_scan_free(struct dataset_scan *scan);

/*
 * Maps a cache file read-only; the descriptor can be closed afterwards. -EBADMSG (BAD_CACHE) on any damage.
 */
int dataset_open(struct dataset **ret, int cache_fd, struct err *err);
void dataset_close(struct dataset *ds);

struct dataset_shape {
	int channels, height, width, classes;
};
struct dataset_shape dataset_shape(const struct dataset *ds);
size_t dataset_count(const struct dataset *ds, enum dataset_split split);
/* (H, W, C), borrowed */
const uint8_t *dataset_image(const struct dataset *ds, enum dataset_split split, size_t i);
int dataset_label(const struct dataset *ds, enum dataset_split split, size_t i);
/* What tells each image of the val split from others: a hash of its file, or of its pixels where it is one of many in a file. The
 * same whatever shape the cache has. False: the cache is older than that. */
bool dataset_val_ids(const struct dataset *ds, uint64_t *ret);
const char *dataset_class(const struct dataset *ds, int label); /* borrowed */
/* Per channel over the training split, pixels scaled to 0…1; (C) each. */
void dataset_mean_std(const struct dataset *ds, float *ret_mean, float *ret_std);

#endif
