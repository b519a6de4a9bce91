/*
 * Private to engine/onnx/to_net*: the pass's state, what a node's mapping asks and makes, and the mappings. One gives 0, or
 * -EOPNOTSUPP (to_net_no) for a form that it doesn't know.
 */
#ifndef ENGINE_ONNX_TO_NET_PRIVATE_H
#define ENGINE_ONNX_TO_NET_PRIVATE_H

#include "engine/onnx/op.h"
#include "engine/onnx/to_net.h"

#define BATCH     INT64_MIN
#define MAX_KNOWN 8

struct mapped {
	int id;     /* of the network's node; -1: not mapped */
	int rank;   /* 4 or 2; grouped: before and after */
	int groups; /* grouped: how many; 0: it isn't */
	float eps;  /* grouped, and normalised: > 0 */
	bool raw;   /* the input as (N, H, W, C) */
	int n;      /* known: so many; -1: not known */
	int64_t v[MAX_KNOWN];
};

/* What a parameter of the network will be: from[…], or its own. */
struct fill {
	int param;
	bool transpose; /* of a weight (inputs, outputs) */
	const float *from;
	float *own;
};

struct to_net {
	const struct onnx_graph *g;
	const struct onnx_image *image;
	struct net *net;
	struct mapped *values; /* (g->n_values) */
	bool *done;            /* (g->n_nodes): taken together with an earlier one */
	struct fill *fills;
	int n_fills;
	struct err *err;
};

/* -EOPNOTSUPP with the node's name. */
int to_net_no(struct to_net *b, const struct onnx_node *n, const char *why);
/* An attribute of that type. */
int64_t node_attr_i(const struct onnx_node *n, const char *name, int64_t otherwise);
float node_attr_f(const struct onnx_node *n, const char *name, float otherwise);
/* Element i of a list; `otherwise` without the list. */
int64_t node_attr_at(const struct onnx_node *n, const char *name, size_t i, int64_t otherwise);
bool node_has_in(const struct onnx_node *n, int i);
/* What input i is; never NULL. */
struct mapped *to_net_in(struct to_net *b, const struct onnx_node *n, int i);
/* Input i, through Identity; NULL: it is no constant. */
const struct onnx_tensor *to_net_constant(struct to_net *b, const struct onnx_node *n, int i);
/* Floats of that many elements; NULL: it isn't. */
const float *to_net_floats(struct to_net *b, const struct onnx_node *n, int i, size_t count);
/* A number from an input; false: it isn't a constant. */
bool to_net_scalar(struct to_net *b, const struct onnx_node *n, int i, float *ret);
/* A short vector, from a constant or from what is known. */
bool to_net_known(struct to_net *b, const struct onnx_node *n, int i, int *ret_n, int64_t *v);
/* Axes from input i or the attribute; none there: *ret_n is 0. */
bool to_net_axes(struct to_net *b, const struct onnx_node *n, int i, int rank, int *ret_n, int64_t *axes);
struct node *to_net_node(struct to_net *b, const struct mapped *x);
/* It is mapped and nothing else. */
bool mapped_is_plain(const struct mapped *x, int rank);
/* The node's output is the network's node `id` (an error: passed on); or so many integers. */
int to_net_give(struct to_net *b, const struct onnx_node *n, int id, int rank);
int to_net_give_known(struct to_net *b, const struct onnx_node *n, int count, const int64_t *v);
/* For the next node of the network. */
const char *to_net_name(struct to_net *b, char *ret, size_t size);
/* What a parameter will hold: `from`, or a copy of it (NULL: all `otherwise`), which the caller may change. Room was made for all. */
void to_net_fill(struct to_net *b, int param, const float *from);
float *to_net_fill_own(struct to_net *b, int param, const float *from, int n, float otherwise);
/* The latest of a parameter, or NULL. */
struct fill *to_net_fill_of(struct to_net *b, int param);

/* to_net_norms.c: x (any rank) normalised in groups; scale and shift (channels), NULL: 1 and 0. */
int to_net_group_norm(struct to_net *b, const struct onnx_node *n, const struct mapped *x, int groups,
		      float eps, const float *scale, const float *shift);

/* The mappings, each in one of to_net_{layers,norms,shapes}.c. */
int map_add(struct to_net *b, const struct onnx_node *n);
int map_average_pool(struct to_net *b, const struct onnx_node *n);
int map_batch_norm(struct to_net *b, const struct onnx_node *n);
int map_cast(struct to_net *b, const struct onnx_node *n);
int map_clip(struct to_net *b, const struct onnx_node *n);
int map_concat(struct to_net *b, const struct onnx_node *n);
int map_constant(struct to_net *b, const struct onnx_node *n);
int map_conv(struct to_net *b, const struct onnx_node *n);
int map_div(struct to_net *b, const struct onnx_node *n);
int map_flatten(struct to_net *b, const struct onnx_node *n);
int map_gather(struct to_net *b, const struct onnx_node *n);
int map_gemm(struct to_net *b, const struct onnx_node *n);
int map_global_pool(struct to_net *b, const struct onnx_node *n);
int map_group_norm(struct to_net *b, const struct onnx_node *n);
int map_instance_norm(struct to_net *b, const struct onnx_node *n);
int map_matmul(struct to_net *b, const struct onnx_node *n);
int map_max_pool(struct to_net *b, const struct onnx_node *n);
int map_mul(struct to_net *b, const struct onnx_node *n);
int map_reduce_mean(struct to_net *b, const struct onnx_node *n);
int map_relu(struct to_net *b, const struct onnx_node *n);
int map_reshape(struct to_net *b, const struct onnx_node *n);
int map_same(struct to_net *b, const struct onnx_node *n);
int map_shape(struct to_net *b, const struct onnx_node *n);
int map_slice(struct to_net *b, const struct onnx_node *n);
int map_softmax(struct to_net *b, const struct onnx_node *n);
int map_squeeze(struct to_net *b, const struct onnx_node *n);
int map_sub(struct to_net *b, const struct onnx_node *n);
int map_transpose(struct to_net *b, const struct onnx_node *n);
int map_unsqueeze(struct to_net *b, const struct onnx_node *n);

#endif
