/* The tree of the fake host. A file keeps its inode, and inodes that went stay in by_ino. */
#include "tests/support/fake_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *fake_copy(const void *data, size_t len)
{
	char *copy = malloc(len + 1);

	memcpy(copy, data ? data : "", len);
	copy[len] = '\0';
	return copy;
}

/* --- the tree --- */

struct fake_node *fake_node_find(struct fake_host *h, const char *path)
{
	struct table_node *node = table_find(&h->nodes, path);

	return node ? list_entry(node, struct fake_node, node) : NULL;
}

struct fake_node *fake_node_make(struct fake_host *h, const char *path, bool is_dir)
{
	struct fake_node *node = fake_node_find(h, path);
	const char *slash = strrchr(path, '/');

	if (node)
		return node;
	if (slash) {
		char *parent = strndup(path, slash - path);

		fake_node_make(h, parent, true);
		free(parent);
	}
	node = calloc(1, sizeof(*node));
	node->path = strdup(path);
	node->content = is_dir ? NULL : strdup("");
	if ((h->n_inos & (h->n_inos - 1)) == 0)
		h->by_ino = realloc(h->by_ino, (h->n_inos ? 2 * h->n_inos : 1) * sizeof(struct fake_node *));
	h->by_ino[h->n_inos++] = node;
	node->ino = h->n_inos;
	table_add(&h->nodes, &node->node, node->path);
	return node;
}

struct fake_node *fake_node_of(struct fake_host *h, uint64_t ino)
{
	return ino && ino <= h->n_inos && !h->by_ino[ino - 1]->gone ? h->by_ino[ino - 1] : NULL;
}

void fake_node_set(struct fake_node *node, const char *name, const char *value, size_t len)
{
	struct fake_xattr **p = &node->xattrs, *x;

	while (*p && strcmp((*p)->name, name) != 0)
		p = &(*p)->next;
	x = *p;
	if (!x) {
		if (!value)
			return;
		x = *p = calloc(1, sizeof(*x));
		x->name = strdup(name);
	}
	free(x->value);
	x->value = fake_copy(value, value ? len : 0);
	if (!value) {
		*p = x->next;
		free(x->name);
		free(x->value);
		free(x);
	}
}

const char *fake_node_get(const struct fake_node *node, const char *name)
{
	if (node && node->mark && strcmp(name, "user.state") == 0)
		return node->mark;
	for (const struct fake_xattr *x = node ? node->xattrs : NULL; x; x = x->next)
		if (strcmp(x->name, name) == 0)
			return x->value;
	return NULL;
}

void fake_mkdir(struct fake_host *h, const char *path)
{
	fake_node_make(h, path, true);
}

uint64_t fake_put(struct fake_host *h, const char *path, const char *content)
{
	struct fake_node *node = fake_node_make(h, path, false);

	free(node->content);
	node->content = strdup(content);
	node->len = strlen(content);
	return node->ino;
}

bool fake_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (path[len] == '/' || !path[len]);
}

void fake_remove(struct fake_host *h, const char *path)
{
	for (uint64_t i = 0; i < h->n_inos; i++) {
		struct fake_node *node = h->by_ino[i];

		if (!node->gone && fake_below(node->path, path)) {
			table_remove(&h->nodes, &node->node);
			node->gone = true;
		}
	}
}

void fake_move(struct fake_host *h, const char *from, const char *to)
{
	for (uint64_t i = 0; i < h->n_inos; i++) {
		struct fake_node *node = h->by_ino[i];
		char *path;

		if (node->gone || !fake_below(node->path, from))
			continue;
		table_remove(&h->nodes, &node->node);
		if (asprintf(&path, "%s%s", to, node->path + strlen(from)) < 0)
			abort();
		free(node->path);
		node->path = path;
		table_add(&h->nodes, &node->node, path);
	}
}

void fake_setxattr(struct fake_host *h, const char *path, const char *name, const char *value)
{
	fake_node_set(fake_node_make(h, path, true), name, value, value ? strlen(value) : 0);
}

uint64_t fake_ino(struct fake_host *h, const char *path)
{
	struct fake_node *node = fake_node_find(h, path);

	return node ? node->ino : 0;
}

const char *fake_content(struct fake_host *h, const char *path)
{
	struct fake_node *node = fake_node_find(h, path);

	return node ? node->content : NULL;
}

const char *fake_xattr(struct fake_host *h, const char *path, const char *name)
{
	return fake_node_get(fake_node_find(h, path), name);
}

int fake_times(struct fake_host *h, const char *path)
{
	struct fake_node *node = fake_node_find(h, path);

	return node ? node->times : 0;
}

int64_t fake_visible_at(struct fake_host *h, const char *path)
{
	struct fake_node *node = fake_node_find(h, path);

	return node ? node->visible_at : -1;
}
