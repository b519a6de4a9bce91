/*
 * Private to fs/node: the kinds of nodes. What kind an inode is follows from its parent's kind, its name and
 * its type by the rules in table.c, at creation and again when it is moved; the volume keeps the number.
 *
 * To add a kind: a constant at the end of enum node_kind (the numbers are on disk), a rule and a row in
 * table.c, and its hooks in a file of its own.
 */
#ifndef FS_NODE_NODE_H
#define FS_NODE_NODE_H

#include "fs/node/tree.h"

#include <pthread.h>

enum node_kind {
	NODE_MADE, /* by inferfs itself (0: what the publisher creates in the volume) */
	NODE_ROOT,
	NODE_PLAIN, /* the user's own, without meaning */
	NODE_DATASETS,
	NODE_DATASET,
	NODE_DATASET_DIR,
	NODE_DATASET_FILE,
	NODE_MODELS,
	NODE_MODEL,
	NODE_MODEL_DIR,
	NODE_JOBS,
	NODE_JOB,
	NODE_JOB_SPEC,
	NODE_JOB_CTL,
	NODE_JOB_DIR, /* trials/ and what is below */
	NODE_INFERS,
	NODE_APP,
	NODE_APP_SPEC,
	NODE_APP_CTL,
	NODE_IN,
	NODE_BATCH,
	NODE_BATCH_DIR,
	NODE_INSTANCE,
	NODE_DEADLINE,
	NODE_OUT,
	NODE_OUT_DIR,
	NODE_MODEL_FILE, /* directly in models/NAME: what a user brings */
	NODE_EXPORT,     /* of a version: slices as ONNX */
	NODE_KINDS
};

/* Where a directory is, for paths in events. Immutable, counted references (place.c). */
struct place {
	int refs; /* atomic */
	uint64_t ino;
	uint64_t epoch; /* of the tree when it was worked out: older than tree->epoch means it may be wrong */
	uint8_t kind;
	uint32_t mode, uid, gid;
	int64_t told; /* atomic; clock_monotonic_ns: when the scheduler last heard of a change in it */
	bool waits;   /* a name below in/ on the way here says "not yet" */
	char *thing;  /* APP, job or data set that it lies in; "" above them */
	char *path;   /* relative to the thing: "", "in", "in/batch1" */
};

/* One name of a node, as the hooks get it. */
struct node {
	struct tree *tree;
	struct place *dir; /* that the name is in */
	const char *name;
	uint64_t ino;
	uint8_t kind;
	bool is_dir;
	bool is_whole; /* of NODE_CREATED: a symlink or the like, which nobody writes to */
};

struct open_node;

/* Why a name is leaving, or came. */
enum node_event {
	NODE_CREATED, /* made by mkdir, create, symlink … */
	NODE_MOVED,   /* renamed, away from the old name or to the new one; also came by link */
	NODE_REMOVED, /* unlink, rmdir, or another node was renamed over it */
};

enum node_flags {
	NODE_FIXED = 1,     /* can't be removed, renamed or moved: EPERM */
	NODE_PINNED = 2,    /* can be removed, not renamed or moved: EPERM */
	NODE_ONLY_DIRS = 4, /* only mkdir and rmdir work in it: EPERM */
	NODE_CLOSED = 8,    /* only inferfs makes or moves names in it: EPERM */
	NODE_PLACED = 16,   /* events of an open file need its name: remembered at lookup */
	NODE_TEXT = 32,     /* a small text whose whole content `check` judges at each write */
	NODE_WORD = 64,     /* each write replaces the content */
	NODE_OWNS_MADE =
		128 /* rmdir removes what inferfs made in it: rm -r must not lose a race with answers */
};

/* Largest spec, ctl, .deadline; chosen. */
#define NODE_TEXT_MAX (1 << 20)

struct node_type {
	const char *name;
	unsigned flags;
	/* The name came (NODE_CREATED, NODE_MOVED). A failure undoes a creation. NULL: nothing to do. */
	int (*came)(const struct node *node, enum node_event event, bool open_for_writing);
	/* The name went (NODE_MOVED, NODE_REMOVED). NULL: nothing to do. */
	void (*went)(const struct node *node, enum node_event event);
	/* The content as it would be after a write, or (final) as it is at the last close or when renamed
	 * into place. The answer is the system call's. NULL: any content is right. */
	int (*check)(const struct node *node, const char *text, size_t len, bool final);
	/* A text that passed `check` was written, or was renamed into place (NODE_TEXT). NULL: nothing to
	 * do. */
	int (*wrote)(const struct node *node, const char *text, size_t len);
	/* The first change through a writable handle. NULL: nothing to do. */
	void (*writing)(const struct node *node);
	/* The last writable handle went after a change. NULL: nothing to do. */
	void (*complete)(const struct node *node);
	/* It is on disk as it was last changed, and still open; or (closed) the last writable handle went and
	 * nothing was changed since. NULL: nothing to do. */
	void (*synced)(const struct node *node, bool closed);
	/* user.* xattrs: 1 means "answer success and do nothing". value NULL: removal. NULL: any. */
	int (*check_xattr)(const struct node *node, const char *name, const char *value, size_t size);
	/* It was set or removed (value NULL). NULL: nothing to do. */
	void (*xattr)(const struct node *node, const char *name, const char *value, size_t size);
};

/* Sizes of the tables in struct tree; chosen: 0.5 MiB of directories when full; 100,000 instances and their
 * names in about 10 MiB; few files are open for writing at a time. */
#define DIR_SLOTS    4096
#define NAME_SLOTS   (1u << 17)
#define OPEN_BUCKETS 256

/* table.c */
const struct node_type *node_type(uint8_t kind); /* of an unknown kind: NODE_PLAIN's */
uint8_t node_child_kind(uint8_t parent_kind, const char *name, mode_t mode);
bool node_name_waits(const char *name); /* .x x~ x.tmp x.part: not yet an instance */

/* place.c */
int place_get(struct tree *tree, uint64_t dir, struct place **ret);
struct place *place_ref(struct place *place);
void place_unref(struct place *place);
void place_forget(struct tree *tree, uint64_t dir); /* its attributes changed */
void place_forget_all(struct tree *tree);           /* a directory was moved or removed */
/* The directory and name of an inode whose kind is NODE_PLACED or of a directory; name: 256 bytes. */
int place_find(struct tree *tree, const struct vol_attr *attr, struct place **ret, char *name);
void place_remember(struct tree *tree, uint64_t ino, uint64_t parent, const char *name);
void place_drop(struct tree *tree, uint64_t ino, uint64_t parent, const char *name);
/* dir/name relative to the thing. -ENAMETOOLONG */
int place_path(const struct node *node, char *ret, size_t size);

/* handles.c: inodes that are open for writing */
/* It has a new name. true: it is open for writing, so that `complete` follows; `came` was told. */
bool handles_moved(const struct node *node);
/* A directory has a new name: `writing` is told of each file below it that is open and changed, since it is not whole yet. */
void handles_moved_below(const struct node *dir);
void handles_unlinked(struct tree *tree, uint64_t ino, bool last); /* a name of it went, or the last one */
/* Truncated by name: true if it is open for writing, so that `complete` follows. */
bool handles_changed(struct tree *tree, uint64_t ino);
void handles_abandon(struct tree *tree); /* at the end: handover.c */
/* A name of the inode, for hooks that are called for the inode; name: 256 bytes; place_unref(ret->dir). */
int node_find(struct tree *tree, const struct vol_attr *attr, struct node *ret, char *name);

/* A copy for hooks, which run without the lock; place_unref(ret->dir) when done. */
int handles_snapshot(struct tree *tree, struct open_node *open, struct node *ret, char *name);
void handles_mark_changed(struct tree *tree, struct open_node *open);

/* text.c: writes of a NODE_TEXT, and its check at the flush */
ssize_t text_write(struct tree_file *file, const struct node_type *type, const void *data, size_t size,
		   uint64_t offset);
int text_flush(struct tree_file *file, const struct node_type *type, const struct node *node);
/* It is about to be opened with O_TRUNC: keeps what there is. */
void text_keep_old(struct tree_file *file, const struct vol_attr *attr);

/* numbers.c: the numbers of open files */
struct numbers;
int numbers_new(struct numbers **ret);
void numbers_free(struct numbers *n); /* NULL is allowed; not the files */
int numbers_put(struct numbers *n, struct tree_file *file, uint64_t *ret); /* -ENFILE: all are in use */
/* Gives the file a number that another daemon gave it; numbers_claimed after the last of them. -EEXIST, -EINVAL */
int numbers_claim(struct numbers *n, struct tree_file *file, uint64_t number);
void numbers_claimed(struct numbers *n);
struct tree_file *numbers_get(struct numbers *n, uint64_t number); /* NULL: none has it */
void numbers_drop(struct numbers *n, uint64_t number);
/* While no file is opened or released; ends when fn returns non-zero, with that. */
int numbers_each(struct numbers *n, int (*fn)(void *data, struct tree_file *file, uint64_t number),
		 void *data);

/* backing.c: how open files are read and written */
int backings_new(struct tree *tree);
void backings_free(struct tree *tree); /* those that are left are the connection's, or the next daemon's */
/* Sets io and backing of a file that is opened with these flags. -ENOMEM */
int backing_join(struct tree_file *file, int flags, bool created);
/* As they were in another daemon. -EBADMSG: they don't agree */
int backing_claim(struct tree_file *file, enum tree_io io, int backing);
void backing_leave(struct tree_file *file); /* NULL-safe for one that never joined */

/* rename.c: LOOKUP of a hidden name by the publisher */
int publish_lookup(struct tree *tree, uint64_t parent, const char *name, struct vol_attr *ret);

/* thing.c. What is on its way to the thing must not come to a new one of its name. */
void thing_close(const struct node *node, const char *top);
/* -ENOTEMPTY: something of the user's is there, nothing was removed; -EAGAIN: inferfs added to it
 * meanwhile. */
int thing_remove_made(struct tree *tree, uint64_t dir);

/* export.c: `export` in the directory of a version, which is made when it is looked for: older versions have none. -ENOENT */
int export_lookup(struct tree *tree, uint64_t parent, const char *name, struct vol_attr *ret);

/* fresh.c: README and the fixed directories, made or brought up to date */
int fresh_tree(struct tree *tree, struct err *err);
extern const char node_readme[]; /* readme.c */

/* Hooks, by file. */
int job_came(const struct node *, enum node_event, bool);
void job_went(const struct node *, enum node_event);
int app_came(const struct node *, enum node_event, bool);
void app_went(const struct node *, enum node_event);
int model_dir_came(const struct node *, enum node_event, bool);
int dataset_came(const struct node *, enum node_event, bool);
void dataset_went(const struct node *, enum node_event);
int dataset_file_came(const struct node *, enum node_event, bool);
void dataset_file_went(const struct node *, enum node_event);
void dataset_file_complete(const struct node *);
int model_came(const struct node *, enum node_event, bool);
void model_went(const struct node *, enum node_event);
int model_file_came(const struct node *, enum node_event, bool);
void model_file_went(const struct node *, enum node_event);
void model_file_writing(const struct node *);
void model_file_complete(const struct node *);
void model_file_synced(const struct node *, bool);
int model_file_check_xattr(const struct node *, const char *, const char *, size_t);
int spec_came(const struct node *, enum node_event, bool);
int spec_check(const struct node *, const char *, size_t, bool);
void spec_complete(const struct node *);
int ctl_check(const struct node *, const char *, size_t, bool);
int ctl_wrote(const struct node *, const char *, size_t);
void deadline_went(const struct node *, enum node_event);
int deadline_check(const struct node *, const char *, size_t, bool);
int deadline_wrote(const struct node *, const char *, size_t);
int deadline_check_xattr(const struct node *, const char *, const char *, size_t);
void deadline_xattr(const struct node *, const char *, const char *, size_t);
int batch_came(const struct node *, enum node_event, bool);
void batch_went(const struct node *, enum node_event);
int instance_came(const struct node *, enum node_event, bool);
void instance_went(const struct node *, enum node_event);
/* Drops user.state and user.result, which an answer to an older content, or in another place, left: recovery would take them
 * for the answer to this one. */
void instance_forget_answer(struct tree *tree, uint64_t ino);
void instance_writing(const struct node *);
void instance_complete(const struct node *);
void instance_synced(const struct node *, bool);
int instance_check_xattr(const struct node *, const char *, const char *, size_t);

/* An inode that is open for writing (handles.c and handover.c only). */
struct open_node {
	struct open_node *next;
	uint64_t ino;
	unsigned writers; /* handles */
	bool changed; /* content changed since the first of them was opened, or since `synced`; atomic read */
	bool synced;  /* `synced` was told of it */
	bool gone;    /* the last name was unlinked */
	uint8_t kind; /* atomic read */
	struct place *dir; /* NULL: not known */
	char name[256];
	pthread_mutex_t text_lock;
};

struct tree_file {
	struct tree *tree;
	uint64_t number;
	struct vol_file *vf;
	struct open_node *open; /* NULL: read-only */
	uint8_t kind;           /* when it was opened */
	bool truncated;         /* by its opening */
	bool has_old;           /* the file holds `old` again, since a write was refused; under text_lock */
	char *old;              /* a NODE_TEXT before its opening truncated it; NULL: none */
	size_t old_len;
	uint64_t grown;  /* of tree_grew; atomic */
	uint8_t mode;    /* O_RDONLY … that vf was opened with */
	uint8_t io;      /* enum tree_io */
	bool joined;     /* it counts in the inode's struct backing */
	bool drop_cache; /* the kernel's pages may be older than the blob */
	int backing;     /* with TREE_IO_BACKED: the kernel's number */
};

/* In its bucket, or where it would be put. Under open_lock. */
struct open_node **open_find(struct tree *tree, uint64_t ino);

/* A slot of the table of names (place.c). */
struct name_slot;

struct tree {
	struct volume *vol;
	struct glue *glue;          /* may be NULL */
	pthread_mutex_t place_lock; /* guards dirs, names */
	uint64_t epoch;             /* atomic; grows when a directory moves or goes */
	struct place **dirs;
	struct name_slot **names;
	pthread_mutex_t open_lock; /* guards open_nodes and what they hold, but their text_lock */
	struct open_node **open_nodes;
	struct numbers *numbers;      /* of the open files */
	pthread_mutex_t backing_lock; /* guards what backings hold; a leaf */
	struct backing **backings;
	const struct tree_backing_ops *backing_ops; /* NULL: there is no kernel */
	void *backing_data;
	bool backing_begin; /* atomic; files become backed */
};

static inline struct sched *node_sched(const struct node *node)
{
	return node->tree->glue ? glue_sched(node->tree->glue) : NULL;
}

#endif
