/* A version's validation.bin, and the same file taken for two members of an ensemble. */
#include "tests/fuzz/fuzz.h"

#include "engine/ensemble.h"

#include <string.h>

#define MAX_CLASSES 64 /* of an ensemble here: more of them find nothing else */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ensemble_member members[2];
	int labels[MAX_CLASSES];
	struct combination list[24];
	struct err err = ERR_INIT;
	struct ensemble e;
	struct validation v;
	int n;

	if (validation_open(&v, data, size, &err) < 0) {
		MUST(err.code == ERR_BAD_MODEL);
		return 0;
	}
	MUST(v.n && v.classes > 0 && v.n_submodels > 0);
	for (size_t i = 0; i < v.n; i++)
		MUST(validation_label(&v, i) < v.classes &&
		     (!i || validation_id(&v, i) > validation_id(&v, i - 1)));
	if (v.classes > MAX_CLASSES)
		return 0;
	for (int c = 0; c < v.classes; c++)
		labels[c] = v.classes - 1 - c;
	for (int m = 0; m < 2; m++) {
		members[m] = (struct ensemble_member){.weight = 1 + m, .labels = labels, .validation = &v};
		for (int k = 0; k < v.n_submodels && k < ENSEMBLE_PARTS; k++)
			members[m].parts[members[m].n_parts++] = (struct ensemble_part){k, 0.5, k + 1};
	}
	if (ensemble_init(&e, members, 2, v.classes) == 0)
		MUST(e.n == v.n);
	n = ensemble_choose(&e, list, 24);
	MUST(n >= 0 && n <= 24);
	for (int i = 0; i < n; i++)
		MUST(list[i].accuracy >= 0 && list[i].accuracy <= 1);
	ensemble_release(&e);
	return 0;
}
