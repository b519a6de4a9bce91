/* Private to engine/onnx: memory that goes away all at once. */
#ifndef ENGINE_ONNX_ARENA_H
#define ENGINE_ONNX_ARENA_H

#include <stddef.h>

struct arena;

int arena_new(struct arena **ret); /* -ENOMEM */
void arena_free(struct arena *a);
void *arena_alloc(struct arena *a, size_t n, size_t size); /* n × size zeroed bytes, aligned to 16; or NULL */
char *arena_string(struct arena *a, const char *s, size_t len);

/* Names to numbers; the strings stay the caller's. All zero: empty. */
struct names {
	struct name_slot {
		const char *name;
		int id;
	} * slots;
	size_t size, used;
};
int names_get(const struct names *names, const char *name);   /* the number, or -1 */
int names_add(struct names *names, const char *name, int id); /* 0; -EEXIST; -ENOMEM */
void names_release(struct names *names);

#endif
