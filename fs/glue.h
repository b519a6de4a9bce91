/*
 * Private to fs: joins volume, publisher and scheduler. Implements the scheduler's host (sched/host.h).
 *
 *	glue_new(&glue, vol, state_dir, &sched_options, &err);
 *	… mount, start the FUSE loop; its handlers use glue_sched() and glue_publisher() …
 *	glue_start(glue, mountpoint);	// the tree answers now: from another thread than a FUSE one
 *	glue_stop(glue);		// the tree must still answer
 *	… unmount …
 *	glue_free(glue);
 */
#ifndef FS_GLUE_H
#define FS_GLUE_H

#include "fs/publish.h"
#include "fs/volume/volume.h"
#include "sched/sched.h"

struct glue;

int glue_new(struct glue **ret, struct volume *vol, const char *state_dir,
	     const struct sched_options *options, struct err *err);
int glue_start(struct glue *glue, const char *mountpoint);
void glue_stop(struct glue *glue);
void glue_free(struct glue *glue); /* NULL is allowed */

/* Before glue_start: sched_expect. */
int glue_expect(struct glue *glue, const uint64_t *inos, size_t n);

struct sched *glue_sched(struct glue *glue); /* borrowed, there from glue_new on */
struct publisher *glue_publisher(struct glue *glue);
struct exports *glue_exports(struct glue *glue);
int64_t glue_settle_batch_ns(const struct glue *glue); /* the mount's option */ /* likewise */

/* Publishes the text of `err` as the file `path` ("infer/app/error"); err NULL removes it. Any thread, does
 * not block. */
void glue_publish_error(struct glue *glue, const char *path, const struct err *err);

#endif
