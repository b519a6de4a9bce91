#include "engine/arch/arch.h"
#include "engine/spec.h"

#include <errno.h>
#include <string.h>

static const struct arch archs[] = {
	{"resnet", arch_resnet, 32},
	{"vgg", arch_vgg, 32},
	{"mobilenet", arch_mobilenet, 32},
	{"inception-resnet-v2", arch_inception, 299},
	{"mlp", arch_mlp, 32},
	{"layers", arch_layers, 0},
};
enum { N_ARCHS = sizeof(archs) / sizeof(archs[0]) };

const struct arch *arch_find(const char *name)
{
	for (int i = 0; i < N_ARCHS; i++)
		if (strcmp(archs[i].name, name) == 0)
			return &archs[i];
	return NULL;
}

static int unknown_arch(const char *name, struct err *err)
{
	char names[128] = "";

	for (int i = 0; i < N_ARCHS; i++) {
		strcat(names, i == 0 ? "" : i + 1 < N_ARCHS ? ", " : " or ");
		strcat(names, archs[i].name);
	}
	return err_set(err, ERR_SPEC_VALUE, "\"net.arch\" must be %s, not \"%.60s\"", names, name);
}

int arch_build(struct net **ret, const cJSON *spec, const struct model_info *info, struct err *err)
{
	const char *name = "resnet";
	const struct arch *arch;
	struct net *net = NULL;
	int r;

	if (!cJSON_IsObject(spec))
		return err_set(err, ERR_SPEC_VALUE, "\"net\" must be an object");
	r = spec_string(spec, "net", "arch", &name, err);
	if (r < 0)
		return r;
	arch = arch_find(name);
	if (!arch)
		return unknown_arch(name, err);
	r = net_new(&net, info->channels, info->height, info->width, err);
	if (r < 0)
		return r;
	if (info->n_rates)
		r = net_set_rates(net, info->rates, info->n_rates, err);
	r = r < 0 ? r : arch->build(net, spec, info, err);
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
