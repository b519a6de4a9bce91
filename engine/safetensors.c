#include "engine/safetensors.h"

#include "engine/onnx/half.h"

#include <cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER  ((uint64_t)16 << 20) /* chosen; the format's own limit is 100 MB */
#define MAX_TENSORS 65536

struct safetensors {
	cJSON *header; /* names and metadata are borrowed from it */
	size_t n;
	struct safetensors_tensor *tensors; /* by name */
};

int safetensors_write(struct buf *ret, const struct safetensors_tensor *tensors, size_t n,
		      const char *const *metadata, size_t n_metadata, struct err *err)
{
	cJSON *header = cJSON_CreateObject();
	size_t start = ret->len, offset = 0, pad;
	char *text = NULL;
	uint8_t len[8];
	int r = -ENOMEM;

	if (n_metadata) {
		cJSON *meta = cJSON_AddObjectToObject(header, "__metadata__");

		for (size_t i = 0; i < n_metadata; i++)
			cJSON_AddStringToObject(meta, metadata[2 * i], metadata[2 * i + 1]);
	}
	for (size_t i = 0; i < n; i++) {
		cJSON *t = cJSON_AddObjectToObject(header, tensors[i].name), *shape, *range;

		cJSON_AddStringToObject(t, "dtype", "F32");
		shape = cJSON_AddArrayToObject(t, "shape");
		for (int d = 0; d < tensors[i].rank; d++)
			cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)tensors[i].dims[d]));
		range = cJSON_AddArrayToObject(t, "data_offsets");
		cJSON_AddItemToArray(range, cJSON_CreateNumber((double)offset));
		offset += tensors[i].bytes;
		cJSON_AddItemToArray(range, cJSON_CreateNumber((double)offset));
	}
	text = cJSON_PrintUnformatted(header);
	if (!text)
		goto out;
	/* Spaces after the header, so that the floats are aligned where the file is mapped. */
	pad = (8 - strlen(text) % 8) % 8;
	for (int i = 0; i < 8; i++)
		len[i] = (uint8_t)((strlen(text) + pad) >> (8 * i));
	if (!buf_reserve(ret, 8 + strlen(text) + pad + offset))
		goto out;
	buf_add(ret, len, 8);
	buf_adds(ret, text);
	buf_add(ret, "        ", pad);
	for (size_t i = 0; i < n; i++)
		buf_add(ret, tensors[i].data, tensors[i].bytes);
	r = buf_status(ret);
out:
	if (r < 0) {
		ret->len = start;
		err_set(err, ERR_NO_MEMORY, "writing weights");
	}
	cJSON_free(text);
	cJSON_Delete(header);
	return r;
}

/* A whole number 0 … max. */
static bool whole(const cJSON *item, uint64_t max, uint64_t *ret)
{
	double v = cJSON_IsNumber(item) ? item->valuedouble : -1;

	if (!(v >= 0 && v <= (double)max && v <= 9007199254740992.0) || v != (double)(uint64_t)v)
		return false;
	*ret = (uint64_t)v;
	return true;
}

static const struct {
	const char *name;
	enum safetensors_type type;
	uint64_t size;
} dtypes[] = {
	{"F32", SAFETENSORS_F32, 4},    {"F16", SAFETENSORS_F16, 2},   {"BF16", SAFETENSORS_BF16, 2},
	{"F64", SAFETENSORS_OTHER, 8},  {"I64", SAFETENSORS_OTHER, 8}, {"U64", SAFETENSORS_OTHER, 8},
	{"I32", SAFETENSORS_OTHER, 4},  {"U32", SAFETENSORS_OTHER, 4}, {"I16", SAFETENSORS_OTHER, 2},
	{"U16", SAFETENSORS_OTHER, 2},  {"I8", SAFETENSORS_OTHER, 1},  {"U8", SAFETENSORS_OTHER, 1},
	{"BOOL", SAFETENSORS_OTHER, 1},
};
enum { N_DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

/* One entry of the header. begin gives its range's start. A sentence when it is wrong. */
static const char *read_tensor(const cJSON *item, const uint8_t *data, uint64_t data_len,
			       struct safetensors_tensor *t)
{
	const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype"),
		    *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"),
		    *range = cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), *dim;
	uint64_t begin, end, size, d;
	int type = 0;

	while (cJSON_IsString(dtype) && type < N_DTYPES && strcmp(dtype->valuestring, dtypes[type].name) != 0)
		type++;
	if (!cJSON_IsString(dtype) || type == N_DTYPES)
		return "its dtype is not known";
	t->type = dtypes[type].type;
	size = dtypes[type].size;
	if (!cJSON_IsArray(shape) || !cJSON_IsArray(range) || cJSON_GetArraySize(range) != 2)
		return "its shape or data_offsets are missing";
	cJSON_ArrayForEach(dim, shape)
	{
		if (t->rank == SAFETENSORS_MAX_RANK || !whole(dim, INT32_MAX, &d))
			return "its shape is impossible";
		if (d && size > data_len / d)
			return "its shape needs more bytes than there are";
		size *= d;
		t->dims[t->rank++] = (int64_t)d;
	}
	if (!whole(cJSON_GetArrayItem(range, 0), data_len, &begin) ||
	    !whole(cJSON_GetArrayItem(range, 1), data_len, &end) || begin > end)
		return "its data_offsets lie outside of the file";
	if (end - begin != size)
		return "its data_offsets do not fit its shape";
	t->data = data + begin;
	t->bytes = size;
	return NULL;
}

static int by_data(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;

	if (x->data != y->data)
		return (const char *)x->data < (const char *)y->data ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct safetensors_tensor *)a)->name,
		      ((const struct safetensors_tensor *)b)->name);
}

int safetensors_open(struct safetensors **ret, const void *data, size_t len, struct err *err)
{
	struct safetensors *st = calloc(1, sizeof(*st));
	const uint8_t *bytes = data, *body, *at;
	uint64_t header_len = 0, n;
	const cJSON *item;
	int r;

	if (!st)
		return err_set(err, ERR_NO_MEMORY, "reading weights");
	for (int i = 0; i < 8 && len >= 8; i++)
		header_len |= (uint64_t)bytes[i] << (8 * i);
	if (len < 8 || header_len > MAX_HEADER || header_len > len - 8) {
		r = err_set(err, ERR_BAD_TENSORS, "a header of %llu bytes in a file of %zu",
			    (unsigned long long)header_len, len);
		goto out;
	}
	st->header = cJSON_ParseWithLength((const char *)bytes + 8, header_len);
	if (!cJSON_IsObject(st->header)) {
		r = err_set(err, ERR_BAD_TENSORS, "the header is not a JSON object");
		goto out;
	}
	body = bytes + 8 + header_len;
	n = (uint64_t)cJSON_GetArraySize(st->header);
	st->tensors = n <= MAX_TENSORS ? calloc(n + 1, sizeof(*st->tensors)) : NULL;
	if (!st->tensors) {
		r = err_set(err, ERR_BAD_TENSORS, "%llu tensors", (unsigned long long)n);
		goto out;
	}
	cJSON_ArrayForEach(item, st->header)
	{
		const char *wrong;

		if (strcmp(item->string, "__metadata__") == 0)
			continue;
		st->tensors[st->n].name = item->string;
		wrong = read_tensor(item, body, len - 8 - header_len, &st->tensors[st->n++]);
		if (wrong) {
			r = err_set(err, ERR_BAD_TENSORS, "tensor %.100s: %s", item->string, wrong);
			goto out;
		}
	}
	qsort(st->tensors, st->n, sizeof(*st->tensors), by_data);
	at = body;
	for (size_t i = 0; i < st->n; i++) {
		if (st->tensors[i].data != at) {
			r = err_set(err, ERR_BAD_TENSORS, "tensor %.100s overlaps another or leaves a hole",
				    st->tensors[i].name);
			goto out;
		}
		at += st->tensors[i].bytes;
	}
	if (at != bytes + len) {
		r = err_set(err, ERR_BAD_TENSORS, "%zu bytes belong to no tensor",
			    (size_t)(bytes + len - at));
		goto out;
	}
	qsort(st->tensors, st->n, sizeof(*st->tensors), by_name);
	for (size_t i = 1; i < st->n; i++)
		if (strcmp(st->tensors[i - 1].name, st->tensors[i].name) == 0) {
			r = err_set(err, ERR_BAD_TENSORS, "tensor %.100s is there twice",
				    st->tensors[i].name);
			goto out;
		}
	*ret = st;
	st = NULL;
	r = 0;
out:
	safetensors_close(st);
	return r;
}

void safetensors_close(struct safetensors *st)
{
	if (!st)
		return;
	cJSON_Delete(st->header);
	free(st->tensors);
	free(st);
}

size_t safetensors_count(const struct safetensors *st)
{
	return st->n;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *st, size_t i)
{
	return &st->tensors[i];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *st, const char *name)
{
	const struct safetensors_tensor key = {.name = name};

	return bsearch(&key, st->tensors, st->n, sizeof(*st->tensors), by_name);
}

int safetensors_floats(const struct safetensors_tensor *t, float *ret)
{
	const uint8_t *from = t->data;
	uint16_t half;

	switch (t->type) {
	case SAFETENSORS_F32:
		memcpy(ret, from, t->bytes);
		return 0;
	case SAFETENSORS_F16:
	case SAFETENSORS_BF16:
		for (size_t i = 0; i < t->bytes / sizeof(half); i++) {
			memcpy(&half, from + i * sizeof(half), sizeof(half));
			ret[i] = t->type == SAFETENSORS_F16 ? half_to_float(half) : bfloat_to_float(half);
		}
		return 0;
	default:
		return -EINVAL;
	}
}

const char *safetensors_metadata(const struct safetensors *st, const char *key)
{
	const cJSON *meta = cJSON_GetObjectItemCaseSensitive(st->header, "__metadata__");

	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(meta, key));
}
