#include "sched/spill.h"

#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPILL_TAKEN  UINT32_MAX
#define FIRST_CHAINS 1024
#define MAX_PAGES    (UINT32_MAX / STORE_TOGETHER - 1)

/* --- which there are, by the hash of their paths --- */

void spill_release(struct spill *spill)
{
	free(spill->page);
	free(spill->chains);
	buf_release(&spill->record);
	*spill = (struct spill){0};
}

static struct spill_page *page_of(const struct spill *sp, uint32_t id)
{
	return sp->page[(id - 1) / STORE_TOGETHER];
}

static struct spill_spot *spot_of(const struct spill *sp, uint32_t id)
{
	return &page_of(sp, id)->spot[(id - 1) % STORE_TOGETHER];
}

static uint32_t id_of(const struct spill_page *page, uint32_t i)
{
	return page->id * STORE_TOGETHER + i + 1;
}

static uint32_t *chain_of(const struct spill *sp, uint32_t hash)
{
	return &sp->chains[hash & (sp->n_chains - 1)];
}

static void chain(struct spill *sp, struct spill_page *page, uint32_t i)
{
	uint32_t *first = chain_of(sp, page->spot[i].hash);

	page->spot[i].next = *first;
	*first = id_of(page, i);
}

/* Room for STORE_TOGETHER more: then nothing can fail. */
static int reserve(struct spill *sp)
{
	size_t n = sp->n_chains ? sp->n_chains : FIRST_CHAINS;
	uint32_t *chains;

	while (n < sp->count + STORE_TOGETHER)
		n *= 2;
	if (n == sp->n_chains)
		return 0;
	chains = calloc(n, sizeof(*chains));
	if (!chains)
		return -ENOMEM;
	free(sp->chains);
	sp->chains = chains;
	sp->n_chains = n;
	for (uint32_t k = 0; k < sp->n_pages; k++)
		for (uint32_t i = 0; sp->page[k] && i < sp->page[k]->n; i++)
			if (sp->page[k]->spot[i].next != SPILL_TAKEN)
				chain(sp, sp->page[k], i);
	return 0;
}

static int take_id(struct spill *sp, uint32_t *ret)
{
	struct spill_page **page;
	uint32_t n;

	for (uint32_t k = sp->maybe_free; k < sp->n_pages; k++)
		if (!sp->page[k]) {
			sp->maybe_free = k + 1;
			*ret = k;
			return 0;
		}
	n = sp->n_pages ? sp->n_pages * 2 : 16;
	page = n > MAX_PAGES ? NULL : realloc(sp->page, n * sizeof(struct spill_page *));
	if (!page)
		return -ENOMEM;
	memset(page + sp->n_pages, 0, (n - sp->n_pages) * sizeof(struct spill_page *));
	*ret = sp->n_pages;
	sp->maybe_free = sp->n_pages + 1;
	sp->page = page;
	sp->n_pages = n;
	return 0;
}

/* With nothing in it. */
static struct spill_page *page_new(struct task *task, uint32_t first, uint32_t n)
{
	struct spill *sp = &task->ep->spill;
	struct spill_page *page = malloc(sizeof(*page) + n * sizeof(*page->spot));

	if (!page)
		return NULL;
	*page = (struct spill_page){.task = task, .first = first, .n = n};
	for (uint32_t i = 0; i < n; i++)
		page->spot[i].next = SPILL_TAKEN;
	if (reserve(sp) < 0 || take_id(sp, &page->id) < 0) {
		free(page);
		return NULL;
	}
	sp->page[page->id] = page;
	list_init(&page->link);
	return page;
}

static void page_free(struct spill_page *page)
{
	struct spill *sp = &page->task->ep->spill;

	list_remove(&page->link);
	sp->page[page->id] = NULL;
	if (sp->last == page)
		sp->last = NULL;
	if (page->id < sp->maybe_free)
		sp->maybe_free = page->id;
	free(page);
	if (!sp->count) /* a burst is over */
		spill_release(sp);
}

/* The instance is not in the page any more. */
static void take(struct spill_page *page, uint32_t i)
{
	struct spill *sp = &page->task->ep->spill;
	uint32_t *at = chain_of(sp, page->spot[i].hash);

	while (*at != id_of(page, i))
		at = &spot_of(sp, *at)->next;
	*at = page->spot[i].next;
	page->spot[i].next = SPILL_TAKEN;
	page->left--;
	sp->count--;
}

/* --- to disk --- */

bool spill_is_due(const struct sched *s)
{
	return (s->options.queue && s->in_memory > s->options.queue) ||
	       (s->options.queue_bytes && s->in_memory_bytes > s->options.queue_bytes);
}

size_t spill_keeps(const struct task *task)
{
	const struct sched *s = task->ep->s;
	int64_t count = s->in_memory, bytes = s->in_memory_bytes;
	size_t n = 0, gone = 0;

	list_each(link, &task->queue) n++;
	for (const struct list *at = task->queue.prev; at != &task->queue; at = at->prev) {
		if ((!s->options.queue || count <= s->options.queue) &&
		    (!s->options.queue_bytes || bytes <= s->options.queue_bytes))
			break;
		count--;
		bytes -= instance_bytes(list_entry(at, struct instance, link));
		gone++;
	}
	return gone ? (n - gone) / STORE_TOGETHER * STORE_TOGETHER : n;
}

static void insert(struct task *task, struct spill_page *page)
{
	struct list *at = task->pages.prev;

	while (at != &task->pages && list_entry(at, struct spill_page, link)->first > page->first)
		at = at->prev;
	list_insert_before(at->next, &page->link);
}

void spill_from(struct task *task, uint32_t first)
{
	struct spill *sp = &task->ep->spill;
	struct instance *inst =
		list_empty(&task->queue) ? NULL : list_entry(task->queue.prev, struct instance, link);
	struct spill_page *page;

	if (!inst || inst->no < first || inst->no - first >= STORE_TOGETHER)
		return;
	page = page_new(task, first, inst->no - first + 1);
	if (!page)
		return;
	insert(task, page);
	while (!list_empty(&task->queue)) {
		inst = list_entry(task->queue.prev, struct instance, link);
		if (inst->no < first)
			break;
		page->spot[inst->no - first].hash = (uint32_t)inst->node.hash;
		chain(sp, page, inst->no - first);
		page->left++;
		sp->count++;
		instance_free(inst);
	}
}

void spill_behind(struct task *task, size_t kept)
{
	struct list *at = task->queue.next;
	uint32_t first;

	while (kept-- && at != &task->queue)
		at = at->next;
	if (at == &task->queue)
		return;
	first = list_entry(at, struct instance, link)->no;
	for (size_t i = task->n_noted; i-- && task->noted[i] >= first;)
		spill_from(task, task->noted[i]);
}

/* --- and back --- */

static int copy_value(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	(void)key;
	(void)key_len;
	buf_add(data, value, value_len);
	return 1;
}

static int read_page(const struct spill_page *page, struct buf *ret)
{
	struct sched *s = page->task->ep->s;
	char key[KEY_SIZE];
	int r;

	key_format(key, KEY_INSTANCES, page->task->ep->name, page->task->seq, page->first, "");
	r = s->ops->scan(s->host, key, strlen(key), copy_value, ret);
	if (r >= 0)
		r = buf_status(ret);
	return r < 0 ? r : ret->len ? 0 : -ENOENT;
}

/* The page's i-th instance; NULL: it can't be read. Borrowed until the next call. */
static const char *look_up(struct spill_page *page, uint32_t i, uint64_t *ret_ino)
{
	struct spill *sp = &page->task->ep->spill;
	const char *at, *end, *path;

	if (sp->last != page) {
		sp->last = NULL;
		buf_clear(&sp->record);
		if (read_page(page, &sp->record) < 0)
			return NULL;
		sp->last = page;
	}
	at = sp->record.data;
	end = at + sp->record.len;
	while (i-- && at < end)
		at += strlen(at) + 1;
	return store_next_instance(&at, end, ret_ino, &path) ? path : NULL;
}

static struct instance *recall(struct spill_page *page, uint32_t i, uint64_t ino, const char *path)
{
	struct task *task = page->task;
	struct instance *inst = instance_new(task->batch, path, ino);

	if (!inst)
		return NULL;
	take(page, i);
	if (task == task->batch->draft)
		draft_withdraw(task, inst, page->first + i);
	else
		instance_wait(inst, task, page->first + i);
	return inst;
}

static void page_forget(struct spill_page *page)
{
	struct task *task = page->task;

	task->n_queued -= page->left;
	task->ep->s->dispatch.n_queued -= page->left;
	for (uint32_t i = 0; i < page->n; i++)
		if (page->spot[i].next != SPILL_TAKEN)
			take(page, i);
	page_free(page);
}

/* Its record can't be read, or there is no memory for what is in it: the task does not end in this run. */
static void lose(struct spill_page *page, int r)
{
	struct task *task = page->task;

	log_error("%s: %u instances are answered after the next start: %s", task->id, page->left,
		  strerror(-r));
	page_forget(page);
	dispatch_task_less(task);
}

/* Before all that is in the queue. */
static void page_in(struct spill_page *page)
{
	struct task *task = page->task;
	struct list rest;
	struct buf record = BUF_INIT;
	const char *at, *path;
	uint64_t ino;
	int r = read_page(page, &record);

	list_init(&rest);
	list_splice(&rest, &task->queue);
	at = record.data;
	for (uint32_t i = 0; r == 0 && i < page->n; i++) {
		if (!store_next_instance(&at, record.data + record.len, &ino, &path))
			r = -EBADMSG;
		else if (page->spot[i].next != SPILL_TAKEN && (!path || !recall(page, i, ino, path)))
			r = path ? -ENOMEM : -EBADMSG;
	}
	buf_release(&record);
	list_splice(&task->queue, &rest);
	if (r < 0)
		lose(page, r);
	else
		page_free(page);
}

struct instance *task_next(struct task *task)
{
	list_each(link, &task->pages)
	{
		struct spill_page *page = list_entry(link, struct spill_page, link);

		if (!list_empty(&task->queue) &&
		    list_entry(task->queue.next, struct instance, link)->no < page->first)
			break;
		page_in(page);
	}
	return list_empty(&task->queue) ? NULL : list_entry(task->queue.next, struct instance, link);
}

/* The page that has an instance of that path, and which one of it that is; NULL: none. */
static struct spill_page *find(const struct endpoint *ep, const char *path, uint32_t *ret_i,
			       uint64_t *ret_ino)
{
	const struct spill *sp = &ep->spill;
	uint32_t hash, next;

	if (!sp->count)
		return NULL;
	hash = (uint32_t)table_hash(path);
	for (uint32_t id = *chain_of(sp, hash); id; id = next) {
		struct spill_page *page = page_of(sp, id);
		const char *found;

		next = spot_of(sp, id)->next;
		if (spot_of(sp, id)->hash != hash)
			continue;
		*ret_i = (id - 1) % STORE_TOGETHER;
		found = look_up(page, *ret_i, ret_ino);
		if (found && strcmp(found, path) == 0)
			return page;
	}
	return NULL;
}

bool spill_has(const struct endpoint *ep, const char *path)
{
	uint64_t ino;
	uint32_t i;

	return find(ep, path, &i, &ino) != NULL;
}

struct instance *spill_find(struct endpoint *ep, const char *path)
{
	uint64_t ino;
	uint32_t i;
	struct spill_page *page = find(ep, path, &i, &ino);
	struct instance *inst = page ? recall(page, i, ino, path) : NULL;

	if (page && !page->left)
		page_free(page);
	return inst;
}

static void recall_below(struct task *task, const char *dir)
{
	size_t len = strlen(dir);

	list_each(link, &task->pages)
	{
		struct spill_page *page = list_entry(link, struct spill_page, link);
		struct buf record = BUF_INIT;
		const char *at, *path;
		uint64_t ino;
		int r = read_page(page, &record);

		at = record.data;
		for (uint32_t i = 0; r == 0 && i < page->n; i++) {
			if (!store_next_instance(&at, record.data + record.len, &ino, &path))
				break;
			if (page->spot[i].next != SPILL_TAKEN && path && strncmp(path, dir, len) == 0 &&
			    path[len] == '/')
				recall(page, i, ino, path);
		}
		buf_release(&record);
		if (!page->left)
			page_free(page);
	}
}

void spill_recall_below(struct batch *batch, const char *dir)
{
	if (!batch->ep->spill.count)
		return;
	if (batch->draft)
		recall_below(batch->draft, dir);
	list_each(link, &batch->tasks) recall_below(list_entry(link, struct task, batch_link), dir);
}

void spill_forget(struct task *task)
{
	list_each(link, &task->pages) page_forget(list_entry(link, struct spill_page, link));
}
