/*
 * Private to fs: a thread for system calls on our own mount. It shares no descriptor with the daemon.
 *
 * Who waits in the kernel for an answer of this daemon can't be killed. If it held /dev/fuse, as every thread
 * with the process's descriptors does, then after kill -9 in the middle of such a call nobody would close
 * it: the connection and the process would stay for ever, and with them the lock of the state directory.
 * This thread has a descriptor table of its own; when the others die theirs is closed, the kernel ends the
 * connection, and the call returns.
 *
 *	outside_start(&out);
 *	r = outside_call(&out, fn, data);	// fn(data) on the thread; its descriptors are valid only there
 *	outside_stop(&out);
 *
 * One caller at a time.
 */
#ifndef FS_OUTSIDE_H
#define FS_OUTSIDE_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

struct outside {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int (*fn)(void *data); /* under lock, as all below; NULL: nothing to do */
	void *data;
	int r;
	bool ready, done, stopping;
	pid_t tid;
};

/* 0 or a negative errno; returns when the thread has its own descriptors. */
int outside_start(struct outside *out);
void outside_stop(struct outside *out);
int outside_call(struct outside *out, int (*fn)(void *data), void *data);

#endif
