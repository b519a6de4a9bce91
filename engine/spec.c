#include "engine/spec.h"

#include <string.h>

#define MAX_WORD 64

/* Levenshtein's edit distance; words beyond MAX_WORD are far from everything. */
static size_t distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), row[MAX_WORD + 1];

	if (la > MAX_WORD || lb > MAX_WORD)
		return MAX_WORD;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t cost = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < cost)
				cost = row[j] + 1;
			if (row[j - 1] + 1 < cost)
				cost = row[j - 1] + 1;
			row[j] = cost;
		}
	}
	return row[lb];
}

const char *spec_nearest(const char *word, const char *const *known)
{
	const char *best = NULL;
	size_t least = strlen(word) / 2 + 2;

	for (; *known; known++) {
		size_t d = distance(word, *known);

		if (d < least) {
			least = d;
			best = *known;
		}
	}
	return best;
}

static const char *dot(const char *where)
{
	return *where ? "." : "";
}

int spec_keys(const cJSON *object, const char *where, const char *const *known, struct err *err)
{
	const cJSON *item;

	if (!cJSON_IsObject(object))
		return err_set(err, ERR_SPEC_VALUE, "%s must be an object", *where ? where : "the spec");
	cJSON_ArrayForEach(item, object)
	{
		const char *const *k = known;

		while (*k && strcmp(*k, item->string) != 0)
			k++;
		if (!*k) {
			const char *near = spec_nearest(item->string, known);

			return err_set(err, ERR_SPEC_KEY,
				       near ? "\"%s%s%.60s\" (did you mean \"%s\"?)" : "\"%s%s%.60s\"", where,
				       dot(where), item->string, near);
		}
		for (const cJSON *other = item->next; other; other = other->next)
			if (strcmp(other->string, item->string) == 0)
				return err_set(err, ERR_SPEC_VALUE, "\"%s%s%s\" is there twice", where,
					       dot(where), item->string);
	}
	return 0;
}

int spec_double(const cJSON *object, const char *where, const char *key, double min, double max, double *ret,
		struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!item)
		return 0;
	if (!cJSON_IsNumber(item) || !(item->valuedouble >= min && item->valuedouble <= max))
		return err_set(err, ERR_SPEC_VALUE, "\"%s%s%s\" must be a number from %g to %g", where,
			       dot(where), key, min, max);
	*ret = item->valuedouble;
	return 0;
}

int spec_int(const cJSON *object, const char *where, const char *key, int64_t min, int64_t max, int *ret,
	     struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!item)
		return 0;
	if (!cJSON_IsNumber(item) ||
	    !(item->valuedouble >= (double)min && item->valuedouble <= (double)max) ||
	    item->valuedouble != (double)(int64_t)item->valuedouble)
		return err_set(err, ERR_SPEC_VALUE, "\"%s%s%s\" must be a whole number from %lld to %lld",
			       where, dot(where), key, (long long)min, (long long)max);
	*ret = (int)item->valuedouble;
	return 0;
}

int spec_bool(const cJSON *object, const char *where, const char *key, bool *ret, struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!item)
		return 0;
	if (!cJSON_IsBool(item))
		return err_set(err, ERR_SPEC_VALUE, "\"%s%s%s\" must be true or false", where, dot(where),
			       key);
	*ret = cJSON_IsTrue(item);
	return 0;
}

int spec_string(const cJSON *object, const char *where, const char *key, const char **ret, struct err *err)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!item)
		return 0;
	if (!cJSON_IsString(item) || !*item->valuestring)
		return err_set(err, ERR_SPEC_VALUE, "\"%s%s%s\" must be a text", where, dot(where), key);
	*ret = item->valuestring;
	return 0;
}
