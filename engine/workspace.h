/*
 * Private to engine/: the memory of activations that the sessions of one net share. They run one at a time,
 * so the largest need is enough for all; pages that were never touched cost nothing.
 */
#ifndef ENGINE_WORKSPACE_H
#define ENGINE_WORKSPACE_H

#include <stddef.h>
#include <stdint.h>

struct workspace_area {
	char *base; /* page-aligned */
	size_t size;
};

struct workspace {
	struct workspace_area activations, scratch;
	uint64_t generation; /* counts forwards of all sessions: whose activations lie here */
};

int workspace_new(struct workspace **ret);
void workspace_free(struct workspace *ws); /* NULL is fine */
/* Makes an area at least size bytes; its contents are lost and base moves when it grows. -ENOMEM */
int workspace_area_need(struct workspace_area *area, size_t size);

#endif
