#include "engine/bench.h"

#include "engine/arch/arch.h"
#include "engine/backend.h"
#include "engine/base/clock.h"
#include "engine/model_private.h"
#include "engine/optim.h"
#include "engine/session.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_LIST = 8, MAX_BATCH = 4096, MAX_REPEAT = 10000 };

struct bench {
	const char *net, *norm, *backend;
	int channels, height, width, classes;
	int n_rates, n_batches;
	double rates[MAX_LIST], batches[MAX_LIST];
	int repeat, threads;
	int n_precisions;
	enum precision precisions[N_PRECISIONS];
	bool train, sandwich;
};

static const char usage[] =
	"usage: inferfs bench [ARCH] [OPTIONS]\n"
	"Times one network's slices on this device and prints CSV; peak_rss is in MiB.\n"
	"  ARCH            an architecture's name, with its depth where it has one: "
	"resnet20, resnet50, vgg16,\n"
	"                  mobilenet, inception-resnet-v2, mlp (resnet20)\n"
	"  --net JSON      the network instead, as \"net\" of a job's spec.json\n"
	"  --norm NAME     of ARCH: group, batch (folded, but with --train) or none (the "
	"architecture's own)\n"
	"  --input CxHxW   shape of an image (1x28x28 for resnet8 to resnet56 and mlp, "
	"else 3x224x224, 3x299x299)\n"
	"  --classes N     (10 for these, else 1000)\n"
	"  --slices R,…    slice rates (0.25,0.5,0.75,1)\n"
	"  --batch N,…     instances of a mini-batch (1,32)\n"
	"  --precision P,… f32, bf16, int8 (f32), calibrated by the images it is timed with; --train is\n"
	"                  f32\n"
	"  --repeat N      runs of which the median is taken (20)\n"
	"  --threads N     0: all (0)\n"
	"  --backend NAME  onednn or ref (onednn)\n"
	"  --train         a training step instead of inference: forward, backward and "
	"SGD's update\n"
	"  --sandwich      after these one step of all and full width together, as jobs train: "
	"gradients of all, one update\n"
	"Workers run with OMP_WAIT_POLICY=passive; set it for figures like theirs.\n";

static int compare_times(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Numbers in min … max with commas between; how many, or -EINVAL. */
static int parse_list(const char *text, double min, double max, double *ret)
{
	int n = 0;

	for (;;) {
		char *end;
		double value = strtod(text, &end);

		if (end == text || !(value >= min && value <= max) || n == MAX_LIST)
			return -EINVAL;
		ret[n++] = value;
		if (!*end)
			return n;
		if (*end != ',')
			return -EINVAL;
		text = end + 1;
	}
}

static int parse_int(const char *text, int min, int max, int *ret)
{
	double value;

	if (parse_list(text, min, max, &value) != 1 || value != (int)value)
		return -EINVAL;
	*ret = (int)value;
	return 0;
}

/* Names with commas between; how many, or -EINVAL. */
static int parse_precisions(const char *text, enum precision *ret)
{
	char copy[32], *rest = copy, *name;
	int n = 0;

	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
		return -EINVAL;
	while ((name = strsep(&rest, ","))) {
		int p = precision_find(name);

		if (p < 0 || n == N_PRECISIONS)
			return -EINVAL;
		ret[n++] = (enum precision)p;
	}
	return n;
}

static int parse_input(const char *text, struct bench *b)
{
	char end;

	return sscanf(text, "%dx%dx%d%c", &b->channels, &b->height, &b->width, &end) == 3 ||
			       sscanf(text, "%d×%d×%d%c", &b->channels, &b->height, &b->width, &end) == 3
		       ? 0
		       : -EINVAL;
}

/* 0, 1 for --help, or -EINVAL after saying what is wrong. */
static int parse_options(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
		{"net", required_argument, NULL, 'n'},     {"norm", required_argument, NULL, 'N'},
		{"input", required_argument, NULL, 'i'},   {"classes", required_argument, NULL, 'c'},
		{"slices", required_argument, NULL, 's'},  {"precision", required_argument, NULL, 'p'},
		{"batch", required_argument, NULL, 'b'},   {"repeat", required_argument, NULL, 'r'},
		{"threads", required_argument, NULL, 't'}, {"backend", required_argument, NULL, 'B'},
		{"train", no_argument, NULL, 'T'},         {"sandwich", no_argument, NULL, 'S'},
		{"help", no_argument, NULL, 'h'},          {0}};
	int opt, index = 0, r;

	while ((opt = getopt_long(argc, argv, "h", options, &index)) != -1) {
		r = 0;
		switch (opt) {
		case 'n':
			b->net = optarg;
			break;
		case 'N':
			b->norm = optarg;
			break;
		case 'i':
			r = parse_input(optarg, b);
			break;
		case 'c':
			r = parse_int(optarg, 1, 65536, &b->classes);
			break;
		case 's':
			r = b->n_rates = parse_list(optarg, 0.001, 1, b->rates);
			break;
		case 'p':
			r = b->n_precisions = parse_precisions(optarg, b->precisions);
			break;
		case 'b':
			r = b->n_batches = parse_list(optarg, 1, MAX_BATCH, b->batches);
			break;
		case 'r':
			r = parse_int(optarg, 1, MAX_REPEAT, &b->repeat);
			break;
		case 't':
			r = parse_int(optarg, 0, 1024, &b->threads);
			break;
		case 'B':
			b->backend = optarg;
			r = backend_find(optarg) ? 0 : -EINVAL;
			break;
		case 'T':
			b->train = true;
			break;
		case 'S':
			b->train = b->sandwich = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			fputs(usage, stderr);
			return -EINVAL;
		}
		if (r < 0) {
			fprintf(stderr, "inferfs bench: --%s: \"%s\" can't be used\n", options[index].name,
				optarg);
			return -EINVAL;
		}
	}
	if (optind < argc && !b->net)
		b->net = argv[optind++];
	if (optind != argc) {
		fputs(usage, stderr);
		return -EINVAL;
	}
	return 0;
}

/* What runs again and again: a mini-batch of one slice, or of several that learn together, the widest first. */
struct work {
	const struct bench *bench;
	struct model *model;
	int n, n_sessions;
	struct session *sessions[MAX_LIST];
	struct optim optim;
	uint8_t *pixels;
	int *labels;
	float *logits, *teacher, *dlogits; /* (n, classes) each */
};

static void work_release(struct work *w)
{
	for (int i = 0; i < w->n_sessions; i++)
		session_free(w->sessions[i]);
	optim_release(&w->optim);
	free(w->pixels);
	free(w->labels);
	free(w->logits);
}

/* What int8 needs of a slice, of the images that it will be timed with. */
static int calibrate(struct work *w, int rate_index, float rate, struct err *err)
{
	struct session_options options = {.rate = rate, .batch = w->n, .threads = w->bench->threads};
	struct session *s = NULL;
	int r = session_new(&s, w->model, backend_find("onednn"), &options, err);

	if (r == 0)
		r = session_calibrate(s, w->model, rate_index, w->pixels, w->n, w->logits);
	session_free(s);
	return r;
}

static int rate_index(const struct model_info *info, float rate)
{
	int i = 0;

	while (info->rates[i] != rate)
		i++;
	return i;
}

static int work_init(struct work *w, struct model *model, const struct bench *b, const float *rates,
		     int n_rates, enum precision precision, int n, struct err *err)
{
	size_t pixel_count = (size_t)n * (size_t)(b->channels * b->height * b->width),
	       logits = (size_t)n * (size_t)b->classes;
	int r = 0;

	*w = (struct work){.bench = b,
			   .model = model,
			   .n = n,
			   .pixels = malloc(pixel_count),
			   .labels = calloc((size_t)n, sizeof(int)),
			   .logits = calloc(logits * 3, sizeof(float))};
	if (!w->pixels || !w->labels || !w->logits)
		return err_set(err, ERR_NO_MEMORY, "a mini-batch of %d", n);
	w->teacher = w->logits + logits;
	w->dlogits = w->teacher + logits;
	for (size_t i = 0; i < pixel_count; i++)
		w->pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	for (int i = n_rates - 1; r == 0 && i >= 0; i--) {
		struct session_options options = {.rate = rates[i],
						  .precision = precision,
						  .batch = n,
						  .training = b->train,
						  .threads = b->threads};

		if (precision == PRECISION_INT8)
			r = calibrate(w, rate_index(model_info(model), rates[i]), rates[i], err);
		if (r == 0)
			r = session_new(&w->sessions[w->n_sessions], model, backend_find(b->backend),
					&options, err);
		w->n_sessions += r == 0;
	}
	if (r == 0 && b->train) {
		struct optim_options options = {.momentum = 0.9, .weight_decay = 5e-4};

		r = optim_init(&w->optim, &model->net->params, &options);
		if (r < 0)
			err_set(err, ERR_NO_MEMORY, "the optimizer");
	}
	return r;
}

/* As a training job's step: the widest learns the labels, the others its outputs. */
static int train_once(struct work *w)
{
	struct params *params = &w->model->net->params;
	int classes = w->bench->classes, r = 0;

	params_zero_grad(params);
	for (int i = 0; r == 0 && i < w->n_sessions; i++) {
		r = session_forward(w->sessions[i], w->pixels, w->n, i ? w->logits : w->teacher);
		if (i == 0)
			loss_cross_entropy(w->teacher, w->labels, w->n, classes, 0, w->dlogits);
		else
			loss_distill(w->logits, w->teacher, w->n, classes, 1, w->dlogits);
		if (r == 0)
			r = session_backward(w->sessions[i], w->dlogits, w->n);
	}
	optim_step(&w->optim, params, 1e-3);
	return r;
}

static int bench_slices(struct model *model, const struct bench *b, const float *rates, int n_rates,
			enum precision precision, int n, struct err *err)
{
	double *times = calloc((size_t)b->repeat, sizeof(*times)), median, flops = 0;
	struct rusage usage_now;
	struct work w;
	int r = work_init(&w, model, b, rates, n_rates, precision, n, err);

	if (r == 0 && !times)
		r = err_set(err, ERR_NO_MEMORY, "%d times", b->repeat);
	for (int i = -2; r == 0 && i < b->repeat; i++) { /* two to warm up */
		double start = clock_seconds();

		r = b->train ? train_once(&w) : session_forward(w.sessions[0], w.pixels, n, w.logits);
		if (i >= 0)
			times[i] = clock_seconds() - start;
	}
	if (r < 0)
		goto out;
	qsort(times, (size_t)b->repeat, sizeof(*times), compare_times);
	median = times[b->repeat / 2];
	for (int i = 0; i < n_rates; i++) {
		flops += (double)model_flops(model, rates[i]) * n * (b->train ? 3 : 1);
		printf("%s%g", i ? "+" : "", (double)rates[i]);
	}
	getrusage(RUSAGE_SELF, &usage_now);
	printf(",%s,%d,%.3f,%.0f,%.1f,%.1f\n", precision_name(precision), n, median * 1e3, n / median,
	       flops / median * 1e-9, (double)usage_now.ru_maxrss / 1024);
	fflush(stdout);
out:
	work_release(&w);
	free(times);
	return r;
}

static int bench_batch(struct model *model, const struct bench *b, int n, struct err *err)
{
	const struct model_info *info = model_info(model);
	int r = 0;

	for (int i = 0; r == 0 && i < b->n_rates; i++)
		for (int p = 0; r == 0 && p < b->n_precisions; p++) {
			float rate = (float)b->rates[i];

			r = bench_slices(model, b, &rate, 1, b->precisions[p], n, err);
		}
	for (int p = 0; r == 0 && b->sandwich && p < b->n_precisions; p++)
		r = bench_slices(model, b, info->rates, info->n_rates, b->precisions[p], n, err);
	return r;
}

/* {"arch":…} of "resnet50"; a JSON object as it is. */
static cJSON *parse_net(const struct bench *b)
{
	size_t letters = strlen(b->net);
	cJSON *net;
	char name[64];

	if (strchr(b->net, '{'))
		return cJSON_Parse(b->net);
	snprintf(name, sizeof(name), "%s", b->net);
	while (!arch_find(name) && letters && letters <= sizeof(name) &&
	       strchr("0123456789", name[letters - 1]))
		name[--letters] = '\0';
	net = cJSON_CreateObject();
	cJSON_AddStringToObject(net, "arch", name);
	if (b->net[letters])
		cJSON_AddNumberToObject(net, "depth", atoi(b->net + letters));
	if (b->norm)
		cJSON_AddStringToObject(net, "norm", b->norm);
	return net;
}

/* What was not asked for: the shapes that the network is known by. */
static void default_shapes(struct bench *b, const cJSON *net)
{
	const char *arch = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(net, "arch"));
	const cJSON *depth = cJSON_GetObjectItemCaseSensitive(net, "depth");
	int d = depth ? depth->valueint : 20, side = 224;
	bool small = !arch || strcmp(arch, "mlp") == 0 || strcmp(arch, "layers") == 0 ||
		     (strcmp(arch, "resnet") == 0 && d != 50 && d != 152 && (d - 2) % 6 == 0);

	if (arch && strcmp(arch, "inception-resnet-v2") == 0)
		side = 299;
	if (!b->channels) {
		b->channels = small ? 1 : 3;
		b->height = b->width = small ? 28 : side;
	}
	if (!b->classes)
		b->classes = small ? 10 : 1000;
}

/* The slices to be timed and full width, ascending: a BatchNorm has a set for each. */
static int take_rates(const struct bench *b, struct model_info *info)
{
	double all[MAX_LIST + 1];
	int n = b->n_rates;

	memcpy(all, b->rates, (size_t)n * sizeof(*all));
	all[n++] = 1;
	qsort(all, (size_t)n, sizeof(*all), compare_times);
	for (int i = 0; i < n; i++)
		if (i == 0 || (float)all[i] != (float)all[i - 1]) {
			if (info->n_rates == MODEL_MAX_RATES)
				return -EINVAL;
			info->rates[info->n_rates++] = (float)all[i];
		}
	return 0;
}

int bench_main(int argc, char **argv)
{
	struct bench b = {.backend = "onednn",
			  .n_rates = 4,
			  .rates = {0.25, 0.5, 0.75, 1},
			  .n_batches = 2,
			  .batches = {1, 32},
			  .n_precisions = 1,
			  .repeat = 20};
	struct model_info info = {0};
	struct err err = ERR_INIT;
	struct model *model = NULL;
	cJSON *net;
	char text[512], *json;
	int r = parse_options(&b, argc, argv);

	if (r != 0)
		return r < 0 ? 2 : 0;
	b.net = b.net ? b.net : "resnet20";
	net = parse_net(&b);
	default_shapes(&b, net);
	info.channels = b.channels;
	info.height = b.height;
	info.width = b.width;
	info.classes = b.classes;
	for (int c = 0; c < 4; c++) {
		info.mean[c] = 0.5f;
		info.std[c] = 0.25f;
	}
	r = take_rates(&b, &info);
	if (r < 0)
		err_set(&err, ERR_SPEC_VALUE, "more than %d slices", MODEL_MAX_RATES);
	json = cJSON_PrintUnformatted(net);
	if (r == 0)
		r = model_new(&model, json ? json : "", &info, 1, &err);
	if (r == 0)
		puts("slice,precision,batch,ms_median,images_per_s,gflops,peak_rss");
	for (int k = 0; r == 0 && k < b.n_batches; k++)
		r = bench_batch(model, &b, (int)b.batches[k], &err);
	model_free(model);
	cJSON_free(json);
	cJSON_Delete(net);
	if (r < 0) {
		fprintf(stderr, "inferfs bench: %s\n",
			err.code ? err_format(&err, text, sizeof(text)) : strerror(-r));
		return 1;
	}
	return 0;
}
