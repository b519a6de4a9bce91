/*
 * Many files that come into being at once, below a new directory that is made with them: what one archive holds.
 *
 *	vol_bulk_new(&bulk, vol, &(struct vol_bulk_what){ .uid = 1000, .dir_mode = 0755, .file_mode = 0644 });
 *	write(vol_bulk_fd(bulk), …);		// the contents, anywhere in it, by anybody
 *	vol_bulk_add(bulk, files, 500);		// names and ranges of that; again and again; not there yet
 *	vol_bulk_put(bulk, parent, "batch", ops, n_ops);	// all of it is there, or nothing
 *	vol_bulk_free(bulk);			// what was not put is removed
 *
 * One thread at a time; the volume may be in use by others. After a crash before vol_bulk_put nothing is left of it.
 */
#ifndef FS_VOLUME_BULK_H
#define FS_VOLUME_BULK_H

#include "fs/volume/volume.h"

struct vol_bulk;

struct vol_bulk_what {
	uint32_t uid, gid, dir_mode, file_mode; /* permissions */
	uint8_t kind, dir_kind, file_kind;      /* of the directory, of directories below it, of files */
};

int vol_bulk_new(struct vol_bulk **ret, struct volume *vol, const struct vol_bulk_what *what);
/* Of the file that holds all contents; the volume's. The caller sees to it that all ranges are written before the put, and that
 * nobody writes afterwards. */
int vol_bulk_fd(const struct vol_bulk *bulk);
/*
 * The descriptor (read-only, the volume's) and length of the content of inode `ino`, in which contents of files may lie as well:
 * it can't change any more, whatever happens to the inode. -ENODATA: not of this one. Once.
 */
int vol_bulk_share(struct vol_bulk *bulk, uint64_t ino, int *ret_fd, uint64_t *ret_len);
/* In its place: a second empty file to be filled, for what is large and had better not lie among others (vol_content_fd gives it as it is). */
int vol_bulk_apart(struct vol_bulk *bulk, int *ret_fd);
/*
 * Sets the files' ino. Paths are relative to the new directory, with single slashes; directories on the way are made.
 * Room is asked for, though their bytes may be there already. -EEXIST: the path is there already, as a file or directory; -ENOTDIR: it leads through a file; as vol_create for names and
 * room. After a failure the whole can only be freed.
 */
int vol_bulk_add(struct vol_bulk *bulk, struct host_file *files, size_t n);
/* An xattr of the new directory; copied. */
int vol_bulk_xattr(struct vol_bulk *bulk, const char *name, const char *value);
/*
 * All inodes and names, and `ops`, in one write batch. In a directory with S_ISGID groups come from it. -EEXIST: there is
 * something of that name; then nothing changed and it may be put elsewhere.
 */
int vol_bulk_put(struct vol_bulk *bulk, uint64_t parent, const char *name, const struct host_op *ops,
		 size_t n_ops);
/* The new directory as it will be in `parent`. */
int vol_bulk_attr(const struct vol_bulk *bulk, uint64_t parent, struct vol_attr *ret);
void vol_bulk_free(struct vol_bulk *bulk); /* NULL is allowed */

#endif
