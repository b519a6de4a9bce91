/*
 * Private to engine/onnx: in which order a network's channels stand in a file of ONNX.
 *
 * Our net_concat interleaves groups, so that a prefix of the result is the result of prefixes; ONNX's Concat puts one input after the
 * other. Instead of moving channels about at run time the file leaves them where Concat puts them, and weights are written in that
 * order: the columns of what follows, the rows of convolutions whose result is added to it, the vectors of its BatchNorms. Only where
 * what follows depends on the order itself (GroupNorm, grouped convolutions, the input and the output of the network), or where two
 * orders would have to be the same, does a Gather restore ours.
 */
#ifndef ENGINE_ONNX_CHANNELS_H
#define ENGINE_ONNX_CHANNELS_H

#include "engine/net.h"

struct channels;

/* used (net->n_nodes): those that the output depends on. -ENOMEM. */
int channels_new(struct channels **ret, const struct net *net, float rate, const bool *used);
void channels_free(struct channels *c);

/* Which of the slice's channels stands at each place of that node's value; NULL: each at its own. Borrowed. */
const int *channels_order(const struct channels *c, int node);
/* Of a concat: the place in the plain concatenation of each channel of its value, where a Gather is needed; else NULL. Borrowed. */
const int *channels_gather(const struct channels *c, int node);

/* How many channels of a node's value the slice has. */
int channels_count(const struct net *net, int node, float rate);

#endif
