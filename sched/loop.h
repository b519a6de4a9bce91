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

/* Owner thread only. fn runs once, at or after `at` (of loop_now). The timer is freed when it fired or was
 * cancelled. */
struct loop_timer *loop_timer_at(struct loop *loop, int64_t at, void (*fn)(void *data), void *data);
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer); /* NULL is allowed */

/* Any thread. fn(data) runs on the owner's thread, in order of posting; drop(data) instead if the loop is
 * freed first. */
int loop_post(struct loop *loop, void (*fn)(void *data), void (*drop)(void *data), void *data);

/* Owner thread only; not on a fake clock. fn gets poll(2) revents. */
int loop_watch(struct loop *loop, int fd, short events, void (*fn)(void *data, short revents), void *data);
void loop_unwatch(struct loop *loop, int fd);

void loop_run(struct loop *loop);  /* until loop_stop */
void loop_stop(struct loop *loop); /* any thread */

/* Fake clock: runs what is posted and due, moving time, until `until`; then now == until. */
void loop_fake_advance(struct loop *loop, int64_t until);

#endif
