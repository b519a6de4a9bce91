/*
 * Private to fs: the publisher, the one thread through which everything that inferfs itself writes appears in
 * the tree. A rename that a FUSE daemon makes in its own structures is invisible to inotify and leaves stale
 * dentries in the kernel; so the publisher makes the whole file inside the volume under a hidden name and
 * then renames it *through the mount point*: watchers get MOVED_TO for a whole file, caches are right by
 * themselves.
 *
 *	publisher_new(&pub, vol);
 *	… the FUSE loop runs …
 *	publisher_start(pub, "/ml");
 *	publisher_put(pub, &(struct publication){ .path = "jobs/a/state", .content = "done\n", .len = 5 });
 *	publisher_stop(pub);	// publishes what is queued; the mount must still answer
 *	publisher_free(pub);
 *
 * The FUSE handlers ask publisher_owns_name (to hide and refuse such names), publisher_is_caller and, in
 * RENAME, publisher_ops. They must never wait for the publisher: it waits for them.
 */
#ifndef FS_PUBLISH_H
#define FS_PUBLISH_H

#include "fs/volume/volume.h"
#include "sched/host.h"

#include <stdbool.h>
#include <sys/types.h>

struct publisher;

enum publication_type { PUBLISH_FILE, PUBLISH_SYMLINK, PUBLISH_REMOVE };

struct publication {
	enum publication_type type;
	/* As in sched/host.h, but that `done` is called on the publisher's thread. Of a PUBLISH_SYMLINK, content is the
	 * target; of a PUBLISH_REMOVE only the path counts. */
	struct host_publication file;
};

int publisher_new(struct publisher **ret, struct volume *vol);
/* From here on publications go through the mount; those queued before wait for it. mountpoint is copied. */
int publisher_start(struct publisher *pub, const char *mountpoint);
void publisher_stop(struct publisher *pub);
/* NULL is allowed; calls done(-ECANCELED) for what is still queued */
void publisher_free(struct publisher *pub);

/* Any thread; copies everything; never blocks on the tree. -ENOMEM, or -ESHUTDOWN after publisher_stop. */
int publisher_put(struct publisher *pub, const struct publication *p);

/* True for the hidden names: only the publisher may create, look up or list them. */
bool publisher_owns_name(const char *name);
/* True if a request comes from the publisher's thread (fuse_req_ctx()->pid is a thread's id). */
bool publisher_is_caller(const struct publisher *pub, pid_t tid);
/*
 * In RENAME of a hidden name by the publisher: the ops that join its write batch, borrowed until the reply.
 */
void publisher_ops(const struct publisher *pub, const char *name, const struct host_op **ret, size_t *ret_n);

#endif
