#include "fs/outside.h"

#include "engine/base/log.h"

#include <errno.h>
#include <linux/close_range.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *outside_thread(void *arg)
{
	struct outside *out = arg;

	/* Standard error stays, for the log. */
	if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		log_warn("close_range: %s: kill -9 may leave a dead mount", strerror(errno));
	pthread_mutex_lock(&out->lock);
	out->tid = (pid_t)syscall(SYS_gettid);
	out->ready = true;
	pthread_cond_broadcast(&out->wake);
	while (!out->stopping) {
		if (out->fn) {
			int (*fn)(void *data) = out->fn;
			int r;

			pthread_mutex_unlock(&out->lock);
			r = fn(out->data);
			pthread_mutex_lock(&out->lock);
			out->fn = NULL;
			out->r = r;
			out->done = true;
			pthread_cond_broadcast(&out->wake);
			continue;
		}
		pthread_cond_wait(&out->wake, &out->lock);
	}
	pthread_mutex_unlock(&out->lock);
	return NULL;
}

int outside_start(struct outside *out)
{
	int r;

	*out = (struct outside){0};
	pthread_mutex_init(&out->lock, NULL);
	pthread_cond_init(&out->wake, NULL);
	r = -pthread_create(&out->thread, NULL, outside_thread, out);
	if (r < 0) {
		pthread_mutex_destroy(&out->lock);
		pthread_cond_destroy(&out->wake);
		return r;
	}
	pthread_mutex_lock(&out->lock);
	while (!out->ready)
		pthread_cond_wait(&out->wake, &out->lock);
	pthread_mutex_unlock(&out->lock);
	return 0;
}

void outside_stop(struct outside *out)
{
	pthread_mutex_lock(&out->lock);
	out->stopping = true;
	pthread_cond_broadcast(&out->wake);
	pthread_mutex_unlock(&out->lock);
	pthread_join(out->thread, NULL);
	pthread_mutex_destroy(&out->lock);
	pthread_cond_destroy(&out->wake);
}

int outside_call(struct outside *out, int (*fn)(void *data), void *data)
{
	int r;

	pthread_mutex_lock(&out->lock);
	out->fn = fn;
	out->data = data;
	out->done = false;
	pthread_cond_broadcast(&out->wake);
	while (!out->done)
		pthread_cond_wait(&out->wake, &out->lock);
	r = out->r;
	pthread_mutex_unlock(&out->lock);
	return r;
}
