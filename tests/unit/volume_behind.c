/* What is given to the disk while a large file is written (fs/volume/behind.c): of such files only, each byte once, and nothing is lost. */
#include "tests/unit/volume_test.h"

#include "fs/volume/private.h"

#define MIB (1 << 20)

static char data[MIB];

static void write_mib(struct vol_file *f, uint64_t n)
{
	memset(data, (int)('a' + n % 26), MIB);
	assert_int_equal(vol_write(f, data, MIB, n * MIB), MIB);
}

static uint64_t given(uint64_t at_least)
{
	uint64_t bytes = 0;

	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&vol->behind.lock);
		bytes = vol->behind.bytes;
		pthread_mutex_unlock(&vol->behind.lock);
		if (at_least && bytes >= at_least)
			break;
		usleep(at_least ? 10000 : 200);
	}
	return bytes;
}

static void only_what_is_large(void **state)
{
	struct vol_file *f;

	(void)state;
	assert_int_equal(vol_file_open(vol, file(VOL_ROOT, "f"), O_RDWR, &f), 0);
	for (int i = 0; i < 31; i++)
		write_mib(f, i);
	assert_int_equal(given(0), 0);
	for (int i = 60; i > 0; i -= 2) /* here and there */
		write_mib(f, i);
	assert_int_equal(given(0), 0);
	for (int i = 0; i < 60; i++)
		write_mib(f, i);
	assert_true(given(52 * MIB) >= 52 * MIB);
	assert_true(given(0) <= 60 * MIB);
	for (int i = 0; i < 60; i++) {
		assert_int_equal(vol_read(f, data, MIB, (uint64_t)i * MIB), MIB);
		assert_int_equal(data[0], 'a' + i % 26);
		assert_int_equal(data[MIB - 1], 'a' + i % 26);
	}
	vol_file_close(f);
}

/* Closed and removed with pieces on their way; and the volume closed. */
static void it_goes_meanwhile(void **state)
{
	struct vol_file *f;

	(void)state;
	for (int round = 0; round < 2; round++) {
		assert_int_equal(vol_file_open(vol, file(VOL_ROOT, "f"), O_RDWR, &f), 0);
		for (int i = 0; i < 50; i++)
			write_mib(f, i);
		vol_file_close(f);
		if (round == 0)
			assert_int_equal(vol_unlink(vol, VOL_ROOT, "f", NULL), 0);
		reopen();
	}
	assert_int_equal(vol_file_open(vol, ino_of(VOL_ROOT, "f"), O_RDONLY, &f), 0);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(vol_read(f, data, MIB, (uint64_t)i * MIB), MIB);
		assert_int_equal(data[MIB / 2], 'a' + i % 26);
	}
	vol_file_close(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(only_what_is_large), T(it_goes_meanwhile)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
