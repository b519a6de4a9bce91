/*
 * Workers without a process, for tests of what talks with them: each is a socket into which its whole script was written when it was
 * started. A test's program includes this once and gives play().
 *
 *	script[0] = DIE;		// the first worker's; 0, WELL, where nothing is said
 *	scripted_begin(&w.host, "unpack");
 *	…
 *	scripted_end(&w);
 */
#ifndef TESTS_SUPPORT_SCRIPTED_H
#define TESTS_SUPPORT_SCRIPTED_H

#include "sched/wire.h"
#include "tests/support/fake_host.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SCRIPTED = 8, SCRIPTED_ENDS = 64 };

static int script[SCRIPTED];
static unsigned started; /* workers */
static int scripted_ends[SCRIPTED_ENDS];
static const char *scripted_kind;

/* Says all that a worker of that script says. False: then it dies; what is sent to it goes nowhere. */
static bool play(struct wire_channel *ch, int what);

static inline void say(struct wire_channel *ch, struct wire_message m)
{
	assert_int_equal(wire_send(ch, &m, MSG_DONTWAIT), 0);
}

static inline int scripted_spawn(struct fake_host *h, const char *kind, int *ret_fd)
{
	struct wire_channel ch;
	int pair[2];

	(void)h;
	assert_string_equal(kind, scripted_kind);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(wire_init(&ch, pair[1], WIRE_TO_DAEMON), 0);
	if (!play(&ch, started < SCRIPTED ? script[started] : 0))
		assert_int_equal(shutdown(ch.fd, SHUT_WR), 0);
	scripted_ends[started % SCRIPTED_ENDS] = ch.fd;
	free(ch.packet);
	started++;
	*ret_fd = pair[0];
	return 0;
}

/* The workers' ends of the sockets. */
static inline void scripted_close(void)
{
	for (size_t i = 0; i < SCRIPTED_ENDS; i++) {
		if (scripted_ends[i] >= 0)
			close(scripted_ends[i]);
		scripted_ends[i] = -1;
	}
}

static inline void scripted_begin(struct fake_host *h, const char *kind)
{
	for (size_t i = 0; i < SCRIPTED_ENDS; i++)
		scripted_ends[i] = -1;
	started = 0;
	scripted_kind = kind;
	h->spawn = scripted_spawn;
}

static inline void scripted_end(struct world *w)
{
	assert_int_equal(w->host.key_faults, 0);
	world_release(w);
	scripted_close();
	memset(script, 0, sizeof(script));
}

static inline void scripted_stop(void *loop)
{
	loop_stop(loop);
}

/* Sockets are looked at by loop_run only. */
static inline void run(struct world *w, int64_t ms)
{
	assert_non_null(loop_timer_at(w->loop, loop_now(w->loop) + ms * NS_PER_MS, scripted_stop, w->loop));
	loop_run(w->loop);
}

#endif
