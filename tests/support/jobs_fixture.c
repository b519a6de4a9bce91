#include "tests/support/jobs_fixture.h"

#include <sys/mman.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct shared *shared;

static void on_model(void *data, const char *model, int version)
{
	struct fixture *f = data;
	char path[256];

	f->published++;
	f->version = version;
	snprintf(path, sizeof(path), "models/%s/latest/weights.safetensors", model);
	f->latest_was_there = dirhost_exists(&f->host, "tree", path);
}

static void on_state(void *data, const char *job, const char *state)
{
	struct fixture *f = data;

	buf_addf(&f->states, "%s %s\n", job, state);
}

static const struct jobs_events events = {.model_published = on_model, .state_changed = on_state};

void fixture_start(struct fixture *f)
{
	assert_int_equal(jobs_new(&f->jobs, f->loop, &dirhost_ops, &f->host, &f->options, &events, f), 0);
	assert_int_equal(jobs_start(f->jobs), 0);
}

void fixture_write_dataset(struct fixture *f, const char *name, int files)
{
	char path[128];

	for (int i = 0; i < files; i++) {
		snprintf(path, sizeof(path), "datasets/%s/train/c%d/%d.png", name, i % 2, i);
		dirhost_write(&f->host, path, path, strlen(path));
	}
}

int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			      0);
	memset((void *)shared, 0, sizeof(*shared));
	f->options = (struct sched_options){.settle_batch_ns = 20 * NS_PER_MS, .worker_threads = 1};
	assert_int_equal(loop_new(&f->loop, false), 0);
	dirhost_init(&f->host, f->loop);
	f->host.child = fake_worker;
	fixture_start(f);
	*state = f;
	return 0;
}

int fixture_teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	jobs_free(f->jobs);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
	loop_free(f->loop);
	dirhost_release(&f->host);
	buf_release(&f->states);
	free(f);
	return 0;
}

bool fixture_text_is(struct fixture *f, const char *path, const char *want)
{
	char *text = dirhost_text(&f->host, path);
	bool same = text && strcmp(text, want) == 0;

	free(text);
	return same;
}

bool fixture_text_has(struct fixture *f, const char *path, const char *want)
{
	char *text = dirhost_text(&f->host, path);
	bool has = text && strstr(text, want);

	if (!has)
		print_message("%s: %s\n", path, text ? text : "(none)");
	free(text);
	return has;
}

int fixture_lines(struct fixture *f, const char *path)
{
	char *text = dirhost_text(&f->host, path);
	int n = 0;

	for (char *p = text; p && *p; p++)
		n += *p == '\n';
	free(text);
	return n;
}

static bool never(void *data)
{
	(void)data;
	return false;
}

void fixture_run(struct fixture *f, double seconds)
{
	dirhost_run_until(f->loop, never, f, seconds);
}

void fixture_restart(struct fixture *f)
{
	jobs_stop(f->jobs);
	fixture_run(f, 0.02); /* what was posted points to what is freed now */
	jobs_free(f->jobs);
	fixture_start(f);
}

static bool in_state(void *data)
{
	struct fixture *f = data;
	char path[128], want[32];

	snprintf(path, sizeof(path), "jobs/%s/state", f->job);
	snprintf(want, sizeof(want), "%s\n", f->state);
	return fixture_text_is(f, path, want);
}

bool fixture_reaches(struct fixture *f, const char *job, const char *state)
{
	f->job = job;
	f->state = state;
	return dirhost_run_until(f->loop, in_state, f, 20);
}

void fixture_spec(struct fixture *f, const char *job, const char *json)
{
	char path[128];

	snprintf(path, sizeof(path), "jobs/%s/spec.json", job);
	dirhost_write(&f->host, path, json, strlen(json));
	jobs_spec(f->jobs, job, json, strlen(json));
}
