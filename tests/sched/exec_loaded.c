/*
 * What a worker says of the cascades of an endpoint, and of what an ensemble's sub-models are made, arrives; what can't be is the end of
 * the worker, which starts anew.
 */
#include "sched/executor.h"
#include "engine/base/io.h"
#include "tests/dirhost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

/* What is wrong; the sub-models are 0, 1 and, idle, 2; both of the others begin a cascade that the other one ends. */
enum fault {
	WELL,
	FIRST_BEYOND,
	FIRST_IDLE,
	FIRST_TWICE,
	FIRST_SHORT,
	FIRST_LONG,
	FIRST_NO_NUMBER,
	FIRST_NEGATIVE,
	FIRST_LARGE,
	FIRST_DESCENDS,
	PAIR_BEYOND,
	PAIR_THEN_BEYOND,
	PAIR_IDLE,
	PAIR_THEN_IDLE,
	PAIR_ITSELF,
	PAIR_TWICE,
	PAIR_SHORT,
	PAIR_NO_NUMBER,
	PAIR_LARGE,
	PAIR_ALONE,  /* its first one is not among the firsts */
	PART_OF_ONE, /* though it is the only model */
	FAULTS,
	PART_MISSING, /* of an ensemble's */
	PART_BEYOND,
	PART_TWICE,
	PART_BACKWARDS,
	PART_SLICE,
	PART_PRECISION,
	PARTS_MANY,
	ENSEMBLE_FAULTS
};

static struct shared {
	volatile int fault, lives, ensemble, members_seen, fds_seen;
} * shared;

static void damage(struct wire_loaded *m, enum fault fault)
{
	struct wire_cascade_first *first = &m->firsts[0];
	struct wire_cascade_pair *pair = &m->pairs[0];
	struct wire_part *part = m->submodels[2].parts;

	if (fault == FIRST_BEYOND || fault == FIRST_IDLE ||
	    fault == FIRST_TWICE) { /* no pair is wrong by that */
		pair[0] = pair[1];
		m->n_pairs = 1;
	}
	switch (fault) {
	case FIRST_BEYOND:
		first->submodel = 3;
		break;
	case FIRST_IDLE:
		first->submodel = 2;
		break;
	case FIRST_TWICE:
		first->submodel = 1;
		break;
	case FIRST_SHORT:
		first->n_points--;
		break;
	case FIRST_LONG:
		first->n_points++;
		break;
	case FIRST_NO_NUMBER:
		first->points[3].sure = NAN;
		break;
	case FIRST_NEGATIVE:
		first->points[0].threshold = -0.1f;
		break;
	case FIRST_LARGE:
		first->points[8].threshold = 1.5f;
		break;
	case FIRST_DESCENDS:
		first->points[4].threshold = first->points[3].threshold - 0.01f;
		break;
	case PAIR_BEYOND:
		pair->first = UINT32_MAX;
		break;
	case PAIR_THEN_BEYOND:
		pair->then = 3;
		break;
	case PAIR_IDLE:
		pair->first = 2;
		break;
	case PAIR_THEN_IDLE:
		pair->then = 2;
		break;
	case PAIR_ITSELF:
		pair->then = 0;
		break;
	case PAIR_TWICE:
		pair[1] = pair[0];
		break;
	case PAIR_SHORT:
		pair->n_points = 0;
		break;
	case PAIR_NO_NUMBER:
		pair->points[8].accuracy = INFINITY;
		break;
	case PAIR_LARGE:
		pair->points[0].accuracy = 1.01f;
		break;
	case PAIR_ALONE:
		m->n_firsts = 1;
		break;
	case PART_OF_ONE:
	case PART_SLICE:
		m->submodels[2].n_parts = 1;
		part->slice = fault == PART_SLICE ? 1.01f : 1;
		break;
	case PART_MISSING:
		m->submodels[1].n_parts = 0;
		break;
	case PART_BEYOND:
		part[1].member = 2;
		break;
	case PART_TWICE:
		part[1].member = 0;
		break;
	case PART_BACKWARDS:
		part[0].member = 1;
		part[1].member = 0;
		break;
	case PART_PRECISION:
		part->precision = "float128";
		break;
	case PARTS_MANY:
		m->submodels[2].n_parts = 3;
		break;
	default:
		break;
	}
}

static void answer_load(struct wire_channel *ch, uint32_t endpoint, enum fault fault)
{
	struct wire_name names[] = {{"cat"}, {"dog"}};
	struct wire_part parts[] = {{0, 0.5f, "f32"}, {1, 1, "bf16"}, {2, 1, "f32"}};
	const uint32_t n_parts = shared->ensemble;
	struct wire_submodel submodels[] = {{0.5f, "f32", 0.7, 1000000, 100000, 0, parts, n_parts},
					    {1, "f32", 0.9, 2000000, 200000, 0, parts + 1, n_parts},
					    {1, "int8", 0.7, 1500000, 200000, 1, parts, 2 * n_parts}};
	struct wire_cascade_point points[2][CASCADE_POINTS + 1];
	struct wire_cascade_share shares[2][CASCADE_POINTS];
	struct wire_cascade_first firsts[] = {{0, points[0], CASCADE_POINTS}, {1, points[1], CASCADE_POINTS}};
	struct wire_cascade_pair pairs[] = {{0, 1, shares[0], CASCADE_POINTS},
					    {1, 0, shares[1], CASCADE_POINTS}};
	struct wire_message m = {.type = WIRE_LOADED,
				 .loaded = {.endpoint = endpoint,
					    .submodels = submodels,
					    .n_submodels = 3,
					    .firsts = firsts,
					    .n_firsts = 2,
					    .pairs = pairs,
					    .n_pairs = 2}};

	for (int i = 0; i < 2; i++)
		for (int k = 0; k <= CASCADE_POINTS; k++) {
			points[i][k] = (struct wire_cascade_point){0.5f + 0.05f * (float)(k / 2),
								   0.9f + 0.01f * (float)i};
			if (k < CASCADE_POINTS)
				shares[i][k].accuracy = 0.8f + 0.01f * (float)(10 * i + k);
		}
	damage(&m.loaded, fault);
	wire_send(ch,
		  &(struct wire_message){.type = WIRE_LABELS,
					 .labels = {.endpoint = endpoint, .names = names, .n_names = 2}},
		  0);
	wire_send(ch, &m, 0);
}

static void fake_worker(const char *kind, int fd)
{
	enum fault fault = shared->lives++ == 0 ? (enum fault)shared->fault : WELL;
	struct wire_channel ch;
	struct wire_message m;

	(void)kind;
	if (wire_init(&ch, fd, WIRE_TO_DAEMON) < 0)
		_exit(9);
	while (wire_recv(&ch, &m, 0) == 0) {
		if (m.type == WIRE_ENSEMBLE && strcmp(m.ensemble.name, "models/b/1") == 0 &&
		    m.ensemble.endpoint == 1 && m.ensemble.weight == 3 && !m.ensemble.has_validation) {
			shared->members_seen++;
			shared->fds_seen = m.n_fds;
		}
		if (m.type == WIRE_LOAD && m.n_fds == 2 + m.load.has_validation)
			answer_load(&ch, m.load.endpoint, fault);
		wire_clear(&m);
	}
	_exit(0);
}

struct seen {
	int loaded, died;
	bool ensemble;
};

static void on_loaded(void *data, uint32_t endpoint, int r, const struct err *err,
		      const struct submodel *submodels, int n, const char *const *labels, int n_labels)
{
	(void)endpoint, (void)err, (void)labels, (void)n_labels;
	((struct seen *)data)->loaded++;
	assert_int_equal(r, 0);
	assert_int_equal(n, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(submodels[i].n_parts, !((struct seen *)data)->ensemble ? 0 : i < 2 ? 1 : 2);
	if (((struct seen *)data)->ensemble) {
		assert_int_equal(submodels[1].parts[0].member, 1);
		assert_true(submodels[2].parts[0].slice == 0.5f && submodels[2].parts[1].slice == 1);
		assert_string_equal(submodels[2].parts[1].precision, "bf16");
	}
	for (int k = 0; k < CASCADE_POINTS; k++) {
		for (int i = 0; i < 2; i++) {
			assert_true(submodels[i].first.threshold[k] == 0.5f + 0.05f * (float)(k / 2));
			assert_true(submodels[i].first.sure[k] == 0.9f + 0.01f * (float)i);
			assert_true(submodels[i].then[1 - i][k] == 0.8f + 0.01f * (float)(10 * i + k));
			assert_true(submodels[i].then[i][k] == 0 && submodels[i].then[2][k] == 0);
		}
		assert_true(submodels[2].first.threshold[k] == 0 && submodels[2].then[1][k] == 0);
	}
}

static void on_done(void *data, const struct batch_done *done)
{
	(void)data, (void)done;
}

static void on_died(void *data)
{
	((struct seen *)data)->died++;
}

static bool is_loaded(void *data)
{
	return ((struct seen *)data)->loaded > 0;
}

static void check(int fault, bool ensemble)
{
	static const struct executor_events events = {on_loaded, on_done, on_died};
	struct endpoint_member members[2] = {{.name = "models/a/1", .weight = 1, .labels_fd = -1},
					     {.name = "models/b/1", .weight = 3, .validation_fd = -1}};
	struct endpoint_load load = {.endpoint = 1,
				     .batch = 8,
				     .labels_fd = -1,
				     .members = members,
				     .n_members = ensemble ? 2 : 0};
	struct seen seen = {.ensemble = ensemble};
	struct dirhost host;
	struct executor *ex;
	struct loop *loop;

	*shared = (struct shared){.fault = fault, .ensemble = ensemble};
	assert_int_equal(loop_new(&loop, false), 0);
	dirhost_init(&host, loop);
	host.child = fake_worker;
	assert_int_equal(executor_worker_new(&ex, loop, &dirhost_ops, &host, 1, &events, &seen), 0);
	assert_int_equal(io_memfd("model", "{}", 2, &load.model_fd), 0);
	load.weights_fd = load.model_fd;
	members[0].model_fd = members[0].weights_fd = members[0].validation_fd = load.model_fd;
	members[1].model_fd = members[1].weights_fd = members[1].labels_fd = load.model_fd;
	assert_int_equal(ex->ops->load(ex, &load), 0);
	assert_true(dirhost_run_until(loop, is_loaded, &seen, 10));
	if (seen.died != (fault != WELL))
		fail_msg("fault %d: it died %d times", fault, seen.died);
	assert_int_equal(seen.loaded, 1);
	if (ensemble) { /* also to the worker that came after the one that died */
		assert_int_equal(shared->members_seen, 1 + seen.died);
		assert_int_equal(shared->fds_seen, 3);
	}
	close(load.model_fd);
	ex->ops->free(ex);
	loop_free(loop);
	dirhost_release(&host);
}

static void test_cascades(void **state)
{
	(void)state;
	for (int fault = WELL; fault < FAULTS; fault++)
		check(fault, false);
}

static void test_parts(void **state)
{
	(void)state;
	check(WELL, true);
	for (int fault = FAULTS + 1; fault < ENSEMBLE_FAULTS; fault++)
		check(fault, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cascades),
		cmocka_unit_test(test_parts),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
