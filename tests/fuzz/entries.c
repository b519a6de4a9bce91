/*
 * ENTRIES of a corrupted unpack worker (the first 4 bytes of the input are how many came before it, and the length of the archive). What is let through must be names
 * that stay in their directory and lengths that stay in the limits. The packet's names are normalised too.
 */
#include "tests/fuzz/fuzz.h"

#include "sched/archive.h"
#include "sched/wire.h"

#include <string.h>

static void check_path(const char *path)
{
	char again[ARCHIVE_PATH];

	MUST(*path && *path != '/' && strlen(path) < ARCHIVE_PATH);
	MUST(archive_path(again, path) == 0 && strcmp(again, path) == 0);
	for (const char *part = path; *part;) {
		size_t len = strcspn(part, "/");

		MUST(len > 0 && len <= 255 && strncmp(part, "..", len == 1 ? 2 : len) != 0);
		MUST(!(len == 1 && *part == '.'));
		MUST(!part[len] || part[len + 1]); /* no slash at the end */
		part += len + (part[len] == '/');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t packet[WIRE_MAX];
	const struct archive_limits limits = archive_limits(1000);
	struct wire_message m;
	uint64_t told, told_written;
	uint32_t before;
	size_t len = size - sizeof(before);

	if (size < sizeof(before) || len > WIRE_MAX - WIRE_HEADER)
		return 0;
	memcpy(&before, data, sizeof(before));
	memset(packet, 0, WIRE_HEADER); /* the fuzzer need not guess it */
	packet[0] = WIRE_ENTRIES;
	memcpy(packet + 4, &(uint32_t){(uint32_t)len}, sizeof(uint32_t));
	memcpy(packet + WIRE_HEADER, data + sizeof(before), len);
	if (wire_decode(WIRE_TO_DAEMON, 0, packet, WIRE_HEADER + len, 0, &m) < 0)
		return 0;
	for (uint32_t i = 0; i < m.entries.n_files; i++) {
		char path[ARCHIVE_PATH];

		if (archive_path(path, m.entries.files[i].path) == 0)
			check_path(path);
		archive_stem(m.entries.files[i].path);
	}
	if (archive_check_entries(&m.entries, &limits, 10, before, before, &told, &told_written) == 0) {
		uint64_t sum = 0, written = 0;

		MUST(m.entries.n_files > 0 && m.entries.n_files <= limits.files - 10);
		for (uint32_t i = 0; i < m.entries.n_files; i++) {
			check_path(m.entries.files[i].path);
			MUST(!archive_leaves_out(m.entries.files[i].path));
			MUST(m.entries.files[i].len <= limits.one);
			sum += m.entries.files[i].len;
			if (m.entries.files[i].inside)
				MUST(m.entries.files[i].inside <= before &&
				     m.entries.files[i].len <= before - m.entries.files[i].inside);
			else
				written += m.entries.files[i].len;
		}
		MUST(sum == told && written == told_written && sum + before <= limits.total);
	}
	wire_clear(&m);
	return 0;
}
