/*
 * The mount goes from one daemon to the next while it is in use (takeover.h says in which steps). What the old one does is
 * in this order because: the publisher needs the tree to answer until its last file is out; the scheduler's thread
 * must not see events that it can't keep, so requests whose meaning only an event tells are held back from then on, and
 * the new daemon serves them; all else that happens until the pause is found in the tree by the new one's recovery.
 *
 * Workers end with the old daemon. The new one starts its own, and what was in flight is computed again: an answer and its
 * record are one write batch, so that is recovery as after a crash, and as often exercised. (Handing over their
 * sockets would save that second of computing, but only between versions that agree on every message to workers and on
 * the scheduler's picture of them.) A training job goes on from its last checkpoint.
 */
#include "engine/base/clock.h"
#include "engine/base/io.h"
#include "engine/base/log.h"
#include "fs/mount/handover.h"
#include "fs/mount/mounted.h"
#include "fs/mount/takeover.h"
#include "fs/state.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

/* --- the old one --- */

/* On a thread of the server. */
static bool is_event(void *data, const void *bytes, size_t size)
{
	const struct mounted *m = data;
	const struct tree_file *file;
	struct fuse_copy_file_range_in copy;
	struct fuse_in_header in;
	struct fuse_write_in write;
	uint64_t fh;

	memcpy(&in, bytes, sizeof(in));
	if (in.opcode == FUSE_SETXATTR || in.opcode == FUSE_REMOVEXATTR)
		return true;
	if (in.opcode == FUSE_WRITE && size >= sizeof(in) + sizeof(write)) {
		memcpy(&write, (const char *)bytes + sizeof(in), sizeof(write));
		fh = write.fh;
	} else if (in.opcode == FUSE_COPY_FILE_RANGE && size >= sizeof(in) + sizeof(copy)) {
		memcpy(&copy, (const char *)bytes + sizeof(in), sizeof(copy));
		fh = copy.fh_out;
	} else {
		return false;
	}
	file = tree_numbered(m->served.tree, fh);
	return file && tree_is_event(file);
}

/* All that the new daemon must know, also as *ret_fd; the server rests. */
static int collect(struct mounted *m, struct handover *h, int *ret_fd)
{
	const struct request *init = server_init(m->server);
	struct buf bytes = BUF_INIT;
	int r;

	h->want = m->served.want;
	strcpy(h->options, m->options.given);
	h->init = init ? request_new(init->bytes, init->size) : NULL;
	r = h->init ? tree_hand_over(m->served.tree, &h->handles) : -ENOMEM;
	if (r == 0)
		r = handover_encode(h, &bytes);
	if (r == 0)
		r = io_memfd("inferfs-handover", bytes.data, bytes.len, ret_fd);
	buf_release(&bytes);
	return r;
}

/* The server goes on with what it was given to hold. */
static int go_on(struct mounted *m, struct handover *h)
{
	int r;

	server_give(m->server, h->held);
	h->held = NULL;
	server_hold(m->server, NULL, NULL);
	r = server_start(m->server);
	return r < 0 ? r : glue_start(m->glue, m->mnt);
}

/* Before anything was closed: only the scheduler and the publisher begin anew. */
static int go_on_as_before(struct mounted *m, struct handover *h)
{
	struct err err = ERR_INIT;
	char text[640];
	int r;

	glue_free(m->glue);
	m->glue = NULL;
	r = mounted_new_glue(m, &err);
	if (r < 0)
		log_error("%s", err_format(&err, text, sizeof(text)));
	else
		tree_join(m->served.tree, m->glue);
	return r < 0 ? r : go_on(m, h);
}

static int take_back(struct mounted *m, struct handover *h)
{
	struct err err = ERR_INIT;
	char text[640];
	int r = mounted_open(m, &h->handles, &err);

	if (r < 0) {
		log_error("taking the mount back: %s", err_format(&err, text, sizeof(text)));
		return r;
	}
	m->owner = true;
	r = go_on(m, h);
	log_info("the mount is served here again");
	return r;
}

/* Who wanted to end us wants to end the mount. */
static void forward_signals(const struct mounted *m, const struct takeover *t)
{
	static const struct timespec now;
	int sig;

	while ((sig = sigtimedwait(&m->signals, NULL, &now)) > 0)
		if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP)
			pidfd_send_signal(t->pidfd, SIGTERM, NULL, 0);
}

int upgrade_give(struct mounted *m)
{
	struct takeover t = TAKEOVER_NONE;
	struct handover h = {0};
	int fd = -1, r;

	if (takeover_accept(m->listen_fd, m->mnt, &t) < 0)
		return 0;
	log_info("process %d asks for the mount", (int)t.pid);
	volume_settle(m->vol); /* the more it writes now, the less the other has to read */
	server_hold(m->server, is_event, m);
	glue_stop(m->glue);
	server_pause(m->server);
	poll_wake(NULL); /* who sleeps is known only here, and asks the next one */
	h.paused_ns = clock_monotonic_ns();
	h.held = server_take_held(m->server);
	r = collect(m, &h, &fd);
	if (r < 0) {
		takeover_refuse(&t, strerror(-r));
		r = go_on_as_before(m, &h);
		goto out;
	}
	m->owner = false;
	mounted_close(m);
	r = takeover_send(&t, fuse_session_fd(m->se), fd);
	if (r == 0)
		r = takeover_wait(&t);
	if (r == 0) {
		forward_signals(m, &t);
		log_info("process %d has the mount", (int)t.pid);
		r = 1;
	} else if (r == -EOWNERDEAD) {
		log_error("process %d died with the mount: mount it again", (int)t.pid);
	} else {
		r = take_back(m, &h);
	}
out:
	if (fd >= 0)
		close(fd);
	takeover_close(&t);
	handover_release(&h);
	return r;
}

/* --- the new one --- */

static int read_state(int fd, struct handover *ret, struct err *err)
{
	size_t len = 0;
	void *data;
	int r = io_read(fd, HANDOVER_MAX, &data, &len);

	if (r == 0) {
		r = handover_decode(ret, data, len);
		free(data);
	}
	return r < 0 ? err_set(err, ERR_TAKEOVER, "what its daemon handed over: %s", strerror(-r)) : 0;
}

/* Those that were given to the old one, and on top of them ours. */
static int join_options(struct mounted *m, const char *old, struct err *err)
{
	struct mount_options joined;
	int r;

	options_init(&joined);
	r = *old ? options_parse(&joined, old, err) : 0;
	if (r == 0 && m->options.given[0])
		r = options_parse(&joined, m->options.given, err);
	if (r < 0)
		return r;
	m->options = joined;
	log_trace_set(joined.trace ? ~0u : 0);
	return 0;
}

static int take_session(struct mounted *m, int fuse_fd, const struct handover *h, struct err *err)
{
	int r = mounted_new_session(m, fuse_fd, err);

	if (r < 0)
		return r;
	r = server_replay_init(m->server, h->init);
	if (r < 0)
		return err_set(err, ERR_NO_MEMORY, "taking over");
	if (m->served.want != h->want)
		return err_set(
			err, ERR_TAKEOVER,
			"it was mounted with other wishes to the kernel (%#x) than this version's (%#x)",
			h->want, m->served.want);
	return 0;
}

int upgrade_take(struct mounted *m, struct err *err)
{
	struct takeover t = TAKEOVER_NONE;
	int fuse_fd = -1, state_fd = -1, r;
	struct handover h = {0};
	int64_t received;
	char text[640];

	r = takeover_ask(m->state_dir, m->mnt, &t, &fuse_fd, &state_fd, err);
	if (r < 0)
		return r;
	received = clock_monotonic_ns();
	r = read_state(state_fd, &h, err);
	close(state_fd);
	if (r == 0)
		r = join_options(m, h.options, err);
	if (r == 0)
		r = mounted_open(m, &h.handles, err);
	if (r == 0) {
		r = take_session(m, fuse_fd, &h, err);
		fuse_fd = -1;
	}
	if (r == 0)
		r = takeover_ready(&t, err);
	if (r < 0)
		goto fail;
	m->owner = true;
	server_give(m->server, h.held);
	h.held = NULL;
	r = server_start(m->server);
	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "starting a thread");
	log_info("took over %zu open files from process %d; for %lld ms no request was served, %lld of them "
		 "until it was closed there",
		 h.handles.n_files, (int)t.pid, (long long)(clock_monotonic_ns() - h.paused_ns) / 1000000,
		 (long long)(received - h.paused_ns) / 1000000);
	/* Made anew in the volume when its text has changed with the version. */
	fuse_lowlevel_notify_inval_entry(m->se, FUSE_ROOT_ID, "README", strlen("README"));
	takeover_close(&t);
	handover_release(&h);
	return r;
fail:
	if (fuse_fd >= 0)
		close(fuse_fd);
	mounted_close(m);
	takeover_failed(&t, err_format(err, text, sizeof(text)));
	handover_release(&h);
	return r;
}
