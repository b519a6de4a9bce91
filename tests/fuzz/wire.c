/* Packets of a corrupted worker, and of the daemon. What is decoded is encoded again to the same bytes. */
#include "tests/fuzz/fuzz.h"

#include "sched/wire.h"

#include <endian.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[WIRE_MAX];
	uint64_t sequence = 0;
	uint16_t n_fds = 0;
	size_t len;

	if (size > WIRE_MAX)
		return 0;
	if (size >= WIRE_HEADER) { /* the fuzzer need not guess what the channel expects */
		memcpy(&n_fds, data + 2, sizeof(n_fds));
		memcpy(&sequence, data + 8, sizeof(sequence));
	}
	for (int direction = WIRE_TO_WORKER; direction <= WIRE_TO_DAEMON; direction++) {
		struct wire_message m;

		if (wire_decode(direction, le64toh(sequence), data, size, le16toh(n_fds), &m) < 0)
			continue;
		m.n_fds = le16toh(n_fds);
		MUST(m.n_fds <= WIRE_MAX_FDS);
		MUST(wire_encode(&m, le64toh(sequence), again, &len) == 0);
		MUST(len == size && memcmp(again, data, len) == 0);
		m.n_fds = 0;
		wire_clear(&m);
	}
	return 0;
}
