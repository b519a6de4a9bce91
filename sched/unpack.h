/*
 * Private to sched: archives that are copied into in/. in/NAME.tar becomes the batch in/NAME (archive.h says what is an archive and
 * what may be in it). Its life, beside that of its file, which is an instance in the state UNPACKING:
 *
 *	WAITING ──a worker is free──▶ READING ──all of it came──▶ PUBLISHING ──visible──▶ a task is queued
 *	    ▲                            │  │                         │
 *	    └──the worker died───────────┘  └──bad, too large ────────┴──in/NAME is there──▶ out/NAME.tar.json says so
 *	any ──its file was removed or is written anew──▶ forgotten
 *
 * 1. What was read is stored and not in the tree. One write batch makes the directory with all its files, the keys of the task and
 *    user.state=unpacked of the archive: before it the archive is read again after a crash, after it never.
 * 2. That batch is a rename through the mount like every other publication, so the directory is seen by inotify.
 * 3. A bad archive is answered by a publication that carries user.state=failed; it is no task.
 *
 * One archive is read at a time, in the order in which they were complete. The task counts as submitted when its archive was
 * complete: unpacking takes time of its deadline.
 */
#ifndef SCHED_UNPACK_H
#define SCHED_UNPACK_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "sched/archive.h"
#include "sched/list.h"
#include "sched/peer.h"
#include "sched/sched.h"
#include "sched/spec.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct instance;

struct archive_job {
	struct list link;
	struct endpoint *ep;   /* counted in its refs */
	struct instance *inst; /* of its file; NULL: that was removed or is written anew */
	uint64_t ino;
	int64_t complete; /* loop_now: when it counts as submitted */
	uint64_t len;
	struct archive_limits limits;
	struct host_tree *tree;
	struct buf entries; /* ino (8 bytes) and path with NUL of each file */
	uint32_t files;
	uint64_t bytes, written; /* written: of them those that are not inside of the archive */
	uint64_t shared;         /* its length, when contents may be inside of it; else 0 */
	unsigned deaths;
	/* From the end of reading on: */
	uint32_t seq;
	struct deadline deadline;
	int source;  /* enum deadline_source */
	size_t stem; /* of the name */
	char name[MAX_NAME];
};

struct unpacker {
	struct list waiting, publishing; /* struct archive_job */
	struct archive_job *reading;     /* by the peer; NULL: the peer, if there is one, is about to go */
	struct peer *peer;
	struct reaper reaper;
	struct loop_timer *patience, *limit;
	bool spare; /* the peer is there before its archive is complete */
	bool hung;
};

void unpack_init(struct sched *s);
void unpack_release(struct sched *s);    /* forgets all; no worker is left */
void unpack_forget(struct endpoint *ep); /* it is removed, or freed */
void unpack_expect(
	struct instance *inst); /* it is written: a worker that is started now is ready when it is complete */
bool unpack_wants(const struct instance *inst); /* it is an archive, and loose */
void unpack_take(struct instance *inst);        /* complete, in the state UNPACKING */
void unpack_cancel(struct instance *inst);      /* its file was removed or is written anew */
/*
 * user.deadline was set on an archive that was unpacked: its batch has it too. False: it is no such file. `path` is relative to
 * in/; text not NULL.
 */
bool unpack_deadline(struct endpoint *ep, const char *path, uint64_t ino, const char *text);

/* --- between unpack.c and unpack_submit.c --- */

void unpack_free(struct archive_job *job); /* out of its list */
/* What is wrong with its name: it can't be a batch's, or there is something of it. */
int unpack_check(const struct archive_job *job, struct err *err);
/* All of it came: publishes it, and queues the task when it is visible. Takes the job. */
void unpack_submit(struct archive_job *job);
/* Answers the archive as failed. Takes the job. */
void unpack_fail(struct archive_job *job, const struct err *err);

#endif
