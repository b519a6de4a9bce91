#include "engine/workspace.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int workspace_new(struct workspace **ret)
{
	struct workspace *ws = calloc(1, sizeof(*ws));

	if (!ws)
		return -ENOMEM;
	*ret = ws;
	return 0;
}

void workspace_free(struct workspace *ws)
{
	if (!ws)
		return;
	if (ws->activations.base)
		munmap(ws->activations.base, ws->activations.size);
	if (ws->scratch.base)
		munmap(ws->scratch.base, ws->scratch.size);
	free(ws);
}

int workspace_area_need(struct workspace_area *area, size_t size)
{
	void *base;

	if (size <= area->size)
		return 0;
	/* the kernel would promise it and kill the process later */
	if (size / (size_t)sysconf(_SC_PAGESIZE) >= (size_t)sysconf(_SC_PHYS_PAGES))
		return -ENOMEM;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -ENOMEM;
	if (area->base)
		munmap(area->base, area->size);
	area->base = base;
	area->size = size;
	return 0;
}
