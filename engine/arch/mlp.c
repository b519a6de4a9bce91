#include "engine/arch/arch.h"
#include "engine/spec.h"

#include <stdio.h>

int arch_mlp(struct net *net, const cJSON *spec, const struct model_info *info, struct err *err)
{
	static const char *const keys[] = {"arch", "hidden", "groups", NULL};
	const cJSON *hidden = cJSON_GetObjectItemCaseSensitive(spec, "hidden"), *item;
	int groups = 8, r, x, n = hidden ? cJSON_GetArraySize(hidden) : 2;
	char name[16];

	if ((r = spec_keys(spec, "net", keys, err)) < 0 ||
	    (r = spec_int(spec, "net", "groups", 1, 256, &groups, err)) < 0)
		return r;
	if (hidden && (!cJSON_IsArray(hidden) || n > 64))
		return err_set(err, ERR_SPEC_VALUE, "\"net.hidden\" must be an array of at most 64 sizes");
	x = net_flatten(net, 0, err);
	for (int i = 0; i < n; i++) {
		int size = 256;

		item = hidden ? cJSON_GetArrayItem(hidden, i) : NULL;
		if (item) {
			if (!cJSON_IsNumber(item) || item->valuedouble < groups ||
			    item->valuedouble > 65536 || item->valuedouble != item->valueint ||
			    item->valueint % groups)
				return err_set(
					err, ERR_SPEC_VALUE,
					"each of \"net.hidden\" must be a multiple of \"net.groups\", %d",
					groups);
			size = item->valueint;
		}
		snprintf(name, sizeof(name), "fc%d", i + 1);
		x = net_linear(net, name, x,
			       &(struct linear_attr){.features = size, .groups = groups, .bias = true}, err);
		x = net_relu(net, x, err);
	}
	return net_linear(net, "fc", x, &(struct linear_attr){.features = info->classes, .bias = true}, err);
}
