/*
 * The executor over worker processes that behave, die, hang or talk nonsense. The worker here is a forked
 * child that runs fake_worker() below; what it does wrong is set in shared memory.
 */
#include "sched/executor.h"
#include "engine/base/io.h"
#include "tests/dirhost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <sys/mman.h>

#include <cmocka.h>

enum fault {
	WELL,
	DIE_ON_RUN,
	HANG_ON_RUN,
	DIE_ON_LOAD_2, /* of endpoint 2 */
	GARBAGE,       /* first of those that answer nonsense */
	GARBAGE_EMPTY,
	GARBAGE_TYPE,
	GARBAGE_SEQUENCE,
	GARBAGE_CUT,         /* a message that ends too early */
	GARBAGE_DESCRIPTORS, /* more than any message has */
	WRONG_ORDER,         /* DONE before ANSWERS */
	LABELS_NOW,
	LOADED_NOW,
	PICTURES_NOW,
	WRONG_BATCH,
	WRONG_ID,
	TOO_MANY,
	TOO_FEW,
	NOT_A_NUMBER,
	UNKNOWN_ERROR,
	BAD_LABEL,
	TOO_MANY_TOP,
	SMALL_PICTURES,
	UNSEALED_PICTURES,
	PIPE_PICTURES,
	DIRECTORY_PICTURES,
	SHRINKING_PICTURES,
	FAULTS,
	FLIPPED /* answers with some bytes changed at random */
};

/* Shared with the children. */
static struct shared {
	volatile int fault;  /* enum fault */
	volatile int lives;  /* workers started so far */
	volatile int faulty; /* how many lives still have the fault */
} * shared;

static uint32_t seed;

static uint32_t random_u32(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

/* As wire_send, but of a packet that was changed on its way. */
static void send_damaged(struct wire_channel *ch, const struct wire_message *m, enum fault fault)
{
	static uint8_t packet[WIRE_MAX];
	struct iovec iov = {.iov_base = packet};
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t len;

	wire_encode(m, ch->sent++, packet, &len);
	if (fault == GARBAGE_CUT)
		len -= 3;
	for (uint32_t n = fault == FLIPPED ? 1 + random_u32() % 3 : 0; n; n--)
		packet[random_u32() % len] = (uint8_t)random_u32();
	iov.iov_len = len;
	if (fault == GARBAGE_DESCRIPTORS) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.data;
		msg.msg_controllen = sizeof(control.data);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(64 * sizeof(int));
		for (int i = 0; i < 64; i++)
			memcpy(CMSG_DATA(cmsg) + (size_t)i * sizeof(int), &ch->fd, sizeof(int));
	}
	if (sendmsg(ch->fd, &msg, MSG_NOSIGNAL) < 0)
		_exit(9);
}

static void answer_load(struct wire_channel *ch, const struct wire_message *m)
{
	struct wire_name names[] = {{"cat"}, {"dog"}};
	struct wire_submodel submodels[] = {{0.5f, "f32", 0.7, 1000000, 100000, 0, NULL, 0},
					    {1, "f32", 0.9, 2000000, 200000, 0, NULL, 0}};
	char json[64] = "";

	if (pread(m->fds[0], json, sizeof(json) - 1, 0) < 0 || strcmp(json, "{\"bad\":1}") == 0) {
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_LOADED,
						 .loaded = {.endpoint = m->load.endpoint,
							    .code = ERR_BAD_MODEL,
							    .detail = "as the test wants"}},
			  0);
		return;
	}
	wire_send(ch,
		  &(struct wire_message){
			  .type = WIRE_LABELS,
			  .labels = {.endpoint = m->load.endpoint, .names = names, .n_names = 2}},
		  0);
	wire_send(ch,
		  &(struct wire_message){
			  .type = WIRE_LOADED,
			  .loaded = {.endpoint = m->load.endpoint, .submodels = submodels, .n_submodels = 2}},
		  0);
}

static void answer_explain(struct wire_channel *ch, const struct wire_message *m, enum fault fault);

/* label: the first byte of the instance; "bad" fails. */
static void answer_run(struct wire_channel *ch, const struct wire_message *m, enum fault fault)
{
	struct wire_answer answers[8] = {0};
	struct wire_top tops[8][6] = {0};
	uint32_t n = m->run.n_inputs;
	uint64_t batch = m->run.batch, at = 0;

	for (uint32_t i = 0; i < n; i++) {
		char text[16] = "";

		if (pread(m->fds[0], text, m->run.inputs[i].len, (off_t)at) < 0)
			_exit(9);
		at += m->run.inputs[i].len;
		answers[i] = (struct wire_answer){.id = m->run.inputs[i].id, .top = tops[i], .n_top = 1};
		if (strcmp(text, "bad") == 0) {
			answers[i].failed = 1;
			answers[i].code = ERR_BAD_IMAGE;
			answers[i].detail = "bad";
			answers[i].n_top = 0;
		}
		answers[i].label = tops[i][0].label = (uint8_t)text[0];
		answers[i].score = tops[i][0].score = 0.5f;
	}
	if (fault == WRONG_BATCH)
		batch++;
	if (fault == WRONG_ID)
		answers[0].id++;
	if (fault == TOO_MANY)
		n++;
	if (fault == TOO_FEW)
		n--;
	if (fault == NOT_A_NUMBER)
		answers[0].score = NAN;
	if (fault == UNKNOWN_ERROR) {
		answers[0].failed = 1;
		answers[0].code = ERR_COUNT;
	}
	if (fault == BAD_LABEL)
		answers[0].label = UINT32_MAX;
	if (fault == TOO_MANY_TOP)
		answers[0].n_top = 6;
	if (fault == WRONG_ORDER)
		wire_send(ch, &(struct wire_message){.type = WIRE_DONE, .done = {batch, 7, 3}}, 0);
	if (fault == LABELS_NOW)
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_LABELS,
						 .labels = {1, &(struct wire_name){"cat"}, 1}},
			  0);
	if (fault == LOADED_NOW)
		wire_send(
			ch,
			&(struct wire_message){.type = WIRE_LOADED, .loaded = {.endpoint = 1, .detail = ""}},
			0);
	if (fault == PICTURES_NOW)
		answer_explain(ch, &(struct wire_message){.explain.batch = batch}, fault);
	send_damaged(ch,
		     &(struct wire_message){.type = WIRE_ANSWERS,
					    .answers = {.batch = batch, .answers = answers, .n_answers = n}},
		     fault);
	wire_send(ch,
		  &(struct wire_message){.type = WIRE_DONE,
					 .done = {.batch = batch, .compute_ns = 7, .core = 3}},
		  0);
}

static void answer_explain(struct wire_channel *ch, const struct wire_message *m, enum fault fault)
{
	struct wire_picture pictures[8] = {0};
	struct wire_message answer = {.type = WIRE_PICTURES,
				      .n_fds = 1,
				      .pictures = {.batch = m->explain.batch,
						   .pictures = pictures,
						   .n_pictures = m->explain.n_wishes}};
	int pair[2];

	for (uint32_t i = 0; i < m->explain.n_wishes; i++)
		pictures[i].len = 3;
	if (fault == SMALL_PICTURES)
		pictures[0].len = UINT64_MAX - 1;
	if (fault == PIPE_PICTURES) {
		if (pipe(pair) < 0)
			_exit(9);
		answer.fds[0] = pair[0];
	} else if (fault == DIRECTORY_PICTURES) {
		answer.fds[0] = open("/", O_RDONLY | O_DIRECTORY);
	} else {
		io_memfd_new("pictures", &answer.fds[0]);
		for (uint32_t i = 0; i < m->explain.n_wishes; i++)
			dprintf(answer.fds[0], "P%u;", m->explain.wishes[i].label);
		if (fault != UNSEALED_PICTURES && fault != SHRINKING_PICTURES)
			io_memfd_seal(answer.fds[0]);
	}
	wire_send(ch, &answer, 0);
	for (int i = 0; fault == SHRINKING_PICTURES && i < 100000; i++)
		if (ftruncate(answer.fds[0], i % 2 ? 4096 : 0) < 0)
			_exit(9);
}

static void fake_worker(const char *kind, int fd)
{
	enum fault fault = shared->faulty > 0 ? shared->fault : WELL;
	static uint8_t packet[4096];
	struct wire_channel ch;
	struct wire_message m;
	size_t len;

	if (strcmp(kind, "infer") != 0 || wire_init(&ch, fd, WIRE_TO_DAEMON) < 0)
		_exit(9);
	seed = (uint32_t)shared->lives++;
	shared->faulty--;
	while (wire_recv(&ch, &m, 0) == 0) {
		switch (m.type) {
		case WIRE_LOAD:
			if (fault == DIE_ON_LOAD_2 && m.load.endpoint == 2)
				_exit(0);
			answer_load(&ch, &m);
			break;
		case WIRE_RUN:
			if (fault == DIE_ON_RUN)
				kill(getpid(), SIGKILL);
			if (fault == HANG_ON_RUN)
				pause();
			if (fault == GARBAGE)
				write(fd, "\x01\x02garbage that is no header at all", 30);
			else if (fault == GARBAGE_EMPTY)
				send(fd, "", 0, 0);
			else if (fault == GARBAGE_TYPE)
				ch.sends = WIRE_TO_WORKER, wire_send(&ch, &m, 0);
			else if (fault == GARBAGE_SEQUENCE) {
				wire_encode(&(struct wire_message){.type = WIRE_DONE}, 77, packet, &len);
				write(fd, packet, len);
			}
			answer_run(&ch, &m, fault);
			break;
		case WIRE_EXPLAIN:
			answer_explain(&ch, &m, fault);
			break;
		default:
			break;
		}
		wire_clear(&m);
	}
	_exit(0);
}

/* --- the caller's side --- */

struct fixture {
	struct loop *loop;
	struct dirhost host;
	struct executor *ex;
	int loaded[4], failed[4]; /* by endpoint */
	char err[512];
	int done, eio, died, labels;
	uint64_t order[16];
	int instance_failed, last_label[8];
	char pictures[64];
};

static void on_loaded(void *data, uint32_t endpoint, int r, const struct err *err,
		      const struct submodel *submodels, int n, const char *const *labels, int n_labels)
{
	struct fixture *f = data;

	if (r < 0) {
		f->failed[endpoint]++;
		err_format(err, f->err, sizeof(f->err));
		return;
	}
	f->loaded[endpoint]++;
	f->labels = n_labels;
	assert_int_equal(n, 2);
	assert_true(submodels[1].time_ns == 2000000 && submodels[1].accuracy == 0.9);
	assert_string_equal(labels[1], "dog");
}

static void on_done(void *data, const struct batch_done *done)
{
	struct fixture *f = data;

	if (f->done + f->eio < 16)
		f->order[f->done + f->eio] = done->batch;
	if (done->r < 0) {
		assert_int_equal(done->r, -EIO);
		f->eio++;
		return;
	}
	f->done++;
	assert_int_equal(done->core, done->answers ? 3 : 0);
	for (int i = 0; done->answers && i < done->n; i++) {
		f->instance_failed += done->answers[i].failed;
		f->last_label[i] = done->answers[i].label;
	}
	if (done->picture_fd >= 0) {
		ssize_t n = pread(done->picture_fd, f->pictures, sizeof(f->pictures) - 1, 0);

		f->pictures[n < 0 ? 0 : n] = '\0';
		assert_int_equal(done->picture_len[0], 3);
	}
}

static void on_died(void *data)
{
	((struct fixture *)data)->died++;
}

static const struct executor_events events = {on_loaded, on_done, on_died};

static int load(struct fixture *f, uint32_t endpoint, const char *json)
{
	int fd, r;

	assert_int_equal(io_memfd("model", json, strlen(json), &fd), 0);
	r = f->ex->ops->load(
		f->ex,
		&(struct endpoint_load){
			.endpoint = endpoint, .batch = 8, .model_fd = fd, .weights_fd = fd, .labels_fd = -1});
	close(fd);
	return r;
}

static int run(struct fixture *f, uint64_t batch)
{
	const struct instance_input in[] = {{10, "a", 1}, {11, "bad", 3}, {12, "c", 1}};

	return f->ex->ops->run(f->ex, batch, 1, 1, in, 3);
}

static int explain(struct fixture *f, uint64_t batch)
{
	const struct instance_input in[] = {{10, "a", 1}, {11, "b", 1}};

	return f->ex->ops->explain(f->ex, batch, 1, 0, in, (const int[]){4, 5}, (const float[]){0.5f, 0.25f},
				   2);
}

static bool is_loaded(void *data)
{
	return ((struct fixture *)data)->loaded[1] > 0;
}

static bool is_loaded_again(void *data)
{
	return ((struct fixture *)data)->loaded[1] > 1;
}

static bool two_answered(void *data)
{
	struct fixture *f = data;

	return f->done + f->eio >= 2;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!shared)
		shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			      0);
	*shared = (struct shared){0};
	assert_int_equal(loop_new(&f->loop, false), 0);
	dirhost_init(&f->host, f->loop);
	f->host.child = fake_worker;
	assert_int_equal(executor_worker_new(&f->ex, f->loop, &dirhost_ops, &f->host, 1, &events, f), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int status;

	f->ex->ops->free(f->ex);
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1); /* every child was waited for */
	loop_free(f->loop);
	dirhost_release(&f->host);
	free(f);
	return 0;
}

static void test_batches(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, 1, "{}"), 0);
	assert_int_equal(run(f, 1), -ENOTCONN);
	assert_int_equal(f->loaded[1], 0); /* never from within load() */
	assert_true(dirhost_run_until(f->loop, is_loaded, f, 10));
	assert_int_equal(f->labels, 2);
	assert_int_equal(run(f, 1), 0);
	assert_int_equal(explain(f, 2), 0);
	assert_int_equal(run(f, 3), -EBUSY);
	assert_true(dirhost_run_until(f->loop, two_answered, f, 10));
	assert_int_equal(f->done, 2);
	assert_true(f->order[0] == 1 && f->order[1] == 2);
	assert_int_equal(f->instance_failed, 1);
	assert_int_equal(f->last_label[0], 'a');
	assert_int_equal(f->last_label[2], 'c');
	assert_string_equal(f->pictures, "P4;P5;");
	assert_int_equal(run(f, 3), 0); /* freed with one outstanding */
	assert_int_equal(f->died, 0);
	f->ex->ops->unload(f->ex, 1);
	assert_int_equal(run(f, 4), -ENOTCONN);
}

static bool both_tried(void *data)
{
	struct fixture *f = data;

	return f->loaded[1] && f->failed[2];
}

/* A model that can't be loaded is the endpoint's trouble, not the worker's. */
static void test_bad_model(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, 2, "{\"bad\":1}"), 0);
	assert_int_equal(load(f, 1, "{}"), 0);
	assert_true(dirhost_run_until(f->loop, both_tried, f, 10));
	assert_non_null(strstr(f->err, "as the test wants"));
	assert_int_equal(shared->lives, 1);
}

/* Whatever it does wrong: both batches are answered -EIO, then `died`, then the endpoint is loaded again and
 * works. */
static void expect_restart(struct fixture *f, bool pictures)
{
	assert_int_equal(load(f, 1, "{}"), 0);
	assert_true(dirhost_run_until(f->loop, is_loaded, f, 10));
	assert_int_equal(pictures ? explain(f, 1) : run(f, 1), 0);
	assert_int_equal(run(f, 2), 0);
	assert_true(dirhost_run_until(f->loop, is_loaded_again, f, 10));
	assert_int_equal(f->eio, 2);
	assert_int_equal(f->died, 1);
	assert_true(f->order[0] == 1 && f->order[1] == 2);
	assert_int_equal(f->done, 0);
	f->eio = 0;
	assert_int_equal(run(f, 3), 0);
	assert_int_equal(run(f, 4), 0);
	assert_true(dirhost_run_until(f->loop, two_answered, f, 10));
	assert_int_equal(f->done, 2);
	assert_int_equal(shared->lives, 2);
}

static void test_death(void **state)
{
	shared->fault = DIE_ON_RUN;
	shared->faulty = 1;
	expect_restart(*state, false);
}

static void test_hang(void **state)
{
	struct fixture *f = *state;
	int64_t start = loop_now(f->loop);

	shared->fault = HANG_ON_RUN;
	shared->faulty = 1;
	executor_worker_set_limit(f->ex, 300 * NS_PER_MS);
	expect_restart(f, false);
	assert_true(loop_now(f->loop) - start > 300 * NS_PER_MS);
}

static void test_garbage(void **state)
{
	for (int fault = GARBAGE; fault < FAULTS; fault++) {
		setup(state);
		shared->fault = fault;
		shared->faulty = 1;
		expect_restart(*state, fault >= SMALL_PICTURES);
		teardown(state);
	}
}

static bool loaded_or_answered(void *data)
{
	struct fixture *f = data;

	return f->died ? f->loaded[1] > 1 : f->done > 0;
}

/* Whatever three bytes of a message are: it is either taken or the worker's end. */
static void test_flipped(void **state)
{
	int died = 0;

	for (int i = 0; i < 150; i++) {
		struct fixture *f;

		setup(state);
		f = *state;
		shared->fault = FLIPPED;
		shared->faulty = 1;
		shared->lives = i * 7919;
		assert_int_equal(load(f, 1, "{}"), 0);
		assert_true(dirhost_run_until(f->loop, is_loaded, f, 10));
		assert_int_equal(run(f, 1), 0);
		assert_true(dirhost_run_until(f->loop, loaded_or_answered, f, 10));
		assert_int_equal(f->done + f->eio, 1);
		assert_true(f->died == f->eio);
		died += f->died;
		teardown(state);
	}
	print_message("%d of 150 were refused\n", died);
	assert_in_range(died, 50, 150);
}

static bool gave_up(void *data)
{
	struct fixture *f = data;

	return f->failed[2] && f->loaded[1];
}

/* A model that kills the worker each time it is loaded is given up; the other endpoint goes on. */
static void test_poisonous_model(void **state)
{
	struct fixture *f = *state;

	shared->fault = DIE_ON_LOAD_2;
	shared->faulty = 100;
	assert_int_equal(load(f, 1, "{}"), 0);
	assert_int_equal(load(f, 2, "{}"), 0);
	assert_true(dirhost_run_until(f->loop, gave_up, f, 10));
	assert_int_equal(f->failed[2], 1);
	assert_int_equal(shared->lives, 4);
	assert_int_equal(f->died, 3);
	assert_non_null(strstr(f->err, "the worker process died"));
	assert_int_equal(run(f, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_model, setup, teardown),
		cmocka_unit_test_setup_teardown(test_death, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hang, setup, teardown),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test_setup_teardown(test_poisonous_model, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
