#include "fs/mount/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define INIT_MAX 4096
#define HELD_MAX ((1 << 20) + 65536) /* of one request: MAX_IO and what is before it */
#define WRITING  (8 + 8 + 4)         /* of 'O', before the name */
#define FILE_LEN (8 + 8 + 4 + 4)

void handover_release(struct handover *h)
{
	for (struct request *held = h->held, *next; held; held = next) {
		next = held->next;
		free(held);
	}
	free(h->init);
	tree_handles_release(&h->handles);
	*h = (struct handover){0};
}

static void put(struct buf *to, uint32_t type, const void *data, size_t size)
{
	uint32_t head[2] = {type, (uint32_t)size};

	buf_add(to, head, sizeof(head));
	if (size)
		buf_add(to, data, size);
}

static void put_writing(struct buf *to, const struct tree_writing *w)
{
	char bytes[WRITING + 256];
	size_t len = strlen(w->name);

	memcpy(bytes, &w->ino, 8);
	memcpy(bytes + 8, &w->dir, 8);
	bytes[16] = (char)w->kind;
	bytes[17] = w->changed;
	bytes[18] = w->synced;
	bytes[19] = w->gone;
	memcpy(bytes + WRITING, w->name, len);
	put(to, 'O', bytes, WRITING + len);
}

static void put_file(struct buf *to, const struct tree_handle *h)
{
	char bytes[FILE_LEN];

	memcpy(bytes, &h->number, 8);
	memcpy(bytes + 8, &h->ino, 8);
	bytes[16] = (char)h->kind;
	bytes[17] = (char)h->mode;
	bytes[18] = h->writer;
	bytes[19] = (char)h->io;
	memcpy(bytes + 20, &h->backing, 4);
	put(to, 'F', bytes, sizeof(bytes));
}

int handover_encode(const struct handover *h, struct buf *to)
{
	uint32_t want = h->want;

	put(to, 'I', h->init->bytes, h->init->size);
	put(to, 'W', &want, sizeof(want));
	put(to, 'T', h->options, strlen(h->options));
	put(to, 'P', &h->paused_ns, sizeof(h->paused_ns));
	for (size_t i = 0; i < h->handles.n_writing; i++)
		put_writing(to, &h->handles.writing[i]);
	for (size_t i = 0; i < h->handles.n_files; i++)
		put_file(to, &h->handles.files[i]);
	for (const struct request *held = h->held; held; held = held->next)
		put(to, 'H', held->bytes, held->size);
	put(to, 'E', NULL, 0);
	if (buf_status(to) < 0)
		return -ENOMEM;
	return to->len <= HANDOVER_MAX ? 0 : -EFBIG;
}

/* --- reading it; nothing in it is trusted --- */

struct reader {
	struct handover out;
	struct request **held_tail;
	size_t files_room, writing_room;
	unsigned seen; /* a bit for each that must come once */
};

enum { SEEN_INIT = 1, SEEN_WANT = 2, SEEN_OPTIONS = 4, SEEN_PAUSED = 8, SEEN_ALL = 15 };

static int once(struct reader *r, unsigned bit)
{
	if (r->seen & bit || (bit != SEEN_INIT && !(r->seen & SEEN_INIT)))
		return -EBADMSG;
	r->seen |= bit;
	return 0;
}

/* Room for one more of `size` bytes at *array. */
static int grow(void *array, size_t n, size_t *room, size_t size)
{
	size_t more = *room ? *room * 2 : 64;
	void *at;

	if (n < *room)
		return 0;
	at = reallocarray(*(void **)array, more, size);
	if (!at)
		return -ENOMEM;
	*(void **)array = at;
	*room = more;
	return 0;
}

static int get_init(struct reader *r, const char *data, size_t size)
{
	if (once(r, SEEN_INIT) < 0 || size < 40 || size > INIT_MAX) /* 40: a request's head */
		return -EBADMSG;
	r->out.init = request_new(data, size);
	return r->out.init ? 0 : -ENOMEM;
}

static int get_want(struct reader *r, const char *data, size_t size)
{
	uint32_t want;

	if (once(r, SEEN_WANT) < 0 || size != sizeof(want))
		return -EBADMSG;
	memcpy(&want, data, sizeof(want));
	r->out.want = want;
	return 0;
}

static int get_options(struct reader *r, const char *data, size_t size)
{
	if (once(r, SEEN_OPTIONS) < 0 || size >= sizeof(r->out.options) || memchr(data, '\0', size))
		return -EBADMSG;
	memcpy(r->out.options, data, size);
	return 0;
}

static int get_paused(struct reader *r, const char *data, size_t size)
{
	if (once(r, SEEN_PAUSED) < 0 || size != sizeof(r->out.paused_ns))
		return -EBADMSG;
	memcpy(&r->out.paused_ns, data, size);
	return 0;
}

static int get_writing(struct reader *r, const char *data, size_t size)
{
	struct tree_handles *handles = &r->out.handles;
	struct tree_writing w = {0};
	size_t len = size - WRITING;

	if (size < WRITING || len > 255 || memchr(data + WRITING, '\0', len) ||
	    memchr(data + WRITING, '/', len))
		return -EBADMSG;
	memcpy(&w.ino, data, 8);
	memcpy(&w.dir, data + 8, 8);
	w.kind = (uint8_t)data[16];
	for (int i = 17; i < WRITING; i++)
		if (data[i] & ~1)
			return -EBADMSG;
	w.changed = data[17];
	w.synced = data[18];
	w.gone = data[19];
	memcpy(w.name, data + WRITING, len);
	if (!w.ino || !w.dir != !len)
		return -EBADMSG;
	if (grow(&handles->writing, handles->n_writing, &r->writing_room, sizeof(w)) < 0)
		return -ENOMEM;
	handles->writing[handles->n_writing++] = w;
	return 0;
}

static int get_file(struct reader *r, const char *data, size_t size)
{
	struct tree_handles *handles = &r->out.handles;
	struct tree_handle h;

	if (size != FILE_LEN)
		return -EBADMSG;
	memcpy(&h.number, data, 8);
	memcpy(&h.ino, data + 8, 8);
	h.kind = (uint8_t)data[16];
	h.mode = (uint8_t)data[17];
	if (!h.number || !h.ino || h.mode > O_RDWR || data[18] & ~1 || (h.mode != O_RDONLY) != data[18])
		return -EBADMSG;
	h.writer = data[18];
	h.io = (uint8_t)data[19];
	memcpy(&h.backing, data + 20, 4);
	if (h.io > TREE_IO_BACKED || h.backing < 0 || (h.io == TREE_IO_BACKED) != (h.backing > 0))
		return -EBADMSG;
	if (grow(&handles->files, handles->n_files, &r->files_room, sizeof(h)) < 0)
		return -ENOMEM;
	handles->files[handles->n_files++] = h;
	return 0;
}

static int get_held(struct reader *r, const char *data, size_t size)
{
	struct request *request;

	if (size < 40 || size > HELD_MAX)
		return -EBADMSG;
	request = request_new(data, size);
	if (!request)
		return -ENOMEM;
	*r->held_tail = request;
	r->held_tail = &request->next;
	return 0;
}

static int get_end(struct reader *r, const char *data, size_t size)
{
	(void)data;
	return size == 0 && r->seen == SEEN_ALL ? 1 : -EBADMSG;
}

static const struct {
	uint32_t type;
	int (*get)(struct reader *r, const char *data, size_t size); /* 1: it was the last */
} records[] = {{'I', get_init},    {'W', get_want}, {'T', get_options}, {'P', get_paused},
	       {'O', get_writing}, {'F', get_file}, {'H', get_held},    {'E', get_end}};

static int get_record(struct reader *reader, const char **at, const char *end)
{
	uint32_t head[2];
	int r = -EBADMSG;

	if (end - *at < (ptrdiff_t)sizeof(head))
		return r;
	memcpy(head, *at, sizeof(head));
	*at += sizeof(head);
	if (head[1] > end - *at)
		return r;
	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
		if (records[i].type == head[0])
			r = records[i].get(reader, *at, head[1]);
	*at += head[1];
	return r;
}

int handover_decode(struct handover *ret, const void *data, size_t size)
{
	const char *at = data, *end = at + size;
	struct reader reader = {0};
	int r = size <= HANDOVER_MAX ? 0 : -EBADMSG;

	reader.held_tail = &reader.out.held;
	while (r == 0)
		r = get_record(&reader, &at, end);
	if (r == 1 && at == end) {
		*ret = reader.out;
		return 0;
	}
	handover_release(&reader.out);
	return r == -ENOMEM ? r : -EBADMSG;
}
