/*
 * Private to fs/volume: the keys and records as they lie in RocksDB.
 *
 *	default   'V'                          u32 format version
 *	          'I'                          u64 next inode number that may be given out after a restart
 *	          'C'                          empty: closed cleanly; absent while somebody has it open
 *	          'O' ino                      empty: nlink is 0 but it is or was open; purged at open
 *	          'B' ino                      empty: the blob may be stray, short or missing
 *	          'P' pack                     u64 how many inodes have their content in this pack (pack.c); changed by merges (uint64add)
 *	          'U' ino                      u64 end: contents of numbers from ino to before end may lack an inode (of format 1: pack.c)
 *	inodes    ino                          inode record (record_put_inode)
 *	dentries  parent 0 name                u8 version, u8 type, u64 cookie, u64 ino
 *	          parent 1 cookie              u8 version, u8 type, u64 ino, name
 *	          parent 2 block               u64 how many entries have a cookie in this block of 1024
 *	xattrs    ino name                     the value
 *	data      ino                          content of a small file, target of a symlink
 *	sched     the scheduler's own
 *
 * Format 2 is format 1 with packs: a volume of format 1 becomes one of format 2 with its first pack.
 *
 * Numbers in keys are big-endian (so that a range scan is in order), in records little-endian. A dentry key
 * is put at most once between two deletes, so SingleDelete is right for it: a cookie key because a cookie
 * is never used again, a name key because a replaced name is deleted before it is put again. The deleted
 * stay in the way of a scan until a compaction brings both records together (measured: 100,000 of them cost
 * 22 to 35 ms); the counts of the blocks let readdir step over the stretches where nothing lives.
 */
#ifndef FS_VOLUME_RECORD_H
#define FS_VOLUME_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define VOLUME_FORMAT       2
#define VOLUME_FORMAT_FIRST 1 /* the oldest that is read */
#define COOKIE_BLOCK        1024
#define COOKIE_FIRST        16 /* smaller ones are free for the caller's "." and ".." */

#define KEY_INO 8
/* The longest key: parent, a byte, a name of 255 bytes. */
#define KEY_MAX   (8 + 1 + 255)
#define INODE_MAX 136

enum inode_storage {
	STORAGE_INLINE, /* in the data column family; nothing there means size 0 */
	STORAGE_BLOB,   /* a file below STATE/blobs */
	STORAGE_PACK,   /* a range of such a file that holds the contents of many */
	STORAGE_COUNT
};

struct inode_rec {
	uint8_t kind, storage;
	uint32_t mode, nlink, uid, gid;
	uint64_t rdev, size, blocks;
	uint64_t pack, offset; /* STORAGE_PACK: its number, where the content begins; else 0 */
	struct timespec atime, mtime, ctime;
	/* Of a directory only. */
	uint64_t parent, cookie;            /* its own dentry: parent 1 cookie; of the root: itself and 0 */
	uint64_t next_cookie, first_cookie; /* of its entries: all lie in [first_cookie, next_cookie) */
	uint64_t entries;
};

struct dentry {
	uint64_t cookie, ino;
	uint8_t type; /* DT_* */
};

void put_be64(void *at, uint64_t v);
uint64_t get_be64(const void *at);
void put_le64(void *at, uint64_t v);
uint64_t get_le64(const void *at);

/* Keys: each returns the key's length; `key` has room for KEY_MAX bytes. */
size_t key_ino(char *key, uint64_t ino);
size_t key_tagged(char *key, char tag, uint64_t ino);
size_t key_name(char *key, uint64_t parent, const char *name, size_t len);
size_t key_cookie(char *key, uint64_t parent, uint64_t cookie);
size_t key_block(char *key, uint64_t parent, uint64_t block);
size_t key_dir_end(char *key, uint64_t parent); /* above all keys of the directory */

/* Encoding: returns the length; `at` has room for INODE_MAX, or 18, or 10 + len bytes. */
size_t record_put_inode(char *at, const struct inode_rec *rec);
size_t record_put_name(char *at, const struct dentry *d);
size_t record_put_cookie(char *at, const struct dentry *d, const char *name, size_t len);

/* Decoding: 0, or -EIO for what is damaged; then *rec is untouched. */
int record_get_inode(struct inode_rec *rec, const void *data, size_t len);
int record_get_name(struct dentry *d, const void *data, size_t len);
/* d->cookie comes from the key; the name (1 to 255 bytes) is copied with a NUL. */
int record_get_cookie(struct dentry *d, char name[256], const void *key, size_t key_len, const void *data,
		      size_t len);

#endif
