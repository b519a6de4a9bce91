/*
 * Private to sched: what survives a crash. The scheduler's keys (numbers are 10 digits, so that they sort):
 *
 *	n/APP/SEQ	 the last task number that was given; the next submission replaces it
 *	t/APP/SEQ	 a task, from its submission until its task.json is out
 *	p/APP/SEQ/NO	 the instances NO, NO + 1 …: inode number and path of each, NUL after each; goes with task.json. Without a
 *			 t/APP/SEQ it is of a draft, and says nothing after a crash: what is complete is found in the tree
 *	r/APP/SEQ/NO[l]	 what became of one, put in the write batch that publishes its answer: its row of results.csv
 *			 ("l": renewed as late), or that it moved to another task; goes with task.json
 *	x/APP/SEQ/NO	 a picture that is to be made; goes when it is published
 *
 * Every key is put once and deleted once. A task number is never used again, also not when the endpoint was
 * removed and made anew.
 */
#ifndef SCHED_STORE_H
#define SCHED_STORE_H

#include "engine/base/buf.h"
#include "sched/host.h"

struct sched;
struct endpoint;
struct task;
struct instance;

/* Host ops and the bytes they point to, growing. */
struct opset {
	struct host_op *ops; /* key and value are offsets into bytes until opset_ops */
	size_t n, size;
	struct buf bytes;
};
#define OPSET_INIT ((struct opset){0})
void opset_release(struct opset *set);
void opset_add(struct opset *set, enum host_op_type type, uint64_t ino, const char *key, const void *value,
	       size_t value_len);
/* The ops, borrowed until the next change; NULL when memory ran out (then nothing must be written). */
const struct host_op *opset_ops(struct opset *set);
/* Commits and clears; an empty set is nothing to do. */
int opset_commit(struct opset *set, struct sched *s);

#define KEY_SIZE 320
/* A row's value is "GAIN STATUS[ MODE UID GID]\nROW"; mode (octal), user and group are the instance's. */
#define STATUS_MOVED "moved"
#define ROW_MOVED    "0 " STATUS_MOVED "\n"
enum key_kind { KEY_NUMBER = 'n', KEY_TASK = 't', KEY_INSTANCES = 'p', KEY_ROW = 'r', KEY_PICTURE = 'x' };
/* "t/APP/0000000017"; with no ≥ 0 also "/0000000003"; suffix may be "". */
void key_format(char key[KEY_SIZE], enum key_kind kind, const char *app, uint32_t seq, int64_t no,
		const char *suffix);

/* The last task number that was given to an endpoint of this name; 0: none. */
uint32_t store_last_number(struct sched *s, const char *app);
/* Instances of one KEY_INSTANCES; chosen: some 10 KB. */
#define STORE_TOGETHER 256
/* The next task number, for a task whose records come later (store_add_task). */
int store_take_number(struct endpoint *ep, uint32_t *ret);
struct deadline;
void store_add_task(struct opset *set, const char *app, uint32_t seq, int64_t submitted_wall, int source,
		    const struct deadline *deadline, const char *batch);
/* A new task with all instances of its queue (and those of its pages, which have records). They are marked "queued", but from
 * place `kept` on for good, not in memory. */
int store_submit(struct task *task, size_t kept);
/* The queue of a task that is not submitted yet: all as from `kept` on. */
int store_gather(struct task *task);
/* One of these is no part of that task any more. */
int store_withdraw(struct task *task, uint32_t no);
/* Those of its queue from number `first` on are "queued" for good. */
int store_mark(struct task *task, uint32_t first);
/* The next instance of a record; false: there is none. *ret_path NULL: it says nothing usable. Borrowed from the record. */
bool store_next_instance(const char **at, const char *end, uint64_t *ret_ino, const char **ret_path);
/* An instance moves from one submitted task to a new one. */
int store_split(struct task *from, uint32_t old_no, struct task *to, struct instance *inst);
/* All keys of a task that has ended, or of a draft. */
void store_end(struct opset *set, const struct task *task);
/* The task's own: the others say nothing from then on. */
void store_end_task(struct opset *set, const struct task *task);

/* Reads all keys and makes the tasks, queued instances and pictures they tell of; then walks infer/ for
 * instances without an answer. */
int store_recover(struct sched *s);
/* Deletes all keys of an endpoint that was removed, but its number. */
int store_forget(struct sched *s, const char *app);

#endif
