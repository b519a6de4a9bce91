#include "sched/simulate/internal.h"

#include "sched/loop.h"

#include "engine/base/io.h"
#include "engine/base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define OTHER_INO   1
#define FIRST_MODEL 2   /* model.json of endpoint 0 */
#define FIRST_TASK  128 /* beyond all of those */

/* Of instance i (from 1) of a task; 0: its directory. */
static uint64_t ino_of(int task, int i)
{
	return (uint64_t)(FIRST_TASK + task) << 32 | (uint64_t)i;
}

uint64_t sim_host_dir(int task)
{
	return ino_of(task, 0);
}

void sim_host_name(int task, char *ret, size_t size)
{
	snprintf(ret, size, "t%d", task);
}

/* The endpoint of "ROOT/E/REST", *ret_rest then; -1. */
static int endpoint_of(const struct sim_host *h, const char *root, const char *path, const char **ret_rest)
{
	size_t len = strlen(root);
	char *end = NULL;
	long e = strncmp(path, root, len) == 0 ? strtol(path + len, &end, 10) : -1;

	if (e < 0 || e >= h->n_endpoints || end == path + len || (*end && *end != '/'))
		return -1;
	*ret_rest = *end ? end + 1 : end;
	return (int)e;
}

/* The task whose "tK/REST" this is, *ret_rest then; -1. */
static int task_of(const struct sim_host *h, const char *path, const char **ret_rest)
{
	char *end;
	long task = *path == 't' ? strtol(path + 1, &end, 10) : -1;

	if (task < 0 || task >= h->n_tasks || (*end && *end != '/'))
		return -1;
	*ret_rest = *end ? end + 1 : end;
	return (int)task;
}

/* The task of "infer/E/DIR/tK/REST", DIR being "in/" or "out/"; -1. */
static int task_in(const struct sim_host *h, const char *path, const char *dir, const char **ret_rest)
{
	const char *rest;

	if (endpoint_of(h, "infer/", path, &rest) < 0 || strncmp(rest, dir, strlen(dir)) != 0)
		return -1;
	return task_of(h, rest + strlen(dir), ret_rest);
}

static int host_commit(void *host, const struct host_op *ops, size_t n)
{
	(void)host, (void)ops, (void)n;
	return 0;
}

static void host_mark(void *host, uint64_t ino, const char *state)
{
	(void)host, (void)ino, (void)state;
}

static int host_scan(void *host, const void *prefix, size_t prefix_len,
		     int (*fn)(void *data, const void *key, size_t key_len, const void *value,
			       size_t value_len),
		     void *data)
{
	(void)host, (void)prefix, (void)prefix_len, (void)fn, (void)data;
	return 0;
}

struct answer {
	struct sim_host *host;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
	int r;
};

static void answer(void *data)
{
	struct answer *a = data;

	a->done(a->data, a->r, loop_now(a->host->loop));
	free(a);
}

static int host_publish(void *host, const struct host_publication *p)
{
	struct sim_host *h = host;
	const char *rest;
	int task = task_in(h, p->path, "out/", &rest);
	struct answer *a;
	int64_t at;

	if (task >= 0 && strcmp(rest, "task.json") == 0) {
		h->n_reports += !h->report[task].len;
		buf_clear(&h->report[task]);
		buf_add(&h->report[task], p->content, p->len);
	}
	if (!p->done)
		return 0;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	/* As the publisher: it looks at the clock when its turn has come, and then it takes its time. */
	at = h->free_at > loop_now(h->loop) ? h->free_at : loop_now(h->loop);
	*a = (struct answer){h, p->done, p->data, p->due && at > p->due ? -ETIME : 0};
	if ((p->flags & HOST_RESULT) && !a->r)
		at += h->publish;
	h->free_at = at;
	if (loop_timer_at(h->loop, at, answer, a))
		return 0;
	free(a);
	return -ENOMEM;
}

static int host_unpublish(void *host, const char *path)
{
	(void)host, (void)path;
	return 0;
}

static int host_read(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	struct rng rng = rng_init(1, ino);
	char text[16]; /* as the null executor wants it: a label, and how certain it is of that */

	(void)host, (void)max;
	*ret_len = (size_t)snprintf(text, sizeof(text), "0 %.6f", (double)rng_float(&rng));
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static int host_open(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	const struct sim_host *h = host;
	const char *text = ino >= FIRST_MODEL && ino < FIRST_MODEL + (uint64_t)h->n_endpoints
				   ? h->model_json[ino - FIRST_MODEL].data
				   : "";

	*ret_len = strlen(text);
	return io_memfd("simulate", text, strlen(text), ret_fd);
}

static int host_lookup(void *host, const char *path, struct host_entry *ret)
{
	const char *rest;
	int e = endpoint_of(host, "models/", path, &rest), task;

	*ret = (struct host_entry){.path = path, .ino = OTHER_INO};
	if (e >= 0 && strcmp(rest, "1/model.json") == 0)
		ret->ino = FIRST_MODEL + (uint64_t)e;
	else if (e >= 0 && strcmp(rest, "1") == 0)
		ret->is_dir = true;
	else if (e >= 0)
		return strcmp(rest, "1/weights.safetensors") == 0 ? 0 : -ENOENT;
	else if (endpoint_of(host, "infer/", path, &rest) >= 0 && strcmp(rest, "in") == 0)
		ret->is_dir = true;
	else if ((task = task_in(host, path, "in/", &rest)) >= 0 && !*rest)
		*ret = (struct host_entry){.path = path, .ino = sim_host_dir(task), .is_dir = true};
	else
		return -ENOENT;
	return 0;
}

static int host_walk(void *host, const char *path, int (*fn)(void *data, const struct host_entry *e),
		     void *data)
{
	struct sim_host *h = host;
	struct host_entry e = {.path = "1", .ino = OTHER_INO, .is_dir = true};
	const char *rest;
	int task, r = 0;

	if (endpoint_of(h, "models/", path, &rest) >= 0 && !*rest)
		return fn(data, &e);
	task = task_in(h, path, "in/", &rest);
	for (int i = 1; task >= 0 && i <= h->task[task].instances && r == 0; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		e = (struct host_entry){.path = name, .ino = ino_of(task, i), .size = 1};
		r = fn(data, &e);
	}
	return r;
}

static int host_access(void *host, uint64_t ino, struct host_access *ret)
{
	(void)host, (void)ino;
	*ret = (struct host_access){.mode = S_IFREG | 0644};
	return 0;
}

static int host_getxattr(void *host, uint64_t ino, const char *name, char *value, size_t size)
{
	const struct sim_host *h = host;
	int64_t task = (int64_t)(ino >> 32) - FIRST_TASK;

	if (strcmp(name, "user.deadline") != 0 || task < 0 || task >= h->n_tasks ||
	    ino != sim_host_dir((int)task) || h->task[task].deadline == INT64_MAX)
		return -ENODATA;
	return snprintf(value, size, "%.9f", (double)h->task[task].deadline / 1e9);
}

static int host_state_open(void *host, const char *name, int flags, int *ret_fd)
{
	(void)host, (void)name, (void)flags, (void)ret_fd;
	return -ENOENT;
}

static int host_state_remove(void *host, const char *name)
{
	(void)host, (void)name;
	return 0;
}

const struct host_ops sim_host_ops = {
	.commit = host_commit,
	.mark = host_mark,
	.scan = host_scan,
	.publish = host_publish,
	.unpublish = host_unpublish,
	.read = host_read,
	.open = host_open,
	.lookup = host_lookup,
	.walk = host_walk,
	.access = host_access,
	.getxattr = host_getxattr,
	.state_open = host_state_open,
	.state_remove = host_state_remove,
};
