/*
 * Private to fsck*.c: what a check knows of a volume. fsck.c reads inodes and compares, fsck_names.c reads the directories, fsck_packs.c
 * compares the packs, fsck_repair.c mends what a batch made on the way can't.
 */
#ifndef FS_VOLUME_FSCK_H
#define FS_VOLUME_FSCK_H

#include "fs/volume/private.h"

struct item {
	uint64_t ino;
	struct inode_rec rec;
	uint64_t links, entries, subdirs;
	uint64_t parent, cookie;         /* of a directory: where its name was found */
	uint64_t min_cookie, max_cookie; /* of its entries */
	uint64_t data_len, blob_size;
	bool has_data, has_blob, orphan, marked, damaged, lost;
	unsigned char reach; /* 0 unknown, 1 on the way, 2 reaches the root, 3 does not */
};

struct fsck_pack {
	uint64_t pack, refs, end; /* inodes that lie in it, and where the last of them ends */
	uint64_t count, size;     /* recorded; of the file */
	bool recorded, has_file;
};

struct fsck {
	struct volume *vol;
	struct item *items;
	size_t n, room;
	struct fsck_pack *packs;
	size_t n_packs;
	bool closed, repair;
	struct batch batch;
	/* The blocks of cookies of the directory that is being read: its cookie records come before what is
	 * recorded of their counts. */
	uint64_t blocks_dir;
	struct block {
		uint64_t block, count, recorded;
	} * blocks;
	size_t n_blocks, blocks_room;
	struct fsck_report report;
	void (*say)(void *data, const char *line);
	void *data;
};

/* A fault was found: it is counted and said. */
void fsck_fault(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* NULL: there is none; fsck_dir: none that is whole and a directory. Once all inodes were read. */
struct item *fsck_item(struct fsck *f, uint64_t ino);
struct item *fsck_dir(struct fsck *f, uint64_t ino);

/* --- fsck_names.c --- */

/* Of db_scan over all dentries, in order; data: struct fsck. */
int fsck_dentry(void *data, const void *key, size_t key_len, const void *value, size_t value_len);
void fsck_blocks(struct fsck *f); /* after the last of them */

/* --- fsck_packs.c --- */

struct fsck_pack *fsck_pack(struct fsck *f, uint64_t pack); /* NULL: nothing is known of it */
int fsck_pack_get(struct fsck *f, uint64_t pack, struct fsck_pack **ret);
int fsck_pack_ref(struct fsck *f, const struct inode_rec *rec); /* its content lies in a pack */
void fsck_packs(struct fsck *f);                                /* when all was read */

/* --- fsck_repair.c: each commits by itself --- */

int fsck_attach_lost(struct fsck *f);
int fsck_recount(struct fsck *f);

#endif
