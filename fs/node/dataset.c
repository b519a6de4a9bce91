/*
 * datasets/NAME and what is below: the user's own files. Any change asks for a scan; the scheduler waits
 * until it is quiet.
 */
#include "fs/node/node.h"

#include "engine/base/clock.h"

/* The share of the time for which a data set must be quiet; chosen. The last of many changes need not be told then: the
 * scheduler looks later than that. */
#define TELL_AGAIN 10

static void changed(const struct node *node)
{
	struct sched *sched = node_sched(node);
	int64_t now = clock_monotonic_ns();

	if (!sched || !*node->dir->thing ||
	    now - __atomic_load_n(&node->dir->told, __ATOMIC_RELAXED) <
		    glue_settle_batch_ns(node->tree->glue) / TELL_AGAIN)
		return;
	__atomic_store_n(&node->dir->told, now, __ATOMIC_RELAXED);
	sched_post_dataset_changed(sched, node->dir->thing);
}

int dataset_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	struct sched *sched = node_sched(node);

	(void)open_for_writing;
	if (sched && event == NODE_MOVED) /* an empty new directory is nothing to scan */
		sched_post_dataset_changed(sched, node->name);
	return 0;
}

void dataset_went(const struct node *node, enum node_event event)
{
	struct sched *sched = node_sched(node);

	(void)event;
	if (sched)
		sched_post_dataset_gone(sched, node->name);
}

int dataset_file_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	/* A created file also tells when it is closed; a symlink never is. */
	if (!open_for_writing && (event == NODE_MOVED || !node->is_dir))
		changed(node);
	return 0;
}

void dataset_file_went(const struct node *node, enum node_event event)
{
	(void)event;
	changed(node);
}

void dataset_file_complete(const struct node *node)
{
	changed(node);
}
