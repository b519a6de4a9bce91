/*
 * models/NAME and what a user puts directly in it: weights to be imported (x.onnx, x.safetensors), model.json and labels.txt. The
 * scheduler is told of each that is complete and looks at all of them when it was quiet; what is below, the versions, is files like
 * any.
 *
 * user.state and user.version of such a file belong to the scheduler, as an instance's (instance.c): setting them answers success
 * and does nothing.
 */
#include "fs/node/node.h"

#include <string.h>

static void post(const struct node *node, enum model_event event)
{
	struct sched *sched = node_sched(node);

	if (sched && !node_name_waits(node->name))
		sched_post_model(sched, node->dir->thing, event, node->ino);
}

/* What an import of an older content left. */
static void forget_import(const struct node *node)
{
	vol_removexattr(node->tree->vol, node->ino, "user.state");
	vol_removexattr(node->tree->vol, node->ino, "user.version");
}

int model_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	struct sched *sched = node_sched(node);

	(void)open_for_writing;
	if (sched && event == NODE_MOVED) /* in an empty new one there is nothing to import */
		sched_post_model(sched, node->name, MODEL_CAME, node->ino);
	return 0;
}

void model_went(const struct node *node, enum node_event event)
{
	struct sched *sched = node_sched(node);

	(void)event;
	if (!sched)
		return;
	thing_close(node, "models");
	sched_post_model(sched, node->name, MODEL_GONE, node->ino);
}

int model_file_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	if (event == NODE_MOVED) /* a created one tells when it is closed */
		post(node, open_for_writing ? MODEL_WRITING : MODEL_COMPLETE);
	return 0;
}

void model_file_went(const struct node *node, enum node_event event)
{
	(void)event;
	post(node, MODEL_REMOVED);
}

void model_file_writing(const struct node *node)
{
	forget_import(node);
	post(node, MODEL_WRITING);
}

void model_file_complete(const struct node *node)
{
	post(node, MODEL_COMPLETE);
}

/* As an NFS server does it: a further change tells MODEL_WRITING again. */
void model_file_synced(const struct node *node, bool closed)
{
	(void)closed;
	post(node, MODEL_COMPLETE);
}

int model_file_check_xattr(const struct node *node, const char *name, const char *value, size_t size)
{
	(void)node;
	(void)value;
	(void)size;
	return strcmp(name, "user.state") == 0 || strcmp(name, "user.version") == 0;
}
