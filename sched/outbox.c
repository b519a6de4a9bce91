#include "sched/internal.h"

#include "engine/base/log.h"
#include "sched/quantile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Until the first publications were measured: what they take on the idle 2-core machine. */
#define GUESSED_LAG    300e3
#define GUESSED_COST   150e3
#define GUESSED_STALL  3e6 /* Linux's slice: another program's turn on our core */
#define FEW_BLOCKS     16  /* to say how long the longest stalls are; chosen */
#define DOUBT          1.5 /* times a guess; chosen */
#define BLOCK          32  /* publications; chosen: a mini-batch's worth */
#define QUANTILE       0.9 /* chosen */
#define LAG_WEIGHT     (1.0 / 8)
#define COST_WEIGHT    (1.0 / 64) /* chosen: two mini-batches' worth */
#define OUTLIER        4.0        /* times what it is of late; chosen */
#define DROPPED_FASTER 2.0        /* times, at most; chosen */
#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS   (5 * NS_PER_S)

void outbox_init(struct outbox *box)
{
	*box = (struct outbox){.lag = {.of_late = GUESSED_LAG, .careful = DOUBT * GUESSED_LAG},
			       .cost = {.of_late = GUESSED_COST, .careful = DOUBT * GUESSED_COST}};
	list_init(&box->parcels);
}

struct parcel *parcel_new(struct endpoint *ep)
{
	struct parcel *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	list_init(&p->link);
	p->ep = ep;
	ep->refs++;
	return p;
}

void parcel_free(struct parcel *p)
{
	if (!p)
		return;
	list_remove(&p->link);
	loop_timer_cancel(p->ep->s->loop, p->retry);
	free(p->path);
	free(p->data);
	buf_release(&p->content);
	opset_release(&p->ops);
	endpoint_unref(p->ep);
	free(p);
}

void outbox_release(struct outbox *box)
{
	list_each(link, &box->parcels) parcel_free(list_entry(link, struct parcel, link));
}

static void hand_over(struct parcel *p);

static void retry(void *data)
{
	struct parcel *p = data;

	p->retry = NULL;
	hand_over(p);
}

/* Errors that no retry mends: the name can't be made. The instance's own xattr and the row of results.csv
 * then are its answer. */
static bool is_hopeless(int r)
{
	return r == -EISDIR || r == -ENOTDIR || r == -ENAMETOOLONG || r == -EINVAL || r == -ELOOP;
}

static void settle(struct parcel *p, bool visible)
{
	if (p->done)
		p->done(p, visible && !p->ep->gone);
	parcel_free(p);
}

static void settle_hopeless(void *data)
{
	struct parcel *p = data;

	p->retry = NULL;
	settle(p, true);
}

static void failed(struct parcel *p, int r)
{
	struct sched *s = p->ep->s;
	int64_t wait = RETRY_FIRST_NS << (p->attempts < 6 ? p->attempts : 6);

	if (s->stopping)
		return; /* its records stay: it is published after the next start */
	if (!p->ep->gone)
		log_warn("%s: publishing failed: %s", p->path, strerror(-r));
	/* From the loop: the caller of outbox_send does not expect to be answered from within. */
	if (p->ep->gone || (is_hopeless(r) && opset_commit(&p->ops, s) == 0)) {
		p->retry = loop_timer_at(s->loop, loop_now(s->loop), settle_hopeless, p);
		return;
	}
	p->attempts++;
	p->retry = loop_timer_at(s->loop, loop_now(s->loop) + (wait < RETRY_MAX_NS ? wait : RETRY_MAX_NS),
				 retry, p);
	if (!p->retry)
		log_error("%s: out of memory, published after the next start", p->path);
}

static void keep(struct outbox_figure *figure, double ns)
{
	figure->careful = quantile_keep(figure->recent, OUTBOX_BLOCKS, &figure->n, ns, QUANTILE);
}

/* What a measurement counts for in a figure of late, of which it is too much for a mean (an Huber's influence function: Ann. Math. Stat.
 * 35, 1964): one stall of a second among 64 would be 16 ms for each, and then no mini-batch's answers seemed to be in time. */
static double bounded(double ns, double of_late)
{
	return fmin(ns, fmax(OUTLIER * of_late, GUESSED_STALL));
}

/*
 * computed: an answer that something was computed for. A row of dropped ones, with the device idle, goes faster than
 * what is planned ever will where both share cores; but not twice as fast: where nothing seems to be in time all are dropped, and then only
 * they tell that publishing has become fast again.
 */
static void measure(struct outbox *box, int64_t handed, int64_t visible, bool computed)
{
	double took = (double)(visible - box->last_visible), lag = (double)(visible - handed);

	if (handed >= box->last_visible) {
		box->lag.of_late =
			box->lag.n ? box->lag.of_late +
					     LAG_WEIGHT * (bounded(lag, box->lag.of_late) - box->lag.of_late)
				   : lag;
		keep(&box->lag, lag);
		if (!box->cost.n && lag < box->cost.of_late) { /* no more than that */
			box->cost.of_late = lag;
			box->cost.careful = DOUBT * lag;
		}
	} else if (took >= 0 && computed) {
		box->cost.of_late += COST_WEIGHT * (bounded(took, box->cost.of_late) - box->cost.of_late);
		box->block_ns += took;
		box->block_longest = fmax(box->block_longest, took);
		if (++box->block_n == BLOCK) {
			keep(&box->cost, box->block_ns / BLOCK);
			keep(&box->stall, box->block_longest);
			if (box->cost.n < FEW_BLOCKS) {
				box->cost.careful *= DOUBT;
				box->stall.careful = fmax(box->stall.careful, GUESSED_STALL);
			}
			box->block_ns = box->block_longest = 0;
			box->block_n = 0;
		}
	} else if (took >= 0 && DROPPED_FASTER * took < box->cost.of_late) {
		box->cost.of_late += COST_WEIGHT * (DROPPED_FASTER * took - box->cost.of_late);
	}
	box->last_visible = visible;
}

static void published(void *data, int r, int64_t visible)
{
	struct parcel *p = data;
	struct sched *s = p->ep->s;

	s->outbox.outstanding--;
	if (r < 0 && r != -ETIME) {
		failed(p, r);
	} else {
		if (r == 0)
			measure(&s->outbox, p->handed, visible, p->computed);
		p->expired = r == -ETIME;
		p->visible_at = visible;
		settle(p, true);
	}
	dispatch_kick(s);
}

static void hand_over(struct parcel *p)
{
	struct sched *s = p->ep->s;
	const struct host_op *ops = opset_ops(&p->ops);
	int r = -ENOMEM;

	if (p->ep->gone) {
		failed(p, -ENOENT);
		return;
	}
	p->handed = loop_now(s->loop);
	s->outbox.outstanding++;
	if ((ops || !p->ops.n) && !p->content.failed)
		r = s->ops->publish(s->host,
				    &(struct host_publication){.path = p->path,
							       .content = p->content.data,
							       .len = p->content.len,
							       .flags = HOST_RESULT,
							       .owner_ino = p->owner_ino,
							       .access = p->has_access ? &p->access : NULL,
							       .ops = ops,
							       .n_ops = p->ops.n,
							       .due = p->publish_by,
							       .done = published,
							       .data = p});
	if (r < 0) {
		s->outbox.outstanding--;
		failed(p, r);
	}
}

void outbox_send(struct parcel *p)
{
	list_append(&p->ep->s->outbox.parcels, &p->link);
	hand_over(p);
}

static double seen(const struct outbox_figure *figure, enum outbox_view view)
{
	return view == OUTBOX_CAREFUL && figure->careful > figure->of_late ? figure->careful
									   : figure->of_late;
}

int64_t outbox_cost(const struct outbox *box, enum outbox_view view, size_t k)
{
	return (int64_t)(seen(&box->cost, view) * (double)k);
}

int64_t outbox_margin(const struct outbox *box, enum outbox_view view)
{
	return (int64_t)seen(&box->lag, view) + (view == OUTBOX_CAREFUL ? (int64_t)box->stall.careful : 0);
}

int64_t outbox_delay(const struct outbox *box)
{
	return outbox_cost(box, OUTBOX_OF_LATE, box->outstanding) / 2;
}
