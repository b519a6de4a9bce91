/*
 * Timers are a binary heap ordered by (time, number), so that equal times fire in the order in which they
 * were set. Posted messages are a list under one mutex; the owner takes them one by one, so that a message
 * may post, stop the loop or free what a later one would use, and each round takes only those that were there
 * when it began, so that messages that post each other starve neither timers nor descriptors.
 *
 * No wake-up is lost: the owner sets `asleep` and looks at the list in one critical section before it
 * polls; who posts appends and reads `asleep` in one too, and writes the eventfd when it was set. Hence
 * either the owner saw the message or the poster saw the sleeper. The eventfd keeps its count until it is
 * read, so a write between that section and ppoll ends the poll at once. loop_stop always writes it.
 */
#include "sched/loop.h"

#include "engine/base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define FAKE_EPOCH (INT64_C(1769000000) * NS_PER_S) /* loop.h promises it */

struct loop_timer {
	int64_t at;
	uint64_t number;
	size_t index; /* in heap[]; FIRING while fn runs */
	void (*fn)(void *data);
	void *data;
};
#define FIRING SIZE_MAX

struct message {
	struct message *next;
	void (*fn)(void *data);
	void (*drop)(void *data);
	void *data;
};

struct watch {
	int fd; /* -1: unwatched during a round, removed before the next */
	short events;
	void (*fn)(void *data, short revents);
	void *data;
};

struct loop {
	bool fake;
	int64_t fake_now; /* written by the owner, read by any thread: atomic */
	bool stop;        /* atomic */
	int wake_fd;

	/* Owner thread only. */
	struct loop_timer **heap;
	size_t n_timers, timers_size;
	uint64_t timer_number;
	struct watch *watches;
	struct pollfd *polls; /* (watches_size + 1), [0] is wake_fd */
	size_t n_watches, watches_size;

	pthread_mutex_t lock;          /* a leaf: nothing is called or locked while it is held */
	struct message *first, **last; /* under lock */
	size_t n_messages;             /* under lock */
	bool asleep;                   /* under lock */
};

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int loop_new(struct loop **ret, bool fake_clock)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->polls = calloc(1, sizeof(*loop->polls));
	if (!loop->polls) {
		free(loop);
		return -ENOMEM;
	}
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		int r = -errno;

		free(loop->polls);
		free(loop);
		return r;
	}
	loop->fake = fake_clock;
	loop->last = &loop->first;
	pthread_mutex_init(&loop->lock, NULL);
	*ret = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	struct message *m;

	if (!loop)
		return;
	/* drop() may post once more. */
	while ((m = loop->first)) {
		loop->first = m->next;
		if (!loop->first)
			loop->last = &loop->first;
		if (m->drop)
			m->drop(m->data);
		free(m);
	}
	for (size_t i = 0; i < loop->n_timers; i++)
		free(loop->heap[i]);
	free(loop->heap);
	free(loop->watches);
	free(loop->polls);
	close(loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

int64_t loop_now(const struct loop *loop)
{
	return loop->fake ? __atomic_load_n(&loop->fake_now, __ATOMIC_RELAXED) : clock_ns(CLOCK_MONOTONIC);
}

int64_t loop_wall(const struct loop *loop)
{
	return loop->fake ? FAKE_EPOCH + loop_now(loop) : clock_ns(CLOCK_REALTIME);
}

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->at != b->at ? a->at < b->at : a->number < b->number;
}

static void heap_put(struct loop *loop, size_t i, struct loop_timer *t)
{
	loop->heap[i] = t;
	t->index = i;
}

/* Puts t where it belongs, given that position i is free and the rest is a heap. */
static void heap_place(struct loop *loop, size_t i, struct loop_timer *t)
{
	size_t child;

	while (i && before(t, loop->heap[(i - 1) / 2])) {
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	while ((child = 2 * i + 1) < loop->n_timers) {
		if (child + 1 < loop->n_timers && before(loop->heap[child + 1], loop->heap[child]))
			child++;
		if (!before(loop->heap[child], t))
			break;
		heap_put(loop, i, loop->heap[child]);
		i = child;
	}
	heap_put(loop, i, t);
}

static void heap_remove(struct loop *loop, struct loop_timer *t)
{
	struct loop_timer *end = loop->heap[--loop->n_timers];

	if (end != t)
		heap_place(loop, t->index, end);
}

struct loop_timer *loop_timer_at(struct loop *loop, int64_t at, void (*fn)(void *data), void *data)
{
	struct loop_timer *t;

	if (loop->n_timers == loop->timers_size) {
		size_t size = loop->timers_size ? 2 * loop->timers_size : 16;
		struct loop_timer **heap = reallocarray(loop->heap, size, sizeof(*heap));

		if (!heap)
			return NULL;
		loop->heap = heap;
		loop->timers_size = size;
	}
	t = malloc(sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct loop_timer){.at = at, .number = loop->timer_number++, .fn = fn, .data = data};
	loop->n_timers++;
	heap_place(loop, loop->n_timers - 1, t);
	return t;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
	if (!timer || timer->index == FIRING)
		return;
	heap_remove(loop, timer);
	free(timer);
}

static void fire(struct loop *loop, struct loop_timer *t)
{
	heap_remove(loop, t);
	t->index = FIRING;
	t->fn(t->data);
	free(t);
}

static void wake(struct loop *loop)
{
	uint64_t one = 1;

	/* Fails only when the count is full, and then the sleeper is woken anyway. */
	while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int loop_post(struct loop *loop, void (*fn)(void *data), void (*drop)(void *data), void *data)
{
	struct message *m = malloc(sizeof(*m));
	bool asleep;

	if (!m)
		return -ENOMEM;
	*m = (struct message){.fn = fn, .drop = drop, .data = data};
	pthread_mutex_lock(&loop->lock);
	*loop->last = m;
	loop->last = &m->next;
	loop->n_messages++;
	asleep = loop->asleep;
	loop->asleep = false;
	pthread_mutex_unlock(&loop->lock);
	if (asleep)
		wake(loop);
	return 0;
}

static bool stopped(struct loop *loop)
{
	return __atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE);
}

/* Runs what was posted before the call. */
static void run_messages(struct loop *loop)
{
	struct message *m;
	size_t n;

	pthread_mutex_lock(&loop->lock);
	n = loop->n_messages;
	pthread_mutex_unlock(&loop->lock);
	for (; n && !stopped(loop); n--) {
		pthread_mutex_lock(&loop->lock);
		m = loop->first;
		loop->first = m->next;
		if (!loop->first)
			loop->last = &loop->first;
		loop->n_messages--;
		pthread_mutex_unlock(&loop->lock);
		m->fn(m->data);
		free(m);
	}
}

static bool has_messages(struct loop *loop)
{
	bool any;

	pthread_mutex_lock(&loop->lock);
	any = loop->n_messages > 0;
	pthread_mutex_unlock(&loop->lock);
	return any;
}

/* Fires what was set before the call and is due by then. */
static void run_timers(struct loop *loop)
{
	int64_t now = loop_now(loop);
	uint64_t number = loop->timer_number;

	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): fire() took the last top out of the heap. */
	while (loop->n_timers && loop->heap[0]->at <= now && loop->heap[0]->number < number && !stopped(loop))
		fire(loop, loop->heap[0]);
}

int loop_watch(struct loop *loop, int fd, short events, void (*fn)(void *data, short revents), void *data)
{
	for (size_t i = 0; i < loop->n_watches; i++)
		if (loop->watches[i].fd == fd)
			return -EEXIST;
	if (loop->n_watches == loop->watches_size) {
		size_t size = loop->watches_size ? 2 * loop->watches_size : 8;
		struct watch *watches = reallocarray(loop->watches, size, sizeof(*watches));
		struct pollfd *polls;

		if (!watches)
			return -ENOMEM;
		loop->watches = watches;
		polls = reallocarray(loop->polls, size + 1, sizeof(*polls));
		if (!polls)
			return -ENOMEM;
		loop->polls = polls;
		loop->watches_size = size;
	}
	loop->watches[loop->n_watches++] = (struct watch){.fd = fd, .events = events, .fn = fn, .data = data};
	return 0;
}

void loop_unwatch(struct loop *loop, int fd)
{
	for (size_t i = 0; i < loop->n_watches; i++)
		if (loop->watches[i].fd == fd)
			loop->watches[i].fd = -1;
}

/* Sleeps until something happens, at most until the next timer, and calls what was watched. */
static void poll_once(struct loop *loop)
{
	struct timespec ts = {0}, *timeout = NULL;
	uint64_t count;
	size_t n = 0;
	bool busy;

	for (size_t i = 0; i < loop->n_watches; i++)
		if (loop->watches[i].fd >= 0)
			loop->watches[n++] = loop->watches[i];
	loop->n_watches = n;
	loop->polls[0] = (struct pollfd){.fd = loop->wake_fd, .events = POLLIN};
	for (size_t i = 0; i < n; i++)
		loop->polls[i + 1] =
			(struct pollfd){.fd = loop->watches[i].fd, .events = loop->watches[i].events};
	if (loop->n_timers) {
		int64_t at = loop->heap[0]->at, now = loop_now(loop), wait = at > now ? at - now : 0;

		if (!loop->fake)
			ts = (struct timespec){.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
		timeout = &ts;
	}

	pthread_mutex_lock(&loop->lock);
	busy = loop->n_messages > 0;
	loop->asleep = !busy;
	pthread_mutex_unlock(&loop->lock);
	if (busy || stopped(loop)) {
		ts = (struct timespec){0};
		timeout = &ts;
	}
	if (ppoll(loop->polls, n + 1, timeout, NULL) < 0) {
		if (errno != EINTR)
			log_error("the event loop can't poll: %s", strerror(errno));
		n = 0;
		loop->polls[0].revents = 0;
	}
	pthread_mutex_lock(&loop->lock);
	loop->asleep = false;
	pthread_mutex_unlock(&loop->lock);

	if (loop->polls[0].revents)
		while (read(loop->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
			;
	/* A callback may watch more (both arrays move) and unwatch any. */
	for (size_t i = 0; i < n && !stopped(loop); i++) {
		struct watch w = loop->watches[i];

		if (w.fd >= 0 && loop->polls[i + 1].revents)
			w.fn(w.data, loop->polls[i + 1].revents);
	}
}

void loop_run(struct loop *loop)
{
	while (!stopped(loop)) {
		run_messages(loop);
		run_timers(loop);
		if (stopped(loop))
			break;
		poll_once(loop);
		if (loop->fake && !has_messages(loop) && loop->n_timers && loop->heap[0]->at > loop->fake_now)
			__atomic_store_n(&loop->fake_now, loop->heap[0]->at, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&loop->stop, false, __ATOMIC_RELEASE);
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	wake(loop);
}

void loop_fake_advance(struct loop *loop, int64_t until)
{
	while (!stopped(loop)) {
		if (has_messages(loop)) {
			run_messages(loop);
			continue;
		}
		if (!loop->n_timers || loop->heap[0]->at > until)
			break;
		if (loop->heap[0]->at > loop->fake_now)
			__atomic_store_n(&loop->fake_now, loop->heap[0]->at, __ATOMIC_RELAXED);
		fire(loop, loop->heap[0]);
	}
	if (!stopped(loop) && until > loop->fake_now)
		__atomic_store_n(&loop->fake_now, until, __ATOMIC_RELAXED);
	__atomic_store_n(&loop->stop, false, __ATOMIC_RELEASE);
}
