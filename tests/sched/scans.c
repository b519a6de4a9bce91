/* Scans of data sets, and what a scan worker may do wrong. */
#include "tests/support/jobs_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

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

	fixture_write_dataset(f, "toy", 3);
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 1;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	assert_int_equal(count_caches(f), 1);

	/* News without a change, and a restart: nothing to do. */
	jobs_dataset_changed(f->jobs, "toy");
	fixture_run(f, 0.2);
	fixture_restart(f);
	fixture_run(f, 0.2);
	assert_int_equal(shared->scans, 1);

	/* A change: the old cache goes, the new one comes. */
	dirhost_write(&f->host, "datasets/toy/train/c1/new.png", "x", 1);
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 2;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	fixture_run(f, 0.1);
	assert_int_equal(shared->scans, 2);
	assert_int_equal(shared->scanned_files, 4);
	assert_int_equal(count_caches(f), 1);

	/* A job that wants another shape gets a cache of its own. */
	fixture_spec(f, "night", "{\"dataset\":\"toy\",\"input\":\"3x32x24\"}");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->scans, 3);
	assert_string_equal(shared->scanned_shape, "3x32x24");
	assert_int_equal(count_caches(f), 2);

	jobs_dataset_gone(f->jobs, "toy");
	assert_int_equal(count_caches(f), 0);
}

/* Killed between the end of a scan and its dataset.json: the one of the older scan is not taken for it. */
static void test_unseen_json(void **state)
{
	struct fixture *f = *state;

	fixture_write_dataset(f, "toy", 3);
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 1;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	dirhost_write(&f->host, "datasets/toy/train/c1/new.png", "x", 1);
	dirhost_write(&f->host, "datasets/toy/dataset.json", "old", 3);
	f->host.deaf = true;
	jobs_dataset_changed(f->jobs, "toy");
	f->scans = 2;
	assert_true(dirhost_run_until(f->loop, scanned, f, 20));
	fixture_run(f, 0.1);
	f->host.deaf = false;
	fixture_restart(f);
	fixture_run(f, 0.2);
	assert_int_equal(shared->scans, 3);
	assert_true(fixture_text_has(f, "datasets/toy/dataset.json", "classes"));
}

/* What is written all the time keeps the scanner from nobody else. */
static void test_busy_dataset(void **state)
{
	struct fixture *f = *state;

	shared->fault = SCAN_HANGS;
	shared->faulty = 1;
	fixture_write_dataset(f, "busy", 3);
	dirhost_write(&f->host, "datasets/busy/train/c0/crash.png", "x", 1);
	jobs_dataset_changed(f->jobs, "busy");
	fixture_run(f, 0.1);
	assert_int_equal(shared->scans, 1);
	fixture_write_dataset(f, "toy", 3);
	jobs_dataset_changed(f->jobs, "toy");
	fixture_run(f, 0.1);
	assert_int_equal(shared->scans, 1); /* it waits */
	f->scans = 2;
	for (int i = 0; i < 200 && !scanned(f); i++) {
		jobs_dataset_changed(f->jobs, "busy");
		fixture_run(f, 0.01);
	}
	assert_true(scanned(f));
}

static double cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A job that waits for a scan does so without asking for it again and again. */
static void test_wait_for_scan(void **state)
{
	struct fixture *f = *state;
	double before;

	shared->fault = SCAN_HANGS;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	dirhost_write(&f->host, "datasets/toy/train/c0/crash.png", "x", 1);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	fixture_run(f, 0.1);
	assert_int_equal(shared->scans, 1);
	assert_true(fixture_text_has(f, "jobs/night/progress", "waits for the scan of data set toy"));
	before = cpu_seconds();
	fixture_run(f, 0.5);
	assert_true(cpu_seconds() - before < 0.1);
}

static void test_scan_deaths(void **state)
{
	struct fixture *f = *state;

	shared->fault = SCAN_DIES;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 3);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->scans, 2);

	shared->faulty = 3;
	fixture_write_dataset(f, "other", 3);
	fixture_spec(f, "day", "{\"dataset\":\"other\"}");
	assert_true(fixture_reaches(f, "day", "failed"));
	assert_true(fixture_text_has(f, "jobs/day/error", "3 times, scanning datasets/other"));
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
	fixture_write_dataset(f, "toy", 6000);
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "datasets/toy/%s", deadly[i]);
		dirhost_write(&f->host, path, path, strlen(path));
	}
	dirhost_write(&f->host, "datasets/toy/train/crash-images-idx3-ubyte", large, LARGE);
	free(large);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->scanned_files, 6000);
	assert_int_equal(shared->bad, 4);
	assert_in_range(shared->scans, 5, 9);
	/* Each once, those in flight at a death once more by themselves, and all in the last run. */
	assert_in_range(shared->decoded, 6000, 2 * 6000 + 4 * 1024);

	/* Another shape: what is known to be deadly is not sent again. */
	shared->scans = 0;
	fixture_spec(f, "day", "{\"dataset\":\"toy\",\"input\":\"3x32x24\"}");
	assert_true(fixture_reaches(f, "day", "done"));
	assert_int_equal(shared->scans, 1);
	assert_int_equal(shared->bad, 4);
}

static void test_scan_hangs(void **state)
{
	struct fixture *f = *state;

	f->options.patience_ns = 300 * NS_PER_MS;
	shared->fault = SCAN_HANGS;
	shared->faulty = 1000;
	fixture_write_dataset(f, "toy", 20);
	dirhost_write(&f->host, "datasets/toy/train/c1/crash.png", "x", 1);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "done"));
	assert_int_equal(shared->scanned_files, 20);
	assert_int_equal(shared->bad, 1);
	assert_int_equal(shared->scans, 3);
}

static void test_scan_nonsense(void **state)
{
	for (int fault = SCAN_EARLY; fault < SCAN_FAULTS; fault++) {
		struct fixture *f;

		fixture_setup(state);
		f = *state;
		shared->fault = fault;
		shared->faulty = 1;
		fixture_write_dataset(f, "toy", 3);
		fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
		if (fault == SCAN_EARLY) { /* what it left is no cache: `retry` gets another one */
			assert_true(fixture_reaches(f, "night", "failed"));
			jobs_ctl(f->jobs, "night", "retry");
		}
		assert_true(fixture_reaches(f, "night", "done"));
		assert_int_equal(shared->scans, 2);
		assert_int_equal(shared->bad, 0);
		assert_true(fixture_text_is(f, "datasets/toy/dataset.json", "{\"classes\":2}\n"));
		fixture_teardown(state);
	}
}

static void test_empty_dataset(void **state)
{
	struct fixture *f = *state;

	shared->fault = SCAN_EMPTY;
	shared->faulty = 1;
	fixture_write_dataset(f, "toy", 1);
	fixture_spec(f, "night", "{\"dataset\":\"toy\"}");
	assert_true(fixture_reaches(f, "night", "failed"));
	assert_true(fixture_text_has(f, "jobs/night/error", "the data set holds no usable image: 0 images"));
	assert_true(dirhost_exists(&f->host, "tree", "datasets/toy/dataset.json"));
	assert_int_equal(count_caches(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
		TEST(test_dataset_changes), TEST(test_unseen_json),
		TEST(test_busy_dataset),    TEST(test_wait_for_scan),
		TEST(test_scan_deaths),     TEST(test_scan_crashers),
		TEST(test_scan_hangs),      cmocka_unit_test(test_scan_nonsense),
		TEST(test_empty_dataset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
