/*
 * Training jobs over a directory that plays the mount and forked children that play the workers: what is published, what survives
 * deaths of workers and of the daemon, what words of ctl do.
 */
#include "tests/support/jobs_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

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

	fixture_write_dataset(f, "toy", 700);
	dirhost_write(&f->host, "datasets/toy/train/big-images-idx3-ubyte", large, LARGE);
	dirhost_write(&f->host, "datasets/toy/.git/config", "x", 1);
	dirhost_write(&f->host, "datasets/toy/train/c0/x.png.part", "x", 1);
	free(large);
	jobs_dataset_changed(f->jobs, "toy");
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_text_is(f, "jobs/night/state", "queued\n"));
	assert_true(fixture_text_has(f, "jobs/night/trials/1/knobs.json", "\"epochs\":\t30,"));
	assert_true(fixture_reaches(f, "night", "done"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 5));

	assert_int_equal(shared->scanned_files, 701);
	assert_true(shared->packs >= 4);
	assert_true(shared->scanned_bytes > LARGE);
	assert_string_equal(shared->scanned_shape, "0x0x0");
	assert_true(fixture_text_is(f, "datasets/toy/dataset.json", "{\"classes\":2}\n"));
	assert_true(fixture_text_is(f, "jobs/night/trials/1/state", "done\n"));
	assert_true(fixture_text_has(f, "jobs/night/trials/1/knobs.json", "\"epochs\":\t3,"));
	assert_true(fixture_text_has(f, "jobs/night/progress",
				     "100.0% epoch 3/3 batch 2/2 100 samples/s ETA 0s\n"));
	assert_true(
		fixture_text_is(f, "jobs/night/metrics.csv",
				"epoch,seconds,lr,train_loss,train_accuracy,val_accuracy_0.5,val_accuracy_1,"
				"val_loss_0.5,val_loss_1\n"
				"1,1.50,0.1,2.00000,25.00,70.00,90.00,1.50000,0.50000\n"
				"2,1.50,0.1,1.00000,50.00,70.00,90.00,1.50000,0.50000\n"
				"3,1.50,0.1,0.66667,75.00,70.00,90.00,1.50000,0.50000\n"));
	assert_int_equal(fixture_lines(f, "jobs/night/trials/1/metrics.csv"), 4);
	assert_true(fixture_text_has(f, "jobs/night/curves.svg", "</svg>\n"));
	assert_true(fixture_text_has(f, "jobs/night/log", "epoch 2: 1.5 s, loss 1.0000"));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
	assert_true(fixture_text_is(f, "models/night/1/model.json", "{\"model\":1}\n"));
	assert_true(fixture_text_is(f, "models/night/latest/weights.safetensors", "weights"));
	assert_true(fixture_text_is(f, "jobs/night/model/labels.txt", "a\nb\n"));
	assert_true(fixture_text_is(f, "jobs/night/best/state", "done\n"));
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
	assert_true(fixture_text_is(f, "jobs/night/state", "queued\n"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 20));
	assert_int_equal(f->version, 2);
	assert_link(f, "models/night/latest", "2");
	assert_int_equal(shared->resumed_from[1], 0);
	assert_int_equal(shared->scans, 1);
	assert_int_equal(fixture_lines(f, "jobs/night/metrics.csv"), 4);
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
		      {TRAIN_COPIES, 1}, {TRAIN_PIPE, 0},    {TRAIN_DIR, 0},   {TRAIN_EARLY, 3},
		      {TRAIN_WINGS, 0},  {TRAIN_TWICE, 0}};

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		struct fixture *f;

		fixture_setup(state);
		f = *state;
		shared->fault = faults[i].fault;
		shared->faulty = 1;
		f->options.patience_ns = 300 * NS_PER_MS;
		fixture_write_dataset(f, "toy", 3);
		fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
		assert_true(fixture_reaches(f, "night", "done"));
		assert_int_equal(shared->trains, 2);
		assert_int_equal(shared->resumed_from[1], faults[i].resumed);
		assert_int_equal(fixture_lines(f, "jobs/night/metrics.csv"), 4);
		assert_link(f, "models/night/latest", "1");
		fixture_teardown(state);
	}
}

static void test_three_deaths(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_DIES;
	shared->faulty = 3;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "failed"));
	assert_int_equal(shared->trains, 3);
	assert_true(
		fixture_text_has(f, "jobs/night/error", "the worker process died: 3 times after epoch 2; "));
	jobs_ctl(f->jobs, "night", "retry");
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[3], 2);
}

/* A checkpoint that its sender could still cut is not read. */
static void test_unsealed_checkpoint(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_LIES;
	shared->faulty = 3;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "failed"));
	assert_false(dirhost_exists(&f->host, "state", "checkpoint/night"));
}

static void test_failure(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_FAILS;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "failed"));
	assert_true(fixture_text_is(
		f, "jobs/night/error",
		"training diverged: the loss is not a number: in epoch 2; use a lower \"lr\"\n"));
	/* What diverged starts again. */
	jobs_ctl(f->jobs, "night", "retry");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[1], 0);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 2;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_true(fixture_reaches(f, "night", "running"));
	jobs_ctl(f->jobs, "night", "retry"); /* has no effect on a running job */
	jobs_ctl(f->jobs, "night", "pause");
	assert_true(fixture_reaches(f, "night", "paused"));
	fixture_restart(f);
	assert_true(fixture_text_is(f, "jobs/night/state", "paused\n"));
	shared->training = 0;
	jobs_ctl(f->jobs, "night", "resume");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_int_equal(shared->resumed_from[1], 1);
	jobs_ctl(f->jobs, "night", "stop");
	assert_true(fixture_reaches(f, "night", "stopped"));
	jobs_ctl(f->jobs, "night", "pause");
	assert_true(fixture_text_is(f, "jobs/night/state", "stopped\n"));
	jobs_ctl(f->jobs, "night", "retry"); /* from the start */
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->resumed_from[2], 0);
}

/* kill -9 of the daemon in mid-training: goes on from the last checkpoint, with the cache that is there. */
static void test_restart(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, has_checkpoint, f, 20));
	assert_true(fixture_reaches(f, "night", "running"));
	fixture_restart(f);
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->trains, 2);
	assert_int_equal(shared->resumed_from[1], 1);
	assert_int_equal(shared->scans, 1);
	assert_int_equal(fixture_lines(f, "jobs/night/metrics.csv"), 4);
	assert_true(fixture_text_has(f, "jobs/night/log", "goes on after a restart, from epoch 1"));
	fixture_restart(f); /* a job that is done stays done */
	fixture_run(f, 0.1);
	assert_true(fixture_text_is(f, "jobs/night/state", "done\n"));
	assert_int_equal(shared->trains, 2);
}

/* spec.json was closed, but the daemon died before it heard of it. */
static void test_unheard_spec(void **state)
{
	struct fixture *f = *state;

	fixture_write_dataset(f, "toy", 3);
	dirhost_write(&f->host, "jobs/night/spec.json", "{\"dataset\":\"toy\"}", 17);
	fixture_restart(f);
	assert_true(fixture_reaches(f, "night", "done"));
	dirhost_write(&f->host, "jobs/night/spec.json", "{\"dataset\":\"toy\" }", 18);
	fixture_restart(f);
	assert_true(fixture_reaches(f, "night", "done"));
	assert_true(dirhost_run_until(f->loop, is_published, f, 20));
	assert_link(f, "models/night/latest", "2");
}

static void test_no_dataset(void **state)
{
	struct fixture *f = *state;

	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "failed"));
	assert_true(fixture_text_is(
		f, "jobs/night/error",
		"there is no such data set: datasets/toy; mkdir datasets/NAME and copy files into it\n"));
	assert_int_equal(shared->trains, 0);
	fixture_spec(f, "bad", "{\"dataset\":\"toy\",\"wings\":2}");
	assert_true(fixture_text_is(f, "jobs/bad/state", "failed\n"));
	assert_true(fixture_text_has(f, "jobs/bad/error", "wings"));
	fixture_write_dataset(f, "toy", 3);
	jobs_ctl(f->jobs, "night", "retry");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_false(dirhost_exists(&f->host, "tree", "jobs/night/error"));
}

/* One at a time, in the order of their specs. */
static void test_queue(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "a", "{\"dataset\":\"toy\"}");
	fixture_spec(f, "b", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	assert_true(fixture_reaches(f, "a", "running"));
	assert_true(fixture_text_is(f, "jobs/b/state", "queued\n"));
	assert_true(fixture_text_has(f, "jobs/b/progress", "waits for job a"));
	jobs_ctl(f->jobs, "a", "pause");
	assert_true(fixture_reaches(f, "b", "done"));
	assert_true(fixture_text_is(f, "jobs/a/state", "paused\n"));

	/* Removed in mid-training: its record and checkpoint go, its files are not made again. */
	shared->training = 0;
	shared->faulty = 1;
	jobs_ctl(f->jobs, "a", "resume");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	jobs_gone(f->jobs, "a");
	dirhost_unpublish(&f->host, "jobs/a/state");
	dirhost_unpublish(&f->host, "jobs/a/spec.json");
	fixture_run(f, 0.2);
	assert_false(dirhost_exists(&f->host, "tree", "jobs/a/state"));
	assert_false(dirhost_exists(&f->host, "state", "checkpoint/a"));
	fixture_restart(f);
	fixture_run(f, 0.1);
	assert_false(dirhost_exists(&f->host, "tree", "jobs/a/state"));
}

/* Another spec in mid-training starts the job again. */
static void test_new_spec(void **state)
{
	struct fixture *f = *state;

	shared->fault = TRAIN_WAITS;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(dirhost_run_until(f->loop, is_training, f, 20));
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}"); /* the same bytes: nothing happens */
	fixture_run(f, 0.1);
	assert_int_equal(shared->trains, 1);
	fixture_spec(f, "night", "{\"dataset\":\"toy\",\"model\":\"owl\"}");
	assert_true(fixture_reaches(f, "night", "done"));
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
		TEST(test_whole_life),
		cmocka_unit_test(test_deaths),
		TEST(test_three_deaths),
		TEST(test_failure),
		TEST(test_pause),
		TEST(test_restart),
		TEST(test_unheard_spec),
		TEST(test_no_dataset),
		TEST(test_queue),
		TEST(test_new_spec),
		TEST(test_unsealed_checkpoint),
		cmocka_unit_test(test_checks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
