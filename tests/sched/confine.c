/*
 * What a worker can't do once it is confined, by each fence alone and by all together: open a file it was not
 * given, make one, reach the network, start or signal a process. What it was given still works.
 */
#include "sched/worker/worker.h"

#include "engine/base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char secret[] = "/tmp/inferfs-confine-XXXXXX";

enum { PATHS = 1, CALLS = 2 };

/* Each does one thing and gives 0 or the errno. */
static int result(int r)
{
	return r < 0 ? errno : 0;
}

static int open_secret(void)
{
	return result(open(secret, O_RDONLY));
}

static int open_for_writing(void)
{
	return result(open(secret, O_WRONLY));
}

static int make_file(void)
{
	return result(open("/tmp/inferfs-confine-made", O_WRONLY | O_CREAT, 0600));
}

static int remove_file(void)
{
	return result(unlink(secret));
}

static int list_root(void)
{
	return result(open("/", O_RDONLY | O_DIRECTORY));
}

static int open_memory(void) /* a descriptor on the daemon's memory */
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	return result(open(path, O_RDWR));
}

static int execute(void)
{
	return result(execl("/bin/true", "true", NULL));
}

static int start_process(void)
{
	int pid = fork();

	if (pid == 0)
		_exit(0);
	return result(pid);
}

static int connect_out(void)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(9), .sin_addr = {htonl(0x7f000001)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 ? errno : connect(fd, (void *)&to, sizeof(to)) < 0 ? errno : 0;
}

static int signal_parent(void)
{
	return result(kill(getppid(), 0));
}

static int trace_parent(void)
{
	return result((int)ptrace(PTRACE_SEIZE, getppid(), NULL, NULL));
}

static const struct {
	const char *name;
	int (*act)(void);
	int fences, error; /* any of these fences gives this errno, or EPERM of the other */
} refused[] = {
	{"open a file", open_secret, PATHS | CALLS, EACCES},
	{"open a file for writing", open_for_writing, PATHS | CALLS, EACCES},
	{"make a file", make_file, PATHS | CALLS, EACCES},
	{"remove a file", remove_file, PATHS | CALLS, EACCES},
	{"list a directory", list_root, PATHS | CALLS, EACCES},
	{"open the daemon's memory", open_memory, PATHS | CALLS, EACCES},
	{"execute a program", execute, PATHS | CALLS, EACCES},
	{"start a process", start_process, CALLS, EPERM},
	{"reach the network", connect_out, CALLS, EPERM},
	{"signal the daemon", signal_parent, CALLS, EPERM},
	{"trace the daemon", trace_parent, PATHS | CALLS, EPERM},
};

static void *thread(void *data)
{
	*(int *)data = 1;
	return NULL;
}

/* What decoding and computing need; `given` is a descriptor from before. 0, or the number of what failed. */
static int allowed(int given, int socket)
{
	struct wire_channel ch;
	struct wire_message m;
	pthread_t t;
	char text[16];
	struct stat st;
	int ran = 0, fd;
	void *code;

	if (pread(given, text, sizeof(text), 0) != 6 || memcmp(text, "secret", 6) != 0 ||
	    fstat(given, &st) < 0)
		return 1;
	if (io_memfd("made", "x", 1, &fd) < 0 || pread(fd, text, 1, 0) != 1)
		return 2;
	if (pthread_create(&t, NULL, thread, &ran) != 0 || pthread_join(t, NULL) != 0 || !ran)
		return 3;
	code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		return 4;
	if (wire_init(&ch, socket, WIRE_TO_DAEMON) < 0 || wire_recv(&ch, &m, 0) < 0 ||
	    m.type != WIRE_FINISH || pread(m.fds[0], text, 1, 0) != 1 ||
	    wire_send(&ch, &(struct wire_message){.type = WIRE_TAKEN}, 0) < 0)
		return 5;
	wire_clear(&m);
	return 0;
}

/* Runs in a child that the fences stand around; the exit status tells. */
static int confined(int fences, int (*act)(void), int given, int socket)
{
	int pid = fork(), status, r = 0;

	if (pid == 0) {
		signal(SIGSYS, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (fences == (PATHS | CALLS))
			r = worker_confine();
		else
			r = fences == PATHS ? confine_paths() : confine_calls();
		if (r == -EOPNOTSUPP)
			_exit(200);
		if (r < 0)
			_exit(201);
		_exit(act ? act() : allowed(given, socket));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_refused(void **state)
{
	static const char *const names[] = {"", "paths", "calls", "all"};

	(void)state;
	for (int fences = PATHS; fences <= (PATHS | CALLS); fences++) {
		if (WORKER_SANITIZED && fences != PATHS)
			continue;
		for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
			int r;

			if (!(refused[i].fences & fences))
				continue;
			r = confined(fences, refused[i].act, -1, -1);
			if (r == 200) {
				print_message("this kernel has no fence around %s\n", names[fences]);
				break;
			}
			if (r != EPERM && r != refused[i].error)
				fail_msg("%s with fence %s: %s", refused[i].name, names[fences],
					 r ? strerror(r) : "worked");
		}
	}
	assert_int_equal(access(secret, F_OK), 0);
	assert_int_equal(access("/tmp/inferfs-confine-made", F_OK), -1);
}

static void test_allowed(void **state)
{
	(void)state;
	for (int fences = PATHS; fences <= (WORKER_SANITIZED ? PATHS : PATHS | CALLS); fences++) {
		struct wire_message m = {.type = WIRE_FINISH, .n_fds = 1};
		struct wire_channel ch;
		int pair[2], given = open(secret, O_RDONLY | O_CLOEXEC), r;

		assert_true(given >= 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
		assert_int_equal(wire_init(&ch, pair[0], WIRE_TO_WORKER), 0);
		m.fds[0] = given;
		assert_int_equal(wire_send(&ch, &m, 0), 0);
		r = confined(fences, NULL, given, pair[1]);
		assert_true(r == 0 || r == 200);
		if (r == 0) {
			assert_int_equal(wire_recv(&ch, &m, 0), 0);
			assert_int_equal(m.type, WIRE_TAKEN);
			wire_clear(&m);
		}
		close(given);
		close(pair[1]);
		wire_release(&ch);
	}
}

static int setup(void **state)
{
	int fd = mkstemp(secret);

	(void)state;
	return fd < 0 || write(fd, "secret", 6) != 6 || close(fd) < 0;
}

static int teardown(void **state)
{
	(void)state;
	return unlink(secret);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_allowed),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
