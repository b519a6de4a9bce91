/* Private to engine/import*.c. */
#ifndef ENGINE_IMPORT_PRIVATE_H
#define ENGINE_IMPORT_PRIVATE_H

#include "engine/import.h"
#include "engine/model_private.h"

/* What the user's model.json says; 0 where it doesn't. */
struct import_spec {
	cJSON *root; /* NULL: there is none */
	int channels, height, width, classes;
	bool normalised; /* mean and std are there */
	float mean[4], std[4];
	double accuracy;
	cJSON *net;    /* borrowed from root */
	cJSON *slices; /* likewise: of another inferfs's model.json */
};

/* mean and std of so many channels, as the spec says or by default. */
int import_normalise(const struct import_spec *spec, struct model_info *info, struct err *err);
int import_labels(struct model *model, const struct import_source *from, struct err *err);

int import_onnx(struct imported *ret, const struct import_source *from, const struct import_spec *spec,
		struct err *err);
int import_tensors(struct imported *ret, const struct import_source *from, const struct import_spec *spec,
		   struct err *err);

#endif
