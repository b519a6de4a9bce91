/*
 * A growable array of bytes. After a failed allocation the buffer stays as it was and `failed` is set, so
 * that a run of buf_add* needs one check at the end.
 */
#ifndef ENGINE_BASE_BUF_H
#define ENGINE_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *data; /* always NUL-terminated beyond len once anything was added */
	size_t len, size;
	bool failed;
};

#define BUF_INIT ((struct buf){0})

void buf_release(struct buf *b); /* frees; b is usable again */
void buf_clear(struct buf *b);   /* len = 0, keeps the memory */
void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *buf_reserve(struct buf *b,
		  size_t len);       /* len writable bytes at the end, or NULL; set b->len yourself */
int buf_status(const struct buf *b); /* 0 or -ENOMEM */

#endif
