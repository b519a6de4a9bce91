/*
 * The inference worker with two real models of different inputs and orders of classes: what it lists, and that a combination answers
 * with the weighted mean of what each says alone. The worker is a thread at the other end of a socket.
 */
#include "sched/worker/infer_private.h"

#include "engine/backend.h"
#include "engine/base/io.h"
#include "engine/base/rng.h"
#include "engine/image.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define IMAGES  120
#define SIDE    10
#define CLASSES 3
#define RATES   2

/* By the endpoint's classes, that are the first member's. */
struct made {
	struct model *model;
	int own[CLASSES];                /* its number of the endpoint's class */
	float p[RATES][IMAGES][CLASSES]; /* by the endpoint's classes */
	float accuracy[RATES];
	int fds[4]; /* model.json, weights, labels, validation */
};

static struct buf pngs[IMAGES];
static int truth[IMAGES];
static const float rates[RATES] = {0.5f, 1};
static const char *const names[CLASSES] = {"ant", "bee", "cat"};
static const double weights[2] = {1, 2};

static void make_images(void)
{
	struct rng rng = rng_init(5, 0);

	for (int i = 0; i < IMAGES; i++) {
		uint8_t pixels[SIDE * SIDE];
		struct image image = {.height = SIDE, .width = SIDE, .channels = 1, .pixels = pixels};
		uint64_t ground = rng_below(&rng, 200);

		for (int k = 0; k < SIDE * SIDE; k++)
			pixels[k] = (uint8_t)(ground + rng_below(&rng, 56));
		assert_int_equal(image_encode_png(&pngs[i], &image, NULL, 0), 0);
		truth[i] = (int)rng_below(&rng, CLASSES);
	}
}

static void compute(struct made *m, int k, const struct model_info *info)
{
	size_t size = (size_t)(info->channels * info->height * info->width);
	uint8_t *pixels = malloc(size);
	struct session *s;
	int right = 0;

	assert_int_equal(session_new(&s, m->model, backend_find(INFER_BACKEND),
				     &(struct session_options){.rate = rates[k], .batch = 1}, NULL),
			 0);
	for (int i = 0; i < IMAGES; i++) {
		float logits[CLASSES];
		int best = 0;

		assert_int_equal(image_load(pixels, info->height, info->width, info->channels, pngs[i].data,
					    pngs[i].len, NULL),
				 0);
		assert_int_equal(session_forward(s, pixels, 1, logits), 0);
		softmax_rows(logits, 1, CLASSES);
		for (int c = 0; c < CLASSES; c++)
			m->p[k][i][c] = logits[m->own[c]];
		for (int c = 1; c < CLASSES; c++)
			best = m->p[k][i][c] > m->p[k][i][best] ? c : best;
		right += best == truth[i];
	}
	m->accuracy[k] = (float)right / IMAGES;
	session_free(s);
	free(pixels);
}

/* turn: own class c is the endpoint's (c + turn) % CLASSES. */
static void make_model(struct made *m, int channels, int side, int turn, uint64_t seed)
{
	struct model_info info = {.channels = channels,
				  .height = side,
				  .width = side,
				  .classes = CLASSES,
				  .mean = {0.5f, 0.5f, 0.5f},
				  .std = {0.2f, 0.2f, 0.2f},
				  .n_rates = RATES,
				  .rates = {rates[0], rates[1]}};
	struct buf texts[5] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	struct validation_notes *notes;
	uint64_t ids[IMAGES];
	int labels[IMAGES];

	assert_int_equal(model_new(&m->model, "{\"arch\":\"mlp\",\"hidden\":[64]}", &info, seed, NULL), 0);
	for (int c = 0; c < CLASSES; c++) {
		m->own[(c + turn) % CLASSES] = c;
		model_set_label(m->model, c, names[(c + turn) % CLASSES]);
	}
	for (int k = 0; k < RATES; k++) {
		compute(m, k, &info);
		model_set_accuracy(m->model, k, m->accuracy[k]);
	}
	for (int i = 0; i < IMAGES; i++) {
		ids[i] = rng_hash(0, pngs[i].data, pngs[i].len);
		labels[i] = m->own[truth[i]];
	}
	assert_int_equal(validation_notes_new(&notes, ids, IMAGES, CLASSES, RATES), 0);
	for (int k = 0; k < RATES; k++) {
		validation_add(notes, rates[k], PRECISION_F32);
		for (size_t i = 0; i < IMAGES; i++) {
			float row[CLASSES];

			for (int c = 0; c < CLASSES; c++)
				row[m->own[c]] = m->p[k][i][c];
			validation_note(notes, k, i, row);
		}
	}
	assert_int_equal(validation_write(notes, labels, &texts[4]), 0);
	validation_notes_free(notes);
	assert_int_equal(model_save(m->model, &texts[0], &texts[1], &texts[2], &texts[3], NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(io_memfd("test", texts[i].data, texts[i].len, &m->fds[i]), 0);
	assert_int_equal(io_memfd("test", texts[4].data, texts[4].len, &m->fds[3]), 0);
	for (int i = 0; i < 5; i++)
		buf_release(&texts[i]);
}

static struct made made[2];

/* --- the worker --- */

static struct worker worker;
static struct wire_channel channel;
static pthread_t thread;
static int worker_ended; /* what infer_worker returned */
static bool has_ended;   /* the thread was joined */

static void *run_worker(void *data)
{
	(void)data;
	worker_ended = infer_worker(&worker);
	wire_release(&worker.channel);
	return NULL;
}

static int start(void **state)
{
	int pair[2];

	(void)state;
	if (!made[0].model) {
		make_images();
		make_model(&made[0], 1, 8, 0, 1);
		make_model(&made[1], 3, 12, 1, 2);
	}
	worker = (struct worker){.threads = 1};
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_init(&worker.channel, pair[0], WIRE_TO_DAEMON), 0);
	assert_int_equal(wire_init(&channel, pair[1], WIRE_TO_WORKER), 0);
	assert_int_equal(pthread_create(&thread, NULL, run_worker, NULL), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	wire_release(&channel);
	if (!has_ended)
		pthread_join(thread, NULL);
	has_ended = false;
	return 0;
}

static void say(struct wire_message m)
{
	assert_int_equal(wire_send(&channel, &m, 0), 0);
}

static void say_member(const struct made *m, double weight, int validation_fd)
{
	say((struct wire_message){.type = WIRE_ENSEMBLE,
				  .n_fds = validation_fd < 0 ? 3 : 4,
				  .fds = {m->fds[0], m->fds[1], m->fds[2], validation_fd},
				  .ensemble = {.endpoint = 7,
					       .name = "models/b/1",
					       .weight = weight,
					       .has_validation = validation_fd >= 0}});
}

/* What LOADED says of made[0] as the first member, after what was said of others; to be cleared. */
static struct wire_message load(void)
{
	struct wire_message m;

	say((struct wire_message){.type = WIRE_LOAD,
				  .n_fds = 4,
				  .fds = {made[0].fds[0], made[0].fds[1], made[0].fds[2], made[0].fds[3]},
				  .load = {.endpoint = 7,
					   .batch = IMAGES + 1,
					   .precisions = 1 << PRECISION_F32,
					   .gradcam = 1,
					   .name = "models/a/1",
					   .weight = weights[0],
					   .has_validation = 1}});
	for (;;) {
		assert_int_equal(wire_recv(&channel, &m, 0), 0);
		if (m.type == WIRE_LOADED)
			return m;
		assert_int_equal(m.type, WIRE_LABELS);
		for (uint32_t i = 0; i < m.labels.n_names; i++)
			assert_string_equal(m.labels.names[i].text, names[i]);
		wire_clear(&m);
	}
}

/* Of the endpoint's class c, by the parts' slices; -1: not in it. */
static float expected(const int part[2], int image, int c)
{
	double sum = 0, of = 0;

	for (int m = 0; m < 2; m++)
		if (part[m] >= 0) {
			sum += weights[m] * (double)made[m].p[part[m]][image][c];
			of += weights[m];
		}
	return (float)(sum / of);
}

static int expected_label(const int part[2], int image)
{
	int best = 0;

	for (int c = 1; c < CLASSES; c++)
		if (expected(part, image, c) > expected(part, image, best))
			best = c;
	return best;
}

static void parts_of(const struct wire_submodel *s, int ret[2])
{
	ret[0] = ret[1] = -1;
	for (uint32_t i = 0; i < s->n_parts; i++)
		ret[s->parts[i].member] = s->parts[i].slice == 1;
}

/* Runs all images and, last, garbage; share of right ones. */
static double run(uint32_t submodel, const int part[2])
{
	struct wire_input inputs[IMAGES + 1];
	struct wire_message m = {.type = WIRE_RUN,
				 .n_fds = 1,
				 .run = {.batch = 1,
					 .endpoint = 7,
					 .submodel = submodel,
					 .inputs = inputs,
					 .n_inputs = IMAGES + 1}};
	struct buf pack = BUF_INIT;
	int seen = 0, right = 0;

	for (int i = 0; i <= IMAGES; i++) {
		/* garbage comes in the middle: what follows it moves up */
		int image = i < 60 ? i : i - 1;

		inputs[i] = (struct wire_input){(uint64_t)i, i == 60 ? 4 : pngs[image].len};
		buf_add(&pack, i == 60 ? "junk" : pngs[image].data, inputs[i].len);
	}
	assert_int_equal(io_memfd("pack", pack.data, pack.len, &m.fds[0]), 0);
	buf_release(&pack);
	say(m);
	close(m.fds[0]);
	for (;;) {
		assert_int_equal(wire_recv(&channel, &m, 0), 0);
		if (m.type == WIRE_DONE)
			break;
		assert_int_equal(m.type, WIRE_ANSWERS);
		for (uint32_t i = 0; i < m.answers.n_answers; i++, seen++) {
			const struct wire_answer *a = &m.answers.answers[i];
			int image = seen < 60 ? seen : seen - 1;

			assert_int_equal(a->id, seen);
			assert_int_equal(a->failed, seen == 60);
			if (a->failed)
				continue;
			assert_int_equal(a->n_top, CLASSES);
			for (uint32_t k = 0; k < a->n_top; k++)
				assert_true(fabsf(a->top[k].score -
						  expected(part, image, (int)a->top[k].label)) < 2e-6f);
			assert_int_equal(a->label, expected_label(part, image));
			right += (int)a->label == truth[image];
		}
		wire_clear(&m);
	}
	assert_int_equal(seen, IMAGES + 1);
	wire_clear(&m);
	return (double)right / IMAGES;
}

/* All parts alone and together; what is listed as their accuracy is what their answers come to. */
static void test_means(void **state)
{
	struct wire_message m;
	int pairs = 0, n;

	(void)state;
	say_member(&made[1], weights[1], made[1].fds[3]);
	m = load();
	if (m.loaded.code)
		fail_msg("%s", m.loaded.detail);
	assert_string_equal(m.loaded.detail, "");
	n = (int)m.loaded.n_submodels;
	assert_true(n > 4);
	for (int i = 0; i < n; i++) {
		const struct wire_submodel *s = &m.loaded.submodels[i];
		int part[2];
		double accuracy;

		parts_of(s, part);
		accuracy = run((uint32_t)i, part);
		if (fabs(accuracy - s->accuracy) > 1e-6)
			fail_msg("sub-model %d: %.4f listed, %.4f answered", i, s->accuracy, accuracy);
		assert_int_equal(s->n_parts, i < 4 ? 1 : 2);
		if (i < 4)
			assert_true(part[i / 2] == i % 2 && part[1 - i / 2] == -1);
		else
			pairs++;
		assert_true(s->slice == (part[0] == 1 || part[1] == 1 ? 1 : 0.5f));
		assert_true(s->time_ns > 0 && s->time_one_ns > 0);
	}
	assert_true(pairs >= 2);
	wire_clear(&m);
}

static struct buf explain(uint32_t endpoint, uint32_t submodel, int label)
{
	struct wire_wish wish = {.id = 1, .len = pngs[3].len, .label = (uint32_t)label, .score = 0.5f};
	struct wire_message m = {.type = WIRE_EXPLAIN,
				 .n_fds = 1,
				 .explain = {.batch = 1,
					     .endpoint = endpoint,
					     .submodel = submodel,
					     .wishes = &wish,
					     .n_wishes = 1}};
	struct buf ret = BUF_INIT;

	assert_int_equal(io_memfd("pack", pngs[3].data, pngs[3].len, &m.fds[0]), 0);
	say(m);
	close(m.fds[0]);
	assert_int_equal(wire_recv(&channel, &m, 0), 0);
	assert_int_equal(m.type, WIRE_PICTURES);
	assert_true(m.pictures.pictures[0].len > 100);
	assert_int_equal(io_pread(m.fds[0], buf_reserve(&ret, m.pictures.pictures[0].len),
				  m.pictures.pictures[0].len, 0),
			 0);
	ret.len = m.pictures.pictures[0].len;
	wire_clear(&m);
	return ret;
}

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* A combination is explained by its heaviest member, in that one's own numbers of the classes. */
static void test_explained(void **state)
{
	struct wire_message m;
	struct buf alone[4], both;
	int compared = 0;

	(void)state;
	say_member(&made[1], weights[1], made[1].fds[3]);
	m = load();
	for (uint32_t i = 0; i < 4; i++) {
		alone[i] = explain(7, i, 2);
		assert_non_null(memmem(alone[i].data, alone[i].len, "label\0cat", 9));
	}
	assert_false(same(&alone[1], &alone[3]));
	for (uint32_t i = 4; i < m.loaded.n_submodels; i++, compared++) {
		int part[2];

		parts_of(&m.loaded.submodels[i], part);
		both = explain(7, i, 2);
		assert_true(same(&both, &alone[2 + part[1]]));
		buf_release(&both);
	}
	assert_true(compared > 0);
	wire_clear(&m);
	/* the other member without the first one */
	say((struct wire_message){.type = WIRE_LOAD,
				  .n_fds = 3,
				  .fds = {made[1].fds[0], made[1].fds[1], made[1].fds[2]},
				  .load = {.endpoint = 8, .batch = 8, .precisions = 1, .gradcam = 1}});
	do {
		assert_int_equal(wire_recv(&channel, &m, 0), 0);
		if (m.type == WIRE_LABELS)
			wire_clear(&m);
	} while (m.type != WIRE_LOADED);
	assert_int_equal(m.loaded.n_submodels, RATES);
	assert_int_equal(m.loaded.submodels[0].n_parts, 0);
	wire_clear(&m);
	for (uint32_t i = 0; i < RATES; i++) {
		both = explain(8, i, made[1].own[2]);
		assert_true(same(&both, &alone[2 + i]));
		buf_release(&both);
	}
	for (int i = 0; i < 4; i++)
		buf_release(&alone[i]);
}

/* Without what the other one said of the images there are no combinations, and it is said why. */
static void test_not_measured(void **state)
{
	struct wire_message m;
	int junk;

	(void)state;
	assert_int_equal(io_memfd("junk", "INFVAL1\nand nothing more", 24, &junk), 0);
	for (int i = 0; i < 2; i++) {
		say_member(&made[1], weights[1], i ? junk : -1);
		m = load();
		assert_int_equal(m.loaded.code, ERR_NONE);
		assert_int_equal(m.loaded.n_submodels, 4);
		assert_non_null(strstr(m.loaded.detail, "models/b/1 has no usable validation.bin"));
		wire_clear(&m);
	}
	close(junk);
}

/* Models that don't answer the same question. */
static void test_other_classes(void **state)
{
	struct made other = made[1];
	struct wire_message m;

	(void)state;
	assert_int_equal(io_memfd("labels", "cat\nant\nbug\n", 12, &other.fds[2]), 0);
	say_member(&other, 1, -1);
	m = load();
	assert_int_equal(m.loaded.code, ERR_BAD_MODEL);
	assert_string_equal(m.loaded.detail,
			    "models/a/1 has a class \"bee\", models/b/1 has none of that name");
	wire_clear(&m);
	close(other.fds[2]);
	/* what it can't load is said of the one that it is of */
	other.fds[2] = made[1].fds[2];
	other.fds[1] = other.fds[0];
	say_member(&other, 1, -1);
	m = load();
	assert_int_not_equal(m.loaded.code, ERR_NONE);
	assert_memory_equal(m.loaded.detail, "models/b/1: ", 12);
	wire_clear(&m);
	/* and it goes on with others */
	say_member(&made[1], 1, -1);
	m = load();
	assert_int_equal(m.loaded.n_submodels, 4);
	wire_clear(&m);
}

static void ends(void)
{
	struct wire_message m;

	pthread_join(thread, NULL);
	assert_int_equal(worker_ended, -EPROTO);
	assert_int_equal(wire_recv(&channel, &m, 0), -EPIPE);
	has_ended = true;
}

static void test_too_many(void **state)
{
	(void)state;
	for (int i = 0; i < ENSEMBLE_MEMBERS; i++)
		say_member(&made[1], 1, -1);
	ends();
}

static void test_no_weight(void **state)
{
	(void)state;
	say_member(&made[1], (double)NAN, -1);
	ends();
}

static void test_other_endpoint(void **state)
{
	(void)state;
	say_member(&made[1], 1, -1);
	say((struct wire_message){.type = WIRE_LOAD,
				  .n_fds = 2,
				  .fds = {made[0].fds[0], made[0].fds[1]},
				  .load = {.endpoint = 8, .batch = 1, .weight = 1}});
	ends();
}

#define T(name) cmocka_unit_test_setup_teardown(name, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_means),    T(test_explained), T(test_not_measured),   T(test_other_classes),
		T(test_too_many), T(test_no_weight), T(test_other_endpoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
