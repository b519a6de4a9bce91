/* What is kept of a validation split, whether hostile bytes are refused, and what combinations of models are worth by it. */
#include "engine/ensemble.h"

#include "engine/base/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define IMAGES  200
#define CLASSES 3

static const int same[CLASSES] = {0, 1, 2};

/* Image i of a split has id 1000 + i and class i % 3; what a sub-model says of it is probability `p` for class `said`, the rest equally. */
static void say(struct validation_notes *notes, int submodel, size_t image, int said, float p)
{
	float row[CLASSES];

	for (int c = 0; c < CLASSES; c++)
		row[c] = c == said ? p : (1 - p) / (CLASSES - 1);
	validation_note(notes, submodel, image, row);
}

static struct validation_notes *begin(const uint64_t *ids, size_t n, int submodels)
{
	struct validation_notes *notes;

	assert_int_equal(validation_notes_new(&notes, ids, n, CLASSES, submodels), 0);
	for (int k = 0; k < submodels; k++)
		assert_int_equal(validation_add(notes, (float)(k + 1) / (float)submodels, PRECISION_F32), k);
	return notes;
}

/* Frees the notes; the file is buf's. */
static void finish(struct validation_notes *notes, const int *labels, struct buf *buf, struct validation *ret)
{
	struct err err = ERR_INIT;
	char text[512];

	assert_int_equal(validation_write(notes, labels, buf), 0);
	validation_notes_free(notes);
	if (validation_open(ret, buf->data, buf->len, &err) < 0)
		fail_msg("%s", err_format(&err, text, sizeof(text)));
}

static void test_file(void **state)
{
	/* of the same image twice the second one gets an id of its own */
	uint64_t ids[IMAGES];
	int labels[IMAGES];
	struct validation_notes *notes;
	struct buf buf = BUF_INIT;
	struct validation v;

	(void)state;
	for (int i = 0; i < IMAGES; i++) {
		ids[i] = (uint64_t)(5000 - 10 * i);
		labels[i] = i % CLASSES;
	}
	ids[7] = ids[3];
	notes = begin(ids, IMAGES, 2);
	for (int i = 0; i < IMAGES; i++) {
		say(notes, 0, (size_t)i, i % CLASSES, 0.8f);
		say(notes, 1, (size_t)i, (i + 1) % CLASSES, 1);
	}
	finish(notes, labels, &buf, &v);
	assert_int_equal(v.n, IMAGES);
	assert_int_equal(validation_find(&v, 0.5f, PRECISION_F32), 0);
	assert_int_equal(validation_find(&v, 1, PRECISION_F32), 1);
	assert_int_equal(validation_find(&v, 1, PRECISION_BF16), -1);
	for (int i = 0; i < IMAGES; i++) {
		int image = IMAGES - 1 - i; /* the lowest id comes first */

		if (image <= 7 && image >= 3)
			image = image == 3 ? 7 : image - 1;
		assert_int_equal(validation_label(&v, (size_t)i), image % CLASSES);
		assert_true(validation_id(&v, (size_t)i) == (image == 7 ? ids[3] + 1 : ids[image]));
		for (int c = 0; c < CLASSES; c++) {
			assert_int_equal(validation_u16(validation_row(&v, 0, (size_t)i) + 2 * c),
					 c == image % CLASSES ? 52428 : 6553);
			assert_int_equal(validation_u16(validation_row(&v, 1, (size_t)i) + 2 * c),
					 c == (image + 1) % CLASSES ? 65535 : 0);
		}
	}
	buf_release(&buf);
}

/* Of more images than fit the lowest ids are kept, so that of two files one is the other's part. */
static void test_bounded(void **state)
{
	enum { MANY = 5000, WIDE = 4096 };
	static float row[WIDE] = {1};
	uint64_t *ids = calloc(MANY, sizeof(*ids));
	int *labels = calloc(MANY, sizeof(*labels));
	struct rng rng = rng_init(1, 1);
	uint64_t last = 0;

	(void)state;
	for (int i = 0; i < MANY; i++)
		ids[i] = rng_next(&rng);
	for (int submodels = 1; submodels <= 4; submodels *= 4) {
		struct validation_notes *notes;
		struct buf buf = BUF_INIT;
		struct validation v;

		assert_int_equal(validation_notes_new(&notes, ids, MANY, WIDE, submodels), 0);
		for (int k = 0; k < submodels; k++) {
			validation_add(notes, (float)(k + 1) / 4, PRECISION_F32);
			for (size_t i = 0; i < MANY; i++)
				validation_note(notes, k, i, row);
		}
		finish(notes, labels, &buf, &v);
		assert_true(buf.len <= VALIDATION_MAX && buf.len > VALIDATION_MAX - 50000);
		assert_true(v.n > 900 && v.n < MANY);
		if (submodels == 4) /* the first ones of the other file */
			assert_true(validation_id(&v, v.n - 1) < last);
		last = validation_id(&v, v.n - 1);
		for (int i = 0, below = 0; i < MANY; i++) {
			below += ids[i] <= last;
			if (i == MANY - 1)
				assert_int_equal(below, v.n);
		}
		buf_release(&buf);
	}
	{
		struct validation_notes *notes;

		assert_int_equal(validation_notes_new(&notes, ids, 99, 10, 1), -ERANGE);
		assert_int_equal(validation_notes_new(&notes, ids, MANY, 65536, 24), -ERANGE);
	}
	free(ids);
	free(labels);
}

static void test_hostile(void **state)
{
	enum { N = 100 };
	uint64_t ids[N];
	int labels[N] = {0};
	struct validation_notes *notes;
	struct buf buf = BUF_INIT;
	struct validation v, untouched = {.n = 77};
	const struct {
		size_t at;
		uint8_t value[8];
		int len;
	} damages[] = {
		{0, "X", 1},                                         /* magic */
		{8, {0}, 4},                                         /* no images */
		{8, {101}, 4},                                       /* one more */
		{8, {0xff, 0xff, 0xff, 0xff}, 4},                    /* far more */
		{12, {0}, 4},                                        /* no classes */
		{12, {4}, 4},                                        /* one more */
		{12, {0, 0, 2}, 4},                                  /* 131072 */
		{16, {0}, 4},                                        /* no sub-models */
		{16, {0xff, 0xff, 0xff, 0xff}, 4},                   /* many */
		{24, {0}, 4},                                        /* rate 0 */
		{24, {0, 0, 0xc0, 0x7f}, 4},                         /* no number */
		{24, {0, 0, 0, 0x40}, 4},                            /* 2 */
		{24, {0, 0, 0x80, 0x3f}, 4},                         /* that of the other one */
		{28, {3}, 4},                                        /* no precision */
		{40, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8}, /* the first id above the second */
		{40 + 8, {0}, 8},                                    /* the second as the first */
		{40 + 8 * N, {3}, 2},                                /* class 3 of 3 */
		{40 + 10 * N, {0xff, 0xff}, 2},                      /* sums to more than 1 */
		{40 + 10 * N + 6 * N, {0, 0}, 2},                    /* and to less */
	};

	(void)state;
	for (int i = 0; i < N; i++)
		ids[i] = (uint64_t)i;
	notes = begin(ids, N, 2);
	for (size_t i = 0; i < N; i++) {
		say(notes, 0, i, 1, 0.9f);
		say(notes, 1, i, 0, 0.9f);
	}
	finish(notes, labels, &buf, &v);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct err err = ERR_INIT;
		char *copy = malloc(buf.len);

		memcpy(copy, buf.data, buf.len);
		memcpy(copy + damages[i].at, damages[i].value, (size_t)damages[i].len);
		v = untouched;
		if (validation_open(&v, copy, buf.len, &err) != -EBADMSG || err.code != ERR_BAD_MODEL ||
		    v.n != 77)
			fail_msg("damage %zu at %zu", i, damages[i].at);
		free(copy);
	}
	/* exact copies, so that a sanitizer sees a byte read beyond them */
	for (size_t len = 0; len < buf.len; len += len < 60 ? 1 : 97) {
		char *copy = malloc(len + !len);

		memcpy(copy, buf.data, len);
		assert_int_equal(validation_open(&v, copy, len, NULL), -EBADMSG);
		free(copy);
	}
	buf_addf(&buf, "x");
	assert_int_equal(validation_open(&v, buf.data, buf.len, NULL), -EBADMSG);
	buf_release(&buf);
}

/* --- combinations --- */

struct model {
	struct buf buf;
	struct validation v;
};

/* Images from `first` on; `said` and p of each sub-model and image. */
static void make(struct model *m, int first, int n, int submodels,
		 int (*said)(int submodel, int image, float *p))
{
	uint64_t ids[IMAGES];
	int labels[IMAGES];
	struct validation_notes *notes;

	for (int i = 0; i < n; i++) {
		ids[i] = (uint64_t)(1000 + first + i);
		labels[i] = (first + i) % CLASSES;
	}
	notes = begin(ids, (size_t)n, submodels);
	for (int k = 0; k < submodels; k++)
		for (int i = 0; i < n; i++) {
			float p = 0;
			int what = said(k, first + i, &p);

			say(notes, k, (size_t)i, what, p);
		}
	finish(notes, labels, &m->buf, &m->v);
}

/* One is surely right of the even images and not so surely wrong of the others; the other one the reverse, but of every tenth. */
static int even(int submodel, int image, float *p)
{
	(void)submodel;
	*p = image % 2 == 0 ? 0.9f : 0.5f;
	return image % 2 == 0 ? image % CLASSES : (image + 1) % CLASSES;
}

static int odd(int submodel, int image, float *p)
{
	(void)submodel;
	*p = image % 2 == 1 && image % 10 != 1 ? 0.9f : 0.5f;
	return image % 2 == 1 && image % 10 != 1 ? image % CLASSES : (image + 1) % CLASSES;
}

static struct ensemble_member member_of(const struct model *m, double weight, double accuracy, double cost)
{
	return (struct ensemble_member){.weight = weight,
					.labels = same,
					.validation = &m->v,
					.n_parts = 1,
					.parts = {{.validation = 0, .accuracy = accuracy, .cost = cost}}};
}

static struct combination both(void)
{
	struct combination c;

	memset(c.part, -1, sizeof(c.part));
	c.part[0] = c.part[1] = 0;
	return c;
}

static void test_accuracy(void **state)
{
	struct combination c = both();
	struct model a = {0}, b = {0};
	struct ensemble_member members[2];
	struct ensemble e;

	(void)state;
	make(&a, 0, IMAGES, 1, even);
	make(&b, 0, IMAGES, 1, odd);
	members[0] = member_of(&a, 1, 0.5, 1);
	members[1] = member_of(&b, 1, 0.4, 1);
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), 0);
	assert_int_equal(e.n, IMAGES);
	/* the sure one wins; of every tenth both are wrong */
	assert_true(ensemble_measure(&e, &c, e.n) == 0.9);
	/* a weight of 4: 4·0.5 for the wrong one outdoes 0.9 and 4·0.25 */
	members[0].weight = 4;
	assert_true(ensemble_measure(&e, &c, e.n) == 0.5);
	members[0].weight = 1.2;
	assert_true(ensemble_measure(&e, &c, e.n) == 0.9);
	members[1].weight = 4.8;
	assert_true(ensemble_measure(&e, &c, e.n) == 0.4);
	ensemble_release(&e);
	buf_release(&a.buf);
	buf_release(&b.buf);
}

/* The same classes in another order: the ensemble's class is labels[own]. */
static int turned(int submodel, int image, float *p)
{
	int class = odd(submodel, image, p);

	return (class + 1) % CLASSES;
}

static void test_label_map(void **state)
{
	static const int back[CLASSES] = {2, 0, 1}; /* own class c is the ensemble's c - 1 */
	struct combination c = both();
	struct model a = {0}, b = {0};
	struct ensemble_member members[2];
	struct ensemble e;
	struct validation_notes *notes;
	uint64_t ids[IMAGES];
	int labels[IMAGES];

	(void)state;
	make(&a, 0, IMAGES, 1, even);
	for (int i = 0; i < IMAGES; i++) {
		ids[i] = (uint64_t)(1000 + i);
		labels[i] = (i + 1) % CLASSES;
	}
	notes = begin(ids, IMAGES, 1);
	for (int i = 0; i < IMAGES; i++) {
		float p;
		int said = turned(0, i, &p);

		say(notes, 0, (size_t)i, said, p);
	}
	finish(notes, labels, &b.buf, &b.v);
	members[0] = member_of(&a, 1, 0.5, 1);
	members[1] = member_of(&b, 1, 0.4, 1);
	members[1].labels = back;
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), 0);
	assert_true(ensemble_measure(&e, &c, e.n) == 0.9);
	ensemble_release(&e);
	/* taken as they stand they are of other classes: none is shared */
	members[1].labels = same;
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), -ERANGE);
	ensemble_release(&e);
	buf_release(&a.buf);
	buf_release(&b.buf);
}

/* Only what all members were validated on counts, and there has to be enough of it. */
static void test_shared(void **state)
{
	struct combination c = both(), list[8];
	struct model a = {0}, b = {0}, far = {0};
	struct ensemble_member members[3];
	struct ensemble e;

	(void)state;
	make(&a, 0, IMAGES, 1, even);
	make(&b, 60, 140, 1, odd);
	make(&far, 101, IMAGES, 1, odd);
	members[0] = member_of(&a, 1, 0.5, 1);
	members[1] = member_of(&b, 1, 0.4, 1);
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), 0);
	assert_int_equal(e.n, 140);
	assert_int_equal(validation_id(&a.v, e.image[0][0]), 1060);
	assert_int_equal(validation_id(&b.v, e.image[1][0]), 1060);
	assert_true(ensemble_measure(&e, &c, e.n) == 0.9);
	ensemble_release(&e);
	members[2] = member_of(&far, 1, 0.4, 1); /* 101 to 199: one too few */
	assert_int_equal(ensemble_init(&e, members, 3, CLASSES), -ERANGE);
	assert_int_equal(ensemble_choose(&e, list, 8), 3); /* each alone */
	for (int i = 0; i < 3; i++)
		assert_int_equal(list[i].part[i], 0);
	ensemble_release(&e);
	members[1].validation = NULL;
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), -ERANGE);
	assert_int_equal(ensemble_choose(&e, list, 8), 2);
	ensemble_release(&e);
	buf_release(&a.buf);
	buf_release(&b.buf);
	buf_release(&far.buf);
}

/* Wider ones and more of them are better: an image is right where a hash of the member, the part and it says so. */
static int seed_of_said;

static int noisy(int submodel, int image, float *p)
{
	uint64_t h = rng_mix((uint64_t)(image * 64 + submodel * 8 + seed_of_said));
	bool right = h % 100 < 50 + 15 * (uint64_t)submodel;

	*p = right ? 0.8f : 0.5f;
	return right ? image % CLASSES : (image + 1 + (int)(h >> 32) % 2) % CLASSES;
}

static int count(const struct combination *list, int n, int parts)
{
	int ret = 0;

	for (int i = 0; i < n; i++) {
		int own = 0;

		for (int m = 0; m < ENSEMBLE_MEMBERS; m++)
			own += list[i].part[m] >= 0;
		ret += own == parts;
	}
	return ret;
}

static void noisy_members(struct model *models, struct ensemble_member *members, int n, int parts)
{
	for (int m = 0; m < n; m++) {
		seed_of_said = m;
		models[m] = (struct model){0};
		make(&models[m], 0, IMAGES, parts, noisy);
		members[m] = (struct ensemble_member){
			.weight = 1, .labels = same, .validation = &models[m].v, .n_parts = parts};
		for (int k = 0; k < parts; k++)
			members[m].parts[k] = (struct ensemble_part){
				.validation = k, .accuracy = 0.5 + 0.15 * k, .cost = (k + 1) * (k + 1)};
	}
}

/* All pairs of two members with few parts; nothing is there twice; what is said of each is what is measured of it. */
static void test_pairs(void **state)
{
	struct model models[2];
	struct ensemble_member members[2];
	struct combination list[64];
	struct ensemble e;
	double best = 0;
	int n;

	(void)state;
	noisy_members(models, members, 2, 3);
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), 0);
	n = ensemble_choose(&e, list, 64);
	assert_int_equal(count(list, n, 1), 6);
	assert_true(count(list, n, 2) >= 1 && count(list, n, 2) == n - 6);
	for (int i = 0; i < n; i++) {
		double cost = 0;

		if (i < 6) /* alone: by member and part */
			assert_int_equal(list[i].part[i / 3], i % 3);
		else
			assert_true(list[i].accuracy == ensemble_measure(&e, &list[i], e.n));
		if (i > 6)
			assert_true(list[i].cost >= list[i - 1].cost);
		for (int m = 0; m < 2; m++)
			if (list[i].part[m] >= 0)
				cost += members[m].parts[list[i].part[m]].cost;
		assert_true(list[i].cost == cost);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(list[i].part, list[j].part, sizeof(list[i].part));
	}
	/* the most accurate of all nine is among them */
	for (int k = 0; k < 9; k++) {
		struct combination c = both();
		double accuracy;

		c.part[0] = (int8_t)(k / 3);
		c.part[1] = (int8_t)(k % 3);
		accuracy = ensemble_measure(&e, &c, e.n);
		best = accuracy > best ? accuracy : best;
	}
	for (int i = 0; i < n; i++)
		best = list[i].accuracy == best ? 2 : best;
	assert_true(best == 2);
	/* a part of which no answers are known is in none of them, were it ever so good */
	members[1].parts[2].validation = -1;
	n = ensemble_choose(&e, list, 64);
	assert_int_equal(count(list, n, 1), 6);
	assert_true(n > 6);
	for (int i = 6; i < n; i++)
		assert_int_not_equal(list[i].part[1], 2);
	members[1].parts[0].validation = members[1].parts[1].validation = -1;
	for (int k = 0; k < 3; k++)
		members[0].parts[k].accuracy = members[1].parts[k].accuracy = 0;
	assert_int_equal(ensemble_choose(&e, list, 64), 6);
	/* what is far below something cheaper is left out, though there is room */
	for (int k = 0; k < 3; k++)
		members[1].parts[k].validation = k;
	members[0].parts[0].accuracy = 1;
	assert_int_equal(ensemble_choose(&e, list, 64), 6);
	ensemble_release(&e);
	for (int m = 0; m < 2; m++)
		buf_release(&models[m].buf);
}

/* Of many combinations there are at most as many as fit, among them the whole ensemble where it is the best one; twice the same. */
static void test_pruning(void **state)
{
	struct model models[5];
	struct ensemble_member members[5];
	struct combination list[24], again[24];
	struct ensemble e;
	double best = 0;
	int n;

	(void)state;
	noisy_members(models, members, 5, 3);
	assert_int_equal(ensemble_init(&e, members, 5, CLASSES), 0);
	n = ensemble_choose(&e, list, 24);
	assert_int_equal(n, 24);
	assert_int_equal(ensemble_choose(&e, again, 24), 24);
	for (int i = 0; i < n; i++)
		assert_memory_equal(list[i].part, again[i].part, sizeof(list[i].part));
	for (int i = 0; i < n; i++)
		best = list[i].accuracy > best ? list[i].accuracy : best;
	assert_true(count(list, n, 3) + count(list, n, 4) + count(list, n, 5) > 0);
	assert_true(best > 0.9); /* alone they have 0.8 */
	/* nothing that is chosen is both dearer and much worse than something else that is a combination, too */
	for (int i = 0; i < n; i++)
		for (int j = 0; j < n && count(&list[i], 1, 1) == 0; j++)
			if (list[j].cost <= list[i].cost)
				assert_true(list[i].accuracy > list[j].accuracy - 0.021);
	ensemble_release(&e);
	for (int m = 0; m < 5; m++)
		buf_release(&models[m].buf);
}

/* However many parts there are, combinations find room; without any all of it is the parts'. */
static void test_room(void **state)
{
	struct model models[2];
	struct ensemble_member members[2];
	struct combination list[24];
	struct ensemble e;

	(void)state;
	noisy_members(models, members, 2, 12);
	for (int m = 0; m < 2; m++)
		for (int k = 0; k < 12; k++)
			members[m].parts[k].accuracy = 0.4;
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), 0);
	assert_int_equal(ensemble_choose(&e, list, 24), 24);
	assert_int_equal(count(list, 24, 1), 16);
	ensemble_release(&e);
	members[1].validation = NULL;
	assert_int_equal(ensemble_init(&e, members, 2, CLASSES), -ERANGE);
	assert_int_equal(ensemble_choose(&e, list, 24), 24);
	assert_int_equal(count(list, 24, 1), 24);
	ensemble_release(&e);
	for (int m = 0; m < 2; m++)
		buf_release(&models[m].buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),      cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_hostile),   cmocka_unit_test(test_accuracy),
		cmocka_unit_test(test_label_map), cmocka_unit_test(test_shared),
		cmocka_unit_test(test_pairs),     cmocka_unit_test(test_pruning),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
