/* Updates follow their formulas, and don't depend on the number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/optim.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* One is shared out and decays, the second does neither, the last is a statistic. */
enum { N = 3, STEPS = 3, LONG = 100003 };

struct arrays {
	struct param list[N];
	struct params params;
};

static float number(size_t i)
{
	return (float)(i * 2654435761u % 1000) / 500 - 1;
}

static void set_gradients(struct arrays *a, int step)
{
	for (int i = 0; i < N; i++)
		for (size_t j = 0; a->list[i].grad && j < a->list[i].size; j++)
			a->list[i].grad[j] = number(j * 7 + (size_t)(i + 3 * step));
}

static void arrays_init(struct arrays *a)
{
	static const size_t sizes[N] = {LONG, 5, 4};

	*a = (struct arrays){0};
	a->params.list = a->list;
	a->params.n = N;
	for (int i = 0; i < N; i++) {
		struct param *p = &a->list[i];

		p->size = sizes[i];
		p->decay = i == 0;
		p->statistic = i == 2;
		p->value = calloc(p->size, sizeof(float));
		p->grad = p->statistic ? NULL : calloc(p->size, sizeof(float));
		assert_non_null(p->value);
		for (size_t j = 0; j < p->size; j++)
			p->value[j] = number(j + (size_t)i);
	}
}

static void arrays_release(struct arrays *a)
{
	for (int i = 0; i < N; i++) {
		free(a->list[i].value);
		free(a->list[i].grad);
	}
}

/* Element j of parameter i after STEPS steps, in double; and its average. */
static double expected(const struct optim_options *o, int i, size_t j, double lr, double *ret_average)
{
	double w = number(j + (size_t)i), m = 0, v = 0, average = w;
	size_t sizes[2] = {LONG, 5};

	for (int step = 0; step < STEPS && i < 2; step++) {
		double norm = 0, g = number(j * 7 + (size_t)(i + 3 * step)),
		       decay = i == 0 ? o->weight_decay : 0,
		       keep = fmin(o->ema, (1.0 + step) / (10.0 + step));

		for (int k = 0; k < 2; k++)
			for (size_t l = 0; l < sizes[k]; l++)
				norm += pow(number(l * 7 + (size_t)(k + 3 * step)), 2);
		if (o->clip > 0 && sqrt(norm) > o->clip)
			g *= o->clip / sqrt(norm);
		if (o->kind == OPTIM_SGD) {
			g += decay * w;
			m = o->momentum * m + g;
			w -= lr * (g + o->momentum * m);
		} else {
			m = o->momentum * m + (1 - o->momentum) * g;
			v = 0.999 * v + 0.001 * g * g;
			w -= lr * (m / (1 - pow(o->momentum, step + 1)) /
					   (sqrt(v / (1 - pow(0.999, step + 1))) + 1e-8) +
				   decay * w);
		}
		average = keep * average + (1 - keep) * w;
	}
	*ret_average = average;
	return w;
}

static void test_formulas(void **state)
{
	static const struct optim_options options[] = {
		{.kind = OPTIM_SGD, .momentum = 0.9, .weight_decay = 0.1},
		{.kind = OPTIM_SGD, .momentum = 0.5, .weight_decay = 0.1, .clip = 3, .ema = 0.9},
		{.kind = OPTIM_ADAMW, .momentum = 0.8, .weight_decay = 0.2, .clip = 1e6, .ema = 0.05},
	};

	(void)state;
	for (size_t k = 0; k < sizeof(options) / sizeof(options[0]); k++) {
		struct arrays a;
		struct optim o;
		uint64_t version;

		arrays_init(&a);
		assert_int_equal(optim_init(&o, &a.params, &options[k]), 0);
		for (int step = 0; step < STEPS; step++) {
			set_gradients(&a, step);
			version = a.params.version;
			optim_step(&o, &a.params, 0.1);
			assert_int_equal(o.step, step + 1);
			assert_int_not_equal(a.params.version, version);
		}
		for (int swapped = 0; swapped < 3; swapped++) {
			for (int i = 0; i < N; i++)
				for (size_t j = 0; j < a.list[i].size; j += i ? 1 : 9973) {
					double average, value = expected(&options[k], i, j, 0.1, &average);

					if (swapped == 1 && options[k].ema > 0)
						value = average;
					assert_float_equal(a.list[i].value[j], value, 2e-5);
				}
			optim_swap_average(&o, &a.params);
		}
		optim_release(&o);
		arrays_release(&a);
	}
}

static void test_threads(void **state)
{
	const struct optim_options options = {.momentum = 0.9, .weight_decay = 0.1, .clip = 3, .ema = 0.9};
	float *first = NULL;

	(void)state;
	for (int threads = 1; threads < 6; threads++) {
		struct arrays a;
		struct optim o;

		omp_set_num_threads(threads);
		arrays_init(&a);
		assert_int_equal(optim_init(&o, &a.params, &options), 0);
		for (int step = 0; step < STEPS; step++) {
			set_gradients(&a, step);
			optim_step(&o, &a.params, 0.1);
		}
		if (!first) {
			first = malloc(LONG * sizeof(*first));
			assert_non_null(first);
			memcpy(first, a.list[0].value, LONG * sizeof(*first));
		}
		assert_memory_equal(first, a.list[0].value, LONG * sizeof(*first));
		optim_release(&o);
		arrays_release(&a);
	}
	free(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_formulas), cmocka_unit_test(test_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
