/* dataset.json: what a scan found, for people and programs. */
#include "engine/dataset_private.h"

#include "engine/base/json.h"

#include <cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_file(const void *a, const void *b)
{
	return strcmp(((const struct dataset_bad *)a)->file, ((const struct dataset_bad *)b)->file);
}

int dataset_json(const struct dataset_scan *scan, struct buf *ret)
{
	static const char *const split_names[DATASET_SPLITS] = {"train", "val", "test"};
	cJSON *root = cJSON_CreateObject(), *image, *splits, *classes, *bad, *files;
	bool idx = false;

	for (int i = 0; i < scan->n_idx; i++)
		idx |= scan->idx[i].has_images && scan->idx[i].has_labels;
	cJSON_AddStringToObject(root, "name", scan->name);
	cJSON_AddStringToObject(root, "task", "image-classification");
	cJSON_AddStringToObject(root, "format",
				idx                   ? scan->folder_images ? "idx+imagefolder" : "idx"
				: scan->folder_images ? "imagefolder"
						      : "none");
	cJSON_AddNumberToObject(root, "images",
				(double)(scan->counts[0] + scan->counts[1] + scan->counts[2]));
	image = cJSON_AddObjectToObject(root, "image");
	cJSON_AddNumberToObject(image, "channels", scan->channels);
	cJSON_AddNumberToObject(image, "height", scan->height);
	cJSON_AddNumberToObject(image, "width", scan->width);
	splits = cJSON_AddObjectToObject(root, "splits");
	for (int s = 0; s < DATASET_SPLITS; s++)
		cJSON_AddNumberToObject(splits, split_names[s], (double)scan->counts[s]);
	cJSON_AddStringToObject(root, "val_from", scan->val_made ? "a seeded tenth of train" : "files");
	classes = cJSON_AddArrayToObject(root, "classes");
	for (int i = 0; i < scan->n_classes && scan->class_counts; i++) {
		cJSON *class = cJSON_CreateObject();

		cJSON_AddStringToObject(class, "name", scan->classes[i]);
		for (int s = 0; s < DATASET_SPLITS; s++)
			cJSON_AddNumberToObject(class, split_names[s], scan->class_counts[i][s]);
		cJSON_AddItemToArray(classes, class);
	}
	cJSON_AddNumberToObject(root, "bytes", (double)scan->cache_bytes);
	cJSON_AddNumberToObject(root, "ignored", (double)scan->ignored);
	bad = cJSON_AddObjectToObject(root, "bad");
	cJSON_AddNumberToObject(bad, "total", (double)scan->bad_total);
	files = cJSON_AddArrayToObject(bad, "files");
	if (scan->n_bad)
		qsort(scan->bad, scan->n_bad, sizeof(*scan->bad), by_file);
	for (size_t i = 0; i < scan->n_bad; i++) {
		cJSON *file = cJSON_CreateObject();

		cJSON_AddStringToObject(file, "file", scan->bad[i].file);
		cJSON_AddStringToObject(file, "reason", scan->bad[i].reason);
		cJSON_AddItemToArray(files, file);
	}
	json_print(ret, root);
	cJSON_Delete(root);
	return buf_status(ret);
}
