/*
 * Messages that the socket does not take at once wait in a list, in order, with duplicates of their
 * descriptors; POLLOUT is watched only then. A worker that sends faster than the scheduler can listen gets
 * MESSAGES_A_TURN answered before other work has its turn.
 *
 * A fault is noted in `broken` and told by a posted event, never from within a call of the owner: the owner's
 * state is whole whenever `gone` runs.
 */
#include "sched/peer.h"

#include "engine/base/log.h"
#include "sched/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGES_A_TURN 16               /* chosen */
#define REAP_AGAIN_NS   (10 * NS_PER_MS) /* chosen: a killed process needs some ms to give back its memory */
#define REAP_WAIT_MS    2000

struct waiting {
	struct waiting *next;
	int n_fds, fds[WIRE_MAX_FDS];
	size_t len;
	uint8_t packet[];
};

struct peer {
	struct loop *loop;
	struct wire_channel channel;
	int pid;
	const char *kind;
	const struct peer_events *events;
	void *data;
	struct waiting *first, **last;
	const char *broken; /* why it ended; NULL while it works */
	struct loop_timer *tell;
};

/* --- reaper --- */

void reaper_init(struct reaper *reaper, struct loop *loop)
{
	*reaper = (struct reaper){.loop = loop};
}

static bool reaped(int pid)
{
	int status, r = waitpid(pid, &status, WNOHANG);

	if (r == 0 || (r < 0 && errno == EINTR))
		return false;
	if (r == pid && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		log_warn("worker %d ended by signal %d (%s)", pid, WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (r == pid && WIFEXITED(status) && WEXITSTATUS(status))
		log_warn("worker %d ended with status %d", pid, WEXITSTATUS(status));
	return true; /* ECHILD too: somebody else's, or the host's tests have no processes */
}

static void reap(struct reaper *reaper)
{
	size_t left = 0;

	for (size_t i = 0; i < reaper->n; i++)
		if (!reaped(reaper->pids[i]))
			reaper->pids[left++] = reaper->pids[i];
	reaper->n = left;
}

static void reap_later(void *data)
{
	struct reaper *reaper = data;

	reap(reaper);
	reaper->timer = reaper->n ? loop_timer_at(reaper->loop, loop_now(reaper->loop) + REAP_AGAIN_NS,
						  reap_later, reaper)
				  : NULL;
}

static void reaper_add(struct reaper *reaper, int pid)
{
	if (pid <= 0 || reaped(pid))
		return;
	if (reaper->n == reaper->size) {
		size_t size = reaper->size ? 2 * reaper->size : 4;
		int *pids = reallocarray(reaper->pids, size, sizeof(*pids));

		if (!pids) {
			log_error("no memory to wait for worker %d: it stays a zombie", pid);
			return;
		}
		reaper->pids = pids;
		reaper->size = size;
	}
	reaper->pids[reaper->n++] = pid;
	if (!reaper->timer)
		reaper->timer = loop_timer_at(reaper->loop, loop_now(reaper->loop) + REAP_AGAIN_NS,
					      reap_later, reaper);
}

void reaper_release(struct reaper *reaper)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	if (!reaper->loop)
		return;
	loop_timer_cancel(reaper->loop, reaper->timer);
	reap(reaper);
	for (int i = 0; reaper->n && i < REAP_WAIT_MS; i++) {
		nanosleep(&ms, NULL);
		reap(reaper);
	}
	free(reaper->pids);
	*reaper = (struct reaper){0};
}

/* --- peer --- */

static void drop_waiting(struct peer *peer)
{
	struct waiting *w;

	while ((w = peer->first)) {
		peer->first = w->next;
		for (int i = 0; i < w->n_fds; i++)
			close(w->fds[i]);
		free(w);
	}
	peer->last = &peer->first;
}

static void tell_gone(void *data)
{
	struct peer *peer = data;

	peer->tell = NULL;
	peer->events->gone(peer->data, peer->broken);
}

static void end(struct peer *peer, const char *reason)
{
	if (peer->broken)
		return;
	peer->broken = reason;
	drop_waiting(peer);
	loop_unwatch(peer->loop, peer->channel.fd);
	if (peer->pid > 0)
		kill(peer->pid, SIGKILL);
	peer->tell = loop_timer_at(peer->loop, loop_now(peer->loop), tell_gone, peer);
	if (!peer->tell)
		log_error("no memory: a dead %s worker goes unnoticed", peer->kind);
}

void peer_kill(struct peer *peer, const char *reason)
{
	end(peer, reason);
}

int peer_pid(const struct peer *peer)
{
	return peer->pid;
}

static void on_socket(void *data, short revents);

static int watch(struct peer *peer)
{
	loop_unwatch(peer->loop, peer->channel.fd);
	return loop_watch(peer->loop, peer->channel.fd, peer->first ? POLLIN | POLLOUT : POLLIN, on_socket,
			  peer);
}

int peer_new(struct peer **ret, struct loop *loop, const struct host_ops *ops, void *host, const char *kind,
	     const struct peer_events *events, void *data)
{
	struct peer *peer;
	int fd, r;

	if (!ops->spawn)
		return -ENOSYS;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	*peer = (struct peer){.loop = loop, .kind = kind, .events = events, .data = data};
	peer->last = &peer->first;
	r = ops->spawn(host, kind, &fd, &peer->pid);
	if (r < 0) {
		free(peer);
		return r;
	}
	r = wire_init(&peer->channel, fd, WIRE_TO_WORKER);
	if (r < 0) {
		close(fd);
		peer->channel.fd = -1;
	} else {
		r = watch(peer);
	}
	if (r < 0) {
		struct reaper reaper;

		reaper_init(&reaper, loop);
		peer_free(peer, &reaper);
		reaper_release(&reaper);
		return r;
	}
	log_trace(LOG_WIRE, "%s worker %d started", kind, peer->pid);
	*ret = peer;
	return 0;
}

void peer_free(struct peer *peer, struct reaper *reaper)
{
	if (!peer)
		return;
	loop_timer_cancel(peer->loop, peer->tell);
	drop_waiting(peer);
	if (peer->channel.fd >= 0)
		loop_unwatch(peer->loop, peer->channel.fd);
	wire_release(&peer->channel);
	if (peer->pid > 0)
		kill(peer->pid, SIGKILL);
	reaper_add(reaper, peer->pid);
	free(peer);
}

/* Encodes now, so that the texts and lists need not outlive the call. */
static int enqueue(struct peer *peer, const struct wire_message *m)
{
	struct waiting *w = malloc(sizeof(*w) + WIRE_MAX), *fit;
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct waiting){.n_fds = 0};
	r = wire_encode(m, 0, w->packet, &w->len);
	for (int i = 0; r == 0 && i < m->n_fds; i++) {
		w->fds[i] = fcntl(m->fds[i], F_DUPFD_CLOEXEC, 3);
		if (w->fds[i] < 0)
			r = -errno;
		else
			w->n_fds++;
	}
	if (r < 0) {
		for (int i = 0; i < w->n_fds; i++)
			close(w->fds[i]);
		free(w);
		return r;
	}
	fit = realloc(w, sizeof(*w) + w->len);
	w = fit ? fit : w;
	*peer->last = w;
	peer->last = &w->next;
	return 0;
}

int peer_send(struct peer *peer, const struct wire_message *m)
{
	int r;

	if (peer->broken)
		return 0;
	log_trace(LOG_WIRE, "%s worker %d: < %s", peer->kind, peer->pid, wire_name(m->type));
	r = peer->first ? -EAGAIN : wire_send(&peer->channel, m, MSG_DONTWAIT);
	if (r == -EAGAIN) {
		bool first = !peer->first;

		r = enqueue(peer, m);
		if (r == 0 && first)
			r = watch(peer);
	}
	if (r < 0 && r != -EMSGSIZE && r != -EINVAL && r != -ENOMEM) {
		end(peer, "does not listen");
		r = 0;
	}
	return r;
}

static void send_waiting(struct peer *peer)
{
	struct waiting *w;

	while ((w = peer->first)) {
		int r = wire_send_packet(&peer->channel, w->packet, w->len, w->fds, w->n_fds, MSG_DONTWAIT);

		if (r == -EAGAIN)
			return;
		if (r < 0) {
			end(peer, "does not listen");
			return;
		}
		peer->first = w->next;
		if (!peer->first)
			peer->last = &peer->first;
		for (int i = 0; i < w->n_fds; i++)
			close(w->fds[i]);
		free(w);
	}
	if (watch(peer) < 0)
		end(peer, "can't be watched");
}

static void on_socket(void *data, short revents)
{
	struct peer *peer = data;

	if (revents & POLLOUT)
		send_waiting(peer);
	if (!(revents & (POLLIN | POLLHUP | POLLERR)))
		return;
	for (int i = 0; i < MESSAGES_A_TURN && !peer->broken; i++) {
		struct wire_message m;
		int r = wire_recv(&peer->channel, &m, MSG_DONTWAIT);

		if (r == -EAGAIN)
			return;
		if (r == 0) {
			log_trace(LOG_WIRE, "%s worker %d: > %s", peer->kind, peer->pid, wire_name(m.type));
			r = peer->events->message(peer->data, &m);
			wire_clear(&m);
		}
		if (r == -EPIPE)
			end(peer, "closed its socket");
		else if (r == -EPROTO)
			end(peer, "sent what is no message of its turn");
		else if (r < 0)
			end(peer, strerrordesc_np(-r));
	}
}
