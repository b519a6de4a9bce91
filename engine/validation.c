/* Of an open one everything was looked at once, so that reading needs no check. */
#include "engine/validation.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC         "INFVAL1\n"
#define HEADER        24
#define SUBMODEL_SIZE 8
#define IMAGE_SIZE    10 /* id and class */
#define ONE           65535
#define MAX_CLASSES   65536
#define MAX_SUBMODELS 256 /* far more than a model has */
#define NOT_KEPT      UINT32_MAX

/* --- writing --- */

struct validation_notes {
	size_t n, kept;
	int classes, n_submodels, max_submodels;
	uint32_t *place; /* (n) of each image among those that are kept, or NOT_KEPT */
	uint64_t *ids;   /* (kept) */
	uint32_t *image; /* (kept) */
	uint16_t *rows;  /* (max_submodels, kept, classes) */
	struct {
		float rate;
		enum precision precision;
	} submodels[];
};

struct ranked {
	uint64_t id;
	uint32_t image;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (x->image > y->image) - (x->image < y->image);
}

/* Which are kept. Images that are the same get ids one after the other: those of another model's notes get the same. */
static int choose(struct validation_notes *notes, const uint64_t *ids)
{
	struct ranked *list = calloc(notes->n, sizeof(*list));

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < notes->n; i++) {
		list[i] = (struct ranked){ids[i], (uint32_t)i};
		notes->place[i] = NOT_KEPT;
	}
	qsort(list, notes->n, sizeof(*list), compare_ranked);
	for (size_t i = 0; i < notes->kept; i++) {
		notes->ids[i] = i && list[i].id <= notes->ids[i - 1] ? notes->ids[i - 1] + 1 : list[i].id;
		notes->image[i] = list[i].image;
		notes->place[list[i].image] = (uint32_t)i;
	}
	free(list);
	return 0;
}

int validation_notes_new(struct validation_notes **ret, const uint64_t *ids, size_t n, int classes,
			 int n_submodels)
{
	size_t one = IMAGE_SIZE + (size_t)n_submodels * (size_t)classes * sizeof(uint16_t);
	size_t fit = (VALIDATION_MAX - HEADER - (size_t)n_submodels * SUBMODEL_SIZE) / one;
	struct validation_notes *notes;
	int r = -ENOMEM;

	if (n < VALIDATION_LEAST || fit < VALIDATION_LEAST || n >= NOT_KEPT || classes > MAX_CLASSES)
		return -ERANGE;
	notes = calloc(1, sizeof(*notes) + (size_t)n_submodels * sizeof(notes->submodels[0]));
	if (!notes)
		return -ENOMEM;
	notes->n = n;
	notes->kept = n < fit ? n : fit;
	notes->classes = classes;
	notes->max_submodels = n_submodels;
	notes->place = calloc(n, sizeof(*notes->place));
	notes->ids = calloc(notes->kept, sizeof(*notes->ids));
	notes->image = calloc(notes->kept, sizeof(*notes->image));
	notes->rows = calloc((size_t)n_submodels * notes->kept * (size_t)classes, sizeof(*notes->rows));
	if (notes->place && notes->ids && notes->image && notes->rows)
		r = choose(notes, ids);
	if (r < 0)
		validation_notes_free(notes);
	else
		*ret = notes;
	return r;
}

void validation_notes_free(struct validation_notes *notes)
{
	if (!notes)
		return;
	free(notes->place);
	free(notes->ids);
	free(notes->image);
	free(notes->rows);
	free(notes);
}

int validation_add(struct validation_notes *notes, float rate, enum precision precision)
{
	notes->submodels[notes->n_submodels].rate = rate;
	notes->submodels[notes->n_submodels].precision = precision;
	return notes->n_submodels++;
}

void validation_note(struct validation_notes *notes, int submodel, size_t image, const float *probabilities)
{
	size_t classes = (size_t)notes->classes;
	uint16_t *row;

	if (notes->place[image] == NOT_KEPT)
		return;
	row = notes->rows + ((size_t)submodel * notes->kept + notes->place[image]) * classes;
	for (size_t c = 0; c < classes; c++) {
		float p = probabilities[c];

		row[c] = (uint16_t)(p > 0 ? lroundf((p < 1 ? p : 1) * ONE) : 0); /* what is no number: 0 */
	}
}

static void put_u32(struct buf *b, uint32_t x)
{
	x = htole32(x);
	buf_add(b, &x, sizeof(x));
}

static void put_u16(struct buf *b, uint16_t x)
{
	x = htole16(x);
	buf_add(b, &x, sizeof(x));
}

int validation_write(const struct validation_notes *notes, const int *labels, struct buf *ret)
{
	size_t n = (size_t)notes->n_submodels * notes->kept * (size_t)notes->classes;

	buf_adds(ret, MAGIC);
	put_u32(ret, (uint32_t)notes->kept);
	put_u32(ret, (uint32_t)notes->classes);
	put_u32(ret, (uint32_t)notes->n_submodels);
	put_u32(ret, 0);
	for (int i = 0; i < notes->n_submodels; i++) {
		uint32_t bits;

		memcpy(&bits, &notes->submodels[i].rate, sizeof(bits));
		put_u32(ret, bits);
		put_u32(ret, (uint32_t)notes->submodels[i].precision);
	}
	for (size_t i = 0; i < notes->kept; i++) {
		uint64_t id = htole64(notes->ids[i]);

		buf_add(ret, &id, sizeof(id));
	}
	for (size_t i = 0; i < notes->kept; i++)
		put_u16(ret, (uint16_t)labels[notes->image[i]]);
	for (size_t i = 0; i < n; i++)
		put_u16(ret, notes->rows[i]);
	return buf_status(ret);
}

/* --- reading --- */

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t x;

	memcpy(&x, p, sizeof(x));
	return le32toh(x);
}

static float rate_at(const struct validation *v, int i)
{
	uint32_t bits = get_u32(v->submodels + (size_t)i * SUBMODEL_SIZE);
	float rate;

	memcpy(&rate, &bits, sizeof(rate));
	return rate;
}

static uint32_t precision_at(const struct validation *v, int i)
{
	return get_u32(v->submodels + (size_t)i * SUBMODEL_SIZE + sizeof(float));
}

int validation_find(const struct validation *v, float rate, enum precision precision)
{
	for (int i = 0; i < v->n_submodels; i++)
		if (rate_at(v, i) == rate && precision_at(v, i) == (uint32_t)precision)
			return i;
	return -1;
}

uint64_t validation_id(const struct validation *v, size_t i)
{
	uint64_t id;

	memcpy(&id, v->ids + i * sizeof(id), sizeof(id));
	return le64toh(id);
}

int validation_label(const struct validation *v, size_t i)
{
	return (int)validation_u16(v->labels + i * sizeof(uint16_t));
}

const uint8_t *validation_row(const struct validation *v, int submodel, size_t i)
{
	return v->rows + ((size_t)submodel * v->n + i) * (size_t)v->classes * sizeof(uint16_t);
}

/* Probabilities, as far as so few digits can tell; all 0: what was said were no numbers. */
static bool row_sums(const struct validation *v, int submodel, size_t i)
{
	const uint8_t *row = validation_row(v, submodel, i);
	int64_t sum = 0;

	for (int c = 0; c < v->classes; c++)
		sum += validation_u16(row + (size_t)c * sizeof(uint16_t));
	return sum == 0 || (sum >= ONE - v->classes && sum <= ONE + v->classes);
}

/* What is wrong with the parts; NULL: nothing. */
static const char *check(const struct validation *v)
{
	for (int i = 0; i < v->n_submodels; i++) {
		float rate = rate_at(v, i);

		if (!(rate > 0 && rate <= 1) || precision_at(v, i) >= N_PRECISIONS ||
		    validation_find(v, rate, (enum precision)precision_at(v, i)) != i)
			return "impossible sub-models";
	}
	for (size_t i = 0; i < v->n; i++)
		if (validation_label(v, i) >= v->classes ||
		    (i && validation_id(v, i) <= validation_id(v, i - 1)))
			return "impossible images";
	for (int k = 0; k < v->n_submodels; k++)
		for (size_t i = 0; i < v->n; i++)
			if (!row_sums(v, k, i))
				return "impossible probabilities";
	return NULL;
}

int validation_open(struct validation *ret, const void *data, size_t len, struct err *err)
{
	const uint8_t *p = data;
	struct validation v = {0};
	uint64_t n, classes, submodels;
	const char *wrong;

	if (len < HEADER || len > VALIDATION_MAX || memcmp(p, MAGIC, strlen(MAGIC)) != 0)
		return err_set(err, ERR_BAD_MODEL, "validation.bin: not of this format");
	n = get_u32(p + 8);
	classes = get_u32(p + 12);
	submodels = get_u32(p + 16);
	/* 2^16 classes, 2^8 sub-models, 2^22 images: no product overflows */
	if (!n || !classes || classes > MAX_CLASSES || !submodels || submodels > MAX_SUBMODELS ||
	    n > VALIDATION_MAX / IMAGE_SIZE ||
	    HEADER + submodels * SUBMODEL_SIZE + n * IMAGE_SIZE +
			    submodels * n * classes * sizeof(uint16_t) !=
		    len)
		return err_set(err, ERR_BAD_MODEL, "validation.bin: %zu bytes don't hold what it says", len);
	v.n = n;
	v.classes = (int)classes;
	v.n_submodels = (int)submodels;
	v.submodels = p + HEADER;
	v.ids = v.submodels + submodels * SUBMODEL_SIZE;
	v.labels = v.ids + n * sizeof(uint64_t);
	v.rows = v.labels + n * sizeof(uint16_t);
	wrong = check(&v);
	if (wrong)
		return err_set(err, ERR_BAD_MODEL, "validation.bin: %s", wrong);
	*ret = v;
	return 0;
}
