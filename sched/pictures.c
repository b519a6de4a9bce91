/*
 * Grad-CAM pictures of what was answered, a few at a time, when no prediction waits or runs. Each has a record from its answer's
 * publication until its own.
 */
#include "sched/internal.h"
#include "sched/minibatch.h"
#include "sched/result.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* What a task that comes meanwhile waits for: instances, and no more of them than take that long; chosen. */
#define EXPLAIN_BATCH 8
#define EXPLAIN_NS    (5 * NS_PER_MS)
#define MAX_PICTURE   (64u << 20)

void pictures_add(struct sched *s, struct picture *picture)
{
	list_append(&s->dispatch.pictures, &picture->link);
	dispatch_kick(s);
}

void pictures_forget(struct endpoint *ep)
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

/* Decoding and drawing may take longer than the network: as measured of late. Until then, forward and backward. */
static int64_t expected_ns(const struct device *device, const struct picture *p, int n)
{
	const struct profile *profile = &p->ep->on[device->number].profile;

	return n * (p->ep->picture_ns ? p->ep->picture_ns : 3 * profile_expect_ns(profile, p->submodel, 1));
}

static void measure(struct endpoint *ep, int64_t ns)
{
	ep->picture_ns += ep->picture_ns ? (ns - ep->picture_ns) / 4 : ns;
}

static bool is_like_last(const struct device *device, const struct picture *p)
{
	return p->ep->number == device->pictured && p->submodel == device->pictured_submodel;
}

/* Those of no sub-model that there is are for any device: they are not made. */
static bool can_make(const struct device *device, const struct picture *p)
{
	const struct served *on = &p->ep->on[device->number];

	return on->ready &&
	       (p->submodel < 0 || p->submodel >= p->ep->n_submodels || on->number[p->submodel] >= 0);
}

/* Where to begin: of the sub-model of the last ones while there are any, since changing it costs more than many pictures. */
static struct list *first_picture(const struct device *device)
{
	struct dispatch *d = &device->s->dispatch;

	list_each(link, &d->pictures)
	{
		const struct picture *p = list_entry(link, struct picture, link);

		if (can_make(device, p) && is_like_last(device, p))
			return link;
	}
	return d->pictures.next;
}

void pictures_next(struct device *device)
{
	struct sched *s = device->s;
	struct dispatch *d = &s->dispatch;
	struct instance_input in[EXPLAIN_BATCH];
	int labels[EXPLAIN_BATCH], r = 0;
	float scores[EXPLAIN_BATCH];
	struct minibatch *mb = NULL;
	bool forgot = false;

	for (struct list *link = first_picture(device), *next; link != &d->pictures; link = next) {
		struct picture *p = list_entry(link, struct picture, link);
		void *bytes = NULL;
		size_t len = 0;

		next = link->next;
		if (!can_make(device, p) || (mb && (mb->ep != p->ep || mb->submodel != p->submodel)))
			continue;
		list_remove(link);
		if (!p->ep->spec.gradcam || p->label < 0 || p->label >= p->ep->n_labels || p->submodel < 0 ||
		    p->submodel >= p->ep->n_submodels || p->tries >= MAX_TRIES ||
		    s->ops->read(s->host, p->ino, MAX_INSTANCE, &bytes, &len) < 0) {
			picture_forget(s, p); /* removed, of another model, or not asked for any more */
			forgot = true;
			continue;
		}
		if (!mb) {
			mb = minibatch_new(s, p->ep, EXPLAIN_BATCH);
			if (!mb) {
				free(bytes);
				list_prepend(&d->pictures, &p->link);
				return;
			}
			mb->device = device;
			mb->explains = true;
			mb->submodel = p->submodel;
		}
		in[mb->n] = (struct instance_input){.id = (uint64_t)mb->n, .data = bytes, .len = len};
		labels[mb->n] = p->label;
		scores[mb->n] = p->score;
		mb->picture[mb->n++] = p;
		if (mb->n == EXPLAIN_BATCH || mb->n == p->ep->spec.batch || !p->ep->picture_ns ||
		    expected_ns(device, p, mb->n + 1) > EXPLAIN_NS)
			break;
	}
	if (!mb) {
		if (forgot) /* those before it */
			dispatch_kick(s);
		return;
	}
	mb->handed = loop_now(s->loop);
	mb->expected = expected_ns(device, mb->picture[0], mb->n); /* only needed until it is done */
	device->pictured = mb->ep->number;
	device->pictured_submodel = mb->submodel;
	r = device->ex->ops->explain(device->ex, mb->id, mb->ep->number,
				     mb->ep->on[device->number].number[mb->submodel], in, labels, scores,
				     mb->n);
	for (int i = 0; i < mb->n; i++)
		free((void *)in[i].data);
	if (r == 0) {
		device->out[device->n_out++] = mb;
		return;
	}
	for (int i = mb->n; i-- > 0;)
		list_prepend(&d->pictures, &mb->picture[i]->link);
	if (r == -EAGAIN || r == -ENOTCONN)
		dispatch_set_ready(mb->ep, device, false);
	else
		dispatch_look_again(s, mb->handed + RUN_AGAIN_NS);
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

void pictures_done(struct sched *s, struct minibatch *mb, const struct batch_done *done)
{
	uint64_t at = 0;

	if (done->r == 0 && mb->n)
		measure(mb->ep, done->compute_ns / mb->n);
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
