/*
 * Private to engine/: an ONNX model that is being written, node by node.
 *
 *	writer_new(&w);
 *	writer_value(w, WRITER_INPUT, "x", 2, (int64_t[]){-1, 10}, "features");	// -1: any, "batch"
 *	writer_floats(w, "weight", 2, (int64_t[]){5, 10}, weights);		// borrowed until writer_pack
 *	n = writer_node(w, "Gemm", "classifier", "logits", (const char *[]){"x", "weight", NULL});
 *	writer_attr_int(w, n, "transB", 1);
 *	writer_value(w, WRITER_OUTPUT, "logits", 2, (int64_t[]){-1, 5}, NULL);
 *	r = writer_pack(w, &bytes, &err);
 *	writer_free(w);
 *
 * Names and texts are copied. What finds no memory is noted, and writer_pack says so; until then pointers may be NULL, which
 * every function takes.
 */
#ifndef ENGINE_ONNX_WRITER_H
#define ENGINE_ONNX_WRITER_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdint.h>

struct writer;
struct writer_node;

enum writer_end { WRITER_INPUT, WRITER_OUTPUT };

int writer_new(struct writer **ret); /* -ENOMEM */
void writer_free(struct writer *w);

/* A copy that lives as long as w; NULL: no memory. */
const char *writer_text(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Of floats; doc NULL: none. */
void writer_value(struct writer *w, enum writer_end end, const char *name, int rank, const int64_t *dims,
		  const char *doc);
/* Initializers. The values of a new one are for the caller to write: zeros at first, NULL without memory. */
void writer_floats(struct writer *w, const char *name, int rank, const int64_t *dims, const float *values);
float *writer_new_floats(struct writer *w, const char *name, int rank, const int64_t *dims);
int64_t *writer_new_ints(struct writer *w, const char *name, int n);
void writer_ints(struct writer *w, const char *name, int n, const int64_t *values); /* copied */

/* in ends in NULL. */
struct writer_node *writer_node(struct writer *w, const char *type, const char *name, const char *out,
				const char *const *in);
void writer_attr_int(struct writer *w, struct writer_node *node, const char *name, int64_t value);
void writer_attr_float(struct writer *w, struct writer_node *node, const char *name, float value);
void writer_attr_ints(struct writer *w, struct writer_node *node, const char *name, int n,
		      const int64_t *values);

void writer_metadata(struct writer *w, const char *key, const char *value);

/* The file's bytes, added to ret. */
int writer_pack(struct writer *w, const char *graph, const char *doc, struct buf *ret, struct err *err);

#endif
