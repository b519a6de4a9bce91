#include "fs/mount/passthrough.h"

#include "engine/base/log.h"

#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Protocol 7.40 (linux/fuse.h) */
#define INIT2_PASSTHROUGH (1u << 5) /* bit 37 of both words of flags */
#define STACK_DEPTH       1 /* the disk's filesystem lies on no other; ours may be stacked upon once more */

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define BACKING_OPEN  _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

void passthrough_ask(const void *request, size_t size, struct iovec *iov, int count)
{
	const struct fuse_init_in *in = (const void *)((const struct fuse_in_header *)request + 1);
	struct fuse_init_out *out;

	if (geteuid() != 0 || size < sizeof(struct fuse_in_header) + sizeof(*in) ||
	    !(in->flags & FUSE_INIT_EXT) || !(in->flags2 & INIT2_PASSTHROUGH))
		return;
	if (count < 2 || iov[1].iov_len < sizeof(*out)) /* an error, or an old protocol's */
		return;
	out = iov[1].iov_base;
	out->flags |= FUSE_INIT_EXT;
	out->flags2 |= INIT2_PASSTHROUGH;
	out->unused[0] = STACK_DEPTH; /* max_stack_depth */
}

static bool is_final(int error)
{
	switch (error) {
	case EPERM:      /* not asked for, or not root */
	case ENOTTY:     /* before 6.9 */
	case EINVAL:     /* likewise */
	case ELOOP:      /* a stacked filesystem */
	case EOPNOTSUPP: /* a filesystem that can't */
		return true;
	default:
		return false;
	}
}

static int session_fd(void *data)
{
	return fuse_session_fd(*(struct fuse_session **)data);
}

static int backing_open(void *data, int fd)
{
	struct backing_map map = {.fd = fd};
	int number = ioctl(session_fd(data), BACKING_OPEN, &map);

	if (number > 0)
		return number;
	if (number == 0 || !is_final(errno))
		return 0;
	log_info("large files are read through the daemon (FUSE passthrough: %s)", strerror(errno));
	return -EOPNOTSUPP;
}

static void backing_close(void *data, int backing)
{
	uint32_t number = (uint32_t)backing;

	if (ioctl(session_fd(data), BACKING_CLOSE, &number) < 0)
		log_warn("closing backing file %d: %s", backing, strerror(errno));
}

const struct tree_backing_ops passthrough_ops = {.open = backing_open, .close = backing_close};
