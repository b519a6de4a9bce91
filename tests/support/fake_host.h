/*
 * A host for the scheduler without volume, mount or threads: a tree of files and a key space in memory, and
 * publications that take a set time on the loop's fake clock, one after the other. It outlives schedulers:
 * a crash is to drop the scheduler and what is not published yet, and to make another one on the same host.
 *
 *	struct world w;
 *	world_init(&w, MODEL_JSON, SPEC_JSON);		// endpoint infer/app, running
 *	world_put(&w, "b/x.png", "7");			// written and closed
 *	world_deadline(&w, "b", "1s");
 *	world_run(&w, 2000);				// ms
 *	world_status(&w, "b/x.png")			// "ok"
 *	world_release(&w);
 */
#ifndef TESTS_SUPPORT_FAKE_HOST_H
#define TESTS_SUPPORT_FAKE_HOST_H

#include "sched/executor.h"
#include "sched/host.h"
#include "sched/internal.h"
#include "sched/loop.h"
#include "sched/sched.h"
#include "sched/table.h"

#include <stdbool.h>
#include <stdint.h>

struct fake_node;

struct fake_host {
	struct loop *loop;
	struct table nodes; /* by path; "" is not in it */
	struct fake_node **by_ino;
	uint64_t n_inos;
	struct table keys;
	struct list queue; /* publications to come, in order */
	struct loop_timer *timer;
	int64_t publish_ns;       /* that each takes */
	int64_t slow_at, slow_ns; /* the publication number slow_at takes slow_ns; 0: none */
	int64_t n_published;
	int64_t calls_left; /* until the crash; -1: never */
	bool dead;          /* nothing has an effect any more */
	int key_faults;     /* keys put or deleted twice, or deleted and never put */
	int publish_error;  /* the next publications are answered with it; 0: none */
	int commit_error;
	/* Starts a worker: the daemon's end of its socket in *ret_fd. NULL: there are none. */
	int (*spawn)(struct fake_host *h, const char *kind, int *ret_fd);
	bool shares;      /* contents may lie in the archives themselves */
	unsigned n_trees; /* made so far */
	/* What a worker writes into the file of a tree, there from the start; NULL: nothing. */
	const char *packed;
	const char *apart; /* likewise into its second file */
};

extern const struct host_ops fake_host_ops;

void fake_host_init(struct fake_host *h, struct loop *loop);
void fake_host_release(struct fake_host *h);
/* Publications that are not visible yet are lost; works again. */
void fake_host_crash(struct fake_host *h);

/* What is on its way to below dir is answered with -ENOENT. */
void fake_host_refuse(struct fake_host *h, const char *dir);

void fake_mkdir(struct fake_host *h, const char *path);                        /* and what is missing above */
uint64_t fake_put(struct fake_host *h, const char *path, const char *content); /* also over an older one */
void fake_remove(struct fake_host *h, const char *path);                       /* and all below it */
void fake_move(struct fake_host *h, const char *from, const char *to);         /* a directory or a file */
void fake_setxattr(struct fake_host *h, const char *path, const char *name, const char *value);
uint64_t fake_ino(struct fake_host *h, const char *path);
const char *fake_content(struct fake_host *h, const char *path); /* NULL: not there */
const char *fake_xattr(struct fake_host *h, const char *path, const char *name);
int fake_times(struct fake_host *h, const char *path);          /* published as a result so often */
int64_t fake_visible_at(struct fake_host *h, const char *path); /* ns, the first time */
size_t fake_count_keys(struct fake_host *h, const char *prefix);

struct world {
	struct loop *loop;
	struct fake_host host;
	struct sched *s;
	struct sched_options options;
};

void world_init(struct world *w, const char *model_json, const char *spec_json);
void world_init_workers(struct world *w, const char *model_json, const char *spec_json, int workers);
void world_release(struct world *w);
void world_crash(struct world *w);   /* the scheduler is gone */
void world_restart(struct world *w); /* and comes again */
void world_run(struct world *w, int64_t ms);
int64_t world_ms(const struct world *w);

/* Below infer/app/in; with the events that fs would post. */
void world_put(struct world *w, const char *path, const char *content);
void world_open(struct world *w, const char *path, const char *content); /* written, not closed */
void world_close(struct world *w, const char *path);
void world_remove(struct world *w, const char *path);
void world_mkdir(struct world *w, const char *path);
void world_deadline(struct world *w, const char *path, const char *text); /* xattr and event; NULL removes */

/* A batch of n files, 000000 and so on, that is renamed into in/ with its deadline (NULL: none): submitted at once. */
void world_submit(struct world *w, const char *app, const char *name, int n, const char *deadline,
		  const char *content);

double world_task_number(struct world *w, const char *batch, const char *key); /* of its task.json */
const char *world_status(struct world *w, const char *path); /* of out/PATH.json; NULL: no answer */
double world_number(struct world *w, const char *file, const char *key); /* of a JSON below infer/app/; NAN */
const char *world_text(struct world *w, const char *file,
		       const char *key);                    /* likewise; until the next call */
double world_stat(struct world *w, const char *key);        /* of stats.json */
int world_answered_once(struct world *w, const char *path); /* exactly one answer, and xattr says the same */

#endif
