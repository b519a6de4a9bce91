/*
 * When a write has failed, the volume takes no more (db.failed_since). What inferfs says about itself must be right all the same,
 * above all that this happened: what is put as `status` then lives in memory, in place of what is stored under its name, until
 * the daemon ends. Inode numbers for it come from a range of their own, which is never stored.
 *
 * Nothing else changes any more, so a directory that is there stays, and only overlay_put changes the list.
 */
#include "fs/volume/private.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_INO (UINT64_C(1) << 62)

struct overlaid {
	struct overlaid *next;
	uint64_t parent;
	struct node *node; /* referenced */
	char name[];
};

/* lock held */
static struct overlaid *find(struct overlay *o, uint64_t parent, const char *name)
{
	struct overlaid *file = o->files;

	while (file && (file->parent != parent || strcmp(file->name, name) != 0))
		file = file->next;
	return file;
}

uint64_t overlay_ino(struct volume *vol)
{
	return FIRST_INO + __atomic_fetch_add(&vol->overlay.n_inos, 1, __ATOMIC_RELAXED);
}

bool overlay_find(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret)
{
	struct overlay *o = &vol->overlay;
	struct overlaid *file;

	if (!db_failed(&vol->db))
		return false;
	pthread_mutex_lock(&o->lock);
	file = find(o, parent, name);
	if (file)
		*ret = (struct dentry){.ino = file->node->ino, .type = DT_REG};
	pthread_mutex_unlock(&o->lock);
	return file;
}

/* Whoever has it open reads on. */
static void drop(struct volume *vol, struct node *node)
{
	if (!node)
		return;
	pthread_mutex_lock(&node->lock);
	node->overlaid = false;
	node->gone = true;
	node->rec.nlink = 0;
	if (node->opens == 0)
		content_drop(node);
	node_put(vol, node);
}

int overlay_put(struct volume *vol, uint64_t parent, const char *name, const struct vol_new *what,
		const struct vol_put *put)
{
	struct overlaid *file = NULL, *new = malloc(sizeof(*new) + strlen(name) + 1);
	char *data = malloc(what->content_len + 1);
	struct overlay *o = &vol->overlay;
	struct node *node = new &&data ? node_ref(vol, put->ino) : NULL;

	if (!node) {
		free(new);
		free(data);
		return -ENOMEM;
	}
	if (what->content_len)
		memcpy(data, what->content, what->content_len);
	pthread_mutex_lock(&node->lock);
	node->rec = (struct inode_rec){.kind = what->kind,
				       .mode = what->mode,
				       .nlink = 1,
				       .uid = what->uid,
				       .gid = what->gid,
				       .size = what->content_len,
				       .atime = put->when,
				       .mtime = put->when,
				       .ctime = put->when};
	node->data = data;
	node->data_room = what->content_len;
	node->loaded = node->data_loaded = node->overlaid = true;
	pthread_mutex_unlock(&node->lock);
	new->parent = parent;
	new->node = node;
	strcpy(new->name, name);
	node = NULL;
	pthread_mutex_lock(&o->lock);
	file = find(o, parent, name);
	if (file) {
		node = file->node;
		file->node = new->node;
	} else {
		new->next = o->files;
		o->files = new;
		new = NULL;
	}
	pthread_mutex_unlock(&o->lock);
	drop(vol, node);
	free(new);
	return 0;
}

void overlay_free(struct volume *vol)
{
	for (struct overlaid *file; (file = vol->overlay.files);) {
		vol->overlay.files = file->next;
		drop(vol, file->node);
		free(file);
	}
	pthread_mutex_destroy(&vol->overlay.lock);
}
