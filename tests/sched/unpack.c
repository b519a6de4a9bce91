/*
 * Archives, from the file in in/ to the task: with workers that do well, die, hang or talk nonsense, and with crashes of the
 * daemon between any two of its calls. A worker is a socket into which its whole script was written when it was started.
 */
#include "tests/support/scripted.h"

#include <errno.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL "{\"classes\":10,\"submodels\":[{\"slice\":1,\"accuracy\":0.9,\"ms\":4,\"one_ms\":2}]}"
#define SPEC  "{\"model\":\"m\",\"batch\":4,\"deadline\":\"20s\"}"
#define FILES 7 /* of a good archive: two packs */

enum script {
	WELL,
	DIE,      /* before a word */
	DIE_LATE, /* after a pack */
	HANG,
	SAY_BAD,
	EMPTY,
	INSIDE,   /* the first file's content is the second byte of the archive */
	TWICE,    /* first of those whose archive is refused at once, see what */
	NONSENSE, /* first of those that no honest worker sends */
	NO_MESSAGE = NONSENSE,
	WRONG_TYPE,
	UP,
	ABSOLUTE,
	NOT_NORMAL,
	HIDDEN,
	NO_NAME,
	TOO_LONG,
	MORE_THAN_WRITTEN,
	LESS_THAN_WRITTEN,
	NO_FILES,
	TOO_MUCH,
	INSIDE_UNASKED,
	INSIDE_BEYOND,
	WRONG_COUNT,
	UNKNOWN_ERROR,
	NO_ERROR,
	SCRIPTS
};

static const char *const names[FILES] = {"1.png", "2.png", "a/3.png", "a/b/4.png",
					 "5.png", "6.png", "bad.png"};
static const char *const contents[FILES] = {"1", "2", "33", "4", "5", "", "bad"};

/* One pack: files [from, to), told as `told` bytes more than they are. */
static void say_pack(struct wire_channel *ch, size_t from, size_t to, const char *rename, int more)
{
	struct wire_member files[FILES];
	struct wire_message m = {.type = WIRE_ENTRIES, .entries = {files, (uint32_t)(to - from)}};

	for (size_t i = from; i < to; i++)
		files[i - from] = (struct wire_member){.path = names[i], .len = strlen(contents[i])};
	if (rename)
		files[0].path = rename;
	if (to > from)
		files[0].len += (uint64_t)more;
	say(ch, m);
}

static void say_large(struct wire_channel *ch, uint64_t len)
{
	struct wire_member file = {.path = "1.png", .len = len};

	say(ch, (struct wire_message){.type = WIRE_ENTRIES, .entries = {&file, 1}});
}

static void say_inside(struct wire_channel *ch, uint64_t inside, uint64_t len)
{
	struct wire_member file = {.path = "1.png", .len = len, .inside = inside};

	say(ch, (struct wire_message){.type = WIRE_ENTRIES, .entries = {&file, 1}});
}

static void say_well(struct wire_channel *ch)
{
	say_pack(ch, 0, 3, NULL, 0);
	say_pack(ch, 3, FILES, NULL, 0);
	say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {FILES}});
}

static void say_failed(struct wire_channel *ch, uint16_t code)
{
	say(ch, (struct wire_message){.type = WIRE_FAILED, .failed = {code, "it is a teapot"}});
}

static bool play(struct wire_channel *ch, int what)
{
	static char long_name[300];

	memset(long_name, 'n', sizeof(long_name) - 1);
	switch (what) {
	case WELL:
		say_well(ch);
		break;
	case DIE_LATE:
		say_pack(ch, 0, 3, NULL, 0);
		break;
	case SAY_BAD:
		say_failed(ch, ERR_BAD_ARCHIVE);
		break;
	case EMPTY:
		say(ch, (struct wire_message){.type = WIRE_UNPACKED});
		break;
	case TWICE:
		say_pack(ch, 0, 3, NULL, 0);
		say_pack(ch, 2, 4, NULL, 0);
		say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {5}});
		break;
	case NO_MESSAGE:
		assert_int_equal(send(ch->fd, "hello", 5, 0), 5);
		break;
	case WRONG_TYPE:
		say(ch, (struct wire_message){.type = WIRE_TAKEN});
		break;
	case UP:
		say_pack(ch, 0, 3, "../1.png", 0);
		break;
	case ABSOLUTE:
		say_pack(ch, 0, 3, "/1.png", 0);
		break;
	case NOT_NORMAL:
		say_pack(ch, 0, 3, "a//1.png", 0);
		break;
	case HIDDEN:
		say_pack(ch, 0, 3, "a/.1.png", 0);
		break;
	case NO_NAME:
		say_pack(ch, 0, 3, "", 0);
		break;
	case TOO_LONG:
		say_pack(ch, 0, 3, long_name, 0);
		break;
	case MORE_THAN_WRITTEN:
		say_pack(ch, 0, 3, NULL, 1);
		say_pack(ch, 3, FILES, NULL, 0);
		say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {FILES}});
		break;
	case LESS_THAN_WRITTEN:
		say_pack(ch, 0, 3, NULL, -1);
		say_pack(ch, 3, FILES, NULL, 0);
		say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {FILES}});
		break;
	case NO_FILES:
		say_pack(ch, 0, 0, NULL, 0);
		break;
	case TOO_MUCH: /* of an archive of 3 bytes */
		say_large(ch, ARCHIVE_GRACE + 3 * ARCHIVE_RATIO + 1);
		break;
	case INSIDE:
		say_inside(ch, 1, 1);
		say_pack(ch, 1, FILES, NULL, 0);
		say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {FILES}});
		break;
	case INSIDE_UNASKED:
		say_inside(ch, 1, 1);
		break;
	case INSIDE_BEYOND:
		say_inside(ch, 2, 2);
		break;
	case WRONG_COUNT:
		say_pack(ch, 0, 3, NULL, 0);
		say(ch, (struct wire_message){.type = WIRE_UNPACKED, .unpacked = {4}});
		break;
	case UNKNOWN_ERROR:
		say_failed(ch, ERR_COUNT);
		break;
	case NO_ERROR:
		say_failed(ch, ERR_NONE);
		break;
	default:
		break;
	}
	return what != DIE && what != DIE_LATE;
}

static void begin(struct world *w)
{
	world_init(w, MODEL, SPEC);
	scripted_begin(&w->host, "unpack");
	w->host.packed = "123345bad"; /* contents */
}

static const char *state(struct world *w, const char *name)
{
	char path[64];
	const char *got;

	snprintf(path, sizeof(path), "infer/app/in/%s", name);
	got = fake_xattr(&w->host, path, "user.state");
	return got ? got : "";
}

/* in/x.tar became in/x, all of which is answered, once, in one task. */
static void whole(struct world *w)
{
	assert_string_equal(state(w, "x.tar"), "unpacked");
	for (size_t i = 0; i < FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "x/%s", names[i]);
		assert_true(world_answered_once(w, path));
	}
	assert_string_equal(world_status(w, "x/a/b/4.png"), "ok");
	assert_string_equal(world_status(w, "x/bad.png"), "failed");
	assert_true(world_number(w, "out/x/task.json", "instances") == FILES);
	assert_null(world_status(w, "x.tar"));
	assert_int_equal(fake_count_keys(&w->host, "t/"), 0);
	assert_int_equal(fake_count_keys(&w->host, "p/"), 0);
	assert_int_equal(fake_count_keys(&w->host, "r/"), 0);
	assert_int_equal(fake_ino(&w->host, "trees/0/1.png"), 0);
}

static void refused(struct world *w, const char *said)
{
	assert_string_equal(state(w, "x.tar"), "failed");
	assert_string_equal(world_status(w, "x.tar"), "failed");
	assert_non_null(strstr(world_text(w, "out/x.tar.json", "error"), said));
	assert_int_equal(fake_times(&w->host, "infer/app/out/x.tar.json"), 1);
	assert_int_equal(fake_ino(&w->host, "infer/app/in/x/1.png"), 0);
	assert_int_equal(fake_count_keys(&w->host, "t/"), 0);
	assert_int_equal(fake_count_keys(&w->host, "p/"), 0);
}

static void test_well(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	assert_string_equal(state(&w, "x.tar"), "unpacking");
	run(&w, 1000);
	whole(&w);
	assert_int_equal(started, 1);
	assert_true(world_number(&w, "out/x/task.json", "deadline_ms") == 20000);
	/* what is added to it later is one more task of it */
	world_put(&w, "x/8.png", "8");
	run(&w, 3000);
	assert_string_equal(world_status(&w, "x/8.png"), "ok");
	assert_true(world_stat(&w, "failed") == 2); /* the empty one too */
	/* another of this name is refused as long as it is there */
	world_put(&w, "x.tar", "tar");
	run(&w, 1000);
	assert_string_equal(state(&w, "x.tar"), "failed");
	assert_non_null(strstr(world_text(&w, "out/x.tar.json", "error"), "a batch of this name"));
	fake_remove(&w.host, "infer/app/in/x");
	sched_post_batch(w.s, "app", BATCH_REMOVED, "x", 1);
	world_put(&w, "x.tar", "tar");
	run(&w, 1000);
	assert_string_equal(state(&w, "x.tar"), "unpacked");
	assert_null(world_status(&w, "x.tar"));
	scripted_end(&w);
}

static void test_deadline(void **data)
{
	struct world w;

	(void)data;
	begin(&w);
	w.host.publish_ns = 10 * NS_PER_MS;
	world_open(&w, "x.tar", "tar");
	fake_setxattr(&w.host, "infer/app/in/x.tar", "user.deadline", "7s"); /* cp --preserve=xattr */
	world_close(&w, "x.tar");
	run(&w, 15); /* the directory is being made, or just was */
	world_deadline(&w, "x.tar", "9s");
	run(&w, 1000);
	assert_true(world_number(&w, "out/x/task.json", "deadline_ms") == 9000);
	assert_string_equal(fake_xattr(&w.host, "infer/app/in/x", "user.deadline"), "9s");
	/* before anything of it was read */
	script[1] = HANG;
	world_put(&w, "y.tar", "tar");
	world_deadline(&w, "y.tar", "3s");
	run(&w, 61000);
	assert_string_equal(world_status(&w, "y.tar"), "failed");
	/* no time is left when it is unpacked: all is dropped, and says so */
	world_open(&w, "z.tar", "tar");
	fake_setxattr(&w.host, "infer/app/in/z.tar", "user.deadline", "1ms");
	world_close(&w, "z.tar");
	run(&w, 2000);
	assert_string_equal(world_status(&w, "z/1.png"), "dropped");
	assert_true(world_number(&w, "out/z/task.json", "dropped") == FILES);
	scripted_end(&w);
}

static void test_deaths(void **data)
{
	struct world w;

	(void)data;
	script[0] = DIE;
	script[1] = DIE_LATE;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	run(&w, 1000);
	whole(&w);
	assert_int_equal(started, 3);
	scripted_end(&w);

	script[0] = script[1] = script[2] = DIE_LATE;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	run(&w, 1000);
	refused(&w, "the worker process died");
	assert_int_equal(started, 3);
	scripted_end(&w);

	script[0] = HANG;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	run(&w, 70000);
	refused(&w, "did not answer in time");
	assert_int_equal(started, 1);
	scripted_end(&w);
}

/* Contents that lie in the archive itself, where it may be so. */
static void test_inside(void **data)
{
	struct world w;

	(void)data;
	script[0] = INSIDE;
	begin(&w);
	w.host.shares = true;
	w.host.packed = "23345bad";
	world_put(&w, "x.tar", "t8r");
	run(&w, 1000);
	whole(&w);
	assert_string_equal(world_text(&w, "out/x/1.png.json", "label"), "6"); /* '8' % 10 */
	assert_int_equal(started, 1);
	scripted_end(&w);
}

static void test_refused(void **data)
{
	static const struct {
		enum script script;
		const char *said;
	} all[] = {{SAY_BAD, "it is a teapot"},
		   {EMPTY, "there is no file in it"},
		   {TWICE, "a/3.png is there twice"}};

	(void)data;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct world w;

		script[0] = all[i].script;
		begin(&w);
		if (script[0] == EMPTY)
			w.host.packed = NULL;
		world_put(&w, "x.tar", "tar");
		run(&w, 1000);
		refused(&w, all[i].said);
		assert_int_equal(started, 1);
		world_crash(&w); /* and it stays so */
		world_restart(&w);
		run(&w, 1000);
		refused(&w, all[i].said);
		assert_int_equal(started, 1);
		scripted_end(&w);
	}
}

static void test_nonsense(void **data)
{
	(void)data;
	for (int what = NONSENSE; what < SCRIPTS; what++) {
		struct world w;

		script[0] = script[1] = script[2] = what;
		begin(&w);
		w.host.shares = what == INSIDE_BEYOND;
		world_put(&w, "x.tar", "tar");
		run(&w, 1000);
		if (started != 3)
			print_message("script %d: %u workers\n", what, started);
		assert_int_equal(started, 3);
		refused(&w, "the worker process died");
		world_put(&w, "y.tar", "tar"); /* the next one does well */
		run(&w, 1000);
		assert_string_equal(state(&w, "y.tar"), "unpacked");
		scripted_end(&w);
	}
}

/* Calls of the scheduler up to the crash: one more each time, until it has done all before. */
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
		world_put(&w, "x.tar", "tar");
		run(&w, 500);
		done = !w.host.dead;
		world_crash(&w);
		world_restart(&w);
		run(&w, 3000);
		whole(&w);
		scripted_end(&w);
	}
	assert_in_range(n, 20, 200);
}

static void test_changed(void **data)
{
	struct world w;

	(void)data;
	/* removed while it is read: as if it had not been */
	script[0] = HANG;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	run(&w, 100);
	world_remove(&w, "x.tar");
	run(&w, 70000);
	assert_null(world_status(&w, "x.tar"));
	assert_int_equal(fake_ino(&w.host, "infer/app/in/x"), 0);
	scripted_end(&w);
	/* written anew while it is read: the new one counts */
	script[0] = HANG;
	begin(&w);
	world_put(&w, "x.tar", "tar");
	run(&w, 100);
	world_open(&w, "x.tar", "another");
	run(&w, 100);
	world_close(&w, "x.tar");
	run(&w, 1000);
	whole(&w);
	assert_int_equal(started, 2);
	scripted_end(&w);
	/* its endpoint goes, while it is read and while it is published */
	for (int late = 0; late < 2; late++) {
		script[0] = late ? WELL : HANG;
		begin(&w);
		w.host.publish_ns = late ? 50 * NS_PER_MS : 0;
		world_put(&w, "x.tar", "tar");
		world_put(&w, "y.tar", "tar"); /* waits, or is next */
		run(&w, 10);
		fake_host_refuse(&w.host, "infer/app");
		fake_remove(&w.host, "infer/app");
		sched_post_endpoint_gone(w.s, "app");
		run(&w, 1000);
		assert_int_equal(fake_ino(&w.host, "infer/app/in/x/1.png"), 0);
		scripted_end(&w);
	}
	/* the directory comes to be just before ours, and no room */
	begin(&w);
	w.host.publish_ns = 50 * NS_PER_MS;
	world_put(&w, "x.tar", "tar");
	run(&w, 10);
	world_mkdir(&w, "x");
	run(&w, 1000);
	refused(&w, "a batch of this name");
	w.host.publish_error = -ENOSPC;
	world_put(&w, "y.tar", "tar");
	run(&w, 1000);
	w.host.publish_error = 0;
	run(&w, 10000);
	assert_non_null(strstr(world_text(&w, "out/y.tar.json", "error"), "there is no room"));
	scripted_end(&w);
}

/* One after the other, beside loose files; a name that waits is no archive yet. */
static void test_several(void **data)
{
	struct world w;

	(void)data;
	script[0] = HANG;
	begin(&w);
	w.options.patience_ns = 0;
	world_put(&w, "x.tar", "tar");
	world_put(&w, "y.zip", "tar");
	world_put(&w, "z.png", "7");
	world_put(&w, "b/in.tar", "no image");
	run(&w, 2000);
	assert_string_equal(world_status(&w, "z.png"), "ok");
	assert_non_null(world_status(&w, "b/in.tar")); /* not directly in in/: an instance */
	assert_string_equal(state(&w, "y.zip"), "unpacking");
	run(&w, 60000);
	assert_string_equal(state(&w, "x.tar"), "failed");
	assert_string_equal(state(&w, "y.zip"), "unpacked");
	assert_true(world_number(&w, "out/y/task.json", "instances") == FILES);
	world_put(&w, "x.tmp.tar", "tar");
	run(&w, 1000);
	assert_non_null(strstr(world_text(&w, "out/x.tmp.tar.json", "error"), "can't be a batch's name"));
	scripted_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_well),    cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_deaths),  cmocka_unit_test(test_inside),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_crash),   cmocka_unit_test(test_changed),
		cmocka_unit_test(test_several),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
