#include "sched/worker/worker.h"

#include "engine/base/log.h"
#include "engine/base/slice.h"

#include "sched/archive.h"
#include "sched/exporter.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCKET_FD 3
/* Chosen: of the weights that are written, four times the largest that is published; sched/jobs_import.c has that. */
#define IMPORT_MEMORY (UINT64_C(16) << 30)
#define IMPORT_FILE   (UINT64_C(4) << 30)

static const struct kind {
	const char *name;
	int (*run)(struct worker *w);
	/* The least niceness: answers before scans before training. The daemon runs at -5 where it may, so that what
	 * is computed also gets out while workers keep all cores busy. */
	int nice;
	rlim_t memory; /* RLIMIT_DATA; 0: none */
	rlim_t file;   /* RLIMIT_FSIZE; 0: none */
} kinds[] = {
	{"infer", infer_worker, 0, 0, 0},
	{"train", train_worker, 10, 0, 0},
	{"scan", scan_worker, 5, 0, 0},
	{"unpack", unpack_worker, 0, ARCHIVE_MEMORY,
	 ARCHIVE_TOTAL}, /* instances wait for it, and their deadline runs */
	{"import", import_worker, 5, IMPORT_MEMORY, IMPORT_FILE},
	{"export", export_worker, 5, 0, EXPORT_MAX},
};

int worker_send(struct worker *w, const struct wire_message *m)
{
	return wire_send(&w->channel, m, 0);
}

void worker_err(struct err *err, int r, const char *what)
{
	if (err->code != ERR_NONE)
		return;
	if (r == -ENOMEM)
		err_set(err, ERR_NO_MEMORY, "%s", what);
	else
		err_set(err, ERR_IO, "%s: %s", what, strerror(-r));
}

int worker_send_failed(struct worker *w, int r, const struct err *err)
{
	struct err e = *err;

	worker_err(&e, r, "worker");
	return worker_send(w,
			   &(struct wire_message){.type = WIRE_FAILED,
						  .failed = {.code = (uint16_t)e.code, .detail = e.detail}});
}

/* The thread that started it may have kept to some cores (sched/apart.h, fs/mount/attend.h): what the daemon may use is what its main
 * thread may. A wish. */
static void use_all_cores(void)
{
	cpu_set_t all;

	if (sched_getaffinity(getppid(), sizeof(all), &all) == 0)
		sched_setaffinity(0, sizeof(all), &all);
}

/* What a worker must not have or do, whatever it decodes. */
static int confine(const struct kind *kind)
{
	static const struct rlimit no_core = {0, 0};
	int null;

	/* The daemon's end of the socket closes when it dies; the signal also ends one that computes. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    setrlimit(RLIMIT_CORE, &no_core) < 0 || close_range(SOCKET_FD + 1, ~0U, 0) < 0)
		return -errno;
	if (getpriority(PRIO_PROCESS, 0) < kind->nice && setpriority(PRIO_PROCESS, 0, kind->nice) < 0)
		return -errno;
	if (kind->memory && !WORKER_SANITIZED &&
	    setrlimit(RLIMIT_DATA, &(struct rlimit){kind->memory, kind->memory}) < 0)
		return -errno;
	if (kind->file && setrlimit(RLIMIT_FSIZE, &(struct rlimit){kind->file, kind->file}) < 0)
		return -errno;
	use_all_cores();
	slice_set(0); /* not the daemon's */
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0)
		return -errno;
	if (dup2(null, STDIN_FILENO) < 0)
		return -errno;
	close(null);
	return worker_confine();
}

static int run(struct worker *w, const struct kind *kind)
{
	struct wire_message m;
	int r = wire_recv(&w->channel, &m, 0);

	if (r < 0)
		return r;
	if (m.type != WIRE_SETUP || m.setup.threads > 4096) {
		wire_clear(&m);
		return -EPROTO;
	}
	w->threads = (int)m.setup.threads;
	wire_clear(&m);
	if (w->threads)
		omp_set_num_threads(w->threads);
	return kind->run(w);
}

int worker_main(int argc, char **argv)
{
	struct worker w = {0};
	int type = 0, r;
	socklen_t size = sizeof(type);
	char comm[16];

	for (size_t i = 0; argc == 2 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(argv[1], kinds[i].name) != 0)
			continue;
		log_init(kinds[i].name);
		snprintf(comm, sizeof(comm), "inferfs/%s", kinds[i].name); /* /proc/self/exe was executed */
		prctl(PR_SET_NAME, comm);
		if (getsockopt(SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
			fprintf(stderr,
				"inferfs worker: descriptor 3 is not the daemon's socket: only the daemon "
				"starts workers\n");
			return 2;
		}
		r = confine(&kinds[i]);
		if (r == 0)
			r = wire_init(&w.channel, SOCKET_FD, WIRE_TO_DAEMON);
		if (r == 0) {
			r = run(&w, &kinds[i]);
			wire_release(&w.channel);
		}
		if (r < 0 && r != -EPIPE)
			log_error("worker %s: %s", kinds[i].name, strerror(-r));
		return r < 0 && r != -EPIPE;
	}
	fprintf(stderr, "usage: inferfs worker KIND, KIND one of:");
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		fprintf(stderr, " %s", kinds[i].name);
	fprintf(stderr, "\n");
	return 2;
}
