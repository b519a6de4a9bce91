/*
 * Private to fs: the tree of DESIGN section 1 over a volume. The volume knows names and bytes; the tree adds
 * what a name means: its rules (what may be made, moved, removed where), its checks (a spec, a ctl word, a
 * deadline are refused at the system call) and its events to the scheduler. It knows no FUSE; fs/mount
 * translates requests into these calls, and the unit test calls them directly.
 *
 *	tree_new(&tree, vol, glue, &err);	// makes README, datasets/ … in a fresh volume
 *	tree_create(tree, &caller, parent, "a", &new, &attr);
 *	tree_open(tree, attr.ino, O_RDWR, false, &file);
 *	tree_write(file, "x", 1, 0);
 *	tree_release(file);
 *	tree_free(tree);
 *
 * Any thread; 0, a count or a negative errno; nothing here waits for the publisher or the scheduler, and no
 * lock is held when a call returns. Functions of the volume that need no rule are called on tree_volume().
 */
#ifndef FS_NODE_TREE_H
#define FS_NODE_TREE_H

#include "fs/glue.h"
#include "fs/volume/bulk.h"
#include "fs/volume/volume.h"

#include <stdbool.h>

struct tree;
struct tree_file;

struct tree_caller {
	uint32_t uid, gid;
	pid_t tid; /* thread id: tells the publisher */
};

/* glue NULL: no events, no `error` files (unit tests). The glue must outlive the tree. */
int tree_new(struct tree **ret, struct volume *vol, struct glue *glue, struct err *err);
void tree_join(struct tree *tree,
	       struct glue *glue); /* another one from now on; while nothing is called here */
void tree_free(struct tree *tree); /* NULL is allowed */
struct volume *tree_volume(struct tree *tree);
/* Whether thread `tid` is the publisher's, and the core it stays on. */
bool tree_publisher_core(const struct tree *tree, pid_t tid, int *ret_core);
void tree_publisher_come(struct tree *tree, int core); /* publisher_come, if there is one */

/* -ENOENT also for the publisher's hidden names, unless it asks itself. */
int tree_lookup(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		struct vol_attr *ret);
/* A name in a version's export/ that stands for a slice; whether it has it, a worker finds out (fs/exports.h). */
struct tree_export {
	uint64_t dir, version; /* inodes of export/ and of the version */
	float rate;
	char name[32], usual[32]; /* slice-0.5.onnx; slice-0.50.onnx, under which it is made */
};
bool tree_export_wish(struct tree *tree, uint64_t parent, const char *name, struct tree_export *ret);
struct exports *tree_exports(const struct tree *tree); /* NULL: there are none here */
/* As vol_readdir without hidden names; attributes are always there. */
int tree_readdir(struct tree *tree, uint64_t dir, uint64_t cookie,
		 int (*fn)(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr),
		 void *data);

/* Files of every type, directories, symlinks. what->uid, gid and kind are filled in here. */
int tree_create(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		const struct vol_new *what, struct vol_attr *ret);
int tree_link(struct tree *tree, const struct tree_caller *caller, uint64_t ino, uint64_t parent,
	      const char *name, struct vol_attr *ret);
int tree_unlink(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name);
/* Of an endpoint or a job: also removes what inferfs made in it; -ENOTEMPTY if a user's file is left. */
int tree_rmdir(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name);
int tree_rename(struct tree *tree, const struct tree_caller *caller, uint64_t parent, const char *name,
		uint64_t new_parent, const char *new_name, unsigned flags);

/* file may be NULL; it is the handle of an ftruncate. */
int tree_setattr(struct tree *tree, uint64_t ino, struct tree_file *file, const struct vol_attr *attr,
		 unsigned set, struct vol_attr *ret);
int tree_setxattr(struct tree *tree, uint64_t ino, const char *name, const void *value, size_t size,
		  int flags);
int tree_removexattr(struct tree *tree, uint64_t ino, const char *name);

/* flags as open(2); created: the inode was made by this very open. */
int tree_open(struct tree *tree, uint64_t ino, int flags, bool created, struct tree_file **ret);
void tree_release(struct tree_file *file);
/* An open file's number, and back; NULL: no open file has it. */
uint64_t tree_number(const struct tree_file *file);
struct tree_file *tree_numbered(struct tree *tree, uint64_t number);
struct vol_file *tree_vol_file(struct tree_file *file); /* for reads and seek */
bool tree_wants_flush(const struct tree_file *file);    /* close() has something to do or to say */
/*
 * How the kernel reads and writes an open file. It wants all open files of an inode to agree (linux fs/fuse/iomode.c): as long
 * as one is backed each later one must be, by the same backing; as long as one is cached none may be. An open that breaks this
 * fails with EIO.
 */
enum tree_io {
	TREE_IO_CACHED,
	TREE_IO_DIRECT, /* past the page cache; goes with either */
	TREE_IO_BACKED, /* the blob itself is read and mapped; writers ask us to write */
};
enum tree_io tree_io(const struct tree_file *file, int *ret_backing);
bool tree_keeps_cache(const struct tree_file *file); /* what the kernel has of its content is true */
/* The kernel's numbers for descriptors: fs/mount/passthrough.c. */
struct tree_backing_ops {
	/* A number above 0; 0: not now; -EOPNOTSUPP: never. Called with a lock held, as is close: it must not wait. */
	int (*open)(void *data, int fd);
	void (*close)(void *data, int backing);
};
/* Before files are opened; the ops must outlive the tree. begin: files become backed, not only remain it. */
void tree_back(struct tree *tree, const struct tree_backing_ops *ops, void *data, bool begin);
int tree_drop_privileges(struct tree_file *file); /* 1 if its mode had setuid or setgid bits; they are gone */
bool tree_is_events(struct tree *tree, uint64_t ino);
/* Of `events`: whether lines were added since this handle was opened or last asked. */
bool tree_grew(struct tree_file *file);
ssize_t tree_write(struct tree_file *file, const void *data, size_t size, uint64_t offset);
/* Both: 1 when they found that the times have moved without the kernel knowing. */
int tree_flush(struct tree_file *file);
int tree_fsync(struct tree_file *file, uint64_t ino, bool data_only);
int tree_fallocate(struct tree_file *file, int mode, uint64_t offset, uint64_t length);

/* A batch directory to be put into an endpoint's in/, owned and readable as the file `like`, its archive. */
int tree_bulk_new(struct volume *vol, uint64_t like, struct vol_bulk **ret);

/*
 * --- open files that pass from one process to another (fs/mount/takeover.h); while no request is served ---
 */

struct tree_handle {
	uint64_t number, ino;
	uint8_t kind, mode; /* mode: O_RDONLY, O_WRONLY, O_RDWR */
	bool writer;
	uint8_t io;      /* enum tree_io */
	int32_t backing; /* with TREE_IO_BACKED, else 0 */
};
/* One for each inode that any of them writes to. */
struct tree_writing {
	uint64_t ino, dir; /* dir 0: not known where it is */
	uint8_t kind;
	bool changed, synced, gone;
	char name[256];
};
struct tree_handles {
	struct tree_handle *files;
	size_t n_files;
	struct tree_writing *writing;
	size_t n_writing;
};
void tree_handles_release(struct tree_handles *handles);
/* All that are open, flushed. On failure nothing has changed. */
int tree_hand_over(struct tree *tree, struct tree_handles *ret);
/* Opens the same in a fresh tree, with their numbers. After a failure it is only good for tree_free. */
int tree_take_over(struct tree *tree, const struct tree_handles *handles);
/* Tells the scheduler of the files among them that are being changed, as their first write did. */
void tree_tell_writing(struct tree *tree);
/* Whether a write through it, or an xattr, may mean something that only an event tells, not the tree as it is. */
bool tree_is_event(const struct tree_file *file);

#endif
