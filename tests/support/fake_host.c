#include "tests/support/fake_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- keys and ops --- */

struct fake_key {
	struct table_node node;
	char *key, *value;
	size_t value_len;
	bool deleted;
};

bool fake_step(struct fake_host *h)
{
	if (h->calls_left > 0 && --h->calls_left == 0)
		h->dead = true;
	return h->dead;
}

void fake_apply(struct fake_host *h, const struct host_op *op)
{
	char *key = fake_copy(op->key, op->key_len);
	struct table_node *found = table_find(&h->keys, key);
	struct fake_key *k = found ? list_entry(found, struct fake_key, node) : NULL;
	struct fake_node *node;

	switch (op->type) {
	case HOST_PUT:
		if (k) {
			fprintf(stderr, "key put twice: %s\n", key);
			h->key_faults++;
			break;
		}
		k = calloc(1, sizeof(*k));
		k->key = key;
		k->value = fake_copy(op->value, op->value_len);
		k->value_len = op->value_len;
		table_add(&h->keys, &k->node, k->key);
		return;
	case HOST_DEL:
		if (!k || k->deleted) {
			fprintf(stderr, "key deleted and not there: %s\n", key);
			h->key_faults++;
		} else {
			k->deleted = true; /* stays in the table: it must not be put again */
		}
		break;
	case HOST_STATE:
		node = fake_node_of(h, op->ino);
		if (node) {
			fake_node_set(node, key, op->value, op->value_len);
			node->mark = strcmp(key, "user.state") == 0 ? NULL : node->mark;
		}
		break;
	}
	free(key);
}

static void fake_mark(void *host, uint64_t ino, const char *state)
{
	struct fake_node *node = fake_node_of(host, ino);

	if (node)
		node->mark = state;
}

static int fake_commit(void *host, const struct host_op *ops, size_t n)
{
	struct fake_host *h = host;

	if (h->commit_error)
		return h->commit_error;
	if (fake_step(h))
		return 0;
	for (size_t i = 0; i < n; i++)
		fake_apply(h, &ops[i]);
	return 0;
}

struct key_scan {
	struct fake_key **keys;
	size_t n;
	const char *prefix;
	size_t prefix_len;
};

static void collect_key(void *data, struct table_node *node)
{
	struct key_scan *scan = data;
	struct fake_key *k = list_entry(node, struct fake_key, node);

	if (!k->deleted && strncmp(k->key, scan->prefix, scan->prefix_len) == 0) {
		if ((scan->n & (scan->n - 1)) == 0)
			scan->keys =
				realloc(scan->keys, (scan->n ? 2 * scan->n : 1) * sizeof(struct fake_key *));
		scan->keys[scan->n++] = k;
	}
}

static int by_key(const void *a, const void *b)
{
	return strcmp((*(struct fake_key *const *)a)->key, (*(struct fake_key *const *)b)->key);
}

static int fake_scan(void *host, const void *prefix, size_t prefix_len,
		     int (*fn)(void *data, const void *key, size_t key_len, const void *value,
			       size_t value_len),
		     void *data)
{
	struct fake_host *h = host;
	struct key_scan scan = {.prefix = prefix, .prefix_len = prefix_len};

	table_each(&h->keys, collect_key, &scan);
	if (scan.n)
		qsort(scan.keys, scan.n, sizeof(*scan.keys), by_key);
	for (size_t i = 0; i < scan.n; i++)
		if (fn(data, scan.keys[i]->key, strlen(scan.keys[i]->key), scan.keys[i]->value,
		       scan.keys[i]->value_len))
			break;
	free(scan.keys);
	return 0;
}

size_t fake_count_keys(struct fake_host *h, const char *prefix)
{
	struct key_scan scan = {.prefix = prefix, .prefix_len = strlen(prefix)};

	table_each(&h->keys, collect_key, &scan);
	free(scan.keys);
	return scan.n;
}

/* --- trees: until they are published their nodes are in a place that no path leads to --- */

static int fake_tree_new(void *host, uint64_t like, struct host_tree **ret)
{
	struct fake_host *h = host;

	if (!fake_node_of(h, like))
		return -ESTALE;
	*ret = calloc(1, sizeof(**ret));
	snprintf((*ret)->path, sizeof((*ret)->path), "trees/%u", h->n_trees++);
	fake_node_make(h, (*ret)->path, true);
	(*ret)->fd = memfd_create("tree", MFD_CLOEXEC);
	(*ret)->shared = -1;
	if (h->packed && write((*ret)->fd, h->packed, strlen(h->packed)) < 0)
		abort();
	return 0;
}

static int fake_tree_fd(void *host, struct host_tree *tree)
{
	(void)host;
	return tree->fd;
}

static int fake_tree_share(void *host, struct host_tree *tree, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	struct fake_host *h = host;
	const struct fake_node *node = fake_node_of(h, ino);

	if (!node)
		return -ESTALE;
	if (!h->shares)
		return -ENODATA;
	tree->shared = memfd_create("archive", MFD_CLOEXEC);
	if (write(tree->shared, node->content, node->len) < 0)
		abort();
	*ret_fd = tree->shared;
	*ret_len = node->len;
	return 0;
}

static int fake_tree_apart(void *host, struct host_tree *tree, int *ret_fd)
{
	struct fake_host *h = host;

	tree->shared = memfd_create("apart", MFD_CLOEXEC);
	if (h->apart && write(tree->shared, h->apart, strlen(h->apart)) < 0)
		abort();
	*ret_fd = tree->shared;
	return 0;
}

static int fake_tree_add(void *host, struct host_tree *tree, struct host_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct fake_node *node;
		char *path;

		if (asprintf(&path, "%s/%s", tree->path, files[i].path) < 0)
			abort();
		node = fake_node_find(host, path) ? NULL : fake_node_make(host, path, false);
		free(path);
		if (!node)
			return -EEXIST;
		free(node->content);
		node->content = calloc(1, files[i].len + 1);
		if (pread(files[i].shared ? tree->shared : tree->fd, node->content, files[i].len,
			  (off_t)files[i].offset) < 0)
			abort();
		node->len = files[i].len;
		files[i].ino = node->ino;
	}
	return 0;
}

static int fake_tree_xattr(void *host, struct host_tree *tree, const char *name, const char *value)
{
	fake_node_set(fake_node_find(host, tree->path), name, value, strlen(value));
	return 0;
}

static void fake_tree_free(void *host, struct host_tree *tree)
{
	fake_remove(host, tree->path);
	close(tree->fd);
	if (tree->shared >= 0)
		close(tree->shared);
	free(tree);
}

static int fake_spawn(void *host, const char *kind, int *ret_fd, int *ret_pid)
{
	struct fake_host *h = host;

	*ret_pid = 0;
	return h->spawn ? h->spawn(h, kind, ret_fd) : -ENOSYS;
}

/* --- reading --- */

static int fake_read(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	struct fake_node *node = fake_node_of(host, ino);

	if (!node || !node->content)
		return node ? -EISDIR : -ESTALE;
	if (node->len > max)
		return -EFBIG;
	*ret = fake_copy(node->content, node->len);
	*ret_len = node->len;
	return 0;
}

static int fake_open(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	struct fake_node *node = fake_node_of(host, ino);
	int fd;

	if (!node || !node->content)
		return -ESTALE;
	fd = memfd_create("fake", MFD_CLOEXEC);
	if (fd < 0 || write(fd, node->content, node->len) != (ssize_t)node->len)
		abort();
	*ret_fd = fd;
	*ret_len = node->len;
	return 0;
}

static struct host_entry entry_of(const struct fake_node *node, const char *path)
{
	return (struct host_entry){
		.path = path, .ino = node->ino, .size = node->len, .is_dir = !node->content};
}

static int fake_lookup(void *host, const char *path, struct host_entry *ret)
{
	struct fake_node *node = fake_node_find(host, path);

	if (!node)
		return -ENOENT;
	*ret = entry_of(node, path);
	return 0;
}

static int fake_walk(void *host, const char *path, int (*fn)(void *data, const struct host_entry *e),
		     void *data)
{
	struct fake_host *h = host;
	size_t len = strlen(path);
	int r = 0;

	if (!fake_node_find(h, path))
		return -ENOENT;
	for (uint64_t i = 0; i < h->n_inos && r == 0; i++) {
		struct fake_node *node = h->by_ino[i];

		if (!node->gone && strncmp(node->path, path, len) == 0 && node->path[len] == '/') {
			struct host_entry e = entry_of(node, node->path + len + 1);

			r = fn(data, &e);
			r = r == HOST_NOT_BELOW ? 0 : r;
		}
	}
	return r;
}

static int fake_access(void *host, uint64_t ino, struct host_access *ret)
{
	if (!fake_node_of(host, ino))
		return -ESTALE;
	*ret = (struct host_access){.mode = 0100644};
	return 0;
}

static int fake_getxattr(void *host, uint64_t ino, const char *name, char *value, size_t size)
{
	const char *text = fake_node_get(fake_node_of(host, ino), name);

	if (!text)
		return -ENODATA;
	if (strlen(text) >= size)
		return -ERANGE;
	strcpy(value, text);
	return (int)strlen(text);
}

static int fake_state_open(void *host, const char *name, int flags, int *ret_fd)
{
	(void)host;
	(void)name;
	(void)flags;
	(void)ret_fd;
	return -ENOENT;
}

static int fake_state_put(void *host, const char *name, int fd, uint64_t len)
{
	(void)host;
	(void)name;
	(void)fd;
	(void)len;
	return -EIO;
}

static int fake_state_remove(void *host, const char *name)
{
	(void)host;
	(void)name;
	return 0;
}

const struct host_ops fake_host_ops = {
	.commit = fake_commit,
	.mark = fake_mark,
	.scan = fake_scan,
	.publish = fake_publish,
	.unpublish = fake_unpublish,
	.symlink = fake_symlink,
	.read = fake_read,
	.open = fake_open,
	.lookup = fake_lookup,
	.walk = fake_walk,
	.access = fake_access,
	.getxattr = fake_getxattr,
	.state_open = fake_state_open,
	.state_put = fake_state_put,
	.state_remove = fake_state_remove,
	.tree_new = fake_tree_new,
	.tree_fd = fake_tree_fd,
	.tree_share = fake_tree_share,
	.tree_apart = fake_tree_apart,
	.tree_add = fake_tree_add,
	.tree_xattr = fake_tree_xattr,
	.tree_free = fake_tree_free,
	.spawn = fake_spawn,
};

/* --- the host --- */

void fake_host_init(struct fake_host *h, struct loop *loop)
{
	*h = (struct fake_host){.loop = loop, .calls_left = -1};
	list_init(&h->queue);
}

void fake_host_crash(struct fake_host *h)
{
	loop_timer_cancel(h->loop, h->timer);
	h->timer = NULL;
	list_each(link, &h->queue) fake_publication_free(list_entry(link, struct fake_publication, link));
	fake_remove(h, "trees");
	for (uint64_t i = 0; i < h->n_inos; i++)
		h->by_ino[i]->mark = NULL;
	h->dead = false;
	h->calls_left = -1;
}

static void free_key(void *data, struct table_node *node)
{
	struct fake_key *k = list_entry(node, struct fake_key, node);

	(void)data;
	free(k->key);
	free(k->value);
	free(k);
}

void fake_host_release(struct fake_host *h)
{
	fake_host_crash(h);
	for (uint64_t i = 0; i < h->n_inos; i++) {
		struct fake_node *node = h->by_ino[i];

		while (node->xattrs)
			fake_node_set(node, node->xattrs->name, NULL, 0);
		free(node->path);
		free(node->content);
		free(node);
	}
	free(h->by_ino);
	table_release(&h->nodes);
	table_each(&h->keys, free_key, NULL);
	table_release(&h->keys);
}
