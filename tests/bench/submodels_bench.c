/*
 * What all sub-models of a network take together, and what it costs to change from one to another:
 *
 *	bench-submodels [NET [CHANNELSxSIDE [BATCH [PRECISIONS [ROUNDS]]]]]
 *	bench-submodels '{"arch":"resnet","depth":50,"norm":"batch"}' 3x224 32 f32,bf16,int8 5
 *
 * Four slices at each precision, all ready, of one model: resident memory after each (packed weights, kernels; the activation
 * arena is counted apart), as a multiple of the full f32 weights. Then each pair in turn: the first mini-batch after a
 * switch against the median of those that follow, and what the heap grew by.
 */
#include "engine/backend.h"
#include "engine/base/clock.h"
#include "engine/session.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLICES = 4, AFTER = 5, MOST_ROUNDS = 100 };

/* Of the process's own, and of its weights' file; the libraries' code is shared by all. */
static double resident_mib(void)
{
	char line[256];
	double kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %lf", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib / 1024;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *list, int n)
{
	qsort(list, (size_t)n, sizeof(*list), compare);
	return list[n / 2];
}

/* The model as a worker has it: its weights are a file that is mapped. */
static struct model *reopened(struct model *model, void **map, size_t *len, struct err *err)
{
	char name[] = "/tmp/bench-submodels.XXXXXX";
	int fd = mkstemp(name);
	struct buf json = BUF_INIT, weights = BUF_INIT, labels = BUF_INIT, slices = BUF_INIT;
	struct model *back = NULL;

	unlink(name);
	if (model_save(model, &json, &weights, &labels, &slices, err) == 0 &&
	    write(fd, weights.data, weights.len) == (ssize_t)weights.len) {
		*len = weights.len;
		*map = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
		model_open(&back, json.data, json.len, *map, *len, err);
	}
	close(fd);
	model_free(model);
	buf_release(&json);
	buf_release(&weights);
	buf_release(&labels);
	buf_release(&slices);
	malloc_trim(0);
	return back;
}

static struct session *sessions[SLICES * N_PRECISIONS];
static int n_sessions, batch = 32;
static uint8_t *pixels;
static float *logits;

static double run_ms(int i)
{
	double start = clock_seconds();

	if (session_forward(sessions[i], pixels, batch, logits) < 0)
		exit(1);
	return (clock_seconds() - start) * 1e3;
}

/* What int8 needs to know of a slice; the session that finds out is freed. */
static int calibrate(struct model *model, int rate)
{
	struct session_options options = {.rate = model_info(model)->rates[rate], .batch = batch};
	struct session *s;
	int r = session_new(&s, model, backend_find("onednn"), &options, NULL);

	if (r < 0)
		return r;
	r = session_calibrate(s, model, rate, pixels, batch, logits);
	session_free(s);
	malloc_trim(0);
	return r;
}

static void switches(int rounds)
{
	double worst = 0;
	size_t grown = 0;

	for (int a = 0; a < n_sessions; a++)
		for (int b = 0; b < n_sessions; b++) {
			double extra[MOST_ROUNDS], after[AFTER];

			for (int k = 0; k < rounds && a != b; k++) {
				size_t before;

				run_ms(a);
				run_ms(a);
				before = mallinfo2().uordblks + mallinfo2().hblkhd;
				extra[k] = run_ms(b);
				grown += mallinfo2().uordblks + mallinfo2().hblkhd - before;
				for (int i = 0; i < AFTER; i++)
					after[i] = run_ms(b);
				extra[k] -= median(after, AFTER);
			}
			if (a != b && median(extra, rounds) > worst)
				worst = extra[rounds / 2];
			if (a != b)
				printf("switch %d to %d: %+.3f ms\n", a, b, extra[rounds / 2]);
		}
	printf("switches: %.3f ms more at the worst, the heap grew by %zu bytes\n", worst, grown);
}

int main(int argc, char **argv)
{
	const char *net = argc > 1 ? argv[1] : "{\"arch\":\"resnet\",\"depth\":50,\"norm\":\"batch\"}";
	struct model_info info = {.channels = 3,
				  .height = 224,
				  .classes = 1000,
				  .std = {1, 1, 1},
				  .n_rates = SLICES,
				  .rates = {0.25f, 0.5f, 0.75f, 1}};
	const char *precisions = argc > 4 ? argv[4] : "f32,bf16";
	int rounds = argc > 5 ? atoi(argv[5]) : 3;
	double empty, weights, arena = 0;
	size_t size, len = 0;
	void *map = NULL;
	struct err err = ERR_INIT;
	struct model *model;
	char text[512];

	if (argc > 2)
		sscanf(argv[2], "%dx%d", &info.channels, &info.height);
	if (argc > 3)
		batch = atoi(argv[3]);
	info.width = info.height;
	size = (size_t)batch * (size_t)(info.channels * info.height * info.width);
	pixels = malloc(size);
	logits = calloc((size_t)batch, (size_t)info.classes * sizeof(float));
	for (size_t i = 0; i < size; i++)
		pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	if (model_new(&model, net, &info, 1, &err) < 0 || !(model = reopened(model, &map, &len, &err))) {
		fprintf(stderr, "%s\n", err_format(&err, text, sizeof(text)));
		return 1;
	}
	madvise(map, len, MADV_DONTNEED);
	empty = resident_mib();
	weights = (double)model_params(model, 1) * sizeof(float) / 1048576;
	printf("weights %.1f MiB, resident with the model %.1f MiB\n", weights, resident_mib() - empty);
	for (int p = 0; p < N_PRECISIONS; p++)
		for (int i = 0; i < SLICES && strstr(precisions, precision_name((enum precision)p)); i++) {
			struct session_options options = {
				.rate = info.rates[i], .precision = (enum precision)p, .batch = batch};
			struct session_stats stats;

			if (p == PRECISION_INT8 && calibrate(model, i) < 0)
				return 1;
			if (session_new(&sessions[n_sessions], model, backend_find("onednn"), &options,
					&err) < 0) {
				fprintf(stderr, "%s\n", err_format(&err, text, sizeof(text)));
				return 1;
			}
			run_ms(n_sessions++);
			stats = session_stats(sessions[n_sessions - 1]);
			if ((double)(stats.activations + stats.scratch) / 1048576 > arena)
				arena = (double)(stats.activations + stats.scratch) / 1048576;
			printf("%d: %g %s: resident %.1f MiB, arena at most %.1f MiB\n", n_sessions - 1,
			       (double)info.rates[i], precision_name((enum precision)p),
			       resident_mib() - empty, arena);
		}
	printf("with all of the weights' file read: %.2f × weights and one arena\n",
	       (resident_mib() - empty - arena) / weights);
	madvise(map, len, MADV_DONTNEED); /* as a worker does */
	printf("all: %.2f × weights and one arena\n", (resident_mib() - empty - arena) / weights);
	switches(rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds);
	for (int i = 0; i < n_sessions; i++)
		session_free(sessions[i]);
	model_free(model);
	free(pixels);
	free(logits);
	return 0;
}
