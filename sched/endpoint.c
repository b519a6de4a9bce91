#include "sched/internal.h"
#include "sched/result.h"

#include "engine/base/log.h"
#include "engine/model.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOAD_AGAIN_NS NS_PER_S

static const char *const state_names[] = {[ENDPOINT_STOPPED] = "stopped",
					  [ENDPOINT_STARTING] = "starting",
					  [ENDPOINT_RUNNING] = "running",
					  [ENDPOINT_FAILED] = "failed"};

const char *endpoint_state_name(enum endpoint_state state)
{
	return state_names[state];
}

char *endpoint_path(const struct endpoint *ep, char *ret, size_t size, const char *fmt, ...)
{
	int n = snprintf(ret, size, "infer/%s/", ep->name);
	va_list ap;

	if (n > 0 && (size_t)n < size) {
		va_start(ap, fmt);
		vsnprintf(ret + n, size - n, fmt, ap);
		va_end(ap);
	}
	return ret;
}

/* Every transition goes through here: the files state and error always say what is. */
static void set_state(struct endpoint *ep, enum endpoint_state state, const struct err *err)
{
	struct buf text = BUF_INIT;
	char path[MAX_NAME + 64], line[512];

	ep->state = state;
	ep->err = err ? *err : ERR_INIT;
	buf_addf(&text, "%s\n", state_names[state]);
	endpoint_publish(ep, "state", &text);
	buf_clear(&text);
	if (state == ENDPOINT_FAILED) {
		buf_addf(&text, "%s\n", err_format(&ep->err, line, sizeof(line)));
		endpoint_publish(ep, "error", &text);
	} else if (!ep->gone) {
		ep->s->ops->unpublish(ep->s->host, endpoint_path(ep, path, sizeof(path), "error"));
	}
	buf_release(&text);
	status_event(ep->s, "endpoint", ep->name, state_names[state], -1);
	dispatch_kick(ep->s);
}

/* --- being there --- */

struct endpoint *endpoint_get(struct sched *s, const char *name, bool create)
{
	struct table_node *node = table_find(&s->endpoints, name);
	struct endpoint *ep, **numbers;
	struct served *on;

	if (node || !create)
		return node ? list_entry(node, struct endpoint, node) : NULL;
	if (strlen(name) >= MAX_NAME)
		return NULL;
	ep = calloc(1, sizeof(*ep));
	on = calloc((size_t)s->n_devices, sizeof(*on));
	numbers = realloc(s->by_number, (s->n_numbers + 1) * sizeof(struct endpoint *));
	if (numbers)
		s->by_number = numbers;
	if (!ep || !numbers || !on)
		goto fail;
	ep->s = s;
	ep->on = on;
	lane_init(&ep->lane);
	caution_init(&ep->caution);
	strcpy(ep->name, name);
	if (table_add(&s->endpoints, &ep->node, ep->name) < 0)
		goto fail;
	ep->number = s->n_numbers;
	s->by_number[s->n_numbers++] = ep;
	ep->spec = INFER_SPEC_DEFAULT;
	ep->last_seq = store_last_number(s, name); /* one of this name may have been removed */
	return ep;
fail:
	free(ep);
	free(on);
	return NULL;
}

static void free_labels(struct endpoint *ep)
{
	for (int i = 0; i < ep->n_labels; i++)
		free(ep->labels[i]);
	free(ep->labels);
	ep->labels = NULL;
	ep->n_labels = 0;
}

void endpoint_free(struct endpoint *ep)
{
	if (!ep)
		return;
	task_forget_all(ep);
	pictures_forget(ep);
	loop_timer_cancel(ep->s->loop, ep->stats_timer);
	loop_timer_cancel(ep->s->loop, ep->reload_timer);
	free_labels(ep);
	for (int i = 0; i < ep->n_names; i++)
		free(ep->names[i]);
	free(ep->names);
	table_release(&ep->instances);
	spill_release(&ep->spill);
	table_release(&ep->batches);
	buf_release(&ep->schedule);
	timeline_free(ep->timeline);
	free(ep->on);
	free(ep);
}

void endpoint_unref(struct endpoint *ep)
{
	if (--ep->refs == 0 && ep->gone)
		endpoint_free(ep);
}

size_t endpoint_waiting(const struct endpoint *ep)
{
	return ep->instances.count + ep->spill.count;
}

/* --- loading --- */

struct version_walk {
	struct sched *s;
	uint64_t latest; /* inode that models/NAME/latest leads to; 0: there is no such link */
	int version;
};

static int look_at_version(void *data, const struct host_entry *e)
{
	struct version_walk *walk = data;
	size_t len = strlen(e->path);
	int version;

	if (!e->is_dir || len > 9 || strspn(e->path, "0123456789") != len || e->path[0] == '0')
		return 0;
	version = atoi(e->path);
	if (walk->latest ? e->ino == walk->latest : version > walk->version)
		walk->version = version;
	return 0;
}

static int find_version(struct endpoint *ep, int member, struct err *err)
{
	const struct spec_member *m = &ep->spec.members[member];
	struct sched *s = ep->s;
	struct version_walk walk = {.s = s, .version = m->version};
	struct host_entry e;
	char path[MAX_NAME + 32];

	if (!walk.version) {
		snprintf(path, sizeof(path), "models/%s/latest", m->model);
		if (s->ops->lookup(s->host, path, &e) == 0 && e.is_dir)
			walk.latest = e.ino;
		snprintf(path, sizeof(path), "models/%s", m->model);
		s->ops->walk(s->host, path, look_at_version, &walk);
	}
	if (!walk.version)
		return err_set(err, ERR_NO_MODEL, "models/%s has no version", m->model);
	ep->loading[member] = walk.version;
	return 0;
}

/* version: "models/NAME/V" */
static int open_model_file(struct endpoint *ep, const char *version, const char *name, int *ret_fd,
			   struct err *err)
{
	struct sched *s = ep->s;
	char path[2 * MAX_NAME + 64];
	struct host_entry e;
	uint64_t len;
	int r;

	snprintf(path, sizeof(path), "%s/%s", version, name);
	r = s->ops->lookup(s->host, path, &e);
	if (r == 0 && e.is_dir)
		r = -EISDIR;
	if (r == 0)
		r = s->ops->open(s->host, e.ino, ret_fd, &len);
	if (r < 0)
		err_set(err, ERR_NO_MODEL, "%.300s: %s", path, strerror(-r));
	return r;
}

/* One of the two is there; what is wrong is said of the first. */
static int open_weights(struct endpoint *ep, const char *version, int *ret_fd, struct err *err)
{
	int r = open_model_file(ep, version, MODEL_WEIGHTS, ret_fd, err);

	if (r == -ENOENT && open_model_file(ep, version, MODEL_ONNX, ret_fd, NULL) == 0)
		r = 0;
	return r;
}

/* name: MAX_NAME + 32 bytes, for ret->name. */
static int open_member(struct endpoint *ep, int member, struct endpoint_member *ret, char *name,
		       struct err *err)
{
	int r = find_version(ep, member, err);

	*ret = (struct endpoint_member){.name = name,
					.weight = ep->spec.members[member].weight,
					.model_fd = -1,
					.weights_fd = -1,
					.labels_fd = -1,
					.validation_fd = -1};
	if (r < 0)
		return r;
	snprintf(name, MAX_NAME + 32, "models/%s/%d", ep->spec.members[member].model, ep->loading[member]);
	r = open_model_file(ep, name, MODEL_JSON, &ret->model_fd, err);
	if (r == 0)
		r = open_weights(ep, name, &ret->weights_fd, err);
	/* Without the first the numbers are the labels, without the other there are no combinations. */
	if (r == 0) {
		open_model_file(ep, name, MODEL_LABELS, &ret->labels_fd, NULL);
		open_model_file(ep, name, MODEL_VALIDATION, &ret->validation_fd, NULL);
	}
	return r;
}

static void close_member(const struct endpoint_member *m)
{
	const int fds[] = {m->model_fd, m->weights_fd, m->labels_fd, m->validation_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void load(struct endpoint *ep);

static void load_again(void *data)
{
	struct endpoint *ep = data;

	ep->reload_timer = NULL;
	load(ep);
}

static void unload(struct endpoint *ep)
{
	for (int i = 0; i < ep->s->n_devices; i++) {
		struct device *device = &ep->s->device[i];

		if (ep->loaded && device->ex)
			device->ex->ops->unload(device->ex, ep->number);
		dispatch_set_ready(ep, device, false);
	}
	ep->loaded = false;
	loop_timer_cancel(ep->s->loop, ep->reload_timer);
	ep->reload_timer = NULL;
}

static void load(struct endpoint *ep)
{
	struct sched *s = ep->s;
	struct endpoint_member members[ENSEMBLE_MEMBERS] = {0};
	char names[ENSEMBLE_MEMBERS][MAX_NAME + 32];
	struct endpoint_load load = {.endpoint = ep->number,
				     .batch = ep->spec.batch,
				     .gradcam = ep->spec.gradcam,
				     .precisions = ep->spec.precisions,
				     .members = members,
				     .n_members = ep->spec.n_members > 1 ? ep->spec.n_members : 0};
	struct err err = ERR_INIT;
	int r = 0, n = 0;

	unload(ep);
	set_state(ep, ENDPOINT_STARTING, NULL);
	for (; r == 0 && n < ep->spec.n_members; n++)
		r = open_member(ep, n, &members[n], names[n], &err);
	if (r < 0)
		goto out;
	load.model_fd = members[0].model_fd;
	load.weights_fd = members[0].weights_fd;
	load.labels_fd = members[0].labels_fd;
	r = devices_start(s);
	for (int i = 0; r == 0 && i < s->n_devices; i++) {
		r = s->device[i].ex->ops->load(s->device[i].ex, &load);
		ep->loaded |= r == 0;
	}
	if (r == 0)
		goto out;
	unload(ep);         /* from those that have it */
	if (r == -EAGAIN) { /* the worker just died; it comes again */
		ep->reload_timer = loop_timer_at(s->loop, loop_now(s->loop) + LOAD_AGAIN_NS, load_again, ep);
		r = ep->reload_timer ? 0 : -ENOMEM;
	}
	if (r < 0)
		err_set(&err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "loading %s: %s",
			n > 1 ? ep->spec.model : names[0], strerror(-r));
out:
	while (n > 0)
		close_member(&members[--n]);
	if (r < 0)
		set_state(ep, ENDPOINT_FAILED, &err);
}

static int copy_labels(struct endpoint *ep, const char *const *labels, int n)
{
	free_labels(ep);
	ep->labels = calloc(n ? n : 1, sizeof(*ep->labels));
	while (ep->labels && ep->n_labels < n && (ep->labels[ep->n_labels] = strdup(labels[ep->n_labels])))
		ep->n_labels++;
	return ep->n_labels == n ? 0 : -ENOMEM;
}

static int take_submodels(struct endpoint *ep, const struct submodel *submodels, int n, struct err *err)
{
	strcpy(ep->model, ep->spec.model);
	ep->n_members = ep->spec.n_members;
	memcpy(ep->versions, ep->loading, sizeof(ep->versions));
	memcpy(ep->submodels, submodels, (size_t)n * sizeof(*submodels));
	ep->n_submodels = n;
	return endpoint_name_submodels(ep) < 0 ? err_set(err, ERR_NO_MEMORY, "names of sub-models") : 0;
}

/* What is not an error: it runs, but not as it could. */
static void note(struct endpoint *ep, const char *text)
{
	if (*text && strcmp(ep->note, text) != 0) {
		log_warn("infer/%s: %s", ep->name, text);
		status_event(ep->s, "endpoint", ep->name, text, -1);
	}
	snprintf(ep->note, sizeof(ep->note), "%s", text);
}

static bool same_submodel(const struct submodel *a, const struct submodel *b)
{
	bool same =
		a->slice == b->slice && strcmp(a->precision, b->precision) == 0 && a->n_parts == b->n_parts;

	for (int i = 0; same && i < a->n_parts; i++)
		same = a->parts[i].member == b->parts[i].member && a->parts[i].slice == b->parts[i].slice &&
		       strcmp(a->parts[i].precision, b->parts[i].precision) == 0;
	return same;
}

/* The endpoint's sub-models as this device has them: what is worth having is measured on each. */
static int serve(struct endpoint *ep, struct served *on, const struct submodel *submodels, int n)
{
	struct submodel own[MAX_SUBMODELS];

	for (int i = 0; i < ep->n_submodels; i++) {
		int k = 0;

		while (k < n && !same_submodel(&submodels[k], &ep->submodels[i]))
			k++;
		own[i] = k < n ? submodels[k] : (struct submodel){.idle = true};
		on->number[i] = k < n ? k : -1;
	}
	return profile_init(&on->profile, ep->spec.batch, own, ep->n_submodels);
}

/* The first device that has it says what there is, until none has it any more. */
static int take_loaded(struct endpoint *ep, struct device *device, const struct submodel *submodels, int n,
		       const char *const *labels, int n_labels, struct err *err)
{
	int r = n < 1 || n > MAX_SUBMODELS ? -EINVAL : 0;

	if (r == 0 && !ep->ready) {
		if (copy_labels(ep, labels, n_labels) < 0)
			return err_set(err, ERR_NO_MEMORY, "labels");
		r = take_submodels(ep, submodels, n, err);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = serve(ep, &ep->on[device->number], submodels, n);
	return r < 0 ? err_set(err, ERR_PROTOCOL, "the worker measured nothing usable") : 0;
}

/* What is wrong is the endpoint's end, unless other devices go on with it. */
static void not_loaded(struct endpoint *ep, struct device *device, const struct err *err)
{
	char line[512];

	if (!ep->ready) {
		unload(ep);
		set_state(ep, ENDPOINT_FAILED, err);
		return;
	}
	err_format(err, line, sizeof(line));
	log_warn("infer/%s: worker %d has it not: %s", ep->name, device->number + 1, line);
	status_event(ep->s, "endpoint", ep->name, line, -1);
}

void endpoint_loaded(void *data, uint32_t number, int r, const struct err *err,
		     const struct submodel *submodels, int n, const char *const *labels, int n_labels)
{
	struct device *device = data;
	struct sched *s = device->s;
	struct endpoint *ep = number < s->n_numbers ? s->by_number[number] : NULL;
	struct err own = ERR_INIT;
	struct buf text = BUF_INIT;

	if (!ep || !ep->loaded)
		return;
	if (r == 0)
		r = take_loaded(ep, device, submodels, n, labels, n_labels, &own);
	else
		own = *err;
	if (r < 0) {
		not_loaded(ep, device, &own);
		return;
	}
	if (ep->ready) { /* on one more */
		dispatch_set_ready(ep, device, true);
		return;
	}
	note(ep, err ? err->detail : "");
	stats_submodels(&ep->stats, ep->submodels, n);
	dispatch_set_ready(ep, device, true);
	result_slices(&text, ep);
	endpoint_publish(ep, "slices.csv", &text);
	buf_release(&text);
	endpoint_recover_schedule(ep);
	if (ep->state != ENDPOINT_RUNNING)
		set_state(ep, ENDPOINT_RUNNING, NULL);
	endpoint_publish_stats(ep);
	dispatch_kick(s);
}

static void worker_died(void *data, struct table_node *node)
{
	struct endpoint *ep = list_entry(node, struct endpoint, node);

	if (ep->loaded)
		ep->stats.worker_deaths++;
	dispatch_set_ready(ep, data, false);
}

void endpoint_died(void *data)
{
	struct device *device = data;
	char which[32] = "";

	device->dying = false;
	table_each(&device->s->endpoints, worker_died, device);
	if (device->s->n_devices > 1)
		snprintf(which, sizeof(which), "worker %d", device->number + 1);
	status_event(device->s, "worker died", "", which, -1);
}

/* --- the user's acts --- */

static bool same_models(const struct infer_spec *a, const struct infer_spec *b)
{
	bool same = a->n_members == b->n_members;

	for (int i = 0; same && i < a->n_members; i++)
		same = strcmp(a->members[i].model, b->members[i].model) == 0 &&
		       a->members[i].version == b->members[i].version &&
		       a->members[i].weight == b->members[i].weight;
	return same;
}

void endpoint_spec(struct endpoint *ep, const char *json, size_t len)
{
	struct infer_spec spec;
	struct err err = ERR_INIT;
	bool same;

	if (infer_spec_parse(&spec, json, len, &err) < 0) {
		unload(ep);
		ep->has_spec = false;
		set_state(ep, ENDPOINT_FAILED, &err);
		return;
	}
	same = ep->has_spec && same_models(&ep->spec, &spec) && ep->spec.batch == spec.batch &&
	       ep->spec.gradcam == spec.gradcam && ep->spec.precisions == spec.precisions &&
	       (ep->state == ENDPOINT_RUNNING || ep->state == ENDPOINT_STARTING);
	ep->spec = spec;
	ep->has_spec = true;
	if (!same)
		load(ep);
}

void endpoint_word(struct endpoint *ep, enum infer_word word)
{
	struct err err = ERR_INIT;

	if (word == INFER_STOP) {
		unload(ep);
		set_state(ep, ENDPOINT_STOPPED, NULL);
		return;
	}
	if (!ep->has_spec) {
		err_set(&err, ERR_SPEC_MISSING, "infer/%s/spec.json is not there", ep->name);
		set_state(ep, ENDPOINT_FAILED, &err);
		return;
	}
	if (word == INFER_RELOAD || ep->state == ENDPOINT_STOPPED || ep->state == ENDPOINT_FAILED)
		load(ep);
}

void endpoint_gone(struct endpoint *ep)
{
	struct sched *s = ep->s;

	unload(ep);
	unpack_forget(ep);
	ep->gone = true;
	table_remove(&s->endpoints, &ep->node);
	s->by_number[ep->number] = NULL;
	pictures_forget(ep);
	task_forget_all(ep);
	erasures_forget(ep);
	if (store_forget(s, ep->name) < 0)
		log_error("infer/%s: its records could not be removed", ep->name);
	status_event(s, "endpoint", ep->name, "removed", -1);
	ep->refs++;
	endpoint_unref(ep);
}

void endpoint_recover(struct endpoint *ep)
{
	struct sched *s = ep->s;
	struct host_entry e;
	char path[MAX_NAME + 64];
	void *text = NULL;
	size_t len = 0;
	bool stopped = false;

	endpoint_path(ep, path, sizeof(path), "state");
	if (s->ops->lookup(s->host, path, &e) == 0 && s->ops->read(s->host, e.ino, 64, &text, &len) == 0)
		stopped = len >= 7 && memcmp(text, "stopped", 7) == 0;
	free(text);
	text = NULL;
	endpoint_path(ep, path, sizeof(path), "spec.json");
	if (s->ops->lookup(s->host, path, &e) == 0 &&
	    s->ops->read(s->host, e.ino, SPEC_MAX_LEN, &text, &len) == 0) {
		if (stopped)
			ep->has_spec = infer_spec_parse(&ep->spec, text, len, NULL) == 0;
		else
			endpoint_spec(ep, text, len);
	}
	free(text);
}
