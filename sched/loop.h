/*
 * One thread's event loop: a clock, timers, posted messages and file descriptors. Everything in sched/ that
 * has state belongs to the thread that runs its loop; others only post. A loop on a fake clock runs the same
 * code in tests: loop_fake_advance moves time from timer to timer, so that schedules are exact and take no
 * time.
 */
#ifndef SCHED_LOOP_H
#define SCHED_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

int loop_new(struct loop **ret, bool fake_clock);
void loop_free(struct loop *loop); /* frees what was posted and not run */

int64_t loop_now(const struct loop *loop); /* ns, CLOCK_MONOTONIC or the fake clock; read anew at each call */
int64_t loop_wall(const struct loop *loop); /* ns since 1970; on the fake clock 1769000000 s + now */

/* Owner thread only. fn runs once, at or after `at` (of loop_now); of equal times the one set first runs
 * first. The timer is freed when it fired (after fn; cancelling it within fn does nothing) or was cancelled.
 * NULL: out of memory. */
struct loop_timer *loop_timer_at(struct loop *loop, int64_t at, void (*fn)(void *data), void *data);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer); /* NULL is allowed */

/* Any thread, never from within a signal handler. fn(data) runs on the owner's thread, in order of posting;
 * drop(data) (may be NULL) instead if the loop is freed first. -ENOMEM: neither will be called. */
int loop_post(struct loop *loop, void (*fn)(void *data), void (*drop)(void *data), void *data);

/* Owner thread only; on a fake clock only loop_run polls. fn gets poll(2) revents. -EEXIST, -ENOMEM.
 * Unwatch before close(2); both may happen in any callback, and fn is not called after it. */
int loop_watch(struct loop *loop, int fd, short events, void (*fn)(void *data, short revents), void *data);
void loop_unwatch(struct loop *loop, int fd);

/* Until loop_stop, which may come first: then at once. On a fake clock time jumps to the next timer whenever
 * nothing is posted. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread, signal handlers too; what is posted and not run stays */

/* Fake clock: runs what is posted and due, moving time, until `until`; then now == until. A loop_stop ends it
 * early, with now where it was. */
void loop_fake_advance(struct loop *loop, int64_t until);

#endif
