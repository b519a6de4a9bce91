/*
 * The scheduler on its own thread and the real clock: messages from other threads, and stopping in mid-work.
 * The fake host is the scheduler thread's alone while that runs; it is looked at when it has stopped.
 */
#include "tests/support/fake_host.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL                             \
	"{\"classes\":10,\"submodels\":[" \
	"{\"slice\":1,\"accuracy\":0.9,\"ms\":5,\"one_ms\":1}]}"
#define SPEC "{\"model\":\"m\",\"batch\":4,\"settle\":\"5ms\"}"

#define POSTERS 4
#define FILES   50

static uint64_t inos[POSTERS * FILES];

struct poster {
	struct sched *s;
	int first;
};

static void *post_files(void *data)
{
	const struct poster *p = data;

	for (int i = p->first; i < p->first + FILES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%03d.png", i);
		sched_post_instance(p->s, "app", INSTANCE_WRITING, name, inos[i]);
		sched_post_instance(p->s, "app", INSTANCE_COMPLETE, name, inos[i]);
		sched_post_deadline(p->s, "app", name, inos[i], "20s");
	}
	return NULL;
}

static void start(struct sched **ret, struct fake_host *h)
{
	struct sched_options options = {
		.settle_ns = 50 * NS_PER_MS, .settle_batch_ns = NS_PER_S, .null_backend = true};

	assert_int_equal(sched_new(ret, &fake_host_ops, h, &options), 0);
	h->loop = sched_loop(*ret);
	assert_int_equal(sched_start(*ret), 0);
}

static void stop(struct sched *s, struct fake_host *h)
{
	sched_stop(s);
	fake_host_crash(h); /* its timers are the loop's */
	sched_free(s);
}

static void test_threads(void **state)
{
	struct poster posters[POSTERS];
	pthread_t threads[POSTERS];
	struct fake_host h;
	struct sched *s;
	int answered = 0;

	(void)state;
	fake_host_init(&h, NULL);
	fake_put(&h, "models/m/1/model.json", MODEL);
	fake_put(&h, "models/m/1/weights.safetensors", "");
	fake_put(&h, "infer/app/spec.json", SPEC);
	start(&s, &h);
	stop(s, &h);
	for (int i = 0; i < POSTERS * FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "infer/app/in/%03d.png", i);
		inos[i] = fake_put(&h, path, "1");
	}
	/* Stopped in the middle, several times, then left to finish: 50 mini-batches of 5 ms at least. */
	for (int life = 0; life < 5; life++) {
		start(&s, &h);
		if (life == 0)
			for (int i = 0; i < POSTERS; i++) {
				posters[i] = (struct poster){s, i * FILES};
				assert_int_equal(pthread_create(&threads[i], NULL, post_files, &posters[i]),
						 0);
			}
		if (life == 0)
			for (int i = 0; i < POSTERS; i++)
				pthread_join(threads[i], NULL);
		usleep(life < 4 ? 40000 : 1500000);
		stop(s, &h);
		answered = 0;
		for (int i = 0; i < POSTERS * FILES; i++) {
			char path[64];

			snprintf(path, sizeof(path), "infer/app/out/%03d.png.json", i);
			assert_in_range(fake_times(&h, path), 0, 1);
			answered += fake_times(&h, path);
		}
	}
	assert_int_equal(answered, POSTERS * FILES);
	assert_int_equal(fake_count_keys(&h, "p/"), 0);
	assert_int_equal(h.key_faults, 0);
	fake_host_release(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
