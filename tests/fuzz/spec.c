/* spec.json of endpoints (first byte even) and jobs. */
#include "tests/fuzz/fuzz.h"

#include "engine/train.h"
#include "sched/jobs.h"
#include "sched/spec.h"

#include <string.h>

static void job(const char *json, size_t len)
{
	struct train_spec *spec, *again;
	struct buf knobs = BUF_INIT;
	struct err err = ERR_INIT;
	int c, h, w;

	if (train_spec_parse(&spec, json, len, &err) < 0) {
		MUST(err.code != ERR_NONE && memchr(err.detail, '\0', sizeof(err.detail)));
		return;
	}
	train_spec_input(spec, &c, &h, &w);
	MUST(train_spec_dataset(spec)[0]);
	/* What knobs.json says is a spec that means the same. */
	if (train_spec_to_json(spec, &knobs) == 0 &&
	    train_spec_parse(&again, knobs.data, knobs.len, NULL) == 0)
		train_spec_free(again);
	buf_release(&knobs);
	train_spec_free(spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *json = (const char *)data + 1;
	struct infer_spec spec;
	struct err err = ERR_INIT;

	if (size < 1)
		return 0;
	if (data[0] % 2) {
		job(json, size - 1);
		sched_check_spec(SPEC_JOB, json, size - 1, &err);
	} else {
		if (infer_spec_parse(&spec, json, size - 1, &err) == 0)
			MUST(spec.batch >= 1 && spec.batch <= MAX_BATCH &&
			     memchr(spec.model, '\0', sizeof(spec.model)) && !strchr(spec.model, '/'));
		sched_check_spec(SPEC_INFER, json, size - 1, &err);
	}
	return 0;
}
