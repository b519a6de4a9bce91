/*
 * A worker process: `inferfs worker KIND`, started by the daemon with a SOCK_SEQPACKET socket as descriptor 3
 * and nothing else. It opens no paths: files come as descriptors with the messages (sched/wire.h). It ends
 * when the socket closes and dies with the daemon.
 *
 * The kinds, sched/worker/KIND.c each: infer runs mini-batches of loaded models, train one training job, scan
 * decodes one data set into its cache, unpack takes one archive apart, import makes a version of one model of others,
 * export writes one slice as ONNX.
 */
#ifndef SCHED_WORKER_WORKER_H
#define SCHED_WORKER_WORKER_H

#include "sched/wire.h"

/* The subcommand; argv[1] is the kind. */
int worker_main(int argc, char **argv);

/* --- private to sched/worker --- */

struct worker {
	struct wire_channel channel;
	int threads; /* 0: all cores */
};

/* Each runs until its work or the socket ends: 0, or a negative errno. */
int infer_worker(struct worker *w);
int train_worker(struct worker *w);
int scan_worker(struct worker *w);
int unpack_worker(struct worker *w);
int import_worker(struct worker *w);
int export_worker(struct worker *w);

/*
 * Gives up, for good and for all threads to come, everything but the descriptors it has: capabilities, paths,
 * processes, sockets (confine.c). Fences that the kernel lacks are left out. no_new_privs must be set, and
 * what needs a file at its first use must have had it.
 */
int worker_confine(void);
/* Built with a sanitizer: worker_confine puts up nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WORKER_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WORKER_SANITIZED 1
#endif
#endif
#ifndef WORKER_SANITIZED
#define WORKER_SANITIZED 0
#endif
/* Its fences one by one; -EOPNOTSUPP where the kernel has none. */
int confine_paths(void);
int confine_calls(void);

/* Waits until the daemon took it. Descriptors stay the caller's. */
int worker_send(struct worker *w, const struct wire_message *m);
/* Sends FAILED with this error; err->code NONE: one that suits r. */
int worker_send_failed(struct worker *w, int r, const struct err *err);
/* Fills an err that the failing function left empty. */
void worker_err(struct err *err, int r, const char *what);

#endif
