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

int dentry_find(struct volume *vol, uint64_t parent, const char *name, struct dentry *ret)
{
	char key[KEY_MAX], value[18];
	size_t len = 0;
	int r = db_get(&vol->db, CF_DENTRIES, key, key_name(key, parent, name, strlen(name)), value,
		       sizeof(value), &len);

	return r < 0 ? r : record_get_name(ret, value, len);
}

void dentry_add(struct batch *b, uint64_t parent, struct inode_rec *dir, const char *name, struct dentry *d)
{
	char key[KEY_MAX], value[10 + 255];
	size_t len = strlen(name);

	d->cookie = dir->next_cookie++;
	dir->entries++;
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
	if (dir->entries > 0)
		dir->entries--;
	/* A scan starts at first_cookie: a queue that is emptied from its front never passes over the dead.
	 */
	if (dir->entries == 0)
		dir->first_cookie = dir->next_cookie;
	else if (d->cookie == dir->first_cookie)
		dir->first_cookie++;
}
