/*
 * Real worker processes, all three kinds: a folder of images is scanned, trained on, served and explained;
 * workers are killed and paused on the way. This program is its own worker: dirhost executes it as `worker
 * KIND`.
 */
#include "engine/backend.h"
#include "engine/image.h"
#include "engine/base/io.h"
#include "sched/executor.h"
#include "sched/jobs.h"
#include "sched/worker/worker.h"
#include "tests/dirhost.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>

#include <cmocka.h>

#define SIDE      16
#define PER_CLASS 32
#define TIMEOUT_S 120

struct fixture {
	struct loop *loop;
	struct dirhost host;
	struct jobs *jobs;
	struct sched_options options;
	const char *job, *state;
	int version, spawned;

	struct executor *ex;
	int loaded, died, done, eio, n_submodels;
	struct submodel submodels[MAX_SUBMODELS];
	char label[2][16];
	struct instance_answer answers[8];
	char *pictures;
	uint64_t picture_len[8];
};

static uint32_t seed = 1;

/* Class 0 is bright on the left, class 1 on the right. */
static void make_png(struct buf *ret, int class)
{
	uint8_t pixels[SIDE * SIDE];
	struct image image = {.height = SIDE, .width = SIDE, .channels = 1, .pixels = pixels};

	for (int i = 0; i < SIDE * SIDE; i++) {
		seed = seed * 1664525 + 1013904223;
		pixels[i] = (uint8_t)((seed >> 26) + ((i % SIDE < SIDE / 2) == (class == 0) ? 180 : 0));
	}
	assert_int_equal(image_encode_png(ret, &image, NULL, 0), 0);
}

static void write_split(struct fixture *f, const char *split, int n)
{
	char path[128];

	for (int i = 0; i < n; i++) {
		struct buf png = BUF_INIT;

		make_png(&png, i % 2);
		snprintf(path, sizeof(path), "datasets/toy/%s/%s/%d.png", split, i % 2 ? "right" : "left", i);
		dirhost_write(&f->host, path, png.data, png.len);
		buf_release(&png);
	}
}

static void write_dataset(struct fixture *f)
{
	write_split(f, "train", 2 * PER_CLASS);
	dirhost_write(&f->host, "datasets/toy/train/left/broken.png", "\x89PNG but no more", 16);
}

static void on_model(void *data, const char *model, int version)
{
	(void)model;
	((struct fixture *)data)->version = version;
}

static const struct jobs_events job_events = {.model_published = on_model};

static void on_loaded(void *data, uint32_t endpoint, int r, const struct err *err,
		      const struct submodel *submodels, int n, const char *const *labels, int n_labels)
{
	struct fixture *f = data;
	char text[512];

	assert_int_equal(endpoint, 7);
	if (r < 0)
		fail_msg("%s", err_format(err, text, sizeof(text)));
	assert_int_equal(n_labels, 2);
	snprintf(f->label[0], sizeof(f->label[0]), "%s", labels[0]);
	snprintf(f->label[1], sizeof(f->label[1]), "%s", labels[1]);
	memcpy(f->submodels, submodels, (size_t)n * sizeof(*submodels));
	f->n_submodels = n;
	f->loaded++;
}

static void on_done(void *data, const struct batch_done *done)
{
	struct fixture *f = data;
	uint64_t sum = 0;

	if (done->r < 0) {
		f->eio++;
		return;
	}
	if (done->answers)
		memcpy(f->answers, done->answers, (size_t)done->n * sizeof(*done->answers));
	if (done->picture_fd >= 0) {
		for (int i = 0; i < done->n; i++)
			sum += f->picture_len[i] = done->picture_len[i];
		free(f->pictures);
		f->pictures = malloc(sum + 1);
		assert_int_equal(io_pread(done->picture_fd, f->pictures, sum, 0), 0);
	}
	assert_true(done->compute_ns > 0);
	assert_in_range(done->core, done->answers ? 1 : 0, CPU_SETSIZE);
	f->done++;
}

static void on_died(void *data)
{
	((struct fixture *)data)->died++;
}

static const struct executor_events executor_events = {on_loaded, on_done, on_died};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->options = (struct sched_options){.settle_batch_ns = 20 * NS_PER_MS, .worker_threads = 2};
	assert_int_equal(loop_new(&f->loop, false), 0);
	dirhost_init(&f->host, f->loop);
	assert_int_equal(jobs_new(&f->jobs, f->loop, &dirhost_ops, &f->host, &f->options, &job_events, f), 0);
	assert_int_equal(jobs_start(f->jobs), 0);
	write_dataset(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->ex)
		f->ex->ops->free(f->ex);
	jobs_free(f->jobs);
	loop_free(f->loop);
	dirhost_release(&f->host);
	free(f->pictures);
	free(f);
	return 0;
}

static bool in_state(void *data)
{
	struct fixture *f = data;
	char path[128], want[32], *text;
	bool is;

	snprintf(path, sizeof(path), "jobs/%s/state", f->job);
	text = dirhost_text(&f->host, path);
	snprintf(want, sizeof(want), "%s\n", f->state);
	is = text && strcmp(text, want) == 0;
	if (text && strcmp(text, "failed\n") == 0 && strcmp(f->state, "failed") != 0) {
		snprintf(path, sizeof(path), "jobs/%s/error", f->job);
		fail_msg("%s", dirhost_text(&f->host, path));
	}
	free(text);
	return is;
}

static bool reaches(struct fixture *f, const char *job, const char *state)
{
	f->job = job;
	f->state = state;
	return dirhost_run_until(f->loop, in_state, f, TIMEOUT_S);
}

static void start_job(struct fixture *f, const char *job, const char *json)
{
	char path[128];

	snprintf(path, sizeof(path), "jobs/%s/spec.json", job);
	dirhost_write(&f->host, path, json, strlen(json));
	jobs_spec(f->jobs, job, json, strlen(json));
}

static void train(struct fixture *f, const char *job, const char *json)
{
	start_job(f, job, json);
	assert_true(reaches(f, job, "done"));
}

static bool is_loaded(void *data)
{
	return ((struct fixture *)data)->loaded > 0;
}

static bool is_done(void *data)
{
	struct fixture *f = data;

	return f->done > 0 || f->eio > 0;
}

static void load(struct fixture *f, const char *model, unsigned precisions)
{
	static const char *const names[] = {"model.json", "weights.safetensors", "labels.txt"};
	char path[PATH_MAX], file[128];
	int fds[3];

	for (int i = 0; i < 3; i++) {
		snprintf(file, sizeof(file), "models/%s/latest/%s", model, names[i]);
		dirhost_path(&f->host, "tree", file, path);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	if (!f->ex)
		assert_int_equal(
			executor_worker_new(&f->ex, f->loop, &dirhost_ops, &f->host, 2, &executor_events, f),
			0);
	f->loaded = 0;
	assert_int_equal(f->ex->ops->load(f->ex, &(struct endpoint_load){.endpoint = 7,
									 .batch = 8,
									 .model_fd = fds[0],
									 .weights_fd = fds[1],
									 .labels_fd = fds[2],
									 .precisions = precisions,
									 .gradcam = true}),
			 0);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	assert_true(dirhost_run_until(f->loop, is_loaded, f, TIMEOUT_S));
}

/* Four images, of classes 0 1 0 1, and garbage between them. */
static void instances(struct buf pngs[4], struct instance_input in[5])
{
	for (int i = 0; i < 4; i++) {
		pngs[i] = BUF_INIT;
		make_png(&pngs[i], i % 2);
	}
	in[0] = (struct instance_input){100, pngs[0].data, pngs[0].len};
	in[1] = (struct instance_input){101, pngs[1].data, pngs[1].len};
	in[2] = (struct instance_input){102, "no image", 8};
	in[3] = (struct instance_input){103, pngs[2].data, pngs[2].len};
	in[4] = (struct instance_input){104, pngs[3].data, pngs[3].len};
}

/* A line "Key:\tvalue" of /proc/PID/status. */
static long status_value(int pid, const char *key)
{
	char path[64], line[256];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
			value = strtol(line + strlen(key) + 1, NULL, 10);
	if (file)
		fclose(file);
	return value;
}

static int highest_fd(int pid)
{
	char path[64];
	struct dirent *de;
	int highest = -1;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((de = readdir(dir)))
		highest = atoi(de->d_name) > highest ? atoi(de->d_name) : highest;
	closedir(dir);
	return highest;
}

static void check_confinement(int pid)
{
	/* It says LOADED, then closes what came with LOAD. */
	for (int i = 0; i < 2000 && highest_fd(pid) > 3; i++)
		usleep(1000);
	assert_in_range(highest_fd(pid), 3, 3);
	if (!WORKER_SANITIZED) {
		assert_int_equal(status_value(pid, "Seccomp"), 2);
		assert_int_equal(status_value(pid, "CapPrm"), 0);
		/* a sanitizer keeps for a while what was freed */
		assert_in_range(status_value(pid, "VmRSS"), 1, 300 * 1024);
	}
	assert_int_equal(status_value(pid, "NoNewPrivs"), 1);
	print_message("inference worker: %ld KiB resident\n", status_value(pid, "VmRSS"));
}

/* Accuracy in the line of slices.csv that begins so, in percent; -1: there is none. */
static double accuracy_in(const char *csv, const char *slice, enum precision precision)
{
	char begin[32];
	const char *line;

	snprintf(begin, sizeof(begin), "\n%s,%s,", slice, precision_name(precision));
	line = strstr(csv, begin);
	return line ? atof(line + strlen(begin)) : -1;
}

/* What an endpoint offers of a slice: bit by bit, if the spec doesn't say. int8 must not lose more than 0.3 points. */
static unsigned offered(const char *csv, const char *slice)
{
	unsigned list = 1u << PRECISION_F32;

	for (int p = PRECISION_F32 + 1; p < N_PRECISIONS; p++) {
		bool gains = backend_gains(backend_find("onednn"), (enum precision)p);
		double accuracy = accuracy_in(csv, slice, (enum precision)p);

		assert_int_equal(accuracy >= 0, gains);
		if (gains &&
		    (p != PRECISION_INT8 || accuracy >= accuracy_in(csv, slice, PRECISION_F32) - 0.3 - 0.001))
			list |= 1u << p;
	}
	return list;
}

/* Sub-model i runs and is explained. */
static void check_submodel(struct fixture *f, int i, const struct instance_input in[5])
{
	static const int classes[] = {0, 1, -1, 0, 1};

	assert_true(f->submodels[i].accuracy > 0.8 && f->submodels[i].time_ns > 0 &&
		    f->submodels[i].time_one_ns > 0);
	f->done = 0;
	assert_int_equal(f->ex->ops->run(f->ex, 1, 7, i, in, 5), 0);
	assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
	for (int k = 0; k < 5; k++)
		if (k != 2)
			assert_int_equal(f->answers[k].label, classes[k]);
	f->done = 0;
	assert_int_equal(
		f->ex->ops->explain(f->ex, 2, 7, i, in, (const int[]){0, 1}, (const float[]){1, 1}, 2), 0);
	assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
	assert_true(f->picture_len[0] > 100 && f->picture_len[1] > 100);
}

/* Slice × precision of what the model was measured in, or of what is asked for; every one of them runs when it is
 * told to, also one that is not kept loaded. */
static void check_precisions(struct fixture *f)
{
	static const char *const slices[] = {"0.5", "1"};
	struct instance_input in[5];
	struct buf pngs[4];
	char *csv = dirhost_text(&f->host, "jobs/conv/model/slices.csv");

	instances(pngs, in);
	for (unsigned precisions = 0; precisions < 1u << N_PRECISIONS; precisions++) {
		bool alone = precisions && !(precisions & (precisions - 1));
		int n = 0, used = 0;

		if (precisions == 1u << PRECISION_INT8 && accuracy_in(csv, "1", PRECISION_INT8) < 0)
			continue; /* it needs to be calibrated */
		if (precisions && !alone && !(precisions & 1u << PRECISION_F32))
			continue; /* may leave nothing to run */
		load(f, "conv", precisions);
		for (int k = 0; k < 2; k++)
			for (int p = 0; p < N_PRECISIONS; p++) {
				unsigned list = offered(csv, slices[k]);

				list = alone ? precisions : precisions ? list & precisions : list;
				if (!(list & 1u << p))
					continue;
				assert_true(n < f->n_submodels);
				assert_true(f->submodels[n].slice == (float)atof(slices[k]));
				assert_string_equal(f->submodels[n].precision,
						    precision_name((enum precision)p));
				used += !f->submodels[n].idle;
				check_submodel(f, n++, in);
			}
		assert_int_equal(f->n_submodels, n);
		assert_true(used > 0);
	}
	free(csv);
	for (int i = 0; i < 4; i++)
		buf_release(&pngs[i]);
}

static void test_scan_train_serve_explain(void **state)
{
	static const int classes[] = {0, 1, -1, 0, 1};
	struct fixture *f = *state;
	struct instance_input in[5];
	struct buf pngs[4];
	struct image picture;
	char *text;
	int labels[5];
	float scores[5];
	int pid;

	train(f, "conv",
	      "{\"dataset\":\"toy\",\"epochs\":6,\"batch\":16,\"lr\":0.05,\"flip\":false,\"slices\":[0.5,1],"
	      "\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4}}");
	text = dirhost_text(&f->host, "datasets/toy/dataset.json");
	assert_non_null(text);
	assert_non_null(strstr(text, "broken.png"));
	assert_non_null(strstr(text, "right"));
	free(text);
	text = dirhost_text(&f->host, "jobs/conv/model/slices.csv");
	assert_non_null(text);
	print_message("%s", text);
	free(text);

	/* 6 images of validation are too few to be of use to others */
	assert_false(dirhost_exists(&f->host, "tree", "models/conv/latest/validation.bin"));
	check_precisions(f);
	load(f, "conv", 1 << PRECISION_F32);
	assert_int_equal(f->n_submodels, 2);
	assert_true(f->submodels[0].slice == 0.5f && f->submodels[1].slice == 1);
	for (int i = 0; i < 2; i++) {
		assert_true(f->submodels[i].time_ns > 0 && f->submodels[i].time_one_ns > 0);
		assert_true(f->submodels[i].accuracy > 0.8);
		assert_string_equal(f->submodels[i].precision, "f32");
	}
	assert_string_equal(f->label[0], "left");
	assert_string_equal(f->label[1], "right");
	pid = f->host.last_pid;

	instances(pngs, in);
	for (int slice = 0; slice < 2; slice++) {
		f->done = 0;
		assert_int_equal(f->ex->ops->run(f->ex, 1, 7, slice, in, 5), 0);
		assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
		for (int i = 0; i < 5; i++) {
			assert_int_equal(f->answers[i].id, 100 + i);
			assert_int_equal(f->answers[i].failed, i == 2);
			if (i == 2)
				continue;
			assert_int_equal(f->answers[i].label, classes[i]);
			assert_int_equal(f->answers[i].n_top, 2);
			assert_true(f->answers[i].score == f->answers[i].top_score[0]);
			assert_true(f->answers[i].score >= f->answers[i].top_score[1]);
			assert_true(f->answers[i].top_score[0] + f->answers[i].top_score[1] > 0.999f);
		}
		assert_int_equal(f->answers[2].err.code, ERR_BAD_IMAGE);
	}

	for (int i = 0; i < 5; i++) {
		labels[i] = classes[i] < 0 ? 0 : classes[i];
		scores[i] = 0.75f;
	}
	f->done = 0;
	assert_int_equal(f->ex->ops->explain(f->ex, 2, 7, 1, in, labels, scores, 5), 0);
	assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
	assert_int_equal(f->picture_len[2], 0);
	assert_true(f->picture_len[0] > 100 && f->picture_len[4] > 100);
	assert_int_equal(image_decode(&picture, f->pictures + f->picture_len[0], f->picture_len[1], 0, NULL),
			 0);
	assert_true(picture.height >= 224 && picture.width == picture.height && picture.channels == 3);
	image_release(&picture);
	assert_non_null(memmem(f->pictures + f->picture_len[0], f->picture_len[1], "label\0right", 11));
	assert_non_null(memmem(f->pictures, f->picture_len[0], "label\0left", 10));
	assert_non_null(memmem(f->pictures, f->picture_len[0],
			       "score\0"
			       "0.75",
			       10));
	check_confinement(pid);

	/* kill -9 with a batch outstanding: -EIO, and it works again soon. */
	f->done = f->eio = f->loaded = 0;
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(f->ex->ops->run(f->ex, 3, 7, 0, in, 5), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_true(dirhost_run_until(f->loop, is_loaded, f, TIMEOUT_S));
	assert_int_equal(f->eio, 1);
	assert_int_equal(f->died, 1);
	f->eio = 0;
	assert_int_equal(f->ex->ops->run(f->ex, 4, 7, 0, in, 5), 0);
	assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
	assert_int_equal(f->done, 1);
	assert_int_equal(f->answers[4].label, 1);
	for (int i = 0; i < 4; i++)
		buf_release(&pngs[i]);
}

/* What training measured came all the way here: cascades that begin with each that is kept, and end with each better one. */
static void check_cascades(const struct fixture *f)
{
	int pairs = 0;

	for (int i = 0; i < f->n_submodels; i++) {
		const struct submodel *s = &f->submodels[i];

		assert_int_equal(s->first.threshold[0] > 0, !s->idle);
		for (int j = 0; j < f->n_submodels; j++) {
			const struct submodel *other = &f->submodels[j];
			bool there = !s->idle && !other->idle && other->accuracy > s->accuracy;

			assert_int_equal(s->then[j][0] > 0, there);
			pairs += there;
		}
	}
	print_message("%d cascades of %d sub-models\n", pairs, f->n_submodels);
}

/* A network without feature maps is served and explained too (by its input's gradient). */
static void test_mlp(void **state)
{
	struct fixture *f = *state;
	struct instance_input in[5];
	struct buf pngs[4];

	/* wide enough for slices that take different times, and so few steps that they are not as good as each other */
	write_split(f, "val", CASCADE_LEAST);
	train(f, "dense",
	      "{\"dataset\":\"toy\",\"epochs\":1,\"batch\":16,\"lr\":0.01,\"net\":{\"arch\":\"mlp\","
	      "\"hidden\":[1024,1024]}}");
	assert_true(dirhost_exists(&f->host, "tree", "models/dense/latest/validation.bin"));
	load(f, "dense", 1 << PRECISION_F32);
	assert_int_equal(f->n_submodels, 4);
	check_cascades(f);
	instances(pngs, in);
	assert_int_equal(
		f->ex->ops->explain(f->ex, 1, 7, 3, in, (const int[]){0, 1}, (const float[]){1, 1}, 2), 0);
	assert_int_equal(f->ex->ops->run(f->ex, 2, 7, 3, in, 5), 0);
	assert_true(dirhost_run_until(f->loop, is_done, f, TIMEOUT_S));
	assert_true(f->picture_len[0] > 100 && f->picture_len[1] > 100);
	for (int i = 0; i < 4; i++)
		buf_release(&pngs[i]);
}

static bool has_checkpoint(void *data)
{
	struct fixture *f = data;
	char path[128];

	snprintf(path, sizeof(path), "checkpoint/%s", f->job);
	return dirhost_exists(&f->host, "state", path);
}

static bool is_version_2(void *data)
{
	return ((struct fixture *)data)->version == 2;
}

static bool is_started_again(void *data)
{
	struct fixture *f = data;

	return f->host.spawned > f->spawned;
}

/* metrics.csv without the column of seconds. */
static char *curve(struct fixture *f, const char *job)
{
	char path[128], *text, *out;
	size_t n = 0;

	snprintf(path, sizeof(path), "jobs/%s/metrics.csv", job);
	text = dirhost_text(&f->host, path);
	assert_non_null(text);
	out = calloc(1, strlen(text) + 1);
	for (char *p = text; *p; p++) {
		if (*p == ',' && (p == text || memchr(text, '\n', (size_t)(p - text)))) {
			char *line = p;

			while (line > text && line[-1] != '\n')
				line--;
			if (memchr(line, ',', (size_t)(p - line)) == NULL) /* the first comma of its line */
				p += 1 + strcspn(p + 1, ",");
		}
		out[n++] = *p;
	}
	free(text);
	return out;
}

/* Killed after an epoch, then paused and resumed: the same curve as in one go. */
static void test_same_curve(void **state)
{
#define SPEC                                                                \
	"{\"dataset\":\"toy\",\"epochs\":5,\"batch\":8,\"slices\":[0.5,1]," \
	"\"net\":{\"arch\":\"resnet\",\"depth\":8,\"width\":8,\"groups\":4}"
	struct fixture *f = *state;
	char *one, *cut, *text;

	train(f, "once", SPEC "}");
	start_job(f, "long", SPEC ",\"model\":\"once\"}");
	f->job = "long";
	assert_true(dirhost_run_until(f->loop, has_checkpoint, f, TIMEOUT_S));
	assert_int_equal(kill(f->host.last_pid, SIGKILL), 0);
	f->spawned = f->host.spawned;
	assert_true(dirhost_run_until(f->loop, is_started_again, f, TIMEOUT_S));
	jobs_ctl(f->jobs, "long", "pause");
	assert_true(reaches(f, "long", "paused"));
	jobs_ctl(f->jobs, "long", "resume");
	assert_true(reaches(f, "long", "done"));
	text = dirhost_text(&f->host, "jobs/long/log");
	assert_non_null(strstr(text, "the worker closed its socket"));
	assert_non_null(strstr(text, "paused"));
	free(text);
	one = curve(f, "once");
	cut = curve(f, "long");
	assert_string_equal(one, cut);
	assert_true(dirhost_run_until(f->loop, is_version_2, f, TIMEOUT_S));
	free(one);
	free(cut);
}

/* Paused as soon as it has a checkpoint. */
static void begin(struct fixture *f, const char *job, const char *json)
{
	start_job(f, job, json);
	f->job = job;
	assert_true(dirhost_run_until(f->loop, has_checkpoint, f, TIMEOUT_S));
	jobs_ctl(f->jobs, job, "pause");
	assert_true(reaches(f, job, "paused"));
}

static void take_checkpoint(struct fixture *f, const char *from, const char *to)
{
	char a[PATH_MAX], b[PATH_MAX], name[128];

	snprintf(name, sizeof(name), "checkpoint/%s", from);
	dirhost_path(&f->host, "state", name, a);
	snprintf(name, sizeof(name), "checkpoint/%s", to);
	dirhost_path(&f->host, "state", name, b);
	assert_int_equal(unlink(b), 0);
	assert_int_equal(link(a, b), 0);
}

static void assert_has(struct fixture *f, const char *path, const char *says)
{
	char *text = dirhost_text(&f->host, path);

	if (!text || !strstr(text, says))
		fail_msg("%s: %s", path, text);
	free(text);
}

/*
 * A checkpoint by other defaults than these, as after an upgrade: what spec.json doesn't name is as it was when the training began, and
 * knobs.json, progress and log say so. What it names has to be the same.
 */
static void test_other_defaults(void **state)
{
	struct fixture *f = *state;
	char *one, *cut;

	train(f, "once", SPEC "}");
	begin(f, "long", SPEC "}");
	begin(f, "bare", "{\"dataset\":\"toy\",\"slices\":[0.5,1]}");
	assert_has(f, "jobs/bare/trials/1/knobs.json", "\"epochs\":\t30");
	take_checkpoint(f, "long", "bare");
	jobs_ctl(f->jobs, "bare", "resume");
	assert_true(reaches(f, "bare", "done"));
	one = curve(f, "once");
	cut = curve(f, "bare");
	assert_string_equal(strstr(one, "\n5,"), strstr(cut, "\n5,"));
	free(one);
	free(cut);
	assert_has(f, "jobs/bare/trials/1/knobs.json", "\"epochs\":\t5");
	assert_has(f, "jobs/bare/trials/1/knobs.json", "\"clip\":\t0"); /* not -1: the network has norms */
	assert_has(f, "jobs/bare/progress", "epoch 5/5");
	assert_has(f, "jobs/bare/log", "it goes on with the values that it began with");
	assert_has(f, "jobs/bare/log", "epochs 5 (today 30), batch 8 (today 128)");

	begin(f, "named", "{\"dataset\":\"toy\",\"lr\":0.2}");
	take_checkpoint(f, "long", "named");
	jobs_ctl(f->jobs, "named", "resume");
	assert_true(reaches(f, "named", "failed"));
	assert_has(f, "jobs/named/error",
		   "\"lr\" is 0.2 in spec.json and was 0.1 when the training began; write `retry` to ctl");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_scan_train_serve_explain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mlp, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_curve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_defaults, setup, teardown),
	};

	if (argc == 3 && strcmp(argv[1], "worker") == 0)
		return worker_main(argc - 1, argv + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
