/*
 * The life of a mount. Requests are served by threads of their own (serve.h); the caller's thread waits for
 * signals, so that everything that ends a mount is done in one place and in order: the scheduler and the
 * publisher stop while the tree still answers, then those threads end, then the volume is closed.
 */
#include "fs/mount/mount.h"

#include "engine/base/log.h"
#include "engine/base/slice.h"
#include "fs/mount/private.h"
#include "fs/mount/serve.h"
#include "fs/state.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Chosen: what one request takes; with the kernel's 3 ms a thread that wakes waits as long for a worker to end its. */
#define SLICE_NS 100000

struct mounted {
	struct fuse_session *se;
	struct server *server;
	struct served served;
	const struct mount_options *options;
	pthread_t main;
};

/* The kernel has nothing more to ask. */
static void ended(void *data)
{
	pthread_kill(((struct mounted *)data)->main, SIGUSR2);
}

static int make_session(struct mounted *m, const char *state_dir, const char *mnt, struct err *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char *opts = NULL, name[4200];
	int r = -ENOMEM;

	snprintf(name, sizeof(name), "fsname=%s", state_dir);
	if (fuse_opt_add_opt(&opts, "subtype=inferfs,default_permissions") < 0 ||
	    fuse_opt_add_opt_escaped(&opts, name) < 0 ||
	    (m->options->allow_other && fuse_opt_add_opt(&opts, "allow_other") < 0) ||
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
	if (fuse_session_mount(m->se, mnt) != 0) {
		r = err_set(err, ERR_IO, "mounting on %s: the kernel or fusermount3 refuses (said above)",
			    mnt);
		goto out;
	}
	r = 0;
out:
	free(opts);
	fuse_opt_free_args(&args);
	return r;
}

/* Until something ends the mount. */
static void wait_for_end(const sigset_t *signals)
{
	int sig;

	for (;;) {
		if (sigwait(signals, &sig) != 0)
			continue;
		if (sig == SIGUSR1) {
			unsigned mask = __atomic_load_n(&log_trace_mask, __ATOMIC_RELAXED);

			log_trace_set(mask ? 0 : ~0u);
			log_info("trace is %s", mask ? "off" : "on");
			continue;
		}
		if (sig == SIGUSR2)
			log_info("unmounted");
		else
			log_info("%s: unmounting", strsignal(sig));
		return;
	}
}

int mount_run(const char *state_dir, const char *mnt, const struct mount_options *options,
	      void (*ready)(void *data), void *data, struct err *err)
{
	const struct sched_options sched_options = {.settle_ns = options->settle_ns,
						    .settle_batch_ns = options->settle_batch_ns,
						    .worker_threads = options->worker_threads,
						    .null_backend = options->null_backend};
	struct mounted m = {.options = options, .main = pthread_self()};
	struct volume *vol = NULL;
	struct glue *glue = NULL;
	struct rlimit files;
	sigset_t signals;
	int r;

	/* Before any thread exists, so that all inherit it and only this one ever sees them. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);                    /* a write beyond RLIMIT_FSIZE fails like any other */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* each file that users have open may need one */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(0); /* modes of new files come with the kernel's requests, masked there */
	log_trace_set(options->trace ? ~0u : 0);

	r = volume_open(&vol, state_dir, 0, err);
	if (r < 0)
		goto out;
	if (options->max_bytes)
		volume_limit(vol, (uint64_t)options->max_bytes);
	/* Answering the tree takes little, and workers that keep all cores busy wait for it; only root may. Not so
	 * RocksDB's threads, which exist by now: they work ahead. */
	if (getpriority(PRIO_PROCESS, 0) == 0 && setpriority(PRIO_PROCESS, 0, -5) < 0 && errno != EACCES &&
	    errno != EPERM)
		log_warn("setpriority: %s", strerror(errno));
	slice_set(SLICE_NS);
	r = state_write_pid(state_dir, err);
	if (r < 0)
		goto out;
	r = glue_new(&glue, vol, state_dir, &sched_options, err);
	if (r < 0)
		goto out;
	publisher_on_append(glue_publisher(glue), poll_wake, NULL);
	r = tree_new(&m.served.tree, vol, glue, err);
	if (r < 0)
		goto out;
	r = make_session(&m, state_dir, mnt, err);
	if (r < 0)
		goto out;
	r = server_new(&m.server, m.se, options, ended, &m);
	if (r == 0)
		r = server_start(m.server);
	if (r < 0) {
		err_set(err, ERR_NO_MEMORY, "starting a thread");
		goto out;
	}
	r = glue_start(glue, mnt);
	if (r < 0) {
		err_set(err, ERR_IO, "starting the scheduler: %s", strerror(-r));
	} else {
		log_info("%s is mounted on %s", state_dir, mnt);
		ready(data);
		wait_for_end(&signals);
		glue_stop(glue);
	}
out:
	server_free(m.server);
	if (m.se) {
		fuse_session_unmount(m.se);
		fuse_session_destroy(m.se);
	}
	tree_free(m.served.tree);
	glue_free(glue);
	if (vol) {
		state_remove_pid(state_dir);
		volume_close(vol);
	}
	return r;
}
