/* For the volume's tests: each test gets a new volume `vol` and ends with an fsck that must find nothing. */
#ifndef TESTS_UNIT_VOLUME_TEST_H
#define TESTS_UNIT_VOLUME_TEST_H

#include "fs/volume/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static char state_dir[64];
static struct volume *vol;

static inline void reopen(void)
{
	struct err err = ERR_INIT;

	volume_close(vol);
	vol = NULL;
	assert_int_equal(volume_open(&vol, state_dir, 0, &err), 0);
}

static inline int setup(void **state)
{
	(void)state;
	strcpy(state_dir, "/tmp/inferfs-volume-XXXXXX");
	return mkdtemp(state_dir) && volume_open(&vol, state_dir, 0, NULL) == 0 ? 0 : -1;
}

static inline void say(void *data, const char *line)
{
	(void)data;
	print_message("fsck: %s\n", line);
}

static inline int teardown(void **state)
{
	struct fsck_report report = {0};
	char command[128];
	int r;

	(void)state;
	volume_close(vol);
	vol = NULL;
	r = volume_fsck(state_dir, false, say, NULL, &report, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", state_dir);
	return system(command) == 0 && r == 0 && report.faults == 0 ? 0 : -1;
}

static inline uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
	struct vol_attr attr;
	struct vol_new what = {.mode = mode, .uid = 7, .gid = 8, .kind = 3, .target = "somewhere"};

	assert_int_equal(vol_create(vol, parent, name, &what, &attr), 0);
	return attr.ino;
}

static inline uint64_t file(uint64_t parent, const char *name)
{
	return make(parent, name, S_IFREG | 0644);
}

static inline uint64_t folder(uint64_t parent, const char *name)
{
	return make(parent, name, S_IFDIR | 0755);
}

static inline uint64_t ino_of(uint64_t parent, const char *name)
{
	struct vol_attr attr;
	int r = vol_lookup(vol, parent, name, &attr);

	return r < 0 ? 0 : attr.ino;
}

#endif
