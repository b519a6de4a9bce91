/* Publications of the fake host: one after the other, each with its time on the fake clock. */
#include "tests/support/fake_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- publications --- */

void fake_publication_free(struct fake_publication *p)
{
	list_remove(&p->link);
	for (size_t i = 0; i < p->n_ops; i++) {
		free((void *)p->ops[i].key);
		free((void *)p->ops[i].value);
	}
	free(p->ops);
	free(p->path);
	free(p->content);
	free(p);
}

static void start_first(struct fake_host *h);

static void make_visible(struct fake_host *h, struct fake_publication *p)
{
	struct fake_node *node = p->tree ? NULL : fake_node_make(h, p->path, false);

	if (p->tree) {
		fake_move(h, p->tree->path, p->path);
		for (size_t i = 0; i < p->n_ops; i++)
			fake_apply(h, &p->ops[i]);
		return;
	}
	if (p->appends && !p->empties && node->content) {
		node->content = realloc(node->content, node->len + p->len + 1);
		memcpy(node->content + node->len, p->content, p->len + 1);
		node->len += p->len;
	} else {
		free(node->content);
		node->content = p->content;
		node->len = p->len;
		p->content = NULL;
	}
	if (p->is_result && !node->times++)
		node->visible_at = loop_now(h->loop);
	for (size_t i = 0; i < p->n_ops; i++)
		fake_apply(h, &p->ops[i]);
}

static void first_ends(void *data)
{
	struct fake_host *h = data;
	struct fake_publication *p = list_entry(h->queue.next, struct fake_publication, link);
	int r = p->refused ? -ENOENT : p->is_result ? h->publish_error : 0;

	h->timer = NULL;
	h->n_published += p->is_result;
	if (h->dead || (fake_step(h) && h->dead))
		return;
	if (r == 0 && p->expired)
		r = -ETIME;
	if (r == 0 && p->tree && fake_node_find(h, p->path))
		r = -EEXIST;
	if (r == 0 && !p->content) /* an unpublication */
		fake_remove(h, p->path);
	else if (r == 0)
		make_visible(h, p);
	list_remove(&p->link);
	start_first(h);
	if (p->done)
		p->done(p->data, r, loop_now(h->loop));
	fake_publication_free(p);
}

static void start_first(struct fake_host *h)
{
	int64_t takes = 0; /* status files cost nothing here */
	struct fake_publication *p;

	if (h->timer || list_empty(&h->queue))
		return;
	/* As the publisher: it looks at the clock, and then the rename takes its time. */
	p = list_entry(h->queue.next, struct fake_publication, link);
	p->expired = p->due && loop_now(h->loop) > p->due;
	if (p->is_result && !p->expired)
		takes = h->slow_ns && h->n_published == h->slow_at ? h->slow_ns : h->publish_ns;
	h->timer = loop_timer_at(h->loop, loop_now(h->loop) + takes, first_ends, h);
}

static void enqueue(struct fake_host *h, struct fake_publication *p)
{
	list_append(&h->queue, &p->link);
	start_first(h);
}

/* Below a directory that is no more. */
void fake_host_refuse(struct fake_host *h, const char *dir)
{
	list_each(link, &h->queue)
	{
		struct fake_publication *p = list_entry(link, struct fake_publication, link);

		if (fake_below(p->path, dir))
			p->refused = true;
	}
}

int fake_publish(void *host, const struct host_publication *from)
{
	struct fake_host *h = host;
	struct fake_publication *p;

	if (fake_step(h))
		return 0;
	p = calloc(1, sizeof(*p));
	list_init(&p->link);
	p->is_result = from->flags & HOST_RESULT;
	p->tree = from->tree;
	p->appends = from->flags & HOST_APPEND;
	p->empties = from->flags & HOST_EMPTY;
	p->path = strdup(from->path);
	p->content = fake_copy(from->content, from->len);
	p->len = from->len;
	p->ops = calloc(from->n_ops ? from->n_ops : 1, sizeof(*p->ops));
	for (size_t i = 0; i < from->n_ops; i++) {
		p->ops[i] = from->ops[i];
		p->ops[i].key = fake_copy(from->ops[i].key, from->ops[i].key_len);
		p->ops[i].value = fake_copy(from->ops[i].value, from->ops[i].value_len);
	}
	p->n_ops = from->n_ops;
	p->due = from->due;
	p->done = from->done;
	p->data = from->data;
	enqueue(h, p);
	return 0;
}

int fake_unpublish(void *host, const char *path)
{
	struct fake_host *h = host;
	struct fake_publication *p;

	if (fake_step(h))
		return 0;
	p = calloc(1, sizeof(*p));
	list_init(&p->link);
	p->path = strdup(path);
	enqueue(h, p);
	return 0;
}

/* A file whose text is "-> TARGET". */
int fake_symlink(void *host, const char *path, const char *target,
		 void (*done)(void *data, int r, int64_t visible), void *data)
{
	struct host_publication p = {.path = path, .done = done, .data = data};
	char *text;
	int r;

	if (asprintf(&text, "-> %s", target) < 0)
		abort();
	p.content = text;
	p.len = strlen(text);
	r = fake_publish(host, &p);
	free(text);
	return r;
}
