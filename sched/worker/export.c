/* The export worker: model.json and weights in, one slice as ONNX out, into the file that came with the question. */
#include "sched/worker/worker.h"

#include "engine/base/io.h"
#include "engine/export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAX_JSON (16 << 20) /* as of an endpoint's */

static int export_slice(const struct wire_message *m, struct buf *ret, struct err *err)
{
	void *json = NULL, *labels = NULL, *weights = MAP_FAILED;
	struct export_source from = {0};
	struct stat st = {0};
	int r = io_read(m->fds[0], MAX_JSON, &json, &from.json_len);

	if (r == 0 && m->n_fds == 4)
		r = io_read(m->fds[3], MAX_JSON, &labels, &from.labels_len);
	if (r == 0 && fstat(m->fds[1], &st) < 0)
		r = -errno;
	if (r == 0 && st.st_size > 0) {
		weights = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, m->fds[1], 0);
		r = weights == MAP_FAILED ? -errno : 0;
	}
	if (r < 0) {
		worker_err(err, r, "reading the model");
	} else {
		from.json = json;
		from.labels = labels;
		from.weights = st.st_size > 0 ? weights : NULL;
		from.weights_len = (size_t)st.st_size;
		r = model_export(&from, m->export.rate, ret, err);
	}
	if (weights != MAP_FAILED)
		munmap(weights, (size_t)st.st_size);
	free(json);
	free(labels);
	return r;
}

int export_worker(struct worker *w)
{
	struct buf file = BUF_INIT;
	struct err err = ERR_INIT;
	struct wire_message m;
	int r = wire_recv(&w->channel, &m, 0);

	if (r < 0)
		return r;
	r = m.type == WIRE_EXPORT ? export_slice(&m, &file, &err) : -EPROTO;
	if (r == 0) {
		r = io_write(m.fds[2], file.data, file.len);
		if (r == -ENOSPC || r == -EDQUOT)
			err_set(&err, ERR_NO_SPACE, "%zu bytes", file.len);
		else if (r < 0)
			worker_err(&err, r, "writing the file");
	}
	if (r == 0)
		r = worker_send(w, &(struct wire_message){.type = WIRE_EXPORTED, .exported = {file.len}});
	else
		r = worker_send_failed(w, r, &err);
	buf_release(&file);
	wire_clear(&m);
	return r;
}
