/* The event loop: order, fake time, cancelling and unwatching from within callbacks, no lost wake-ups. */
#include "sched/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char trace[4096];

static void note(const char *what)
{
	size_t len = strlen(trace);

	snprintf(trace + len, sizeof(trace) - len, "%s@%lld ", what, (long long)loop_now(loop));
}

static void note_fn(void *data)
{
	note(data);
}

static int setup_fake(void **state)
{
	(void)state;
	trace[0] = '\0';
	return loop_new(&loop, true);
}

static int setup_real(void **state)
{
	(void)state;
	trace[0] = '\0';
	return loop_new(&loop, false);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void test_timer_order(void **state)
{
	(void)state;
	loop_timer_at(loop, 30, note_fn, "c");
	loop_timer_at(loop, 10, note_fn, "a");
	loop_timer_at(loop, 30, note_fn, "d");
	loop_timer_at(loop, 20, note_fn, "b");
	loop_timer_at(loop, 100, note_fn, "later");
	assert_int_equal(loop_wall(loop), INT64_C(1769000000) * NS_PER_S);
	loop_fake_advance(loop, 50);
	assert_string_equal(trace, "a@10 b@20 c@30 d@30 ");
	assert_int_equal(loop_now(loop), 50);
	assert_int_equal(loop_wall(loop), INT64_C(1769000000) * NS_PER_S + 50);
	loop_fake_advance(loop, 99);
	assert_string_equal(trace, "a@10 b@20 c@30 d@30 ");
	/* A time that is past runs at once, and time does not go back. */
	loop_timer_at(loop, 5, note_fn, "past");
	loop_fake_advance(loop, 100);
	assert_string_equal(trace, "a@10 b@20 c@30 d@30 past@99 later@100 ");
}

static void chain(void *data)
{
	int *left = data;

	note("t");
	if (--*left) {
		loop_timer_at(loop, loop_now(loop) + 7, chain, left);
		loop_post(loop, note_fn, NULL, "p");
	}
}

static void test_timers_set_timers_and_posts_run_between(void **state)
{
	int left = 3;

	(void)state;
	loop_post(loop, note_fn, NULL, "first");
	loop_post(loop, note_fn, NULL, "second");
	loop_timer_at(loop, 1, chain, &left);
	loop_fake_advance(loop, 1000);
	assert_string_equal(trace, "first@0 second@0 t@1 p@1 t@8 p@8 t@15 ");
}

static struct loop_timer *mine, *other;

static void cancel_both(void *data)
{
	(void)data;
	note("cancels");
	loop_timer_cancel(loop, other);
	loop_timer_cancel(loop, mine); /* the one that runs: nothing */
	loop_timer_cancel(loop, NULL);
}

static void test_cancel_within(void **state)
{
	(void)state;
	mine = loop_timer_at(loop, 10, cancel_both, NULL);
	other = loop_timer_at(loop, 10, note_fn, "cancelled");
	loop_timer_at(loop, 10, note_fn, "kept");
	loop_fake_advance(loop, 20);
	assert_string_equal(trace, "cancels@10 kept@10 ");
}

struct entry {
	struct loop_timer *timer;
	int64_t at;
	int fired;
	bool cancelled;
};
static struct entry entries[3000];
static int64_t last_at;
static unsigned short seed[3];

static void fired(void *data)
{
	struct entry *e = data;
	size_t i;

	assert_false(e->cancelled);
	assert_int_equal(e->fired++, 0);
	assert_int_equal(loop_now(loop), e->at);
	assert_true(e->at >= last_at);
	last_at = e->at;
	/* Each takes another one away, if it is still there. */
	i = nrand48(seed) % (sizeof(entries) / sizeof(entries[0]));
	if (!entries[i].fired && !entries[i].cancelled) {
		entries[i].cancelled = true;
		loop_timer_cancel(loop, entries[i].timer);
	}
}

static void test_heap_random(void **state)
{
	size_t n = sizeof(entries) / sizeof(entries[0]);

	(void)state;
	memset(entries, 0, sizeof(entries));
	last_at = 0;
	seed[0] = 7;
	for (size_t i = 0; i < n; i++) {
		entries[i].at = 1 + nrand48(seed) % 5000;
		entries[i].timer = loop_timer_at(loop, entries[i].at, fired, &entries[i]);
		assert_non_null(entries[i].timer);
		if (i % 3 == 0) {
			size_t k = nrand48(seed) % (i + 1);

			if (!entries[k].cancelled) {
				loop_timer_cancel(loop, entries[k].timer);
				entries[k].cancelled = true;
			}
		}
	}
	loop_fake_advance(loop, 6000);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(entries[i].fired, !entries[i].cancelled);
}

static int dropped;

static void drop(void *data)
{
	(void)data;
	dropped++;
}

static void test_free_drops(void **state)
{
	struct loop *l;

	(void)state;
	dropped = 0;
	assert_int_equal(loop_new(&l, false), 0);
	loop_post(l, note_fn, drop, "never");
	loop_post(l, note_fn, NULL, "never");
	loop_post(l, note_fn, drop, "never");
	assert_non_null(loop_timer_at(l, 0, note_fn, "never"));
	loop_free(l);
	loop_free(NULL);
	assert_int_equal(dropped, 2);
	assert_string_equal(trace, "");
}

static void stop_fn(void *data)
{
	loop_stop(data);
}

static void test_fake_run_jumps(void **state)
{
	(void)state;
	loop_timer_at(loop, 5 * NS_PER_S, note_fn, "a");
	loop_timer_at(loop, 3600 * NS_PER_S, stop_fn, loop);
	loop_run(loop);
	assert_string_equal(trace, "a@5000000000 ");
	assert_int_equal(loop_now(loop), 3600 * NS_PER_S);
}

static void test_real_timer(void **state)
{
	int64_t start = loop_now(loop), took;

	(void)state;
	loop_timer_at(loop, start + 20 * NS_PER_MS, stop_fn, loop);
	loop_timer_cancel(loop, loop_timer_at(loop, start, note_fn, "never"));
	loop_run(loop);
	took = loop_now(loop) - start;
	assert_true(took >= 20 * NS_PER_MS);
	assert_true(took < 10 * NS_PER_S);
	assert_string_equal(trace, "");
}

static void test_stop_before_run(void **state)
{
	(void)state;
	loop_stop(loop);
	loop_run(loop); /* would never end */
	/* What is posted before a stop and not reached runs the next time. */
	loop_post(loop, stop_fn, NULL, loop);
	loop_post(loop, note_fn, NULL, "x");
	loop_run(loop);
	assert_string_equal(trace, "");
	loop_post(loop, stop_fn, NULL, loop);
	loop_run(loop);
	assert_int_equal(strncmp(trace, "x@", 2), 0);
}

/* Messages that post themselves without end starve neither timers nor descriptors. */
static int repeats, pipe_fds[2];

static void repeat(void *data)
{
	repeats++;
	loop_post(loop, repeat, NULL, data);
}

static void readable(void *data, short revents)
{
	char c;

	(void)data;
	assert_true(revents & POLLIN);
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	loop_stop(loop);
}

static void write_pipe(void *data)
{
	(void)data;
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
}

static void test_fairness(void **state)
{
	(void)state;
	repeats = 0;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(loop_watch(loop, pipe_fds[0], POLLIN, readable, NULL), 0);
	assert_int_equal(loop_watch(loop, pipe_fds[0], POLLIN, readable, NULL), -EEXIST);
	loop_timer_at(loop, loop_now(loop) + NS_PER_MS, write_pipe, NULL);
	loop_post(loop, repeat, NULL, NULL);
	loop_run(loop);
	assert_true(repeats > 1);
	loop_unwatch(loop, pipe_fds[0]);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* Of two ready descriptors the first callback unwatches and closes both and watches new ones of the same
 * numbers; the old callbacks are not called again, the new ones are. */
static int pairs[20][2], old_calls, new_calls;

static void new_ready(void *data, short revents)
{
	(void)data;
	(void)revents;
	if (++new_calls == 20)
		loop_stop(loop);
	loop_unwatch(loop, *(int *)data);
}

static void old_ready(void *data, short revents)
{
	(void)data;
	(void)revents;
	old_calls++;
	for (int i = 0; i < 20; i++) {
		int fds[2];

		loop_unwatch(loop, pairs[i][0]);
		close(pairs[i][0]);
		close(pairs[i][1]);
		assert_int_equal(pipe(fds), 0);
		assert_int_equal(write(fds[1], "x", 1), 1);
		pairs[i][0] = fds[0];
		pairs[i][1] = fds[1];
		assert_int_equal(loop_watch(loop, pairs[i][0], POLLIN, new_ready, pairs[i]), 0);
	}
}

static void test_unwatch_within(void **state)
{
	(void)state;
	old_calls = new_calls = 0;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(pipe(pairs[i]), 0);
		assert_int_equal(write(pairs[i][1], "x", 1), 1);
		assert_int_equal(loop_watch(loop, pairs[i][0], POLLIN, old_ready, NULL), 0);
	}
	loop_run(loop);
	assert_int_equal(old_calls, 1);
	assert_int_equal(new_calls, 20);
	for (int i = 0; i < 20; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
}

/* Four threads post 50,000 messages each; a lost one would hang the run, a swapped one breaks the order. */
#define POSTERS 4
#define POSTS   50000
struct poster {
	pthread_t thread;
	int next, expected;
};
static int finished;

static void count(void *data)
{
	struct poster *p = data;

	assert_int_equal(p->next++, p->expected++);
	if (p->next == POSTS && ++finished == POSTERS)
		loop_stop(loop);
}

static void *post_all(void *data)
{
	for (int i = 0; i < POSTS; i++) {
		if (loop_post(loop, count, NULL, data) < 0)
			abort();
		if (i % 997 == 0)
			usleep(50);
	}
	return NULL;
}

static void test_post_threads(void **state)
{
	struct poster posters[POSTERS] = {0};

	(void)state;
	finished = 0;
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
	loop_run(loop);
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(posters[i].thread, NULL);
		assert_int_equal(posters[i].next, POSTS);
	}
}

/* One message at a time, answered by another thread: every sleep must be ended by exactly one post. */
#define ROUNDS 20000
static struct loop *there;
static int rounds;

static void pong(void *data);

static void ping(void *data)
{
	if (++rounds == ROUNDS) {
		loop_stop(there);
		loop_stop(loop);
		return;
	}
	loop_post(there, pong, NULL, data);
}

static void pong(void *data)
{
	loop_post(loop, ping, NULL, data);
}

static void *run_there(void *data)
{
	loop_run(data);
	return NULL;
}

static void test_ping_pong(void **state)
{
	pthread_t thread;

	(void)state;
	rounds = 0;
	assert_int_equal(loop_new(&there, false), 0);
	assert_int_equal(pthread_create(&thread, NULL, run_there, there), 0);
	loop_post(loop, ping, NULL, NULL);
	loop_run(loop);
	pthread_join(thread, NULL);
	loop_free(there);
	assert_int_equal(rounds, ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_timer_order, setup_fake, teardown),
		cmocka_unit_test_setup_teardown(test_timers_set_timers_and_posts_run_between, setup_fake,
						teardown),
		cmocka_unit_test_setup_teardown(test_cancel_within, setup_fake, teardown),
		cmocka_unit_test_setup_teardown(test_heap_random, setup_fake, teardown),
		cmocka_unit_test_setup_teardown(test_free_drops, setup_fake, teardown),
		cmocka_unit_test_setup_teardown(test_fake_run_jumps, setup_fake, teardown),
		cmocka_unit_test_setup_teardown(test_real_timer, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_stop_before_run, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_fairness, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_unwatch_within, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_post_threads, setup_real, teardown),
		cmocka_unit_test_setup_teardown(test_ping_pong, setup_real, teardown),
	};

	alarm(120); /* a lost wake-up is a failure, not a hang */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
