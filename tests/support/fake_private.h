/*
 * Private to the fake host: fake_tree.c has files and directories, fake_publish.c what is published, fake_host.c keys, reading and the
 * table of its functions.
 */
#ifndef TESTS_SUPPORT_FAKE_PRIVATE_H
#define TESTS_SUPPORT_FAKE_PRIVATE_H

#include "tests/support/fake_host.h"

struct fake_xattr {
	struct fake_xattr *next;
	char *name, *value;
};

struct fake_node {
	struct table_node node;
	char *path, *content; /* content NULL: a directory */
	size_t len;
	uint64_t ino;
	struct fake_xattr *xattrs;
	const char *mark; /* user.state until a crash */
	bool gone;
	int times;
	int64_t visible_at;
};

struct fake_publication {
	struct list link;
	char *path, *content;
	size_t len;
	struct host_tree *tree;
	bool is_result, appends, empties, refused, expired;
	struct host_op *ops;
	size_t n_ops;
	int64_t due;
	void (*done)(void *data, int r, int64_t visible);
	void *data;
};

struct host_tree {
	char path[32];
	int fd, shared; /* what is packed; the file whose bytes are shared, or what is apart; -1: neither */
};

/* --- fake_tree.c --- */

void *fake_copy(const void *data, size_t len); /* with a NUL after it */
struct fake_node *fake_node_find(struct fake_host *h, const char *path);
struct fake_node *fake_node_make(struct fake_host *h, const char *path, bool is_dir); /* if it is not there */
struct fake_node *fake_node_of(struct fake_host *h, uint64_t ino);                    /* NULL: gone */
void fake_node_set(struct fake_node *node, const char *name, const char *value,
		   size_t len); /* an xattr; NULL: removes */
const char *fake_node_get(const struct fake_node *node, const char *name);
bool fake_below(const char *path, const char *dir); /* or dir itself */

/* --- fake_publish.c --- */

int fake_publish(void *host, const struct host_publication *from);
int fake_unpublish(void *host, const char *path);
int fake_symlink(void *host, const char *path, const char *target,
		 void (*done)(void *data, int r, int64_t visible), void *data);
void fake_publication_free(struct fake_publication *p);

/* --- fake_host.c --- */

bool fake_step(struct fake_host *h); /* counts down to the crash; true: it is dead */
void fake_apply(struct fake_host *h, const struct host_op *op);

#endif
