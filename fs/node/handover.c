/*
 * Open files that go on in another process: written down here, opened there. What is in memory for a file, beyond
 * its number, is what its last RELEASE must tell (struct open_node).
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

void tree_handles_release(struct tree_handles *handles)
{
	free(handles->files);
	free(handles->writing);
	*handles = (struct tree_handles){0};
}

static int count_file(void *data, struct tree_file *file, uint64_t number)
{
	struct tree_handles *handles = data;

	(void)file;
	(void)number;
	handles->n_files++;
	return 0;
}

static int note_file(void *data, struct tree_file *file, uint64_t number)
{
	struct tree_handles *handles = data;
	int r;

	if (file->io == TREE_IO_BACKED && vol_stored(file->vf) && file->open)
		file->open->changed = true;
	r = file->open ? vol_flush(file->vf) : 0;
	handles->files[handles->n_files++] = (struct tree_handle){.number = number,
								  .ino = vol_file_ino(file->vf),
								  .kind = file->kind,
								  .mode = file->mode,
								  .writer = file->open,
								  .io = file->io,
								  .backing = file->backing};
	return r;
}

static void note_writing(struct tree_handles *handles, const struct open_node *open)
{
	struct tree_writing *w = &handles->writing[handles->n_writing++];

	*w = (struct tree_writing){.ino = open->ino,
				   .dir = open->dir ? open->dir->ino : 0,
				   .kind = open->kind,
				   .changed = open->changed,
				   .synced = open->synced,
				   .gone = open->gone};
	strcpy(w->name, open->dir ? open->name : "");
}

int tree_hand_over(struct tree *tree, struct tree_handles *ret)
{
	struct tree_handles handles = {0};
	size_t n_writing = 0;
	int r = -ENOMEM;

	numbers_each(tree->numbers, count_file, &handles);
	for (int i = 0; i < OPEN_BUCKETS; i++)
		for (struct open_node *open = tree->open_nodes[i]; open; open = open->next)
			n_writing++;
	handles.files = calloc(handles.n_files + 1, sizeof(*handles.files));
	handles.writing = calloc(n_writing + 1, sizeof(*handles.writing));
	if (!handles.files || !handles.writing)
		goto fail;
	handles.n_files = 0;
	r = numbers_each(tree->numbers, note_file, &handles);
	if (r < 0)
		goto fail;
	for (int i = 0; i < OPEN_BUCKETS; i++)
		for (struct open_node *open = tree->open_nodes[i]; open; open = open->next)
			note_writing(&handles, open);
	*ret = handles;
	return 0;
fail:
	tree_handles_release(&handles);
	return r;
}

static int take_writing(struct tree *tree, const struct tree_writing *w)
{
	struct open_node **at = open_find(tree, w->ino), *open;

	if (*at)
		return -EBADMSG;
	open = calloc(1, sizeof(*open));
	if (!open)
		return -ENOMEM;
	open->ino = w->ino;
	open->kind = w->kind;
	open->changed = w->changed;
	open->synced = w->synced;
	open->gone = w->gone;
	/* Where it is not found any more, it is looked for when that is needed. */
	if (w->dir && place_get(tree, w->dir, &open->dir) < 0)
		open->dir = NULL;
	memcpy(open->name, w->name, sizeof(open->name));
	pthread_mutex_init(&open->text_lock, NULL);
	*at = open;
	return 0;
}

static int take_file(struct tree *tree, const struct tree_handle *h)
{
	struct tree_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		return -ENOMEM;
	*file = (struct tree_file){.tree = tree, .number = h->number, .kind = h->kind, .mode = h->mode};
	file->grown = UINT64_MAX; /* it may not have been told of the last lines */
	r = vol_file_open(tree->vol, h->ino, h->mode, &file->vf);
	if (r == 0 && h->writer) {
		file->open = *open_find(tree, h->ino);
		r = file->open ? 0 : -EBADMSG;
	}
	if (r == 0)
		r = backing_claim(file, h->io, h->backing);
	if (r == 0)
		r = numbers_claim(tree->numbers, file, h->number);
	if (r < 0) {
		log_error("open file %llu of inode %llu: %s", (unsigned long long)h->number,
			  (unsigned long long)h->ino, strerror(-r));
		vol_file_abandon(file->vf);
		free(file); /* backings_free forgets the rest */
		return r;
	}
	if (file->open)
		file->open->writers++;
	return 0;
}

int tree_take_over(struct tree *tree, const struct tree_handles *handles)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < handles->n_writing; i++)
		r = take_writing(tree, &handles->writing[i]);
	for (size_t i = 0; r == 0 && i < handles->n_files; i++)
		r = take_file(tree, &handles->files[i]);
	numbers_claimed(tree->numbers);
	for (int i = 0; r == 0 && i < OPEN_BUCKETS; i++)
		for (struct open_node *open = tree->open_nodes[i]; open; open = open->next)
			if (open->writers == 0) /* nothing would ever release it */
				r = -EBADMSG;
	return r;
}

void tree_tell_writing(struct tree *tree)
{
	for (int i = 0; i < OPEN_BUCKETS; i++) {
		for (struct open_node *open = tree->open_nodes[i]; open; open = open->next) {
			const struct node_type *type = node_type(open->kind);
			struct node node = {.tree = tree,
					    .dir = open->dir,
					    .name = open->name,
					    .ino = open->ino,
					    .kind = open->kind};

			if (open->changed && !open->gone && open->dir && type->writing)
				type->writing(&node);
		}
	}
}

bool tree_is_event(const struct tree_file *file)
{
	return file->open && node_type(file->open->kind)->flags & NODE_TEXT;
}

static int abandon_file(void *data, struct tree_file *file, uint64_t number)
{
	(void)data;
	(void)number;
	if (file->open && vol_flush(file->vf) < 0)
		log_warn("what was last written to inode %llu is lost",
			 (unsigned long long)vol_file_ino(file->vf));
	vol_file_abandon(file->vf);
	free(file->old);
	free(file);
	return 0;
}

void handles_abandon(struct tree *tree)
{
	numbers_each(tree->numbers, abandon_file, NULL);
	for (int i = 0; i < OPEN_BUCKETS; i++) {
		for (struct open_node *open; (open = tree->open_nodes[i]);) {
			tree->open_nodes[i] = open->next;
			place_unref(open->dir);
			pthread_mutex_destroy(&open->text_lock);
			free(open);
		}
	}
}
