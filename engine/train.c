/*
 * The training loop. A step runs the full width first, with hard labels, then the smallest slice and `random`
 * others (Yu & Huang 2019, "universally slimmable networks", sandwich rule), which learn from its logits as far as
 * "distill" says (inplace distillation; measured, it gains nothing here: tests/bench/RESULTS.md); the gradients
 * of all are summed before one update. With "epochs" the schedule counts steps and the run is exactly repeatable;
 * with "budget" it follows the clock, so it ends in time whatever else the machine does, and no two runs are
 * alike.
 */
#include "engine/train_private.h"

#include "engine/backend.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET_WARMUP 0.05 /* chosen: share of a budget for warm-up */

/* The weights of the model that the spec names. */
static int take_init(struct train *t, const struct model *init, struct err *err)
{
	struct buf note = BUF_INIT;
	int r = model_take(t->model, init, &note, err);

	if (r == 0 && t->hooks.note)
		t->hooks.note(t->hook_data, note.data);
	buf_release(&note);
	return r;
}

/* init: what it begins with, or began; NULL: nothing, or that isn't known any more. from: NULL when it begins. */
static int make_model(struct train *t, const struct model *init, const struct checkpoint *from,
		      struct err *err)
{
	struct dataset_shape shape = dataset_shape(t->ds);
	struct model_info info = {.channels = shape.channels,
				  .height = shape.height,
				  .width = shape.width,
				  .classes = shape.classes,
				  .n_rates = t->spec->n_rates};
	int r;

	memcpy(info.rates, t->spec->rates, sizeof(info.rates));
	dataset_mean_std(t->ds, info.mean, info.std);
	if (from && from->spec) {
		memcpy(info.mean, from->mean, sizeof(info.mean));
		memcpy(info.std, from->std, sizeof(info.std));
	} else if (init && init->info.channels == info.channels) { /* its weights are used to that */
		memcpy(info.mean, init->info.mean, sizeof(info.mean));
		memcpy(info.std, init->info.std, sizeof(info.std));
	}
	r = model_new(&t->model, t->spec->net, &info, t->seed, err);
	for (int i = 0; i < shape.classes && r == 0; i++) {
		r = model_set_label(t->model, i, dataset_class(t->ds, i));
		if (r < 0)
			err_set(err, ERR_NO_MEMORY, "the labels");
	}
	if (r == 0 && init && !from)
		r = take_init(t, init, err);
	for (int c = 0; c < info.channels; c++)
		for (int v = 0; v < 256; v++)
			t->lut[c][v] = ((float)v / 255 - info.mean[c]) / info.std[c];
	return r;
}

static int make_sessions(struct train *t, struct err *err)
{
	const struct backend *backend = backend_find("onednn");
	int r = 0;

	for (int i = t->spec->n_rates - 1; i >= 0 && r == 0; i--) {
		struct session_options options = {.rate = t->spec->rates[i],
						  .batch = t->batch,
						  .training = true,
						  .threads = t->spec->threads};

		r = session_new(&t->session[i], t->model, backend, &options, err);
		if (r < 0)
			break;
		options.training = false;
		options.batch = EVAL_BATCH;
		r = session_new(&t->eval[i], t->model, backend, &options, err);
	}
	return r;
}

/* The spec and, where it goes on, the checkpoint's: what it goes by, in t->spec, as far as the data and the network don't say. */
static int make_spec(struct train *t, const struct train_spec *spec, const struct checkpoint *from,
		     struct err *err)
{
	const struct train_spec *goes_by = from && from->spec ? from->spec : spec;
	int r = from ? checkpoint_fits(from, spec, t->ds, err) : 0;

	if (r < 0)
		return r;
	if (spec->init && !spec->init_model && (!from || !goes_by->net))
		return err_set(err, ERR_NO_MODEL, "models/%s, to begin with", spec->init);
	return train_spec_copy(&t->spec, goes_by, err);
}

/* Says what it goes by, and what of that is not as this version would have it. */
static int tell_spec(struct train *t, const struct train_spec *spec, struct err *err)
{
	struct buf text = BUF_INIT, note = BUF_INIT;
	struct train_spec *today;
	int r = train_spec_copy(&today, spec, err);

	if (r < 0)
		return r;
	train_spec_settle(today, t->ds, t->model->net);
	r = train_spec_to_json(t->spec, &text);
	if (r == 0)
		r = train_spec_differences(today, t->spec, &note);
	if (r < 0)
		err_set(err, ERR_NO_MEMORY, "writing a spec");
	if (r == 0 && t->hooks.knobs)
		t->hooks.knobs(t->hook_data, text.data, text.len);
	if (r == 0 && note.len && t->hooks.note)
		t->hooks.note(t->hook_data, note.data);
	train_spec_free(today);
	buf_release(&text);
	buf_release(&note);
	return r;
}

int train_new(struct train **ret, const struct train_spec *spec, const struct dataset *ds,
	      const void *checkpoint, size_t checkpoint_len, const struct train_hooks *hooks, void *hook_data,
	      struct err *err)
{
	struct dataset_shape shape = dataset_shape(ds);
	size_t n = dataset_count(ds, DATASET_TRAIN),
	       size = (size_t)shape.channels * shape.height * shape.width, logits;
	struct checkpoint opened = {0}, *from = checkpoint ? &opened : NULL;
	struct train *t;
	int r;

	if (!n)
		return err_set(err, ERR_EMPTY_DATASET, "no training images");
	if (spec->height &&
	    (spec->channels != shape.channels || spec->height != shape.height || spec->width != shape.width))
		return err_set(err, ERR_SPEC_VALUE, "\"input\" is %dx%dx%d, the decoded data are %dx%dx%d",
			       spec->channels, spec->height, spec->width, shape.channels, shape.height,
			       shape.width);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, ERR_NO_MEMORY, "training");
	t->ds = ds;
	t->hooks = hooks ? *hooks : (struct train_hooks){0};
	t->hook_data = hook_data;
	t->classes = shape.classes;
	r = from ? checkpoint_open(from, checkpoint, checkpoint_len, err) : 0;
	if (r < 0 || (r = make_spec(t, spec, from, err)) < 0)
		goto out;
	t->seed = (uint64_t)t->spec->seed;
	t->batch = n < (size_t)t->spec->batch ? (int)n : t->spec->batch;
	t->batches = (int64_t)(n / t->batch); /* what is left over comes in another epoch's order */
	logits = (size_t)t->batch * shape.classes * sizeof(float);
	t->order = malloc(n * sizeof(*t->order));
	t->x = malloc(size * t->batch * sizeof(float));
	t->labels = malloc(t->batch * sizeof(int));
	t->logits = malloc(logits);
	t->teacher = malloc(logits);
	t->dlogits = malloc(logits);
	t->dsoft = malloc(logits);
	if (!t->order || !t->x || !t->labels || !t->logits || !t->teacher || !t->dlogits || !t->dsoft) {
		r = err_set(err, ERR_NO_MEMORY, "a batch of %d", t->batch);
		goto out;
	}
	if ((r = make_model(t, spec->init_model, from, err)) < 0)
		goto out;
	train_spec_settle(t->spec, ds, t->model->net);
	if ((r = make_sessions(t, err)) < 0)
		goto out;
	r = optim_init(&t->optim, &t->model->net->params,
		       &(struct optim_options){.kind = t->spec->optimizer,
					       .momentum = t->spec->momentum,
					       .weight_decay = t->spec->weight_decay,
					       .clip = t->spec->clip,
					       .ema = t->spec->ema});
	if (r < 0) {
		err_set(err, ERR_NO_MEMORY, "the optimizer");
		goto out;
	}
	if (from)
		r = checkpoint_take(from, t, err);
	if (r == 0)
		r = tell_spec(t, spec, err);
out:
	checkpoint_close(&opened);
	if (r < 0) {
		train_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

void train_free(struct train *t)
{
	if (!t)
		return;
	for (int i = 0; i < MODEL_MAX_RATES; i++) {
		session_free(t->session[i]);
		session_free(t->eval[i]);
	}
	optim_release(&t->optim);
	train_spec_free(t->spec);
	validation_notes_free(t->notes);
	model_free(t->model);
	free(t->order);
	free(t->x);
	free(t->labels);
	free(t->logits);
	free(t->teacher);
	free(t->dlogits);
	free(t->dsoft);
	free(t);
}

struct model *train_model(struct train *t)
{
	return t->model;
}

/* Which slices a step runs after the full one: the smallest and `random` different ones between. */
static int choose_slices(const struct train *t, int chosen[MODEL_MAX_RATES])
{
	int between[MODEL_MAX_RATES], n = 0, left = 0, random = t->spec->random;
	struct rng rng = rng_init(t->seed ^ 0x736c69636573ull, (uint64_t)t->optim.step);

	if (t->spec->n_rates > 1)
		chosen[n++] = 0;
	for (int i = 1; i < t->spec->n_rates - 1; i++)
		between[left++] = i;
	while (random-- > 0 && left > 0) {
		int i = (int)rng_below(&rng, left);

		chosen[n++] = between[i];
		between[i] = between[--left];
	}
	return n;
}

/* The narrow slice's loss: soft labels of the full width, hard ones, or a mixture. */
static double narrow_loss(struct train *t)
{
	float a = (float)t->spec->distill;
	size_t n = (size_t)t->batch * t->classes;
	double loss = 0;

	memset(t->dlogits, 0, n * sizeof(float));
	if (a > 0) {
		loss += a * loss_distill(t->logits, t->teacher, t->batch, t->classes,
					 (float)t->spec->temperature, t->dsoft);
		for (size_t i = 0; i < n; i++)
			t->dlogits[i] += a * t->dsoft[i];
	}
	if (a < 1) {
		loss += (1 - a) * loss_cross_entropy(t->logits, t->labels, t->batch, t->classes,
						     (float)t->spec->smoothing, t->dsoft);
		for (size_t i = 0; i < n; i++)
			t->dlogits[i] += (1 - a) * t->dsoft[i];
	}
	return loss;
}

/* One step on the batch in t->x; adds the full width's loss and right answers. */
static int step(struct train *t, double lr, double *loss_sum, int64_t *right, struct err *err)
{
	int full = t->spec->n_rates - 1, chosen[MODEL_MAX_RATES], n = choose_slices(t, chosen), r;
	double loss, total;

	params_zero_grad(&t->model->net->params);
	session_set_seed(t->session[full], rng_mix(t->seed ^ (uint64_t)t->optim.step));
	r = session_forward_float(t->session[full], t->x, t->batch, t->teacher);
	if (r < 0)
		goto fail;
	loss = total = loss_cross_entropy(t->teacher, t->labels, t->batch, t->classes,
					  (float)t->spec->smoothing, t->dlogits);
	r = session_backward(t->session[full], t->dlogits, t->batch);
	for (int i = 0; i < n && r == 0; i++) {
		session_set_seed(t->session[chosen[i]], rng_mix(t->seed ^ (uint64_t)t->optim.step));
		r = session_forward_float(t->session[chosen[i]], t->x, t->batch, t->logits);
		if (r < 0)
			break;
		total += narrow_loss(t);
		r = session_backward(t->session[chosen[i]], t->dlogits, t->batch);
	}
	if (r < 0)
		goto fail;
	if (!isfinite(total))
		return err_set(err, ERR_DIVERGED, "epoch %d, step %lld, lr %g", t->epoch + 1,
			       (long long)t->optim.step + 1, lr);
	optim_step(&t->optim, &t->model->net->params, lr);
	*loss_sum += loss;
	for (int i = 0; i < t->batch; i++) {
		const float *row = t->teacher + (size_t)i * t->classes;
		int best = 0;

		for (int c = 1; c < t->classes; c++)
			if (row[c] > row[best])
				best = c;
		*right += best == t->labels[i];
	}
	return 0;
fail:
	return err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "running step %lld",
		       (long long)t->optim.step + 1);
}

/* Linear warm-up, then half a cosine down to 0; done and warm as shares of the whole run. */
static double schedule(double lr, double done, double warm, double least)
{
	if (done < warm)
		return lr * (done + least) / (warm + least);
	return lr * 0.5 * (1 + cos(M_PI * fmin(1, (done - warm) / (1 - warm + 1e-12))));
}

static int evaluate_all(struct train *t, struct train_epoch *e, struct err *err)
{
	for (int i = 0; i < t->spec->n_rates; i++) {
		double accuracy = 0, loss = 0;
		int r = train_evaluate_session(t, t->eval[i], DATASET_VAL, NULL, &accuracy, &loss);

		if (r == -ECANCELED)
			return r;
		if (r < 0)
			return err_set(err, r == -ENOMEM ? ERR_NO_MEMORY : ERR_IO, "evaluating slice %g",
				       t->spec->rates[i]);
		e->rates[i] = t->spec->rates[i];
		e->val_accuracy[i] = (float)accuracy;
		e->val_loss[i] = (float)loss;
	}
	e->n_rates = t->spec->n_rates;
	return 0;
}

/* Steps, evaluation, hooks of one epoch. *done: the budget is used up. */
static int run_epoch(struct train *t, bool *done, struct err *err)
{
	const struct train_spec *spec = t->spec;
	struct train_epoch e = {.epoch = t->epoch + 1};
	double start = clock_seconds(), before = t->elapsed, loss = 0;
	int64_t total = spec->epochs * t->batches, right = 0, at;
	struct buf checkpoint = BUF_INIT;
	int r = 0, stop = 0;

	train_shuffle(t, t->epoch);
	for (at = 0; at < t->batches && !*done; at++) {
		double share, spent = before + clock_seconds() - start, seconds;
		struct train_progress p = {.epoch = e.epoch, .batch = at + 1, .batches = t->batches};

		share = spec->budget > 0 ? spent / spec->budget : (double)t->optim.step / total;
		e.lr = spec->budget > 0 ? schedule(spec->lr, share, BUDGET_WARMUP, 0.001)
					: schedule(spec->lr, share, fmin(spec->warmup / spec->epochs, 0.5),
						   1.0 / total);
		train_batch(t, t->epoch, at, t->batch);
		r = step(t, e.lr, &loss, &right, err);
		if (r < 0)
			return r;
		seconds = clock_seconds() - start;
		spent = before + seconds;
		p.samples_per_s = (at + 1) * (double)t->batch / seconds;
		if (spec->budget > 0) {
			double epochs =
				spent > 0 ? (double)t->optim.step / t->batches * spec->budget / spent : 1;

			*done = spent >= spec->budget;
			p.percent = fmin(100, 100 * spent / spec->budget);
			p.eta_s = fmax(0, spec->budget - spent);
			p.epochs = (int)fmax(e.epoch, ceil(epochs - 1e-9));
		} else {
			p.percent = 100.0 * t->optim.step / total;
			p.eta_s = (total - t->optim.step) * (seconds / (at + 1));
			p.epochs = spec->epochs;
		}
		if (t->hooks.progress && t->hooks.progress(t->hook_data, &p))
			return -ECANCELED;
	}
	optim_swap_average(&t->optim, &t->model->net->params);
	r = evaluate_all(t, &e, err);
	optim_swap_average(&t->optim, &t->model->net->params);
	if (r < 0)
		return r;
	for (int i = 0; i < e.n_rates; i++)
		model_set_accuracy(t->model, i, e.val_accuracy[i]);
	t->epoch++;
	e.seconds = clock_seconds() - start;
	t->elapsed = before + e.seconds;
	e.train_loss = loss / at;
	e.train_accuracy = (double)right / (at * t->batch);
	if (spec->budget > 0 && t->elapsed >= spec->budget)
		*done = true;
	if (t->hooks.epoch)
		stop = t->hooks.epoch(t->hook_data, &e);
	if (t->hooks.checkpoint) {
		r = train_checkpoint_write(t, &checkpoint, err);
		if (r == 0)
			stop |= t->hooks.checkpoint(t->hook_data, checkpoint.data, checkpoint.len);
		buf_release(&checkpoint);
	}
	return r < 0 ? r : stop ? -ECANCELED : 0;
}

int train_run(struct train *t, struct err *err)
{
	bool budget = t->spec->budget > 0, done = budget ? t->elapsed >= t->spec->budget : false;
	int r;

	while (budget ? !done : t->epoch < t->spec->epochs) {
		r = run_epoch(t, &done, err);
		if (r < 0)
			return r;
	}
	optim_swap_average(&t->optim,
			   &t->model->net->params); /* the averaged weights are the model's from here on */
	return train_evaluate_final(t, err);
}
