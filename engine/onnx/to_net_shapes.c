/* What only changes a shape, or computes one. */
#include "engine/onnx/to_net_private.h"

#include <string.h>

/* Rank 4 to rank 2 */
static int flatten(struct to_net *b, const struct onnx_node *n, const struct mapped *x)
{
	const struct node *node = to_net_node(b, x);

	if (x->rank == 2 || node->flat || node->height * node->width == 1)
		return to_net_give(b, n, x->id, 2);
	return to_net_give(b, n, net_flatten(b->net, x->id, b->err), 2);
}

int map_flatten(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t axis = node_attr_i(n, "axis", 1);

	if (!mapped_is_plain(x, 0) || (axis < 0 ? axis + x->rank : axis) != 1)
		return to_net_no(b, n, "it flattens the batch, too");
	return flatten(b, n, x);
}

static bool is_batch(const struct to_net *b, int64_t v)
{
	return v == BATCH || v == 0 || (b->image->batch && v == b->image->batch);
}

int map_reshape(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t v[MAX_KNOWN], size;
	const struct node *node;
	int count;

	if (x->id < 0 || x->raw || !to_net_known(b, n, 1, &count, v))
		return to_net_no(b, n, "not to a constant shape");
	for (int i = 0; i < count; i++)
		if (v[i] == 0 && node_attr_i(n, "allowzero", 0))
			return to_net_no(b, n, "to nothing");
	node = to_net_node(b, x);
	size = (int64_t)node->channels * node->height * node->width;
	if (x->groups) { /* back from a group normalisation */
		const bool same = count == x->rank && is_batch(b, v[0]) &&
				  (v[1] == node->channels || (count == 2 && v[1] == -1)) &&
				  (count == 2 || ((v[2] == node->height || v[2] == -1) &&
						  (v[3] == node->width || v[3] == -1)));

		if (!same || !(x->eps > 0))
			return to_net_no(b, n, "not what a group normalisation ends with");
		return to_net_group_norm(b, n, x, x->groups, x->eps, NULL, NULL);
	}
	if (count == 2 &&
	    ((is_batch(b, v[0]) && (v[1] == -1 || v[1] == size)) || (v[0] == -1 && v[1] == size)))
		return flatten(b, n, x);
	/* flattened planes are grouped by pixels of channels, which no norm of ours does */
	if (count == 3 && (x->rank == 4 || node->height * node->width == 1) && is_batch(b, v[0]) &&
	    v[1] > 0 && v[1] <= node->channels && node->channels % v[1] == 0 &&
	    (v[2] == -1 || v[2] == size / v[1])) {
		b->values[n->out[0]] =
			(struct mapped){.id = x->id, .rank = x->rank, .groups = (int)v[1], .n = -1};
		return 0;
	}
	if (count == 4 && node->height * node->width == 1 && !node->flat &&
	    (is_batch(b, v[0]) || v[0] == -1) && v[1] == size && v[2] == 1 && v[3] == 1)
		return to_net_give(b, n, x->id, 4);
	return to_net_no(b, n, "to a shape that isn't one of features");
}

int map_squeeze(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t axes[MAX_KNOWN], v[MAX_KNOWN];
	int count;

	if (to_net_known(b, n, 0, &count, v))
		return to_net_give_known(b, n, count, v); /* a vector of one, and a number: the same here */
	if (!mapped_is_plain(x, 4) || to_net_node(b, x)->height * to_net_node(b, x)->width != 1 ||
	    !to_net_axes(b, n, 1, 4, &count, axes) || count != 2 || axes[0] + axes[1] != 5)
		return to_net_no(b, n, "not of a plane of one pixel");
	return to_net_give(b, n, x->id, 2);
}

int map_unsqueeze(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t axes[MAX_KNOWN], v[MAX_KNOWN];
	int count;

	if (to_net_known(b, n, 0, &count, v))
		return to_net_give_known(b, n, count, v);
	if (!mapped_is_plain(x, 2) || to_net_node(b, x)->flat ||
	    to_net_node(b, x)->height * to_net_node(b, x)->width != 1 ||
	    !to_net_axes(b, n, 1, 4, &count, axes) || count != 2 || axes[0] + axes[1] != 5)
		return to_net_no(b, n, "not to a plane of one pixel");
	return to_net_give(b, n, x->id, 4);
}

/* Only of the input itself, which then is in the order that ONNX wants; ours is (N, H, W, C) anyway. */
int map_transpose(struct to_net *b, const struct onnx_node *n)
{
	static const int64_t want[4] = {0, 3, 1, 2};
	const struct mapped *x = to_net_in(b, n, 0);
	bool good = x->id == 0 && x->raw;

	for (size_t i = 0; i < 4; i++)
		good &= node_attr_at(n, "perm", i, -1) == want[i];
	return good ? to_net_give(b, n, 0, 4) : to_net_no(b, n, "an order of dimensions");
}

/* A place that counts from the end where it is negative, as 0 … rank. */
static int64_t within(int64_t at, int rank)
{
	at = at < -rank ? 0 : at < 0 ? at + rank : at;
	return at > rank ? rank : at;
}

int map_shape(struct to_net *b, const struct onnx_node *n)
{
	const struct mapped *x = to_net_in(b, n, 0);
	const struct node *node;
	int64_t v[4] = {BATCH}, from = node_attr_i(n, "start", 0), to = node_attr_i(n, "end", x->rank);

	if (!mapped_is_plain(x, 0))
		return to_net_no(b, n, "not of a plane or of features");
	node = to_net_node(b, x);
	v[1] = x->rank == 4 ? node->channels : (int64_t)node->channels * node->height * node->width;
	v[2] = node->height;
	v[3] = node->width;
	from = within(from, x->rank);
	to = within(to, x->rank);
	return to_net_give_known(b, n, to > from ? (int)(to - from) : 0, v + from);
}

int map_gather(struct to_net *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], at[MAX_KNOWN], out[MAX_KNOWN];
	int count, n_at;

	if (node_attr_i(n, "axis", 0) || !to_net_known(b, n, 0, &count, v) ||
	    !to_net_known(b, n, 1, &n_at, at))
		return to_net_no(b, n, "not of a shape");
	for (int i = 0; i < n_at; i++) {
		at[i] += at[i] < 0 && at[i] >= -count ? count : 0;
		if (at[i] < 0 || at[i] >= count)
			return to_net_no(b, n, "beyond the shape");
		out[i] = v[at[i]];
	}
	return to_net_give_known(b, n, n_at, out);
}

int map_slice(struct to_net *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], from[MAX_KNOWN], to[MAX_KNOWN], step[MAX_KNOWN] = {1};
	int count, n_from, n_to, n_step = 1;

	if (!to_net_known(b, n, 0, &count, v) || !to_net_known(b, n, 1, &n_from, from) ||
	    !to_net_known(b, n, 2, &n_to, to) ||
	    (node_has_in(n, 4) && !to_net_known(b, n, 4, &n_step, step)) || n_from != 1 || n_to != 1 ||
	    n_step != 1 || step[0] != 1)
		return to_net_no(b, n, "not of a shape");
	from[0] += from[0] < 0 ? count : 0;
	to[0] += to[0] < 0 ? count : 0;
	to[0] = to[0] > count ? count : to[0];
	if (from[0] < 0 || from[0] > to[0])
		return to_net_no(b, n, "beyond the shape");
	return to_net_give_known(b, n, (int)(to[0] - from[0]), v + from[0]);
}

int map_concat(struct to_net *b, const struct onnx_node *n)
{
	int64_t v[MAX_KNOWN], axis = node_attr_i(n, "axis", 1);
	const struct mapped *x = to_net_in(b, n, 0);
	int64_t part[MAX_KNOWN];
	int count = 0, id, k;

	if (mapped_is_plain(x, 4)) {
		id = x->id;
		if ((axis < 0 ? axis + 4 : axis) != 1)
			return to_net_no(b, n, "not of channels");
		for (int i = 1; i < n->n_in; i++) {
			const struct mapped *y = to_net_in(b, n, i);

			if (!mapped_is_plain(y, 4))
				return to_net_no(b, n, "not of planes");
			id = net_concat(b->net, id, y->id, b->err);
		}
		return to_net_give(b, n, id, 4);
	}
	for (int i = 0; i < n->n_in; i++) {
		if (!to_net_known(b, n, i, &k, part) || count + k > MAX_KNOWN)
			return to_net_no(b, n, "not of planes or of a shape");
		memcpy(v + count, part, (size_t)k * sizeof(*v));
		count += k;
	}
	return to_net_give_known(b, n, count, v);
}

/* Who reads it finds it by to_net_constant(); a value that it says otherwise is nobody's here. */
int map_constant(struct to_net *b, const struct onnx_node *n)
{
	const struct onnx_attr *a = onnx_attr_find(n, "value_ints");

	if (a && a->type == ONNX_ATTR_INTS && a->n <= MAX_KNOWN)
		return to_net_give_known(b, n, (int)a->n, a->ints);
	a = onnx_attr_find(n, "value_int");
	return a && a->type == ONNX_ATTR_INT ? to_net_give_known(b, n, 1, &a->i) : 0;
}
