/*
 * The decoded cache: written once by a scan, then mapped read-only. The header's checksum and every offset,
 * slot and label are checked when it is opened, so that reading needs no check; the pixels carry no checksum
 * (it would cost a pass over gigabytes at each start, and a flipped bit in a pixel harms nobody).
 */
#include "engine/dataset_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define COPY_CHUNK ((size_t)1 << 20)

struct dataset {
	const uint8_t *map;
	size_t size;
	struct cache_header header;
	const uint32_t *index;
	const uint16_t *labels;
	const uint8_t *ids; /* NULL: it has none */
	const char **names;
	uint64_t first[DATASET_SPLITS];
};

static uint32_t header_crc(const struct cache_header *header)
{
	struct cache_header h = *header;

	h.header_crc = 0;
	return (uint32_t)crc32(0, (const Bytef *)&h, sizeof(h));
}

static uint64_t page_up(uint64_t n)
{
	return (n + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE;
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Mean and deviation of each channel over the training images (all images when there are none). */
static int statistics(int fd, const uint32_t *index, struct cache_header *h)
{
	size_t bytes = (size_t)h->channels * h->height * h->width, n = h->counts[DATASET_TRAIN];
	uint8_t *pixels = malloc(bytes);
	uint64_t sum[4] = {0}, squares[4] = {0};
	int r = 0;

	if (!pixels)
		return -ENOMEM;
	if (!n)
		n = h->counts[DATASET_VAL] + h->counts[DATASET_TEST];
	for (size_t i = 0; i < n && r == 0; i++) {
		r = dataset_pread(fd, pixels, bytes, CACHE_PAGE + (uint64_t)index[i] * bytes);
		for (uint32_t c = 0; c < h->channels && r == 0; c++) {
			uint64_t s = 0, q = 0;

			for (size_t p = c; p < bytes; p += h->channels) {
				s += pixels[p];
				q += (unsigned)pixels[p] * pixels[p];
			}
			sum[c] += s;
			squares[c] += q;
		}
	}
	for (uint32_t c = 0; c < h->channels; c++) {
		double count = (double)n * bytes / h->channels, mean = sum[c] / count,
		       var = squares[c] / count - mean * mean;

		h->mean[c] = (float)(mean / 255);
		h->std[c] = var > 0.25 ? (float)(sqrt(var) / 255) : 1; /* a constant channel: not blown up */
	}
	free(pixels);
	return r;
}

static int copy_pixels(int from, int to, uint64_t len)
{
	uint8_t *chunk = malloc(COPY_CHUNK);
	int r = chunk ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < len && r == 0; at += COPY_CHUNK) {
		size_t n = len - at < COPY_CHUNK ? len - at : COPY_CHUNK;

		r = dataset_pread(from, chunk, n, CACHE_PAGE + at);
		if (r == 0)
			r = dataset_pwrite(to, chunk, n, CACHE_PAGE + at);
	}
	free(chunk);
	return r;
}

int dataset_cache_write(struct dataset_scan *scan, int cache_fd, const uint32_t *index,
			const uint16_t *labels, const uint64_t *ids, struct err *err)
{
	struct cache_header h = {.magic = CACHE_MAGIC,
				 .version = CACHE_VERSION,
				 .channels = scan->channels,
				 .height = scan->height,
				 .width = scan->width,
				 .classes = scan->n_classes,
				 .slots = scan->slots,
				 .has_ids = 1};
	uint64_t pixels = (uint64_t)scan->slots * h.channels * h.height * h.width, n = 0;
	struct buf meta = BUF_INIT;
	char page[CACHE_PAGE] = {0};
	int r;

	for (int s = 0; s < DATASET_SPLITS; s++)
		n += h.counts[s] = scan->counts[s];
	buf_add(&meta, index, n * sizeof(*index));
	buf_add(&meta, labels, n * sizeof(*labels));
	h.names_bytes = meta.len;
	for (int i = 0; i < scan->n_classes; i++)
		buf_add(&meta, scan->classes[i], strlen(scan->classes[i]) + 1);
	h.names_bytes = meta.len - h.names_bytes;
	buf_add(&meta, ids, h.counts[DATASET_VAL] * sizeof(*ids));
	h.meta_offset = CACHE_PAGE + page_up(pixels);
	h.file_size = page_up(h.meta_offset + meta.len);
	r = buf_status(&meta);
	if (r == 0)
		r = statistics(scan->spool_fd, index, &h);
	if (r < 0)
		goto out;
	h.meta_crc = (uint32_t)crc32_z(0, (const Bytef *)meta.data, meta.len);
	h.header_crc = header_crc(&h);
	memcpy(page, &h, sizeof(h));
	/* The header goes last: a cache that was cut short has none. */
	if (!same_file(scan->spool_fd, cache_fd)) {
		r = ftruncate(cache_fd, 0) < 0 ? -errno : copy_pixels(scan->spool_fd, cache_fd, pixels);
		if (r < 0)
			goto out;
	}
	if (ftruncate(cache_fd, (off_t)(CACHE_PAGE + pixels)) < 0 ||
	    ftruncate(cache_fd, (off_t)h.file_size) < 0) {
		r = -errno;
		goto out;
	}
	r = dataset_pwrite(cache_fd, meta.data, meta.len, h.meta_offset);
	if (r == 0)
		r = dataset_pwrite(cache_fd, page, sizeof(page), 0);
	scan->cache_bytes = h.file_size;
out:
	buf_release(&meta);
	if (r < 0)
		err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "the decoded cache: %s", strerror(-r));
	return r;
}

static uint64_t ids_bytes(const struct cache_header *h)
{
	return h->has_ids ? h->counts[DATASET_VAL] * sizeof(uint64_t) : 0;
}

/* What must hold of a header before anything else is looked at; a sentence when it does not. */
static const char *check_header(const struct cache_header *h, uint64_t size, uint64_t *ret_n)
{
	uint64_t bytes, n = 0;

	if (memcmp(h->magic, CACHE_MAGIC, sizeof(h->magic)) != 0)
		return "not a cache";
	if (h->version != CACHE_VERSION)
		return "of another version";
	if (h->header_crc != header_crc(h))
		return "the header's checksum is wrong";
	if ((h->channels != 1 && h->channels != 3) || h->height < 1 || h->height > 16384 || h->width < 1 ||
	    h->width > 16384 || h->classes < 1 || h->classes > DATASET_MAX_CLASSES)
		return "impossible shape";
	if (h->file_size != size)
		return "cut short or grown";
	bytes = (uint64_t)h->channels * h->height * h->width;
	for (int s = 0; s < DATASET_SPLITS; s++) {
		if (h->counts[s] > DATASET_MAX_IMAGES)
			return "impossible counts";
		n += h->counts[s];
	}
	if (n < 1 || h->slots < 1 || h->slots > DATASET_MAX_IMAGES || h->slots * bytes > DATASET_MAX_PIXELS ||
	    h->meta_offset % CACHE_PAGE || h->meta_offset > size ||
	    CACHE_PAGE + h->slots * bytes > h->meta_offset || h->names_bytes > size ||
	    n * (sizeof(uint32_t) + sizeof(uint16_t)) + h->names_bytes + ids_bytes(h) > size - h->meta_offset)
		return "impossible offsets";
	for (uint32_t c = 0; c < h->channels; c++)
		if (!(h->mean[c] >= 0 && h->mean[c] <= 1) || !(h->std[c] > 0 && h->std[c] <= 1))
			return "impossible statistics";
	*ret_n = n;
	return NULL;
}

static const char *check_meta(struct dataset *ds, uint64_t n)
{
	const struct cache_header *h = &ds->header;
	const uint8_t *meta = ds->map + h->meta_offset;
	const char *name, *end;

	if (h->meta_crc != (uint32_t)crc32_z(0, meta, n * 6 + h->names_bytes + ids_bytes(h)))
		return "the index's checksum is wrong";
	ds->index = (const uint32_t *)meta;
	ds->labels = (const uint16_t *)(meta + n * sizeof(uint32_t));
	for (uint64_t i = 0; i < n; i++)
		if (ds->index[i] >= h->slots || ds->labels[i] >= h->classes)
			return "impossible index";
	name = (const char *)(meta + n * 6);
	end = name + h->names_bytes;
	ds->ids = h->has_ids ? (const uint8_t *)end : NULL;
	for (uint32_t i = 0; i < h->classes; i++) {
		const char *nul = memchr(name, 0, end - name);

		if (!nul)
			return "class names are missing";
		ds->names[i] = name;
		name = nul + 1;
	}
	return NULL;
}

int dataset_open(struct dataset **ret, int cache_fd, struct err *err)
{
	struct dataset *ds = calloc(1, sizeof(*ds));
	const char *wrong;
	struct stat st;
	uint64_t n;
	void *map;
	int r;

	if (!ds)
		return err_set(err, ERR_NO_MEMORY, "opening a decoded cache");
	if (fstat(cache_fd, &st) < 0) {
		r = err_set(err, ERR_IO, "the decoded cache: %s", strerror(errno));
		goto fail;
	}
	if (st.st_size < CACHE_PAGE) {
		r = err_set(err, ERR_BAD_CACHE, "it has %lld bytes", (long long)st.st_size);
		goto fail;
	}
	map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, cache_fd, 0);
	if (map == MAP_FAILED) {
		r = err_set(err, ERR_IO, "mapping the decoded cache: %s", strerror(errno));
		goto fail;
	}
	ds->map = map;
	ds->size = st.st_size;
	memcpy(&ds->header, map, sizeof(ds->header));
	wrong = check_header(&ds->header, st.st_size, &n);
	if (!wrong) {
		ds->names = calloc(ds->header.classes, sizeof(*ds->names));
		if (!ds->names) {
			r = err_set(err, ERR_NO_MEMORY, "opening a decoded cache");
			goto fail;
		}
		wrong = check_meta(ds, n);
	}
	if (wrong) {
		r = err_set(err, ERR_BAD_CACHE, "%s", wrong);
		goto fail;
	}
	for (int s = 1; s < DATASET_SPLITS; s++)
		ds->first[s] = ds->first[s - 1] + ds->header.counts[s - 1];
	*ret = ds;
	return 0;
fail:
	dataset_close(ds);
	return r;
}

void dataset_close(struct dataset *ds)
{
	if (!ds)
		return;
	if (ds->map)
		munmap((void *)ds->map, ds->size);
	free(ds->names);
	free(ds);
}

struct dataset_shape dataset_shape(const struct dataset *ds)
{
	return (struct dataset_shape){(int)ds->header.channels, (int)ds->header.height, (int)ds->header.width,
				      (int)ds->header.classes};
}

size_t dataset_count(const struct dataset *ds, enum dataset_split split)
{
	return ds->header.counts[split];
}

const uint8_t *dataset_image(const struct dataset *ds, enum dataset_split split, size_t i)
{
	size_t bytes = (size_t)ds->header.channels * ds->header.height * ds->header.width;

	return ds->map + CACHE_PAGE + ds->index[ds->first[split] + i] * bytes;
}

int dataset_label(const struct dataset *ds, enum dataset_split split, size_t i)
{
	return ds->labels[ds->first[split] + i];
}

bool dataset_val_ids(const struct dataset *ds, uint64_t *ret)
{
	if (!ds->ids)
		return false;
	memcpy(ret, ds->ids, dataset_count(ds, DATASET_VAL) * sizeof(*ret));
	return true;
}

const char *dataset_class(const struct dataset *ds, int label)
{
	return ds->names[label];
}

void dataset_mean_std(const struct dataset *ds, float *ret_mean, float *ret_std)
{
	for (uint32_t c = 0; c < ds->header.channels; c++) {
		ret_mean[c] = ds->header.mean[c];
		ret_std[c] = ds->header.std[c];
	}
}
