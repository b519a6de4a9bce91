#include "fs/mount/takeover.h"

#include "engine/base/log.h"
#include "fs/mount/handover.h"
#include "fs/volume/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME      "takeover"
#define MAGIC     "inferfs"
#define HELLO_S   2     /* chosen: to say hello; the daemon hears no signals meanwhile */
#define STATE_S   120   /* chosen: to stop and flush everything */
#define READY_MS  60000 /* chosen: to open the volume */
#define ENDED_MS  1000  /* chosen: to print a line */
#define KILLED_MS 10000

enum type { HELLO = 1, REFUSED, STATE, FAILED, READY };

struct message {
	char magic[8];
	uint32_t protocol; /* in every version the first two, and `why` of a REFUSED */
	uint32_t type;
	char text[PATH_MAX]; /* HELLO: the mount point; REFUSED, FAILED: why */
	uint32_t volume_format;
};

void takeover_close(struct takeover *t)
{
	if (t->sock >= 0)
		close(t->sock);
	if (t->pidfd >= 0)
		close(t->pidfd);
	*t = TAKEOVER_NONE;
}

/* By the directory's descriptor: a socket's path may have no more than 107 bytes. */
static int address(const char *state_dir, struct sockaddr_un *ret, int *ret_dir)
{
	int dir = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -errno;
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/" NAME, dir);
	*ret_dir = dir;
	return 0;
}

static int send_message(int sock, enum type type, const char *text, const int *fds, int n_fds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct message m = {.magic = MAGIC,
			    .protocol = HANDOVER_PROTOCOL,
			    .type = type,
			    .volume_format = volume_format()};
	struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	snprintf(m.text, sizeof(m.text), "%s", text ? text : "");
	if (n_fds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, (size_t)n_fds * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* The descriptors that came along; more than two are not asked for and closed by the kernel. */
static int take_fds(struct msghdr *msg, int *fds)
{
	int n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (fds && n < 2)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

/*
 * -EPIPE: the other side is gone; -EPROTO: that is no message; -EPROTONOSUPPORT: of another protocol (m is set as far as
 * that goes). fds (NULL: none are taken): two, or -1.
 */
static int receive(int sock, struct message *m, int *fds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = m, .iov_len = sizeof(*m)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int n_fds, got[2] = {-1, -1};
	ssize_t n;

	memset(m, 0, sizeof(*m));
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : errno == EAGAIN ? -ETIMEDOUT : -errno;
	n_fds = take_fds(&msg, got);
	m->text[sizeof(m->text) - 1] = '\0';
	if (n_fds == 2 && fds) {
		memcpy(fds, got, sizeof(got));
	} else {
		for (int i = 0; i < n_fds; i++)
			close(got[i]);
		if (fds)
			fds[0] = fds[1] = -1;
	}
	if (n == 0)
		return -EPIPE;
	if (n < (ssize_t)offsetof(struct message, text) || msg.msg_flags & MSG_TRUNC ||
	    memcmp(m->magic, MAGIC, sizeof(m->magic)) != 0)
		return -EPROTO;
	if (m->protocol != HANDOVER_PROTOCOL)
		return -EPROTONOSUPPORT;
	return n == sizeof(*m) ? 0 : -EPROTO;
}

static int identify(struct takeover *t, uid_t *ret_uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(t->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	t->pid = cred.pid;
	t->pidfd = pidfd_open(cred.pid, 0);
	*ret_uid = cred.uid;
	return t->pidfd < 0 ? -errno : 0;
}

static void set_patience(int sock, int seconds)
{
	struct timeval tv = {.tv_sec = seconds};

	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

/* --- the daemon that has the mount --- */

int takeover_listen(const char *state_dir, int *ret_fd, struct err *err)
{
	struct sockaddr_un addr;
	int sock = -1, dir = -1, r = address(state_dir, &addr, &dir);
	mode_t mask;

	if (r < 0)
		goto out;
	if (unlinkat(dir, NAME, 0) < 0 && errno != ENOENT) {
		r = -errno;
		goto out;
	}
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	r = sock < 0 || bind(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(sock, 4) < 0 ? -errno
												      : 0;
	umask(mask);
out:
	if (dir >= 0)
		close(dir);
	if (r < 0) {
		if (sock >= 0)
			close(sock);
		return err_set(err, ERR_IO, "%s/" NAME ": %s", state_dir, strerror(-r));
	}
	*ret_fd = sock;
	return 0;
}

void takeover_unlisten(const char *state_dir)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/" NAME, state_dir) < (int)sizeof(path))
		unlink(path);
}

void takeover_refuse(struct takeover *t, const char *why)
{
	log_warn("not handed over to process %d: %s", (int)t->pid, why);
	send_message(t->sock, REFUSED, why, NULL, 0);
	takeover_close(t);
}

int takeover_accept(int listen_fd, const char *mnt, struct takeover *ret)
{
	struct takeover t = TAKEOVER_NONE;
	struct message m = {0};
	uid_t uid = (uid_t)-1;
	int r;

	t.sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (t.sock < 0)
		return -errno;
	set_patience(t.sock, HELLO_S);
	r = identify(&t, &uid);
	if (r == 0 && uid != geteuid()) {
		takeover_refuse(&t, "this daemon is another user's");
		return -EPERM;
	}
	if (r == 0)
		r = receive(t.sock, &m, NULL);
	if (r == 0 && m.type != HELLO)
		r = -EPROTO;
	if (r == -EPROTONOSUPPORT)
		takeover_refuse(&t, "it speaks another version's protocol: unmount and mount");
	else if (r < 0)
		takeover_refuse(&t, strerror(-r));
	else if (m.volume_format < volume_format()) /* it reads older ones */
		takeover_refuse(&t, "it uses another format of the volume: unmount and mount");
	else if (strcmp(m.text, mnt) != 0)
		takeover_refuse(&t, "the tree is mounted elsewhere");
	else
		*ret = t;
	return t.sock < 0 ? -EPROTO : r;
}

int takeover_send(struct takeover *t, int fuse_fd, int state_fd)
{
	return send_message(t->sock, STATE, NULL, (int[2]){fuse_fd, state_fd}, 2);
}

/* kindly: it said that it gives up, and has something to say to its user before it ends. */
static void kill_it(struct takeover *t, bool kindly)
{
	struct pollfd pfd = {.fd = t->pidfd, .events = POLLIN};

	if (kindly && poll(&pfd, 1, ENDED_MS) > 0)
		return;
	pidfd_send_signal(t->pidfd, SIGKILL, NULL, 0); /* it may be dead */
	if (poll(&pfd, 1, KILLED_MS) <= 0)
		log_error("process %d, which was to take over, can't be killed", (int)t->pid);
}

int takeover_wait(struct takeover *t)
{
	struct pollfd pfd = {.fd = t->sock, .events = POLLIN};
	struct message m;
	int r;

	r = poll(&pfd, 1, READY_MS) > 0 ? receive(t->sock, &m, NULL) : -ETIMEDOUT;
	if (r == 0 && m.type == READY)
		return 0;
	log_error("process %d did not take over: %s", (int)t->pid,
		  r == 0 && m.type == FAILED ? m.text
		  : r == -EPIPE              ? "it ended"
		  : r < 0                    ? strerror(-r)
					     : "it answered nonsense");
	kill_it(t, r == 0 && m.type == FAILED);
	/* Should its READY have crossed our patience, it may have read requests that nobody can answer any more. */
	return recv(t->sock, &m, sizeof(m), MSG_DONTWAIT) > 0 && m.type == READY ? -EOWNERDEAD
	       : r < 0                                                           ? r
										 : -EPROTO;
}

/* --- the one that wants it --- */

static int explain(struct err *err, int r, const struct message *m, const char *state_dir)
{
	if (r == -EPROTONOSUPPORT && m->type == REFUSED)
		return err_set(err, ERR_TAKEOVER, "its daemon speaks protocol %u, this program %d",
			       m->protocol, HANDOVER_PROTOCOL);
	if (r == 0 && m->type == REFUSED)
		return err_set(err, ERR_TAKEOVER, "its daemon refuses: %.300s", m->text);
	if (r == -EPIPE)
		return err_set(err, ERR_TAKEOVER, "its daemon died");
	return err_set(err, ERR_TAKEOVER, "%.200s/" NAME ": %s", state_dir,
		       r == 0 ? "nonsense" : strerror(-r));
}

int takeover_ask(const char *state_dir, const char *mnt, struct takeover *ret, int *ret_fuse_fd,
		 int *ret_state_fd, struct err *err)
{
	struct takeover t = TAKEOVER_NONE;
	struct sockaddr_un addr;
	struct message m = {0};
	int fds[2] = {-1, -1}, dir = -1, r;
	uid_t uid = 0;

	r = address(state_dir, &addr, &dir);
	if (r == 0) {
		t.sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		r = t.sock < 0 || connect(t.sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
		close(dir);
	}
	if (r == -ENOENT || r == -ECONNREFUSED) {
		r = err_set(err, ERR_TAKEOVER, "no daemon of %.200s answers that could hand it over",
			    state_dir);
		goto out;
	}
	if (r == 0)
		r = identify(&t, &uid);
	if (r < 0) {
		r = explain(err, r, &m, state_dir);
		goto out;
	}
	if (uid != geteuid()) {
		r = err_set(err, ERR_TAKEOVER, "its daemon runs as user %u, this program as %u", uid,
			    geteuid());
		goto out;
	}
	set_patience(t.sock, STATE_S);
	r = send_message(t.sock, HELLO, mnt, NULL, 0);
	if (r == 0)
		r = receive(t.sock, &m, fds);
	if (r < 0 || m.type != STATE || fds[0] < 0) {
		r = explain(err, r, &m, state_dir);
		goto out;
	}
	*ret_fuse_fd = fds[0];
	*ret_state_fd = fds[1];
	*ret = t;
	return 0;
out:
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	takeover_close(&t);
	return r;
}

int takeover_ready(struct takeover *t, struct err *err)
{
	int r = send_message(t->sock, READY, NULL, NULL, 0);

	/* Nobody there: it died after it gave us all. */
	if (r == -EPIPE || r == -ECONNRESET)
		r = 0;
	return r < 0 ? err_set(err, ERR_TAKEOVER, "telling its daemon: %s", strerror(-r)) : 0;
}

void takeover_failed(struct takeover *t, const char *why)
{
	if (t->sock >= 0)
		send_message(t->sock, FAILED, why, NULL, 0);
	takeover_close(t);
}
