/* Weights. */
#include "tests/fuzz/fuzz.h"

#include "engine/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	struct safetensors *st;

	if (safetensors_open(&st, data, size, &err) < 0) {
		MUST(err.code != ERR_NONE);
		return 0;
	}
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const struct safetensors_tensor *t = safetensors_at(st, i);
		size_t bytes = t->type == SAFETENSORS_F32 ? 4 : 2;

		MUST(t->rank >= 0 && t->rank <= SAFETENSORS_MAX_RANK);
		for (int d = 0; d < t->rank; d++)
			MUST(t->dims[d] >= 0 && !__builtin_mul_overflow(bytes, (size_t)t->dims[d], &bytes));
		MUST(t->type == SAFETENSORS_OTHER || bytes == t->bytes);
		MUST((const uint8_t *)t->data >= data && t->bytes <= size &&
		     (size_t)((const uint8_t *)t->data - data) <= size - t->bytes);
		MUST(safetensors_find(st, t->name));
	}
	safetensors_metadata(st, "format");
	safetensors_close(st);
	return 0;
}
