/*
 * Trains on Debian's dataset-fashion-mnist without a mount and prints every epoch:
 *
 *	train_fashion SPEC OUTDIR [CHECKPOINT]
 *
 * SPEC is a file or the JSON text itself; OUTDIR gets the model's files and "checkpoint"; a run is resumed
 * from CHECKPOINT.
 */
#include "engine/train.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DATA "/usr/share/datasets/fashion-mnist"

static int read_file(const char *path, struct buf *b)
{
	FILE *f = fopen(path, "rb");
	char chunk[65536];
	size_t n;

	if (!f)
		return -errno;
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_add(b, chunk, n);
	fclose(f);
	return buf_status(b);
}

static int write_file(const char *dir, const char *name, const void *data, size_t len)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
		perror(path);
		return -EIO;
	}
	return 0;
}

static double speed;

static int on_progress(void *data, const struct train_progress *p)
{
	(void)data;
	speed = p->samples_per_s;
	if (isatty(2) || p->batch % 50 == 0)
		fprintf(stderr, "\r%5.1f %%  epoch %d/%d  %.0f samples/s  ETA %.0f s ", p->percent, p->epoch,
			p->epochs, p->samples_per_s, p->eta_s);
	return 0;
}

static int on_epoch(void *data, const struct train_epoch *e)
{
	(void)data;
	printf("%3d  %6.1f s  %5.0f/s  lr %.4f  loss %.4f  train %.2f  val", e->epoch, e->seconds, speed,
	       e->lr, e->train_loss, 100 * e->train_accuracy);
	for (int i = 0; i < e->n_rates; i++)
		printf("  %g: %.2f", e->rates[i], 100 * e->val_accuracy[i]);
	printf("\n");
	fflush(stdout);
	return 0;
}

static int on_checkpoint(void *data, const void *bytes, size_t len)
{
	return write_file(data, "checkpoint", bytes, len);
}

static int scan(int fd, struct err *err)
{
	static const char *const names[] = {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
					    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"};
	struct buf json = BUF_INIT, b = BUF_INIT;
	struct dataset_scan *scan = NULL;
	char path[256];
	int r = dataset_scan_new(&scan, &(struct dataset_scan_options){.seed = 1, .spool_fd = fd}, err);

	for (int i = 0; i < 4 && r == 0; i++) {
		snprintf(path, sizeof(path), "%s/%s", DATA, names[i]);
		buf_clear(&b);
		r = read_file(path, &b);
		if (r == 0)
			r = dataset_scan_file(scan, names[i], b.data, b.len, err);
		else
			err_set(err, ERR_NO_DATASET, "%s", path);
	}
	if (r == 0)
		r = dataset_scan_finish(scan, fd, &json, err);
	dataset_scan_free(scan);
	buf_release(&json);
	buf_release(&b);
	return r;
}

int main(int argc, char **argv)
{
	const struct train_hooks hooks = {
		.progress = on_progress, .epoch = on_epoch, .checkpoint = on_checkpoint};
	struct buf text = BUF_INIT, checkpoint = BUF_INIT, out[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	static const char *const names[] = {"model.json", "weights.safetensors", "labels.txt", "slices.csv"};
	struct train_spec *spec = NULL;
	struct dataset *ds = NULL;
	struct train *t = NULL;
	struct err err = ERR_INIT;
	char line[512];
	int fd = memfd_create("fashion", MFD_CLOEXEC), r;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: train_fashion SPEC OUTDIR [CHECKPOINT]\n");
		return 2;
	}
	mkdir(argv[2], 0777);
	if (*argv[1] == '{')
		buf_adds(&text, argv[1]);
	else if (read_file(argv[1], &text) < 0)
		perror(argv[1]);
	if (argc == 4 && read_file(argv[3], &checkpoint) < 0)
		perror(argv[3]);
	if ((r = train_spec_parse(&spec, text.data ? text.data : "", text.len, &err)) < 0 ||
	    (r = scan(fd, &err)) < 0 || (r = dataset_open(&ds, fd, &err)) < 0 ||
	    (r = train_new(&t, spec, ds, checkpoint.len ? checkpoint.data : NULL, checkpoint.len, &hooks,
			   argv[2], &err)) < 0 ||
	    (r = train_run(t, &err)) < 0 ||
	    (r = model_save(train_model(t), &out[0], &out[1], &out[2], &out[3], &err)) < 0)
		goto out;
	for (int i = 0; i < 4 && r == 0; i++)
		r = write_file(argv[2], names[i], out[i].data, out[i].len);
	printf("%s", out[3].data);
out:
	if (r < 0)
		fprintf(stderr, "train_fashion: %s\n", err_format(&err, line, sizeof(line)));
	for (int i = 0; i < 4; i++)
		buf_release(&out[i]);
	train_free(t);
	dataset_close(ds);
	train_spec_free(spec);
	buf_release(&text);
	buf_release(&checkpoint);
	return r < 0;
}
