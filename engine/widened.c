#include "engine/widened.h"

#include <errno.h>
#include <stdlib.h>

struct widened {
	struct kernel base;
	struct kernel *inner;
	size_t n_x, n_x2, n_y;                /* elements; 0: it is f32 or not there */
	size_t x_offset, x2_offset, y_offset; /* in scratch memory, after the inner kernel's */
};

static void destroy(struct kernel *k)
{
	kernel_destroy(((struct widened *)k)->inner);
	free(k);
}

static void trim(struct kernel *k)
{
	kernel_trim(((struct widened *)k)->inner);
}

enum { STRETCH = 16384 }; /* elements that one thread converts at a time */

static const float *widen(const float *value, enum precision type, float step, char *scratch, size_t offset,
			  size_t n)
{
	float *to = (float *)(void *)(scratch + offset);
	const char *from = (const char *)value;

	if (!n)
		return value;
#pragma omp parallel for schedule(static) if (n > STRETCH)
	for (size_t i = 0; i < n; i += STRETCH)
		numbers_widen(from + i * precision_size(type), type, step, to + i,
			      n - i < STRETCH ? n - i : STRETCH);
	return to;
}

static void round_result(const float *from, const struct op_desc *d, float *y, size_t n)
{
	char *to = (char *)y;

#pragma omp parallel for schedule(static) if (n > STRETCH)
	for (size_t i = 0; i < n; i += STRETCH)
		numbers_round(from + i, to + i * precision_size(d->y_type), d->y_type, d->y_step,
			      n - i < STRETCH ? n - i : STRETCH);
}

static int forward(struct kernel *k, const struct op_io *io)
{
	const struct widened *w = (const struct widened *)k;
	const struct op_desc *d = &k->desc;
	struct op_io inner = *io;
	int r;

	inner.x = widen(io->x, d->x_type, d->x_step, io->scratch, w->x_offset, w->n_x);
	inner.x2 = widen(io->x2, d->x2_type, d->x2_step, io->scratch, w->x2_offset, w->n_x2);
	if (w->n_y)
		inner.y = (float *)(void *)((char *)io->scratch + w->y_offset);
	r = kernel_forward(w->inner, &inner);
	if (r == 0 && w->n_y)
		round_result(inner.y, d, io->y, w->n_y);
	return r;
}

static const struct op_impl widened = {.destroy = destroy, .trim = trim, .forward = forward};

bool widened_is(const struct kernel *k)
{
	return k && k->impl == &widened;
}

static size_t elements(const struct op_desc *d, const struct extent *e)
{
	return (size_t)d->n * (size_t)e->c * (size_t)e->h * (size_t)e->w;
}

static size_t reserve(struct widened *w, size_t n)
{
	size_t offset = w->base.scratch_size;

	w->base.scratch_size += (n * sizeof(float) + 63) / 64 * 64;
	return offset;
}

int widened_create(struct kernel **ret, const struct backend *backend, const struct op_desc *desc,
		   struct kernel *sibling, struct err *err)
{
	struct widened *w = calloc(1, sizeof(*w));
	struct op_desc plain = *desc;
	size_t in = elements(desc, &desc->in), out = elements(desc, &desc->out);
	int r;

	if (!w)
		return err_set(err, ERR_NO_MEMORY, "a kernel of %s", op_info(desc->op)->name);
	plain.x_type = plain.x2_type = plain.y_type = PRECISION_F32;
	r = kernel_create(&w->inner, backend, &plain,
			  widened_is(sibling) ? ((struct widened *)sibling)->inner : NULL, err);
	if (r < 0) {
		free(w);
		return r;
	}
	w->n_x = desc->x_type == PRECISION_F32 ? 0 : in;
	w->n_y = desc->y_type == PRECISION_F32 ? 0 : out;
	if (desc->x2_type != PRECISION_F32 && (desc->residual || op_info(desc->op)->inputs == 2))
		w->n_x2 = desc->op == OP_concat ? out - in : out;
	w->base.scratch_size = (w->inner->scratch_size + 63) / 64 * 64;
	w->x_offset = reserve(w, w->n_x);
	w->x2_offset = reserve(w, w->n_x2);
	w->y_offset = reserve(w, w->n_y);
	w->base.impl = &widened;
	*ret = &w->base;
	return 0;
}
