/* What a daemon that gives its mount away says of it. What is decoded is encoded to what decodes to the same. */
#include "tests/fuzz/fuzz.h"

#include "fs/mount/handover.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf first = BUF_INIT, second = BUF_INIT;
	struct handover h, again;

	if (handover_decode(&h, data, size) < 0)
		return 0;
	MUST(handover_encode(&h, &first) == 0);
	MUST(handover_decode(&again, first.data, first.len) == 0);
	MUST(handover_encode(&again, &second) == 0);
	MUST(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
	handover_release(&h);
	handover_release(&again);
	buf_release(&first);
	buf_release(&second);
	return 0;
}
