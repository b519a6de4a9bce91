/* What an inference worker says of a model's cascades: in the endpoint's numbering, and nothing of what is idle. */
#include "sched/worker/infer_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ALL (MODEL_MAX_RATES * N_PRECISIONS)

/* A number of its own for each pair and point, 0…1 exactly. */
static float share_of(struct model_submodel first, struct model_submodel then, int point)
{
	int number = first.rate_index * N_PRECISIONS + (int)first.precision;

	number = number * ALL + then.rate_index * N_PRECISIONS + (int)then.precision;
	return (float)(1 + number * CASCADE_POINTS + point) / 8192;
}

/* Eight slices in all precisions with a cascade from each to each other one. */
static struct model *full_model(void)
{
	struct model_info info = {
		.channels = 1, .height = 4, .width = 4, .classes = 3, .std = {1}, .n_rates = MODEL_MAX_RATES};
	struct model *model;

	for (int i = 0; i < MODEL_MAX_RATES; i++)
		info.rates[i] = (float)(i + 1) / MODEL_MAX_RATES;
	assert_int_equal(model_new(&model, "{\"arch\":\"mlp\",\"hidden\":[16]}", &info, 1, NULL), 0);
	for (int a = 0; a < ALL; a++) {
		struct model_submodel from = {a / N_PRECISIONS, (enum precision)(a % N_PRECISIONS)};
		struct cascade_first first;

		for (int k = 0; k < CASCADE_POINTS; k++) {
			first.threshold[k] = (float)(a + k + 1) / 64;
			first.sure[k] = (float)(a + 1) / 64;
		}
		assert_int_equal(model_set_cascade_first(model, from, &first), 0);
		for (int b = 0; b < ALL; b++) {
			struct model_submodel to = {b / N_PRECISIONS, (enum precision)(b % N_PRECISIONS)};
			float then[CASCADE_POINTS];

			for (int k = 0; k < CASCADE_POINTS; k++)
				then[k] = share_of(from, to, k);
			if (a != b)
				model_set_cascade_then(model, from, to, then);
		}
	}
	return model;
}

/* Sub-model i of the endpoint is keys[i] of the model. */
static void check(struct model *model, const struct model_submodel *keys, int n, unsigned idle)
{
	static struct infer_endpoint e;
	struct wire_message m = {.type = WIRE_LOADED}, back;
	static uint8_t packet[WIRE_MAX];
	void *memory = NULL;
	int used = n - __builtin_popcount(idle);
	size_t len;

	e = (struct infer_endpoint){.n_members = 1, .members = {{.model = model}}, .n_submodels = n};
	for (int i = 0; i < n; i++) {
		e.members[0].parts[i] =
			(struct infer_part){.rate_index = keys[i].rate_index,
					    .rate = model_info(model)->rates[keys[i].rate_index],
					    .precision = keys[i].precision};
		e.submodels[i] =
			(struct infer_submodel){.n_parts = 1, .parts = {{0, i}}, .idle = idle & 1u << i};
	}
	assert_int_equal(infer_cascades_list(&e, &m.loaded, &memory), 0);
	assert_int_equal(wire_encode(&m, 0, packet, &len), 0); /* all of them fit a message */
	free(memory);
	assert_int_equal(wire_decode(WIRE_TO_DAEMON, 0, packet, len, 0, &back), 0);
	assert_int_equal(back.loaded.n_firsts, used);
	assert_int_equal(back.loaded.n_pairs, used * (used - 1));
	for (uint32_t i = 0; i < back.loaded.n_firsts; i++) {
		const struct wire_cascade_first *f = &back.loaded.firsts[i];
		int a = keys[f->submodel].rate_index * N_PRECISIONS + (int)keys[f->submodel].precision;

		assert_false(idle & 1u << f->submodel);
		assert_int_equal(f->n_points, CASCADE_POINTS);
		for (int k = 0; k < CASCADE_POINTS; k++)
			assert_true(f->points[k].threshold == (float)(a + k + 1) / 64 &&
				    f->points[k].sure == (float)(a + 1) / 64);
	}
	for (uint32_t i = 0; i < back.loaded.n_pairs; i++) {
		const struct wire_cascade_pair *p = &back.loaded.pairs[i];

		assert_false(idle & (1u << p->first | 1u << p->then));
		assert_int_equal(p->n_points, CASCADE_POINTS);
		for (int k = 0; k < CASCADE_POINTS; k++)
			assert_true(p->points[k].accuracy == share_of(keys[p->first], keys[p->then], k));
	}
	wire_clear(&back);
}

static void test_numbering(void **state)
{
	const struct model_submodel some[] = {
		{0, PRECISION_BF16}, {3, PRECISION_F32}, {3, PRECISION_INT8}, {7, PRECISION_F32}};
	struct model_submodel all[ALL];
	struct model *model = full_model();

	(void)state;
	_Static_assert(ALL == MAX_SUBMODELS, "as many as there can be");
	for (int i = 0; i < ALL; i++)
		all[i] = (struct model_submodel){i / N_PRECISIONS, (enum precision)(i % N_PRECISIONS)};
	check(model, all, ALL, 0);
	check(model, some, 4, 0);
	check(model, some, 4, 1u << 1);
	check(model, some, 4, 1u << 0 | 1u << 3);
	check(model, some, 4, 7);
	model_free(model);
}

/* Of what the model doesn't know nothing is said. */
static void test_not_measured(void **state)
{
	const struct model_info info = {.channels = 1,
					.height = 4,
					.width = 4,
					.classes = 3,
					.std = {1},
					.n_rates = 2,
					.rates = {0.5f, 1}};
	const struct cascade_first first = {.threshold = {0.5f}, .sure = {0.5f}};
	struct infer_endpoint e = {
		.n_members = 1,
		.members = {{.n_parts = 2, .parts = {{.rate = 0.5f}, {.rate_index = 1, .rate = 1}}}},
		.n_submodels = 2,
		.submodels = {{.n_parts = 1, .parts = {{0, 0}}}, {.n_parts = 1, .parts = {{0, 1}}}}};
	struct wire_loaded loaded = {0};
	void *memory = NULL;

	(void)state;
	assert_int_equal(model_new(&e.members[0].model, "{\"arch\":\"mlp\",\"hidden\":[16]}", &info, 1, NULL),
			 0);
	assert_int_equal(infer_cascades_list(&e, &loaded, &memory), 0);
	assert_true(loaded.n_firsts == 0 && loaded.n_pairs == 0);
	free(memory);
	assert_int_equal(model_set_cascade_first(e.members[0].model,
						 (struct model_submodel){1, PRECISION_F32}, &first),
			 0);
	assert_int_equal(infer_cascades_list(&e, &loaded, &memory), 0);
	assert_true(loaded.n_firsts == 1 && loaded.n_pairs == 0);
	assert_int_equal(loaded.firsts[0].submodel, 1);
	free(memory);
	model_free(e.members[0].model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbering),
		cmocka_unit_test(test_not_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
