/* Checkpoints: what a run that goes on would go by. */
#include "tests/fuzz/fuzz.h"

#include "engine/safetensors.h"
#include "engine/train_private.h"

#include <math.h>
#include <string.h>

static const char given[] = "{\"dataset\":\"d\",\"lr\":0.25,\"slices\":[0.5,1],\"net\":{\"arch\":\"mlp\"}}";

static void check_spec(const struct checkpoint *c, const struct train_spec *spec)
{
	struct err err = ERR_INIT;
	struct buf text = BUF_INIT;
	struct train_spec *copy;

	MUST(c->spec->net && c->spec->dataset && c->images);
	for (int i = 0; i < c->shape.channels; i++)
		MUST(isfinite(c->mean[i]) && isfinite(c->std[i]) && c->std[i] > 0);
	if (train_spec_agrees(spec, c->spec, &err) == 0)
		MUST(c->spec->lr == 0.25 && c->spec->n_rates == 2 && strcmp(c->spec->dataset, "d") == 0);
	else
		MUST(err.code != ERR_NONE);
	if (train_spec_copy(&copy, c->spec, NULL) < 0)
		return;
	train_spec_differences(spec, copy, &text);
	train_spec_free(copy);
	buf_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	struct train_spec *spec;
	struct checkpoint c;

	if (checkpoint_open(&c, data, size, &err) < 0) {
		MUST(err.code != ERR_NONE && memchr(err.detail, '\0', sizeof(err.detail)));
		return 0;
	}
	MUST(c.epoch >= 0 && c.step >= 0 && c.elapsed >= 0 && isfinite(c.elapsed));
	if (c.spec && train_spec_parse(&spec, given, strlen(given), NULL) == 0) {
		check_spec(&c, spec);
		train_spec_free(spec);
	}
	checkpoint_close(&c);
	return 0;
}
