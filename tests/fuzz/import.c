/*
 * Models of others on their way to a network of ours. First byte even: an ONNX file, made into a network and let go. Odd: u16 length of
 * model.json (little-endian), model.json, safetensors.
 */
#include "tests/fuzz/fuzz.h"

#include "engine/import.h"
#include "engine/onnx/to_net.h"

static void to_net(const uint8_t *data, size_t size)
{
	const struct onnx_limits limits = {.file = 1 << 20,
					   .nodes = 1000,
					   .tensor = 1 << 20,
					   .memory = 16 << 20,
					   .depth = onnx_limits_default.depth,
					   .steps = 1000};
	struct onnx_image image = {.height = 8, .width = 8};
	struct err err = ERR_INIT;
	struct onnx_model *model;
	struct net *net;

	if (onnx_load(&model, data, size, &limits, &err) < 0)
		return;
	if (onnx_image(&image, model, &err) < 0) {
		MUST(err.code != ERR_NONE);
	} else if (image.height <= 64 && image.width <= 64) {
		MUST(image.channels == 1 || image.channels == 3);
		err = ERR_INIT;
		if (onnx_to_net(&net, model, &image, &err) < 0) {
			MUST(err.code != ERR_NONE);
		} else {
			MUST(net->output > 0 && net->nodes[net->output].channels > 0);
			for (int i = 0; i < net->params.n; i++)
				MUST(net->params.list[i].value);
			net_free(net);
		}
	}
	onnx_free(model);
}

static void tensors(const uint8_t *data, size_t size)
{
	size_t len = size < 2 ? 0 : (data[0] | (size_t)data[1] << 8);
	struct import_source from = {.file = "x.safetensors"};
	struct imported to;
	struct err err = ERR_INIT;

	if (size < 2)
		return;
	if (len > size - 2)
		len = size - 2;
	from.json = (const char *)data + 2;
	from.json_len = len;
	from.data = data + 2 + len;
	from.size = size - 2 - len;
	if (model_import(&to, &from, &err) < 0) {
		MUST(err.code != ERR_NONE);
		return;
	}
	MUST(to.json.len && to.weights.len && to.slices.len);
	imported_release(&to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && data[0] % 2)
		tensors(data + 1, size - 1);
	else if (size)
		to_net(data + 1, size - 1);
	return 0;
}
