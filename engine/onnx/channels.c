/*
 * Nodes whose values have the same order are one set (union-find). A set's order is the plain one of the one concat in it; ours where
 * there is none, or several, or where something in the set wants ours. A concat has more channels than either input, and all of a set
 * have equally many: so following orders from a concat to its inputs' sets comes to an end.
 */
#include "engine/onnx/channels.h"

#include <errno.h>
#include <stdlib.h>

struct set {
	bool ours;
	int concats, concat;
};

struct channels {
	const struct net *net;
	float rate;
	int *parent;      /* (n_nodes) */
	struct set *sets; /* (n_nodes), of the roots */
	int **plain;      /* (n_nodes) of concats: what plain concatenation gives; NULL: ours */
	int **gather;     /* (n_nodes) */
	bool *known;      /* (n_nodes): plain is worked out */
	bool failed;
};

int channels_count(const struct net *net, int node, float rate)
{
	return slice_extent(net->nodes[node].channels, net->nodes[node].groups, rate);
}

static int root(const struct channels *c, int i)
{
	while (c->parent[i] != i)
		i = c->parent[i] = c->parent[c->parent[i]];
	return i;
}

static void join(struct channels *c, int a, int b)
{
	c->parent[root(c, a)] = root(c, b);
}

static void sort_out(struct channels *c, const bool *used)
{
	const struct net *net = c->net;
	bool *ours = c->known; /* borrowed for the while */

	for (int i = 0; i < net->n_nodes; i++) {
		const struct node *n = &net->nodes[i];

		if (!used[i])
			continue;
		switch (n->op) {
		case OP_input:
			ours[i] = true;
			break;
		case OP_conv2d:
			if (n->conv.conv_groups == n->channels &&
			    n->channels == net->nodes[n->in[0]].channels)
				join(c, i, n->in[0]); /* depthwise */
			else if (n->conv.conv_groups > 1)
				ours[i] = ours[n->in[0]] = true;
			break;
		case OP_linear:
		case OP_concat:
			break;
		case OP_add:
			join(c, i, n->in[0]);
			join(c, i, n->in[1]);
			break;
		case OP_group_norm:
			ours[i] = true;
			/* fall through */
		default:
			join(c, i, n->in[0]);
		}
	}
	ours[net->output] = true;
	for (int i = 0; i < net->n_nodes; i++) {
		struct set *set = &c->sets[root(c, i)];

		set->ours |= ours[i];
		ours[i] = false;
		if (used[i] && net->nodes[i].op == OP_concat) {
			set->concats++;
			set->concat = i;
		}
	}
}

static const int *plain_order(struct channels *c, int concat);

static const int *order_of(struct channels *c, int node)
{
	const struct set *set = &c->sets[root(c, node)];

	return set->ours || set->concats != 1 ? NULL : plain_order(c, set->concat);
}

/* Where one input's channels are among ours: `size` of them a group, `before` in a group of `all`. */
static void place(int *to, const int *order, int n, int size, int before, int all)
{
	for (int i = 0; i < n; i++) {
		int channel = order ? order[i] : i;

		to[i] = channel / size * all + before + channel % size;
	}
}

static const int *plain_order(struct channels *c, int concat)
{
	const struct node *node = &c->net->nodes[concat];
	int n[2], size[2], groups, *order;
	bool same = true;

	if (c->known[concat])
		return c->plain[concat];
	c->known[concat] = true;
	for (int k = 0; k < 2; k++)
		n[k] = channels_count(c->net, node->in[k], c->rate);
	order = calloc((size_t)n[0] + (size_t)n[1], sizeof(*order));
	if (!order) {
		c->failed = true;
		return NULL;
	}
	groups = node->groups ? slice_extent(node->groups, node->groups, c->rate) : 1;
	for (int k = 0; k < 2; k++)
		size[k] = n[k] / groups;
	place(order, order_of(c, node->in[0]), n[0], size[0], 0, size[0] + size[1]);
	place(order + n[0], order_of(c, node->in[1]), n[1], size[1], size[0], size[0] + size[1]);
	for (int i = 0; i < n[0] + n[1]; i++)
		same &= order[i] == i;
	if (same)
		free(order);
	else
		c->plain[concat] = order;
	return c->plain[concat];
}

/* Works out all orders, and where they have to be undone. */
static void work_out(struct channels *c, const bool *used)
{
	for (int i = 0; i < c->net->n_nodes; i++) {
		const int *plain;
		int n = channels_count(c->net, i, c->rate);

		if (!used[i] || c->net->nodes[i].op != OP_concat)
			continue;
		plain = plain_order(c, i);
		if (!plain || order_of(c, i))
			continue;
		c->gather[i] = calloc((size_t)n, sizeof(**c->gather));
		if (!c->gather[i])
			c->failed = true;
		for (int k = 0; c->gather[i] && k < n; k++)
			c->gather[i][plain[k]] = k;
	}
}

int channels_new(struct channels **ret, const struct net *net, float rate, const bool *used)
{
	struct channels *c = calloc(1, sizeof(*c));
	size_t n = (size_t)net->n_nodes;

	if (!c)
		return -ENOMEM;
	c->net = net;
	c->rate = rate;
	c->parent = calloc(n, sizeof(*c->parent));
	c->sets = calloc(n, sizeof(*c->sets));
	c->plain = calloc(n, sizeof(*c->plain));
	c->gather = calloc(n, sizeof(*c->gather));
	c->known = calloc(n, sizeof(*c->known));
	c->failed = !c->parent || !c->sets || !c->plain || !c->gather || !c->known;
	if (!c->failed) {
		for (int i = 0; i < net->n_nodes; i++)
			c->parent[i] = i;
		sort_out(c, used);
		work_out(c, used);
	}
	if (c->failed) {
		channels_free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void channels_free(struct channels *c)
{
	if (!c)
		return;
	for (int i = 0; i < c->net->n_nodes; i++) {
		if (c->plain)
			free(c->plain[i]);
		if (c->gather)
			free(c->gather[i]);
	}
	free(c->parent);
	free(c->sets);
	free(c->plain);
	free(c->gather);
	free(c->known);
	free(c);
}

const int *channels_order(const struct channels *c, int node)
{
	const struct set *set = &c->sets[root(c, node)];

	return set->ours || set->concats != 1 ? NULL : c->plain[set->concat];
}

const int *channels_gather(const struct channels *c, int node)
{
	return c->gather[node];
}
