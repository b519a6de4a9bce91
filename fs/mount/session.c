/*
 * The life of a mount. Requests are served by threads of their own (serve.h); the caller's thread waits for
 * signals, so that everything that ends a mount is done in one place and in order: the scheduler and the
 * publisher stop while the tree still answers, then those threads end, then the volume is closed.
 */
#include "fs/mount/mount.h"

#include "engine/base/log.h"
#include "engine/base/slice.h"
#include "fs/exports.h"
#include "fs/mount/mounted.h"
#include "fs/mount/passthrough.h"
#include "fs/mount/takeover.h"
#include "fs/state.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Chosen: what one request takes; with the kernel's 3 ms a thread that wakes waits as long for a worker to end its. */
#define SLICE_NS 100000

/* The kernel has nothing more to ask. */
static void ended(void *data)
{
	pthread_kill(((struct mounted *)data)->main, SIGUSR2);
}

static int mount_new(struct mounted *m, int fuse_fd)
{
	char path[32];

	if (fuse_fd < 0)
		return fuse_session_mount(m->se, m->mnt);
	snprintf(path, sizeof(path), "/dev/fd/%d", fuse_fd);
	return fuse_session_mount(m->se, path);
}

int mounted_new_session(struct mounted *m, int fuse_fd, struct err *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *opts = NULL, name[4200];
	int r = -ENOMEM;

	snprintf(name, sizeof(name), "fsname=%s", m->state_dir);
	if (fuse_opt_add_opt(&opts, "subtype=inferfs,default_permissions") < 0 ||
	    fuse_opt_add_opt_escaped(&opts, name) < 0 ||
	    (m->options.allow_other && fuse_opt_add_opt(&opts, "allow_other") < 0) ||
	    fuse_opt_add_arg(&args, "inferfs") < 0 || fuse_opt_add_arg(&args, "-o") < 0 ||
	    fuse_opt_add_arg(&args, opts) < 0) {
		err_set(err, ERR_NO_MEMORY, "mounting");
		goto out;
	}
	m->se = fuse_session_new(&args, &mount_ops, sizeof(mount_ops), &m->served);
	if (!m->se) {
		r = err_set(err, ERR_IO, "libfuse refuses the session");
		goto out;
	}
	m->served.se = m->se;
	if (mount_new(m, fuse_fd) != 0) {
		r = err_set(err, ERR_IO, "mounting on %s: the kernel or fusermount3 refuses (said above)",
			    m->mnt);
		goto out;
	}
	m->taken = fuse_fd >= 0;
	fuse_fd = -1;
	r = server_new(&m->server, m->se, &m->options, ended, m);
	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "mounting");
	m->served.server = m->server;
out:
	if (fuse_fd >= 0)
		close(fuse_fd);
	free(opts);
	fuse_opt_free_args(&args);
	return r;
}

static void exported(void *data, uint64_t ticket)
{
	server_again(((struct mounted *)data)->server, ticket);
}

int mounted_new_glue(struct mounted *m, struct err *err)
{
	const struct sched_options options = {.settle_ns = m->options.settle_ns,
					      .settle_batch_ns = m->options.settle_batch_ns,
					      .queue = m->options.queue,
					      .queue_bytes = m->options.queue_bytes,
					      .workers = (int)m->options.workers,
					      .worker_threads = m->options.worker_threads,
					      .ahead = !m->options.no_ahead,
					      .null_backend = m->options.null_backend};

	int r = glue_new(&m->glue, m->vol, m->state_dir, &options, err);

	if (r == 0) {
		publisher_on_append(glue_publisher(m->glue), poll_wake, NULL);
		exports_on_made(glue_exports(m->glue), exported, m);
	}
	return r;
}

/* Files that are still being written are not what recovery takes them for. */
static int tell_writing(struct mounted *m, const struct tree_handles *handles)
{
	uint64_t *inos = calloc(handles->n_writing + 1, sizeof(*inos));
	size_t n = 0;
	int r;

	if (!inos)
		return -ENOMEM;
	for (size_t i = 0; i < handles->n_writing; i++)
		if (handles->writing[i].changed)
			inos[n++] = handles->writing[i].ino;
	r = glue_expect(m->glue, inos, n);
	free(inos);
	if (r == 0)
		tree_tell_writing(m->served.tree);
	return r;
}

/* Answering the tree takes little, and workers that keep all cores busy wait for it; only root may. Not so
 * RocksDB's threads, which exist by now: they work ahead. */
static void set_up_thread(void)
{
	if (getpriority(PRIO_PROCESS, 0) == 0 && setpriority(PRIO_PROCESS, 0, -5) < 0 && errno != EACCES &&
	    errno != EPERM)
		log_warn("setpriority: %s", strerror(errno));
	slice_set(SLICE_NS);
}

int mounted_open(struct mounted *m, const struct tree_handles *handles, struct err *err)
{
	int r;

	r = volume_open(&m->vol, m->state_dir, handles ? VOLUME_TAKEN_OVER : 0, err);
	if (r < 0)
		return r;
	if (m->options.max_bytes)
		volume_limit(m->vol, (uint64_t)m->options.max_bytes);
	set_up_thread();
	r = mounted_new_glue(m, err);
	if (r == 0)
		r = tree_new(&m->served.tree, m->vol, m->glue, err);
	if (r == 0)
		tree_back(m->served.tree, &passthrough_ops, &m->se, !m->options.no_passthrough);
	if (r == 0 && handles) {
		r = tree_take_over(m->served.tree, handles);
		if (r == 0)
			r = tell_writing(m, handles);
		if (r < 0)
			err_set(err, ERR_TAKEOVER, "the open files: %s", strerror(-r));
	}
	if (r < 0)
		mounted_close(m);
	return r;
}

void mounted_close(struct mounted *m)
{
	tree_free(m->served.tree);
	glue_free(m->glue);
	if (m->owner)
		volume_close(m->vol);
	else
		volume_hand_over(m->vol);
	m->served.tree = NULL;
	m->glue = NULL;
	m->vol = NULL;
}

static bool is_end(unsigned sig)
{
	unsigned mask = __atomic_load_n(&log_trace_mask, __ATOMIC_RELAXED);

	if (sig == SIGUSR1) {
		log_trace_set(mask ? 0 : ~0u);
		log_info("trace is %s", mask ? "off" : "on");
	} else if (sig == SIGUSR2) {
		log_info("unmounted");
	} else {
		log_info("%s: unmounting", strsignal((int)sig));
	}
	return sig != SIGUSR1;
}

/* 0: the mount ends; 1: it is another daemon's now; below 0: it can't go on. */
static int wait_for_end(struct mounted *m)
{
	struct pollfd polls[2] = {{.fd = signalfd(-1, &m->signals, SFD_CLOEXEC), .events = POLLIN},
				  {.fd = m->listen_fd, .events = POLLIN}};
	struct signalfd_siginfo info;
	int r = polls[0].fd < 0 ? -errno : 0;
	bool over = r < 0;

	while (!over) {
		if (poll(polls, 2, -1) < 0)
			continue;
		if (polls[0].revents) {
			over = read(polls[0].fd, &info, sizeof(info)) == sizeof(info) &&
			       is_end(info.ssi_signo);
		} else if (polls[1].revents) {
			r = upgrade_give(m);
			over = r != 0;
		}
	}
	if (polls[0].fd >= 0)
		close(polls[0].fd);
	return r;
}

static void set_up_process(struct mounted *m)
{
	struct rlimit files;

	/* Before any thread exists, so that all inherit it and only this one ever sees them. */
	sigemptyset(&m->signals);
	sigaddset(&m->signals, SIGTERM);
	sigaddset(&m->signals, SIGINT);
	sigaddset(&m->signals, SIGHUP);
	sigaddset(&m->signals, SIGUSR1);
	sigaddset(&m->signals, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &m->signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);                    /* a write beyond RLIMIT_FSIZE fails like any other */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* each file that users have open may need one */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(0); /* modes of new files come with the kernel's requests, masked there */
	log_trace_set(m->options.trace ? ~0u : 0);
}

static int start_new(struct mounted *m, struct err *err)
{
	int r = mounted_open(m, NULL, err);

	if (r < 0)
		return r;
	m->owner = true;
	r = mounted_new_session(m, -1, err);
	if (r == 0 && server_start(m->server) < 0)
		r = err_set(err, ERR_NO_MEMORY, "starting a thread");
	return r;
}

static void end_session(struct mounted *m)
{
	/* libfuse can't let go of a mount without unmounting it: kept, so that nothing leaks. */
	static struct fuse_session *volatile given_away;
	char state_dir[PATH_MAX];
	bool taken = m->taken;

	server_free(m->server);
	if (!m->se)
		return;
	if (!m->owner && !taken) {
		close(fuse_session_fd(m->se));
		given_away = m->se;
		(void)given_away;
		return;
	}
	fuse_session_unmount(m->se);
	fuse_session_destroy(m->se);
	if (m->owner && taken && mount_find(m->mnt, state_dir) && strcmp(state_dir, m->state_dir) == 0)
		mount_detach(m->mnt);
}

int mount_run(const char *state_dir, const char *mnt, const struct mount_options *options, bool takeover,
	      void (*ready)(void *data), void *data, struct err *err)
{
	struct mounted m = {.state_dir = state_dir,
			    .mnt = mnt,
			    .options = *options,
			    .main = pthread_self(),
			    .listen_fd = -1};
	int r;

	set_up_process(&m);
	r = takeover ? upgrade_take(&m, err) : start_new(&m, err);
	if (r == 0)
		r = state_write_pid(state_dir, err);
	if (r == 0)
		r = takeover_listen(state_dir, &m.listen_fd, err);
	if (r == 0 && glue_start(m.glue, mnt) < 0)
		r = err_set(err, ERR_NO_MEMORY, "starting the scheduler");
	if (r == 0) {
		log_info("%s is mounted on %s", state_dir, mnt);
		ready(data);
		r = wait_for_end(&m);
		if (r < 0)
			err_set(err, ERR_IO, "%s", strerror(-r));
	}
	if (m.owner)
		glue_stop(m.glue);
	end_session(&m);
	if (m.listen_fd >= 0)
		close(m.listen_fd);
	if (m.owner) {
		takeover_unlisten(state_dir);
		state_remove_pid(state_dir);
	}
	mounted_close(&m);
	return r < 0 ? r : 0;
}
