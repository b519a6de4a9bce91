#include "fs/node/node.h"

#include <errno.h>
#include <stdlib.h>

int tree_new(struct tree **ret, struct volume *vol, struct glue *glue, struct err *err)
{
	struct tree *tree = calloc(1, sizeof(*tree));
	int r = -ENOMEM;

	if (!tree)
		return err_set(err, ERR_NO_MEMORY, "the tree");
	tree->vol = vol;
	tree->glue = glue;
	tree->epoch = 1;
	pthread_mutex_init(&tree->place_lock, NULL);
	pthread_mutex_init(&tree->open_lock, NULL);
	pthread_mutex_init(&tree->backing_lock, NULL);
	/* Pages of these that are never used cost no memory. */
	tree->dirs = calloc(DIR_SLOTS, sizeof(*tree->dirs));
	tree->names = calloc(NAME_SLOTS, sizeof(*tree->names));
	tree->open_nodes = calloc(OPEN_BUCKETS, sizeof(*tree->open_nodes));
	if (tree->dirs && tree->names && tree->open_nodes && numbers_new(&tree->numbers) == 0 &&
	    backings_new(tree) == 0)
		r = fresh_tree(tree, err);
	else
		err_set(err, ERR_NO_MEMORY, "the tree");
	if (r < 0) {
		tree_free(tree);
		return r;
	}
	*ret = tree;
	return 0;
}

void tree_join(struct tree *tree, struct glue *glue)
{
	tree->glue = glue;
}

void tree_free(struct tree *tree)
{
	if (!tree)
		return;
	if (tree->numbers && tree->open_nodes)
		handles_abandon(tree);
	for (size_t i = 0; tree->dirs && i < DIR_SLOTS; i++)
		place_unref(tree->dirs[i]);
	for (size_t i = 0; tree->names && i < NAME_SLOTS; i++)
		free(tree->names[i]);
	free(tree->dirs);
	free(tree->names);
	free(tree->open_nodes);
	numbers_free(tree->numbers);
	backings_free(tree);
	pthread_mutex_destroy(&tree->place_lock);
	pthread_mutex_destroy(&tree->open_lock);
	pthread_mutex_destroy(&tree->backing_lock);
	free(tree);
}

bool tree_publisher_core(const struct tree *tree, pid_t tid, int *ret_core)
{
	const struct publisher *pub = tree->glue ? glue_publisher(tree->glue) : NULL;

	if (!pub || !publisher_is_caller(pub, tid))
		return false;
	*ret_core = publisher_core(pub);
	return true;
}

void tree_publisher_come(struct tree *tree, int core)
{
	if (tree->glue)
		publisher_come(glue_publisher(tree->glue), core);
}

struct volume *tree_volume(struct tree *tree)
{
	return tree->vol;
}
