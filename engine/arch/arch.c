#include "engine/arch/arch.h"
#include "engine/spec.h"

#include <errno.h>
#include <string.h>

static const struct arch archs[] = {
	{"resnet", arch_resnet},
	{"mlp", arch_mlp},
	{"layers", arch_layers},
};

int arch_build(struct net **ret, const cJSON *spec, const struct model_info *info, struct err *err)
{
	const size_t n = sizeof(archs) / sizeof(archs[0]);
	const char *name = "resnet";
	struct net *net = NULL;
	size_t i = 0;
	int r;

	if (!cJSON_IsObject(spec))
		return err_set(err, ERR_SPEC_VALUE, "\"net\" must be an object");
	r = spec_string(spec, "net", "arch", &name, err);
	if (r < 0)
		return r;
	while (i < n && strcmp(archs[i].name, name) != 0)
		i++;
	if (i == n)
		return err_set(err, ERR_SPEC_VALUE,
			       "\"net.arch\" must be resnet, mlp or layers, not \"%.60s\"", name);
	r = net_new(&net, info->channels, info->height, info->width, err);
	if (r < 0)
		return r;
	r = archs[i].build(net, spec, info, err);
	if (r >= 0 && net->nodes[r].channels * net->nodes[r].height * net->nodes[r].width != info->classes)
		r = err_set(err, ERR_SPEC_VALUE, "the last layer of \"net\" gives %d numbers for %d classes",
			    net->nodes[r].channels * net->nodes[r].height * net->nodes[r].width,
			    info->classes);
	if (r >= 0)
		r = net_finish(net, r, err);
	if (r < 0) {
		net_free(net);
		return r;
	}
	*ret = net;
	return 0;
}
