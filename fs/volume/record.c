/* Encoding and checked decoding of keys and records; the layout is drawn in record.h. */
#include "fs/volume/record.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define RECORD_VERSION 1
#define INODE_LEN_FILE (4 + 4 * 4 + 3 * 8 + 3 * 12)
#define INODE_LEN_PACK (INODE_LEN_FILE + 2 * 8)
#define INODE_LEN_DIR  (INODE_LEN_FILE + 5 * 8)
_Static_assert(INODE_LEN_DIR <= INODE_MAX, "room for a directory");

void put_be64(void *at, uint64_t v)
{
	v = htobe64(v);
	memcpy(at, &v, sizeof(v));
}

uint64_t get_be64(const void *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return be64toh(v);
}

void put_le64(void *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, sizeof(v));
}

uint64_t get_le64(const void *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return le64toh(v);
}

static char *put32(char *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, sizeof(v));
	return at + sizeof(v);
}

static char *put64(char *at, uint64_t v)
{
	put_le64(at, v);
	return at + 8;
}

static char *put_time(char *at, const struct timespec *t)
{
	at = put64(at, (uint64_t)t->tv_sec);
	return put32(at, (uint32_t)t->tv_nsec);
}

static uint32_t get32(const char **at)
{
	uint32_t v;

	memcpy(&v, *at, sizeof(v));
	*at += sizeof(v);
	return le32toh(v);
}

static uint64_t get64(const char **at)
{
	uint64_t v = get_le64(*at);

	*at += 8;
	return v;
}

static void get_time(struct timespec *t, const char **at)
{
	t->tv_sec = (time_t)get64(at);
	t->tv_nsec = get32(at);
}

size_t key_ino(char *key, uint64_t ino)
{
	put_be64(key, ino);
	return KEY_INO;
}

size_t key_tagged(char *key, char tag, uint64_t ino)
{
	key[0] = tag;
	put_be64(key + 1, ino);
	return 9;
}

size_t key_name(char *key, uint64_t parent, const char *name, size_t len)
{
	put_be64(key, parent);
	key[8] = 0;
	memcpy(key + 9, name, len);
	return 9 + len;
}

size_t key_cookie(char *key, uint64_t parent, uint64_t cookie)
{
	put_be64(key, parent);
	key[8] = 1;
	put_be64(key + 9, cookie);
	return 17;
}

size_t key_block(char *key, uint64_t parent, uint64_t block)
{
	put_be64(key, parent);
	key[8] = 2;
	put_be64(key + 9, block);
	return 17;
}

size_t key_dir_end(char *key, uint64_t parent)
{
	put_be64(key, parent);
	key[8] = 3;
	return 9;
}

size_t record_put_inode(char *at, const struct inode_rec *rec)
{
	char *p = at;

	*p++ = RECORD_VERSION;
	*p++ = (char)rec->kind;
	*p++ = (char)rec->storage;
	*p++ = 0;
	p = put32(p, rec->mode);
	p = put32(p, rec->nlink);
	p = put32(p, rec->uid);
	p = put32(p, rec->gid);
	p = put64(p, rec->rdev);
	p = put64(p, rec->size);
	p = put64(p, rec->blocks);
	p = put_time(p, &rec->atime);
	p = put_time(p, &rec->mtime);
	p = put_time(p, &rec->ctime);
	if (S_ISDIR(rec->mode)) {
		p = put64(p, rec->parent);
		p = put64(p, rec->cookie);
		p = put64(p, rec->next_cookie);
		p = put64(p, rec->first_cookie);
		p = put64(p, rec->entries);
	} else if (rec->storage == STORAGE_PACK) {
		p = put64(p, rec->pack);
		p = put64(p, rec->offset);
	}
	return (size_t)(p - at);
}

static int time_ok(const struct timespec *t)
{
	return t->tv_nsec >= 0 && t->tv_nsec < 1000000000;
}

static int mode_ok(uint32_t mode)
{
	return (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) ||
		S_ISCHR(mode) || S_ISBLK(mode)) &&
	       !(mode & ~(uint32_t)(S_IFMT | 07777));
}

int record_get_inode(struct inode_rec *rec, const void *data, size_t len)
{
	struct inode_rec r = {0};
	const char *p = data;

	if (len < INODE_LEN_FILE || p[0] != RECORD_VERSION || p[3] != 0)
		return -EIO;
	r.kind = (uint8_t)p[1];
	r.storage = (uint8_t)p[2];
	p += 4;
	r.mode = get32(&p);
	if (!mode_ok(r.mode) || r.storage >= STORAGE_COUNT ||
	    len != (S_ISDIR(r.mode)             ? INODE_LEN_DIR
		    : r.storage == STORAGE_PACK ? INODE_LEN_PACK
						: INODE_LEN_FILE) ||
	    (r.storage == STORAGE_PACK && !S_ISREG(r.mode)))
		return -EIO;
	r.nlink = get32(&p);
	r.uid = get32(&p);
	r.gid = get32(&p);
	r.rdev = get64(&p);
	r.size = get64(&p);
	r.blocks = get64(&p);
	get_time(&r.atime, &p);
	get_time(&r.mtime, &p);
	get_time(&r.ctime, &p);
	if (!time_ok(&r.atime) || !time_ok(&r.mtime) || !time_ok(&r.ctime) || r.size > INT64_MAX)
		return -EIO;
	if (S_ISDIR(r.mode)) {
		r.parent = get64(&p);
		r.cookie = get64(&p);
		r.next_cookie = get64(&p);
		r.first_cookie = get64(&p);
		r.entries = get64(&p);
		if (r.first_cookie < COOKIE_FIRST || r.first_cookie > r.next_cookie ||
		    r.next_cookie > INT64_MAX || r.entries > r.next_cookie - COOKIE_FIRST)
			return -EIO;
	} else if (r.storage == STORAGE_PACK) {
		r.pack = get64(&p);
		r.offset = get64(&p);
		if (!r.pack || r.offset > INT64_MAX - r.size)
			return -EIO;
	}
	*rec = r;
	return 0;
}

size_t record_put_name(char *at, const struct dentry *d)
{
	at[0] = RECORD_VERSION;
	at[1] = (char)d->type;
	put_le64(at + 2, d->cookie);
	put_le64(at + 10, d->ino);
	return 18;
}

size_t record_put_cookie(char *at, const struct dentry *d, const char *name, size_t len)
{
	at[0] = RECORD_VERSION;
	at[1] = (char)d->type;
	put_le64(at + 2, d->ino);
	memcpy(at + 10, name, len);
	return 10 + len;
}

int record_get_name(struct dentry *d, const void *data, size_t len)
{
	const char *p = data;

	if (len != 18 || p[0] != RECORD_VERSION || get_le64(p + 10) == 0 || get_le64(p + 2) < COOKIE_FIRST)
		return -EIO;
	d->type = (uint8_t)p[1];
	d->cookie = get_le64(p + 2);
	d->ino = get_le64(p + 10);
	return 0;
}

int record_get_cookie(struct dentry *d, char name[256], const void *key, size_t key_len, const void *data,
		      size_t len)
{
	const char *p = data;

	if (key_len != 17 || len < 11 || len > 10 + 255 || p[0] != RECORD_VERSION || get_le64(p + 2) == 0 ||
	    memchr(p + 10, 0, len - 10) || memchr(p + 10, '/', len - 10))
		return -EIO;
	d->type = (uint8_t)p[1];
	d->ino = get_le64(p + 2);
	d->cookie = get_be64((const char *)key + 9);
	memcpy(name, p + 10, len - 10);
	name[len - 10] = 0;
	return 0;
}
