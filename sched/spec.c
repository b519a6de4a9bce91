#include "sched/spec.h"
#include "sched/loop.h"

#include <cjson/cJSON.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SETTLE_S 3600
#define MAX_VERSION  1000000000
#define MIN_WEIGHT   0.01 /* of an endpoint and of a member; chosen */
#define MAX_WEIGHT   1000.0

static bool is_name(const cJSON *value)
{
	const char *name = value->valuestring;

	return cJSON_IsString(value) && *name && strlen(name) < MAX_NAME && !strchr(name, '/') &&
	       *name != '.';
}

static int parse_model(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	if (!is_name(value))
		return err_set(err, ERR_SPEC_VALUE,
			       "\"model\" must be the name of a directory below models/");
	strcpy(spec->model, value->valuestring);
	return 0;
}

static int read_version(int *ret, const cJSON *value, struct err *err)
{
	double number = cJSON_IsNumber(value) ? value->valuedouble : 0;
	char *end = NULL;

	if (cJSON_IsString(value) && strcmp(value->valuestring, "latest") == 0) {
		*ret = 0;
		return 0;
	}
	if (cJSON_IsString(value) && strspn(value->valuestring, "0123456789") == strlen(value->valuestring))
		number = strtod(value->valuestring, &end);
	if (!(number >= 1 && number <= MAX_VERSION) || number != floor(number))
		return err_set(err, ERR_SPEC_VALUE, "\"version\" must be \"latest\" or a number from 1");
	*ret = (int)number;
	return 0;
}

static int parse_version(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	return read_version(&spec->version, value, err);
}

/* A name, or an object that has it as "model". */
static int parse_member(struct spec_member *ret, const cJSON *value, struct err *err)
{
	const cJSON *name = cJSON_IsObject(value) ? cJSON_GetObjectItemCaseSensitive(value, "model") : value,
		    *item;
	int r = 0;

	*ret = (struct spec_member){.weight = 1};
	if (!name || !is_name(name))
		return err_set(err, ERR_SPEC_VALUE,
			       "each of \"models\" must be the name of a directory below models/, or an "
			       "object with it as \"model\"");
	strcpy(ret->model, name->valuestring);
	if (!cJSON_IsObject(value))
		return 0;
	cJSON_ArrayForEach(item, value)
	{
		if (strcmp(item->string, "version") == 0)
			r = read_version(&ret->version, item, err);
		else if (strcmp(item->string, "weight") == 0 && cJSON_IsNumber(item) &&
			 item->valuedouble >= MIN_WEIGHT && item->valuedouble <= MAX_WEIGHT)
			ret->weight = item->valuedouble;
		else if (strcmp(item->string, "weight") == 0)
			r = err_set(err, ERR_SPEC_VALUE, "\"weight\" must be a number from %g to %g",
				    MIN_WEIGHT, MAX_WEIGHT);
		else if (strcmp(item->string, "model") != 0)
			r = err_set(err, ERR_SPEC_KEY,
				    "\"%.64s\" of one of \"models\"; known are model version weight",
				    item->string);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_models(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	int n = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 0;
	const cJSON *item;

	if (n < 2 || n > ENSEMBLE_MEMBERS)
		return err_set(err, ERR_SPEC_VALUE, "\"models\" must be a list of 2 to %d models",
			       ENSEMBLE_MEMBERS);
	cJSON_ArrayForEach(item, value)
	{
		struct spec_member *m = &spec->members[spec->n_members];
		int r = parse_member(m, item, err);

		if (r < 0)
			return r;
		for (int i = 0; i < spec->n_members; i++)
			if (strcmp(spec->members[i].model, m->model) == 0 &&
			    spec->members[i].version == m->version)
				return err_set(err, ERR_SPEC_VALUE,
					       "\"models\" has the same version of \"%.128s\" twice",
					       m->model);
		spec->n_members++;
	}
	return 0;
}

static int parse_batch(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	if (!cJSON_IsNumber(value) || !(value->valuedouble >= 1 && value->valuedouble <= MAX_BATCH) ||
	    value->valuedouble != floor(value->valuedouble))
		return err_set(err, ERR_SPEC_VALUE, "\"batch\" must be a whole number from 1 to %d",
			       MAX_BATCH);
	spec->batch = (int)value->valuedouble;
	return 0;
}

/* A text that deadline_parse understands, or a number of seconds. */
static int parse_time(struct deadline *ret, const cJSON *value, const char *key, struct err *err)
{
	char number[32];
	const char *text = value->valuestring;

	if (cJSON_IsNumber(value)) {
		snprintf(number, sizeof(number), "%.6f", value->valuedouble);
		text = number;
	} else if (!cJSON_IsString(value)) {
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be a text such as \"5s\"", key);
	}
	if (deadline_parse(ret, text, strlen(text), NULL) < 0)
		return err_set(err, ERR_SPEC_VALUE, "\"%s\": \"%s\" is not a time such as 5, 5s, 800ms, 2m",
			       key, text);
	return 0;
}

static int parse_deadline(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	if (cJSON_IsNull(value)) {
		spec->deadline = (struct deadline){0};
		return 0;
	}
	return parse_time(&spec->deadline, value, "deadline", err);
}

static int parse_explain(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	const cJSON *item;

	if (!cJSON_IsArray(value))
		return err_set(err, ERR_SPEC_VALUE, "\"explain\" must be a list such as [\"gradcam\"]");
	cJSON_ArrayForEach(item, value)
	{
		if (!cJSON_IsString(item) || strcmp(item->valuestring, "gradcam") != 0)
			return err_set(err, ERR_SPEC_VALUE, "\"explain\" knows \"gradcam\" only");
	}
	spec->gradcam = cJSON_GetArraySize(value) > 0;
	return 0;
}

static int parse_precision(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	const cJSON *item;

	spec->precisions = 0;
	cJSON_ArrayForEach(item, value)
	{
		int p = cJSON_IsString(item) ? precision_find(item->valuestring) : -1;

		if (p < 0)
			return err_set(err, ERR_SPEC_VALUE,
				       "\"precision\" knows \"f32\", \"bf16\" and \"int8\"");
		spec->precisions |= 1u << p;
	}
	if (!cJSON_IsArray(value) || !spec->precisions)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"precision\" must be a list such as [\"f32\",\"int8\"]");
	return 0;
}

static int parse_policy(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	const struct policy *policy = cJSON_IsString(value) ? policy_find(value->valuestring) : NULL;
	char known[256] = "";
	size_t len = 0;

	if (policy && !policy->simulated) {
		spec->policy = policy;
		return 0;
	}
	for (int i = 0; (policy = policy_at(i)) && len < sizeof(known); i++)
		if (!policy->simulated)
			len += (size_t)snprintf(known + len, sizeof(known) - len, " %s", policy->name);
	return err_set(err, ERR_SPEC_VALUE, "\"policy\" must be one of%s", known);
}

static int parse_weight(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	if (!cJSON_IsNumber(value) || !(value->valuedouble >= MIN_WEIGHT && value->valuedouble <= MAX_WEIGHT))
		return err_set(err, ERR_SPEC_VALUE, "\"weight\" must be a number from %g to %g", MIN_WEIGHT,
			       MAX_WEIGHT);
	spec->weight = value->valuedouble;
	return 0;
}

static int parse_settling(int64_t *ret, const cJSON *value, const char *key, struct err *err)
{
	static const char *const zeros[] = {"0", "0s", "0ms", "0m"};
	struct deadline time = {0};
	int r;

	if (cJSON_IsNumber(value) && value->valuedouble == 0) {
		*ret = 0;
		return 0;
	}
	for (size_t i = 0; cJSON_IsString(value) && i < sizeof(zeros) / sizeof(zeros[0]); i++)
		if (strcmp(value->valuestring, zeros[i]) == 0) {
			*ret = 0;
			return 0;
		}
	r = parse_time(&time, value, key, err);
	if (r < 0)
		return r;
	if (time.absolute || time.ns > MAX_SETTLE_S * NS_PER_S)
		return err_set(err, ERR_SPEC_VALUE, "\"%s\" must be at most one hour", key);
	*ret = time.ns;
	return 0;
}

static int parse_settle(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	return parse_settling(&spec->settle_ns, value, "settle", err);
}

static int parse_settle_batch(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	return parse_settling(&spec->settle_batch_ns, value, "settle_batch", err);
}

static int parse_ahead(struct infer_spec *spec, const cJSON *value, struct err *err)
{
	if (!cJSON_IsBool(value))
		return err_set(err, ERR_SPEC_VALUE, "\"ahead\" must be true or false");
	spec->ahead = cJSON_IsTrue(value);
	return 0;
}

static const struct key {
	const char *name;
	int (*parse)(struct infer_spec *spec, const cJSON *value, struct err *err);
} keys[] = {
	{"model", parse_model},     {"version", parse_version},
	{"batch", parse_batch},     {"deadline", parse_deadline},
	{"explain", parse_explain}, {"precision", parse_precision},
	{"settle", parse_settle},   {"settle_batch", parse_settle_batch},
	{"policy", parse_policy},   {"weight", parse_weight},
	{"models", parse_models},   {"ahead", parse_ahead},
};
#define N_KEYS      (sizeof(keys) / sizeof(keys[0]))
#define VERSION_KEY 1

/* Brackets or a string are still open, or nothing is there yet: more writes may complete it. */
static bool cut_short(const char *json, size_t len)
{
	bool in_string = false, any = false;
	long depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (in_string) {
			if (json[i] == '\\')
				i++;
			else if (json[i] == '"')
				in_string = false;
			continue;
		}
		if (!strchr(" \t\r\n", json[i]))
			any = true;
		if (json[i] == '"')
			in_string = true;
		else if (json[i] == '{' || json[i] == '[')
			depth++;
		else if (json[i] == '}' || json[i] == ']')
			depth--;
	}
	return !any || in_string || depth > 0;
}

/* What "model" and "models" come to together. */
static int settle_models(struct infer_spec *spec, bool has_version, struct err *err)
{
	size_t len = 0;

	if (*spec->model && spec->n_members)
		return err_set(err, ERR_SPEC_VALUE, "\"model\" and \"models\" can't be there both");
	if (!*spec->model && !spec->n_members)
		return err_set(err, ERR_SPEC_MISSING, "\"model\"");
	if (spec->n_members && has_version)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"version\" goes into \"models\": {\"model\":\"NAME\",\"version\":3}");
	if (!spec->n_members) {
		spec->members[spec->n_members++] =
			(struct spec_member){.version = spec->version, .weight = 1};
		memcpy(spec->members[0].model, spec->model, MAX_NAME);
		return 0;
	}
	for (int i = 0; i < spec->n_members; i++) {
		size_t n = strlen(spec->members[i].model);

		if (i)
			spec->model[len++] = '+';
		memcpy(spec->model + len, spec->members[i].model, n + 1);
		len += n;
	}
	return 0;
}

static int parse_keys(struct infer_spec *spec, const cJSON *json, struct err *err)
{
	bool seen[N_KEYS] = {false};
	const cJSON *item;
	size_t k;
	int r;

	cJSON_ArrayForEach(item, json)
	{
		for (k = 0; k < N_KEYS && strcmp(item->string, keys[k].name) != 0; k++)
			;
		if (k == N_KEYS)
			return err_set(err, ERR_SPEC_KEY,
				       "\"%.64s\"; known are model models version batch deadline explain "
				       "policy precision weight ahead settle settle_batch",
				       item->string);
		if (seen[k])
			return err_set(err, ERR_SPEC_VALUE, "\"%s\" is there twice", keys[k].name);
		seen[k] = true;
		r = keys[k].parse(spec, item, err);
		if (r < 0)
			return r;
	}
	return settle_models(spec, seen[VERSION_KEY], err);
}

int infer_spec_parse(struct infer_spec *ret, const char *json, size_t len, struct err *err)
{
	struct infer_spec spec = INFER_SPEC_DEFAULT;
	const char *end = NULL;
	cJSON *tree;
	int r;

	if (len > SPEC_MAX_LEN)
		return err_set(err, ERR_SPEC_VALUE, "more than %d bytes", SPEC_MAX_LEN);
	if (len && memchr(json, '\0', len))
		return err_set(err, ERR_JSON_SYNTAX, "a NUL byte");
	tree = len ? cJSON_ParseWithLengthOpts(json, len, &end, false) : NULL;
	if (!tree) {
		if (cut_short(json, len)) {
			err_set(err, ERR_JSON_SYNTAX, "it ends too early");
			return -EAGAIN;
		}
		return err_set(err, ERR_JSON_SYNTAX, "at byte %zu",
			       end && end >= json && end <= json + len ? (size_t)(end - json) : 0);
	}
	while (end < json + len && strchr(" \t\r\n", *end))
		end++;
	if (end < json + len) {
		r = err_set(err, ERR_JSON_SYNTAX, "something follows at byte %zu", (size_t)(end - json));
		goto out;
	}
	if (!cJSON_IsObject(tree)) {
		r = err_set(err, ERR_SPEC_VALUE, "the spec must be an object: {\"model\":\"NAME\"}");
		goto out;
	}
	r = parse_keys(&spec, tree, err);
	if (r == 0)
		*ret = spec;
out:
	cJSON_Delete(tree);
	return r;
}

static const char *const words[] = {
	[INFER_START] = "start", [INFER_STOP] = "stop", [INFER_RELOAD] = "reload"};

int infer_word_parse(enum infer_word *ret, const char *text, size_t len, struct err *err)
{
	if (len && text[len - 1] == '\n')
		len--;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strlen(words[i]) == len && memcmp(words[i], text, len) == 0) {
			*ret = (enum infer_word)i;
			return 0;
		}
	return err_set(err, ERR_BAD_CTL, "\"%.*s\"; known are start stop reload", len < 32 ? (int)len : 32,
		       text);
}
