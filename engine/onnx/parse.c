/*
 * From protobuf to a checked graph. Each graph is read in three passes: what it declares (inputs, initializers,
 * outputs of nodes) gets numbers; then names of inputs become numbers, looked for in the graph and in those around
 * it; then the nodes are ordered. Subgraphs are read within the second pass, when all names around them are known.
 */
#include "engine/onnx/arena.h"
#include "engine/onnx/op.h"
#include "engine/onnx/order.h"
#include "engine/onnx/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct onnx_limits onnx_limits_default = {
	.file = (size_t)2 << 30, /* protobuf's own */
	.nodes = 100000,         /* chosen: large exported transformers have some 10,000 */
	.tensor = (size_t)4 << 30,
	.memory = (size_t)8 << 30,
	.depth = 48, /* 12 graphs in one another */
	.steps = 10000000,
};

/* A graph that is being read, and those around it. */
struct scope {
	struct scope *parent;
	struct onnx_graph *graph;
	struct names names;
	struct captures { /* of the node whose attributes are being read */
		int *ids;
		int n, room;
	} captures;
	int room; /* of graph->values */
};

struct parser {
	struct onnx_model *model;
	struct arena *arena;
	size_t nodes;
	struct err *err;
};

static int no_memory(struct parser *p)
{
	return err_set(p->err, ERR_NO_MEMORY, "a model");
}

static const char *copy(struct parser *p, const char *s)
{
	return s ? arena_string(p->arena, s, strlen(s)) : "";
}

static int keep_tensor(struct parser *p, struct onnx_tensor **ret, Onnx__TensorProto *from)
{
	struct onnx_model *m = p->model;
	struct onnx_tensor *t;
	int r;

	if (m->n_tensors == m->room) {
		size_t room = m->room ? 2 * m->room : 64;
		struct onnx_tensor **grown = realloc(m->tensors, room * sizeof(*grown));

		if (!grown)
			return no_memory(p);
		m->tensors = grown;
		m->room = room;
	}
	r = proto_tensor(&t, from, &m->memory, p->err);
	if (r < 0)
		return r;
	m->tensors[m->n_tensors++] = t;
	*ret = t;
	return 0;
}

static int add_value(struct parser *p, struct scope *s, const char *name, int *ret)
{
	struct onnx_graph *g = s->graph;
	int r;

	if (g->n_values == s->room) { /* outgrown arrays stay in the arena: at most as much again */
		int room = s->room ? 2 * s->room : 32;
		struct onnx_maker *grown = arena_alloc(p->arena, (size_t)room, sizeof(*grown));

		if (!grown)
			return no_memory(p);
		if (g->n_values)
			memcpy(grown, g->values, (size_t)g->n_values * sizeof(*grown));
		g->values = grown;
		s->room = room;
	}
	r = names_add(&s->names, name, g->n_values);
	if (r == -EEXIST)
		return err_set(p->err, ERR_BAD_ONNX, "two values are named '%.100s'", name);
	if (r < 0)
		return no_memory(p);
	g->values[g->n_values] =
		(struct onnx_maker){.value = {.name = name, .rank = -1}, .node = -1, .outer = -1};
	*ret = g->n_values++;
	return 0;
}

static int read_type(struct parser *p, struct onnx_value *v, const Onnx__TypeProto *type)
{
	const Onnx__TypeProto__Tensor *t;

	if (!type)
		return 0;
	if (type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
		return err_set(p->err, ERR_ONNX_UNSUPPORTED,
			       "sequences, maps and optionals ('%.100s' is one)", v->name);
	t = type->tensor_type;
	if (t->elem_type && !onnx_type_size(t->elem_type))
		return err_set(p->err, ERR_ONNX_UNSUPPORTED, "tensors of type %s ('%.100s')",
			       onnx_type_name(t->elem_type), v->name);
	v->type = (enum onnx_type)t->elem_type;
	if (!t->shape)
		return 0;
	if (t->shape->n_dim > ONNX_MAX_RANK)
		return err_set(p->err, ERR_ONNX_LIMIT, "'%.100s' is of rank %zu; at most %d", v->name,
			       t->shape->n_dim, ONNX_MAX_RANK);
	v->rank = (int)t->shape->n_dim;
	for (int d = 0; d < v->rank; d++) {
		const Onnx__TensorShapeProto__Dimension *dim = t->shape->dim[d];

		v->dims[d] = dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
				     ? dim->dim_value
				     : -1;
		if (v->dims[d] < -1)
			return err_set(p->err, ERR_BAD_ONNX, "'%.100s' has a negative dimension", v->name);
	}
	return 0;
}

/* The value of that name in s or around it; one from around becomes a value of s, and of all between. */
static int find_value(struct parser *p, struct scope *s, const char *name, int *ret)
{
	struct captures *c;
	int outer, r;

	*ret = names_get(&s->names, name);
	if (*ret >= 0 || !s->parent)
		return 0;
	r = find_value(p, s->parent, name, &outer);
	if (r < 0 || outer < 0)
		return r;
	c = &s->parent->captures;
	if (c->n == c->room) {
		int room = c->room ? 2 * c->room : 16;
		int *grown = realloc(c->ids, (size_t)room * sizeof(*grown));

		if (!grown)
			return no_memory(p);
		c->ids = grown;
		c->room = room;
	}
	r = add_value(p, s, s->parent->graph->values[outer].value.name, ret);
	if (r < 0)
		return r;
	s->graph->values[*ret].outer = outer;
	c->ids[c->n++] = outer;
	return 0;
}

static int read_graph(struct parser *p, struct onnx_graph **ret, Onnx__GraphProto *from,
		      struct scope *parent);

static int read_strings(struct parser *p, struct onnx_attr *attr, const Onnx__AttributeProto *from)
{
	const char **strings = arena_alloc(p->arena, from->n_strings, sizeof(*strings));

	if (!strings)
		return no_memory(p);
	attr->n = from->n_strings;
	attr->strings = strings;
	for (size_t i = 0; i < attr->n; i++) {
		strings[i] =
			arena_string(p->arena, (const char *)from->strings[i].data, from->strings[i].len);
		if (!strings[i])
			return no_memory(p);
	}
	return 0;
}

static int read_attr(struct parser *p, struct scope *s, struct onnx_attr *attr, Onnx__AttributeProto *from)
{
	void *list;

	attr->name = copy(p, from->name);
	attr->type = (enum onnx_attr_type)from->type;
	if (!attr->name)
		return no_memory(p);
	switch (from->type) {
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT:
		attr->f = from->f;
		return 0;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT:
		attr->i = from->i;
		return 0;
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING:
		attr->s = arena_string(p->arena, (const char *)from->s.data, from->s.len);
		return attr->s ? 0 : no_memory(p);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR:
		if (!from->t)
			break;
		return keep_tensor(p, &attr->tensor, from->t);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH:
		if (!from->g)
			break;
		return read_graph(p, &attr->graph, from->g, s);
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS:
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS: {
		bool ints = from->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
		size_t size = ints ? sizeof(int64_t) : sizeof(float);

		attr->n = ints ? from->n_ints : from->n_floats;
		list = arena_alloc(p->arena, attr->n, size);
		if (!list)
			return no_memory(p);
		if (attr->n)
			memcpy(list, ints ? (const void *)from->ints : from->floats, attr->n * size);
		if (ints)
			attr->ints = list;
		else
			attr->floats = list;
		return 0;
	}
	case ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS:
		return read_strings(p, attr, from);
	default:
		break;
	}
	return err_set(p->err, ERR_ONNX_UNSUPPORTED, "attribute '%.100s' of type %d", attr->name,
		       (int)from->type);
}

static int check_op(struct parser *p, struct onnx_node *node, const Onnx__NodeProto *from)
{
	const char *domain = from->domain ? from->domain : "", *type = from->op_type ? from->op_type : "";
	const struct onnx_op *other = NULL;
	bool ours = !*domain || strcmp(domain, "ai.onnx") == 0;

	node->version = p->model->version;
	if (ours)
		node->op = onnx_op_find(type, node->version, &other);
	if (!node->op)
		return err_set(p->err, ERR_ONNX_UNSUPPORTED,
			       "%.60s%s%.60s (operator set %lld), node '%.100s'%s", ours ? "" : domain,
			       ours ? "" : ".", type, (long long)node->version, node->name,
			       other ? ": not in this version" : "");
	if (node->n_in < node->op->in_min || node->n_in > node->op->in_max ||
	    node->n_out < node->op->out_min || node->n_out > node->op->out_max)
		return err_set(p->err, ERR_BAD_ONNX,
			       "%s (operator set %lld), node '%.100s': %d inputs and %d outputs, which it "
			       "can't have",
			       type, (long long)node->version, node->name, node->n_in, node->n_out);
	return 0;
}

static int read_node(struct parser *p, struct scope *s, struct onnx_node *node, Onnx__NodeProto *from)
{
	int r;

	for (int i = 0; i < node->n_in; i++) {
		node->in[i] = -1;
		if (*from->input[i]) {
			r = find_value(p, s, from->input[i], &node->in[i]);
			if (r < 0)
				return r;
			if (node->in[i] < 0)
				return err_set(p->err, ERR_BAD_ONNX,
					       "%s, node '%.100s': nothing makes its input '%.100s'",
					       node->op->type, node->name, from->input[i]);
			s->graph->values[node->in[i]].uses++;
		} else if (i < node->op->in_min) {
			return err_set(p->err, ERR_BAD_ONNX, "%s, node '%.100s': input %d is left out",
				       node->op->type, node->name, i);
		}
	}
	node->n_attrs = (int)from->n_attribute;
	node->attrs = arena_alloc(p->arena, from->n_attribute, sizeof(*node->attrs));
	if (!node->attrs)
		return no_memory(p);
	s->captures.n = 0;
	for (int i = 0; i < node->n_attrs; i++) {
		r = read_attr(p, s, &node->attrs[i], from->attribute[i]);
		if (r < 0)
			return r;
		for (int j = 0; j < i; j++)
			if (strcmp(node->attrs[i].name, node->attrs[j].name) == 0)
				return err_set(p->err, ERR_BAD_ONNX,
					       "%s, node '%.100s': two attributes '%.100s'", node->op->type,
					       node->name, node->attrs[i].name);
	}
	node->n_captures = s->captures.n;
	node->captures = arena_alloc(p->arena, (size_t)s->captures.n, sizeof(*node->captures));
	if (!node->captures)
		return no_memory(p);
	for (int i = 0; i < node->n_captures; i++) {
		node->captures[i] = s->captures.ids[i];
		s->graph->values[node->captures[i]].uses++;
	}
	return 0;
}

/* Numbers for what the graph makes. */
static int declare(struct parser *p, struct scope *s, Onnx__GraphProto *from)
{
	struct onnx_graph *g = s->graph;
	int id = 0, r;

	g->in = arena_alloc(p->arena, from->n_input, sizeof(*g->in));
	if (!g->in)
		return no_memory(p);
	for (size_t i = 0; i < from->n_input; i++) {
		const char *name = copy(p, from->input[i]->name);

		if (!name)
			return no_memory(p);
		r = add_value(p, s, name, &id);
		if (r == 0)
			r = read_type(p, &g->values[id].value, from->input[i]->type);
		if (r < 0)
			return r;
		g->values[id].input = true;
		g->in[g->n_in++] = id;
	}
	if (from->n_sparse_initializer)
		return err_set(p->err, ERR_ONNX_UNSUPPORTED, "sparse initializers");
	for (size_t i = 0; i < from->n_initializer; i++) {
		struct onnx_tensor *t = NULL;
		const char *name;

		r = keep_tensor(p, &t, from->initializer[i]);
		if (r < 0 || !t)
			return r;
		name = from->initializer[i]->name ? from->initializer[i]->name : "";
		id = names_get(&s->names, name);
		if (id < 0) {
			name = copy(p, name);
			if (!name)
				return no_memory(p);
			r = add_value(p, s, name, &id);
			if (r < 0)
				return r;
		}
		if (g->values[id].constant)
			return err_set(p->err, ERR_BAD_ONNX, "two initializers are named '%.100s'", name);
		g->values[id].constant = t;
		g->values[id].value.type = t->type;
		g->values[id].value.rank = t->rank;
		memcpy(g->values[id].value.dims, t->dims, sizeof(t->dims));
	}
	/* what an initializer provides need not be given */
	id = 0;
	for (int i = 0; i < g->n_in; i++)
		if (!g->values[g->in[i]].constant)
			g->in[id++] = g->in[i];
	g->n_in = id;
	return 0;
}

static int declare_nodes(struct parser *p, struct scope *s, Onnx__GraphProto *from)
{
	struct onnx_graph *g = s->graph;

	p->nodes += from->n_node;
	if (p->nodes > p->model->limits.nodes)
		return err_set(p->err, ERR_ONNX_LIMIT, "%zu nodes; at most %zu", p->nodes,
			       p->model->limits.nodes);
	g->n_nodes = (int)from->n_node;
	g->nodes = arena_alloc(p->arena, from->n_node, sizeof(*g->nodes));
	if (!g->nodes)
		return no_memory(p);
	for (int i = 0; i < g->n_nodes; i++) {
		Onnx__NodeProto *n = from->node[i];
		struct onnx_node *node = &g->nodes[i];
		int r;

		if (n->n_input > ONNX_MANY || n->n_output > ONNX_MANY)
			return err_set(p->err, ERR_ONNX_LIMIT, "a node with %zu inputs and %zu outputs",
				       n->n_input, n->n_output);
		*node = (struct onnx_node){.name = copy(p, n->name),
					   .n_in = (int)n->n_input,
					   .n_out = (int)n->n_output,
					   .in = arena_alloc(p->arena, n->n_input, sizeof(int)),
					   .out = arena_alloc(p->arena, n->n_output, sizeof(int))};
		if (!node->name || !node->in || !node->out)
			return no_memory(p);
		r = check_op(p, node, n);
		for (int j = 0; r == 0 && j < node->n_out; j++) {
			const char *name = n->output[j];

			node->out[j] = -1;
			if (!*name)
				continue;
			name = copy(p, name);
			r = name ? add_value(p, s, name, &node->out[j]) : no_memory(p);
			if (r == 0)
				g->values[node->out[j]].node = i;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_outputs(struct parser *p, struct scope *s, Onnx__GraphProto *from)
{
	struct onnx_graph *g = s->graph;

	g->n_out = (int)from->n_output;
	g->out = arena_alloc(p->arena, from->n_output, sizeof(*g->out));
	if (!g->out)
		return no_memory(p);
	for (int i = 0; i < g->n_out; i++) {
		const char *name = from->output[i]->name ? from->output[i]->name : "";
		struct onnx_value said;
		int r;

		/* a subgraph may hand out a value from around it */
		r = find_value(p, s, name, &g->out[i]);
		if (r < 0)
			return r;
		if (g->out[i] < 0)
			return err_set(p->err, ERR_BAD_ONNX, "nothing makes the output '%.100s'", name);
		said = (struct onnx_value){.name = g->values[g->out[i]].value.name, .rank = -1};
		r = read_type(p, &said, from->output[i]->type);
		if (r < 0)
			return r;
		if (g->values[g->out[i]].node >= 0)
			g->values[g->out[i]].value = said;
		g->values[g->out[i]].uses++;
	}
	return 0;
}

static int read_graph(struct parser *p, struct onnx_graph **ret, Onnx__GraphProto *from, struct scope *parent)
{
	struct scope s = {.parent = parent};
	struct onnx_graph *g = arena_alloc(p->arena, 1, sizeof(*g));
	int r;

	if (!g)
		return no_memory(p);
	s.graph = g;
	g->parent = parent ? parent->graph : NULL;
	g->name = copy(p, from->name);
	if (!g->name)
		return no_memory(p);
	r = declare(p, &s, from);
	if (r == 0)
		r = declare_nodes(p, &s, from);
	for (int i = 0; r == 0 && i < g->n_nodes; i++)
		r = read_node(p, &s, &g->nodes[i], from->node[i]);
	if (r == 0)
		r = read_outputs(p, &s, from);
	if (r == 0)
		r = order_nodes(g, p->err);
	names_release(&s.names);
	free(s.captures.ids);
	if (r < 0)
		return r;
	*ret = g;
	return 0;
}

static int read_metadata(struct parser *p, const Onnx__ModelProto *from)
{
	struct onnx_model *m = p->model;

	m->notes = arena_alloc(p->arena, from->n_metadata_props, sizeof(*m->notes));
	if (!m->notes)
		return no_memory(p);
	for (; m->n_notes < from->n_metadata_props; m->n_notes++) {
		struct onnx_note *note = &m->notes[m->n_notes];

		note->key = copy(p, from->metadata_props[m->n_notes]->key);
		note->value = copy(p, from->metadata_props[m->n_notes]->value);
		if (!note->key || !note->value)
			return no_memory(p);
	}
	return 0;
}

static int read_model(struct parser *p, Onnx__ModelProto *from)
{
	struct onnx_model *m = p->model;
	int r;

	if (!from->graph)
		return err_set(p->err, ERR_BAD_ONNX, "it has no graph");
	m->version = from->ir_version < 3 ? 1 : 0; /* older files do not say */
	for (size_t i = 0; i < from->n_opset_import; i++) {
		const Onnx__OperatorSetIdProto *set = from->opset_import[i];

		if (set->domain && *set->domain && strcmp(set->domain, "ai.onnx") != 0)
			continue;
		if (m->version > 1 && m->version != set->version)
			return err_set(p->err, ERR_BAD_ONNX, "it asks for operator set %lld and %lld",
				       (long long)m->version, (long long)set->version);
		m->version = set->version;
	}
	if (m->version > ONNX_NEWEST)
		return err_set(p->err, ERR_ONNX_UNSUPPORTED, "operator set %lld; at most %d",
			       (long long)m->version, ONNX_NEWEST);
	r = read_metadata(p, from);
	return r < 0 ? r : read_graph(p, &m->graph, from->graph, NULL);
}

int onnx_load(struct onnx_model **ret, const void *data, size_t size, const struct onnx_limits *limits,
	      struct err *err)
{
	struct err scratch = ERR_INIT; /* so that a cause is known */
	struct onnx_model *m = calloc(1, sizeof(*m));
	struct parser p = {.model = m, .err = err ? err : &scratch};
	ProtobufCMessage *message = NULL;
	int r = -ENOMEM;

	if (!m || arena_new(&m->arena) < 0) {
		r = no_memory(&p);
		goto out;
	}
	p.arena = m->arena;
	m->limits = limits ? *limits : onnx_limits_default;
	m->memory = (struct onnx_memory){.limit = m->limits.memory, .tensor = m->limits.tensor};
	message = proto_unpack(&onnx__model_proto__descriptor, data, size, &m->limits, p.err);
	r = message ? read_model(&p, (Onnx__ModelProto *)message) : -err_errno(p.err->code);
	if (r < 0)
		goto out;
	for (size_t i = 0; i < m->n_tensors;
	     i++) /* runs may hand them out, and they outlive the model then */
		tensor_detach(m->tensors[i]);
	*ret = m;
	m = NULL;
out:
	proto_free(message);
	onnx_free(m);
	return r;
}

void onnx_free(struct onnx_model *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_tensors; i++)
		onnx_tensor_free(m->tensors[i]);
	free(m->tensors);
	arena_free(m->arena);
	free(m);
}

const char *onnx_metadata(const struct onnx_model *m, const char *key)
{
	for (size_t i = 0; i < m->n_notes; i++)
		if (strcmp(m->notes[i].key, key) == 0)
			return m->notes[i].value;
	return NULL;
}

size_t onnx_inputs(const struct onnx_model *m)
{
	return (size_t)m->graph->n_in;
}

size_t onnx_outputs(const struct onnx_model *m)
{
	return (size_t)m->graph->n_out;
}

const struct onnx_value *onnx_input(const struct onnx_model *m, size_t i)
{
	return &m->graph->values[m->graph->in[i]].value;
}

const struct onnx_value *onnx_output(const struct onnx_model *m, size_t i)
{
	return &m->graph->values[m->graph->out[i]].value;
}
