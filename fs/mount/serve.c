/*
 * Each thread sleeps in read(2) of /dev/fuse. To pause, `want` is changed and a signal without effect is sent to
 * those that read, again and again until all rest: read(2) ends with EINTR only when it has taken no request from the
 * kernel, and a thread looks at `want` before each read. A signal that comes just before the read does nothing,
 * hence again.
 *
 * There is one thread more than are busy, up to the option's number; none ends before the server does.
 *
 * Only one thread at a time waits for a request: it has the turn. Most requests take less time than waking another
 * thread, so whoever takes one keeps the others asleep, and serves the next one too, unless there is more to
 * read already and cores to spare, or the request is of those that take long: then the turn is passed on first. One that takes
 * unexpectedly long is noticed by the watch. (With all threads in read(2) the kernel wakes them in rotation, each
 * on a core of its own.)
 */
#include "fs/mount/serve.h"

#include "engine/base/log.h"
#include "fs/mount/awake.h"
#include "fs/mount/passthrough.h"
#include "fs/mount/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WAKE_SIGNAL SIGRTMIN
#define AGAIN_NS    500000     /* chosen: between two signals to a thread that does not rest yet */
#define WATCH_NS    5000000    /* chosen: a request that takes so long must not keep others waiting */
#define WATCH_IDLE  10         /* looks without a request until the watch sleeps; chosen */
#define LARGE_SIZE  (64 << 10) /* bytes of a request to read or write that takes long */

enum want { REST, RUN, END };

struct thread {
	struct server *server;
	pthread_t id;
	struct fuse_buf buf;
	bool reading; /* atomic */
	bool serving; /* counted in n_serving; its own */
};

struct server {
	struct fuse_session *se;
	bool clone_fd, power_save;
	void (*ended)(void *data);
	void *ended_data;
	pthread_mutex_t lock;
	pthread_cond_t wake;                   /* of threads that rest; CLOCK_MONOTONIC's, as `rest` */
	pthread_cond_t rest;                   /* one more thread rests or has ended */
	enum want want;                        /* atomic; changed under lock */
	bool over;                             /* under lock: the mount is gone */
	int n_threads, n_resting, max_threads; /* under lock */
	pthread_cond_t turn;                   /* of threads that wait for it */
	bool turn_taken;                       /* under lock, as all to n_taken: somebody reads */
	int n_waiting;                         /* for the turn */
	int n_serving;                         /* a request */
	long max_short;   /* so many at once serve short ones: the other cores are the clients' */
	unsigned n_taken; /* requests */
	pthread_t watch;
	pthread_cond_t watch_wake; /* CLOCK_MONOTONIC's */
	bool watch_started, watch_sleeps, watch_ends;
	bool (*hold)(void *data, const void *request, size_t size); /* atomic */
	void *hold_data;
	struct request *held, **held_tail; /* under lock */
	struct request *given;             /* under lock */
	struct request *parked;            /* under lock */
	struct request *init;              /* written once, before any other request comes */
	struct thread threads[];
};

static __thread int own_fd = -1; /* with clone_fd */
static __thread bool muted;
static __thread const struct fuse_buf *init;         /* a FUSE_INIT that is being answered */
static __thread const struct fuse_buf *at_hand;      /* that is being served */
static __thread const struct request *at_hand_given; /* likewise, when it was parked, or held */

static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(own_fd >= 0 ? own_fd : fd, buf, len);
}

/*
 * libfuse 3.14.0 offers FUSE_CAP_PARALLEL_DIROPS and forgets to tell the kernel that it is wanted. Without it each directory has a lock, and
 * whoever looks for something beside a name that is being waited for (fs/exports.h) waits too, and can't be killed.
 */
static void ask_parallel(const struct iovec *iov, int count)
{
	const struct fuse_init_in *in = (const void *)((const struct fuse_in_header *)init->mem + 1);
	struct fuse_init_out *out = count < 2 ? NULL : iov[1].iov_base;

	if (init->size >= sizeof(struct fuse_in_header) + offsetof(struct fuse_init_in, flags2) && out &&
	    iov[1].iov_len >= offsetof(struct fuse_init_out, max_background))
		out->flags |= in->flags & FUSE_PARALLEL_DIROPS;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	ssize_t len = 0;

	(void)userdata;
	if (init) {
		ask_parallel(iov, count);
		passthrough_ask(init->mem, init->size, iov, count);
	}
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
	*request = (struct request){.size = size};
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

/* --- requests that are left aside --- */

int server_park(struct server *server, uint64_t ticket)
{
	struct request *request = request_new(at_hand->mem, at_hand->size);

	if (!request)
		return -ENOMEM;
	request->ticket = ticket;
	request->again = true;
	pthread_mutex_lock(&server->lock);
	request->next = server->parked;
	server->parked = request;
	pthread_mutex_unlock(&server->lock);
	return 0;
}

/* lock held */
static void wake_for_given(struct server *server)
{
	if (server->n_waiting > 0) {
		pthread_cond_signal(&server->turn);
		return;
	}
	for (int i = 0; i < server->n_threads; i++) /* each other one looks for more when it has served */
		if (__atomic_load_n(&server->threads[i].reading, __ATOMIC_RELAXED))
			pthread_kill(server->threads[i].id, WAKE_SIGNAL);
}

/* lock held. Those for which is(request, number) are given. */
static bool give_again(struct server *server, bool (*is)(const struct request *request, uint64_t number),
		       uint64_t number, bool interrupted)
{
	bool any = false;

	for (struct request **p = &server->parked, *request; (request = *p);) {
		if (!is(request, number)) {
			p = &request->next;
			continue;
		}
		*p = request->next;
		request->next = server->given;
		request->interrupted = interrupted;
		server->given = request;
		any = true;
	}
	if (any)
		wake_for_given(server);
	return any;
}

static bool has_ticket(const struct request *request, uint64_t ticket)
{
	return request->ticket == ticket;
}

static bool is_unique(const struct request *request, uint64_t unique)
{
	return ((const struct fuse_in_header *)request->bytes)->unique == unique;
}

void server_again(struct server *server, uint64_t ticket)
{
	pthread_mutex_lock(&server->lock);
	give_again(server, has_ticket, ticket, false);
	pthread_mutex_unlock(&server->lock);
}

bool server_is_again(void)
{
	return at_hand_given && at_hand_given->again;
}

bool server_is_interrupted(void)
{
	return at_hand_given && at_hand_given->interrupted;
}

/* An interrupt of one that is parked, which libfuse knows nothing of. */
static bool interrupts_parked(struct server *server, const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;
	const struct fuse_interrupt_in *interrupt = (const void *)(in + 1);
	bool found;

	if (in->opcode != FUSE_INTERRUPT || buf->size < sizeof(*in) + sizeof(*interrupt))
		return false;
	pthread_mutex_lock(&server->lock);
	found = give_again(server, is_unique, interrupt->unique, true);
	pthread_mutex_unlock(&server->lock);
	return found;
}

static void serve(struct server *server, const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;
	bool (*hold)(void *data, const void *request, size_t size) =
		__atomic_load_n(&server->hold, __ATOMIC_ACQUIRE);

	if (hold && hold(server->hold_data, buf->mem, buf->size) && keep(server, buf->mem, buf->size))
		return;
	if (in->opcode == FUSE_INIT && !server->init)
		server->init = request_new(buf->mem, buf->size);
	if (interrupts_parked(server, buf))
		return;
	init = in->opcode == FUSE_INIT ? buf : NULL;
	at_hand = buf;
	fuse_session_process_buf(server->se, buf);
	at_hand = NULL;
	init = NULL;
}

static void deadline_in(struct timespec *ts, long ns)
{
	clock_gettime(CLOCK_MONOTONIC, ts);
	ts->tv_nsec += ns;
	if (ts->tv_nsec >= 1000000000) {
		ts->tv_sec++;
		ts->tv_nsec -= 1000000000;
	}
}

static bool takes_long(const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;
	const struct fuse_read_in *read = (const void *)(in + 1);
	const struct fuse_setattr_in *set = (const void *)(in + 1);

	/* Not UNLINK, RENAME and the like, though the file may be large: mostly it is not, and the watch is there. */
	switch (in->opcode) {
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		return true;
	case FUSE_SETATTR:
		return buf->size < sizeof(*in) + sizeof(*set) || set->valid & FATTR_SIZE;
	case FUSE_READ:
		return buf->size < sizeof(*in) + sizeof(*read) || read->size >= LARGE_SIZE;
	default:
		return buf->size >= LARGE_SIZE;
	}
}

/* Nobody waits for its answer, and whoever made it mostly goes on with something that waits here by now. */
static bool is_aside(const struct fuse_buf *buf)
{
	uint32_t opcode = ((const struct fuse_in_header *)buf->mem)->opcode;

	return opcode == FUSE_RELEASE || opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET;
}

static bool more_to_read(const struct server *server)
{
	struct pollfd p = {.fd = own_fd >= 0 ? own_fd : fuse_session_fd(server->se), .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* The caller has just read, and serves next. */
static void pass_turn(struct thread *self)
{
	const struct fuse_buf *buf = &self->buf;
	struct server *server = self->server;
	bool wake, more;

	pthread_mutex_lock(&server->lock);
	server->turn_taken = false;
	server->n_taken++;
	server->n_serving++;
	self->serving = true;
	if (server->n_waiting == 0 && server->n_threads < server->max_threads)
		add_thread(server); /* without it, the others have more to do */
	if (server->watch_sleeps) {
		server->watch_sleeps = false;
		pthread_cond_signal(&server->watch_wake);
	}
	wake = server->n_waiting > 0;
	more = server->n_serving < server->max_short;
	pthread_mutex_unlock(&server->lock);
	if (wake && (takes_long(buf) || (more && !is_aside(buf) && more_to_read(server))))
		pthread_cond_signal(&server->turn);
}

/* Passes the turn on for a thread that has been serving one request for too long; sees how many come. */
static void *watch_main(void *data)
{
	struct server *server = data;
	struct awake awake = AWAKE_NONE;
	unsigned seen = 0, idle = 0, n;
	struct timespec ts;

	pthread_setname_np(pthread_self(), "inferfs/watch");
	pthread_mutex_lock(&server->lock);
	while (!server->watch_ends) {
		if (idle >= WATCH_IDLE) {
			server->watch_sleeps = true;
			while (server->watch_sleeps && !server->watch_ends)
				pthread_cond_wait(&server->watch_wake, &server->lock);
			idle = 0;
		}
		deadline_in(&ts, WATCH_NS);
		pthread_cond_timedwait(&server->watch_wake, &server->lock, &ts);
		n = server->n_taken - seen;
		idle = n == 0 ? idle + 1 : 0;
		if (n == 0 && !server->turn_taken)
			pthread_cond_signal(&server->turn);
		seen = server->n_taken;
		if (!server->power_save) {
			pthread_mutex_unlock(&server->lock);
			awake_tick(&awake, n);
			pthread_mutex_lock(&server->lock);
		}
	}
	pthread_mutex_unlock(&server->lock);
	awake_end(&awake);
	return NULL;
}

/* lock held */
static void rest(struct server *server)
{
	server->n_resting++;
	pthread_cond_signal(&server->rest);
	while (server->want == REST)
		pthread_cond_wait(&server->wake, &server->lock);
	server->n_resting--;
}

/* False: the end. *ret_given: to be served and freed; NULL: none is left, and the turn is the caller's. */
static bool take_turn(struct thread *self, struct request **ret_given)
{
	struct server *server = self->server;
	bool run;

	pthread_mutex_lock(&server->lock);
	server->n_serving -= self->serving;
	self->serving = false;
	while (server->want == REST || (server->want == RUN && server->turn_taken && !server->given)) {
		if (server->want == REST) {
			rest(server);
			continue;
		}
		server->n_waiting++;
		pthread_cond_wait(&server->turn, &server->lock);
		server->n_waiting--;
	}
	run = server->want == RUN;
	*ret_given = run ? server->given : NULL;
	if (*ret_given)
		server->given = server->given->next;
	else
		server->turn_taken |= run;
	pthread_mutex_unlock(&server->lock);
	return run;
}

static void serve_given(struct server *server, struct request *given)
{
	struct fuse_buf buf = {0};

	buf.mem = given->bytes;
	buf.size = given->size;
	at_hand_given = given;
	serve(server, &buf);
	at_hand_given = NULL;
	free(given);
}

/* Without having read a request. */
static void give_turn_up(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->turn_taken = false;
	pthread_cond_signal(&server->turn);
	pthread_mutex_unlock(&server->lock);
}

static void *thread_main(void *data)
{
	struct thread *self = data;
	struct server *server = self->server;
	struct request *given;
	bool gone = false;
	int r;

	pthread_setname_np(pthread_self(), "inferfs/fuse");
	if (server->clone_fd)
		own_fd = clone_fd(server->se);
	while (take_turn(self, &given)) {
		if (given) {
			serve_given(server, given);
			continue;
		}
		__atomic_store_n(&self->reading, true, __ATOMIC_RELAXED);
		r = __atomic_load_n(&server->want, __ATOMIC_RELAXED) == RUN
			    ? fuse_session_receive_buf(server->se, &self->buf)
			    : -EINTR;
		__atomic_store_n(&self->reading, false, __ATOMIC_RELAXED);
		if (r > 0) {
			pass_turn(self);
			serve(server, &self->buf);
			continue;
		}
		give_turn_up(server);
		if (r != -EINTR) {
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
		pthread_cond_broadcast(&server->turn);
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
	server->n_threads += r == 0;
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
	server->power_save = options->power_save;
	server->max_short = sysconf(_SC_NPROCESSORS_ONLN) / 2;
	server->ended = ended;
	server->ended_data = data;
	server->max_threads = (int)max;
	server->held_tail = &server->held;
	pthread_mutex_init(&server->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&server->wake, &attr);
	pthread_cond_init(&server->rest, &attr);
	pthread_cond_init(&server->turn, &attr);
	pthread_cond_init(&server->watch_wake, &attr);
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
		if (!server->watch_started)
			server->watch_started = pthread_create(&server->watch, NULL, watch_main, server) == 0;
		if (server->n_threads == 0)
			r = server->watch_started ? add_thread(server) : -EAGAIN;
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
		pthread_cond_broadcast(&server->turn);
		deadline_in(&ts, AGAIN_NS);
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
	pthread_cond_broadcast(&server->turn);
	server->watch_ends = true;
	pthread_cond_signal(&server->watch_wake);
	pthread_mutex_unlock(&server->lock);
	for (int i = 0; i < server->n_threads; i++)
		pthread_join(server->threads[i].id, NULL);
	if (server->watch_started)
		pthread_join(server->watch, NULL);
	free_requests(server->held);
	free_requests(server->given);
	free_requests(server->parked);
	free(server->init);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->wake);
	pthread_cond_destroy(&server->rest);
	pthread_cond_destroy(&server->turn);
	pthread_cond_destroy(&server->watch_wake);
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
	struct request *held, **rest[2] = {&server->given, &server->parked};

	pthread_mutex_lock(&server->lock);
	for (int i = 0; i < 2; i++) {
		*server->held_tail = *rest[i];
		*rest[i] = NULL;
		while (*server->held_tail)
			server->held_tail = &(*server->held_tail)->next;
	}
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
	server->given = requests;
	pthread_mutex_unlock(&server->lock);
}
