/*
 * Training jobs and data set scans over a directory that plays the mount and forked children that play the
 * workers: what is published, what survives deaths of workers and of the daemon, what words of ctl do.
 */
#include "sched/jobs.h"
#include "engine/base/io.h"
#include "tests/dirhost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <sys/mman.h>

#include <cmocka.h>

#define EPOCHS 3
#define LARGE  (3 << 20) /* a file that travels as its descriptor */

enum fault {
	WELL,
	TRAIN_DIES,   /* in epoch 3 */
	TRAIN_WAITS,  /* in epoch 2, until STOP */
	TRAIN_HANGS,  /* in epoch 3 */
	TRAIN_EPOCHS, /* tells epoch 2 again and again */
	TRAIN_COPIES, /* sends the checkpoint of epoch 1 again and again */
	TRAIN_PIPE,   /* a checkpoint, and then other descriptors, that are no memfd */
	TRAIN_DIR,
	TRAIN_EARLY,   /* a model with a directory for weights */
	TRAIN_FAILS,   /* says FAILED in epoch 2 */
	TRAIN_GARBAGE, /* in epoch 3 */
	TRAIN_LIES,    /* a checkpoint that is not sealed */
	SCAN_DIES,
	SCAN_EMPTY,
	SCAN_CRASHES, /* on each file with "crash" in its name */
	SCAN_HANGS,   /* likewise */
	SCAN_EARLY,   /* its last word comes first */
	SCAN_THANKS,  /* takes more than it was sent */
	SCAN_PIPE,    /* what should be the text of dataset.json */
	SCAN_DIR,
	SCAN_UNSEALED,
	SCAN_FAULTS
};

static struct shared {
	volatile int fault, faulty; /* so many workers of the faulty kind have it */
	volatile int trains, scans;
	volatile int resumed_from[16]; /* by train worker */
	volatile int scanned_files, scanned_bytes, packs, bad;
	volatile int decoded; /* files, by all workers */
	char scanned_shape[32];
	volatile int training; /* a worker waits in epoch 2 */
} * shared;

/* --- the workers --- */

static void fake_checkpoint(struct wire_channel *ch, int epoch, enum fault fault)
{
	int pair[2];
	struct wire_message m = {.type = WIRE_CHECKPOINT, .n_fds = 1, .checkpoint = {(uint32_t)epoch}};

	if (fault == TRAIN_PIPE && pipe(pair) == 0)
		m.fds[0] = pair[0];
	else if (fault == TRAIN_DIR)
		m.fds[0] = open("/", O_RDONLY | O_DIRECTORY);
	else
		io_memfd_new("checkpoint", &m.fds[0]);
	dprintf(m.fds[0], "%d", epoch);
	if (fault != TRAIN_LIES)
		io_memfd_seal(m.fds[0]);
	wire_send(ch, &m, 0);
	close(m.fds[0]);
}

static void fake_train(struct wire_channel *ch, enum fault fault)
{
	static const char *const texts[] = {"{\"model\":1}\n", "weights", "a\nb\n", "slice\n1\n"};
	struct wire_slice slices[] = {{0.5f, 0.7, 1.5}, {1, 0.9, 0.5}};
	struct wire_message m, model = {.type = WIRE_MODEL, .model = {.slices = slices, .n_slices = 2}};
	char text[64] = "";
	int epoch = 0, number = shared->trains++;

	if (wire_recv(ch, &m, 0) < 0 || m.type != WIRE_TRAIN || pread(m.fds[1], text, 5, 0) != 5 ||
	    strcmp(text, "CACHE") != 0)
		_exit(9);
	if (m.n_fds == 3 && pread(m.fds[2], text, 8, 0) > 0)
		epoch = atoi(text);
	if (number < 16)
		shared->resumed_from[number] = epoch;
	wire_clear(&m);
	for (epoch++; epoch <= EPOCHS; epoch++) {
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_PROGRESS,
						 .progress = {.epoch = (uint32_t)epoch,
							      .epochs = EPOCHS,
							      .batch = 1,
							      .batches = 2,
							      .samples_per_s = 100,
							      .eta_s = 75,
							      .percent = 100.0 * epoch / EPOCHS}},
			  0);
		if (fault == TRAIN_DIES && epoch == 3)
			kill(getpid(), SIGKILL);
		if (fault == TRAIN_HANGS && epoch == 3)
			pause();
		if (fault == TRAIN_EPOCHS && epoch == 3)
			epoch--;
		if (fault == TRAIN_GARBAGE && epoch == 3 && write(ch->fd, "nonsense", 8) == 8)
			pause();
		if (fault == TRAIN_FAILS && epoch == 2) {
			wire_send(ch,
				  &(struct wire_message){.type = WIRE_FAILED,
							 .failed = {ERR_DIVERGED, "in epoch 2"}},
				  0);
			_exit(0);
		}
		if (fault == TRAIN_WAITS && epoch == 2) {
			shared->training = 1;
			if (wire_recv(ch, &m, 0) < 0 || m.type != WIRE_STOP)
				_exit(0);
			wire_send(ch, &(struct wire_message){.type = WIRE_STOPPED}, 0);
			_exit(0);
		}
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_EPOCH,
						 .epoch = {.epoch = (uint32_t)epoch,
							   .seconds = 1.5,
							   .lr = 0.1,
							   .train_loss = 2.0 / epoch,
							   .train_accuracy = 0.25 * epoch,
							   .slices = slices,
							   .n_slices = 2}},
			  0);
		fake_checkpoint(ch, epoch, fault);
		while (fault == TRAIN_COPIES && epoch == 1)
			fake_checkpoint(ch, epoch, fault);
	}
	for (int i = 0; i < 4; i++)
		io_memfd("file", texts[i], strlen(texts[i]), &model.fds[i]);
	model.n_fds = 4;
	if (fault == TRAIN_EARLY)
		model.fds[1] = open("/", O_RDONLY | O_DIRECTORY);
	wire_send(ch, &model, 0);
}

static void fake_scan(struct wire_channel *ch, enum fault fault)
{
	struct wire_message m, answer = {.type = WIRE_SCANNED, .n_fds = 1};
	int pair[2];

	shared->scans++;
	shared->scanned_files = shared->scanned_bytes = shared->packs = shared->bad = 0;
	while (wire_recv(ch, &m, 0) == 0) {
		switch (m.type) {
		case WIRE_SCAN:
			snprintf(shared->scanned_shape, sizeof(shared->scanned_shape), "%ux%ux%u",
				 m.scan.channels, m.scan.height, m.scan.width);
			break;
		case WIRE_BAD:
			shared->bad +=
				strstr(m.bad.path, "crash") &&
				strcmp(m.bad.reason, fault == SCAN_HANGS ? "the decoder hung on it"
									 : "the decoder crashed on it") == 0;
			break;
		case WIRE_FILES:
			if (fault == SCAN_DIES)
				_exit(0);
			shared->packs++;
			for (uint32_t i = 0; i < m.files.n_files; i++) {
				/* Each file holds its own path again and again. */
				const struct wire_file *f = &m.files.files[i];
				char text[256] = "";

				if (fault == SCAN_HANGS && strstr(f->path, "crash"))
					pause();
				if (fault == SCAN_CRASHES && strstr(f->path, "crash"))
					kill(getpid(), SIGKILL); /* cmocka catches SIGSEGV, in a child too */
				shared->decoded++;
				if (pread(m.fds[0], text, strlen(f->path), shared->packs == -1) < 0)
					_exit(9);
				shared->scanned_files++;
				shared->scanned_bytes += (int)f->len;
			}
			for (int i = 0; i < (fault == SCAN_THANKS ? 100 : 1); i++)
				wire_send(ch,
					  &(struct wire_message){.type = WIRE_TAKEN,
								 .taken = {m.files.n_files}},
					  0);
			if (fault != SCAN_EARLY)
				break;
			io_memfd("json", "{}\n", 3, &answer.fds[0]);
			wire_send(ch, &answer, 0);
			pause();
			break;
		case WIRE_FINISH:
			if (fault == SCAN_EMPTY) {
				answer.scanned.code = ERR_EMPTY_DATASET;
				answer.scanned.detail = "0 images";
			} else {
				dprintf(m.fds[0], "CACHE %d", shared->scanned_files);
			}
			if (fault == SCAN_PIPE && pipe(pair) == 0)
				answer.fds[0] = pair[0];
			else if (fault == SCAN_DIR)
				answer.fds[0] = open("/", O_RDONLY | O_DIRECTORY);
			else if (fault == SCAN_UNSEALED)
				io_memfd_new("json", &answer.fds[0]);
			else
				io_memfd("json", "{\"classes\":2}\n", 14, &answer.fds[0]);
			wire_send(ch, &answer, 0);
			_exit(0);
		default:
			_exit(9);
		}
		wire_clear(&m);
	}
}

static void fake_worker(const char *kind, int fd)
{
	enum fault fault = WELL;
	struct wire_channel ch;
	struct wire_message m;

	if ((shared->fault < SCAN_DIES) == (strcmp(kind, "train") == 0) && shared->faulty > 0) {
		shared->faulty--;
		fault = shared->fault;
	}
	if (wire_init(&ch, fd, WIRE_TO_DAEMON) < 0 || wire_recv(&ch, &m, 0) < 0 || m.type != WIRE_SETUP)
		_exit(9);
	if (strcmp(kind, "train") == 0)
		fake_train(&ch, fault);
	else
		fake_scan(&ch, fault);
	_exit(0);
}

/* --- the daemon's side --- */

struct fixture {
	struct loop *loop;
	struct dirhost host;
	struct jobs *jobs;
	struct sched_options options;
	int published, version;
	bool latest_was_there;
	const char *job, *state; /* what is waited for */
	int scans;
	struct buf states; /* every change */
};

static void on_model(void *data, const char *model, int version)
{
	struct fixture *f = data;
	char path[256];

	f->published++;
	f->version = version;
	snprintf(path, sizeof(path), "models/%s/latest/weights.safetensors", model);
	f->latest_was_there = dirhost_exists(&f->host, "tree", path);
}

static void on_state(void *data, const char *job, const char *state)
{
	struct fixture *f = data;

	buf_addf(&f->states, "%s %s\n", job, state);
}

static const struct jobs_events events = {.model_published = on_model, .state_changed = on_state};

static void start(struct fixture *f)
{
	assert_int_equal(jobs_new(&f->jobs, f->loop, &dirhost_ops, &f->host, &f->options, &events, f), 0);
	assert_int_equal(jobs_start(f->jobs), 0);
}

static void write_dataset(struct fixture *f, const char *name, int files)
{
	char path[128];

	for (int i = 0; i < files; i++) {
		snprintf(path, sizeof(path), "datasets/%s/train/c%d/%d.png", name, i % 2, i);
		dirhost_write(&f->host, path, path, strlen(path));
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			      0);
	memset((void *)shared, 0, sizeof(*shared));
	f->options = (struct sched_options){.settle_batch_ns = 20 * NS_PER_MS, .worker_threads = 1};
	assert_int_equal(loop_new(&f->loop, false), 0);
	dirhost_init(&f->host, f->loop);
	f->host.child = fake_worker;
	start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	jobs_free(f->jobs);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
	loop_free(f->loop);
	dirhost_release(&f->host);
	buf_release(&f->states);
	free(f);
	return 0;
}

static bool text_is(struct fixture *f, const char *path, const char *want)
{
	char *text = dirhost_text(&f->host, path);
	bool same = text && strcmp(text, want) == 0;

	free(text);
	return same;
}

static bool text_has(struct fixture *f, const char *path, const char *want)
{
	char *text = dirhost_text(&f->host, path);
	bool has = text && strstr(text, want);

	if (!has)
		print_message("%s: %s\n", path, text ? text : "(none)");
	free(text);
	return has;
}

static int lines(struct fixture *f, const char *path)
{
	char *text = dirhost_text(&f->host, path);
	int n = 0;

	for (char *p = text; p && *p; p++)
		n += *p == '\n';
	free(text);
	return n;
}

static bool never(void *data)
{
	(void)data;
	return false;
}

/* As after kill -9: what was not in records and files is lost. */
static void restart(struct fixture *f)
{
	jobs_stop(f->jobs);
	dirhost_run_until(f->loop, never, f, 0.02); /* what was posted points to what is freed now */
	jobs_free(f->jobs);
	start(f);
}

static bool in_state(void *data)
{
	struct fixture *f = data;
	char path[128], want[32];

	snprintf(path, sizeof(path), "jobs/%s/state", f->job);
	snprintf(want, sizeof(want), "%s\n", f->state);
	return text_is(f, path, want);
}

static bool reaches(struct fixture *f, const char *job, const char *state)
{
	f->job = job;
	f->state = state;
	return dirhost_run_until(f->loop, in_state, f, 20);
}

static void spec(struct fixture *f, const char *job, const char *json)
{
	char path[128];

	snprintf(path, sizeof(path), "jobs/%s/spec.json", job);
	dirhost_write(&f->host, path, json, strlen(json));
	jobs_spec(f->jobs, job, json, strlen(json));
}

static bool is_training(void *data)
{
	(void)data;
	return shared->training;
}

/* The daemon, too, has heard of what comes before. */
static bool has_checkpoint(void *data)
{
	struct fixture *f = data;

	return shared->training && dirhost_exists(&f->host, "state", "checkpoint/night");
}

static bool is_published(void *data)
{
	return ((struct fixture *)data)->published > 0;
}

static void assert_link(struct fixture *f, const char *path, const char *target)
{
	char full[PATH_MAX], text[PATH_MAX];
	ssize_t n;

	dirhost_path(&f->host, "tree", path, full);
	n = readlink(full, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_string_equal(text, target);
}

/* From files and spec to model, and every file that DESIGN section 1 names. */
static void test_whole_life(void **state)
{
	struct fixture *f = *state;
	char *large = calloc(1, LARGE);
	struct buf b = BUF_INIT;

	write_dataset(f, "toy", 700);
	dirhost_write(&f->host, "datasets/toy/train/big-images-idx3-ubyte", large, LARGE);
	dirhost_write(&f->host, "datasets/toy/.git/config", "x", 1);
	dirhost_write(&f->host, "datasets/toy/train/c0/x.png.part", "x", 1);
	free(large);
	jobs_dataset_changed(f->jobs, "toy");
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(text_is(f, "jobs/night/state", "queued\n"));
	assert_true(reaches(f, "night", "done"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 5));

	assert_int_equal(shared->scanned_files, 701);
	assert_true(shared->packs >= 4);
	assert_true(shared->scanned_bytes > LARGE);
	assert_string_equal(shared->scanned_shape, "0x0x0");
	assert_true(text_is(f, "datasets/toy/dataset.json", "{\"classes\":2}\n"));
	assert_true(text_is(f, "jobs/night/trials/1/state", "done\n"));
	assert_true(dirhost_exists(&f->host, "tree", "jobs/night/trials/1/knobs.json"));
	assert_true(text_has(f, "jobs/night/progress", "100.0% epoch 3/3 batch 1/2 100 samples/s ETA 0s\n"));
	assert_true(text_is(f, "jobs/night/metrics.csv",
			    "epoch,seconds,lr,train_loss,train_accuracy,val_accuracy_0.5,val_accuracy_1,"
			    "val_loss_0.5,val_loss_1\n"
			    "1,1.50,0.1,2.00000,25.00,70.00,90.00,1.50000,0.50000\n"
			    "2,1.50,0.1,1.00000,50.00,70.00,90.00,1.50000,0.50000\n"
			    "3,1.50,0.1,0.66667,75.00,70.00,90.00,1.50000,0.50000\n"));
	assert_int_equal(lines(f, "jobs/night/trials/1/metrics.csv"), 4);
	assert_true(text_has(f, "jobs/night/curves.svg", "</svg>\n"));
	assert_true(text_has(f, "jobs/night/log", "epoch 2: 1.5 s, loss 1.0000"));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
	assert_true(text_is(f, "models/night/1/model.json", "{\"model\":1}\n"));
	assert_true(text_is(f, "models/night/latest/weights.safetensors", "weights"));
	assert_true(text_is(f, "jobs/night/model/labels.txt", "a\nb\n"));
	assert_true(text_is(f, "jobs/night/best/state", "done\n"));
	assert_link(f, "models/night/latest", "1");
	assert_link(f, "jobs/night/model", "../../models/night/1");
	assert_link(f, "jobs/night/best", "trials/1");
	assert_int_equal(f->published, 1);
	assert_int_equal(f->version, 1);
	assert_true(f->latest_was_there);
	assert_false(dirhost_exists(&f->host, "state", "checkpoint/night"));

	jobs_status(f->jobs, &b);
	assert_non_null(strstr(b.data, "job night done 100.0%"));
	buf_clear(&b);
	jobs_metrics(f->jobs, &b);
	assert_non_null(strstr(b.data, "inferfs_jobs{state=\"done\"} 1\n"));
	buf_release(&b);

	/* Again, by ctl: the next version, from the start. */
	f->published = 0;
	jobs_ctl(f->jobs, "night", "retry");
	assert_true(text_is(f, "jobs/night/state", "queued\n"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 20));
	assert_int_equal(f->version, 2);
	assert_link(f, "models/night/latest", "2");
	assert_int_equal(shared->resumed_from[1], 0);
	assert_int_equal(shared->scans, 1);
	assert_int_equal(lines(f, "jobs/night/metrics.csv"), 4);
	assert_string_equal(f->states.data, "night queued\nnight running\nnight done\n"
					    "night queued\nnight running\nnight done\n");
}

/* A worker that dies or talks nonsense in epoch 3 costs that epoch. */
static void test_deaths(void **state)
{
	static const struct {
		enum fault fault;
		int resumed; /* from the checkpoint of this epoch */
	} faults[] = {{TRAIN_DIES, 2},   {TRAIN_GARBAGE, 2}, {TRAIN_HANGS, 2}, {TRAIN_EPOCHS, 2},
		      {TRAIN_COPIES, 1}, {TRAIN_PIPE, 0},    {TRAIN_DIR, 0},   {TRAIN_EARLY, 3}};

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct fixture *f;

		setup(state);
		f = *state;
		shared->fault = faults[i].fault;
		shared->faulty = 1;
		f->options.patience_ns = 300 * NS_PER_MS;
		write_dataset(f, "toy", 3);
		spec(f, "night", "{\"dataset\":\"toy\"}");
		assert_true(reaches(f, "night", "done"));
		assert_int_equal(shared->trains, 2);
		assert_int_equal(shared->resumed_from[1], faults[i].resumed);
		assert_int_equal(lines(f, "jobs/night/metrics.csv"), 4);
		assert_link(f, "models/night/latest", "1");
		teardown(state);
	}
}

static void test_three_deaths(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_DIES;
	shared->faulty = 3;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "failed"));
	assert_int_equal(shared->trains, 3);
	assert_true(text_has(f, "jobs/night/error", "the worker process died: 3 times after epoch 2; "));
	jobs_ctl(f->jobs, "night", "retry");
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[3], 2);
}

/* A checkpoint that its sender could still cut is not read. */
static void test_unsealed_checkpoint(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_LIES;
	shared->faulty = 3;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "failed"));
	assert_false(dirhost_exists(&f->host, "state", "checkpoint/night"));
}

static void test_failure(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_FAILS;
	shared->faulty = 1;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "failed"));
	assert_true(text_is(f, "jobs/night/error",
			    "training diverged: the loss is not a number: in epoch 2; use a lower \"lr\"\n"));
	/* What diverged starts again. */
	jobs_ctl(f->jobs, "night", "retry");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[1], 0);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 2;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_true(reaches(f, "night", "running"));
	jobs_ctl(f->jobs, "night", "retry"); /* has no effect on a running job */
	jobs_ctl(f->jobs, "night", "pause");
	assert_true(reaches(f, "night", "paused"));
	restart(f);
	assert_true(text_is(f, "jobs/night/state", "paused\n"));
	shared->training = 0;
	jobs_ctl(f->jobs, "night", "resume");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_int_equal(shared->resumed_from[1], 1);
	jobs_ctl(f->jobs, "night", "stop");
	assert_true(reaches(f, "night", "stopped"));
	jobs_ctl(f->jobs, "night", "pause");
	assert_true(text_is(f, "jobs/night/state", "stopped\n"));
	jobs_ctl(f->jobs, "night", "retry"); /* from the start */
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[2], 0);
}

/* kill -9 of the daemon in mid-training: goes on from the last checkpoint, with the cache that is there. */
static void test_restart(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, has_checkpoint, f, 20));
	assert_true(reaches(f, "night", "running"));
	restart(f);
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->trains, 2);
	assert_int_equal(shared->resumed_from[1], 1);
	assert_int_equal(shared->scans, 1);
	assert_int_equal(lines(f, "jobs/night/metrics.csv"), 4);
	assert_true(text_has(f, "jobs/night/log", "goes on after a restart, from epoch 1"));
	restart(f); /* a job that is done stays done */
	assert_false(dirhost_run_until(f->loop, never, f, 0.1));
	assert_true(text_is(f, "jobs/night/state", "done\n"));
	assert_int_equal(shared->trains, 2);
}

/* spec.json was closed, but the daemon died before it heard of it. */
static void test_unheard_spec(void **state)
{
	struct fixture *f = *state;

	write_dataset(f, "toy", 3);
	dirhost_write(&f->host, "jobs/night/spec.json", "{\"dataset\":\"toy\"}", 17);
	restart(f);
	assert_true(reaches(f, "night", "done"));
	dirhost_write(&f->host, "jobs/night/spec.json", "{\"dataset\":\"toy\" }", 18);
	restart(f);
	assert_true(reaches(f, "night", "done"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 20));
	assert_link(f, "models/night/latest", "2");
}

static void test_no_dataset(void **state)
{
	struct fixture *f = *state;

	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "failed"));
	assert_true(text_is(
		f, "jobs/night/error",
		"there is no such data set: datasets/toy; mkdir datasets/NAME and copy files into it\n"));
	assert_int_equal(shared->trains, 0);
	spec(f, "bad", "{\"dataset\":\"toy\",\"wings\":2}");
	assert_true(text_is(f, "jobs/bad/state", "failed\n"));
	assert_true(text_has(f, "jobs/bad/error", "wings"));
	write_dataset(f, "toy", 3);
	jobs_ctl(f->jobs, "night", "retry");
	assert_true(reaches(f, "night", "done"));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
}

static bool scanned(void *data)
{
	struct fixture *f = data;

	return shared->scans >= f->scans && dirhost_exists(&f->host, "tree", "datasets/toy/dataset.json");
}

static int count_caches(struct fixture *f)
{
	char path[PATH_MAX];
	DIR *dir;
	int n = 0;

	dirhost_path(&f->host, "state", "cache", path);
	dir = opendir(path);
	for (struct dirent *de; dir && (de = readdir(dir));)
		n += de->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static void test_dataset_changes(void **state)
{
	struct fixture *f = *state;

	write_dataset(f, "toy", 3);
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 1;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	assert_int_equal(count_caches(f), 1);

	/* News without a change, and a restart: nothing to do. */
	jobs_dataset_changed(f->jobs, "toy");
	assert_false(dirhost_run_until(f->loop, never, f, 0.2));
	restart(f);
	assert_false(dirhost_run_until(f->loop, never, f, 0.2));
	assert_int_equal(shared->scans, 1);

	/* A change: the old cache goes, the new one comes. */
	dirhost_write(&f->host, "datasets/toy/train/c1/new.png", "x", 1);
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 2;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	assert_false(dirhost_run_until(f->loop, never, f, 0.1));
	assert_int_equal(shared->scans, 2);
	assert_int_equal(shared->scanned_files, 4);
	assert_int_equal(count_caches(f), 1);

	/* A job that wants another shape gets a cache of its own. */
	spec(f, "night", "{\"dataset\":\"toy\",\"input\":\"3x32x24\"}");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->scans, 3);
	assert_string_equal(shared->scanned_shape, "3x32x24");
	assert_int_equal(count_caches(f), 2);

	jobs_dataset_gone(f->jobs, "toy");
	assert_int_equal(count_caches(f), 0);
}

static void test_scan_deaths(void **state)
{
	struct fixture *f = *state;

	shared->fault = SCAN_DIES;
	shared->faulty = 1;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->scans, 2);

	shared->faulty = 3;
	write_dataset(f, "other", 3);
	spec(f, "day", "{\"dataset\":\"other\"}");
	assert_true(reaches(f, "day", "failed"));
	assert_true(text_has(f, "jobs/day/error", "3 times, scanning datasets/other"));
	assert_int_equal(shared->scans, 5);
}

/* Files that kill the decoder are listed and skipped, and what is well is not decoded over and over. */
static void test_scan_crashers(void **state)
{
	static const char *const deadly[] = {"train/c0/0crash.png", "train/c1/crash.png", "crash.png"};
	struct fixture *f = *state;
	char path[128], *large = calloc(1, LARGE);

	shared->fault = SCAN_CRASHES;
	shared->faulty = 1000;
	write_dataset(f, "toy", 6000);
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "datasets/toy/%s", deadly[i]);
		dirhost_write(&f->host, path, path, strlen(path));
	}
	dirhost_write(&f->host, "datasets/toy/train/crash-images-idx3-ubyte", large, LARGE);
	free(large);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->scanned_files, 6000);
	assert_int_equal(shared->bad, 4);
	assert_in_range(shared->scans, 5, 9);
	/* Each once, those in flight at a death once more by themselves, and all in the last run. */
	assert_in_range(shared->decoded, 6000, 2 * 6000 + 4 * 1024);

	/* Another shape: what is known to be deadly is not sent again. */
	shared->scans = 0;
	spec(f, "day", "{\"dataset\":\"toy\",\"input\":\"3x32x24\"}");
	assert_true(reaches(f, "day", "done"));
	assert_int_equal(shared->scans, 1);
	assert_int_equal(shared->bad, 4);
}

static void test_scan_hangs(void **state)
{
	struct fixture *f = *state;

	f->options.patience_ns = 300 * NS_PER_MS;
	shared->fault = SCAN_HANGS;
	shared->faulty = 1000;
	write_dataset(f, "toy", 20);
	dirhost_write(&f->host, "datasets/toy/train/c1/crash.png", "x", 1);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->scanned_files, 20);
	assert_int_equal(shared->bad, 1);
	assert_int_equal(shared->scans, 3);
}

static void test_scan_nonsense(void **state)
{
	for (int fault = SCAN_EARLY; fault < SCAN_FAULTS; fault++) {
		struct fixture *f;

		setup(state);
		f = *state;
		shared->fault = fault;
		shared->faulty = 1;
		write_dataset(f, "toy", 3);
		spec(f, "night", "{\"dataset\":\"toy\"}");
		if (fault == SCAN_EARLY) { /* what it left is no cache: `retry` gets another one */
			assert_true(reaches(f, "night", "failed"));
			jobs_ctl(f->jobs, "night", "retry");
		}
		assert_true(reaches(f, "night", "done"));
		assert_int_equal(shared->scans, 2);
		assert_int_equal(shared->bad, 0);
		assert_true(text_is(f, "datasets/toy/dataset.json", "{\"classes\":2}\n"));
		teardown(state);
	}
}

static void test_empty_dataset(void **state)
{
	struct fixture *f = *state;

	shared->fault = SCAN_EMPTY;
	shared->faulty = 1;
	write_dataset(f, "toy", 1);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(reaches(f, "night", "failed"));
	assert_true(text_has(f, "jobs/night/error", "the data set holds no usable image: 0 images"));
	assert_true(dirhost_exists(&f->host, "tree", "datasets/toy/dataset.json"));
	assert_int_equal(count_caches(f), 0);
}

/* One at a time, in the order of their specs. */
static void test_queue(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	write_dataset(f, "toy", 3);
	spec(f, "a", "{\"dataset\":\"toy\"}");
	spec(f, "b", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_true(reaches(f, "a", "running"));
	assert_true(text_is(f, "jobs/b/state", "queued\n"));
	assert_true(text_has(f, "jobs/b/progress", "waits for job a"));
	jobs_ctl(f->jobs, "a", "pause");
	assert_true(reaches(f, "b", "done"));
	assert_true(text_is(f, "jobs/a/state", "paused\n"));

	/* Removed in mid-training: its record and checkpoint go, its files are not made again. */
	shared->training = 0;
	shared->faulty = 1;
	jobs_ctl(f->jobs, "a", "resume");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	jobs_gone(f->jobs, "a");
	dirhost_unpublish(&f->host, "jobs/a/state");
	dirhost_unpublish(&f->host, "jobs/a/spec.json");
	assert_false(dirhost_run_until(f->loop, never, f, 0.2));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/a/state"));
	assert_false(dirhost_exists(&f->host, "state", "checkpoint/a"));
	restart(f);
	assert_false(dirhost_run_until(f->loop, never, f, 0.1));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/a/state"));
}

/* Another spec in mid-training starts the job again. */
static void test_new_spec(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	write_dataset(f, "toy", 3);
	spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	spec(f, "night", "{\"dataset\":\"toy\"}"); /* the same bytes: nothing happens */
	assert_false(dirhost_run_until(f->loop, never, f, 0.1));
	assert_int_equal(shared->trains, 1);
	spec(f, "night", "{\"dataset\":\"toy\",\"model\":\"owl\"}");
	assert_true(reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[1], 0);
	assert_link(f, "jobs/night/model", "../../models/owl/1");
}

static void test_checks(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(jobs_check_ctl("pause\n", 6, &err), 0);
	assert_int_equal(jobs_check_ctl("fly", 3, &err), -EINVAL);
	assert_non_null(strstr(err.detail, "fly"));
	assert_int_equal(jobs_check_ctl("", 0, &err), -EINVAL);
	assert_int_equal(jobs_check_spec("{\"dataset\":\"toy\"}", 17, &err), 0);
	assert_int_equal(jobs_check_spec("{\"dataset\":\"to", 14, &err), -EAGAIN);
	assert_int_equal(jobs_check_spec("{\"dataset\":\"toy\"", 16, &err), -EAGAIN);
	assert_int_equal(jobs_check_spec(" \n", 2, &err), -EAGAIN);
	assert_int_equal(jobs_check_spec("{\"dataset\":\"toy\"}}", 18, &err), -EINVAL);
	assert_int_equal(jobs_check_spec("{\"wings\":\"toy\"}", 15, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(test_whole_life),
		cmocka_unit_test(test_deaths),
		TEST(test_three_deaths),
		TEST(test_failure),
		TEST(test_pause),
		TEST(test_restart),
		TEST(test_unheard_spec),
		TEST(test_no_dataset),
		TEST(test_dataset_changes),
		TEST(test_scan_deaths),
		TEST(test_scan_crashers),
		TEST(test_scan_hangs),
		cmocka_unit_test(test_scan_nonsense),
		TEST(test_empty_dataset),
		TEST(test_queue),
		TEST(test_new_spec),
		TEST(test_unsealed_checkpoint),
		cmocka_unit_test(test_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
