/* Inodes in memory: the sharded table of nodes, loading, committing, inode numbers. Lock order: private.h. */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define INO_BLOCK 1024 /* numbers reserved at once; a crash wastes at most so many of 2^64 */

void now(struct timespec *ret)
{
	clock_gettime(CLOCK_REALTIME, ret);
}

static struct shard *shard_of(struct volume *vol, uint64_t ino)
{
	return &vol->shards[ino % SHARDS];
}

/* Where it is or would be in its bucket. shard->lock held, as in all below. */
static struct node **find(struct shard *shard, uint64_t ino)
{
	struct node **at = &shard->buckets[ino / SHARDS % NODE_BUCKETS];

	while (*at && (*at)->ino != ino)
		at = &(*at)->next;
	return at;
}

/* One that nobody refers to and that does not stand among the idle ones. */
static void forget(struct shard *shard, struct node *node)
{
	*find(shard, node->ino) = node->next;
	pthread_mutex_destroy(&node->lock);
	free(node);
}

/* In its old place, or in that of one that was not used again. */
static void keep_idle(struct shard *shard, struct node *node)
{
	struct node *old;

	if (shard->idle[node->idle_at]) {
		while ((old = shard->idle[shard->hand]) && old->used_again) {
			old->used_again = false;
			shard->hand = (shard->hand + 1) % IDLE_NODES;
		}
		if (old)
			forget(shard, old);
		node->idle_at = shard->hand;
		shard->hand = (shard->hand + 1) % IDLE_NODES;
	}
	shard->idle[node->idle_at] = node;
}

struct node *node_ref(struct volume *vol, uint64_t ino)
{
	struct shard *shard = shard_of(vol, ino);
	struct node **at, *node;

	pthread_mutex_lock(&shard->lock);
	at = find(shard, ino);
	node = *at;
	if (node && node->refs == 0) {
		shard->idle[node->idle_at] = NULL;
		node->used_again = true;
	} else if (!node) {
		node = calloc(1, sizeof(*node));
		if (!node)
			goto out;
		node->ino = ino;
		node->idle_at = shard->hand;
		node->blob_fd = node->pack_fd = -1;
		pthread_mutex_init(&node->lock, NULL);
		*at = node;
	}
	node->refs++;
out:
	pthread_mutex_unlock(&shard->lock);
	return node;
}

/* Its record is in RocksDB as it is here. */
static bool is_clean(const struct node *node)
{
	return node->loaded && !node->gone && !node->dirty && !node->data_dirty && node->rec.nlink > 0;
}

void node_unref(struct volume *vol, struct node *node)
{
	struct shard *shard;

	if (!node)
		return;
	shard = shard_of(vol, node->ino);
	pthread_mutex_lock(&shard->lock);
	if (--node->refs == 0) {
		content_drop(node);
		if (vol->keeps_nodes && is_clean(node))
			keep_idle(shard, node);
		else
			forget(shard, node);
	}
	pthread_mutex_unlock(&shard->lock);
}

void nodes_free(struct volume *vol)
{
	for (struct shard *shard = vol->shards; shard < vol->shards + SHARDS; shard++)
		for (int k = 0; k < NODE_BUCKETS; k++)
			while (shard->buckets[k])
				forget(shard, shard->buckets[k]);
}

int inode_read(struct volume *vol, uint64_t ino, struct inode_rec *ret)
{
	char key[KEY_MAX], value[INODE_MAX];
	size_t len = 0;
	int r = db_get(&vol->db, CF_INODES, key, key_ino(key, ino), value, sizeof(value), &len);

	if (r == -ENOENT)
		return -ESTALE;
	if (r < 0)
		return r;
	r = record_get_inode(ret, value, len);
	if (r < 0)
		log_error("volume: the record of inode %llu is damaged", (unsigned long long)ino);
	return r;
}

int node_load(struct volume *vol, struct node *node)
{
	int r;

	if (node->gone)
		return -ESTALE;
	if (node->loaded)
		return 0;
	r = inode_read(vol, node->ino, &node->rec);
	if (r < 0)
		return r;
	node->loaded = true;
	node->pack = node->rec.pack;
	node->promised = node->rec.size > 0;
	return 0;
}

int node_new(struct volume *vol, uint64_t ino, struct node **ret)
{
	struct node *node = node_ref(vol, ino);

	if (!node)
		return -ENOMEM;
	pthread_mutex_lock(&node->lock);
	*ret = node;
	return 0;
}

int node_get(struct volume *vol, uint64_t ino, struct node **ret)
{
	struct node *node = node_ref(vol, ino);
	int r;

	if (!node)
		return -ENOMEM;
	pthread_mutex_lock(&node->lock);
	r = node_load(vol, node);
	if (r < 0) {
		node_put(vol, node);
		return r;
	}
	*ret = node;
	return 0;
}

int node_get_dir(struct volume *vol, uint64_t ino, struct node **ret)
{
	struct node *node;
	int r = node_get(vol, ino, &node);

	if (r < 0)
		return r;
	if (!S_ISDIR(node->rec.mode)) {
		node_put(vol, node);
		return -ENOTDIR;
	}
	*ret = node;
	return 0;
}

void node_put(struct volume *vol, struct node *node)
{
	if (!node)
		return;
	pthread_mutex_unlock(&node->lock);
	node_unref(vol, node);
}

void node_attr(const struct node *node, struct vol_attr *ret)
{
	const struct inode_rec *rec = &node->rec;
	struct stat st;

	*ret = (struct vol_attr){
		.ino = node->ino,
		.parent = S_ISDIR(rec->mode) ? rec->parent : 0,
		.mode = rec->mode,
		.nlink = rec->nlink,
		.uid = rec->uid,
		.gid = rec->gid,
		.rdev = rec->rdev,
		.size = rec->size,
		.blocks = rec->blocks,
		.atime = rec->atime,
		.mtime = rec->mtime,
		.ctime = rec->ctime,
		.kind = rec->kind,
	};
	if (rec->storage != STORAGE_BLOB)
		ret->blocks = (rec->size + 511) / 512;
	else if (node->dirty && node->blob_fd >= 0 && fstat(node->blob_fd, &st) == 0)
		ret->blocks = (uint64_t)st.st_blocks;
}

void node_batch(struct batch *b, struct node *node, struct inode_rec *rec)
{
	char key[KEY_MAX], value[INODE_MAX];
	size_t key_len = key_ino(key, node->ino);
	struct stat st;

	if (rec->storage == STORAGE_BLOB && node->dirty && node->blob_fd >= 0 &&
	    fstat(node->blob_fd, &st) == 0)
		rec->blocks = (uint64_t)st.st_blocks;
	if (node->data_dirty) {
		if (rec->storage == STORAGE_INLINE && rec->size > 0)
			batch_put(b, CF_DATA, key, key_len, node->data, rec->size);
		else
			batch_delete(b, CF_DATA, key, key_len);
	}
	if (node->pack && rec->pack != node->pack)
		pack_batch_leave(b, &(struct pack_left){.pack = node->pack});
	batch_put(b, CF_INODES, key, key_len, value, record_put_inode(value, rec));
}

void node_committed(struct node *node, const struct inode_rec *rec)
{
	node->rec = *rec;
	node->pack = rec->pack;
	node->dirty = false;
	node->data_dirty = false;
}

int node_commit(struct volume *vol, struct node *node, struct inode_rec *rec, bool sync)
{
	struct batch b;
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	node_batch(&b, node, rec);
	r = batch_commit(&b, sync);
	if (r == 0)
		node_committed(node, rec);
	batch_release(&b);
	return r;
}

int ino_alloc(struct volume *vol, uint64_t *ret)
{
	struct batch b = {0};
	char value[8];
	int r = 0;

	pthread_mutex_lock(&vol->ino_lock);
	if (vol->ino_next == vol->ino_limit) {
		r = batch_init(&b, vol);
		if (r < 0)
			goto out;
		put_le64(value, vol->ino_limit + INO_BLOCK);
		batch_put(&b, CF_DEFAULT, "I", 1, value, sizeof(value));
		r = batch_commit(&b, false);
		if (r < 0)
			goto out;
		vol->ino_limit += INO_BLOCK;
	}
	*ret = vol->ino_next++;
out:
	pthread_mutex_unlock(&vol->ino_lock);
	batch_release(&b);
	return r;
}
