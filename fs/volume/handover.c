/*
 * A volume that goes from one process to another while files in it are open. The second process opens it as it is:
 * nothing is purged, for the orphans may be what the open files hold, and nothing need be on the disk, for the
 * machine did not stop. Should the second one never come, volume_open takes the directory for a crashed one's.
 */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>

int volume_settle(struct volume *vol)
{
	rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
	char *message = NULL;

	for (int i = 0; i < CF_COUNT && !message && !vol->read_only; i++)
		rocksdb_flush_cf(vol->db.db, options, vol->db.cf[i], &message);
	rocksdb_flushoptions_destroy(options);
	if (!message)
		return 0;
	log_warn("rocksdb: flush: %s", message);
	rocksdb_free(message);
	return -EIO;
}

void vol_file_abandon(struct vol_file *f)
{
	struct node *node;

	if (!f)
		return;
	node = f->node;
	pthread_mutex_lock(&node->lock);
	if (--node->opens == 0)
		content_drop(node);
	node_put(f->vol, node);
	free(f);
}
