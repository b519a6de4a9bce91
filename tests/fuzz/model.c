/* A model version of the user's: u16 length of model.json (little-endian), model.json, weights.safetensors. */
#include "tests/fuzz/fuzz.h"

#include "engine/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	struct model *model;
	size_t len;

	if (size < 2)
		return 0;
	len = data[0] | (size_t)data[1] << 8;
	if (len > size - 2)
		len = size - 2;
	if (model_load(&model, (const char *)data + 2, len, data + 2 + len, size - 2 - len, &err) < 0) {
		MUST(err.code != ERR_NONE);
		return 0;
	}
	MUST(model_info(model)->classes > 0 && model_info(model)->n_rates > 0);
	model_free(model);
	return 0;
}
