#include "sched/internal.h"

#include "engine/base/log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Until the first publications were measured: what they take on the idle 2-core machine. */
#define GUESSED_LAG       300e3
#define GUESSED_COST      200e3
#define GUESSED_DEVIATION 100e3
#define MARGIN            4 /* deviations, as TCP's retransmission timer takes (RFC 6298) */
/* Deviations; chosen: a plan that is too careful is mended as it runs, a bold one is late. */
#define RESERVE        0.5
#define LAG_WEIGHT     (1.0 / 8)
#define CLIP           4 /* chosen: a measurement counts at most so many times the mean (and a guess more) */
#define COST_WEIGHT    (1.0 / 32) /* chosen: a mini-batch's worth */
#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_MAX_NS   (5 * NS_PER_S)

void outbox_init(struct outbox *box)
{
	*box = (struct outbox){
		.lag_ns = GUESSED_LAG, .cost_ns = GUESSED_COST, .deviation_ns = GUESSED_DEVIATION};
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

/* The first measurement replaces the guess. */
static void follow(double *mean, double took, double weight, double *deviation, bool *measured)
{
	if (!*measured) {
		*measured = true;
		*mean = took;
		*deviation = took / 2;
		return;
	}
	/* A thread that lost its core for a while says little about the next thousand publications. */
	took = fmin(took, CLIP * *mean + GUESSED_DEVIATION);
	*deviation += weight * (fabs(took - *mean) - *deviation);
	*mean += weight * (took - *mean);
}

/* computed: an answer that something was computed for. A row of dropped ones, with the device idle, goes faster than
 * what is planned ever will where both share cores. */
static void measure(struct outbox *box, int64_t handed, int64_t visible, bool computed)
{
	int64_t took = visible - box->last_visible;

	if (handed >= box->last_visible)
		follow(&box->lag_ns, (double)(visible - handed), LAG_WEIGHT, &box->deviation_ns,
		       &box->lag_measured);
	else if (took >= 0 && computed)
		follow(&box->cost_ns, (double)took, COST_WEIGHT, &box->deviation_ns, &box->cost_measured);
	if (!box->cost_measured && box->lag_ns < box->cost_ns)
		box->cost_ns = box->lag_ns; /* no more than that */
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
		r = s->ops->publish(s->host, &(struct host_publication){.path = p->path,
									.content = p->content.data,
									.len = p->content.len,
									.flags = HOST_RESULT,
									.owner_ino = p->owner_ino,
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

int64_t outbox_cost(const struct outbox *box, size_t k)
{
	return (int64_t)((box->cost_ns + RESERVE * box->deviation_ns) * (double)k);
}

int64_t outbox_margin(const struct outbox *box)
{
	return (int64_t)(box->lag_ns + MARGIN * box->deviation_ns);
}

int64_t outbox_delay(const struct outbox *box)
{
	return outbox_cost(box, box->outstanding) + outbox_margin(box);
}
