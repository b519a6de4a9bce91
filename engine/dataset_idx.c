/*
 * IDX files (MNIST and its kin): big-endian header (two zero bytes, type 8 = unsigned byte, dimensions, then
 * each dimension's size), then the data; often in gzip. Images and labels are two files that belong together
 * by their prefix and may come in either order. Compressed files are inflated one image at a time, so a
 * header or a stream that lies costs no memory.
 */
#include "engine/base/rng.h"
#include "engine/dataset_private.h"
#include "engine/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define MAX_SIDE 4096 /* chosen: IDX images are small; a header beyond this lies */

enum idx_kind dataset_idx_kind(const char *path, size_t *ret_prefix_len)
{
	static const struct {
		const char *suffix;
		enum idx_kind kind;
	} suffixes[] = {
		{"-images-idx3-ubyte", IDX_IMAGES},
		{"-labels-idx1-ubyte", IDX_LABELS},
		{"-images.idx3-ubyte", IDX_IMAGES},
		{"-labels.idx1-ubyte", IDX_LABELS},
	};
	size_t len = strlen(path);

	if (len > 3 && strcmp(path + len - 3, ".gz") == 0)
		len -= 3;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t n = strlen(suffixes[i].suffix);

		if (len >= n && strncmp(path + len - n, suffixes[i].suffix, n) == 0) {
			*ret_prefix_len = len - n;
			return suffixes[i].kind;
		}
	}
	return IDX_NONE;
}

static enum dataset_split split_of(const char *prefix)
{
	const char *base = strrchr(prefix, '/');

	base = base ? base + 1 : prefix;
	if (strcasestr(base, "train"))
		return DATASET_TRAIN;
	if (strcasestr(base, "t10k") || strcasestr(base, "test"))
		return DATASET_TEST;
	if (strcasestr(base, "val"))
		return DATASET_VAL;
	return DATASET_TRAIN;
}

/* Bytes of a plain or gzip file in order. */
struct reader {
	const uint8_t *data;
	size_t len;
	bool gzip, ended;
	z_stream z;
};

static int reader_open(struct reader *rd, const uint8_t *data, size_t len)
{
	*rd = (struct reader){.data = data, .len = len};
	rd->gzip = len >= 2 && data[0] == 0x1f && data[1] == 0x8b;
	if (rd->gzip && inflateInit2(&rd->z, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	return 0;
}

static void reader_close(struct reader *rd)
{
	if (rd->gzip)
		inflateEnd(&rd->z);
}

/* Fills out with up to n bytes; how many there were, or -1 when the stream is damaged. */
static ssize_t reader_read(struct reader *rd, void *out, size_t n)
{
	bool damaged = false;

	if (!rd->gzip) {
		size_t some = n < rd->len ? n : rd->len;

		memcpy(out, rd->data, some);
		rd->data += some;
		rd->len -= some;
		return (ssize_t)some;
	}
	rd->z.next_out = out;
	rd->z.avail_out = (uInt)n;
	while (rd->z.avail_out && !rd->ended && !damaged) {
		uInt some = rd->len < (1u << 30) ? (uInt)rd->len : 1u << 30;
		int z;

		rd->z.next_in = (Bytef *)rd->data;
		rd->z.avail_in = some;
		z = inflate(&rd->z, Z_NO_FLUSH);
		rd->data += some - rd->z.avail_in;
		rd->len -= some - rd->z.avail_in;
		if (z == Z_STREAM_END)
			rd->ended = true;
		else if (z == Z_BUF_ERROR && !rd->len)
			break;
		else if (z != Z_OK)
			damaged = true;
	}
	rd->z.next_out = NULL; /* out is the caller's */
	return damaged ? -1 : (ssize_t)(n - rd->z.avail_out);
}

/* True when nothing is left and, for gzip, its checksum was right. */
static bool reader_at_end(struct reader *rd)
{
	char more;

	return reader_read(rd, &more, 1) == 0 && (!rd->gzip || rd->ended);
}

/* Reads the header: dims sizes; 0, or a sentence that says what is wrong. */
static const char *read_header(struct reader *rd, int dims, uint32_t size[3])
{
	uint8_t head[16];
	ssize_t want = 4 + 4 * dims;

	if (reader_read(rd, head, want) != want)
		return "it ends within its header";
	if (head[0] || head[1])
		return "it does not begin as an IDX file";
	if (head[2] != 8)
		return "its values are not unsigned bytes";
	if (head[3] != dims)
		return dims == 3 ? "it does not have three dimensions" : "it does not have one dimension";
	for (int i = 0; i < dims; i++)
		size[i] = (uint32_t)head[4 + 4 * i] << 24 | (uint32_t)head[5 + 4 * i] << 16 |
			  (uint32_t)head[6 + 4 * i] << 8 | head[7 + 4 * i];
	return NULL;
}

static int find_pair(struct dataset_scan *scan, const char *prefix, size_t len)
{
	struct dataset_idx *idx;

	for (int i = 0; i < scan->n_idx; i++)
		if (strlen(scan->idx[i].prefix) == len && memcmp(scan->idx[i].prefix, prefix, len) == 0)
			return i;
	idx = realloc(scan->idx, (scan->n_idx + 1) * sizeof(*idx));
	if (!idx)
		return -ENOMEM;
	scan->idx = idx;
	idx[scan->n_idx] = (struct dataset_idx){.prefix = strndup(prefix, len)};
	return idx[scan->n_idx].prefix ? scan->n_idx++ : -ENOMEM;
}

static int read_images(struct dataset_scan *scan, const char *path, int pair, struct reader *rd,
		       struct err *err)
{
	struct dataset_idx *idx = &scan->idx[pair];
	enum dataset_split split = split_of(idx->prefix);
	uint64_t key = rng_hash(scan->options.seed, idx->prefix, strlen(idx->prefix));
	size_t items = scan->n_items;
	uint32_t slots = scan->slots, size[3];
	struct image image = {.channels = 1};
	const char *wrong = read_header(rd, 3, size);
	int r = 0;

	if (wrong)
		return dataset_bad(scan, path, "%s", wrong);
	if (!size[0] || !size[1] || !size[2] || size[1] > MAX_SIDE || size[2] > MAX_SIDE ||
	    size[0] > DATASET_MAX_IMAGES)
		return dataset_bad(scan, path, "its header says %u images of %ux%u pixels", size[0], size[2],
				   size[1]);
	if (!rd->gzip && rd->len != (uint64_t)size[0] * size[1] * size[2])
		return dataset_bad(scan, path,
				   "its header says %u images of %ux%u pixels, it holds %zu bytes", size[0],
				   size[2], size[1], rd->len);
	image.height = (int)size[1];
	image.width = (int)size[2];
	image.pixels = malloc((size_t)size[1] * size[2]);
	if (!image.pixels)
		return err_set(err, ERR_NO_MEMORY, "reading %s", path);
	for (uint32_t i = 0; i < size[0] && r == 0; i++) {
		ssize_t n = reader_read(rd, image.pixels, (size_t)size[1] * size[2]);

		if (n != (ssize_t)((size_t)size[1] * size[2])) {
			dataset_rewind(scan, items, slots);
			r = dataset_bad(scan, path,
					n < 0 ? "its gzip stream is damaged after image %u of %u"
					      : "it ends after image %u of %u",
					i, size[0]);
			goto out;
		}
		r = dataset_add(
			scan, &image,
			&(struct dataset_item){.key = rng_mix(key + (i + 1) * RNG_GOLDEN),
					       .id = rng_hash(0, (const char *)image.pixels, (size_t)n),
					       .source = i,
					       .idx = pair,
					       .split = split},
			err);
	}
	if (r < 0)
		goto out;
	if (!reader_at_end(rd)) {
		dataset_rewind(scan, items, slots);
		r = dataset_bad(scan, path, "more follows after its %u images, or its checksum is wrong",
				size[0]);
		goto out;
	}
	idx->has_images = true;
	idx->first_item = (uint32_t)items;
	idx->n_images = size[0];
out:
	free(image.pixels);
	return r;
}

static int read_labels(struct dataset_scan *scan, const char *path, int pair, struct reader *rd,
		       struct err *err)
{
	struct dataset_idx *idx = &scan->idx[pair];
	uint32_t size[3];
	const char *wrong = read_header(rd, 1, size);
	uint8_t *labels;

	if (wrong)
		return dataset_bad(scan, path, "%s", wrong);
	if (!size[0] || size[0] > DATASET_MAX_IMAGES)
		return dataset_bad(scan, path, "its header says %u labels", size[0]);
	labels = malloc(size[0]);
	if (!labels)
		return err_set(err, ERR_NO_MEMORY, "reading %s", path);
	if (reader_read(rd, labels, size[0]) != (ssize_t)size[0] || !reader_at_end(rd)) {
		free(labels);
		return dataset_bad(scan, path, "it does not hold the %u labels that its header says",
				   size[0]);
	}
	idx->labels = labels;
	idx->n_labels = size[0];
	idx->has_labels = true;
	return 0;
}

int dataset_idx_file(struct dataset_scan *scan, const char *path, enum idx_kind kind, size_t prefix_len,
		     const uint8_t *data, size_t len, struct err *err)
{
	int pair = find_pair(scan, path, prefix_len), r;
	struct reader rd;

	if (pair < 0)
		return err_set(err, ERR_NO_MEMORY, "reading %s", path);
	if (kind == IDX_IMAGES ? scan->idx[pair].has_images : scan->idx[pair].has_labels)
		return dataset_bad(scan, path, "it is there twice, plain and compressed");
	if (reader_open(&rd, data, len) < 0)
		return err_set(err, ERR_NO_MEMORY, "reading %s", path);
	r = kind == IDX_IMAGES ? read_images(scan, path, pair, &rd, err)
			       : read_labels(scan, path, pair, &rd, err);
	reader_close(&rd);
	return r;
}

int dataset_idx_pair(struct dataset_scan *scan, int *ret_highest)
{
	int highest = -1, r = 0;

	for (int i = 0; i < scan->n_idx && r == 0; i++) {
		struct dataset_idx *idx = &scan->idx[i];
		bool whole = idx->has_images && idx->has_labels && idx->n_images == idx->n_labels;

		for (uint32_t j = 0; j < idx->n_images; j++) {
			struct dataset_item *item = &scan->items[idx->first_item + j];

			item->dropped = !whole;
			item->source = whole ? idx->labels[j] : 0;
			if (whole && idx->labels[j] > highest)
				highest = idx->labels[j];
		}
		if (idx->has_images && !idx->has_labels)
			r = dataset_bad(scan, idx->prefix, "images without a usable file of labels");
		else if (idx->has_labels && !idx->has_images)
			r = dataset_bad(scan, idx->prefix, "labels without a usable file of images");
		else if (idx->has_images && !whole)
			r = dataset_bad(scan, idx->prefix, "%u images but %u labels", idx->n_images,
					idx->n_labels);
	}
	*ret_highest = highest;
	return r;
}
