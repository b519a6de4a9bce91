/* The two records of a directory entry: by name for lookup, by cookie for readdir. See record.h. */
#include "fs/volume/private.h"

#include <errno.h>
#include <string.h>

int dentry_name_check(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return len > 255 ? -ENAMETOOLONG : 0;
}

/*
 * open(O_CREAT) looks a name up before it makes it, both on one thread of ours and without another change in between, mostly. So who did
 * not find a name remembers it, with how many had been made before it looked. Names count when they are committed, under the lock of
 * their directory: who holds it and sees the same count knows that the name is still not there.
 */
static uint64_t n_made; /* atomic; of all volumes: a new one may lie where an old one lay */
static __thread struct {
	struct volume *vol; /* NULL: nothing is remembered */
	uint64_t parent, n_made;
	char name[256];
} absent;

int dentry_look(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret)
{
	uint64_t before = __atomic_load_n(&n_made, __ATOMIC_ACQUIRE);
	int r = dentry_find(vol, parent, name, ret);

	if (r == -ENOENT) {
		absent.vol = vol;
		absent.parent = parent;
		absent.n_made = before;
		strcpy(absent.name, name);
	}
	return r;
}

bool dentry_known_absent(struct volume *vol, uint64_t parent, const char *name)
{
	return absent.vol == vol && absent.parent == parent &&
	       absent.n_made == __atomic_load_n(&n_made, __ATOMIC_ACQUIRE) && strcmp(absent.name, name) == 0;
}

void dentries_made(void)
{
	__atomic_add_fetch(&n_made, 1, __ATOMIC_RELEASE);
}

int dentry_find(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret)
{
	char key[KEY_MAX], value[18];
	size_t len = 0;
	int r;

	if (overlay_find(vol, parent, name, ret))
		return 0;
	r = db_get(&vol->db, CF_DENTRIES, key, key_name(key, parent, name, strlen(name)), value,
		   sizeof(value), &len);
	return r < 0 ? r : record_get_name(ret, value, len);
}

static void block_change(struct batch *b, uint64_t parent, uint64_t cookie, int change)
{
	uint64_t block = cookie / COOKIE_BLOCK;
	int i = 0;

	while (i < b->n_blocks && (b->blocks[i].parent != parent || b->blocks[i].block != block))
		i++;
	if (i == b->n_blocks) {
		b->blocks[i].parent = parent;
		b->blocks[i].block = block;
		b->blocks[i].change = 0;
		b->n_blocks++;
	}
	b->blocks[i].change += change;
}

int dentry_batch_blocks(struct batch *b)
{
	for (int i = 0; i < b->n_blocks; i++) {
		char key[KEY_MAX], value[8];
		size_t key_len = key_block(key, b->blocks[i].parent, b->blocks[i].block), len = 0;
		int64_t count = 0;
		int r = db_get(b->db, CF_DENTRIES, key, key_len, value, sizeof(value), &len);

		if (r < 0 && r != -ENOENT)
			return r;
		if (r == 0)
			count = len == 8 ? (int64_t)get_le64(value) : 0;
		count += b->blocks[i].change;
		put_le64(value, (uint64_t)count);
		if (count > 0)
			batch_put(b, CF_DENTRIES, key, key_len, value, sizeof(value));
		else
			batch_delete(b, CF_DENTRIES, key, key_len);
	}
	b->n_blocks = 0;
	return 0;
}

void dentry_add(struct batch *b, uint64_t parent, struct inode_rec *dir, const char *name, struct dentry *d)
{
	char key[KEY_MAX], value[10 + 255];
	size_t len = strlen(name);

	b->adds_names = true;
	d->cookie = dir->next_cookie++;
	dir->entries++;
	block_change(b, parent, d->cookie, 1);
	batch_put(b, CF_DENTRIES, key, key_name(key, parent, name, len), value, record_put_name(value, d));
	batch_put(b, CF_DENTRIES, key, key_cookie(key, parent, d->cookie), value,
		  record_put_cookie(value, d, name, len));
}

void dentry_remove(struct batch *b, uint64_t parent, struct inode_rec *dir, const char *name,
		   const struct dentry *d)
{
	char key[KEY_MAX];

	batch_single_delete(b, CF_DENTRIES, key, key_name(key, parent, name, strlen(name)));
	batch_single_delete(b, CF_DENTRIES, key, key_cookie(key, parent, d->cookie));
	block_change(b, parent, d->cookie, -1);
	if (dir->entries > 0)
		dir->entries--;
	/* Scans start at first_cookie: a queue that is emptied from its front never passes over the dead. */
	if (dir->entries == 0)
		dir->first_cookie = dir->next_cookie;
	else if (d->cookie == dir->first_cookie)
		dir->first_cookie++;
}
