/* Private to engine/dataset*.c. */
#ifndef ENGINE_DATASET_PRIVATE_H
#define ENGINE_DATASET_PRIVATE_H

#include "engine/base/io.h"
#include "engine/dataset.h"

#include <errno.h>
#include <stdbool.h>

#define DATASET_MAX_CLASSES 16384
#define DATASET_MAX_IMAGES  (1 << 24)
#define DATASET_MAX_PIXELS  ((uint64_t)64 << 30) /* bytes; chosen: a gzip bomb stops here */
#define DATASET_MAX_BAD     1000                 /* listed; all are counted */
#define DATASET_FREE_SIDE   128 /* larger images become DATASET_SIDE when no size is asked for */
#define DATASET_SIDE        64

/*
 * The cache file, in the machine's byte order (it never leaves the machine):
 *	header page (struct cache_header, zero-filled to CACHE_PAGE)
 *	pixels: slots × (H, W, C), from CACHE_PAGE on
 *	meta, page-aligned: index (uint32_t slot of each image: train, val, test), labels (uint16_t, in the
 *	same order), class names (each ends in NUL), with has_ids the id of each val image (uint64_t, unaligned)
 */
#define CACHE_PAGE    4096
#define CACHE_MAGIC   "INFDSET\n"
#define CACHE_VERSION 1

struct cache_header {
	char magic[8];
	uint32_t version, channels, height, width, classes;
	uint32_t header_crc; /* of the struct with this field 0 */
	uint32_t meta_crc;
	uint32_t has_ids; /* 0: made before there were any */
	uint64_t counts[DATASET_SPLITS];
	uint64_t slots, meta_offset, names_bytes, file_size;
	float mean[4], std[4];
};

/* One image in the spool. */
struct dataset_item {
	uint64_t key; /* of its name: the order within a split, and who becomes val */
	uint64_t id;  /* of its content */
	uint32_t slot;
	uint32_t source; /* class number of the scan, or the IDX label when idx >= 0 */
	int32_t idx;     /* index of its IDX pair; -1: a file of a folder */
	uint8_t split;
	bool dropped;
};

struct dataset_idx {
	char *prefix; /* path without "-images-idx3-ubyte" */
	bool has_images, has_labels;
	uint32_t first_item, n_images, n_labels;
	uint8_t *labels; /* (n_labels) */
};

struct dataset_bad {
	char *file, *reason;
};

struct dataset_scan {
	struct dataset_scan_options options;
	char *name;
	int spool_fd;
	bool own_spool;
	int channels, height, width; /* of the spool's images; 0 before the first */
	bool size_fixed;
	uint32_t slots;
	struct dataset_item *items;
	size_t n_items, items_size;
	char **classes; /* in order of appearance until finish */
	int n_classes;
	struct dataset_idx *idx;
	int n_idx;
	char **names; /* of labels.txt */
	int n_names;
	char *names_file;
	struct dataset_bad *bad;
	size_t n_bad, bad_total, ignored, folder_images;
	/* of finish */
	uint64_t counts[DATASET_SPLITS];
	uint32_t (*class_counts)[DATASET_SPLITS]; /* (n_classes) */
	bool val_made;
	uint64_t cache_bytes;
};

/* Notes a bad file; 0, or -ENOMEM. */
int dataset_bad(struct dataset_scan *scan, const char *file, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Adds one image of native size (1 or 3 channels, borrowed) to the spool, converting and resizing. item: all but its slot. */
struct image;
int dataset_add(struct dataset_scan *scan, const struct image *image, const struct dataset_item *item,
		struct err *err);
/* Takes back what was added since n items and slots. */
void dataset_rewind(struct dataset_scan *scan, size_t n_items, uint32_t slots);

/* engine/dataset_idx.c. Which half of a pair a path names; its prefix's length. */
enum idx_kind { IDX_NONE, IDX_IMAGES, IDX_LABELS };
enum idx_kind dataset_idx_kind(const char *path, size_t *ret_prefix_len);
int dataset_idx_file(struct dataset_scan *scan, const char *path, enum idx_kind kind, size_t prefix_len,
		     const uint8_t *data, size_t len, struct err *err);
/* Pairs labels and images; drops images without a label; gives the highest label, -1 when there are none. */
int dataset_idx_pair(struct dataset_scan *scan, int *ret_highest);

/* engine/dataset_json.c */
int dataset_json(const struct dataset_scan *scan, struct buf *ret);
/* engine/dataset_cache.c: order gives the items by split then key; labels go with them. ids: of those in val. */
int dataset_cache_write(struct dataset_scan *scan, int cache_fd, const uint32_t *index,
			const uint16_t *labels, const uint64_t *ids, struct err *err);

/* A spool or cache that ends early is -EIO: -ENODATA means an empty data set. */
static inline int dataset_pread(int fd, void *data, size_t len, uint64_t offset)
{
	int r = io_pread(fd, data, len, offset);

	return r == -ENODATA ? -EIO : r;
}

static inline int dataset_pwrite(int fd, const void *data, size_t len, uint64_t offset)
{
	return io_pwrite(fd, data, len, offset, NULL);
}

#endif
