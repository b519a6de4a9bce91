/*
 * The encoder and the decoder are the table read thrice more: each field macro becomes the statement that
 * writes, reads or measures one field. A decoder never trusts a length: it is compared with what is left of
 * the packet before anything is allocated, and a list of n records needs at least n times the smallest record
 * there, so that a packet of WIRE_MAX bytes can't ask for more than a small multiple of that in memory.
 */
#include "sched/wire.h"

#include "engine/base/io.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct block {
	struct block *next;
	max_align_t data[];
};

/* A position in a packet; once something did not fit, r says so and nothing more happens. */
struct cursor {
	uint8_t *data;
	size_t len, at;
	struct block *memory; /* of a decoder */
	int r;
};

static const struct {
	const char *name;
	enum wire_direction direction;
	int min_fds, max_fds;
} types[WIRE_TYPES] = {
#define RECORD(name, fields)
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) \
	[WIRE_##NAME] = {#NAME, direction, min_fds, max_fds},
#include "sched/wire.def"
#undef RECORD
#undef WIRE
};

const char *wire_name(enum wire_type type)
{
	return type > WIRE_NONE && type < WIRE_TYPES ? types[type].name : "?";
}

/* --- encoding --- */

static void put(struct cursor *c, const void *data, size_t len)
{
	if (c->r == 0 && len > c->len - c->at)
		c->r = -EMSGSIZE;
	if (c->r < 0)
		return;
	memcpy(c->data + c->at, data, len);
	c->at += len;
}

static void put_u8(struct cursor *c, uint8_t x)
{
	put(c, &x, sizeof(x));
}

static void put_u16(struct cursor *c, uint16_t x)
{
	x = htole16(x);
	put(c, &x, sizeof(x));
}

static void put_u32(struct cursor *c, uint32_t x)
{
	x = htole32(x);
	put(c, &x, sizeof(x));
}

static void put_u64(struct cursor *c, uint64_t x)
{
	x = htole64(x);
	put(c, &x, sizeof(x));
}

static void put_f32(struct cursor *c, float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof(bits));
	put_u32(c, bits);
}

static void put_f64(struct cursor *c, double x)
{
	uint64_t bits;

	memcpy(&bits, &x, sizeof(bits));
	put_u64(c, bits);
}

static void put_text(struct cursor *c, const char *s)
{
	size_t len = s ? strlen(s) : 0;

	if (len > WIRE_MAX) {
		c->r = -EMSGSIZE;
		return;
	}
	put_u32(c, (uint32_t)len);
	if (len)
		put(c, s, len);
}

#define U8(n)   put_u8(c, m->n);
#define U16(n)  put_u16(c, m->n);
#define U32(n)  put_u32(c, m->n);
#define U64(n)  put_u64(c, m->n);
#define F32(n)  put_f32(c, m->n);
#define F64(n)  put_f64(c, m->n);
#define TEXT(n) put_text(c, m->n);
#define LIST(n, record)                                      \
	put_u32(c, m->n_##n);                                \
	for (uint32_t i = 0; i < m->n_##n && c->r == 0; i++) \
		put_##record(c, &m->n[i]);
#define RECORD(name, fields)                                                  \
	static void put_##name(struct cursor *c, const struct wire_##name *m) \
	{                                                                     \
		fields                                                        \
	}
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) RECORD(name, fields)
#include "sched/wire.def"
#undef U8
#undef U16
#undef U32
#undef U64
#undef F32
#undef F64
#undef TEXT
#undef LIST
#undef RECORD
#undef WIRE

int wire_encode(const struct wire_message *m, uint64_t sequence, uint8_t *packet, size_t *ret_len)
{
	struct cursor cursor = {.data = packet, .len = WIRE_MAX, .at = WIRE_HEADER}, *c = &cursor;
	size_t len;

	switch (m->type) {
#define RECORD(name, fields)
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) \
	case WIRE_##NAME:                                     \
		put_##name(c, &m->name);                      \
		break;
#include "sched/wire.def"
#undef RECORD
#undef WIRE
	default:
		return -EINVAL;
	}
	if (m->n_fds < types[m->type].min_fds || m->n_fds > types[m->type].max_fds)
		return -EINVAL;
	if (c->r < 0)
		return c->r;
	len = c->at;
	c->at = 0;
	put_u16(c, (uint16_t)m->type);
	put_u16(c, (uint16_t)m->n_fds);
	put_u32(c, (uint32_t)(len - WIRE_HEADER));
	put_u64(c, sequence);
	*ret_len = len;
	return 0;
}

/* --- decoding --- */

static void get(struct cursor *c, void *data, size_t len)
{
	if (c->r == 0 && len > c->len - c->at)
		c->r = -EPROTO;
	if (c->r < 0) {
		memset(data, 0, len);
		return;
	}
	memcpy(data, c->data + c->at, len);
	c->at += len;
}

static uint8_t get_u8(struct cursor *c)
{
	uint8_t x;

	get(c, &x, sizeof(x));
	return x;
}

static uint16_t get_u16(struct cursor *c)
{
	uint16_t x;

	get(c, &x, sizeof(x));
	return le16toh(x);
}

static uint32_t get_u32(struct cursor *c)
{
	uint32_t x;

	get(c, &x, sizeof(x));
	return le32toh(x);
}

static uint64_t get_u64(struct cursor *c)
{
	uint64_t x;

	get(c, &x, sizeof(x));
	return le64toh(x);
}

static float get_f32(struct cursor *c)
{
	uint32_t bits = get_u32(c);
	float x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static double get_f64(struct cursor *c)
{
	uint64_t bits = get_u64(c);
	double x;

	memcpy(&x, &bits, sizeof(x));
	return x;
}

static void *allocate(struct cursor *c, size_t size)
{
	struct block *block = calloc(1, sizeof(*block) + size);

	if (!block) {
		c->r = -ENOMEM;
		return NULL;
	}
	block->next = c->memory;
	c->memory = block;
	return block->data;
}

static const char *get_text(struct cursor *c)
{
	uint32_t len = get_u32(c);
	char *s;

	if (len == 0 || c->r < 0)
		return "";
	if (len > c->len - c->at || memchr(c->data + c->at, '\0', len)) {
		c->r = -EPROTO;
		return "";
	}
	s = allocate(c, len + 1);
	if (!s)
		return "";
	get(c, s, len);
	return s;
}

/* The smallest encoding of each record. */
#define U8(n)                +1
#define U16(n)               +2
#define U32(n)               +4
#define U64(n)               +8
#define F32(n)               +4
#define F64(n)               +8
#define TEXT(n)              +4
#define LIST(n, record)      +4
#define RECORD(name, fields) MIN_##name = 0 fields,
#define WIRE(NAME, name, direction, min_fds, max_fds, fields)
enum {
#include "sched/wire.def"
};
#undef U8
#undef U16
#undef U32
#undef U64
#undef F32
#undef F64
#undef TEXT
#undef LIST
#undef RECORD
#undef WIRE

#define U8(n)   m->n = get_u8(c);
#define U16(n)  m->n = get_u16(c);
#define U32(n)  m->n = get_u32(c);
#define U64(n)  m->n = get_u64(c);
#define F32(n)  m->n = get_f32(c);
#define F64(n)  m->n = get_f64(c);
#define TEXT(n) m->n = get_text(c);
#define LIST(n, record)                                              \
	m->n_##n = get_u32(c);                                       \
	if (c->r == 0 && m->n_##n > (c->len - c->at) / MIN_##record) \
		c->r = -EPROTO;                                      \
	if (c->r == 0 && m->n_##n)                                   \
		m->n = allocate(c, m->n_##n * sizeof(*m->n));        \
	for (uint32_t i = 0; c->r == 0 && i < m->n_##n; i++)         \
		get_##record(c, &m->n[i]);
#define RECORD(name, fields)                                            \
	static void get_##name(struct cursor *c, struct wire_##name *m) \
	{                                                               \
		fields                                                  \
	}
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) RECORD(name, fields)
#include "sched/wire.def"
#undef U8
#undef U16
#undef U32
#undef U64
#undef F32
#undef F64
#undef TEXT
#undef LIST
#undef RECORD
#undef WIRE

static void free_blocks(struct block *block)
{
	while (block) {
		struct block *next = block->next;

		free(block);
		block = next;
	}
}

int wire_decode(enum wire_direction direction, uint64_t sequence, const uint8_t *packet, size_t len,
		int n_fds, struct wire_message *ret)
{
	struct cursor cursor = {.data = (uint8_t *)packet, .len = len}, *c = &cursor;
	struct wire_message m = {0};
	uint16_t type = get_u16(c), fds = get_u16(c);
	uint32_t length = get_u32(c);
	uint64_t number = get_u64(c);

	if (c->r < 0 || type == WIRE_NONE || type >= WIRE_TYPES || types[type].direction != direction ||
	    fds != n_fds || fds < types[type].min_fds || fds > types[type].max_fds ||
	    length != len - WIRE_HEADER || number != sequence)
		return -EPROTO;
	m.type = type;
	switch (m.type) {
#define RECORD(name, fields)
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) \
	case WIRE_##NAME:                                     \
		get_##name(c, &m.name);                       \
		break;
#include "sched/wire.def"
#undef RECORD
#undef WIRE
	default:
		return -EPROTO;
	}
	if (c->r == 0 && c->at != len)
		c->r = -EPROTO;
	if (c->r < 0) {
		free_blocks(c->memory);
		return c->r;
	}
	m.memory = c->memory;
	*ret = m;
	return 0;
}

void wire_clear(struct wire_message *m)
{
	for (int i = 0; i < m->n_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	free_blocks(m->memory);
	*m = (struct wire_message){0};
}

/* --- the socket --- */

int wire_init(struct wire_channel *ch, int fd, enum wire_direction sends)
{
	uint8_t *packet = malloc(WIRE_MAX);

	if (!packet)
		return -ENOMEM;
	*ch = (struct wire_channel){.fd = fd, .sends = sends, .packet = packet};
	return 0;
}

void wire_release(struct wire_channel *ch)
{
	if (ch->fd >= 0)
		close(ch->fd);
	free(ch->packet);
	*ch = (struct wire_channel){.fd = -1};
}

/* Room for the control message of WIRE_MAX_FDS descriptors, aligned as the kernel wants it. */
union control {
	struct cmsghdr align;
	char data[CMSG_SPACE(WIRE_MAX_FDS * sizeof(int))];
};

static int socket_error(void)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return -EAGAIN;
	return errno == ECONNRESET || errno == EPIPE ? -EPIPE : -errno;
}

int wire_send_packet(struct wire_channel *ch, uint8_t *packet, size_t len, const int *fds, int n_fds,
		     int flags)
{
	union control control = {0};
	struct iovec iov = {.iov_base = packet, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cursor c = {.data = packet, .len = len, .at = WIRE_HEADER - sizeof(uint64_t)};
	ssize_t n;

	put_u64(&c, ch->sent);
	if (n_fds) {
		size_t size = (size_t)n_fds * sizeof(int);
		struct cmsghdr *cmsg;

		msg.msg_control = control.data;
		msg.msg_controllen = CMSG_SPACE(size);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(cmsg), fds, size);
	}
	do {
		n = sendmsg(ch->fd, &msg, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return socket_error();
	ch->sent++;
	return 0;
}

int wire_send(struct wire_channel *ch, const struct wire_message *m, int flags)
{
	size_t len;
	int r;

	if (m->type > WIRE_NONE && m->type < WIRE_TYPES && types[m->type].direction != ch->sends)
		return -EINVAL;
	r = wire_encode(m, ch->sent, ch->packet, &len);
	if (r < 0)
		return r;
	return wire_send_packet(ch, ch->packet, len, m->fds, m->n_fds, flags);
}

int wire_recv(struct wire_channel *ch, struct wire_message *ret, int flags)
{
	union control control;
	struct iovec iov = {.iov_base = ch->packet, .iov_len = WIRE_MAX};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.data,
			     .msg_controllen = sizeof(control.data)};
	int fds[WIRE_MAX_FDS], n_fds = 0, r = 0;
	ssize_t n;

	do {
		n = recvmsg(ch->fd, &msg, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return socket_error();
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		size_t size = cmsg->cmsg_len - CMSG_LEN(0);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < size / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (n_fds < WIRE_MAX_FDS)
				fds[n_fds++] = fd;
			else
				close(fd);
		}
	}
	/* An empty packet reads like the end; nothing sends one, so the end it is. */
	if (n == 0)
		r = -EPIPE;
	else if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		r = -EPROTO;
	else
		r = wire_decode(!ch->sends, ch->received, ch->packet, (size_t)n, n_fds, ret);
	if (r < 0) {
		while (n_fds)
			close(fds[--n_fds]);
		return r;
	}
	memcpy(ret->fds, fds, sizeof(fds[0]) * (size_t)n_fds);
	ret->n_fds = n_fds;
	ch->received++;
	return 0;
}

bool wire_err(struct err *ret, uint16_t code, const char *detail)
{
	if (code >= ERR_COUNT)
		return false;
	err_set(ret, code, "%s", detail);
	return true;
}

int wire_check_memfd(int fd, uint64_t max, uint64_t *ret_len)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	/* Only memory files have seals: pipes, devices, files of a stuck mount end here. */
	if (seals < 0 || (seals & IO_SEALS) != IO_SEALS || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    st.st_size < 0 || (uint64_t)st.st_size > max)
		return -EPROTO;
	*ret_len = (uint64_t)st.st_size;
	return 0;
}
