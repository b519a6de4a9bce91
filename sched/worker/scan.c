/*
 * The scan worker: every file of one data set goes through dataset_scan_file; the cache is written and made
 * durable here, so that the daemon only has to note that it is there.
 */
#include "sched/worker/worker.h"

#include "engine/base/io.h"
#include "engine/dataset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Chosen: IDX files of this size hold 1.4 million images of 28×28. What is longer is cut, and its reader says
 * that it ends too early. */
#define MAX_FILE (UINT64_C(1) << 30)

struct scan_job {
	struct worker *w;
	struct dataset_scan *scan;
	char *data; /* (size), of the file at hand */
	size_t size;
};

static int take_file(struct scan_job *job, int fd, const struct wire_file *file, uint64_t offset,
		     struct err *err)
{
	size_t len = file->len > MAX_FILE ? MAX_FILE : file->len;
	int r;

	if (len > job->size) {
		char *data = realloc(job->data, len);

		if (!data)
			return err_set(err, ERR_NO_MEMORY, "%s", file->path);
		job->data = data;
		job->size = len;
	}
	r = len ? io_pread(fd, job->data, len, offset) : 0;
	if (r == -ENODATA) /* cut while it was scanned; the change makes a further scan */
		return 0;
	if (r < 0)
		return err_set(err, ERR_IO, "%s: %s", file->path, strerror(-r));
	return dataset_scan_file(job->scan, file->path, job->data, len, err);
}

static int take_files(struct scan_job *job, const struct wire_message *m, struct err *err)
{
	uint64_t offset = 0;

	for (uint32_t i = 0; i < m->files.n_files; i++) {
		int r = take_file(job, m->fds[0], &m->files.files[i], offset, err);

		if (r < 0)
			return r;
		offset += m->files.files[i].len;
	}
	return worker_send(job->w, &(struct wire_message){.type = WIRE_TAKEN, .taken = {m->files.n_files}});
}

static int finish(struct scan_job *job, int cache_fd, struct err *err)
{
	struct wire_message answer = {.type = WIRE_SCANNED, .n_fds = 1};
	struct buf json = BUF_INIT;
	int r;

	r = dataset_scan_finish(job->scan, cache_fd, &json, err);
	if (r == 0 && fsync(cache_fd) < 0)
		r = err_set(err, ERR_IO, "the decoded cache: %s", strerror(errno));
	if (r == -ENODATA && json.len) { /* dataset.json says why there is nothing */
		answer.scanned.code = ERR_EMPTY_DATASET;
		answer.scanned.detail = err->detail;
		r = 0;
	}
	if (r == 0)
		r = io_memfd("dataset.json", json.data, json.len, &answer.fds[0]);
	if (r == 0) {
		r = worker_send(job->w, &answer);
		close(answer.fds[0]);
	}
	buf_release(&json);
	return r;
}

int scan_worker(struct worker *w)
{
	struct scan_job job = {.w = w};
	struct err err = ERR_INIT;
	struct wire_message m;
	bool done = false;
	int r;

	while (!done && (r = wire_recv(&w->channel, &m, 0)) == 0) {
		switch (m.type) {
		case WIRE_SCAN:
			dataset_scan_free(job.scan);
			job.scan = NULL;
			r = dataset_scan_new(&job.scan,
					     &(struct dataset_scan_options){.channels = (int)m.scan.channels,
									    .height = (int)m.scan.height,
									    .width = (int)m.scan.width,
									    .seed = m.scan.seed,
									    .name = m.scan.dataset},
					     &err);
			break;
		case WIRE_BAD:
			r = job.scan ? dataset_scan_bad(job.scan, m.bad.path, m.bad.reason) : -EPROTO;
			break;
		case WIRE_FILES:
			r = job.scan ? take_files(&job, &m, &err) : -EPROTO;
			break;
		case WIRE_FINISH:
			r = job.scan ? finish(&job, m.fds[0], &err) : -EPROTO;
			done = true;
			break;
		default:
			r = -EPROTO;
		}
		wire_clear(&m);
		if (r < 0 && r != -EPIPE) {
			r = worker_send_failed(w, r, &err);
			done = true;
		}
		if (r < 0)
			break;
	}
	dataset_scan_free(job.scan);
	free(job.data);
	return r;
}
