/*
 * Private to fs/mount: what one daemon tells the next beside the descriptor of /dev/fuse, as bytes (takeover.h passes
 * them). Both run on one machine, so numbers are as it has them; HANDOVER_PROTOCOL changes with the form.
 *
 *	u32 type, u32 size, then size bytes, again and again:
 *	'I'  the kernel's FUSE_INIT request as it came              first, once
 *	'W'  u32 FUSE_CAP_* that were asked of the kernel           once
 *	'T'  the mount's options as text                            once
 *	'P'  i64 CLOCK_MONOTONIC since when no request is served    once
 *	'O'  struct tree_writing                                    before the files that need it
 *	'F'  struct tree_handle
 *	'H'  a request that was read and is not answered
 *	'E'  nothing                                                last
 */
#ifndef FS_MOUNT_HANDOVER_H
#define FS_MOUNT_HANDOVER_H

#include "engine/base/buf.h"
#include "fs/mount/serve.h"
#include "fs/node/tree.h"

#define HANDOVER_PROTOCOL    2
#define HANDOVER_MAX         (UINT64_C(1) << 30) /* bytes; chosen: 30 million open files */
#define HANDOVER_OPTIONS_MAX 1024                /* of 'T', NUL included */

struct handover {
	struct request *init;
	unsigned want;
	char options[HANDOVER_OPTIONS_MAX];
	int64_t paused_ns;
	struct tree_handles handles;
	struct request *held; /* in order */
};

void handover_release(struct handover *h);
int handover_encode(const struct handover *h, struct buf *to);
/* -EBADMSG: not of that form; -ENOMEM. On failure *ret is untouched. What files and inodes it names is not checked. */
int handover_decode(struct handover *ret, const void *data, size_t size);

#endif
