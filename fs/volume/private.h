/*
 * Private to fs/volume: the volume, its open inodes and its batches.
 *
 * A node is an inode that somebody is working on: made by node_get, gone when the last reference is dropped
 * (an open file holds one). What is in a node and not yet in RocksDB is only the times of a blob that was
 * written to, the truncation by an open, and what was written to a file without a name; every other change is
 * committed before the node's lock is released.
 *
 * Order of locks (each may be taken while holding those before it):
 *	1. volume.rename_lock	every rename but that of a non-directory within one directory
 *	2. node.lock		an ancestor before its descendant; directories that are not related by ino
 *				(only under rename_lock); non-directories after directories, by ino
 *	3. volume.xattr_locks	ascending
 *	4. volume.ino_lock, shard.lock, overlay.lock	leaves
 */
#ifndef FS_VOLUME_PRIVATE_H
#define FS_VOLUME_PRIVATE_H

#include "fs/volume/record.h"
#include "fs/volume/volume.h"

#include <pthread.h>
#include <rocksdb/c.h>

enum cf { CF_DEFAULT, CF_INODES, CF_DENTRIES, CF_XATTRS, CF_DATA, CF_SCHED, CF_COUNT };

#define SHARDS       64
#define NODE_BUCKETS 64 /* of a shard */
#define IDLE_NODES \
	16 /* of a shard; chosen: 1,024 records, of which the directories in use are read again and again */
#define XATTR_LOCKS  64 /* bits of a mask */
#define MARK_SHARDS  64
#define MARK_BUCKETS 128
/*
 * Files up to this size lie in the data column family, larger ones in blob files (measured: see content.c).
 */
#define INLINE_MAX VOL_INLINE_MAX
/* Each write to an inline file writes all of it anew. One that has cost so many bytes becomes a blob: 16 writes of 4 KiB fit. */
#define INLINE_COST_MAX (16 * INLINE_MAX)

struct node {
	uint64_t ino;
	struct node *next; /* in its bucket; under shard.lock, as are refs, idle_at and used_again */
	unsigned refs;
	unsigned idle_at; /* where in shard.idle it stands or last stood */
	bool used_again;  /* since it first stood there or was passed over */

	pthread_mutex_t lock; /* guards all below */
	bool loaded, gone;    /* gone: the inode was removed from RocksDB */
	bool overlaid;        /* it is only here: overlay.c */
	struct inode_rec rec;
	unsigned opens;   /* struct vol_file on it */
	bool dirty;       /* rec has changes by writes that are not committed */
	bool data_loaded; /* inline: data holds rec.size bytes */
	bool data_dirty;  /* inline: data is newer than RocksDB; blob: RocksDB may hold old inline data */
	char *data;       /* malloc'd, data_room bytes; zero beyond rec.size */
	size_t data_room;
	size_t inline_cost;                    /* bytes of data that were committed since it was opened */
	bool promised;                         /* there may be bytes that an fsync has promised */
	uint64_t pack;                         /* that the record in RocksDB refers to; 0: none */
	int pack_fd;                           /* of a pack that it refers or has referred to: as blob_fd */
	int blob_fd;                           /* -1 or open as long as the node lives */
	bool blob_marked;                      /* the 'B' record is known to be there */
	bool blob_shared;                      /* with blob_fd: it may be a pack too (share.c) */
	bool stores;                           /* the blob may be changed by mappings of it: backing.c */
	uint64_t run_start, run_left, run_end; /* of the last writes in a row; left: not given to behind.c */
	struct timespec blob_mtime; /* with stores: the blob's own when we last knew all about it */
};

struct shard {
	pthread_mutex_t lock;
	struct node *buckets[NODE_BUCKETS]; /* under lock, as the rest */
	struct node *idle[IDLE_NODES];      /* those without a reference; NULL: room */
	unsigned hand;                      /* the next to go, if it was not used again (second chance) */
};

/* room.c */
enum room_state { ROOM_THERE, ROOM_NO_DISK, ROOM_NO_QUOTA };
enum room_use {
	ROOM_DATA,   /* users' contents and names, answers */
	ROOM_RECORD, /* small things that may use the reserve: renames, attributes, status files */
};

struct room {
	uint64_t max_bytes;                   /* 0: no limit; set before there are other threads */
	int64_t disk, floor;                  /* atomic: free on it, and what is left to others */
	int64_t left, reserve, looked, since; /* atomic, as are those below */
	uint64_t counted, since_count;        /* bytes: of the state directory, and written since */
	enum room_state state;
	bool freed;           /* things were removed since room was last given back */
	pthread_mutex_t lock; /* a leaf; guards stop */
	pthread_cond_t wake;
	pthread_t keeper;
	bool started, stop;
};

/* behind.c */
#define BEHIND_PIECES 8 /* chosen: more than files are written at a time */
struct behind {
	pthread_mutex_t lock; /* a leaf; guards all of it */
	pthread_cond_t wake;
	pthread_t thread;
	bool started, refused, stop;
	int n;
	struct behind_piece {
		int fd; /* its own */
		uint64_t offset, len;
	} pieces[BEHIND_PIECES];
	uint64_t bytes; /* that were given to the disk; tests */
};

struct mark_shard {
	pthread_mutex_t lock;
	struct mark *buckets[MARK_BUCKETS]; /* under lock */
};

struct db {
	rocksdb_t *db;
	rocksdb_column_family_handle_t *cf[CF_COUNT];
	rocksdb_readoptions_t *read;
	rocksdb_writeoptions_t *write, *write_sync;
	rocksdb_cache_t *cache;
	int64_t failed_since; /* atomic; Unix time of a write that failed, but for want of room: no more are tried */
};

static inline bool db_failed(const struct db *db)
{
	return __atomic_load_n(&db->failed_since, __ATOMIC_RELAXED);
}

struct overlay {
	pthread_mutex_t lock;
	struct overlaid *files; /* under lock */
	uint64_t n_inos;        /* atomic */
};

struct volume {
	struct db db;
	int dir_fd, blobs_fd, lock_fd;
	bool read_only;
	bool keeps_nodes; /* that nobody uses: not while fsck changes records beneath them */
	struct room room;
	struct behind behind;
	uint64_t bad_blobs; /* atomic: reads that failed */
	int64_t bad_since;  /* atomic */
	bool purged;        /* nothing of a crashed run is left: may be marked as cleanly closed */
	pthread_mutex_t rename_lock;
	pthread_mutex_t ino_lock; /* guards the two below */
	uint64_t ino_next, ino_limit;
	/* Sharded by ino: held from looking whether the inode lives or which xattrs it has until the batch is
	 * written, by whoever adds xattrs or removes inodes. */
	pthread_mutex_t xattr_locks[XATTR_LOCKS];
	struct shard shards[SHARDS];
	struct mark_shard marks[MARK_SHARDS]; /* their locks are taken last */
	struct overlay overlay;
};

struct vol_file {
	struct volume *vol;
	struct node *node;
	int flags;
};

/* --- volume.c --- */

/* As volume_open, but what a crashed run left stays as it is. */
int volume_open_unpurged(struct volume **ret, const char *state_dir, unsigned flags, struct err *err);

/* --- db.c: RocksDB --- */

extern struct db db_left_open; /* db.c only */
int db_open(struct db *db, const char *path, bool read_only, bool create, struct err *err);
void db_close(struct db *db);
/* The value is copied to `value` (room for `max` bytes; more is -EIO); -ENOENT when there is none. */
int db_get(struct db *db, enum cf cf, const void *key, size_t key_len, void *value, size_t max,
	   size_t *ret_len);
/* malloc'd; never NULL on success. */
int db_get_alloc(struct db *db, enum cf cf, const void *key, size_t key_len, char **ret, size_t *ret_len);
bool db_has(struct db *db, enum cf cf, const void *key, size_t key_len);
/* Calls fn on from ≤ key < to in order until it returns non-zero; a negative one is returned. */
int db_scan(struct db *db, enum cf cf, const void *from, size_t from_len, const void *to, size_t to_len,
	    int (*fn)(void *data, const void *key, size_t key_len, const void *value, size_t value_len),
	    void *data);

/* An inode's content leaves a pack: with the batch, and its room when that is committed. */
struct pack_left {
	uint64_t pack, offset, len; /* len 0: the range may still be read by somebody */
};

struct batch {
	rocksdb_writebatch_t *wb;
	struct db *db;
	struct volume *vol;
	/* What the entries put and removed change in the counts of their blocks; a rename changes four. */
	struct {
		uint64_t parent, block;
		int change;
	} blocks[4];
	int n_blocks;
	bool adds_names;
	struct pack_left
		packs[2]; /* whose counts it lessens; a batch ends at most one inode and writes to one */
	int n_packs;
};

int batch_init(struct batch *b, struct volume *vol); /* -EROFS, -ENOMEM */
void batch_release(struct batch *b);
void batch_put(struct batch *b, enum cf cf, const void *key, size_t key_len, const void *value, size_t len);
void batch_delete(struct batch *b, enum cf cf, const void *key, size_t key_len);
/* Adds to a number: put_le64(-1) takes one away. */
void batch_merge(struct batch *b, enum cf cf, const void *key, size_t key_len, const void *value, size_t len);
void batch_single_delete(struct batch *b, enum cf cf, const void *key, size_t key_len);
int batch_commit(struct batch *b, bool sync);

/* --- node.c: inodes in memory --- */

struct node *node_ref(struct volume *vol, uint64_t ino);           /* NULL: out of memory; not locked */
void node_unref(struct volume *vol, struct node *node);            /* not locked; NULL is allowed */
void nodes_free(struct volume *vol);                               /* at the end */
int node_load(struct volume *vol, struct node *node);              /* under node->lock; -ESTALE, -EIO */
int node_get(struct volume *vol, uint64_t ino, struct node **ret); /* referenced, locked, loaded */
/* Of a number that nobody else knows yet; referenced, locked, not loaded. Fill it when its record is committed: it is mostly wanted
 * next. */
int node_new(struct volume *vol, uint64_t ino, struct node **ret);
int node_get_dir(struct volume *vol, uint64_t ino, struct node **ret); /* -ENOTDIR */
void node_put(struct volume *vol, struct node *node); /* unlocks, unreferences; NULL is allowed */
void node_attr(const struct node *node, struct vol_attr *ret);
/* Puts `rec` (and content that is not committed) into the batch … */
void node_batch(struct batch *b, struct node *node, struct inode_rec *rec);
/* … and, once it is committed, into the node. */
void node_committed(struct node *node, const struct inode_rec *rec);
int node_commit(struct volume *vol, struct node *node, struct inode_rec *rec, bool sync);
int inode_read(struct volume *vol, uint64_t ino, struct inode_rec *ret); /* from RocksDB; -ESTALE */
int ino_alloc(struct volume *vol, uint64_t *ret);
void now(struct timespec *ret);

/* --- purge.c: the end of an inode --- */

/* Puts the removal of all of the inode into the batch; its xattr lock is held until the commit. pack: as struct node's. */
int purge_batch(struct volume *vol, struct batch *b, uint64_t ino, const struct inode_rec *rec,
		uint64_t pack);
/* Drops one link in the batch: *rec is changed; *ret_gone: all is removed with the batch (under its xattr
 * lock). An open inode or one with a blob becomes an orphan; call purge_after when the batch is committed. */
int purge_drop_link(struct volume *vol, struct batch *b, struct node *node, struct inode_rec *rec,
		    bool *ret_gone);
bool purge_is_immediate(const struct node *node, const struct inode_rec *rec);
/* Removes an orphan that nobody has open any more. Under node->lock. Failing is harmless: volume_open does
 * it again. */
void purge_after(struct volume *vol, struct node *node);
int purge_crashed(struct volume *vol);      /* orphans, marked and stray blobs of a crashed run */
bool volume_was_closed(struct volume *vol); /* cleanly, by volume_close */

/* --- pack.c: files below STATE/blobs that hold the contents of many inodes --- */

/* A new empty one, for n inodes that refer to it from the batch of pack_batch_new on; until then a crash removes it. */
int pack_new(struct volume *vol, uint64_t *ret_pack, int *ret_fd);
void pack_batch_new(struct batch *b, uint64_t pack, uint64_t n);
void pack_batch_leave(struct batch *b, const struct pack_left *left);
void pack_left(struct volume *vol, const struct pack_left *left); /* of batch_commit: it is committed */
bool pack_is_there(struct volume *vol, uint64_t pack);            /* inodes may refer to it */
int pack_open(struct volume *vol, struct node *node);             /* node->pack_fd */
/* The first `keep` bytes of the content become the node's own, inline or in a blob, as content_* leave a change: to be committed. */
int pack_leave(struct volume *vol, struct node *node, uint64_t keep);
/* Of the node's content, all that is asked for: it is within its size. */
int pack_read(struct volume *vol, struct node *node, void *data, size_t size, uint64_t offset);
int pack_content_fd(struct volume *vol, struct node *node); /* vol_content_fd's */
int pack_copy(struct volume *vol, struct node *node, int to,
	      uint64_t len); /* its first bytes, to the end of a file */
int pack_purge(
	struct volume *vol); /* those that a crash left without inodes, and what one of format 1 left */
bool pack_purges_content(struct volume *vol,
			 uint64_t ino); /* the same of the content of an inode that is not there */

/* --- share.c: a blob that is a pack too --- */

/* Another name for the blob, which is a pack as one of pack_new: -ENODATA: the content is in none, is open, or can't have two. */
int pack_share(struct volume *vol, uint64_t ino, uint64_t *ret_pack, int *ret_fd, uint64_t *ret_len);
int pack_remove_new(struct volume *vol,
		    uint64_t pack); /* of pack_new or pack_share: no inode came to refer to it */
/* Before a change of the blob: it is the node's alone, with `keep` bytes of what it had. Under node->lock, blob_fd is open. */
int share_break(struct volume *vol, struct node *node, uint64_t keep);

/* --- dentry.c --- */

int dentry_name_check(const char *name);
int dentry_find(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret); /* -ENOENT */
/* As dentry_find; remembers a name that is not there. name: checked. */
int dentry_look(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret);
/* This thread has looked, and the name is not there now either. Under the directory's lock. False: unknown. */
bool dentry_known_absent(struct volume *vol, uint64_t parent, const char *name);
void dentries_made(void); /* a batch with names is committed; under the locks of their directories */
/* sets d->cookie */
void dentry_add(struct batch *b, uint64_t parent, struct inode_rec *dir, const char *name, struct dentry *d);
void dentry_remove(struct batch *b, uint64_t parent, struct inode_rec *dir, const char *name,
		   const struct dentry *d);

/* Puts the new counts of the blocks into the batch: the last thing before its commit. */
int dentry_batch_blocks(struct batch *b);

/* --- xattr.c, kv.c --- */

uint64_t xattr_mask(uint64_t ino);
void xattr_lock(struct volume *vol, uint64_t mask);
void xattr_unlock(struct volume *vol, uint64_t mask);
void xattr_batch_put(struct batch *b, uint64_t ino, const char *name, const void *value, size_t size);
int xattr_batch_delete_all(struct volume *vol, struct batch *b, uint64_t ino);
uint64_t host_ops_mask(const struct host_op *ops, size_t n);
/* Under the xattr locks of host_ops_mask until the commit. */
int host_ops_batch(struct volume *vol, struct batch *b, const struct host_op *ops, size_t n);
void host_ops_committed(struct volume *vol, const struct host_op *ops, size_t n);

/* --- mark.c: xattrs in memory --- */

bool mark_get(struct volume *vol, uint64_t ino, const char **ret_name, const char **ret_text);
bool mark_drop(struct volume *vol, uint64_t ino, const char *name,
	       size_t name_len); /* NULL: any; true: it was there */
void marks_free(struct volume *vol);

/* --- overlay.c: status files of a volume that takes no more --- */

uint64_t overlay_ino(struct volume *vol);
/* Sets ino and type. */
bool overlay_find(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret);
int overlay_put(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
		const struct vol_put *put);
void overlay_free(struct volume *vol);

/* --- content.c: bytes of regular files; all under node->lock --- */

ssize_t content_read(struct volume *vol, struct node *node, void *data, size_t size, uint64_t offset);
ssize_t content_write(struct volume *vol, struct node *node, const void *data, size_t size, uint64_t offset);
/* Commits what a write changed since the record was `before` (dirty: and not committed either). If that fails, all but bytes of a blob
 * below its old size is as it was. */
int content_commit(struct volume *vol, struct node *node, const struct inode_rec *before, bool dirty);
/* Changes node->rec; commits by itself when a blob shrinks. */
int content_truncate(struct volume *vol, struct node *node, uint64_t size);
int content_fallocate(struct volume *vol, struct node *node, int mode, uint64_t offset, uint64_t length);
int content_load(struct volume *vol, struct node *node); /* inline: reads data */
int content_blob_open(struct volume *vol, struct node *node, struct inode_rec *rec);
int content_blob_spill(struct volume *vol, struct node *node);
int content_reserve(struct node *node, size_t size); /* room in data, zero beyond what is there */
void content_drop(struct node *node);                /* frees the buffer, closes the blob */

/* --- behind.c --- */

void behind_wrote(struct volume *vol, struct node *node, uint64_t offset,
		  uint64_t len); /* to the blob; under node->lock */
void behind_stop(struct volume *vol);

/* --- backing.c --- */

void backing_written(struct node *node); /* after a change of the blob by us */

/* --- room.c --- */

/* 0, -ENOSPC or -EDQUOT for so many bytes more. */
int room_take(struct volume *vol, uint64_t bytes, enum room_use use);
/* -ENOSPC: so little is free that RocksDB's log might not get it. */
int room_for_log(struct volume *vol);
void room_freed(struct volume *vol); /* something was removed */
int room_start(struct volume *vol);
void room_stop(struct volume *vol);

/* --- blob.c: the files below STATE/blobs --- */

void blob_name(char name[32], uint64_t ino);
int blob_folder(struct volume *vol, uint64_t ino);          /* is there from now on */
int blob_open(struct volume *vol, uint64_t ino, int flags); /* descriptor; O_CREAT makes the folder too */
int blob_remove(struct volume *vol, uint64_t ino);          /* 0 when there is none */
int blob_sync(struct volume *vol, uint64_t ino, int fd);    /* data and the names that lead to it */
/* Calls fn for each file there: ino is 0 when its name is not a blob's. A negative return ends it. */
int blob_walk(struct volume *vol, int (*fn)(void *data, const char *name, uint64_t ino, uint64_t size),
	      void *data);
int blob_mark(struct volume *vol, uint64_t ino, bool *marked);
/* A large content goes to a blob before the inode is there: the mark lets a crash between remove it. sync: its bytes are on the
 * disk before the record, which may get there with anybody's fsync. Sets blocks and storage. */
int blob_create(struct volume *vol, uint64_t ino, const void *data, size_t len, bool sync,
		struct inode_rec *rec);
/* A marked blob with the content, on the disk, becomes that of the record. */
int blob_adopt(struct volume *vol, uint64_t ino, struct inode_rec *rec);
int blob_bad(struct volume *vol, uint64_t ino, const char *what); /* says so; -EIO */

#endif
