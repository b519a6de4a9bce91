/*
 * Private to sched: one worker process on the loop, seen from the daemon: its socket, what waits to be
 * sent, its pid. Owner thread only. The worker is not trusted: what it sends is decoded by wire.c, and any
 * other thing than a message ends it.
 *
 *	peer_new(&peer, loop, ops, host, "train", &events, data);
 *	peer_send(peer, &message);		// descriptors are duplicated if it has to wait
 *	…
 *	peer_free(peer, &reaper);		// kills it if it still lives; its pid goes to the reaper
 */
#ifndef SCHED_PEER_H
#define SCHED_PEER_H

#include "sched/host.h"
#include "sched/wire.h"

struct loop;
struct loop_timer;
struct peer;

/*
 * Waits for killed children, each by its own pid, so that nobody else's child is taken: at once, then by
 * timer.
 */
struct reaper {
	struct loop *loop;
	struct loop_timer *timer;
	int *pids;
	size_t n, size;
};
void reaper_init(struct reaper *reaper, struct loop *loop);
void reaper_release(struct reaper *reaper); /* waits for all that are left, at most 2 s */

struct peer_events {
	/* One message; the descriptors in it are closed after the call unless they were set to -1. 0, or
	 * -EPROTO: the worker is then killed and `gone` follows. The peer must not be freed in this call. */
	int (*message)(void *data, struct wire_message *m);
	/* Once: the socket is closed, or was after a fault (reason: "closed its socket", "sent nonsense", …).
	 * The peer may be freed here. */
	void (*gone)(void *data, const char *reason);
};

int peer_new(struct peer **ret, struct loop *loop, const struct host_ops *ops, void *host, const char *kind,
	     const struct peer_events *events, void *data);
void peer_free(struct peer *peer, struct reaper *reaper); /* NULL is allowed */
/* 0 also when the worker is gone already (`gone` comes from the loop), -EMSGSIZE, -ENOMEM. */
int peer_send(struct peer *peer, const struct wire_message *m);
/* Ends the worker; `gone` with this reason comes from the loop. */
void peer_kill(struct peer *peer, const char *reason);
int peer_pid(const struct peer *peer);

#endif
