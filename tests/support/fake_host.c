#include "tests/support/fake_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

struct fake_key {
	struct table_node node;
	char *key, *value;
	size_t value_len;
	bool deleted;
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

static void *copy_of(const void *data, size_t len)
{
	char *copy = malloc(len + 1);

	memcpy(copy, data ? data : "", len);
	copy[len] = '\0';
	return copy;
}

/* --- the tree --- */

static struct fake_node *find_node(struct fake_host *h, const char *path)
{
	struct table_node *node = table_find(&h->nodes, path);

	return node ? list_entry(node, struct fake_node, node) : NULL;
}

static struct fake_node *make_node(struct fake_host *h, const char *path, bool is_dir)
{
	struct fake_node *node = find_node(h, path);
	const char *slash = strrchr(path, '/');

	if (node)
		return node;
	if (slash) {
		char *parent = strndup(path, slash - path);

		make_node(h, parent, true);
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

static struct fake_node *node_of(struct fake_host *h, uint64_t ino)
{
	return ino && ino <= h->n_inos && !h->by_ino[ino - 1]->gone ? h->by_ino[ino - 1] : NULL;
}

static void set_xattr(struct fake_node *node, const char *name, const char *value, size_t len)
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
	x->value = copy_of(value, value ? len : 0);
	if (!value) {
		*p = x->next;
		free(x->name);
		free(x->value);
		free(x);
	}
}

static const char *get_xattr(const struct fake_node *node, const char *name)
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
	make_node(h, path, true);
}

uint64_t fake_put(struct fake_host *h, const char *path, const char *content)
{
	struct fake_node *node = make_node(h, path, false);

	free(node->content);
	node->content = strdup(content);
	node->len = strlen(content);
	return node->ino;
}

static bool below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (path[len] == '/' || !path[len]);
}

void fake_remove(struct fake_host *h, const char *path)
{
	for (uint64_t i = 0; i < h->n_inos; i++) {
		struct fake_node *node = h->by_ino[i];

		if (!node->gone && below(node->path, path)) {
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

		if (node->gone || !below(node->path, from))
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
	set_xattr(make_node(h, path, true), name, value, value ? strlen(value) : 0);
}

uint64_t fake_ino(struct fake_host *h, const char *path)
{
	struct fake_node *node = find_node(h, path);

	return node ? node->ino : 0;
}

const char *fake_content(struct fake_host *h, const char *path)
{
	struct fake_node *node = find_node(h, path);

	return node ? node->content : NULL;
}

const char *fake_xattr(struct fake_host *h, const char *path, const char *name)
{
	return get_xattr(find_node(h, path), name);
}

int fake_times(struct fake_host *h, const char *path)
{
	struct fake_node *node = find_node(h, path);

	return node ? node->times : 0;
}

int64_t fake_visible_at(struct fake_host *h, const char *path)
{
	struct fake_node *node = find_node(h, path);

	return node ? node->visible_at : -1;
}

/* --- keys and ops --- */

/* Counts down to the crash; true: it is dead. */
static bool step(struct fake_host *h)
{
	if (h->calls_left > 0 && --h->calls_left == 0)
		h->dead = true;
	return h->dead;
}

static void apply(struct fake_host *h, const struct host_op *op)
{
	char *key = copy_of(op->key, op->key_len);
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
		k->value = copy_of(op->value, op->value_len);
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
		node = node_of(h, op->ino);
		if (node) {
			set_xattr(node, key, op->value, op->value_len);
			node->mark = strcmp(key, "user.state") == 0 ? NULL : node->mark;
		}
		break;
	}
	free(key);
}

static void fake_mark(void *host, uint64_t ino, const char *state)
{
	struct fake_node *node = node_of(host, ino);

	if (node)
		node->mark = state;
}

static int fake_commit(void *host, const struct host_op *ops, size_t n)
{
	struct fake_host *h = host;

	if (h->commit_error)
		return h->commit_error;
	if (step(h))
		return 0;
	for (size_t i = 0; i < n; i++)
		apply(h, &ops[i]);
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

struct host_tree {
	char path[32];
};

static int fake_tree_new(void *host, uint64_t like, struct host_tree **ret)
{
	struct fake_host *h = host;

	if (!node_of(h, like))
		return -ESTALE;
	*ret = calloc(1, sizeof(**ret));
	snprintf((*ret)->path, sizeof((*ret)->path), "trees/%u", h->n_trees++);
	make_node(h, (*ret)->path, true);
	return 0;
}

static int fake_tree_add(void *host, struct host_tree *tree, struct host_file *files, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct fake_node *node;
		char *path;

		if (asprintf(&path, "%s/%s", tree->path, files[i].path) < 0)
			abort();
		node = find_node(host, path) ? NULL : make_node(host, path, false);
		free(path);
		if (!node)
			return -EEXIST;
		free(node->content);
		node->content = copy_of(files[i].data, files[i].len);
		node->len = files[i].len;
		files[i].ino = node->ino;
	}
	return 0;
}

static int fake_tree_xattr(void *host, struct host_tree *tree, const char *name, const char *value)
{
	set_xattr(find_node(host, tree->path), name, value, strlen(value));
	return 0;
}

static void fake_tree_free(void *host, struct host_tree *tree)
{
	fake_remove(host, tree->path);
	free(tree);
}

static int fake_spawn(void *host, const char *kind, int *ret_fd, int *ret_pid)
{
	struct fake_host *h = host;

	*ret_pid = 0;
	return h->spawn ? h->spawn(h, kind, ret_fd) : -ENOSYS;
}

/* --- publications --- */

static void publication_free(struct fake_publication *p)
{
	list_remove(&p->link);
	for (size_t i = 0; i < p->n_ops; i++) {
		free((void *)p->ops[i].key);
		free((void *)p->ops[i].value);
	}
	free(p->ops);
	free(p->path);
	free(p->content);
	free(p);
}

static void start_first(struct fake_host *h);

static void make_visible(struct fake_host *h, struct fake_publication *p)
{
	struct fake_node *node = p->tree ? NULL : make_node(h, p->path, false);

	if (p->tree) {
		fake_move(h, p->tree->path, p->path);
		for (size_t i = 0; i < p->n_ops; i++)
			apply(h, &p->ops[i]);
		return;
	}
	if (p->appends && !p->empties && node->content) {
		node->content = realloc(node->content, node->len + p->len + 1);
		memcpy(node->content + node->len, p->content, p->len + 1);
		node->len += p->len;
	} else {
		free(node->content);
		node->content = p->content;
		node->len = p->len;
		p->content = NULL;
	}
	if (p->is_result && !node->times++)
		node->visible_at = loop_now(h->loop);
	for (size_t i = 0; i < p->n_ops; i++)
		apply(h, &p->ops[i]);
}

static void first_ends(void *data)
{
	struct fake_host *h = data;
	struct fake_publication *p = list_entry(h->queue.next, struct fake_publication, link);
	int r = p->refused ? -ENOENT : p->is_result ? h->publish_error : 0;

	h->timer = NULL;
	h->n_published += p->is_result;
	if (h->dead || (step(h) && h->dead))
		return;
	if (r == 0 && p->expired)
		r = -ETIME;
	if (r == 0 && p->tree && find_node(h, p->path))
		r = -EEXIST;
	if (r == 0 && !p->content) /* an unpublication */
		fake_remove(h, p->path);
	else if (r == 0)
		make_visible(h, p);
	list_remove(&p->link);
	start_first(h);
	if (p->done)
		p->done(p->data, r, loop_now(h->loop));
	publication_free(p);
}

static void start_first(struct fake_host *h)
{
	int64_t takes = 0; /* status files cost nothing here */
	struct fake_publication *p;

	if (h->timer || list_empty(&h->queue))
		return;
	/* As the publisher: it looks at the clock, and then the rename takes its time. */
	p = list_entry(h->queue.next, struct fake_publication, link);
	p->expired = p->due && loop_now(h->loop) > p->due;
	if (p->is_result && !p->expired)
		takes = h->slow_ns && h->n_published == h->slow_at ? h->slow_ns : h->publish_ns;
	h->timer = loop_timer_at(h->loop, loop_now(h->loop) + takes, first_ends, h);
}

static void enqueue(struct fake_host *h, struct fake_publication *p)
{
	list_append(&h->queue, &p->link);
	start_first(h);
}

/* Below a directory that is no more. */
void fake_host_refuse(struct fake_host *h, const char *dir)
{
	list_each(link, &h->queue)
	{
		struct fake_publication *p = list_entry(link, struct fake_publication, link);

		if (below(p->path, dir))
			p->refused = true;
	}
}

static int fake_publish(void *host, const struct host_publication *from)
{
	struct fake_host *h = host;
	struct fake_publication *p;

	if (step(h))
		return 0;
	p = calloc(1, sizeof(*p));
	list_init(&p->link);
	p->is_result = from->flags & HOST_RESULT;
	p->tree = from->tree;
	p->appends = from->flags & HOST_APPEND;
	p->empties = from->flags & HOST_EMPTY;
	p->path = strdup(from->path);
	p->content = copy_of(from->content, from->len);
	p->len = from->len;
	p->ops = calloc(from->n_ops ? from->n_ops : 1, sizeof(*p->ops));
	for (size_t i = 0; i < from->n_ops; i++) {
		p->ops[i] = from->ops[i];
		p->ops[i].key = copy_of(from->ops[i].key, from->ops[i].key_len);
		p->ops[i].value = copy_of(from->ops[i].value, from->ops[i].value_len);
	}
	p->n_ops = from->n_ops;
	p->due = from->due;
	p->done = from->done;
	p->data = from->data;
	enqueue(h, p);
	return 0;
}

static int fake_unpublish(void *host, const char *path)
{
	struct fake_host *h = host;
	struct fake_publication *p;

	if (step(h))
		return 0;
	p = calloc(1, sizeof(*p));
	list_init(&p->link);
	p->path = strdup(path);
	enqueue(h, p);
	return 0;
}

static int fake_symlink(void *host, const char *path, const char *target)
{
	(void)host;
	(void)path;
	(void)target;
	return 0;
}

/* --- reading --- */

static int fake_read(void *host, uint64_t ino, size_t max, void **ret, size_t *ret_len)
{
	struct fake_node *node = node_of(host, ino);

	if (!node || !node->content)
		return node ? -EISDIR : -ESTALE;
	if (node->len > max)
		return -EFBIG;
	*ret = copy_of(node->content, node->len);
	*ret_len = node->len;
	return 0;
}

static int fake_open(void *host, uint64_t ino, int *ret_fd, uint64_t *ret_len)
{
	struct fake_node *node = node_of(host, ino);
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
	struct fake_node *node = find_node(host, path);

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

	if (!find_node(h, path))
		return -ENOENT;
	for (uint64_t i = 0; i < h->n_inos && r == 0; i++) {
		struct fake_node *node = h->by_ino[i];

		if (!node->gone && strncmp(node->path, path, len) == 0 && node->path[len] == '/') {
			struct host_entry e = entry_of(node, node->path + len + 1);

			r = fn(data, &e);
		}
	}
	return r;
}

static int fake_access(void *host, uint64_t ino, struct host_access *ret)
{
	if (!node_of(host, ino))
		return -ESTALE;
	*ret = (struct host_access){.mode = 0100644};
	return 0;
}

static int fake_getxattr(void *host, uint64_t ino, const char *name, char *value, size_t size)
{
	const char *text = get_xattr(node_of(host, ino), name);

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
	list_each(link, &h->queue) publication_free(list_entry(link, struct fake_publication, link));
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
			set_xattr(node, node->xattrs->name, NULL, 0);
		free(node->path);
		free(node->content);
		free(node);
	}
	free(h->by_ino);
	table_release(&h->nodes);
	table_each(&h->keys, free_key, NULL);
	table_release(&h->keys);
}
