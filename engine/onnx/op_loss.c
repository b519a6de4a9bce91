/* Losses: x (N, classes, …), a class for each (N, …), a weight for each class. */
#include "engine/onnx/op.h"

#include <math.h>
#include <string.h>

#define PICK_CASE(id, T, ...)                                                                              \
	case id:                                                                                           \
		for (int64_t i = 0; i < n; i++) {                                                          \
			int64_t label = tensor_int(target, (size_t)i);                                     \
			double factor = 1;                                                                 \
			if (none)                                                                          \
				((T *)c->out[0]->data)[i] = 0;                                             \
			if (ignores && label == ignored)                                                   \
				continue;                                                                  \
			if (label < 0 || label >= classes)                                                 \
				return call_fail(c, "class %lld of %lld", (long long)label,                \
						 (long long)classes);                                      \
			if (weight)                                                                        \
				factor = tensor_real(weight, (size_t)label);                               \
			const T loss =                                                                     \
				(T)(-factor *                                                              \
				    ((const T *)                                                           \
					     x->data)[(i / inner * classes + label) * inner + i % inner]); \
			if (none)                                                                          \
				((T *)c->out[0]->data)[i] = loss;                                          \
			sum += loss;                                                                       \
			weights += factor;                                                                 \
		}                                                                                          \
		if (!none)                                                                                 \
			*(T *)c->out[0]->data = (T)(mean ? sum / weights : sum);                           \
		return 0;

/* Output 0: what x, logarithms of probabilities, loses at the classes of input 1. */
static int pick(struct onnx_call *c, const struct onnx_tensor *x)
{
	const struct onnx_tensor *target = c->in[1], *weight = call_in(c, 2);
	const char *reduction = attr_string(c, "reduction", "mean");
	const bool none = strcmp(reduction, "none") == 0, mean = strcmp(reduction, "mean") == 0;
	const bool ignores = onnx_attr_find(c->node, "ignore_index");
	const int64_t ignored = attr_int(c, "ignore_index", 0);
	int64_t classes, n, inner = 1;
	double sum = 0, weights = 0;
	int r;

	if (x->rank < 2 || target->rank != x->rank - 1 || target->dims[0] != x->dims[0] ||
	    !dims_equal(x->rank - 2, x->dims + 2, target->rank - 1, target->dims + 1))
		return call_fail(c, "ranks %d and %d, or shapes that don't fit", x->rank, target->rank);
	if (target->type != ONNX_INT64 && target->type != ONNX_INT32)
		return call_bad_type(c, 1);
	classes = x->dims[1];
	if (weight && (weight->count != (size_t)classes || type_is_integer(weight->type)))
		return call_fail(c, "%zu weights of %lld classes", weight->count, (long long)classes);
	if (!none && !mean && strcmp(reduction, "sum") != 0)
		return call_unsupported(c, "reduction %.40s", reduction);
	r = call_out(c, 0, x->type, none ? target->rank : 0, target->dims);
	if (r < 0)
		return r;
	n = (int64_t)target->count;
	for (int d = 2; d < x->rank; d++)
		inner *= x->dims[d];
	switch (x->type) {
		FLOAT_CASES(PICK_CASE, )
	default:
		return call_bad_type(c, 0);
	}
}

int op_negative_log_likelihood_loss(struct onnx_call *c)
{
	return pick(c, c->in[0]);
}

#define LOG_SOFTMAX_CASE(id, T, ...)                                                              \
	case id:                                                                                  \
		for (int64_t i = 0; i < lines; i++) {                                             \
			const int64_t first = i / inner * classes * inner + i % inner;            \
			const T *from = (const T *)x->data + first;                               \
			T *to = (T *)c->out[1]->data + first, most = from[0];                     \
			double sum = 0;                                                           \
			for (int64_t j = 0; j < classes; j++)                                     \
				most = from[j * inner] > most ? from[j * inner] : most;           \
			for (int64_t j = 0; j < classes; j++)                                     \
				sum += exp((double)(from[j * inner] - most));                     \
			for (int64_t j = 0; j < classes; j++)                                     \
				to[j * inner] = (T)((double)(from[j * inner] - most) - log(sum)); \
		}                                                                                 \
		break;

/* Of scores: output 1 is the logarithm of their softmax over the classes. */
int op_softmax_cross_entropy_loss(struct onnx_call *c)
{
	const struct onnx_tensor *x = c->in[0];
	int64_t classes, inner = 1, lines;
	int r;

	if (x->rank < 2)
		return call_fail(c, "an input of rank %d", x->rank);
	r = call_out(c, 1, x->type, x->rank, x->dims);
	if (r < 0)
		return r;
	classes = x->dims[1];
	for (int d = 2; d < x->rank; d++)
		inner *= x->dims[d];
	lines = classes ? (int64_t)x->count / classes : 0;
	switch (x->type) {
		FLOAT_CASES(LOG_SOFTMAX_CASE, )
	default:
		return call_bad_type(c, 0);
	}
	return pick(c, c->out[1]);
}
