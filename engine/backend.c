#include "engine/backend.h"

#include "engine/widened.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const struct backend onednn_backend, ref_backend;

static const struct backend *const backends[] = {&onednn_backend, &ref_backend};

const struct backend *backend_at(size_t i)
{
	return i < sizeof(backends) / sizeof(backends[0]) ? backends[i] : NULL;
}

const struct backend *backend_find(const char *name)
{
	for (size_t i = 0; backend_at(i); i++)
		if (strcmp(backend_at(i)->name, name) == 0)
			return backend_at(i);
	return NULL;
}

/* Whether an implementation has forms for values of these types, if they are not all f32. */
static bool has_forms(const struct op_impl *impl, const struct op_desc *d)
{
	const enum precision types[] = {d->x_type, d->x2_type, d->y_type};
	bool bf16 = false, int8 = false;

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		bf16 |= types[i] == PRECISION_BF16;
		int8 |= precision_steps(types[i]);
	}
	return int8 ? impl->int8 && !bf16 : impl->bf16;
}

int kernel_create(struct kernel **ret, const struct backend *backend, const struct op_desc *desc,
		  struct kernel *sibling, struct err *err)
{
	const struct op_impl *impl = backend->ops[desc->op];
	bool plain = !desc->x_type && !desc->x2_type && !desc->y_type;
	struct kernel *k;
	int r = -EOPNOTSUPP;

	if (!impl || (desc->training && (!impl->backward || !plain)))
		return err_set(err, ERR_UNSUPPORTED_OP, "%s %s%s", backend->name, op_info(desc->op)->name,
			       impl ? " (its gradient)" : "");
	if (plain || has_forms(impl, desc))
		r = impl->create(&k, desc, widened_is(sibling) ? NULL : sibling, plain ? err : NULL);
	if (r == -EOPNOTSUPP && !plain)
		r = widened_create(&k, backend, desc, sibling, err);
	if (r < 0)
		return r;
	if (!k->impl)
		k->impl = impl;
	k->desc = *desc;
	*ret = k;
	return 0;
}

bool backend_gains(const struct backend *backend, enum precision precision)
{
	return precision == PRECISION_F32 || (backend->gains && backend->gains(precision));
}

void kernel_destroy(struct kernel *k)
{
	if (!k)
		return;
	if (k->impl->destroy)
		k->impl->destroy(k);
	else
		free(k);
}

size_t kernel_saved_size(const struct backend *backend, const struct op_desc *desc)
{
	const struct op_impl *impl = backend->ops[desc->op];

	return impl && impl->saved_size ? impl->saved_size(desc) : 0;
}

void kernel_trim(struct kernel *k)
{
	if (k && k->impl->trim)
		k->impl->trim(k);
}

int kernel_forward(struct kernel *k, const struct op_io *io)
{
	return k->impl->forward(k, io);
}

int kernel_backward(struct kernel *k, const struct op_io *io)
{
	return k->impl->backward(k, io);
}
