/*
 * The scan: files come in any order, one at a time, and only their decoded pixels are kept, in the spool at
 * the very offsets that they have in the cache. What shape the cache has may not be known until the last
 * image came: images are stored as they are while all are alike, and when the first one differs those
 * before it are converted in place, once for the size and once for colour. So the memory used is some 32
 * bytes an image, and the result does not depend on the order.
 */
#include "engine/base/rng.h"
#include "engine/base/utf8.h"
#include "engine/dataset_private.h"
#include "engine/image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_NAMES_FILE ((size_t)4 << 20)

int dataset_scan_new(struct dataset_scan **ret, const struct dataset_scan_options *options, struct err *err)
{
	struct dataset_scan *scan;

	if ((options->channels != 0 && options->channels != 1 && options->channels != 3) ||
	    options->height < 0 || options->width < 0 || !options->height != !options->width ||
	    options->height > 4096 || options->width > 4096)
		return err_set(err, ERR_SPEC_VALUE, "input %dx%dx%d", options->channels, options->height,
			       options->width);
	scan = calloc(1, sizeof(*scan));
	if (!scan)
		return err_set(err, ERR_NO_MEMORY, "scanning a data set");
	scan->options = *options;
	scan->options.name = NULL;
	scan->channels = options->channels;
	scan->height = options->height;
	scan->width = options->width;
	scan->size_fixed = options->height != 0;
	scan->spool_fd = options->spool_fd > 0 ? options->spool_fd : -1;
	scan->name = strdup(options->name ? options->name : "");
	if (scan->spool_fd < 0) {
		scan->spool_fd = memfd_create("dataset-spool", MFD_CLOEXEC);
		scan->own_spool = true;
	}
	if (!scan->name || scan->spool_fd < 0) {
		dataset_scan_free(scan);
		return err_set(err, ERR_NO_MEMORY, "scanning a data set");
	}
	utf8_clean(scan->name);
	*ret = scan;
	return 0;
}

void dataset_scan_free(struct dataset_scan *scan)
{
	if (!scan)
		return;
	if (scan->own_spool && scan->spool_fd >= 0)
		close(scan->spool_fd);
	for (int i = 0; i < scan->n_classes; i++)
		free(scan->classes[i]);
	for (int i = 0; i < scan->n_idx; i++) {
		free(scan->idx[i].prefix);
		free(scan->idx[i].labels);
	}
	for (int i = 0; i < scan->n_names; i++)
		free(scan->names[i]);
	for (size_t i = 0; i < scan->n_bad; i++) {
		free(scan->bad[i].file);
		free(scan->bad[i].reason);
	}
	free(scan->classes);
	free(scan->idx);
	free(scan->names);
	free(scan->names_file);
	free(scan->bad);
	free(scan->items);
	free(scan->class_counts);
	free(scan->name);
	free(scan);
}

int dataset_bad(struct dataset_scan *scan, const char *file, const char *fmt, ...)
{
	struct dataset_bad *bad;
	va_list ap;

	scan->bad_total++;
	if (scan->n_bad >= DATASET_MAX_BAD)
		return 0;
	bad = realloc(scan->bad, (scan->n_bad + 1) * sizeof(*bad));
	if (!bad)
		return -ENOMEM;
	scan->bad = bad;
	bad += scan->n_bad;
	*bad = (struct dataset_bad){.file = strdup(file)};
	va_start(ap, fmt);
	if (vasprintf(&bad->reason, fmt, ap) < 0)
		bad->reason = NULL;
	va_end(ap);
	if (!bad->file || !bad->reason) {
		free(bad->file);
		free(bad->reason);
		return -ENOMEM;
	}
	utf8_clean(bad->file);
	utf8_clean(bad->reason);
	scan->n_bad++;
	return 0;
}

int dataset_scan_bad(struct dataset_scan *scan, const char *relpath, const char *reason)
{
	return dataset_bad(scan, relpath, "%s", reason);
}

static size_t image_bytes(const struct dataset_scan *scan)
{
	return (size_t)scan->channels * scan->height * scan->width;
}

/* Gives an image the wanted shape. When it has it already, *made stays empty and it is returned itself. */
static const struct image *convert(struct image *made, const struct image *from, int channels, int height,
				   int width)
{
	struct image colour = {0};
	const struct image *now = from;

	if (from->channels != channels) {
		size_t n = (size_t)from->height * from->width;

		colour = (struct image){from->height, from->width, channels, malloc(n * channels)};
		if (!colour.pixels)
			return NULL;
		for (size_t i = 0; i < n; i++) {
			const uint8_t *p = from->pixels + i * from->channels;

			if (channels == 3)
				memset(colour.pixels + i * 3, *p, 3);
			else
				colour.pixels[i] =
					(uint8_t)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 32768) >> 16);
		}
		now = &colour;
	}
	if (now->height != height || now->width != width) {
		int r = image_resize(made, now, height, width);

		image_release(&colour);
		return r < 0 ? NULL : made;
	}
	if (now == &colour) {
		*made = colour;
		return made;
	}
	return from;
}

/* Converts what the spool holds to a new shape, in place: from the end when images grow, from the start when
 * they shrink, so that nothing is overwritten before it was read. */
static int reshape(struct dataset_scan *scan, int channels, int height, int width, struct err *err)
{
	size_t before = image_bytes(scan), after = (size_t)channels * height * width;
	struct image was = {scan->height, scan->width, scan->channels, calloc(1, before ? before : 1)};
	int r = was.pixels ? 0 : -ENOMEM;

	if (after * (uint64_t)scan->slots > DATASET_MAX_PIXELS) {
		r = err_set(err, ERR_IO, "the decoded data set is larger than %llu bytes",
			    (unsigned long long)DATASET_MAX_PIXELS);
		goto out;
	}
	for (uint32_t i = 0; r == 0 && i < scan->slots; i++) {
		uint32_t slot = after > before ? scan->slots - 1 - i : i;
		struct image made = {0};
		const struct image *now;

		r = dataset_pread(scan->spool_fd, was.pixels, before, CACHE_PAGE + (uint64_t)slot * before);
		if (r < 0)
			break;
		now = convert(&made, &was, channels, height, width);
		r = now ? dataset_pwrite(scan->spool_fd, now->pixels, after,
					 CACHE_PAGE + (uint64_t)slot * after)
			: -ENOMEM;
		image_release(&made);
	}
	if (r < 0)
		r = err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "the decoded images: %s",
			    strerror(-r));
	scan->channels = channels;
	scan->height = height;
	scan->width = width;
out:
	image_release(&was);
	return r;
}

int dataset_add(struct dataset_scan *scan, const struct image *image, const struct dataset_item *item,
		struct err *err)
{
	int channels = scan->channels ? scan->channels : image->channels, height = scan->height,
	    width = scan->width, r;
	struct image made = {0};
	const struct image *now;

	if (!scan->size_fixed) {
		if (!height) {
			height = image->height;
			width = image->width;
		}
		if (image->height != height || image->width != width || height > DATASET_FREE_SIDE ||
		    width > DATASET_FREE_SIDE) {
			height = width = DATASET_SIDE;
			scan->size_fixed = true;
		}
	}
	if (!scan->options.channels && image->channels == 3)
		channels = 3;
	if (channels != scan->channels || height != scan->height || width != scan->width) {
		r = reshape(scan, channels, height, width, err);
		if (r < 0)
			return r;
	}
	if (scan->n_items >= DATASET_MAX_IMAGES ||
	    ((uint64_t)scan->slots + 1) * image_bytes(scan) > DATASET_MAX_PIXELS)
		return err_set(err, ERR_IO, "more than %d images or %llu bytes decoded", DATASET_MAX_IMAGES,
			       (unsigned long long)DATASET_MAX_PIXELS);
	if (scan->n_items == scan->items_size) {
		size_t size = scan->items_size ? scan->items_size * 2 : 1024;
		struct dataset_item *items = realloc(scan->items, size * sizeof(*items));

		if (!items)
			return err_set(err, ERR_NO_MEMORY, "%zu images", scan->n_items);
		scan->items = items;
		scan->items_size = size;
	}
	now = convert(&made, image, channels, height, width);
	if (!now)
		return err_set(err, ERR_NO_MEMORY, "resizing an image");
	r = dataset_pwrite(scan->spool_fd, now->pixels, image_bytes(scan),
			   CACHE_PAGE + (uint64_t)scan->slots * image_bytes(scan));
	image_release(&made);
	if (r < 0)
		return err_set(err, ERR_IO, "writing the decoded images: %s", strerror(-r));
	scan->items[scan->n_items] = *item;
	scan->items[scan->n_items++].slot = scan->slots++;
	return 0;
}

void dataset_rewind(struct dataset_scan *scan, size_t n_items, uint32_t slots)
{
	scan->n_items = n_items;
	scan->slots = slots;
}

/* The number of a class, made when new; -1 when there are too many, -ENOMEM. Files come mostly class by
 * class, so the last one is looked at first. */
static int class_number(struct dataset_scan *scan, const char *name, size_t len)
{
	char **classes;

	for (int i = scan->n_classes - 1; i >= 0; i--)
		if (strncmp(scan->classes[i], name, len) == 0 && scan->classes[i][len] == '\0')
			return i;
	if (scan->n_classes >= DATASET_MAX_CLASSES)
		return -1;
	classes = realloc(scan->classes, (scan->n_classes + 1) * sizeof(*classes));
	if (!classes)
		return -ENOMEM;
	scan->classes = classes;
	classes[scan->n_classes] = strndup(name, len);
	return classes[scan->n_classes] ? scan->n_classes++ : -ENOMEM;
}

static const struct {
	const char *name;
	enum dataset_split split;
} split_names[] = {
	{"train", DATASET_TRAIN},  {"training", DATASET_TRAIN}, {"val", DATASET_VAL},
	{"valid", DATASET_VAL},    {"validation", DATASET_VAL}, {"test", DATASET_TEST},
	{"testing", DATASET_TEST},
};

static int folder_image(struct dataset_scan *scan, const char *path, const void *data, size_t len,
			struct err *err)
{
	enum dataset_split split = DATASET_TRAIN;
	const char *class = path, *slash = strchr(path, '/');
	struct image image = {0};
	struct err why = ERR_INIT;
	char text[512];
	int r, number;

	for (size_t i = 0; slash && i < sizeof(split_names) / sizeof(split_names[0]); i++)
		if (strlen(split_names[i].name) == (size_t)(slash - path) &&
		    strncasecmp(path, split_names[i].name, slash - path) == 0) {
			split = split_names[i].split;
			class = slash + 1;
			slash = strchr(class, '/');
			break;
		}
	if (!slash)
		return dataset_bad(scan, path, "it lies in no class's folder");
	r = image_decode(&image, data, len, scan->options.channels, &why);
	if (r == -ENOMEM)
		return err_set(err, ERR_NO_MEMORY, "decoding %s", path);
	if (r < 0)
		return dataset_bad(scan, path, "%s", err_format(&why, text, sizeof(text)));
	number = class_number(scan, class, slash - class);
	if (number == -1)
		r = dataset_bad(scan, path, "more than %d classes", DATASET_MAX_CLASSES);
	else if (number < 0)
		r = err_set(err, ERR_NO_MEMORY, "%d classes", scan->n_classes);
	else
		r = dataset_add(
			scan, &image,
			&(struct dataset_item){.key = rng_hash(scan->options.seed, path, strlen(path)),
					       .id = rng_hash(0, data, len),
					       .source = (uint32_t)number,
					       .idx = -1,
					       .split = split},
			err);
	if (r == 0 && number >= 0)
		scan->folder_images++;
	image_release(&image);
	return r;
}

/* labels.txt: one name a line. */
static int names_file(struct dataset_scan *scan, const char *path, const char *data, size_t len,
		      struct err *err)
{
	const char *end = data + len;

	if (len > MAX_NAMES_FILE)
		return dataset_bad(scan, path, "a list of class names of %zu bytes", len);
	if (scan->names_file)
		return dataset_bad(scan, path, "class names were read from %s already", scan->names_file);
	scan->names_file = strdup(path);
	while (data < end && scan->n_names < DATASET_MAX_CLASSES) {
		const char *line = memchr(data, '\n', end - data), *stop = line ? line : end;
		char **names = realloc(scan->names, (scan->n_names + 1) * sizeof(*names));

		if (!names)
			return err_set(err, ERR_NO_MEMORY, "class names");
		scan->names = names;
		if (stop > data && stop[-1] == '\r')
			stop--;
		names[scan->n_names] = strndup(data, stop - data < 200 ? stop - data : 200);
		if (!names[scan->n_names])
			return err_set(err, ERR_NO_MEMORY, "class names");
		utf8_clean(names[scan->n_names++]);
		data = line ? line + 1 : end;
	}
	return 0;
}

static bool has_suffix(const char *name, const char *const *suffixes)
{
	const char *dot = strrchr(name, '.');

	for (; dot && *suffixes; suffixes++)
		if (strcasecmp(dot, *suffixes) == 0)
			return true;
	return false;
}

int dataset_scan_file(struct dataset_scan *scan, const char *relpath, const void *data, size_t len,
		      struct err *err)
{
	static const char *const images[] = {".png", ".jpg", ".jpeg", ".jpe", NULL};
	static const char *const foreign[] = {".gif", ".bmp", ".tif", ".tiff", ".webp",
					      ".ppm", ".pgm", ".jp2", ".heic", NULL};
	const char *base = strrchr(relpath, '/');
	size_t prefix_len = 0;
	enum idx_kind kind;

	base = base ? base + 1 : relpath;
	if (*relpath == '.' || strstr(relpath, "/.") || strcmp(base, "dataset.json") == 0)
		return 0;
	kind = dataset_idx_kind(relpath, &prefix_len);
	if (kind != IDX_NONE)
		return dataset_idx_file(scan, relpath, kind, prefix_len, data, len, err);
	if (has_suffix(base, images))
		return folder_image(scan, relpath, data, len, err);
	if (has_suffix(base, foreign))
		return dataset_bad(scan, relpath, "a kind of image that is not understood: PNG and JPEG are");
	if (strcmp(relpath, "labels.txt") == 0 || strcmp(relpath, "classes.txt") == 0)
		return names_file(scan, relpath, data, len, err);
	scan->ignored++;
	return 0;
}

/* Items by (split, class, key) for the choice of val, and by (split, key) for the cache. */
static int by_class(const void *a, const void *b)
{
	const struct dataset_item *x = a, *y = b;

	if (x->dropped != y->dropped)
		return x->dropped - y->dropped;
	if (x->split != y->split)
		return x->split - y->split;
	if (x->source != y->source)
		return x->source < y->source ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

static int by_key(const void *a, const void *b)
{
	const struct dataset_item *x = a, *y = b;

	if (x->dropped != y->dropped)
		return x->dropped - y->dropped;
	if (x->split != y->split)
		return x->split - y->split;
	return x->key < y->key ? -1 : x->key > y->key;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(**(char **const *)a, **(char **const *)b);
}

/* Every item's source becomes its final class; classes are put in order. */
static int settle_classes(struct dataset_scan *scan)
{
	int highest, r = dataset_idx_pair(scan, &highest), n_folder = scan->n_classes, n, offset = 0;
	char ***order = NULL, **sorted = NULL;
	int *number = NULL, idx_number[256];

	if (r < 0)
		return r;
	if (highest >= 0 && n_folder == 0 && scan->n_names > highest && scan->n_names <= 256)
		highest = scan->n_names - 1; /* classes that are named but not seen */
	for (int i = 0; i <= highest; i++) {
		char name[8];

		snprintf(name, sizeof(name), "%d", i);
		idx_number[i] = class_number(scan, name, strlen(name));
		if (idx_number[i] < 0)
			return idx_number[i] == -1 ? -E2BIG : idx_number[i];
	}
	n = scan->n_classes;
	order = calloc(n + 1, sizeof(*order));
	sorted = calloc(n + 1, sizeof(*sorted));
	number = calloc(n + 1, sizeof(*number));
	if (!order || !sorted || !number) {
		r = -ENOMEM;
		goto out;
	}
	for (int i = 0; i < n; i++)
		order[i] = &scan->classes[i];
	if (n_folder && n) /* IDX alone stays in numeric order */
		qsort(order, n, sizeof(*order), by_name);
	for (int i = 0; i < n; i++) {
		sorted[i] = *order[i];
		number[order[i] - scan->classes] = i;
	}
	if (n)
		memcpy(scan->classes, sorted, n * sizeof(*sorted));
	for (size_t i = 0; i < scan->n_items; i++) {
		struct dataset_item *item = &scan->items[i];

		if (!item->dropped)
			item->source = number[item->idx >= 0 ? idx_number[item->source] : (int)item->source];
	}
	if (scan->n_names && scan->n_names < n) {
		r = dataset_bad(scan, scan->names_file, "%d names for %d classes", scan->n_names, n);
	} else if (scan->n_names) {
		for (; offset < n; offset++) {
			char *name = strdup(scan->names[offset]);

			if (!name) {
				r = -ENOMEM;
				goto out;
			}
			free(scan->classes[offset]);
			scan->classes[offset] = name;
		}
	}
	for (int i = 0; i < n; i++)
		utf8_clean(scan->classes[i]);
out:
	free(order);
	free(sorted);
	free(number);
	return r;
}

/* Without val images, the tenth of each class of train with the lowest keys becomes val; when classes are so
 * small that this is nothing, one image. Items are sorted by_class. */
static void make_val(struct dataset_scan *scan)
{
	size_t n = scan->n_items, made = 0, lowest = n, train = 0;

	for (size_t i = 0; i < n; i++) {
		if (!scan->items[i].dropped && scan->items[i].split == DATASET_VAL)
			return;
		if (scan->items[i].dropped || scan->items[i].split != DATASET_TRAIN)
			continue;
		train++;
		if (lowest == n || scan->items[i].key < scan->items[lowest].key)
			lowest = i;
	}
	for (size_t i = 0, end; i < train; i = end) {
		for (end = i; end < train && scan->items[end].source == scan->items[i].source; end++)
			;
		for (size_t j = i; j < i + (end - i + 5) / 10 && j < end; j++, made++)
			scan->items[j].split = DATASET_VAL;
	}
	if (!made && train > 1)
		scan->items[lowest].split = DATASET_VAL;
	scan->val_made = train > 1;
}

int dataset_scan_finish(struct dataset_scan *scan, int cache_fd, struct buf *ret_json, struct err *err)
{
	uint32_t *index = NULL;
	uint16_t *labels = NULL;
	uint64_t *ids = NULL;
	size_t used = 0;
	int r = settle_classes(scan);

	if (r < 0) {
		r = err_set(err, ERR_NO_MEMORY, "sorting the classes");
		goto out;
	}
	if (scan->n_items) {
		qsort(scan->items, scan->n_items, sizeof(*scan->items), by_class);
		make_val(scan);
		qsort(scan->items, scan->n_items, sizeof(*scan->items), by_key);
	}
	while (used < scan->n_items && !scan->items[used].dropped)
		used++;
	index = malloc((used + 1) * sizeof(*index));
	labels = malloc((used + 1) * sizeof(*labels));
	ids = malloc((used + 1) * sizeof(*ids));
	scan->class_counts = calloc(scan->n_classes + 1, sizeof(*scan->class_counts));
	if (!index || !labels || !ids || !scan->class_counts) {
		r = err_set(err, ERR_NO_MEMORY, "%zu images", used);
		goto out;
	}
	for (size_t i = 0; i < used; i++) {
		const struct dataset_item *item = &scan->items[i];

		index[i] = item->slot;
		labels[i] = (uint16_t)item->source;
		if (item->split == DATASET_VAL)
			ids[scan->counts[DATASET_VAL]] = item->id;
		scan->counts[item->split]++;
		scan->class_counts[item->source][item->split]++;
	}
	if (used) {
		r = dataset_cache_write(scan, cache_fd, index, labels, ids, err);
		if (r < 0)
			goto out;
	}
	r = dataset_json(scan, ret_json);
	if (r < 0)
		r = err_set(err, ERR_NO_MEMORY, "writing dataset.json");
	else if (!used)
		r = err_set(err, ERR_EMPTY_DATASET, "%zu bad files, %zu ignored", scan->bad_total,
			    scan->ignored);
out:
	free(index);
	free(labels);
	free(ids);
	return r;
}
