/*
 * Models of others, from the file in models/NAME to the version: with workers that do well, die, hang or talk nonsense, with files
 * that change meanwhile, and with crashes of the daemon between any two of its calls. A worker is a socket into which its whole
 * script was written when it was started. Files of the fake host have no times: another content has another length.
 */
#include "tests/support/scripted.h"

#include <errno.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL   "{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.9,\"ms\":4,\"one_ms\":2}]}"
#define SPEC    "{\"model\":\"x\",\"batch\":4}" /* fails until there is a models/x */
#define JSON    MODEL
#define LABELS  "a\nb\n"
#define SLICES  "slice\n"
#define WEIGHTS "weights"

enum script {
	WELL,
	DIE,
	HANG,
	SAY_BAD,
	NONSENSE, /* first of those that no honest worker sends */
	NO_MESSAGE = NONSENSE,
	WRONG_TYPE,
	NO_ERROR,
	UNKNOWN_ERROR,
	TOO_LONG,
	NO_JSON,
	MORE_TEXT,
	LESS_TEXT,
	MORE_WEIGHTS,
	HUGE_TEXT,
	SCRIPTS
};

static bool play(struct wire_channel *ch, int what)
{
	struct wire_imported all = {strlen(JSON), strlen(LABELS), strlen(SLICES), strlen(WEIGHTS)};

	switch (what) {
	case SAY_BAD:
		say(ch,
		    (struct wire_message){.type = WIRE_FAILED, .failed = {ERR_ONNX_UNSUPPORTED, "Teapot"}});
		return true;
	case NO_MESSAGE:
		assert_int_equal(send(ch->fd, "hello", 5, 0), 5);
		return true;
	case WRONG_TYPE:
		say(ch, (struct wire_message){.type = WIRE_TAKEN});
		return true;
	case NO_ERROR:
	case UNKNOWN_ERROR:
		say(ch, (struct wire_message){.type = WIRE_FAILED,
					      .failed = {what == NO_ERROR ? ERR_NONE : ERR_COUNT, ""}});
		return true;
	case DIE:
		return false;
	case HANG:
		return true;
	case TOO_LONG:
		all.weights = UINT64_C(5) << 30;
		break;
	case NO_JSON:
		all.labels += all.json;
		all.json = 0;
		break;
	case MORE_TEXT:
		all.slices++;
		break;
	case LESS_TEXT:
		all.slices--;
		break;
	case MORE_WEIGHTS:
		all.weights++;
		break;
	case HUGE_TEXT: /* sums that come round */
		all.json = UINT64_MAX;
		all.labels++;
		break;
	default:
		break;
	}
	say(ch, (struct wire_message){.type = WIRE_IMPORTED, .imported = all});
	return true;
}

static void begin(struct world *w)
{
	world_init(w, MODEL, SPEC);
	scripted_begin(&w->host, "import");
	w->host.packed = JSON LABELS SLICES;
	w->host.apart = WEIGHTS;
}

/* "x/a.onnx", with the events that fs would post. */
static void post(struct world *w, const char *path, enum model_event event, uint64_t ino)
{
	char *name = strndup(path, strcspn(path, "/"));

	sched_post_model(w->s, name, event, ino);
	free(name);
	world_run(w, 0);
}

static uint64_t open_file(struct world *w, const char *path, const char *content)
{
	char full[128];
	uint64_t ino;

	snprintf(full, sizeof(full), "models/%s", path);
	ino = fake_put(&w->host, full, content);
	fake_setxattr(&w->host, full, "user.state", NULL);
	post(w, path, MODEL_WRITING, ino);
	return ino;
}

static void put(struct world *w, const char *path, const char *content)
{
	post(w, path, MODEL_COMPLETE, open_file(w, path, content));
}

static void remove_file(struct world *w, const char *path)
{
	char full[128];
	uint64_t ino;

	snprintf(full, sizeof(full), "models/%s", path);
	ino = fake_ino(&w->host, full);
	fake_remove(&w->host, full);
	post(w, path, MODEL_REMOVED, ino);
}

static const char *text(struct world *w, const char *path)
{
	char full[128];
	const char *got;

	snprintf(full, sizeof(full), "models/%s", path);
	got = fake_content(&w->host, full);
	return got ? got : "(none)";
}

static const char *xattr(struct world *w, const char *path, const char *name)
{
	char full[128];
	const char *got;

	snprintf(full, sizeof(full), "models/%s", path);
	got = fake_xattr(&w->host, full, name);
	return got ? got : "(none)";
}

static void assert_status(struct world *w, const char *words)
{
	struct buf b = BUF_INIT;

	jobs_status(w->s->jobs, &b);
	if (!b.data || !strstr(b.data, words))
		fail_msg("no '%s' in: %s", words, b.data ? b.data : "");
	buf_release(&b);
}

/* models/x has this many versions, all whole; a.onnx is of the last. */
static void whole(struct world *w, int versions, const char *weights)
{
	char path[32], number[16];

	for (int v = 1; v <= versions; v++) {
		snprintf(path, sizeof(path), "x/%d/model.json", v);
		assert_string_equal(text(w, path), JSON);
		snprintf(path, sizeof(path), "x/%d/labels.txt", v);
		assert_string_equal(text(w, path), LABELS);
		snprintf(path, sizeof(path), "x/%d/slices.csv", v);
		assert_string_equal(text(w, path), SLICES);
	}
	snprintf(path, sizeof(path), "x/%d/model.onnx", versions);
	assert_string_equal(text(w, path), weights);
	snprintf(path, sizeof(path), "models/x/%d", versions + 1);
	assert_int_equal(fake_ino(&w->host, path), 0);
	snprintf(number, sizeof(number), "-> %d", versions);
	assert_string_equal(text(w, "x/latest"), number);
	snprintf(number, sizeof(number), "%d", versions);
	assert_string_equal(xattr(w, "x/a.onnx", "user.state"), "imported");
	assert_string_equal(xattr(w, "x/a.onnx", "user.version"), number);
	assert_string_equal(text(w, "x/error"), "(none)");
	assert_int_equal(fake_count_keys(&w->host, "import/"), 1);
}

static void refused(struct world *w, const char *said)
{
	assert_string_equal(xattr(w, "x/a.onnx", "user.state"), "failed");
	if (strncmp(text(w, "x/error"), "a.onnx: ", 8) != 0 || !strstr(text(w, "x/error"), said))
		fail_msg("no '%s' in: %s", said, text(w, "x/error"));
	assert_int_equal(fake_ino(&w->host, "models/x/1"), 0);
	assert_string_equal(text(w, "x/latest"), "(none)");
	assert_int_equal(fake_count_keys(&w->host, "import/"), 1);
	assert_status(w, "model x import of a.onnx failed: see models/x/error\n");
}

static void test_well(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 500);
	put(&w, "x/labels.txt", LABELS); /* not quiet yet */
	run(&w, 900);
	assert_int_equal(started, 0);
	run(&w, 200);
	whole(&w, 1, WEIGHTS);
	assert_int_equal(started, 1);
	assert_string_equal(fake_content(&w.host, "infer/app/state"),
			    "running\n"); /* it had failed without */
	/* nothing changed: nothing happens, also after a restart */
	post(&w, "x/b.txt", MODEL_COMPLETE, 77);
	run(&w, 3000);
	world_crash(&w);
	world_restart(&w);
	run(&w, 3000);
	assert_int_equal(started, 1);
	/* another content of any of them, or one that was not there, is a version */
	put(&w, "x/a.onnx", "another");
	run(&w, 3000);
	whole(&w, 2, WEIGHTS);
	put(&w, "x/labels.txt", "c\n");
	run(&w, 3000);
	whole(&w, 3, WEIGHTS);
	put(&w, "x/model.json", "{}");
	run(&w, 3000);
	whole(&w, 4, WEIGHTS);
	/* one that goes is not */
	remove_file(&w, "x/labels.txt");
	remove_file(&w, "x/model.json");
	run(&w, 3000);
	world_crash(&w);
	world_restart(&w);
	run(&w, 3000);
	assert_int_equal(started, 4);
	remove_file(&w, "x/a.onnx");
	run(&w, 3000);
	assert_int_equal(fake_count_keys(&w.host, "import/"), 0);
	assert_string_equal(text(&w, "x/4/model.json"), JSON);
	scripted_end(&w);
}

static void test_shared(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	w.host.shares = true;
	put(&w, "x/a.onnx", "7 bytes");
	run(&w, 3000);
	whole(&w, 1, "7 bytes");
	scripted_end(&w);
}

/* What the import worker `n` was sent: its name for the file beside, and the descriptors' contents one after the other. */
static void sent(unsigned n, const char *beside, const char *contents)
{
	struct wire_message m = {0};
	struct wire_channel ch;
	char got[256] = "";
	size_t len = 0;

	assert_int_equal(wire_init(&ch, scripted_ends[n], WIRE_TO_DAEMON), 0);
	while (m.type != WIRE_IMPORT) {
		wire_clear(&m);
		assert_int_equal(wire_recv(&ch, &m, MSG_DONTWAIT), 0);
	}
	assert_string_equal(m.import.beside, beside);
	for (int i = 0; i < m.n_fds; i++) {
		ssize_t part = pread(m.fds[i], got + len, sizeof(got) - 1 - len, 0);

		assert_true(part >= 0);
		len += (size_t)part;
	}
	assert_string_equal(got, contents);
	wire_clear(&m);
	free(ch.packet);
}

/* x.onnx.data is imported with x.onnx, whichever comes first, and anew when it changes; the version's bytes are its own then. */
static void test_beside(void **data)
{
	struct world w;
	uint64_t ino;

	(void)data;
	begin(&w);
	w.host.shares = true;
	put(&w, "x/a.onnx.data", "heavy");
	put(&w, "x/b.onnx.data", "another's");
	run(&w, 3000);
	assert_int_equal(started, 0);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	sent(0, "a.onnx.data", "onnx" JSON LABELS SLICES WEIGHTS "heavy");
	ino = open_file(&w, "x/a.onnx.data", "heavier");
	run(&w, 3000);
	assert_int_equal(started, 1);
	post(&w, "x/a.onnx.data", MODEL_COMPLETE, ino);
	run(&w, 3000);
	whole(&w, 2, WEIGHTS);
	world_crash(&w);
	world_restart(&w);
	run(&w, 3000);
	assert_int_equal(started, 2);
	/* the other name; without it the bytes are shared again */
	remove_file(&w, "x/a.onnx.data");
	put(&w, "x/a.onnx_data", "h");
	run(&w, 3000);
	whole(&w, 3, WEIGHTS);
	sent(2, "a.onnx_data", "onnx" JSON LABELS SLICES WEIGHTS "h");
	remove_file(&w, "x/a.onnx_data");
	put(&w, "x/a.onnx", "7 bytes");
	run(&w, 3000);
	whole(&w, 4, "7 bytes");
	sent(3, "", "7 bytes" JSON LABELS SLICES);
	scripted_end(&w);

	/* written while it is imported */
	script[0] = HANG;
	begin(&w);
	put(&w, "x/a.onnx.data", "heavy");
	put(&w, "x/a.onnx", "onnx");
	run(&w, 2000);
	ino = open_file(&w, "x/a.onnx.data", "newer");
	run(&w, 5000);
	assert_int_equal(started, 1);
	post(&w, "x/a.onnx.data", MODEL_COMPLETE, ino);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	assert_int_equal(started, 2);
	sent(1, "a.onnx.data", "onnx" JSON LABELS SLICES WEIGHTS "newer");
	scripted_end(&w);
}

static void test_safetensors(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	w.host.shares = true; /* of no use: what is written is f32 under our names */
	put(&w, "x/w.safetensors", "st");
	run(&w, 3000);
	assert_int_equal(started, 0);
	assert_status(&w, "model x w.safetensors waits for model.json\n");
	put(&w, "x/model.json", "{}");
	run(&w, 3000);
	assert_string_equal(text(&w, "x/1/weights.safetensors"), WEIGHTS);
	assert_string_equal(text(&w, "x/latest"), "-> 1");
	assert_int_equal(fake_ino(&w.host, "models/x/1/model.onnx"), 0);
	scripted_end(&w);
}

static void test_deaths(void **data)
{
	struct world w;

	(void)data;
	script[0] = DIE;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	assert_int_equal(started, 2);
	scripted_end(&w);

	script[0] = script[1] = DIE;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	refused(&w, "the import's worker process died: 2 times");
	assert_int_equal(started, 2);
	scripted_end(&w);

	/* what runs for ever is not tried again, and others are served meanwhile and afterwards */
	script[0] = HANG;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	put(&w, "y/a.onnx", "onnx");
	run(&w, 3000);
	assert_string_equal(xattr(&w, "x/a.onnx", "user.state"), "importing");
	assert_status(&w, "model x importing a.onnx 2 s\n");
	assert_status(&w, "model y a.onnx waits to be imported\n");
	run(&w, 590000);
	assert_string_equal(xattr(&w, "x/a.onnx", "user.state"), "importing");
	run(&w, 20000);
	assert_string_equal(text(&w, "y/latest"), "-> 1");
	remove_file(&w, "y/a.onnx");
	run(&w, 3000);
	refused(&w, "the import took too long: it was stopped after 600 s");
	assert_int_equal(started, 2);
	scripted_end(&w);
}

static void test_refused(void **data)
{
	struct world w;

	(void)data;
	script[0] = SAY_BAD;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	refused(&w, "the ONNX model asks for what can't be run here: Teapot; ");
	/* once, also after a restart */
	world_crash(&w);
	world_restart(&w);
	run(&w, 3000);
	refused(&w, "Teapot");
	assert_int_equal(started, 1);
	/* until something changes */
	put(&w, "x/model.json", "{}");
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	/* what failed goes, and `error` with it */
	script[2] = SAY_BAD;
	put(&w, "x/b.onnx", "onnx");
	run(&w, 3000);
	assert_int_equal(strncmp(text(&w, "x/error"), "b.onnx: ", 8), 0);
	remove_file(&w, "x/b.onnx");
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	scripted_end(&w);
}

static void test_nonsense(void **data)
{
	(void)data;
	for (int i = NONSENSE; i < SCRIPTS; i++) {
		struct world w;

		script[0] = (enum script)i;
		script[1] = DIE;
		begin(&w);
		put(&w, "x/a.onnx", "onnx");
		run(&w, 3000);
		refused(&w, "the import's worker process died");
		assert_int_equal(started, 2);
		scripted_end(&w);
	}
}

/* Wherever the daemon dies, the next one makes the version, and only once. */
static void test_crash(void **data)
{
	bool done = false;
	int n = 0;

	(void)data;
	for (int64_t calls = 1; !done; calls++, n++) {
		struct world w;

		begin(&w);
		run(&w, 100);
		w.host.publish_ns = NS_PER_MS;
		w.host.calls_left = calls;
		put(&w, "x/a.onnx", "onnx");
		put(&w, "x/labels.txt", LABELS);
		run(&w, 1500);
		done = !w.host.dead;
		world_crash(&w);
		scripted_close();
		world_restart(&w);
		run(&w, 5000);
		whole(&w, 1, WEIGHTS);
		scripted_end(&w);
	}
	assert_in_range(n, 6, 100);
}

/* Likewise what can't be: it is said. */
static void test_crash_failing(void **data)
{
	bool done = false;

	(void)data;
	for (int64_t calls = 1; !done; calls++) {
		struct world w;

		script[0] = script[1] = SAY_BAD;
		begin(&w);
		run(&w, 100);
		w.host.publish_ns = NS_PER_MS;
		w.host.calls_left = calls;
		put(&w, "x/a.onnx", "onnx");
		run(&w, 1500);
		done = !w.host.dead;
		world_crash(&w);
		scripted_close();
		world_restart(&w);
		run(&w, 5000);
		refused(&w, "Teapot");
		scripted_end(&w);
	}
}

static void test_changed(void **data)
{
	struct world w;
	uint64_t ino;

	(void)data;
	/* nothing is imported while any of them is being written, however long that takes */
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	ino = open_file(&w, "x/labels.txt", "half");
	run(&w, 60000);
	assert_int_equal(started, 0);
	post(&w, "x/labels.txt", MODEL_COMPLETE, ino);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	scripted_end(&w);

	/* written anew while it is imported: the worker ends at once, and the new one counts */
	script[0] = HANG;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 2000);
	ino = open_file(&w, "x/a.onnx", "newer");
	run(&w, 5000);
	assert_int_equal(started, 1);
	post(&w, "x/a.onnx", MODEL_COMPLETE, ino);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	assert_int_equal(started, 2);
	scripted_end(&w);

	/* labels.txt comes while it is imported */
	script[0] = HANG;
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 2000);
	put(&w, "x/labels.txt", LABELS);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	assert_int_equal(started, 2);
	scripted_end(&w);

	/* or while the version is being made visible: a further one */
	begin(&w);
	w.host.publish_ns = 5 * NS_PER_S;
	put(&w, "x/a.onnx", "onnx");
	run(&w, 1500);
	put(&w, "x/labels.txt", LABELS);
	run(&w, 30000);
	whole(&w, 2, WEIGHTS);
	scripted_end(&w);

	/* removed while it is imported, and while the version is being made visible */
	for (int late = 0; late < 2; late++) {
		script[0] = late ? WELL : HANG;
		begin(&w);
		w.host.publish_ns = late ? 5 * NS_PER_S : 0;
		put(&w, "x/a.onnx", "onnx");
		run(&w, 1500);
		remove_file(&w, "x/a.onnx");
		run(&w, 30000);
		assert_int_equal(fake_count_keys(&w.host, "import/"), 0);
		assert_string_equal(text(&w, "x/1/model.json"), late ? JSON : "(none)");
		assert_string_equal(text(&w, "x/error"), "(none)");
		scripted_end(&w);
	}
}

static void test_directories(void **data)
{
	struct world w;

	(void)data;
	/* it goes while it is imported, and while the version is being made visible: nothing of it comes back */
	for (int late = 0; late < 2; late++) {
		script[0] = late ? WELL : HANG;
		begin(&w);
		w.host.publish_ns = late ? 5 * NS_PER_S : 0;
		put(&w, "x/a.onnx", "onnx");
		run(&w, 1500);
		fake_host_refuse(&w.host, "models/x");
		fake_remove(&w.host, "models/x");
		post(&w, "x", MODEL_GONE, 1);
		run(&w, 30000);
		assert_int_equal(fake_ino(&w.host, "models/x"), 0);
		assert_int_equal(fake_count_keys(&w.host, "import/"), 0);
		scripted_end(&w);
	}

	/* under another name it keeps what it has, also after a restart */
	begin(&w);
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	fake_move(&w.host, "models/x", "models/y");
	post(&w, "x", MODEL_GONE, 1);
	post(&w, "y", MODEL_CAME, 1);
	run(&w, 3000);
	world_crash(&w);
	world_restart(&w);
	run(&w, 3000);
	assert_int_equal(started, 1);
	assert_int_equal(fake_ino(&w.host, "models/x"), 0);
	/* a file that moves to another model is that one's */
	fake_mkdir(&w.host, "models/x");
	fake_move(&w.host, "models/y/a.onnx", "models/x/a.onnx");
	post(&w, "y/a.onnx", MODEL_REMOVED, fake_ino(&w.host, "models/x/a.onnx"));
	post(&w, "x/a.onnx", MODEL_COMPLETE, fake_ino(&w.host, "models/x/a.onnx"));
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	scripted_end(&w);

	/* somebody makes version 1 by hand just before ours is visible */
	begin(&w);
	w.host.publish_ns = NS_PER_S;
	put(&w, "x/a.onnx", "onnx");
	run(&w, 1500);
	fake_put(&w.host, "models/x/1/model.json", JSON);
	run(&w, 10000);
	assert_string_equal(text(&w, "x/2/model.onnx"), WEIGHTS);
	assert_string_equal(text(&w, "x/latest"), "-> 2");
	assert_string_equal(xattr(&w, "x/a.onnx", "user.version"), "2");
	scripted_end(&w);
}

/* Files that were open when the mount was taken over are not whole until they are closed. */
static void test_taken_over(void **data)
{
	struct world w;
	uint64_t ino;

	(void)data;
	begin(&w);
	ino = open_file(&w, "x/a.onnx", "half");
	world_crash(&w);
	assert_int_equal(sched_new_on(&w.s, &fake_host_ops, &w.host, &w.options, w.loop), 0);
	assert_int_equal(sched_expect(w.s, &ino, 1), 0);
	sched_begin(w.s);
	run(&w, 60000);
	assert_int_equal(started, 0);
	post(&w, "x/a.onnx", MODEL_COMPLETE, ino);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	scripted_end(&w);
}

/* No room, or a disk that fails: said, and tried again when something changes. */
static void test_no_room(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	w.host.publish_error = -ENOSPC;
	put(&w, "x/a.onnx", "onnx");
	run(&w, 3000);
	assert_string_equal(text(&w, "x/latest"), "(none)");
	assert_int_equal(fake_count_keys(&w.host, "import/"), 0);
	w.host.publish_error = 0;
	put(&w, "x/labels.txt", LABELS);
	run(&w, 3000);
	whole(&w, 1, WEIGHTS);
	scripted_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_well),        cmocka_unit_test(test_shared),
		cmocka_unit_test(test_safetensors), cmocka_unit_test(test_deaths),
		cmocka_unit_test(test_refused),     cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_crash),       cmocka_unit_test(test_crash_failing),
		cmocka_unit_test(test_changed),     cmocka_unit_test(test_directories),
		cmocka_unit_test(test_taken_over),  cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_beside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
