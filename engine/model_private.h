/*
 * Private to engine/: what a model is made of. engine/session.c reads info and net; engine/model.c makes and
 * frees it.
 */
#ifndef ENGINE_MODEL_PRIVATE_H
#define ENGINE_MODEL_PRIVATE_H

#include "engine/model.h"
#include "engine/net.h"

struct model {
	struct model_info info;
	struct net *net;
	float test_accuracy[MODEL_MAX_RATES]; /* as info.accuracy, on the test split */
	char *net_json;                       /* the "net" object as text; owned */
	char **labels;                        /* (info.classes), entries may be NULL; owned */
};

/*
 * Takes the values over of what has the same name and shape; a BatchNorm's set for a rate that `from` has not
 * begins as the prefix of the full width's. A line on that in ret_note. -EBADMSG: nothing has.
 */
int model_take(struct model *to, const struct model *from, struct buf *ret_note, struct err *err);

#endif
