/* The scheduler's key space. */
#include "fs/volume/private.h"

#include <errno.h>
#include <string.h>

int vol_commit(struct volume *vol, const struct host_op *ops, size_t n)
{
	uint64_t mask = host_ops_mask(ops, n);
	struct batch b;
	int r = batch_init(&b, vol);

	if (r < 0)
		return r;
	xattr_lock(vol, mask);
	r = host_ops_batch(vol, &b, ops, n);
	if (r == 0)
		r = batch_commit(&b, false);
	xattr_unlock(vol, mask);
	if (r == 0)
		host_ops_committed(vol, ops, n);
	batch_release(&b);
	return r;
}

int vol_scan(struct volume *vol, const void *prefix, size_t prefix_len,
	     int (*fn)(void *data, const void *key, size_t key_len, const void *value, size_t value_len),
	     void *data)
{
	unsigned char end[256];
	size_t len = prefix_len;

	if (prefix_len > sizeof(end))
		return -EINVAL;
	/* The first key above all that begin with the prefix: its last byte that can grow, grown. */
	memcpy(end, prefix, prefix_len);
	while (len > 0 && end[len - 1] == 0xff)
		len--;
	if (len > 0)
		end[len - 1]++;
	return db_scan(&vol->db, CF_SCHED, prefix, prefix_len, len > 0 ? end : NULL, len, fn, data);
}
