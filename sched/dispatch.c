/*
 * What runs next. Two mini-batches are at the executor at a time; whenever there is room for one, it is
 * chosen anew from what is queued and from the time there is by now. So a plan is never followed blindly:
 * its first mini-batch is taken, and the rest is planned again with what that one really took. With exact
 * times the next plan is the rest of the last one.
 *
 * Which sub-model and how many instances: choose.c. Tasks without a deadline fill what is free. Pictures
 * are made when no prediction waits or runs.
 *
 * What can't be in time is dropped when nothing of its task runs any more: until then a mini-batch may turn
 * out shorter than thought. Dropped answers wait for the answers of computed ones (outbox).
 *
 * A mini-batch that the worker died with runs again, up to three times in all; then its instances run in
 * halves, until the one that kills the worker is alone and failed. Only the first of two outstanding ones
 * is suspected: the other did not run yet.
 */
#include "sched/choose.h"
#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_INSTANCE    (64u << 20)  /* bytes of one file; chosen */
#define MAX_BYTES       (128u << 20) /* of one mini-batch's files; chosen */
#define MAX_TRIES       3
#define MAX_UNPUBLISHED 2048 /* answers on their way; bounds memory when the disk is slower than the device */
#define MAX_DROPS       64   /* dropped answers handed over at a time */
#define LOOK_AGAIN_NS   (2 * NS_PER_MS) /* chosen: a few publications */
#define RUN_AGAIN_NS    (10 * NS_PER_MS)
#define EXPLAIN_BATCH   8 /* instances: what a task that comes meanwhile waits for */
#define MAX_PICTURE     (64u << 20)

void dispatch_init(struct dispatch *d)
{
	list_init(&d->due);
	list_init(&d->free);
	list_init(&d->removing);
	list_init(&d->pictures);
}

/* The instances and pictures it holds; the endpoint's tables went before when it is gone. */
static void abandon(struct minibatch *mb)
{
	for (int i = 0; i < mb->n; i++) {
		if (mb->explains)
			free(mb->picture[i]);
		else if (mb->ep->gone)
			free(mb->inst[i]);
		else
			instance_free(mb->inst[i]);
	}
}

static void minibatch_free(struct minibatch *mb)
{
	if (!mb)
		return;
	if (mb->ep)
		endpoint_unref(mb->ep);
	free(mb->inst);
	free(mb->picture);
	free(mb);
}

void dispatch_release(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	for (int i = 0; i < d->n_out; i++) {
		abandon(d->out[i]);
		minibatch_free(d->out[i]);
	}
	d->n_out = 0;
	list_each(link, &d->pictures) free(list_entry(link, struct picture, link));
	list_init(&d->pictures);
	loop_timer_cancel(s->loop, d->timer);
	loop_timer_cancel(s->loop, d->kick);
	d->timer = d->kick = NULL;
}

/* --- the lists --- */

void dispatch_task_gone(struct task *task)
{
	list_remove(&task->link);
}

void dispatch_task(struct sched *s, struct task *task)
{
	struct dispatch *d = &s->dispatch;

	list_remove(&task->link);
	if (task->n_queued && task->due == INT64_MAX) {
		list_append(&d->free, &task->link);
	} else if (task->n_queued) {
		struct list *at = d->due.prev;

		while (at != &d->due && list_entry(at, struct task, link)->due > task->due)
			at = at->prev;
		list_insert_before(at->next, &task->link);
	}
	dispatch_kick(s);
}

void dispatch_picture(struct sched *s, struct picture *picture)
{
	list_append(&s->dispatch.pictures, &picture->link);
	dispatch_kick(s);
}

void dispatch_forget(struct endpoint *ep)
{
	list_each(link, &ep->s->dispatch.pictures)
	{
		struct picture *picture = list_entry(link, struct picture, link);

		if (picture->ep == ep) {
			list_remove(link);
			free(picture);
		}
	}
}

/* --- running --- */

static void take(struct instance *inst)
{
	struct task *task = inst->task;

	list_remove(&inst->link);
	task->n_queued--;
	task->ep->s->dispatch.n_queued--;
	task->n_running++;
	inst->state = INSTANCE_IS_RUNNING;
	if (!task->n_queued)
		dispatch_task_gone(task);
}

static void put_back(struct instance *inst)
{
	struct task *task = inst->task;

	task->n_running--;
	task->n_queued++;
	task->ep->s->dispatch.n_queued++;
	inst->state = INSTANCE_IS_QUEUED;
	list_prepend(&task->queue, &inst->link);
	if (task->n_queued == 1)
		dispatch_task(task->ep->s, task);
}

static void answer_unread(struct instance *inst, int r)
{
	struct instance_verdict v = {0};

	inst->task->n_running--;
	if (r == -ENOENT || r == -ESTALE) {
		v.dropped = true;
		v.err.code = ERR_REMOVED;
	} else if (r == -EFBIG) {
		err_set(&v.err, ERR_IMAGE_SIZE, "more than %u MiB in the file", MAX_INSTANCE >> 20);
	} else if (r == -ELOOP || r == -EINVAL) {
		err_set(&v.err, ERR_NO_FILE, "%s",
			r == -ELOOP ? "it is a symbolic link" : "it is a device, pipe or socket");
	} else {
		err_set(&v.err, ERR_IO, "reading it: %s", strerror(-r));
	}
	instance_answer(inst, &v);
}

static void release_inputs(struct instance_input *in, int n)
{
	for (int i = 0; i < n; i++)
		free((void *)in[i].data);
	free(in);
}

/* Takes up to k instances of the group into mb, with their contents. */
static void fill(struct sched *s, struct list *list, const struct group *group, const struct choice *choice,
		 struct minibatch *mb, struct instance_input *in)
{
	struct list *at = &group->first->link;
	uint16_t limit = list_entry(group->first->queue.next, struct instance, link)->limit;
	size_t bytes = 0;
	int seen = 0, k = choice->k;

	if (limit && k > limit)
		k = limit;
	while (mb->n < k && at != list && seen++ < LOOK_AHEAD && bytes < MAX_BYTES) {
		struct task *task = list_entry(at, struct task, link);

		if (task->due > group->until && !choice->shared)
			break;
		at = at->next; /* the task leaves the list with its last instance */
		if (task->ep != mb->ep)
			continue;
		while (mb->n < k && !list_empty(&task->queue) && bytes < MAX_BYTES) {
			struct instance *inst = list_entry(task->queue.next, struct instance, link);
			void *data = NULL;
			size_t len = 0;
			int r;

			if (inst->limit != limit)
				return; /* suspects run among themselves */
			take(inst);
			r = s->ops->read(s->host, inst->ino, MAX_INSTANCE, &data, &len);
			if (r < 0) {
				answer_unread(inst, r);
				continue;
			}
			bytes += len;
			in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = data, .len = len};
			mb->inst[mb->n++] = inst;
		}
	}
}

static struct minibatch *minibatch_new(struct sched *s, struct endpoint *ep, int k)
{
	struct minibatch *mb = calloc(1, sizeof(*mb));

	if (!mb)
		return NULL;
	mb->id = ++s->dispatch.next_id;
	mb->inst = calloc(k, sizeof(struct instance *));
	mb->picture = calloc(k, sizeof(struct picture *));
	if (!mb->inst || !mb->picture) {
		minibatch_free(mb);
		return NULL;
	}
	mb->ep = ep;
	ep->refs++;
	return mb;
}

static void count_minibatch(struct minibatch *mb)
{
	for (int i = 0; i < mb->n; i++) {
		struct task *task = mb->inst[i]->task;

		mb->inst[i]->started = mb->handed;
		if (i > 0 && task == mb->inst[i - 1]->task)
			continue;
		task->n_real[mb->submodel]++;
		if (!task->begun)
			status_event(task->ep->s, "started", task->ep->name, task->id, task->total);
		task->begun = true;
	}
}

/* 1: something was handed over or answered; 0: not now. */
static int run(struct sched *s, struct list *list, const struct group *group, const struct choice *choice)
{
	struct dispatch *d = &s->dispatch;
	struct endpoint *ep = group->first->ep;
	struct minibatch *mb = minibatch_new(s, ep, choice->k);
	struct instance_input *in = calloc(choice->k, sizeof(*in));
	int r = -ENOMEM;

	if (!mb || !in)
		goto out;
	fill(s, list, group, choice, mb, in);
	r = 1;
	if (!mb->n)
		goto out; /* none could be read: they are answered */
	mb->submodel = choice->submodel;
	mb->handed = loop_now(s->loop);
	mb->expected = profile_expect_ns(&ep->profile, mb->submodel, mb->n);
	r = s->ex->ops->run(s->ex, mb->id, ep->number, mb->submodel, in, mb->n);
	if (r < 0) {
		for (int i = mb->n; i-- > 0;)
			put_back(mb->inst[i]);
		goto out;
	}
	count_minibatch(mb);
	d->out[d->n_out++] = mb;
	for (int i = 0; i < mb->n; i++)
		s->ops->mark(s->host, mb->inst[i]->ino, "running");
	release_inputs(in, mb->n);
	return 1;
out:
	if (in)
		release_inputs(in, mb ? mb->n : 0);
	minibatch_free(mb);
	if (r == -EAGAIN || r == -ENOTCONN) {
		ep->ready = false; /* `loaded` comes again */
		r = -EAGAIN;
	}
	return r;
}

static void kicked(void *data);

static void look_again_at(struct sched *s, int64_t at)
{
	loop_timer_cancel(s->loop, s->dispatch.timer);
	s->dispatch.timer = loop_timer_at(s->loop, at, kicked, s);
}

/* Drops some of a task's queue, or waits until there is room for such publications. */
static bool drop_some(struct sched *s, struct task *task)
{
	enum err_code code = task->ep->state == ENDPOINT_STOPPED || task->ep->state == ENDPOINT_FAILED
				     ? ERR_STOPPED
				     : ERR_NO_TIME;
	bool any = false;

	while (!list_empty(&task->queue) && s->outbox.outstanding < MAX_DROPS) {
		/* The task lives at least as long as this instance's publication. */
		task_drop_instance(list_entry(task->queue.next, struct instance, link), code);
		any = true;
	}
	return any;
}

/* A queue of 100,000 that is removed at once is answered bit by bit, too. */
static void drop_removed(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	while (!list_empty(&d->removing) && s->outbox.outstanding < MAX_DROPS)
		task_answer_removed(list_entry(d->removing.next, struct task, removing));
}

/* Hands one mini-batch over. 1: look again; 0: nothing to be done until something happens. */
static int next_due(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	int64_t now = loop_now(s->loop), start = executor_free_at(s);

	for (struct list *at = d->due.next; at != &d->due; at = at->next) {
		struct task *task = list_entry(at, struct task, link);
		struct choice choice;
		struct group group;
		int r;

		if (task->due <= now) {
			if (drop_some(s, task))
				return 1;
			continue;
		}
		if (!task->ep->ready || d->n_out >= PIPELINE)
			continue;
		group = group_of(&d->due, task, now);
		if (choose_due(s, &group, start, &choice)) {
			r = run(s, &d->due, &group, &choice);
			if (r < 0 && r != -EAGAIN)
				look_again_at(s, now + RUN_AGAIN_NS);
			return r > 0 || r == -EAGAIN;
		}
		if (!task->n_running && choose_is_hopeless(s, &group, start) && drop_some(s, task))
			return 1;
		if (!d->timer)
			look_again_at(s, now + LOOK_AGAIN_NS < task->due ? now + LOOK_AGAIN_NS : task->due);
	}
	return 0;
}

static int next_free(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	if (d->n_out >= PIPELINE)
		return 0;
	for (struct list *at = d->free.next; at != &d->free; at = at->next) {
		struct task *task = list_entry(at, struct task, link);
		struct choice choice;
		struct group group;
		int r;

		if (!task->ep->ready)
			continue;
		group = group_of(&d->free, task, 0);
		choose_free(s, &group, &choice);
		r = run(s, &d->free, &group, &choice);
		if (r < 0 && r != -EAGAIN)
			look_again_at(s, loop_now(s->loop) + RUN_AGAIN_NS);
		return r > 0 || r == -EAGAIN;
	}
	return 0;
}

/* --- pictures --- */

static void picture_forget(struct sched *s, struct picture *picture)
{
	struct opset ops = OPSET_INIT;
	char key[KEY_SIZE];

	key_format(key, KEY_PICTURE, picture->ep->name, picture->seq, picture->no, "");
	opset_add(&ops, HOST_DEL, 0, key, NULL, 0);
	opset_commit(&ops, s);
	opset_release(&ops);
	free(picture);
}

static void next_pictures(struct sched *s)
{
	struct dispatch *d = &s->dispatch;
	struct instance_input in[EXPLAIN_BATCH];
	int labels[EXPLAIN_BATCH], r = 0;
	float scores[EXPLAIN_BATCH];
	struct minibatch *mb = NULL;

	list_each(link, &d->pictures)
	{
		struct picture *p = list_entry(link, struct picture, link);
		void *bytes = NULL;
		size_t len = 0;

		if (!p->ep->ready || (mb && (mb->ep != p->ep || mb->submodel != p->submodel)))
			continue;
		list_remove(link);
		if (!p->ep->spec.gradcam || p->label < 0 || p->label >= p->ep->n_labels || p->submodel < 0 ||
		    p->submodel >= p->ep->n_submodels || p->tries >= MAX_TRIES ||
		    s->ops->read(s->host, p->ino, MAX_INSTANCE, &bytes, &len) < 0) {
			picture_forget(s, p); /* removed, of another model, or not asked for any more */
			continue;
		}
		if (!mb) {
			mb = minibatch_new(s, p->ep, EXPLAIN_BATCH);
			if (!mb) {
				free(bytes);
				list_prepend(&d->pictures, &p->link);
				return;
			}
			mb->explains = true;
			mb->submodel = p->submodel;
		}
		in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = bytes, .len = len};
		labels[mb->n] = p->label;
		scores[mb->n] = p->score;
		mb->picture[mb->n++] = p;
		if (mb->n == EXPLAIN_BATCH || mb->n == p->ep->spec.batch)
			break;
	}
	if (!mb)
		return;
	mb->handed = loop_now(s->loop);
	/* Forward and backward of one instance at a time; only needed until it is done. */
	mb->expected = 3 * mb->n * profile_expect_ns(&mb->ep->profile, mb->submodel, 1);
	r = s->ex->ops->explain(s->ex, mb->id, mb->ep->number, mb->submodel, in, labels, scores, mb->n);
	for (int i = 0; i < mb->n; i++)
		free((void *)in[i].data);
	if (r == 0) {
		d->out[d->n_out++] = mb;
		return;
	}
	for (int i = mb->n; i-- > 0;)
		list_prepend(&d->pictures, &mb->picture[i]->link);
	if (r == -EAGAIN || r == -ENOTCONN)
		mb->ep->ready = false;
	else
		look_again_at(s, mb->handed + RUN_AGAIN_NS);
	minibatch_free(mb);
}

static void picture_visible(struct parcel *p, bool visible)
{
	if (visible) {
		p->ep->stats.explained++;
		endpoint_publish_stats(p->ep);
	}
}

static void publish_picture(struct sched *s, struct picture *picture, int fd, uint64_t at, uint64_t len)
{
	struct parcel *p = len && len <= MAX_PICTURE ? parcel_new(picture->ep) : NULL;
	char key[KEY_SIZE], *bytes;

	if (!p) {
		picture_forget(s, picture);
		return;
	}
	bytes = buf_reserve(&p->content, len);
	p->path = result_path(picture->ep, picture->path, ".gradcam.png");
	if (!bytes || !p->path || pread(fd, bytes, len, (off_t)at) != (ssize_t)len) {
		parcel_free(p);
		picture_forget(s, picture);
		return;
	}
	p->content.len = len;
	p->owner_ino = picture->ino;
	p->done = picture_visible;
	key_format(key, KEY_PICTURE, picture->ep->name, picture->seq, picture->no, "");
	opset_add(&p->ops, HOST_DEL, 0, key, NULL, 0);
	free(picture);
	outbox_send(p);
}

static void pictures_done(struct sched *s, struct minibatch *mb, const struct batch_done *done)
{
	uint64_t at = 0;

	for (int i = 0; i < mb->n; i++) {
		struct picture *picture = mb->picture[i];

		if (done->r < 0) {
			picture->tries++;
			list_append(&s->dispatch.pictures, &picture->link);
		} else {
			uint64_t len = i < done->n && done->picture_len ? done->picture_len[i] : 0;

			publish_picture(s, picture, done->picture_fd, at, len);
			at += len;
		}
	}
}

/* --- the executor's answers --- */

static void blame(struct minibatch *mb, bool suspected)
{
	for (int i = mb->n; i-- > 0;) {
		struct instance *inst = mb->inst[i];

		if (suspected && ++inst->tries >= MAX_TRIES)
			inst->limit = (uint16_t)((mb->n + 1) / 2);
		if (suspected && inst->tries >= MAX_TRIES && mb->n == 1) {
			struct instance_verdict v = {0};

			err_set(&v.err, ERR_WORKER_DIED, "%d times with this instance", inst->tries);
			inst->task->n_running--;
			instance_answer(inst, &v);
			continue;
		}
		put_back(inst);
	}
}

static void answers_done(struct minibatch *mb, const struct batch_done *done)
{
	const struct instance_answer **answers = calloc(mb->n, sizeof(*answers));

	for (int i = 0; answers && i < done->n; i++)
		if (done->answers[i].id < (uint64_t)mb->n)
			answers[done->answers[i].id] = &done->answers[i];
	for (int i = 0; i < mb->n; i++) {
		struct instance *inst = mb->inst[i];
		struct instance_verdict v = {.answer = answers ? answers[i] : NULL,
					     .submodel = mb->submodel,
					     .compute_ns = done->compute_ns};

		if (!v.answer)
			err_set(&v.err, ERR_PROTOCOL, "the worker gave no answer for it");
		else if (!v.answer->failed)
			inst->task->expected += mb->ep->submodels[mb->submodel].accuracy;
		inst->task->n_running--;
		instance_answer(inst, &v);
	}
	free(answers);
}

void dispatch_done(void *data, const struct batch_done *done)
{
	struct sched *s = data;
	struct dispatch *d = &s->dispatch;
	int64_t now = loop_now(s->loop), started;
	struct minibatch *mb = NULL;
	int i = 0;

	while (i < d->n_out && d->out[i]->id != done->batch)
		i++;
	if (i == d->n_out)
		return; /* nothing of ours */
	mb = d->out[i];
	memmove(&d->out[i], &d->out[i + 1], (d->n_out - i - 1) * sizeof(struct minibatch *));
	d->n_out--;
	started = mb->handed > d->last_done ? mb->handed : d->last_done;
	/* What the next one has to reckon with is the time between two answers, not the computing alone. */
	if (done->r == 0 && !mb->explains && mb->ep->ready)
		profile_measured(&mb->ep->profile, mb->submodel, mb->n, now - started);
	if (done->r == 0)
		d->last_done = now;
	if (mb->ep->gone) {
		abandon(mb);
	} else if (mb->explains) {
		pictures_done(s, mb, done);
	} else if (done->r < 0) {
		/* The first that is answered so ran; the other one of the same death still waited. */
		blame(mb, !d->dying);
	} else {
		answers_done(mb, done);
	}
	d->dying = done->r < 0;
	minibatch_free(mb);
	dispatch_kick(s);
}

/* --- the wheel --- */

static void pump(struct sched *s)
{
	struct dispatch *d = &s->dispatch;

	loop_timer_cancel(s->loop, d->timer);
	d->timer = NULL;
	if (s->stopping)
		return;
	drop_removed(s);
	while (s->outbox.outstanding < MAX_UNPUBLISHED && (next_due(s) || next_free(s)))
		;
	if (!d->n_out && !s->outbox.outstanding && s->ex) {
		bool waits = false;

		for (struct list *at = d->due.next; at != &d->due && !waits; at = at->next)
			waits = list_entry(at, struct task, link)->ep->ready;
		if (!waits)
			next_pictures(s);
	}
	if (!d->timer && !list_empty(&d->due)) {
		int64_t due = list_entry(d->due.next, struct task, link)->due;

		if (due > loop_now(s->loop))
			look_again_at(s, due);
	}
}

static void kicked(void *data)
{
	struct sched *s = data;

	s->dispatch.timer = NULL;
	pump(s);
}

static void kick_fires(void *data)
{
	struct sched *s = data;

	s->dispatch.kick = NULL;
	pump(s);
}

void dispatch_kick(struct sched *s)
{
	if (!s->dispatch.kick && !s->stopping)
		s->dispatch.kick = loop_timer_at(s->loop, loop_now(s->loop), kick_fires, s);
}

bool dispatch_runs(const struct sched *s, const char *path)
{
	const struct minibatch *mb = s->dispatch.n_out ? s->dispatch.out[0] : NULL;

	for (int i = 0; mb && !mb->explains && i < mb->n; i++)
		if (strcmp(mb->inst[i]->path, path) == 0)
			return true;
	return false;
}
