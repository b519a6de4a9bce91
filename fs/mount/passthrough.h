/*
 * Private to fs/mount: FUSE passthrough (Linux 6.9): open files whose content is one file on the disk are read and mapped by the
 * kernel there, without asking us. libfuse 3.14 and its headers don't know it, so the few fields are set here. Which open file
 * is read so is the tree's matter (enum tree_io).
 *
 *	passthrough_ask(request, size, iov, count);	// of the answer to FUSE_INIT, before it is sent
 *	tree_back(tree, &passthrough_ops, &se, true);
 *
 * Where the kernel has none, or forbids it to us (only root may; the disk's filesystem must not be a stacked one), the first try
 * tells, in one line of the log, and all goes on without.
 */
#ifndef FS_MOUNT_PASSTHROUGH_H
#define FS_MOUNT_PASSTHROUGH_H

#include "fs/node/tree.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define PASSTHROUGH_OPEN (1u << 7) /* of open_flags: FOPEN_PASSTHROUGH */

/* fuse_open_out as it is since protocol 7.40 */
struct passthrough_open {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

/* Accepts passthrough in the answer, iov[1], where the request offers it. */
void passthrough_ask(const void *request, size_t size, struct iovec *iov, int count);
extern const struct tree_backing_ops
	passthrough_ops; /* data: a struct fuse_session **, set by the first open */

#endif
