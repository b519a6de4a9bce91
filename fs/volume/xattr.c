/* Extended attributes: a key each. Who adds one or removes an inode holds the inode's xattr lock. */
#include "fs/volume/private.h"

#include <errno.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define NAME_MAX_HERE 255
#define LIST_MAX      65536 /* the kernel's XATTR_LIST_MAX */

static size_t key_xattr(char *key, uint64_t ino, const char *name, size_t len)
{
	put_be64(key, ino);
	memcpy(key + 8, name, len);
	return 8 + len;
}

uint64_t xattr_mask(uint64_t ino)
{
	return UINT64_C(1) << (ino % XATTR_LOCKS);
}

void xattr_lock(struct volume *vol, uint64_t mask)
{
	for (int i = 0; i < XATTR_LOCKS; i++)
		if (mask >> i & 1)
			pthread_mutex_lock(&vol->xattr_locks[i]);
}

void xattr_unlock(struct volume *vol, uint64_t mask)
{
	for (int i = 0; i < XATTR_LOCKS; i++)
		if (mask >> i & 1)
			pthread_mutex_unlock(&vol->xattr_locks[i]);
}

static int delete_one(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	(void)value;
	(void)value_len;
	batch_delete(data, CF_XATTRS, key, key_len);
	return 0;
}

int xattr_batch_delete_all(struct volume *vol, struct batch *b, uint64_t ino)
{
	char from[8], to[8];

	mark_drop(vol, ino, NULL, 0);
	put_be64(from, ino);
	put_be64(to, ino + 1);
	return db_scan(&vol->db, CF_XATTRS, from, 8, to, 8, delete_one, b);
}

static int name_check(const char *name)
{
	size_t len = strlen(name);

	return len == 0 || len > NAME_MAX_HERE ? -ERANGE : 0;
}

int vol_setxattr(struct volume *vol, uint64_t ino, const char *name, const void *value, size_t size,
		 int flags)
{
	char key[KEY_MAX];
	struct inode_rec rec;
	struct node *node;
	struct batch b = {0};
	size_t key_len;
	bool there;
	int r = name_check(name);

	if (r < 0)
		return r;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE) || flags == (XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (size > XATTR_SIZE_MAX)
		return -E2BIG;
	r = room_take(vol, size, ROOM_DATA);
	if (r == 0)
		r = batch_init(&b, vol);
	if (r < 0)
		return r;
	r = node_get(vol, ino, &node);
	if (r < 0)
		goto out;
	key_len = key_xattr(key, ino, name, strlen(name));
	xattr_lock(vol, xattr_mask(ino));
	there = flags && db_has(&vol->db, CF_XATTRS, key, key_len);
	if (flags == XATTR_CREATE && there) {
		r = -EEXIST;
	} else if (flags == XATTR_REPLACE && !there) {
		r = -ENODATA;
	} else {
		rec = node->rec;
		now(&rec.ctime);
		batch_put(&b, CF_XATTRS, key, key_len, value, size);
		node_batch(&b, node, &rec);
		r = batch_commit(&b, false);
		if (r == 0)
			node_committed(node, &rec);
	}
	xattr_unlock(vol, xattr_mask(ino));
	node_put(vol, node);
out:
	batch_release(&b);
	return r;
}

/* -ENODATA when the inode is there, else -ESTALE. */
static int missing(struct volume *vol, uint64_t ino)
{
	char key[KEY_MAX];
	struct vol_attr attr;

	if (db_failed(&vol->db)) /* it may be in memory only */
		return vol_getattr(vol, ino, &attr) == 0 ? -ENODATA : -ESTALE;
	return db_has(&vol->db, CF_INODES, key, key_ino(key, ino)) ? -ENODATA : -ESTALE;
}

int vol_getxattr(struct volume *vol, uint64_t ino, const char *name, void *value, size_t size)
{
	char key[KEY_MAX], *copy = NULL;
	const char *mark, *text;
	size_t len = 0;
	int r = name_check(name);

	if (r < 0)
		return r;
	if (mark_get(vol, ino, &mark, &text) && strcmp(mark, name) == 0) {
		len = strlen(text);
		if (size > 0 && len <= size)
			memcpy(value, text, len);
		return size == 0 || len <= size ? (int)len : -ERANGE;
	}
	r = db_get_alloc(&vol->db, CF_XATTRS, key, key_xattr(key, ino, name, strlen(name)), &copy, &len);
	if (r == -ENOENT)
		return missing(vol, ino);
	if (r < 0)
		return r;
	if (size == 0 || len <= size) {
		if (size > 0)
			memcpy(value, copy, len);
		r = (int)len;
	} else {
		r = -ERANGE;
	}
	free(copy);
	return r;
}

struct list {
	char *data;
	size_t size, len;
	const char *mark; /* in the list already; NULL: none */
};

static int list_name(struct list *list, const char *name, size_t n)
{
	if (list->len + n + 1 > LIST_MAX)
		return -E2BIG;
	if (list->size > 0) {
		if (list->len + n + 1 > list->size)
			return -ERANGE;
		memcpy(list->data + list->len, name, n);
		list->data[list->len + n] = 0;
	}
	list->len += n + 1;
	return 0;
}

static int list_one(void *data, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct list *list = data;
	const char *name = (const char *)key + 8;

	(void)value;
	(void)value_len;
	if (list->mark && strlen(list->mark) == key_len - 8 && memcmp(list->mark, name, key_len - 8) == 0)
		return 0;
	return list_name(list, name, key_len - 8);
}

int vol_listxattr(struct volume *vol, uint64_t ino, char *list, size_t size)
{
	struct list l = {.data = list, .size = size};
	char from[8], to[8];
	const char *text;
	int r = 0;

	put_be64(from, ino);
	put_be64(to, ino + 1);
	if (mark_get(vol, ino, &l.mark, &text))
		r = list_name(&l, l.mark, strlen(l.mark));
	if (r == 0)
		r = db_scan(&vol->db, CF_XATTRS, from, 8, to, 8, list_one, &l);
	if (r < 0)
		return r;
	if (l.len == 0 && missing(vol, ino) == -ESTALE)
		return -ESTALE;
	return (int)l.len;
}

int vol_removexattr(struct volume *vol, uint64_t ino, const char *name)
{
	char key[KEY_MAX];
	struct inode_rec rec;
	struct node *node;
	struct batch b = {0};
	size_t key_len;
	int r = name_check(name);
	bool marked;

	if (r < 0)
		return r;
	r = batch_init(&b, vol);
	if (r < 0)
		return r;
	r = node_get(vol, ino, &node);
	if (r < 0)
		goto out;
	marked = mark_drop(vol, ino, name, strlen(name));
	key_len = key_xattr(key, ino, name, strlen(name));
	xattr_lock(vol, xattr_mask(ino));
	if (db_has(&vol->db, CF_XATTRS, key, key_len)) {
		rec = node->rec;
		now(&rec.ctime);
		batch_delete(&b, CF_XATTRS, key, key_len);
		node_batch(&b, node, &rec);
		r = batch_commit(&b, false);
		if (r == 0)
			node_committed(node, &rec);
	} else if (!marked) {
		r = -ENODATA;
	}
	xattr_unlock(vol, xattr_mask(ino));
	node_put(vol, node);
out:
	batch_release(&b);
	return r;
}

void xattr_batch_put(struct batch *b, uint64_t ino, const char *name, const void *value, size_t size)
{
	char key[KEY_MAX];

	batch_put(b, CF_XATTRS, key, key_xattr(key, ino, name, strlen(name)), value, size);
}

uint64_t host_ops_mask(const struct host_op *ops, size_t n)
{
	uint64_t mask = 0;

	for (size_t i = 0; i < n; i++)
		if (ops[i].type == HOST_STATE)
			mask |= xattr_mask(ops[i].ino);
	return mask;
}

/* Without the inode's own lock (the caller may hold others that come after it): an xattr that the scheduler
 * sets does not move ctime. *known: an inode that was seen under the same lock (an answer sets two xattrs). */
static int host_state(struct volume *vol, struct batch *b, const struct host_op *op, uint64_t *known)
{
	char key[KEY_MAX];

	if (op->key_len == 0 || op->key_len > NAME_MAX_HERE || memchr(op->key, 0, op->key_len))
		return -ERANGE;
	if (op->value_len > XATTR_SIZE_MAX)
		return -E2BIG;
	if (op->ino != *known && !db_has(&vol->db, CF_INODES, key, key_ino(key, op->ino)))
		return 0;
	*known = op->ino;
	batch_put(b, CF_XATTRS, key, key_xattr(key, op->ino, op->key, op->key_len), op->value, op->value_len);
	return 0;
}

int host_ops_batch(struct volume *vol, struct batch *b, const struct host_op *ops, size_t n)
{
	uint64_t known = 0;

	for (size_t i = 0; i < n; i++) {
		const struct host_op *op = &ops[i];
		int r;

		switch (op->type) {
		case HOST_PUT:
			batch_put(b, CF_SCHED, op->key, op->key_len, op->value, op->value_len);
			break;
		case HOST_DEL:
			batch_single_delete(b, CF_SCHED, op->key, op->key_len);
			break;
		case HOST_STATE:
			r = host_state(vol, b, op, &known);
			if (r < 0)
				return r;
			break;
		default:
			return -EINVAL;
		}
	}
	return 0;
}

void host_ops_committed(struct volume *vol, const struct host_op *ops, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ops[i].type == HOST_STATE)
			mark_drop(vol, ops[i].ino, ops[i].key, ops[i].key_len);
}
