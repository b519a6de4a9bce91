/*
 * Private to fs: the publisher, the one through which everything that inferfs itself writes appears in
 * the tree. A rename that a FUSE daemon makes in its own structures is invisible to inotify and leaves stale
 * dentries in the kernel; so the publisher renames a hidden name *through the mount point*: watchers get
 * MOVED_TO for a whole file, caches are right by themselves. The hidden name is not in the volume: the handlers of
 * LOOKUP and RENAME find behind it what is being published.
 *
 *	publisher_new(&pub, vol);
 *	… the FUSE loop runs …
 *	publisher_start(pub, "/ml");
 *	publisher_put(pub, &(struct publication){ .path = "jobs/a/state", .content = "done\n", .len = 5 });
 *	publisher_stop(pub);	// publishes what is queued; the mount must still answer
 *	publisher_free(pub);
 *
 * The FUSE handlers ask publisher_owns_name (to hide and refuse such names), publisher_is_caller and
 * publisher_moving. They must never wait for the publisher: it waits for them.
 */
#ifndef FS_PUBLISH_H
#define FS_PUBLISH_H

#include "fs/volume/bulk.h"
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

/*
 * The thing at `path` (a job, an endpoint) is being removed: what waits for a place below it ends with -ENOENT, and so does what comes
 * until publisher_reopen, which is called once the scheduler has forgotten the thing: nothing of it appears in a new one of that
 * name. Each close has its reopen. Any thread; -ENOMEM: nothing was closed.
 */
int publisher_close(struct publisher *pub, const char *path);
void publisher_reopen(struct publisher *pub, const char *path);
/* In MKDIR by the publisher: what it is made for goes to a closed place. */
bool publisher_refused(struct publisher *pub);
/* `grew` is called on the publisher's thread each time a HOST_APPEND has ended, and the kernel knows of it, and how many did. Before
 * publisher_start. */
void publisher_on_append(struct publisher *pub, void (*grew)(void *data), void *data);
uint64_t publisher_appended(const struct publisher *pub);

/* True for the hidden names: only the publisher may create, look up or list them. */
bool publisher_owns_name(const char *name);
/* True if a request comes from the publisher's thread (fuse_req_ctx()->pid is a thread's id). */
bool publisher_is_caller(const struct publisher *pub, pid_t tid);
/* The core its thread stays on while there is something to publish; -1: any (fs/mount/attend.h). */
int publisher_core(const struct publisher *pub);
/* It comes to that core, where a client is served, while it has something to publish. Any thread. */
void publisher_come(struct publisher *pub, int core);
/*
 * In LOOKUP and RENAME of a hidden name by the publisher: what is to appear, until publisher_served, which comes before
 * the reply; NULL: no such name. LOOKUP completes it (a number from vol_reserve or its stage, owner, kind, time) and RENAME gives it to
 * publishing_put, or `bulk` to vol_bulk_put, and notes that.
 */
struct publishing {
	struct vol_bulk *bulk; /* a directory with all that is in it (host_publication.tree); NULL: none */
	/* A file with its content, written and synced beforehand (NULL: what.content); the publication's, put or not. */
	struct vol_stage *stage;
	uint64_t owner_ino;        /* of host_publication, as is access */
	struct host_access access; /* mode 0: none */
	struct vol_new what;
	struct vol_put put;
	bool stored;
};
struct publishing *publisher_moving(struct publisher *pub, const char *name);
void publisher_served(struct publisher *pub);
/* Whose it is in a directory with these (of a mode, owner and group), and who may read it. Sets the time. */
void publishing_owned(struct publishing *p, struct volume *vol, const struct host_access *dir);
/* A file or symlink, once it has all. ret_old: as of vol_put. */
int publishing_put(struct publishing *p, struct volume *vol, uint64_t parent, const char *name,
		   struct vol_attr *ret_old);

#endif
