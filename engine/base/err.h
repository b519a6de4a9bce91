/*
 * Errors as users see them. Functions return 0 or a negative errno; those whose failure a user must
 * be able to mend also take a `struct err *`, which may be NULL.
 *
 *	struct err err = ERR_INIT;
 *	r = model_load(&model, json, n, weights, size, &err);
 *	if (r < 0)
 *		err_format(&err, text, sizeof(text));	// "sentence: detail; what to do"
 */
#ifndef ENGINE_BASE_ERR_H
#define ENGINE_BASE_ERR_H

#include <stddef.h>

enum err_code {
#define ERR(name, num, sentence, todo) ERR_##name,
#include "engine/base/err.def"
#undef ERR
	ERR_COUNT
};

struct err {
	enum err_code code;
	char detail[384]; /* what and where: a path, a key, an offset; one line */
};

#define ERR_INIT ((struct err){0})

/* Notes the cause (when e is not NULL) and returns the code's negative errno, so that `return err_set(…)`
 * works. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* which can't see the table: every cause but ERR_NONE gives a negative errno */
static inline int err_negative(int r)
{
	if (r >= 0)
		__builtin_unreachable();
	return r;
}
#define err_set(...) err_negative(err_set(__VA_ARGS__))
#endif

/* The table's columns. */
const char *err_name(enum err_code code); /* "SPEC_KEY" */
const char *err_sentence(enum err_code code);
int err_errno(enum err_code code); /* positive */

/* Writes "sentence: detail; what to do" as one line without newline; always ends in NUL. Returns text. */
char *err_format(const struct err *e, char *text, size_t size);

#endif
