/*
 * The import worker: one model of somebody else's, whose files are written into what came with it. The engine runs the network while it
 * imports it, so this process is at the mercy of what the user brought: the daemon watches the clock.
 */
#include "sched/worker/worker.h"

#include "engine/base/io.h"
#include "engine/import.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAX_TEXTS (UINT64_C(33) << 20)

struct source {
	void *map, *beside;
	size_t len, beside_len;
	void *texts;
};

static int map_file(int fd, void **ret, size_t *ret_len)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0)
		return 0;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret = map;
	*ret_len = (size_t)st.st_size;
	return 0;
}

static int open_source(struct source *s, const struct wire_message *m, struct import_source *ret)
{
	const struct wire_import *im = &m->import;
	size_t len = 0;
	int r = map_file(m->fds[0], &s->map, &s->len);

	if (r == 0 && m->n_fds > 4)
		r = map_file(m->fds[4], &s->beside, &s->beside_len);
	if (r == 0)
		r = io_read(m->fds[1], MAX_TEXTS, &s->texts, &len);
	if (r < 0)
		return r;
	if (im->json > len || im->labels > len - im->json || (m->n_fds > 4) != (*im->beside != '\0'))
		return -EPROTO;
	*ret = (struct import_source){.file = im->file, .data = s->len ? s->map : "", .size = s->len};
	if (*im->beside) {
		ret->beside = im->beside;
		ret->beside_data = s->beside_len ? s->beside : "";
		ret->beside_size = s->beside_len;
	}
	if (im->has_json) {
		ret->json = s->texts;
		ret->json_len = im->json;
	}
	if (im->has_labels) { /* last: it has to end in NUL */
		ret->labels = (char *)s->texts + im->json;
		ret->labels_len = im->labels;
	}
	return 0;
}

static void close_source(struct source *s)
{
	if (s->len)
		munmap(s->map, s->len);
	if (s->beside_len)
		munmap(s->beside, s->beside_len);
	free(s->texts);
}

/* ONNX weights are the file itself, where it has all of them. */
static int write_files(const struct imported *to, const struct import_source *from,
		       const struct wire_message *m, struct wire_imported *ret)
{
	const struct buf *texts[] = {&to->json, &to->labels, &to->slices};
	bool itself = import_format(from->file) == IMPORT_ONNX && !to->weights.len;
	const void *weights = itself ? from->data : to->weights.data;
	int r = 0;

	*ret = (struct wire_imported){.json = to->json.len,
				      .labels = to->labels.len,
				      .slices = to->slices.len,
				      .weights = itself ? from->size : to->weights.len};
	for (size_t i = 0; r == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
		r = texts[i]->len ? io_write(m->fds[2], texts[i]->data, texts[i]->len) : 0;
	if (r == 0 && m->n_fds > 3)
		r = io_write(m->fds[3], weights, ret->weights);
	return r;
}

static int import(struct worker *w, const struct wire_message *m, struct err *err)
{
	struct wire_message answer = {.type = WIRE_IMPORTED};
	struct import_source from = {0};
	struct source source = {0};
	struct imported to = {0};
	int r = open_source(&source, m, &from);

	if (r == 0)
		r = model_import(&to, &from, err);
	if (r == 0)
		r = write_files(&to, &from, m, &answer.imported);
	if (r == 0)
		r = worker_send(w, &answer);
	imported_release(&to);
	close_source(&source);
	return r;
}

int import_worker(struct worker *w)
{
	struct err err = ERR_INIT;
	struct wire_message m;
	int r = wire_recv(&w->channel, &m, 0);

	if (r < 0)
		return r;
	r = m.type == WIRE_IMPORT ? import(w, &m, &err) : -EPROTO;
	if (r < 0 && r != -EPIPE)
		r = worker_send_failed(w, r, &err);
	wire_clear(&m);
	return r;
}
