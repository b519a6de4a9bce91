/* The generic list of layers; arch.h has its schema. */
#include "engine/arch/arch.h"
#include "engine/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS 2000

struct layers {
	struct net *net;
	const struct model_info *info;
	int groups;
	struct err *err;
	int n;
	struct {
		char name[NET_NAME_MAX];
		int node;
	} * made;
	/* of the layer at hand */
	const cJSON *spec;
	char name[NET_NAME_MAX], where[NET_NAME_MAX + 16];
	int in;
};

static int lookup(const struct layers *l, const char *name)
{
	if (strcmp(name, "input") == 0)
		return 0;
	for (int i = 0; i < l->n; i++)
		if (strcmp(l->made[i].name, name) == 0)
			return l->made[i].node;
	return err_set(l->err, ERR_SPEC_VALUE, "%s: there is no layer \"%.60s\" before it", l->where, name);
}

static int get(const struct layers *l, const char *key, int min, int max, int *ret)
{
	return spec_int(l->spec, l->where, key, min, max, ret, l->err);
}

static int conv2d(struct layers *l)
{
	struct conv2d_attr a = {.groups = l->groups, .kernel = 3, .stride = 1};
	bool square = !cJSON_HasObjectItem(l->spec, "kernel_w");
	int r;

	if ((r = get(l, "channels", 1, 65536, &a.channels)) < 0 ||
	    (r = get(l, "kernel", 1, 31, &a.kernel)) < 0 || (r = get(l, "stride", 1, 31, &a.stride)) < 0 ||
	    (r = get(l, "groups", 0, 256, &a.groups)) < 0 ||
	    (r = get(l, "conv_groups", 1, 65536, &a.conv_groups)) < 0 ||
	    (r = spec_bool(l->spec, l->where, "bias", &a.bias, l->err)) < 0)
		return r;
	if (!a.channels)
		return err_set(l->err, ERR_SPEC_MISSING, "\"%s.channels\"", l->where);
	a.pad = (a.kernel - 1) / 2;
	if ((r = get(l, "pad", 0, 31, &a.pad)) < 0)
		return r;
	a.kernel_w = a.kernel;
	a.pad_w = a.pad;
	r = get(l, "kernel_w", 1, 31, &a.kernel_w);
	if (!square)
		a.pad_w = (a.kernel_w - 1) / 2;
	if (r == 0)
		r = get(l, "pad_w", 0, 31, &a.pad_w);
	return r < 0 ? r : net_conv2d(l->net, l->name, l->in, &a, l->err);
}

static int linear(struct layers *l)
{
	const cJSON *features = cJSON_GetObjectItemCaseSensitive(l->spec, "features");
	struct linear_attr a = {.groups = l->groups, .bias = true};
	int r;

	if ((r = get(l, "groups", 0, 256, &a.groups)) < 0 ||
	    (r = spec_bool(l->spec, l->where, "bias", &a.bias, l->err)) < 0)
		return r;
	if (cJSON_IsString(features) && strcmp(features->valuestring, "classes") == 0) {
		a.features = l->info->classes;
		a.groups = 0;
	} else if ((r = get(l, "features", 1, 65536, &a.features)) < 0) {
		return r;
	} else if (!a.features) {
		return err_set(l->err, ERR_SPEC_MISSING, "\"%s.features\"", l->where);
	}
	return net_linear(l->net, l->name, l->in, &a, l->err);
}

static int group_norm(struct layers *l)
{
	int groups = 0, r = get(l, "norm_groups", 0, 256, &groups);

	return r < 0 ? r : net_group_norm(l->net, l->name, l->in, groups, l->err);
}

static int batch_norm(struct layers *l)
{
	return net_batch_norm(l->net, l->name, l->in, 1e-5f, l->err);
}

static int pool(struct layers *l, int (*make)(struct net *, int, const struct pool_attr *, struct err *))
{
	struct pool_attr a = {.kernel = 2};
	int r;

	if ((r = get(l, "kernel", 1, 64, &a.kernel)) < 0 || (r = get(l, "stride", 1, 64, &a.stride)) < 0 ||
	    (r = get(l, "pad", 0, 32, &a.pad)) < 0 ||
	    (r = spec_bool(l->spec, l->where, "exclude_pad", &a.exclude_pad, l->err)) < 0)
		return r;
	return make(l->net, l->in, &a, l->err);
}

static int max_pool(struct layers *l)
{
	return pool(l, net_max_pool);
}

static int avg_pool(struct layers *l)
{
	return pool(l, net_avg_pool);
}

static int relu(struct layers *l)
{
	return net_relu(l->net, l->in, l->err);
}

static int relu6(struct layers *l)
{
	return net_relu6(l->net, l->in, l->err);
}

static int dropout(struct layers *l)
{
	double share = 0.5;
	int r = spec_double(l->spec, l->where, "share", 0, 0.99, &share, l->err);

	return r < 0 ? r : net_dropout(l->net, l->in, (float)share, l->err);
}

static int global_avg_pool(struct layers *l)
{
	return net_global_avg_pool(l->net, l->in, l->err);
}

static int flatten(struct layers *l)
{
	return net_flatten(l->net, l->in, l->err);
}

/* The other input of add and concat. */
static int with(const struct layers *l)
{
	const char *name = NULL;
	int r = spec_string(l->spec, l->where, "with", &name, l->err);

	if (r < 0)
		return r;
	return name ? lookup(l, name) : err_set(l->err, ERR_SPEC_MISSING, "\"%s.with\"", l->where);
}

static int add(struct layers *l)
{
	double scale = 1;
	int other = with(l), r;

	if (other < 0)
		return other;
	r = spec_double(l->spec, l->where, "scale", -1000, 1000, &scale, l->err);
	return r < 0 ? r : net_add_scaled(l->net, l->in, other, (float)scale, l->err);
}

static int concat(struct layers *l)
{
	int other = with(l);

	return other < 0 ? other : net_concat(l->net, l->in, other, l->err);
}

static const struct {
	const char *op;
	int (*make)(struct layers *l);
	const char *keys[14];
} kinds[] = {
	{"conv2d",
	 conv2d,
	 {"op", "name", "in", "channels", "kernel", "stride", "pad", "kernel_w", "pad_w", "groups",
	  "conv_groups", "bias"}},
	{"linear", linear, {"op", "name", "in", "features", "groups", "bias"}},
	{"group_norm", group_norm, {"op", "name", "in", "norm_groups"}},
	{"batch_norm", batch_norm, {"op", "name", "in"}},
	{"relu", relu, {"op", "name", "in"}},
	{"relu6", relu6, {"op", "name", "in"}},
	{"dropout", dropout, {"op", "name", "in", "share"}},
	{"max_pool", max_pool, {"op", "name", "in", "kernel", "stride", "pad"}},
	{"avg_pool", avg_pool, {"op", "name", "in", "kernel", "stride", "pad", "exclude_pad"}},
	{"global_avg_pool", global_avg_pool, {"op", "name", "in"}},
	{"flatten", flatten, {"op", "name", "in"}},
	{"add", add, {"op", "name", "in", "with", "scale"}},
	{"concat", concat, {"op", "name", "in", "with"}},
};

/* The layer at l->spec; its node or a negative errno. */
static int layer(struct layers *l)
{
	const size_t n = sizeof(kinds) / sizeof(kinds[0]);
	const char *op = NULL, *name = NULL, *in = NULL;
	size_t k = 0;
	int r;

	snprintf(l->where, sizeof(l->where), "net.layers[%d]", l->n);
	if ((r = spec_string(l->spec, l->where, "op", &op, l->err)) < 0 ||
	    (r = spec_string(l->spec, l->where, "name", &name, l->err)) < 0 ||
	    (r = spec_string(l->spec, l->where, "in", &in, l->err)) < 0)
		return r;
	if (!op)
		return err_set(l->err, ERR_SPEC_MISSING, "\"%s.op\"", l->where);
	while (k < n && strcmp(kinds[k].op, op) != 0)
		k++;
	if (k == n)
		return err_set(l->err, ERR_SPEC_VALUE, "\"%s.op\": there is no op \"%.60s\"", l->where, op);
	r = spec_keys(l->spec, l->where, kinds[k].keys, l->err);
	if (r < 0)
		return r;
	if (name && (strlen(name) >= sizeof(l->name) || strcmp(name, "input") == 0))
		return err_set(l->err, ERR_SPEC_VALUE, "\"%s.name\" is too long or \"input\"", l->where);
	if (name)
		strcpy(l->name, name);
	else
		snprintf(l->name, sizeof(l->name), "%s%d", op, l->n);
	if (in)
		l->in = lookup(l, in);
	return l->in < 0 ? l->in : kinds[k].make(l);
}

int arch_layers(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "groups", "layers", NULL};
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(spec, "layers");
	struct layers l = {.net = net, .info = info, .groups = 8, .err = err};
	int r, x = 0, n = cJSON_GetArraySize(list);

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = spec_int(spec, "net", "groups", 1, 256, &l.groups, err)) < 0)
		return r;
	if (!cJSON_IsArray(list) || n < 1 || n > MAX_LAYERS)
		return err_set(err, ERR_SPEC_VALUE, "\"net.layers\" must be an array of 1 to %d layers",
			       MAX_LAYERS);
	l.made = calloc(n, sizeof(*l.made));
	if (!l.made)
		return err_set(err, ERR_NO_MEMORY, "a network of %d layers", n);
	cJSON_ArrayForEach(l.spec, list)
	{
		l.in = x;
		x = layer(&l);
		if (x < 0)
			break;
		strcpy(l.made[l.n].name, l.name);
		l.made[l.n++].node = x;
	}
	free(l.made);
	return x;
}
