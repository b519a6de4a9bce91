/*
 * What onnx-imports.py compares: a model of somebody else's as it would be served.
 *
 *	bench-import FILE.onnx IMAGES LOGITS
 *
 * IMAGES: pixels, bytes (n, H, W, C), which the model gets scaled to 0…1; LOGITS: what our engine says of them, floats. FILE.onnx.data
 * is taken, too, where it is there. Says "compiled", or "interpreted" and why.
 */
#include "engine/backend.h"
#include "engine/base/json.h"
#include "engine/import.h"
#include "engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, const struct err *err)
{
	char text[512];

	fprintf(stderr, "%s: %s\n", what,
		err ? err_format(err, text, sizeof(text)) : "can't be read or written");
	return 1;
}

/* NULL: it isn't there. */
static void *slurp(const char *path, size_t *ret_size)
{
	FILE *f = fopen(path, "r");
	void *data = NULL;
	long size;

	if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && (data = malloc((size_t)size + 1))) {
		rewind(f);
		*ret_size = fread(data, 1, (size_t)size, f);
	}
	if (f)
		fclose(f);
	return data;
}

static int put(const char *path, const void *data, size_t size)
{
	FILE *f = fopen(path, "w");
	size_t done = f ? fwrite(data, 1, size, f) : 0;

	return !f || fclose(f) != 0 || done != size ? fail(path, NULL) : 0;
}

static int run(struct model *model, const char *images, const char *to)
{
	const struct model_info *info = model_info(model);
	size_t size = 0, one = (size_t)info->channels * (size_t)info->height * (size_t)info->width, n;
	uint8_t *pixels = slurp(images, &size);
	struct session *s = NULL;
	struct err err = ERR_INIT;
	float *logits;
	int r;

	n = size / one;
	logits = calloc(n * (size_t)info->classes + 1, sizeof(*logits));
	if (!pixels || !n || !logits)
		return fail(images, NULL);
	r = session_new(&s, model, backend_find("onednn"),
			&(struct session_options){.rate = 1, .batch = (int)n}, &err);
	if (r == 0)
		r = session_forward(s, pixels, (int)n, logits);
	r = r < 0 ? fail("session", &err) : put(to, logits, n * (size_t)info->classes * sizeof(*logits));
	session_free(s);
	free(pixels);
	free(logits);
	return r;
}

static void say_how(const struct imported *to)
{
	cJSON *root = cJSON_ParseWithLength(to->json.data, to->json.len);
	const char *how = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "runs")),
		   *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "because"));

	printf("%s %s\n", how ? how : "?", why ? why : "");
	cJSON_Delete(root);
}

int main(int argc, char **argv)
{
	static const char json[] = "{\"mean\":[0],\"std\":[1]}";
	struct import_source from = {.json = json, .json_len = sizeof(json) - 1};
	struct imported to = {0};
	struct err err = ERR_INIT;
	struct model *model = NULL;
	void *data, *beside;
	char path[512];
	int r;

	if (argc != 4) {
		fprintf(stderr, "bench-import FILE.onnx IMAGES LOGITS\n");
		return 1;
	}
	data = slurp(argv[1], &from.size);
	from.file = argv[1];
	from.data = data;
	snprintf(path, sizeof(path), "%s.data", argv[1]);
	beside = slurp(path, &from.beside_size);
	from.beside = beside ? strrchr(path, '/') ? strrchr(path, '/') + 1 : path : NULL;
	from.beside_data = beside;
	r = data ? model_import(&to, &from, &err) : -1;
	if (r == 0)
		r = model_load(&model, to.json.data, to.json.len,
			       to.weights.len ? to.weights.data : from.data,
			       to.weights.len ? to.weights.len : from.size, &err);
	if (r < 0)
		return fail(argv[1], data ? &err : NULL);
	say_how(&to);
	r = run(model, argv[2], argv[3]);
	model_free(model);
	imported_release(&to);
	free(beside);
	free(data);
	return r;
}
