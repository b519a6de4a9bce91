/* Scans of IDX and ImageFolder data, the cache they make, and what damaged ones are answered with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/rng.h"
#include "engine/dataset.h"
#include "engine/image.h"

#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

static struct buf idx_images(uint32_t n, uint32_t h, uint32_t w)
{
	struct buf b = BUF_INIT;
	const uint32_t head[4] = {0x803, n, h, w};

	for (int i = 0; i < 4; i++)
		buf_add(&b, (uint8_t[]){head[i] >> 24, head[i] >> 16, head[i] >> 8, head[i]}, 4);
	for (uint32_t i = 0; i < n * h * w; i++)
		buf_add(&b, &(uint8_t){(uint8_t)(i / (h * w) * 3 + i % 7)}, 1);
	return b;
}

static struct buf idx_labels(uint32_t n, int classes)
{
	struct buf b = BUF_INIT;

	buf_add(&b, (uint8_t[]){0, 0, 8, 1, n >> 24, n >> 16, n >> 8, n}, 8);
	for (uint32_t i = 0; i < n; i++)
		buf_add(&b, &(uint8_t){(uint8_t)(i % classes)}, 1);
	return b;
}

static struct buf gzip(const struct buf *from)
{
	struct buf b = BUF_INIT;
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)from->data;
	z.avail_in = from->len;
	z.next_out = (Bytef *)buf_reserve(&b, from->len + 1000);
	z.avail_out = from->len + 1000;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	b.len = z.total_out;
	deflateEnd(&z);
	return b;
}

static struct buf png(int h, int w, int channels, uint8_t value)
{
	uint8_t *px = malloc((size_t)h * w * channels);
	struct image im = {h, w, channels, px};
	struct buf b = BUF_INIT;

	memset(px, value, (size_t)h * w * channels);
	assert_int_equal(image_encode_png(&b, &im, NULL, 0), 0);
	free(px);
	return b;
}

static struct dataset_scan *scan_new(const struct dataset_scan_options *options)
{
	struct dataset_scan *scan;

	assert_int_equal(dataset_scan_new(&scan, options, NULL), 0);
	return scan;
}

static void add(struct dataset_scan *scan, const char *path, const struct buf *b)
{
	char *copy = malloc(b->len ? b->len : 1); /* so that reading beyond the end is seen */

	memcpy(copy, b->data, b->len);
	assert_int_equal(dataset_scan_file(scan, path, copy, b->len, NULL), 0);
	free(copy);
}

static void add_free(struct dataset_scan *scan, const char *path, struct buf b)
{
	add(scan, path, &b);
	buf_release(&b);
}

/* Ends a scan; ds is NULL when it was empty. */
static cJSON *finish(struct dataset_scan *scan, int fd, struct dataset **ds)
{
	struct buf json = BUF_INIT;
	cJSON *root;
	int r = dataset_scan_finish(scan, fd, &json, NULL);

	*ds = NULL;
	if (r != -ENODATA) {
		assert_int_equal(r, 0);
		assert_int_equal(dataset_open(ds, fd, NULL), 0);
	}
	assert_int_equal(json.data[json.len - 1], '\n');
	root = cJSON_Parse(json.data);
	assert_non_null(root);
	buf_release(&json);
	dataset_scan_free(scan);
	return root;
}

static int memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static double number(const cJSON *root, const char *a, const char *b)
{
	const cJSON *item = cJSON_GetObjectItem(root, a);

	return cJSON_GetNumberValue(b ? cJSON_GetObjectItem(item, b) : item);
}

static void idx(void **state)
{
	/* Every order and form gives the same data set. */
	uint64_t sum[4] = {0};

	(void)state;
	for (int form = 0; form < 4; form++) {
		struct buf images = idx_images(200, 5, 4), labels = idx_labels(200, 4),
			   test = idx_images(30, 5, 4), tlabels = idx_labels(30, 4);
		struct buf zi = gzip(&images), zl = gzip(&labels);
		int fd = memfd();
		struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){
			.seed = 7, .name = "d", .spool_fd = form % 2 ? fd : 0});
		struct dataset *ds;
		float mean, std;
		cJSON *json;

		if (form < 2) {
			add(scan, "x-train-images-idx3-ubyte.gz", &zi);
			add(scan, "x-train-labels-idx1-ubyte", &labels);
			add(scan, "t10k-images-idx3-ubyte", &test);
			add(scan, "t10k-labels-idx1-ubyte", &tlabels);
		} else {
			add(scan, "t10k-labels-idx1-ubyte", &tlabels);
			add(scan, "x-train-labels-idx1-ubyte.gz", &zl);
			add(scan, "t10k-images-idx3-ubyte", &test);
			add(scan, "x-train-images-idx3-ubyte", &images);
		}
		json = finish(scan, fd, &ds);
		close(fd);
		assert_int_equal(dataset_shape(ds).classes, 4);
		assert_int_equal(dataset_shape(ds).channels, 1);
		assert_int_equal(dataset_shape(ds).height, 5);
		assert_int_equal(dataset_shape(ds).width, 4);
		assert_int_equal(dataset_count(ds, DATASET_TRAIN), 180);
		assert_int_equal(dataset_count(ds, DATASET_VAL), 20);
		assert_int_equal(dataset_count(ds, DATASET_TEST), 30);
		assert_int_equal(number(json, "splits", "val"), 20);
		assert_int_equal(number(json, "bad", "total"), 0);
		for (int s = 0; s < DATASET_SPLITS; s++)
			for (size_t i = 0; i < dataset_count(ds, s); i++) {
				const uint8_t *p = dataset_image(ds, s, i);
				int which = 0; /* the image's number, from its pixels */

				while (which < 200 && (uint8_t)(which * 3 + which * 20 % 7) != *p)
					which++;
				for (; which < 200; which++) {
					int j = 0;

					while (j < 20 && p[j] == (uint8_t)(which * 3 + (which * 20 + j) % 7))
						j++;
					if (j == 20 && which % 4 == dataset_label(ds, s, i))
						break;
				}
				assert_true(which < 200);
				sum[form] = sum[form] * 31 + p[3] * 5 + dataset_label(ds, s, i);
			}
		assert_int_equal(sum[form], sum[0]);
		dataset_mean_std(ds, &mean, &std);
		assert_true(mean > 0.3 && mean < 0.6 && std > 0.2 && std < 0.35);
		assert_string_equal(dataset_class(ds, 3), "3");
		dataset_close(ds);
		cJSON_Delete(json);
		buf_release(&images), buf_release(&labels), buf_release(&test), buf_release(&tlabels);
		buf_release(&zi), buf_release(&zl);
	}
}

static void idx_hostile(void **state)
{
	struct buf images = idx_images(6, 3, 3), labels = idx_labels(6, 2), zi = gzip(&images),
		   zl = gzip(&labels);
	struct buf *const kinds[4] = {&images, &zi, &labels, &zl};

	(void)state;
	/* Cut at every length: the pair is bad, and nothing of it is used. */
	for (int kind = 0; kind < 4; kind++)
		for (size_t n = 0; n < kinds[kind]->len; n++) {
			struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
			struct buf cut = BUF_INIT;
			struct dataset *ds;
			int fd = memfd();
			cJSON *json;

			buf_add(&cut, kinds[kind]->data, n);
			add(scan, "a-images-idx3-ubyte", kind < 2 ? &cut : &images);
			add(scan, "a-labels-idx1-ubyte", kind < 2 ? &labels : &cut);
			json = finish(scan, fd, &ds);
			assert_null(ds);
			assert_int_equal(number(json, "bad", "total"), 2); /* the file, and its widow */
			cJSON_Delete(json);
			buf_release(&cut);
			close(fd);
		}
	/* Every byte of the headers changed. */
	for (int at = 0; at < 16; at++) {
		struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
		struct dataset *ds;
		int fd = memfd();

		images.data[at] ^= 0x7f;
		add(scan, "a-images-idx3-ubyte", &images);
		images.data[at] ^= 0x7f;
		add(scan, "a-labels-idx1-ubyte", &labels);
		cJSON_Delete(finish(scan, fd, &ds));
		assert_null(ds);
		close(fd);
	}
	buf_release(&images), buf_release(&labels), buf_release(&zi), buf_release(&zl);
	/* As many labels as images or none of it. */
	struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
	struct dataset *ds;
	int fd = memfd();
	cJSON *json;

	add_free(scan, "a-images-idx3-ubyte", idx_images(5, 2, 2));
	add_free(scan, "a-labels-idx1-ubyte", idx_labels(6, 2));
	json = finish(scan, fd, &ds);
	assert_null(ds);
	assert_int_equal(number(json, "bad", "total"), 1);
	cJSON_Delete(json);
	close(fd);
}

static void folder(void **state)
{
	struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){.seed = 3, .name = "pets"});
	struct dataset *ds;
	int fd = memfd(), seen[2] = {0};
	const cJSON *files;
	cJSON *json;
	char path[64];

	(void)state;
	for (int i = 0; i < 40; i++) { /* grey first; then one in colour of another size */
		snprintf(path, sizeof(path), "train/%s/%d.png", i % 2 ? "zebra" : "ant", i);
		add_free(scan, path, png(10, 12, 1, i % 2 ? 200 : 40));
	}
	add_free(scan, "train/zebra/c.png", png(30, 20, 3, 200));
	add_free(scan, "test/ant/1.PNG", png(10, 12, 1, 40));
	add_free(scan, "train/loose.png", png(2, 2, 1, 0));
	assert_int_equal(dataset_scan_file(scan, "train/ant/bad.png", "\x89PNG\r\n\x1a\nxx", 10, NULL), 0);
	assert_int_equal(dataset_scan_file(scan, "train/ant/bad\xff.jpg", "", 0, NULL), 0);
	assert_int_equal(dataset_scan_file(scan, "train/ant/old.gif", "GIF89a", 6, NULL), 0);
	assert_int_equal(dataset_scan_file(scan, "train/ant/.DS_Store", "x", 1, NULL), 0);
	assert_int_equal(dataset_scan_file(scan, "notes.md", "x", 1, NULL), 0);
	assert_int_equal(dataset_scan_bad(scan, "train/ant/deadly.png", "the decoder crashed on it"), 0);
	assert_int_equal(dataset_scan_file(scan, "labels.txt", "Ameise\r\nZebra", 13, NULL), 0);
	json = finish(scan, fd, &ds);
	assert_non_null(ds);
	assert_int_equal(dataset_shape(ds).channels, 3);
	assert_int_equal(dataset_shape(ds).height, 64);
	assert_int_equal(dataset_shape(ds).width, 64);
	assert_int_equal(dataset_count(ds, DATASET_TRAIN), 37);
	assert_int_equal(dataset_count(ds, DATASET_VAL), 4);
	assert_int_equal(dataset_count(ds, DATASET_TEST), 1);
	assert_string_equal(dataset_class(ds, 0), "Ameise");
	for (int s = 0; s < DATASET_SPLITS; s++)
		for (size_t i = 0; i < dataset_count(ds, s); i++) {
			const uint8_t *p = dataset_image(ds, s, i);
			int label = dataset_label(ds, s, i);

			for (int j = 0; j < 64 * 64 * 3; j++)
				assert_int_equal(p[j], label ? 200 : 40);
			seen[label]++;
		}
	assert_int_equal(seen[0], 21);
	assert_int_equal(seen[1], 21);
	assert_int_equal(number(json, "bad", "total"), 5);
	assert_int_equal(number(json, "ignored", NULL), 1);
	files = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "bad"), "files");
	assert_int_equal(cJSON_GetArraySize(files), 5);
	assert_string_equal(cJSON_GetObjectItem(cJSON_GetArrayItem(files, 2), "reason")->valuestring,
			    "the decoder crashed on it");
	assert_string_equal(cJSON_GetObjectItem(cJSON_GetArrayItem(files, 0), "file")->valuestring,
			    "train/ant/bad.png");
	cJSON_Delete(json);
	dataset_close(ds);
	close(fd);
}

/* What tells images of val apart is their content: the same in a cache of another shape, under other names, of an IDX pair as well. */
static void val_ids(void **state)
{
	enum { N = 20 };
	uint64_t ids[3][N];
	struct buf files[N], images, labels;
	struct dataset *ds;

	(void)state;
	for (int i = 0; i < N; i++)
		files[i] = png(8, 8, 1, (uint8_t)(10 * i));
	for (int k = 0; k < 2; k++) {
		struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){
			.channels = k ? 3 : 0, .height = 8 * k, .width = 8 * k});
		int fd = memfd();

		for (int i = 0; i < N; i++) {
			char path[64];

			snprintf(path, sizeof(path), "val/c/%d%s.png", i, k ? "-other" : "");
			add(scan, path, &files[i]);
			snprintf(path, sizeof(path), "train/c/%d.png", i);
			add(scan, path, &files[0]);
		}
		cJSON_Delete(finish(scan, fd, &ds));
		close(fd);
		assert_int_equal(dataset_count(ds, DATASET_VAL), N);
		assert_true(dataset_val_ids(ds, ids[k]));
		for (int i = 0; i < N; i++) /* each beside its own image */
			assert_true(ids[k][i] ==
				    rng_hash(0, files[dataset_image(ds, DATASET_VAL, i)[0] / 10].data,
					     files[dataset_image(ds, DATASET_VAL, i)[0] / 10].len));
		dataset_close(ds);
	}
	images = idx_images(N, 5, 5);
	labels = idx_labels(N, 2);
	for (int k = 0; k < 2; k++) {
		struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
		int fd = memfd();

		add(scan, k ? "x/val-images-idx3-ubyte" : "train-images-idx3-ubyte", &images);
		add(scan, k ? "x/val-labels-idx1-ubyte" : "train-labels-idx1-ubyte", &labels);
		cJSON_Delete(finish(scan, fd, &ds));
		close(fd);
		assert_true(dataset_count(ds, DATASET_VAL) > 0);
		assert_true(dataset_val_ids(ds, ids[2]));
		for (size_t i = 0; i < dataset_count(ds, DATASET_VAL); i++)
			assert_true(ids[2][i] ==
				    rng_hash(0, (const char *)dataset_image(ds, DATASET_VAL, i), 25));
		dataset_close(ds);
	}
	buf_release(&images);
	buf_release(&labels);
	for (int i = 0; i < N; i++)
		buf_release(&files[i]);
}

static void folder_limits(void **state)
{
	struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
	struct dataset *ds;
	int fd = memfd();
	char path[64];
	cJSON *json;

	(void)state;
	for (int i = 0; i < 1500; i++) {
		snprintf(path, sizeof(path), "c/%d.png", i);
		assert_int_equal(dataset_scan_file(scan, path, "nothing", 7, NULL), 0);
	}
	json = finish(scan, fd, &ds);
	assert_null(ds);
	assert_int_equal(number(json, "bad", "total"), 1500);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "bad"), "files")),
			 1000);
	cJSON_Delete(json);
	close(fd);
	/* A size that is asked for, from grey to RGB and shrunk. */
	scan = scan_new(&(struct dataset_scan_options){.channels = 3, .height = 4, .width = 6});
	add_free(scan, "a/1.png", png(40, 40, 1, 9));
	add_free(scan, "b/2.png", png(2, 2, 3, 8));
	fd = memfd();
	cJSON_Delete(finish(scan, fd, &ds));
	assert_int_equal(dataset_shape(ds).height, 4);
	assert_int_equal(dataset_shape(ds).width, 6);
	assert_int_equal(dataset_count(ds, DATASET_TRAIN), 1);
	assert_int_equal(dataset_count(ds, DATASET_VAL), 1);
	assert_int_equal(dataset_image(ds, DATASET_TRAIN, 0)[71], 9 - dataset_label(ds, DATASET_TRAIN, 0));
	dataset_close(ds);
	close(fd);
}

static void cache_hostile(void **state)
{
	struct dataset_scan *scan = scan_new(&(struct dataset_scan_options){0});
	struct dataset *ds;
	int fd = memfd(), refused = 0, n = 0;
	off_t size;
	uint8_t byte;

	(void)state;
	add_free(scan, "a-images-idx3-ubyte", idx_images(20, 3, 3));
	add_free(scan, "a-labels-idx1-ubyte", idx_labels(20, 2));
	cJSON_Delete(finish(scan, fd, &ds));
	dataset_close(ds);
	size = lseek(fd, 0, SEEK_END);
	assert_int_equal(size % 4096, 0);
	for (off_t at = 0; at < size; at += at < 256 || (at >= 8192 && at < 8500) ? 1 : 97) {
		bool pixel = at >= 4096 && at < 8192, used = at < 128 || (at >= 8192 && at < 8192 + 124);

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x41;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		n++;
		if (dataset_open(&ds, fd, NULL) == 0) {
			assert_true(pixel || !used);
			dataset_close(ds);
		} else {
			refused++;
		}
		byte ^= 0x41;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	assert_true(refused >= 230);
	assert_int_equal(dataset_open(&ds, fd, NULL), 0);
	dataset_close(ds);
	while (size > 0) {
		size -= 100;
		if (size < 0)
			size = 0;
		assert_int_equal(ftruncate(fd, size), 0);
		assert_int_equal(dataset_open(&ds, fd, NULL), -EBADMSG);
	}
	close(fd);
}

static struct buf read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct buf b = BUF_INIT;
	char chunk[65536];
	ssize_t n;

	if (fd < 0)
		return b;
	while ((n = read(fd, chunk, sizeof(chunk))) > 0)
		buf_add(&b, chunk, n);
	close(fd);
	return b;
}

/* 70,000 real images, where Debian's dataset-fashion-mnist is installed. */
static void fashion(void **state)
{
	static const char *const names[] = {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
					    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"};
	struct dataset_scan *scan;
	struct dataset *ds;
	float mean, std;
	char path[128];
	int fd;

	(void)state;
	if (access("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz", R_OK) < 0)
		skip();
	fd = memfd();
	scan = scan_new(&(struct dataset_scan_options){.spool_fd = fd});
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "/usr/share/datasets/fashion-mnist/%s", names[i]);
		add_free(scan, names[i], read_file(path));
	}
	cJSON_Delete(finish(scan, fd, &ds));
	assert_int_equal(dataset_count(ds, DATASET_TRAIN), 54000);
	assert_int_equal(dataset_count(ds, DATASET_VAL), 6000);
	assert_int_equal(dataset_count(ds, DATASET_TEST), 10000);
	dataset_mean_std(ds, &mean, &std);
	assert_true(mean > 0.284 && mean < 0.288 && std > 0.351 && std < 0.355); /* known: 0.2860, 0.3530 */
	dataset_close(ds);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idx),     cmocka_unit_test(idx_hostile),   cmocka_unit_test(folder),
		cmocka_unit_test(val_ids), cmocka_unit_test(folder_limits), cmocka_unit_test(cache_hostile),
		cmocka_unit_test(fashion),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
