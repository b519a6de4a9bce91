/*
 * What onnx-roundtrip.py compares:
 *
 *	bench-export				the names of the models
 *	bench-export NAME DIR
 *
 * A model with random weights, norms and running statistics; for each of its slices DIR/slice-RATE.onnx and
 * DIR/slice-RATE.logits, what our engine says of DIR/images: pixels scaled to 0…1, (2, C, H, W). Both are plain floats.
 */
#include "engine/backend.h"
#include "engine/export.h"
#include "engine/model_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES = 2, SLICES = 4 };

static const struct {
	const char *name, *net;
	int channels, side, classes;
} models[] = {
	{"vgg16", "{\"arch\":\"vgg\",\"depth\":16,\"norm\":\"none\"}", 3, 224, 1000},
	{"vgg16-batch", "{\"arch\":\"vgg\",\"depth\":16,\"norm\":\"batch\"}", 3, 224, 1000},
	{"vgg16-group", "{\"arch\":\"vgg\",\"depth\":16}", 3, 32, 10},
	{"resnet50-batch", "{\"arch\":\"resnet\",\"depth\":50,\"norm\":\"batch\"}", 3, 224, 1000},
	{"resnet50-group", "{\"arch\":\"resnet\",\"depth\":50}", 3, 224, 1000},
	{"resnet20-batch", "{\"arch\":\"resnet\",\"depth\":20,\"norm\":\"batch\"}", 3, 32, 10},
	{"resnet20-group", "{\"arch\":\"resnet\",\"depth\":20}", 1, 28, 10},
	{"inception-resnet-v2-batch", "{\"arch\":\"inception-resnet-v2\",\"norm\":\"batch\"}", 3, 299, 1000},
	{"inception-resnet-v2-group", "{\"arch\":\"inception-resnet-v2\"}", 3, 299, 1000},
	{"mobilenet-batch", "{\"arch\":\"mobilenet\",\"norm\":\"batch\"}", 3, 224, 1000},
	{"mobilenet-group", "{\"arch\":\"mobilenet\"}", 3, 224, 1000},
	{"mlp", "{\"arch\":\"mlp\",\"hidden\":[256,256]}", 1, 28, 10},
};

static float noise(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static int fail(const char *what, const struct err *err)
{
	char text[512];

	fprintf(stderr, "%s: %s\n", what, err ? err_format(err, text, sizeof(text)) : "can't be written");
	return 1;
}

static int put(const char *dir, const char *name, const void *data, size_t size)
{
	char path[512];
	size_t done = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (f)
		done = fwrite(data, 1, size, f);
	if (!f || fclose(f) != 0 || done != size)
		return fail(path, NULL);
	return 0;
}

static int put_images(const char *dir, const struct model_info *info, const uint8_t *pixels)
{
	size_t plane = (size_t)info->height * (size_t)info->width, c = (size_t)info->channels,
	       n = IMAGES * plane * c;
	float *x = calloc(n, sizeof(*x));
	int r;

	for (size_t i = 0; x && i < n; i++)
		x[i] = (float)pixels[(i / (plane * c) * plane + i % plane) * c + i / plane % c] / 255;
	r = x ? put(dir, "images", x, n * sizeof(*x)) : 1;
	free(x);
	return r;
}

static int put_slice(const char *dir, struct model *model, float rate, const uint8_t *pixels)
{
	const struct session_options options = {.rate = rate, .batch = IMAGES};
	size_t size = (size_t)model->info.classes * IMAGES * sizeof(float);
	struct buf file = BUF_INIT;
	float *logits = malloc(size);
	struct session *s = NULL;
	struct err err = ERR_INIT;
	char name[64];
	int r = logits ? session_new(&s, model, backend_find("onednn"), &options, &err) : -1;

	if (r == 0)
		r = session_forward(s, pixels, IMAGES, logits);
	if (r == 0)
		r = model_export_onnx(model, rate, &file, &err);
	if (r < 0) {
		r = fail("slice", &err);
	} else {
		snprintf(name, sizeof(name), "slice-%.2f.onnx", (double)rate);
		r = put(dir, name, file.data, file.len);
		snprintf(name, sizeof(name), "slice-%.2f.logits", (double)rate);
		r = r ? r : put(dir, name, logits, size);
	}
	session_free(s);
	buf_release(&file);
	free(logits);
	return r;
}

static void disturb(struct params *params)
{
	uint32_t state = 1;

	for (int i = 0; i < params->n; i++)
		for (size_t k = 0; params->list[i].rank == 1 && k < params->list[i].size; k++)
			params->list[i].value[k] += 0.3f * noise(&state);
	params_changed(params);
}

int main(int argc, char **argv)
{
	struct model_info info = {.classes = 10,
				  .mean = {0.485f, 0.456f, 0.406f},
				  .std = {0.229f, 0.224f, 0.225f},
				  .n_rates = SLICES,
				  .rates = {0.25f, 0.5f, 0.75f, 1}};
	size_t which = 0, n = sizeof(models) / sizeof(models[0]), size;
	struct err err = ERR_INIT;
	struct model *model;
	uint8_t *pixels;
	int r;

	while (which < n && argc == 3 && strcmp(argv[1], models[which].name) != 0)
		which++;
	if (argc != 3 || which == n) {
		for (size_t i = 0; i < n; i++)
			puts(models[i].name);
		return argc != 1;
	}
	info.channels = models[which].channels;
	info.height = info.width = models[which].side;
	info.classes = models[which].classes;
	if (model_new(&model, models[which].net, &info, 1, &err) < 0)
		return fail(argv[1], &err);
	disturb(&model->net->params);
	size = (size_t)(info.channels * info.height * info.width) * IMAGES;
	pixels = malloc(size);
	for (size_t i = 0; pixels && i < size; i++)
		pixels[i] = (uint8_t)(i * 2654435761u >> 13);
	r = pixels ? put_images(argv[2], &info, pixels) : 1;
	for (int i = 0; r == 0 && i < SLICES; i++)
		r = put_slice(argv[2], model, info.rates[i], pixels);
	free(pixels);
	model_free(model);
	return r;
}
