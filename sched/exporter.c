#include "sched/exporter.h"

#include "engine/base/clock.h"
#include "sched/wire.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define LIMIT_NS INT64_C(120000000000) /* chosen: VGG-16, the largest, takes some 5 s */

static int wait_for(int fd, int cancel_fd, struct err *err)
{
	int64_t end = clock_monotonic_ns() + LIMIT_NS;
	struct pollfd polls[2] = {{.fd = fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};

	for (;;) {
		int64_t left = end - clock_monotonic_ns();

		if (left <= 0)
			return err_set(err, ERR_IO, "it took more than %lld s",
				       (long long)(LIMIT_NS / 1000000000));
		if (poll(polls, 2, (int)(left / 1000000 + 1)) < 0 && errno != EINTR)
			return err_set(err, ERR_IO, "waiting for the worker: %s", strerror(errno));
		if (polls[1].revents)
			return -ECANCELED;
		if (polls[0].revents)
			return 0;
	}
}

/* Nothing that the worker says is believed without a look. */
static int check(const struct wire_message *m, int to_fd, struct err *err)
{
	struct stat st;

	if (m->type == WIRE_FAILED && wire_err(err, m->failed.code, m->failed.detail) &&
	    err->code != ERR_NONE)
		return -err_errno(err->code);
	if (m->type != WIRE_EXPORTED || fstat(to_fd, &st) < 0 || st.st_size <= 0 ||
	    (uint64_t)st.st_size != m->exported.len)
		return err_set(err, ERR_PROTOCOL, "the worker's answer");
	return 0;
}

static int converse(struct wire_channel *channel, const struct export_ask *ask, struct err *err)
{
	struct wire_message m = {.type = WIRE_SETUP, .setup = {.threads = 1}};
	int r = wire_send(channel, &m, 0);

	m = (struct wire_message){.type = WIRE_EXPORT,
				  .n_fds = ask->labels_fd < 0 ? 3 : 4,
				  .fds = {ask->json_fd, ask->weights_fd, ask->to_fd, ask->labels_fd},
				  .export = {.rate = ask->rate}};
	if (r == 0)
		r = wire_send(channel, &m, 0);
	if (r == 0) {
		r = wait_for(channel->fd, ask->cancel_fd, err);
		if (r < 0)
			return r;
		r = wire_recv(channel, &m, 0);
	}
	if (r < 0)
		return err_set(err, r == -EPROTO ? ERR_PROTOCOL : ERR_WORKER_DIED, "the export of a slice");
	r = check(&m, ask->to_fd, err);
	wire_clear(&m);
	return r;
}

int exporter_run(int (*spawn)(void *host, const char *kind, int *ret_fd, int *ret_pid), void *host,
		 const struct export_ask *ask, struct err *err)
{
	struct wire_channel channel = {.fd = -1};
	int fd = -1, pid = 0, status;
	int r = spawn(host, "export", &fd, &pid);

	if (r < 0)
		return err_set(err, ERR_IO, "starting a worker: %s", strerror(-r));
	r = wire_init(&channel, fd, WIRE_TO_WORKER);
	r = r < 0 ? err_set(err, ERR_NO_MEMORY, "a worker") : converse(&channel, ask, err);
	if (channel.fd < 0)
		channel.fd = fd;
	wire_release(&channel);
	/* It has a descriptor of the file: only when it is dead nobody can write there. */
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return r;
}
