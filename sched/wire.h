/*
 * Messages between the daemon and its worker processes: one SOCK_SEQPACKET message each, with descriptors
 * (SCM_RIGHTS) beside it. Anything large travels in a memfd that is sealed against every change, so that
 * its reader is safe whatever the writer does next. wire.def is the table of all messages.
 *
 *	wire_init(&ch, fd, WIRE_TO_WORKER);			// what this side sends
 *	m = (struct wire_message){ .type = WIRE_LOAD, .n_fds = 2, .fds = {a, b}, .load = { .batch = 32 } };
 *	wire_send(&ch, &m, 0);					// descriptors stay the caller's
 *	r = wire_recv(&ch, &m, MSG_DONTWAIT);
 *	…
 *	wire_clear(&m);						// closes its descriptors, frees its memory
 *
 * A packet: u16 type, u16 number of descriptors, u32 length of what follows, u64 sequence number (from 0, by
 * one each); then the fields of the type. All little-endian. The other side is not trusted: whatever is not
 * exactly so is -EPROTO, and the caller ends the conversation.
 */
#ifndef SCHED_WIRE_H
#define SCHED_WIRE_H

#include "engine/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_HEADER  16
#define WIRE_MAX     (96 * 1024) /* of a packet; below the default socket buffer of 208 KiB */
#define WIRE_MAX_FDS 5

enum wire_direction { WIRE_TO_WORKER, WIRE_TO_DAEMON };

enum wire_type {
	WIRE_NONE,
#define RECORD(name, fields)
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) WIRE_##NAME,
#include "sched/wire.def"
#undef RECORD
#undef WIRE
	WIRE_TYPES
};

/* struct wire_NAME of every record and message. A text is a C string (NULL is sent as ""); a list is a
 * pointer `x` and a count `n_x`. */
#define U8(n)   uint8_t n;
#define U16(n)  uint16_t n;
#define U32(n)  uint32_t n;
#define U64(n)  uint64_t n;
#define F32(n)  float n;
#define F64(n)  double n;
#define TEXT(n) const char *n;
#define LIST(n, r)          \
	struct wire_##r *n; \
	uint32_t n_##n;
#define RECORD(name, fields) \
	struct wire_##name { \
		fields       \
	};
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) RECORD(name, fields)
#include "sched/wire.def"
#undef WIRE

struct wire_message {
	enum wire_type type;
	int n_fds, fds[WIRE_MAX_FDS];
	union {
#undef RECORD
#define RECORD(name, fields)
#define WIRE(NAME, name, direction, min_fds, max_fds, fields) struct wire_##name name;
#include "sched/wire.def"
	};
	void *memory; /* private: what a received message's texts and lists lie in */
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

struct wire_channel {
	int fd;
	enum wire_direction sends;
	uint64_t sent, received;
	uint8_t *packet; /* (WIRE_MAX) */
};

int wire_init(struct wire_channel *ch, int fd, enum wire_direction sends); /* the descriptor becomes ch's */
void wire_release(struct wire_channel *ch);                                /* closes it; fd < 0 is allowed */

/* flags: 0 or MSG_DONTWAIT. -EMSGSIZE: the fields need more than WIRE_MAX; -EAGAIN; -EPIPE: the other side
 * is gone. */
int wire_send(struct wire_channel *ch, const struct wire_message *m, int flags);
/* -EAGAIN; -EPIPE: the other side is gone; -EPROTO: it sent something else than a message of its direction
 * in its turn. */
int wire_recv(struct wire_channel *ch, struct wire_message *ret, int flags);
void wire_clear(struct wire_message *m);
/* Sends what wire_encode wrote earlier; sets its sequence number. */
int wire_send_packet(struct wire_channel *ch, uint8_t *packet, size_t len, const int *fds, int n_fds,
		     int flags);
const char *wire_name(enum wire_type type); /* "LOAD" */

/* The two halves without a socket. *ret_len ≤ WIRE_MAX bytes are written to packet. */
int wire_encode(const struct wire_message *m, uint64_t sequence, uint8_t *packet, size_t *ret_len);
/* n_fds: how many came beside it; ret gets no descriptors. */
int wire_decode(enum wire_direction direction, uint64_t sequence, const uint8_t *packet, size_t len,
		int n_fds, struct wire_message *ret);

/* code and detail of a message as an error; false (outputs untouched) when the code is unknown. */
bool wire_err(struct err *ret, uint16_t code, const char *detail);

/* -EPROTO unless fd is a memfd sealed against shrinking, growing and writing, of at most `max` bytes. */
int wire_check_memfd(int fd, uint64_t max, uint64_t *ret_len);

#endif
