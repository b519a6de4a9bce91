/*
 * The null executor: answers are worked out when a batch is handed over and kept until its time has passed on
 * the loop's clock. Every callback comes from a timer, so none comes from within a call, and free() has only
 * timers to cancel.
 *
 * The queue: slots[0] runs and `timer` is its end; slots[1] waits and starts at the end of slots[0].
 */
#include "sched/executor.h"
#include "sched/loop.h"

#include "engine/base/rng.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS          2     /* executor.h promises it */
#define MAX_MODEL      65536 /* bytes of model.json; chosen */
#define MAX_CLASSES    10000 /* chosen */
#define MAX_MS         1e7   /* of a mini-batch, nearly three hours; chosen */
#define MAX_DURATION_S 1e6   /* factor included */

/* A PNG of one grey pixel. */
static const uint8_t picture[] = {
	0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00,
	0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00,
	0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x68, 0x00, 0x00, 0x00, 0x82, 0x00, 0x81,
	0x77, 0xcd, 0x72, 0xb6, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82};

struct endpoint {
	struct endpoint *next;
	struct null *null;
	uint32_t number;
	int batch; /* S */
	int r;     /* what `loaded` says */
	struct err err;
	struct submodel submodels[MAX_SUBMODELS];
	struct submodel told[MAX_SUBMODELS]; /* with the times that `loaded` says */
	int n_submodels;
	char **labels; /* (n_labels) */
	int n_labels;
	int64_t load_ns;          /* how long loading takes */
	bool loaded;              /* `loaded` was called with 0 since the start or the last death */
	struct loop_timer *timer; /* that will call it; NULL: not to be called */
};

struct slot {
	uint64_t batch;
	int64_t duration; /* without the factor */
	int n;
	struct instance_answer *answers; /* (n); NULL: an explanation */
	uint64_t *picture_len;           /* (n); NULL: a run */
	int64_t ns;                      /* with the factor; set when it starts */
};

struct null {
	struct executor ex;
	struct loop *loop;
	const struct executor_events *events;
	void *data;
	double factor, speed, noise;
	struct rng rng;
	double stalls;              /* a second */
	int64_t stall_at, stall_ns; /* the next one: loop_now; how long each is */
	struct rng stall_rng;
	struct endpoint *endpoints;
	struct slot slots[SLOTS];
	int n_slots;
	struct loop_timer *timer, *kill_timer;
};

static struct null *null_of(struct executor *ex)
{
	return (struct null *)ex;
}

static struct endpoint *find(struct null *null, uint32_t number)
{
	struct endpoint *ep = null->endpoints;

	while (ep && ep->number != number)
		ep = ep->next;
	return ep;
}

/* --- the model file --- */

static int number(const cJSON *object, const char *key, double min, double max, double *ret, struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!item)
		return err_set(err, ERR_SPEC_MISSING, "%s", key);
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
		return err_set(err, ERR_SPEC_VALUE, "%s is not a number from %g to %g", key, min, max);
	*ret = item->valuedouble;
	return 0;
}

/* Where the key is there. */
static int shares(const cJSON *list, const char *what, float ret[CASCADE_POINTS], struct err *err)
{
	const cJSON *item;
	int i = 0;

	if (!list)
		return 0;
	if (cJSON_GetArraySize(list) != CASCADE_POINTS)
		return err_set(err, ERR_SPEC_VALUE, "%s is not a list of %d", what, CASCADE_POINTS);
	cJSON_ArrayForEach(item, list)
	{
		if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 1))
			return err_set(err, ERR_SPEC_VALUE, "%s holds what is no number from 0 to 1", what);
		ret[i++] = (float)item->valuedouble;
	}
	return 0;
}

static int parse_cascades(struct submodel *ret, const cJSON *json, struct err *err)
{
	const cJSON *then = cJSON_GetObjectItemCaseSensitive(json, "then"), *item;
	int i = 0, r = shares(cJSON_GetObjectItemCaseSensitive(json, "threshold"), "threshold",
			      ret->first.threshold, err);

	if (r == 0)
		r = shares(cJSON_GetObjectItemCaseSensitive(json, "sure"), "sure", ret->first.sure, err);
	cJSON_ArrayForEach(item, then)
	{
		if (r < 0 || i == MAX_SUBMODELS)
			break;
		r = shares(item, "then", ret->then[i++], err);
	}
	return r;
}

/* "parts": [[member,slice],…] of an ensemble's. */
static int parse_parts(struct submodel *ret, const cJSON *json, int n_members, struct err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "parts"), *item;

	cJSON_ArrayForEach(item, list)
	{
		const cJSON *member = cJSON_GetArrayItem(item, 0), *slice = cJSON_GetArrayItem(item, 1);

		if (ret->n_parts == n_members || !cJSON_IsNumber(member) || !cJSON_IsNumber(slice) ||
		    !(member->valuedouble >= 0 && member->valuedouble < n_members))
			return err_set(err, ERR_SPEC_VALUE, "parts");
		ret->parts[ret->n_parts++] = (struct submodel_part){.member = (int)member->valuedouble,
								    .slice = (float)slice->valuedouble,
								    .precision = "f32"};
	}
	return 0;
}

static int parse_submodel(struct submodel *ret, struct submodel *told, const cJSON *json, int n_members,
			  struct err *err)
{
	double slice = 0, accuracy = 0, ms = 0, one_ms = 0, told_ms = 0;
	int r;

	if ((r = number(json, "slice", 0, 1, &slice, err)) < 0 ||
	    (r = number(json, "accuracy", 0, 1, &accuracy, err)) < 0 ||
	    (r = number(json, "ms", 1e-6, MAX_MS, &ms, err)) < 0)
		return r;
	one_ms = ms;
	if (cJSON_HasObjectItem(json, "one_ms") && (r = number(json, "one_ms", 0, ms, &one_ms, err)) < 0)
		return r;
	*ret = (struct submodel){.slice = (float)slice,
				 .precision = "f32",
				 .idle = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "idle")),
				 .accuracy = accuracy,
				 .time_ns = llround(ms * 1e6),
				 .time_one_ns = llround(one_ms * 1e6)};
	r = parse_cascades(ret, json, err);
	if (r == 0)
		r = parse_parts(ret, json, n_members, err);
	*told = *ret;
	if (r < 0 || !cJSON_HasObjectItem(json, "told_ms"))
		return r;
	r = number(json, "told_ms", 1e-6, MAX_MS, &told_ms, err);
	told->time_ns = llround(told_ms * 1e6);
	told->time_one_ns = llround(one_ms * 1e6 * (told_ms / ms));
	return r;
}

static int parse_model(struct endpoint *ep, const char *text, size_t len, int n_members, struct err *err)
{
	cJSON *json = cJSON_ParseWithLength(text, len), *list, *item;
	double classes = 0, load_ms = 0;
	int r;

	if (!json)
		return err_set(err, ERR_JSON_SYNTAX, "model.json");
	r = number(json, "classes", 1, MAX_CLASSES, &classes, err);
	if (r == 0 && cJSON_HasObjectItem(json, "load_ms"))
		r = number(json, "load_ms", 0, MAX_MS, &load_ms, err);
	if (r < 0)
		goto out;
	ep->load_ns = llround(load_ms * 1e6);
	list = cJSON_GetObjectItemCaseSensitive(json, "submodels");
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < 1 ||
	    cJSON_GetArraySize(list) > MAX_SUBMODELS) {
		r = err_set(err, ERR_SPEC_VALUE, "submodels is not a list of 1 to %d", MAX_SUBMODELS);
		goto out;
	}
	cJSON_ArrayForEach(item, list)
	{
		r = parse_submodel(&ep->submodels[ep->n_submodels], &ep->told[ep->n_submodels], item,
				   n_members, err);
		ep->n_submodels++;
		if (r < 0)
			goto out;
	}
	ep->labels = calloc((size_t)classes, sizeof(*ep->labels));
	while (ep->labels && ep->n_labels < (int)classes &&
	       asprintf(&ep->labels[ep->n_labels], "%d", ep->n_labels) >= 0)
		ep->n_labels++;
	r = ep->n_labels == (int)classes ? 0 : err_set(err, ERR_NO_MEMORY, "labels");
out:
	cJSON_Delete(json);
	return r;
}

static int read_model(struct endpoint *ep, int fd, int n_members, struct err *err)
{
	char *text = malloc(MAX_MODEL);
	size_t len = 0;
	ssize_t got = 0;
	int r;

	if (!text)
		return err_set(err, ERR_NO_MEMORY, "model.json");
	while (len < MAX_MODEL && (got = pread(fd, text + len, MAX_MODEL - len, (off_t)len)) > 0)
		len += (size_t)got;
	if (got < 0)
		r = err_set(err, ERR_IO, "model.json: %s", strerror(errno));
	else if (len == MAX_MODEL)
		r = err_set(err, ERR_BAD_MODEL, "model.json has %d bytes or more", MAX_MODEL);
	else
		r = parse_model(ep, text, len, n_members, err);
	free(text);
	return r;
}

/* --- endpoints --- */

static void endpoint_free(struct endpoint *ep)
{
	if (!ep)
		return;
	loop_timer_cancel(ep->null->loop, ep->timer);
	for (int i = 0; i < ep->n_labels; i++)
		free(ep->labels[i]);
	free(ep->labels);
	free(ep);
}

static void call_loaded(void *data)
{
	struct endpoint *ep = data;
	struct null *null = ep->null;
	struct submodel told[MAX_SUBMODELS];

	ep->timer = NULL;
	ep->loaded = ep->r == 0;
	for (int i = 0; i < ep->n_submodels; i++) {
		told[i] = ep->told[i];
		told[i].time_ns = llround((double)told[i].time_ns / null->speed);
		told[i].time_one_ns = llround((double)told[i].time_one_ns / null->speed);
	}
	/* The callback may unload: nothing of ep is read after it. */
	null->events->loaded(null->data, ep->number, ep->r, &ep->err, told, ep->loaded ? ep->n_submodels : 0,
			     (const char *const *)ep->labels, ep->loaded ? ep->n_labels : 0);
}

static int set_loaded_timer(struct endpoint *ep)
{
	struct loop *loop = ep->null->loop;

	if (!ep->timer)
		ep->timer = loop_timer_at(loop, loop_now(loop) + ep->load_ns, call_loaded, ep);
	return ep->timer ? 0 : -ENOMEM;
}

static int null_load(struct executor *ex, const struct endpoint_load *load)
{
	struct null *null = null_of(ex);
	struct endpoint *ep;

	if (load->batch < 1)
		return -EINVAL;
	if (find(null, load->endpoint))
		return -EEXIST;
	ep = calloc(1, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	ep->null = null;
	ep->number = load->endpoint;
	ep->batch = load->batch;
	ep->r = read_model(ep, load->n_members ? load->members[0].model_fd : load->model_fd, load->n_members,
			   &ep->err);
	if (set_loaded_timer(ep) < 0) {
		endpoint_free(ep);
		return -ENOMEM;
	}
	ep->next = null->endpoints;
	null->endpoints = ep;
	return 0;
}

static void null_unload(struct executor *ex, uint32_t number)
{
	for (struct endpoint **p = &null_of(ex)->endpoints, *ep; (ep = *p); p = &ep->next)
		if (ep->number == number) {
			*p = ep->next;
			endpoint_free(ep);
			return;
		}
}

/* --- batches --- */

static void slot_release(struct slot *slot)
{
	free(slot->answers);
	free(slot->picture_len);
}

static int make_pictures(const struct slot *slot)
{
	int fd = memfd_create("pictures", MFD_CLOEXEC);

	for (int i = 0; fd >= 0 && i < slot->n; i++)
		if (slot->picture_len[i] && write(fd, picture, sizeof(picture)) != (ssize_t)sizeof(picture)) {
			close(fd);
			return -1;
		}
	return fd;
}

static void answer(struct null *null, struct slot *slot, int r)
{
	struct batch_done done = {.batch = slot->batch, .r = r, .picture_fd = -1};

	if (r == 0 && slot->picture_len && (done.picture_fd = make_pictures(slot)) < 0)
		done.r = -EIO;
	if (done.r == 0) {
		done.n = slot->n;
		done.compute_ns = slot->ns;
		done.answers = slot->answers;
		done.picture_len = slot->picture_len;
	}
	null->events->done(null->data, &done);
	if (done.picture_fd >= 0)
		close(done.picture_fd);
	slot_release(slot);
}

static struct slot take_first(struct null *null)
{
	struct slot first = null->slots[0];

	null->n_slots--;
	memmove(&null->slots[0], &null->slots[1], (SLOTS - 1) * sizeof(first));
	return first;
}

static void first_ends(void *data);

/* Log-normal (times have a longer tail above), of mean 1 and that deviation, by Box and Muller. */
static double noise(struct null *null)
{
	double radius = sqrt(-2 * log(1 - (double)rng_float(&null->rng))),
	       angle = 2 * M_PI * (double)rng_float(&null->rng), variance = log1p(null->noise * null->noise);

	return exp(sqrt(variance) * radius * cos(angle) - variance / 2);
}

/* Of a Poisson process. */
static int64_t until_stall(struct null *null)
{
	return llround(-log(1 - (double)rng_float(&null->stall_rng)) / null->stalls * 1e9);
}

/* When what starts now and computes for so long ends, nothing being computed while the machine stalls. */
static int64_t end_of(struct null *null, int64_t ns)
{
	int64_t start = loop_now(null->loop), end = start + ns;

	while (null->stalls > 0 && null->stall_at < end) {
		int64_t over = null->stall_at + null->stall_ns;

		if (null->stall_at >= start)
			end += null->stall_ns;
		else if (over > start)
			end += over - start;
		null->stall_at = over + until_stall(null);
	}
	return end;
}

static int start_first(struct null *null)
{
	struct slot *slot = &null->slots[0];
	double factor = null->noise > 0 ? null->factor * noise(null) : null->factor,
	       ns = fmin((double)slot->duration * factor / null->speed, MAX_DURATION_S * 1e9);
	int64_t end = end_of(null, llround(ns));

	slot->ns = end - loop_now(null->loop);
	null->timer = loop_timer_at(null->loop, end, first_ends, null);
	return null->timer ? 0 : -ENOMEM;
}

static void first_ends(void *data)
{
	struct null *null = data;
	struct slot first = take_first(null);
	int r;

	/* Before the callback, which may hand over another: that one is behind the waiting one. */
	null->timer = NULL;
	r = null->n_slots ? start_first(null) : 0;
	answer(null, &first, 0);
	if (r < 0) {
		first = take_first(null);
		answer(null, &first, -EIO);
	}
}

static void fill_answer(struct instance_answer *a, const struct instance_input *in, int classes)
{
	const uint8_t *bytes = in->data;
	char text[32];

	*a = (struct instance_answer){.id = in->id};
	if (!in->len || (in->len >= 3 && memcmp(bytes, "bad", 3) == 0)) {
		a->failed = true;
		err_set(&a->err, ERR_BAD_IMAGE, "%s",
			in->len ? "its data begin with \"bad\"" : "it is empty");
		return;
	}
	a->label = bytes[0] % classes;
	a->n_top = classes < MAX_TOP ? classes : MAX_TOP;
	for (int i = 0; i < a->n_top; i++) {
		a->top[i] = (a->label + i) % classes;
		a->top_score[i] = classes == 1 ? 1 : i == 0 ? 0.9f : 0.1f / (float)(classes - 1);
	}
	/* "7 0.35" */
	if (in->len > 2 && bytes[1] == ' ' && in->len < sizeof(text)) {
		memcpy(text, bytes + 2, in->len - 2);
		text[in->len - 2] = '\0';
		a->top_score[0] = strtof(text, NULL);
	}
	a->score = a->top_score[0];
}

static int add_slot(struct null *null, struct slot *slot, const struct endpoint *ep, int submodel)
{
	const struct submodel *m = &ep->submodels[submodel];
	int r = 0;

	slot->duration = m->time_ns;
	if (ep->batch > 1)
		slot->duration = m->time_one_ns + llround((double)(m->time_ns - m->time_one_ns) *
							  (slot->n - 1) / (ep->batch - 1));
	null->slots[null->n_slots++] = *slot;
	if (null->n_slots == 1 && (r = start_first(null)) < 0)
		null->n_slots--;
	return r;
}

static int check(struct null *null, uint32_t number, int submodel, int n, struct endpoint **ret)
{
	struct endpoint *ep = find(null, number);

	if (!ep)
		return -ENOENT;
	if (!ep->loaded)
		return -EAGAIN;
	if (submodel < 0 || submodel >= ep->n_submodels || n < 1 || n > ep->batch)
		return -EINVAL;
	if (null->n_slots == SLOTS)
		return -EBUSY;
	*ret = ep;
	return 0;
}

static int null_run(struct executor *ex, uint64_t batch, uint32_t number, int submodel,
		    const struct instance_input *in, int n)
{
	struct null *null = null_of(ex);
	struct slot slot = {.batch = batch, .n = n};
	struct endpoint *ep;
	int r = check(null, number, submodel, n, &ep);

	if (r < 0)
		return r;
	slot.answers = calloc((size_t)n, sizeof(*slot.answers));
	if (!slot.answers)
		return -ENOMEM;
	for (int i = 0; i < n; i++)
		fill_answer(&slot.answers[i], &in[i], ep->n_labels);
	r = add_slot(null, &slot, ep, submodel);
	if (r < 0)
		slot_release(&slot);
	return r;
}

static int null_explain(struct executor *ex, uint64_t batch, uint32_t number, int submodel,
			const struct instance_input *in, const int *labels, const float *scores, int n)
{
	struct null *null = null_of(ex);
	struct slot slot = {.batch = batch, .n = n};
	struct endpoint *ep;
	int r = check(null, number, submodel, n, &ep);

	(void)scores;
	if (r < 0)
		return r;
	slot.picture_len = calloc((size_t)n, sizeof(*slot.picture_len));
	if (!slot.picture_len)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		struct instance_answer a;

		fill_answer(&a, &in[i], ep->n_labels);
		if (!a.failed && labels[i] >= 0 && labels[i] < ep->n_labels)
			slot.picture_len[i] = sizeof(picture);
	}
	r = add_slot(null, &slot, ep, submodel);
	if (r < 0)
		slot_release(&slot);
	return r;
}

/* --- life --- */

static void die(void *data)
{
	struct null *null = data;

	null->kill_timer = NULL;
	/* First, so that nothing can be handed over before `died`. */
	for (struct endpoint *ep = null->endpoints; ep; ep = ep->next) {
		ep->loaded = false;
		loop_timer_cancel(null->loop, ep->timer);
		ep->timer = NULL;
	}
	loop_timer_cancel(null->loop, null->timer);
	null->timer = NULL;
	while (null->n_slots) {
		struct slot slot = take_first(null);

		answer(null, &slot, -EIO);
	}
	null->events->died(null->data);
	for (struct endpoint *ep = null->endpoints; ep; ep = ep->next)
		set_loaded_timer(ep);
}

static void null_free(struct executor *ex)
{
	struct null *null = null_of(ex);

	while (null->endpoints)
		null_unload(ex, null->endpoints->number);
	for (int i = 0; i < null->n_slots; i++)
		slot_release(&null->slots[i]);
	loop_timer_cancel(null->loop, null->timer);
	loop_timer_cancel(null->loop, null->kill_timer);
	free(null);
}

int executor_null_new(struct executor **ret, struct loop *loop, const struct executor_events *events,
		      void *data)
{
	static const struct executor_ops ops = {null_load, null_unload, null_run, null_explain, null_free};
	struct null *null = calloc(1, sizeof(*null));

	if (!null)
		return -ENOMEM;
	null->ex.ops = &ops;
	null->loop = loop;
	null->events = events;
	null->data = data;
	null->factor = null->speed = 1;
	*ret = &null->ex;
	return 0;
}

void executor_null_set_factor(struct executor *ex, double factor)
{
	null_of(ex)->factor = factor;
}

void executor_null_set_speed(struct executor *ex, double speed)
{
	null_of(ex)->speed = speed;
}

void executor_null_set_noise(struct executor *ex, double noise, uint64_t seed)
{
	null_of(ex)->noise = noise;
	null_of(ex)->rng = rng_init(seed, 0);
}

void executor_null_set_stalls(struct executor *ex, double rate, int64_t ns, uint64_t seed)
{
	struct null *null = null_of(ex);

	null->stalls = rate;
	null->stall_ns = ns;
	null->stall_rng = rng_init(seed, 1);
	if (rate > 0)
		null->stall_at = loop_now(null->loop) + until_stall(null);
}

void executor_null_kill(struct executor *ex)
{
	struct null *null = null_of(ex);

	if (!null->kill_timer)
		null->kill_timer = loop_timer_at(null->loop, loop_now(null->loop), die, null);
}
