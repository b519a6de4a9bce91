/* Messages between daemon and workers: what is sent arrives, and nothing else gets through. */
#include "sched/wire.h"

#include "engine/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static uint32_t seed = 12345;

static uint32_t random_u32(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8 | seed << 24;
}

static struct wire_top tops[] = {{.label = 3, .score = 0.5f}, {.label = 1, .score = 0.25f}};
static struct wire_answer answer_list[] = {
	{.id = UINT64_MAX, .label = 3, .score = 0.5f, .top = tops, .n_top = 2},
	{.id = 7, .failed = 1, .code = ERR_BAD_IMAGE, .detail = "x.png: Grüße"},
};
static struct wire_input inputs[] = {{.id = 1, .len = 10}, {.id = 2, .len = 0}};
static struct wire_part parts[] = {{.member = 0, .slice = 0.25f, .precision = "f32"},
				   {.member = 7, .slice = 1, .precision = "int8"}};
static struct wire_submodel submodels[] = {{.slice = 0.25f,
					    .precision = "f32",
					    .accuracy = 0.85,
					    .time_ns = 1000,
					    .time_one_ns = 10,
					    .idle = 1,
					    .parts = parts,
					    .n_parts = 2}};
static struct wire_cascade_point points[] = {{.threshold = 0.5f, .sure = 0.9f},
					     {.threshold = 0.75f, .sure = 0.95f}};
static struct wire_cascade_first firsts[] = {{.submodel = 0, .points = points, .n_points = 2},
					     {.submodel = 3}};
static struct wire_cascade_share cascade_shares[] = {{.accuracy = 0.91f}, {.accuracy = 0.92f}};
static struct wire_cascade_pair pairs[] = {{.first = 0, .then = 1, .points = cascade_shares, .n_points = 2}};
static struct wire_name names[] = {{.text = "cat"}, {.text = ""}};
static struct wire_slice slices[] = {{.rate = 1, .accuracy = 0.9, .loss = 0.1}};
static struct wire_file files[] = {{.path = "train/cat/1.png", .len = 5}};
static struct wire_member members[] = {{.path = "a/1.png", .len = 5, .inside = 512}};
static struct wire_picture pictures[] = {{.len = 99}, {.len = 0}};
static struct wire_wish wishes[] = {{.id = 5, .len = 6, .label = 7, .score = 0.5f}};

/* One of each; n_fds only counts here. */
static const struct wire_message all[] = {
	{.type = WIRE_SETUP, .setup = {.threads = 2}},
	{.type = WIRE_LOAD,
	 .n_fds = 3,
	 .load = {.endpoint = 1,
		  .batch = 32,
		  .gradcam = 1,
		  .precisions = 3,
		  .name = "models/a/1",
		  .weight = 1}},
	{.type = WIRE_LABELS, .labels = {.endpoint = 1, .names = names, .n_names = 2}},
	{.type = WIRE_LOADED,
	 .loaded = {.endpoint = 1,
		    .submodels = submodels,
		    .n_submodels = 1,
		    .firsts = firsts,
		    .n_firsts = 2,
		    .pairs = pairs,
		    .n_pairs = 1}},
	{.type = WIRE_UNLOAD, .unload = {.endpoint = 1}},
	{.type = WIRE_RUN, .n_fds = 1, .run = {.batch = 1, .submodel = 3, .inputs = inputs, .n_inputs = 2}},
	{.type = WIRE_ANSWERS, .answers = {.batch = 1, .answers = answer_list, .n_answers = 2}},
	{.type = WIRE_DONE, .done = {.batch = 1, .compute_ns = 5, .core = 2}},
	{.type = WIRE_EXPLAIN, .n_fds = 1, .explain = {.batch = 1, .wishes = wishes, .n_wishes = 1}},
	{.type = WIRE_PICTURES, .n_fds = 1, .pictures = {.batch = 1, .pictures = pictures, .n_pictures = 2}},
	{.type = WIRE_TRAIN, .n_fds = 2, .train = {.job = "night"}},
	{.type = WIRE_STOP},
	{.type = WIRE_PROGRESS, .progress = {.epoch = 1, .epochs = 8, .batches = 469, .percent = 12.5}},
	{.type = WIRE_EPOCH, .epoch = {.epoch = 1, .lr = 0.1, .slices = slices, .n_slices = 1}},
	{.type = WIRE_CHECKPOINT, .n_fds = 1, .checkpoint = {.epoch = 1}},
	{.type = WIRE_MODEL, .n_fds = 4, .model = {.slices = slices, .n_slices = 1}},
	{.type = WIRE_STOPPED, .stopped = {.epoch = 1}},
	{.type = WIRE_FAILED, .failed = {.code = ERR_DIVERGED, .detail = "epoch 2"}},
	{.type = WIRE_SCAN, .scan = {.dataset = "fashion", .channels = 1, .height = 28, .width = 28}},
	{.type = WIRE_BAD, .bad = {.path = "train/cat/2.png", .reason = "the decoder crashed on it"}},
	{.type = WIRE_FILES, .n_fds = 1, .files = {.files = files, .n_files = 1}},
	{.type = WIRE_TAKEN, .taken = {.files = 1}},
	{.type = WIRE_FINISH, .n_fds = 1},
	{.type = WIRE_SCANNED, .n_fds = 1, .scanned = {.code = 0}},
	{.type = WIRE_UNPACK, .n_fds = 2, .unpack = {.ahead = 3, .shared = 1}},
	{.type = WIRE_ENTRIES, .entries = {.files = members, .n_files = 1}},
	{.type = WIRE_NEXT, .next = {.packs = 1}},
	{.type = WIRE_UNPACKED, .unpacked = {.files = 10000}},
	{.type = WIRE_INIT, .n_fds = 2, .init = {.from = "base"}},
	{.type = WIRE_NOTE, .note = {.text = "80 of 82 arrays"}},
	{.type = WIRE_IMPORT,
	 .n_fds = 4,
	 .import = {.file = "x.onnx", .has_json = 1, .json = 10, .beside = ""}},
	{.type = WIRE_IMPORTED, .imported = {.json = 300, .labels = 20, .slices = 50, .weights = 1 << 20}},
	{.type = WIRE_EXPORT, .n_fds = 4, .export = {.rate = 0.5f}},
	{.type = WIRE_EXPORTED, .exported = {.len = 4096}},
	{.type = WIRE_ENSEMBLE,
	 .n_fds = 4,
	 .ensemble = {.endpoint = 1, .name = "models/b/3", .weight = 0.5, .has_validation = 1}},
	{.type = WIRE_KNOBS, .n_fds = 1},
};
#define N_ALL (sizeof(all) / sizeof(all[0]))

static int decode_any(const uint8_t *packet, size_t len, uint64_t sequence, int n_fds,
		      struct wire_message *ret)
{
	int r = wire_decode(WIRE_TO_DAEMON, sequence, packet, len, n_fds, ret);

	return r == -EPROTO ? wire_decode(WIRE_TO_WORKER, sequence, packet, len, n_fds, ret) : r;
}

/* Decoding what was encoded and encoding that again gives the same bytes, for every row of the table. */
static void test_all_types(void **state)
{
	static uint8_t packet[WIRE_MAX], again[WIRE_MAX];

	(void)state;
	assert_int_equal(N_ALL, WIRE_TYPES - 1);
	for (size_t i = 0; i < N_ALL; i++) {
		struct wire_message m;
		size_t len, len2;

		assert_int_equal(all[i].type, i + 1);
		assert_int_equal(wire_encode(&all[i], i, packet, &len), 0);
		assert_int_equal(decode_any(packet, len, i, all[i].n_fds, &m), 0);
		assert_int_equal(m.n_fds, 0);
		m.n_fds = all[i].n_fds;
		assert_int_equal(wire_encode(&m, i, again, &len2), 0);
		assert_int_equal(len, len2);
		assert_memory_equal(packet, again, len);
		m.n_fds = 0;
		wire_clear(&m);

		/* One byte less or more, another sequence or number of descriptors: not this message. */
		assert_int_equal(decode_any(packet, len - 1, i, all[i].n_fds, &m), -EPROTO);
		assert_int_equal(decode_any(packet, len + 1, i, all[i].n_fds, &m), -EPROTO);
		assert_int_equal(decode_any(packet, len, i + 1, all[i].n_fds, &m), -EPROTO);
		assert_int_equal(decode_any(packet, len, i, all[i].n_fds + 1, &m), -EPROTO);
	}
}

static void test_fields_arrive(void **state)
{
	int pair[2], pipe_fds[2];
	struct wire_channel daemon, worker;
	struct wire_message m = all[WIRE_ANSWERS - 1], got;
	struct err err = ERR_INIT;
	char text[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_init(&daemon, pair[0], WIRE_TO_WORKER), 0);
	assert_int_equal(wire_init(&worker, pair[1], WIRE_TO_DAEMON), 0);
	assert_int_equal(wire_recv(&daemon, &got, MSG_DONTWAIT), -EAGAIN);
	assert_int_equal(wire_send(&worker, &m, 0), 0);
	assert_int_equal(wire_recv(&daemon, &got, 0), 0);
	assert_int_equal(got.type, WIRE_ANSWERS);
	assert_int_equal(got.answers.n_answers, 2);
	assert_true(got.answers.answers[0].id == UINT64_MAX);
	assert_true(got.answers.answers[0].top[1].score == 0.25f);
	assert_true(wire_err(&err, got.answers.answers[1].code, got.answers.answers[1].detail));
	assert_int_equal(err.code, ERR_BAD_IMAGE);
	assert_string_equal(err.detail, "x.png: Grüße");
	assert_false(wire_err(&err, ERR_COUNT, ""));
	wire_clear(&got);

	/* A descriptor travels; the sequence goes on by one a message in each direction. */
	assert_int_equal(pipe(pipe_fds), 0);
	m = (struct wire_message){.type = WIRE_FINISH, .n_fds = 1, .fds = {pipe_fds[1]}};
	assert_int_equal(wire_send(&worker, &m, 0), -EINVAL);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(wire_send(&daemon, &m, 0), 0);
		assert_int_equal(wire_recv(&worker, &got, 0), 0);
		assert_int_equal(got.n_fds, 1);
		assert_int_equal(write(got.fds[0], "x", 1), 1);
		assert_true(fcntl(got.fds[0], F_GETFD) & FD_CLOEXEC);
		wire_clear(&got);
		assert_int_equal(read(pipe_fds[0], text, sizeof(text)), 1);
	}
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], text, sizeof(text)), 0); /* no copy of it is left open */
	close(pipe_fds[0]);

	wire_release(&worker);
	assert_int_equal(wire_recv(&daemon, &got, 0), -EPIPE);
	assert_int_equal(wire_send(&daemon, &all[0], 0), -EPIPE);
	wire_release(&daemon);
}

static void test_too_long(void **state)
{
	static uint8_t packet[WIRE_MAX];
	static char text[WIRE_MAX];
	struct wire_message m = {.type = WIRE_FAILED, .failed = {.detail = text}};
	size_t len = 77;

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	assert_int_equal(wire_encode(&m, 0, packet, &len), -EMSGSIZE);
	assert_int_equal(len, 77);
	text[WIRE_MAX - WIRE_HEADER - 2 - 4] = '\0';
	assert_int_equal(wire_encode(&m, 0, packet, &len), 0);
	assert_int_equal(len, WIRE_MAX);
}

/* Packets that a sender of our own would never make, over a real socket. */
static void test_garbage_socket(void **state)
{
	static uint8_t big[WIRE_MAX + 1];
	struct wire_channel daemon;
	struct wire_message got;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_init(&daemon, pair[0], WIRE_TO_WORKER), 0);
	assert_int_equal(write(pair[1], "hello", 5), 5);
	assert_int_equal(wire_recv(&daemon, &got, 0), -EPROTO);
	assert_int_equal(write(pair[1], big, sizeof(big)), sizeof(big));
	assert_int_equal(wire_recv(&daemon, &got, 0), -EPROTO);

	/* More descriptors than any message has: none of them stays open here. */
	int fds[6], null = open("/dev/null", O_RDONLY | O_CLOEXEC), next;
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(fds))];
	} control = {0};
	uint8_t packet[WIRE_MAX];
	struct iovec iov = {.iov_base = packet};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.data,
			     .msg_controllen = sizeof(control.data)};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	assert_int_equal(wire_encode(&all[WIRE_MODEL - 1], 0, packet, &iov.iov_len), 0);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	for (int n = 6; n >= 3; n--) {
		cmsg->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
		msg.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
		for (int i = 0; i < n; i++)
			fds[i] = null;
		memcpy(CMSG_DATA(cmsg), fds, (size_t)n * sizeof(int));
		assert_int_equal(sendmsg(pair[1], &msg, 0), iov.iov_len);
		assert_int_equal(wire_recv(&daemon, &got, 0), n == 4 ? 0 : -EPROTO);
		if (n == 4)
			wire_clear(&got);
		next = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_int_equal(next, null + 1);
		close(next);
	}
	close(null);
	close(pair[1]);
	wire_release(&daemon);
}

/* Random packets and valid ones with random faults either fail with EPROTO or are exactly what they say. */
static void test_random_garbage(void **state)
{
	static uint8_t packet[WIRE_MAX], again[WIRE_MAX];
	int valid = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		const struct wire_message *from = &all[random_u32() % N_ALL];
		struct wire_message m;
		size_t len, len2;
		int r;

		if (round % 4 == 0) {
			len = random_u32() % 200;
			for (size_t i = 0; i < len; i++)
				packet[i] = (uint8_t)random_u32();
			if (len >= WIRE_HEADER && round % 8 == 0) { /* past the header's checks */
				memset(packet, 0, WIRE_HEADER);
				packet[0] = (uint8_t)from->type;
				packet[2] = (uint8_t)from->n_fds;
				packet[4] = (uint8_t)(len - WIRE_HEADER);
			}
		} else {
			assert_int_equal(wire_encode(from, 0, packet, &len), 0);
			for (uint32_t n = random_u32() % 4; n; n--)
				packet[random_u32() % len] = (uint8_t)(random_u32() >> (random_u32() % 8));
		}
		r = decode_any(packet, len, 0, from->n_fds, &m);
		if (r < 0) {
			assert_int_equal(r, -EPROTO);
			continue;
		}
		valid++;
		m.n_fds = from->n_fds;
		assert_int_equal(wire_encode(&m, 0, again, &len2), 0);
		assert_int_equal(len, len2);
		assert_memory_equal(packet, again, len);
		m.n_fds = 0;
		wire_clear(&m);
	}
	assert_in_range(valid, 1000, 199000);
}

static void test_memfds(void **state)
{
	uint64_t len = 77;
	size_t size;
	void *data;
	int fd, pair[2];

	(void)state;
	assert_int_equal(io_memfd("test", "hello", 5, &fd), 0);
	assert_int_equal(wire_check_memfd(fd, 4, &len), -EPROTO);
	assert_int_equal(wire_check_memfd(fd, 5, &len), 0);
	assert_int_equal(len, 5);
	assert_int_equal(ftruncate(fd, 1), -1);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(io_read(fd, 4, &data, &size), -EFBIG);
	assert_int_equal(io_read(fd, 5, &data, &size), 0);
	assert_string_equal(data, "hello");
	free(data);
	close(fd);

	assert_int_equal(io_memfd_new("test", &fd), 0);
	assert_int_equal(wire_check_memfd(fd, 5, &len), -EPROTO); /* its owner could still shrink it */
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	assert_int_equal(wire_check_memfd(fd, 5, &len), -EPROTO);
	close(fd);
	assert_int_equal(pipe(pair), 0);
	assert_int_equal(wire_check_memfd(pair[0], 5, &len), -EPROTO);
	close(pair[0]);
	close(pair[1]);
	fd = open("/dev/zero", O_RDONLY);
	assert_int_equal(wire_check_memfd(fd, UINT64_MAX, &len), -EPROTO);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_types),      cmocka_unit_test(test_fields_arrive),
		cmocka_unit_test(test_too_long),       cmocka_unit_test(test_garbage_socket),
		cmocka_unit_test(test_random_garbage), cmocka_unit_test(test_memfds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
