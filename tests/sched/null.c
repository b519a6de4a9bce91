/* The null executor on the fake clock: order and times to the nanosecond, answers, pictures, death. */
#include "sched/executor.h"
#include "sched/loop.h"

#include <spng.h>

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static struct executor *ex;
static char trace[4096];
static struct instance_answer answers[8];
static struct submodel submodels[MAX_SUBMODELS];
static bool run_again;

#define MODEL                                                                                     \
	"{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.79,\"ms\":40,\"one_ms\":10}," \
	"{\"slice\":0.25,\"accuracy\":0.65,\"ms\":16}]}"

static void note(const char *fmt, ...)
{
	size_t len = strlen(trace);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(trace + len, sizeof(trace) - len, fmt, ap);
	va_end(ap);
	len = strlen(trace);
	snprintf(trace + len, sizeof(trace) - len, "@%g ", (double)loop_now(loop) / 1e6);
}

static int run(uint64_t batch, int submodel, int n)
{
	struct instance_input in[8];

	for (int i = 0; i < n; i++)
		in[i] = (struct instance_input){.id = 100 + (uint64_t)i, .data = "7up", .len = 3};
	return ex->ops->run(ex, batch, 5, submodel, in, n);
}

static void loaded(void *data, uint32_t endpoint, int r, const struct err *err, const struct submodel *m,
		   int n, const char *const *labels, int n_labels)
{
	(void)data;
	note("loaded%u:%d:%s:%d:%s%d", endpoint, r, err_name(err->code), n,
	     n_labels ? labels[n_labels - 1] : "", n_labels);
	memcpy(submodels, m, (size_t)n * sizeof(*m));
}

static void done(void *data, const struct batch_done *d)
{
	(void)data;
	note("done%d:%d:%g", (int)d->batch, d->r, (double)d->compute_ns / 1e6);
	if (d->answers)
		memcpy(answers, d->answers, (size_t)d->n * sizeof(*answers));
	if (run_again)
		note("run:%d", run(d->batch + 10, 1, 4));
}

static void died(void *data)
{
	(void)data;
	note("died");
}

static const struct executor_events events = {loaded, done, died};

static int load(const char *model)
{
	int fd = memfd_create("model", 0), r;

	assert_int_equal(write(fd, model, strlen(model)), strlen(model));
	r = ex->ops->load(
		ex, &(struct endpoint_load){
			    .endpoint = 5, .batch = 4, .model_fd = fd, .weights_fd = -1, .labels_fd = -1});
	close(fd);
	return r;
}

static int setup(void **state)
{
	(void)state;
	trace[0] = '\0';
	run_again = false;
	return loop_new(&loop, true) || executor_null_new(&ex, loop, &events, NULL);
}

static int teardown(void **state)
{
	(void)state;
	ex->ops->free(ex);
	loop_fake_advance(loop, 1000 * NS_PER_S); /* what free left behind would be called now */
	loop_free(loop);
	return 0;
}

static void expect(int64_t until_ms, const char *text)
{
	loop_fake_advance(loop, until_ms * NS_PER_MS);
	assert_string_equal(trace, text);
	trace[0] = '\0';
}

static void test_load(void **state)
{
	(void)state;
	assert_int_equal(run(1, 0, 4), -ENOENT);
	assert_int_equal(load(MODEL), 0);
	assert_int_equal(load(MODEL), -EEXIST);
	assert_int_equal(run(1, 0, 4), -EAGAIN);
	assert_string_equal(trace, "");
	expect(0, "loaded5:0:NONE:2:910@0 ");
	assert_true(submodels[0].slice == 1 && submodels[1].slice == 0.25f);
	assert_true(submodels[0].accuracy == 0.79);
	assert_int_equal(submodels[0].time_ns, 40000000);
	assert_int_equal(submodels[0].time_one_ns, 10000000);
	assert_int_equal(submodels[1].time_one_ns, 16000000);
	assert_int_equal(run(1, 2, 4), -EINVAL);
	assert_int_equal(run(1, -1, 4), -EINVAL);
	assert_int_equal(run(1, 0, 5), -EINVAL);
	assert_int_equal(run(1, 0, 0), -EINVAL);
	ex->ops->unload(ex, 5);
	ex->ops->unload(ex, 5);
	assert_int_equal(run(1, 0, 4), -ENOENT);
}

static void test_bad_models(void **state)
{
	static const struct {
		const char *model, *name;
	} cases[] = {
		{"", "JSON_SYNTAX"},
		{"{", "JSON_SYNTAX"},
		{"{}", "SPEC_MISSING"},
		{"{\"classes\":0}", "SPEC_VALUE"},
		{"{\"classes\":1e9}", "SPEC_VALUE"},
		{"{\"classes\":2}", "SPEC_VALUE"},
		{"{\"classes\":2,\"submodels\":[]}", "SPEC_VALUE"},
		{"{\"classes\":2,\"submodels\":[{}]}", "SPEC_MISSING"},
		{"{\"classes\":2,\"submodels\":[3]}", "SPEC_MISSING"},
		{"{\"classes\":2,\"submodels\":[{\"slice\":1,\"accuracy\":2,\"ms\":1}]}", "SPEC_VALUE"},
		{"{\"classes\":2,\"submodels\":[{\"slice\":1,\"accuracy\":1,\"ms\":0}]}", "SPEC_VALUE"},
		{"{\"classes\":2,\"submodels\":[{\"slice\":1,\"accuracy\":1,\"ms\":1,\"one_ms\":2}]}",
		 "SPEC_VALUE"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(load(cases[i].model), 0);
		loop_fake_advance(loop, (int64_t)i);
		assert_non_null(strstr(trace, cases[i].name));
		assert_null(strstr(trace, "loaded5:0"));
		assert_int_equal(run(1, 0, 1), -EAGAIN);
		ex->ops->unload(ex, 5);
		trace[0] = '\0';
	}
}

static void test_service(void **state)
{
	(void)state;
	load(MODEL);
	expect(0, "loaded5:0:NONE:2:910@0 ");
	assert_int_equal(run(1, 0, 4), 0);
	assert_int_equal(run(2, 1, 4), 0);
	assert_int_equal(run(3, 1, 4), -EBUSY);
	expect(39, "");
	expect(56, "done1:0:40@40 done2:0:16@56 ");
	/* Part-filled: 10 + (40 - 10)·(k - 1)/3; where one_ms was not given, as a full one. */
	assert_int_equal(run(4, 0, 1), 0);
	assert_int_equal(run(5, 0, 3), 0);
	expect(200, "done4:0:10@66 done5:0:30@96 ");
	assert_int_equal(run(6, 1, 1), 0);
	expect(300, "done6:0:16@216 ");
	/* The factor is that of the start. */
	executor_null_set_factor(ex, 1.5);
	assert_int_equal(run(7, 0, 4), 0);
	assert_int_equal(run(8, 0, 4), 0);
	executor_null_set_factor(ex, 0.5);
	expect(400, "done7:0:60@360 done8:0:20@380 ");
	/* From within done: the waiting one runs before the new one. */
	executor_null_set_factor(ex, 1);
	assert_int_equal(run(1, 0, 4), 0);
	assert_int_equal(run(2, 0, 4), 0);
	run_again = true;
	expect(496, "done1:0:40@440 run:0@440 done2:0:40@480 run:0@480 done11:0:16@496 run:0@496 ");
	/* Unloaded while two are outstanding: they are answered. */
	ex->ops->unload(ex, 5);
	expect(600, "done12:0:16@512 run:-2@512 done21:0:16@528 run:-2@528 ");
}

static void test_answers(void **state)
{
	const struct instance_input in[] = {{.id = 1, .data = "\x17", .len = 1},
					    {.id = 2, .data = "bad!", .len = 4},
					    {.id = 3, .data = "", .len = 0},
					    {.id = 4, .data = "ba", .len = 2}};

	(void)state;
	load(MODEL);
	loop_fake_advance(loop, 0);
	assert_int_equal(ex->ops->run(ex, 9, 5, 0, in, 4), 0);
	loop_fake_advance(loop, NS_PER_S);
	for (int i = 0; i < 4; i++)
		assert_int_equal(answers[i].id, i + 1);
	assert_false(answers[0].failed);
	assert_int_equal(answers[0].label, 3);
	assert_int_equal(answers[0].n_top, 5);
	assert_int_equal(answers[0].top[0], 3);
	assert_int_equal(answers[0].top[4], 7);
	assert_true(answers[0].score == answers[0].top_score[0]);
	assert_true(answers[0].top_score[0] > answers[0].top_score[1]);
	assert_true(answers[1].failed && answers[1].err.code == ERR_BAD_IMAGE);
	assert_true(answers[2].failed && answers[2].err.code == ERR_BAD_IMAGE);
	assert_int_equal(answers[3].label, 'b' % 10);
}

static void pictures_done(void *data, const struct batch_done *d)
{
	(void)data;
	assert_int_equal(d->n, 3);
	assert_null(d->answers);
	assert_int_equal(lseek(d->picture_fd, 0, SEEK_END),
			 (off_t)(d->picture_len[0] + d->picture_len[1] + d->picture_len[2]));
	assert_int_equal(d->picture_len[1], 0);
	for (int i = 0; i < 3; i += 2) {
		uint8_t png[256], pixel[4];
		spng_ctx *ctx = spng_ctx_new(0);

		assert_in_range(d->picture_len[i], 1, sizeof(png));
		assert_int_equal(
			pread(d->picture_fd, png, d->picture_len[i], i ? (off_t)d->picture_len[0] : 0),
			d->picture_len[i]);
		assert_int_equal(spng_set_png_buffer(ctx, png, d->picture_len[i]), 0);
		assert_int_equal(spng_decode_image(ctx, pixel, sizeof(pixel), SPNG_FMT_RGBA8, 0), 0);
		spng_ctx_free(ctx);
	}
	note("pictures");
}

static void test_explain(void **state)
{
	static const struct executor_events picture_events = {loaded, pictures_done, died};
	const struct instance_input in[] = {
		{.data = "1", .len = 1}, {.data = "bad", .len = 3}, {.data = "3", .len = 1}};

	(void)state;
	ex->ops->free(ex);
	assert_int_equal(executor_null_new(&ex, loop, &picture_events, NULL), 0);
	load(MODEL);
	expect(0, "loaded5:0:NONE:2:910@0 ");
	assert_int_equal(ex->ops->explain(ex, 1, 5, 1, in, (int[]){1, 1, 9}, (float[]){1, 1, 1}, 3), 0);
	expect(100, "pictures@16 ");
}

static void test_kill(void **state)
{
	(void)state;
	load(MODEL);
	expect(0, "loaded5:0:NONE:2:910@0 ");
	run(1, 0, 4);
	run(2, 0, 4);
	expect(10, "");
	run_again = true; /* is refused until it is loaded again */
	executor_null_kill(ex);
	executor_null_kill(ex);
	assert_string_equal(trace, "");
	expect(300, "done1:-5:0@10 run:-11@10 done2:-5:0@10 run:-11@10 died@10 loaded5:0:NONE:2:910@10 ");
	run_again = false;
	assert_int_equal(run(3, 0, 4), 0);
	expect(400, "done3:0:40@340 ");
	/* Death while the endpoint is not loaded yet: `loaded` comes once. */
	ex->ops->unload(ex, 5);
	load(MODEL);
	executor_null_kill(ex);
	expect(500, "loaded5:0:NONE:2:910@400 died@400 loaded5:0:NONE:2:910@400 ");
}

/* ms that a mini-batch of 40 ms takes, which starts at once. */
static double take(void)
{
	double ms;

	trace[0] = '\0';
	assert_int_equal(run(1, 0, 4), 0);
	while (!trace[0])
		loop_fake_advance(loop, loop_now(loop) + 10 * NS_PER_MS);
	assert_int_equal(sscanf(trace, "done1:0:%lf@", &ms), 1);
	return ms;
}

static void test_noise(void **state)
{
	double sum = 0, squares = 0;
	int above = 0, n = 4000;

	(void)state;
	load(MODEL);
	expect(0, "loaded5:0:NONE:2:910@0 ");
	executor_null_set_noise(ex, 0.3, 7);
	for (int i = 0; i < n; i++) {
		double x = take() / 40;

		sum += x;
		squares += x * x;
		above += x > 1;
	}
	/* Mean and deviation to four deviations of their own; of a log-normal one less than half are above the mean: Φ(-σ/2) = 44.2 %. */
	assert_float_equal(sum / n, 1, 0.019);
	assert_float_equal(sqrt(squares / n - sum / n * (sum / n)), 0.3, 0.02);
	assert_float_equal((double)above / n, 0.442, 0.032);
	executor_null_set_noise(ex, 0, 0);
	assert_true(take() == 40);
}

static void test_stalls(void **state)
{
	int hit = 0, n = 4000;

	(void)state;
	load(MODEL);
	expect(0, "loaded5:0:NONE:2:910@0 ");
	executor_null_set_stalls(ex, 2, 70 * NS_PER_MS, 7);
	for (int i = 0; i < n; i++) {
		double ms = take();

		/* From its start, from when it runs, or not at all. */
		assert_true(ms == 40 || (ms > 40 && ms < 400));
		hit += ms > 40;
	}
	/* It came between the last one and the end of this one, a stall aside: 2·(40 + 5) ms. */
	assert_in_range(hit, n * 6 / 100, n * 12 / 100);
	executor_null_set_stalls(ex, 0, 1, 0);
	assert_true(take() == 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_load, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_models, setup, teardown),
		cmocka_unit_test_setup_teardown(test_service, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_explain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stalls, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
