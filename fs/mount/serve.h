/*
 * Private to fs/mount: the threads that read requests and answer them. Unlike libfuse's own loop this one can be
 * paused without losing a request: one that was read is answered before its thread rests (libfuse cancels its
 * threads, and drops what one of them has just read), and what comes after that waits in the kernel.
 *
 *	server_new(&server, se, &options, ended, data);	// se has its descriptor
 *	server_start(server);
 *	server_pause(server);	// no handler runs: what they serve may change
 *	server_start(server);	// and on it goes
 *	server_free(server);
 *
 * Calls are made by one thread that is not the server's own.
 */
#ifndef FS_MOUNT_SERVE_H
#define FS_MOUNT_SERVE_H

#include "fs/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fuse_session;
struct server;

/* A request as it was read from the kernel. */
struct request {
	struct request *next;
	uint64_t ticket;         /* while it is parked */
	bool again, interrupted; /* it was parked; and then interrupted */
	size_t size;
	char bytes[];
};

/* ended(data), on a thread of the server: the mount is gone, nothing more will come. */
int server_new(struct server **ret, struct fuse_session *se, const struct mount_options *options,
	       void (*ended)(void *data), void *data);
int server_start(struct server *server); /* an error: not even one thread could be made */
/* Returns when every thread rests and no request that was read is without its answer, but those that are held. */
void server_pause(struct server *server);
void server_free(struct server *server); /* pauses first; NULL is allowed */

/*
 * Of the request that this thread serves, in its handler: it is left aside with this ticket until server_again, any thread's, serves all of
 * that ticket again. The handler answers nothing (fuse_reply_none). A request that is interrupted meanwhile is served again, too. -ENOMEM
 */
int server_park(struct server *server, uint64_t ticket);
void server_again(struct server *server, uint64_t ticket);
/* Of the request that this thread serves: it was parked before; whoever made it has got a signal since. */
bool server_is_again(void);
bool server_is_interrupted(void);

/* From now on requests for which hold(data, …) is true are kept rather than served; NULL: none more. Not while it is paused. */
void server_hold(struct server *server, bool (*hold)(void *data, const void *request, size_t size),
		 void *data);
/* Those that were kept, in order, oldest first, and those that are parked; the caller's to free. While it is paused. */
struct request *server_take_held(struct server *server);
/* Requests to serve before others are read, the server's to free. While it is paused. */
void server_give(struct server *server, struct request *requests);
/* The first request of all, FUSE_INIT; borrowed. NULL: it did not come yet. While it is paused. */
const struct request *server_init(const struct server *server);

/* Lets the session see another's FUSE_INIT: its answer is not sent, for the kernel has one. Before the first start. */
int server_replay_init(struct server *server, const struct request *init);
/* A copy; NULL: no memory. */
struct request *request_new(const void *bytes, size_t size);

#endif
