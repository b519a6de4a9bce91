/*
 * Private to fs/mount: on which core a request is served. A client that makes one request after the other waits for each answer,
 * and so does the publisher; waking a thread on another core costs more than serving most requests (here: a round
 * trip of 14 µs on one core, of 54 µs across two, where it leaves a virtual machine twice). So who serves such a
 * client comes to its core, and leaves when somebody else is served.
 */
#ifndef FS_MOUNT_ATTEND_H
#define FS_MOUNT_ATTEND_H

#include <sys/types.h>

struct tree;

/* The beginning of each request, on the thread that serves it; tid: of who asks. */
void attend(struct tree *tree, pid_t tid);
/* Of one that moves many bytes: there two cores are better than one. */
void attend_large(void);

#endif
