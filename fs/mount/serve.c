/*
 * Each thread sleeps in read(2) of /dev/fuse. To pause, `want` is changed and a signal without effect is sent to
 * those that read, again and again until all rest: read(2) ends with EINTR only when it has taken no request from the
 * kernel, and a thread looks at `want` before each read. A signal that comes just before the read does nothing,
 * hence again.
 *
 * There is one thread more than are busy, up to the option's number; none ends before the server does.
 */
#include "fs/mount/serve.h"

#include "engine/base/log.h"
#include "fs/mount/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WAKE_SIGNAL SIGRTMIN
#define AGAIN_NS    500000 /* chosen: between two signals to a thread that does not rest yet */

enum want { REST, RUN, END };

struct thread {
	struct server *server;
	pthread_t id;
	struct fuse_buf buf;
	bool reading; /* atomic */
};

struct server {
	struct fuse_session *se;
	bool clone_fd;
	void (*ended)(void *data);
	void *ended_data;
	pthread_mutex_t lock;
	pthread_cond_t wake;                   /* of threads that rest; CLOCK_MONOTONIC's, as `rest` */
	pthread_cond_t rest;                   /* one more thread rests or has ended */
	enum want want;                        /* atomic; changed under lock */
	bool over;                             /* under lock: the mount is gone */
	int n_threads, n_resting, max_threads; /* under lock */
	int n_idle;                            /* atomic: threads that have no request */
	bool (*hold)(void *data, const void *request, size_t size); /* atomic */
	void *hold_data;
	struct request *held, **held_tail; /* under lock */
	struct request *given;             /* atomic read; under lock */
	struct request *init;              /* written once, before any other request comes */
	struct thread threads[];
};

static __thread int own_fd = -1; /* with clone_fd */
static __thread bool muted;

static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(own_fd >= 0 ? own_fd : fd, buf, len);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	ssize_t len = 0;

	(void)userdata;
	if (!muted)
		return writev(own_fd >= 0 ? own_fd : fd, iov, count);
	for (int i = 0; i < count; i++)
		len += (ssize_t)iov[i].iov_len;
	return len;
}

static void nothing(int sig)
{
	(void)sig;
}

static int clone_fd(struct fuse_session *se)
{
	uint32_t master = (uint32_t)fuse_session_fd(se);
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &master) < 0) {
		log_warn("cloning /dev/fuse: %s: without", strerror(errno));
		close(fd);
		fd = -1;
	}
	return fd;
}

struct request *request_new(const void *bytes, size_t size)
{
	struct request *request = malloc(sizeof(*request) + size);

	if (!request)
		return NULL;
	request->next = NULL;
	request->size = size;
	memcpy(request->bytes, bytes, size);
	return request;
}

static void free_requests(struct request *requests)
{
	for (struct request *next; requests; requests = next) {
		next = requests->next;
		free(requests);
	}
}

/* False: it can't be kept, and is served. */
static bool keep(struct server *server, const void *bytes, size_t size)
{
	struct request *request = request_new(bytes, size);

	if (!request)
		return false;
	pthread_mutex_lock(&server->lock);
	*server->held_tail = request;
	server->held_tail = &request->next;
	pthread_mutex_unlock(&server->lock);
	return true;
}

static int add_thread(struct server *server);

static void serve(struct server *server, const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;
	bool (*hold)(void *data, const void *request, size_t size) =
		__atomic_load_n(&server->hold, __ATOMIC_ACQUIRE);

	if (hold && hold(server->hold_data, buf->mem, buf->size) && keep(server, buf->mem, buf->size))
		return;
	if (in->opcode == FUSE_INIT && !server->init)
		server->init = request_new(buf->mem, buf->size);
	if (__atomic_sub_fetch(&server->n_idle, 1, __ATOMIC_RELAXED) == 0) {
		pthread_mutex_lock(&server->lock);
		if (server->n_threads < server->max_threads)
			add_thread(server); /* without it, the others have more to do */
		pthread_mutex_unlock(&server->lock);
	}
	fuse_session_process_buf(server->se, buf);
	__atomic_add_fetch(&server->n_idle, 1, __ATOMIC_RELAXED);
}

/* One that was given, if there is any. */
static bool serve_given(struct server *server)
{
	struct fuse_buf buf = {0};
	struct request *given;

	pthread_mutex_lock(&server->lock);
	given = server->given;
	if (given)
		__atomic_store_n(&server->given, given->next, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&server->lock);
	if (!given)
		return false;
	buf.mem = given->bytes;
	buf.size = given->size;
	serve(server, &buf);
	free(given);
	return true;
}

/* False: the end. */
static bool rest(struct server *server)
{
	enum want want;

	pthread_mutex_lock(&server->lock);
	server->n_resting++;
	pthread_cond_signal(&server->rest);
	while ((want = server->want) == REST)
		pthread_cond_wait(&server->wake, &server->lock);
	server->n_resting--;
	pthread_mutex_unlock(&server->lock);
	return want == RUN;
}

static void *thread_main(void *data)
{
	struct thread *self = data;
	struct server *server = self->server;
	bool gone = false;
	int r;

	pthread_setname_np(pthread_self(), "inferfs/fuse");
	if (server->clone_fd)
		own_fd = clone_fd(server->se);
	for (;;) {
		if (__atomic_load_n(&server->want, __ATOMIC_RELAXED) != RUN && !rest(server))
			break;
		if (__atomic_load_n(&server->given, __ATOMIC_RELAXED) && serve_given(server))
			continue;
		__atomic_store_n(&self->reading, true, __ATOMIC_RELAXED);
		r = fuse_session_receive_buf(server->se, &self->buf);
		__atomic_store_n(&self->reading, false, __ATOMIC_RELAXED);
		if (r > 0) {
			serve(server, &self->buf);
		} else if (r != -EINTR) {
			if (r < 0)
				log_error("reading requests: %s", strerror(-r));
			gone = true;
			break;
		}
	}
	if (own_fd >= 0)
		close(own_fd);
	free(self->buf.mem);
	pthread_mutex_lock(&server->lock);
	if (gone) {
		gone = !server->over; /* the first one tells */
		server->over = true;
		__atomic_store_n(&server->want, END, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&server->wake);
	}
	server->n_resting++; /* for good */
	pthread_cond_signal(&server->rest);
	pthread_mutex_unlock(&server->lock);
	if (gone)
		server->ended(server->ended_data);
	return NULL;
}

/* lock held */
static int add_thread(struct server *server)
{
	struct thread *thread = &server->threads[server->n_threads];
	int r;

	*thread = (struct thread){.server = server};
	r = -pthread_create(&thread->id, NULL, thread_main, thread);
	if (r == 0) {
		server->n_threads++;
		__atomic_add_fetch(&server->n_idle, 1, __ATOMIC_RELAXED);
	}
	return r;
}

int server_new(struct server **ret, struct fuse_session *se, const struct mount_options *options,
	       void (*ended)(void *data), void *data)
{
	static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};
	const struct sigaction action = {.sa_handler = nothing}; /* without SA_RESTART */
	size_t max = (size_t)options->threads;
	struct server *server = calloc(1, sizeof(*server) + max * sizeof(server->threads[0]));
	pthread_condattr_t attr;
	int r;

	if (!server)
		return -ENOMEM;
	r = fuse_session_custom_io(se, &io, fuse_session_fd(se));
	if (r == 0 && sigaction(WAKE_SIGNAL, &action, NULL) < 0)
		r = -errno;
	if (r < 0) {
		free(server);
		return r;
	}
	server->se = se;
	server->clone_fd = options->clone_fd;
	server->ended = ended;
	server->ended_data = data;
	server->max_threads = (int)max;
	server->held_tail = &server->held;
	pthread_mutex_init(&server->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&server->wake, &attr);
	pthread_cond_init(&server->rest, &attr);
	pthread_condattr_destroy(&attr);
	*ret = server;
	return 0;
}

int server_start(struct server *server)
{
	int r = 0;

	pthread_mutex_lock(&server->lock);
	if (!server->over) {
		__atomic_store_n(&server->want, RUN, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&server->wake);
		if (server->n_threads == 0)
			r = add_thread(server);
	}
	pthread_mutex_unlock(&server->lock);
	return r;
}

/* lock held */
static void wait_until_all_rest(struct server *server)
{
	struct timespec ts;

	while (server->n_resting < server->n_threads) {
		for (int i = 0; i < server->n_threads; i++)
			if (__atomic_load_n(&server->threads[i].reading, __ATOMIC_RELAXED))
				pthread_kill(server->threads[i].id, WAKE_SIGNAL);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_nsec += AGAIN_NS;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&server->rest, &server->lock, &ts);
	}
}

void server_pause(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	if (!server->over)
		__atomic_store_n(&server->want, REST, __ATOMIC_RELAXED);
	wait_until_all_rest(server);
	pthread_mutex_unlock(&server->lock);
}

void server_free(struct server *server)
{
	if (!server)
		return;
	server_pause(server);
	pthread_mutex_lock(&server->lock);
	__atomic_store_n(&server->want, END, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&server->wake);
	pthread_mutex_unlock(&server->lock);
	for (int i = 0; i < server->n_threads; i++)
		pthread_join(server->threads[i].id, NULL);
	free_requests(server->held);
	free_requests(server->given);
	free(server->init);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->wake);
	pthread_cond_destroy(&server->rest);
	free(server);
}

void server_hold(struct server *server, bool (*hold)(void *data, const void *request, size_t size),
		 void *data)
{
	if (hold)
		server->hold_data = data;
	__atomic_store_n(&server->hold, hold, __ATOMIC_RELEASE);
}

struct request *server_take_held(struct server *server)
{
	struct request *held;

	pthread_mutex_lock(&server->lock);
	held = server->held;
	server->held = NULL;
	server->held_tail = &server->held;
	pthread_mutex_unlock(&server->lock);
	return held;
}

const struct request *server_init(const struct server *server)
{
	return server->init;
}

int server_replay_init(struct server *server, const struct request *init)
{
	struct fuse_buf buf = {0};

	server->init = request_new(init->bytes, init->size);
	if (!server->init)
		return -ENOMEM;
	buf.mem = server->init->bytes;
	buf.size = init->size;
	muted = true;
	fuse_session_process_buf(server->se, &buf);
	muted = false;
	return 0;
}

void server_give(struct server *server, struct request *requests)
{
	pthread_mutex_lock(&server->lock);
	__atomic_store_n(&server->given, requests, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&server->lock);
}
