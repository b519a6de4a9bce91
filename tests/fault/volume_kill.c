/*
 * kill -9 at random moments: a child works on a volume and tells over a pipe what was acknowledged (the call
 * has returned); after the kill all of that must be there, nothing half-made may be, and fsck must be clean,
 * before the next open and after it.
 *
 * Worker w owns the names w-0 … in the root; file w-i is created, filled with i's bytes (now and then beyond
 * what is kept inline), closed; an older one is renamed over or removed. An acknowledgement is (w, i, what).
 */
#include "fs/volume/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUNDS  10
#define WORKERS 3
#define FILES   100000 /* more than a round gets to */

enum what { WRITTEN = 1, REMOVING, REMOVED };

struct ack {
	uint32_t worker, i, what;
};

static char state_dir[64];
static int ack_fd;
static int round_no;

static size_t size_of(uint32_t i)
{
	return i % 7 == 3 ? 150000 + i : i % 5 == 0 ? 0 : 10 + i % 3000;
}

static void fill(char *data, uint32_t worker, uint32_t i)
{
	memset(data, (int)(worker * 31 + i * 7) & 0xff, size_of(i));
}

static void name_of(char name[64], int round, uint32_t worker, uint32_t i)
{
	snprintf(name, 64, "%d-%u-%u", round, worker, i);
}

static void ack(uint32_t worker, uint32_t i, enum what what)
{
	struct ack a = {worker, i, what};

	if (write(ack_fd, &a, sizeof(a)) != sizeof(a))
		_exit(9);
}

static struct volume *child_vol;

static void *work(void *arg)
{
	static __thread char data[256 * 1024];
	uint32_t w = (uint32_t)(uintptr_t)arg;
	struct vol_file *held[4] = {NULL}; /* a flush must be enough: closed only some files later */

	for (uint32_t i = 0; i < FILES; i++) {
		char name[64], older[64];
		struct vol_attr attr;
		struct vol_file *f;

		name_of(name, round_no, w, i);
		fill(data, w, i);
		if (vol_create(child_vol, VOL_ROOT, name, &(struct vol_new){.mode = S_IFREG | 0600}, &attr) <
			    0 ||
		    vol_file_open(child_vol, attr.ino, O_WRONLY, &f) < 0 ||
		    vol_write(f, data, size_of(i), 0) != (ssize_t)size_of(i) || vol_flush(f) < 0)
			_exit(2);
		if (i % 11 == 5 && vol_fsync(f, false) < 0)
			_exit(3);
		ack(w, i, WRITTEN);
		vol_file_close(held[i % 4]);
		held[i % 4] = f;
		/* By turns the older one is removed, removed while open, and kept. */
		if (i < 3 || i % 3 == 2)
			continue;
		name_of(older, round_no, w, i - 3);
		ack(w, i - 3, REMOVING);
		if (i % 3 == 0) {
			if (vol_unlink(child_vol, VOL_ROOT, older, NULL) < 0)
				_exit(4);
		} else {
			if (vol_lookup(child_vol, VOL_ROOT, older, &attr) < 0 ||
			    vol_file_open(child_vol, attr.ino, O_RDONLY, &f) < 0 ||
			    vol_unlink(child_vol, VOL_ROOT, older, NULL) < 0)
				_exit(5);
			if (i % 2)
				vol_file_close(f); /* else an orphan at the kill */
		}
		ack(w, i - 3, REMOVED);
	}
	return NULL;
}

static void child(void)
{
	pthread_t threads[WORKERS];

	if (volume_open(&child_vol, state_dir, 0, NULL) < 0)
		_exit(1);
	for (uintptr_t w = 0; w < WORKERS; w++)
		if (pthread_create(&threads[w], NULL, work, (void *)w))
			_exit(6);
	for (int w = 0; w < WORKERS; w++)
		pthread_join(threads[w], NULL);
	_exit(7);
}

static void say(void *data, const char *line)
{
	(void)data;
	print_message("fsck: %s\n", line);
}

static void fsck(uint64_t *blobs)
{
	struct fsck_report report;

	assert_int_equal(volume_fsck(state_dir, false, say, NULL, &report, NULL), 0);
	assert_int_equal(report.faults, 0);
	*blobs = report.blobs;
}

static unsigned char *state_of; /* [worker][i] */
static uint64_t expected_blobs; /* of all rounds: no blob is left over */

static void check_file(struct volume *vol, uint32_t w, uint32_t i, unsigned what)
{
	static char data[256 * 1024];
	struct vol_attr attr;
	char name[64];
	void *content;
	size_t len;
	int r;

	name_of(name, round_no, w, i);
	r = vol_lookup(vol, VOL_ROOT, name, &attr);
	if (what == REMOVED) {
		assert_int_equal(r, -ENOENT);
		return;
	}
	if (what == REMOVING && r == -ENOENT)
		return;
	if (what == 0) { /* not acknowledged: there or not, whole, empty or not yet written */
		if (r == 0 && attr.size > 64 * 1024)
			expected_blobs++;
		else if (r == 0)
			assert_true(attr.size == 0 || attr.size == size_of(i));
		return;
	}
	assert_int_equal(r, 0);
	fill(data, w, i);
	assert_int_equal(attr.size, size_of(i));
	assert_int_equal(vol_content(vol, attr.ino, sizeof(data), &content, &len), 0);
	assert_memory_equal(content, data, len);
	free(content);
	expected_blobs += len > 64 * 1024;
}

static void round_(unsigned delay_us)
{
	struct volume *vol;
	struct ack a;
	uint64_t blobs;
	uint32_t last[WORKERS] = {0}, total = 0;
	int fds[2], status;
	pid_t pid;

	memset(state_of, 0, WORKERS * (size_t)FILES);
	assert_int_equal(pipe(fds), 0);
	assert_true(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) > 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		ack_fd = fds[1];
		child();
	}
	close(fds[1]);
	/* The moment counts from the first acknowledgement, so that every round meets work. */
	for (bool killed = false; read(fds[0], &a, sizeof(a)) == sizeof(a);) {
		if (!killed) {
			usleep(delay_us);
			assert_int_equal(kill(pid, SIGKILL), 0);
			killed = true;
		}
		state_of[a.worker * (size_t)FILES + a.i] = (unsigned char)a.what;
		if (a.i > last[a.worker])
			last[a.worker] = a.i;
		total++;
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_true(total > 3);

	fsck(&blobs);
	assert_int_equal(volume_open(&vol, state_dir, 0, NULL), 0);
	for (uint32_t w = 0; w < WORKERS; w++)
		for (uint32_t i = 0; i <= last[w] + 1; i++)
			check_file(vol, w, i, state_of[w * (size_t)FILES + i]);
	volume_close(vol);
	fsck(&blobs);
	assert_int_equal(blobs, expected_blobs);
	print_message("round %d: killed %u us after the first of %u acknowledgements\n", round_no, delay_us,
		      total);
}

static void test_kill(void **state)
{
	unsigned seed = (unsigned)time(NULL);
	char command[128];

	(void)state;
	print_message("seed %u\n", seed);
	srand(seed);
	strcpy(state_dir, "/tmp/inferfs-kill-XXXXXX");
	assert_non_null(mkdtemp(state_dir));
	state_of = malloc(WORKERS * (size_t)FILES);
	assert_non_null(state_of);
	for (round_no = 0; round_no < ROUNDS; round_no++)
		round_((unsigned)rand() % 250000);
	free(state_of);
	snprintf(command, sizeof(command), "rm -rf %s", state_dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
