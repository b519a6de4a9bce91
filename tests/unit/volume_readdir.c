/* readdir: cookies for life, each entry once whatever happens beside it, an emptied queue lists at once. */
#include "tests/unit/volume_test.h"

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>
#include <time.h>

struct listing {
	char names[64][32];
	uint64_t cookies[64];
	int n, limit;
	bool attrs;
};

static int add(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct listing *l = data;

	assert_true(l->n < 64);
	assert_non_null(attr);
	assert_int_not_equal(attr->ino, 0);
	assert_true(S_ISREG(attr->mode) || S_ISDIR(attr->mode));
	if (l->attrs)
		assert_int_equal(attr->uid, 7);
	snprintf(l->names[l->n], sizeof(l->names[0]), "%s", name);
	l->cookies[l->n++] = cookie;
	return l->n == l->limit;
}

static struct listing list(uint64_t dir, uint64_t cookie, int limit, bool attrs)
{
	struct listing l = {.limit = limit, .attrs = attrs};

	assert_int_equal(vol_readdir(vol, dir, cookie, attrs, add, &l), 0);
	return l;
}

static void test_cookies(void **state)
{
	uint64_t d = folder(VOL_ROOT, "d");
	struct listing all, part;

	(void)state;
	for (const char *name = "abcdef"; *name; name++)
		file(d, (char[]){*name, 0});
	folder(d, "sub");
	all = list(d, 0, 0, true);
	assert_int_equal(all.n, 7);
	for (int i = 0; i < 7; i++)
		assert_true(all.cookies[i] >= 16 && (i == 0 || all.cookies[i] > all.cookies[i - 1]));
	part = list(d, 0, 3, false);
	assert_int_equal(part.n, 3);
	reopen();
	part = list(d, all.cookies[2], 0, true);
	assert_int_equal(part.n, 4);
	assert_string_equal(part.names[0], all.names[3]);
	assert_int_equal(part.cookies[0], all.cookies[3]);
	/* From the cookie of an entry that is gone. */
	assert_int_equal(vol_unlink(vol, d, all.names[2], NULL), 0);
	part = list(d, all.cookies[2], 0, false);
	assert_int_equal(part.n, 4);
	/* A made and a renamed one get new cookies, never used ones. */
	file(d, "new");
	assert_int_equal(vol_rename(vol, d, all.names[0], d, "renamed", 0, -1), 0);
	part = list(d, all.cookies[6], 0, false);
	assert_int_equal(part.n, 2);
	assert_string_equal(part.names[0], "new");
	assert_string_equal(part.names[1], "renamed");
	assert_int_equal(list(d, INT64_MAX, 0, false).n, 0);
	assert_int_equal(list(d, UINT64_MAX, 0, false).n, 0);
	assert_int_equal(vol_readdir(vol, ino_of(d, "new"), 0, false, add, &part), -ENOTDIR);
	assert_int_equal(vol_readdir(vol, 4242, 0, false, add, &part), -ESTALE);
}

#define STEADY 200

static atomic_bool stop;

static void *churn(void *data)
{
	uint64_t dir = *(uint64_t *)data;

	for (int i = 0; !stop; i++) {
		char name[32], other[32];

		snprintf(name, sizeof(name), "churn%d", i % 50);
		snprintf(other, sizeof(other), "moved%d", i % 50);
		if (vol_create(vol, dir, name, &(struct vol_new){.mode = S_IFREG}, NULL) < 0 ||
		    vol_rename(vol, dir, name, dir, other, 0, -1) < 0 ||
		    (i % 2 && vol_unlink(vol, dir, other, NULL) < 0))
			return (void *)1;
	}
	return NULL;
}

struct steady {
	int seen[STEADY], calls;
	uint64_t last;
};

static int count_steady(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	struct steady *s = data;
	int i;

	(void)attr;
	s->last = cookie;
	if (sscanf(name, "steady%d", &i) == 1)
		s->seen[i]++;
	return ++s->calls % 16 == 0; /* as the kernel reads: buffer by buffer */
}

static void test_beside_changes(void **state)
{
	uint64_t d = folder(VOL_ROOT, "d");
	struct timespec end, t;
	pthread_t thread;
	void *failed;

	(void)state;
	for (int i = 0; i < STEADY; i++) {
		char name[32];

		snprintf(name, sizeof(name), "steady%d", i);
		file(d, name);
	}
	stop = false;
	assert_int_equal(pthread_create(&thread, NULL, churn, &d), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec++;
	do {
		struct steady s = {0};
		uint64_t from;

		do {
			from = s.last;
			assert_int_equal(vol_readdir(vol, d, from, true, count_steady, &s), 0);
		} while (s.last != from);
		for (int i = 0; i < STEADY; i++)
			assert_int_equal(s.seen[i], 1);
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while (t.tv_sec < end.tv_sec || (t.tv_sec == end.tv_sec && t.tv_nsec < end.tv_nsec));
	stop = true;
	pthread_join(thread, &failed);
	assert_null(failed);
}

/* How many records of what is gone it takes to list it. */
static uint64_t stepped_over(uint64_t dir, int expect)
{
	rocksdb_perfcontext_t *seen = rocksdb_perfcontext_create(); /* this thread's */
	uint64_t n;

	rocksdb_set_perf_level(rocksdb_enable_count);
	rocksdb_perfcontext_reset(seen);
	assert_int_equal(list(dir, 0, 0, false).n, expect);
	n = rocksdb_perfcontext_metric(seen, rocksdb_internal_delete_skipped_count) +
	    rocksdb_perfcontext_metric(seen, rocksdb_internal_key_skipped_count);
	rocksdb_set_perf_level(rocksdb_disable);
	rocksdb_perfcontext_destroy(seen);
	return n;
}

#define QUEUE 30000
/* A record and its removal, of each in the last one's block of cookies, and of each block's count; scanning all takes 15 ms and more. */
#define FEW (2 * 1024 + 2 * QUEUE / 1024)

static void empty_queue(int step)
{
	uint64_t d = folder(VOL_ROOT, "d");
	char name[32];

	for (int i = 0; i < QUEUE; i++) {
		snprintf(name, sizeof(name), "%d", i);
		file(d, name);
	}
	for (int i = 0; i < QUEUE - 1; i++) {
		snprintf(name, sizeof(name), "%d", (int)((int64_t)i * step % QUEUE));
		assert_int_equal(vol_unlink(vol, d, name, NULL), 0);
	}
	assert_true(stepped_over(d, 1) <= FEW);
	snprintf(name, sizeof(name), "%d", (int)((QUEUE - 1LL) * step % QUEUE));
	assert_int_equal(vol_unlink(vol, d, name, NULL), 0);
	assert_true(stepped_over(d, 0) <= FEW);
	file(d, "x");
	assert_true(stepped_over(d, 1) <= FEW);
}

static void test_emptied_queue(void **state)
{
	(void)state;
	empty_queue(1);
}

static void test_emptied_anyhow(void **state)
{
	(void)state;
	empty_queue(7919);
}

/* Across blocks of cookies, with holes in them, in short reads. */
static void test_sparse(void **state)
{
	uint64_t d = folder(VOL_ROOT, "d"), from = 0;
	struct listing l;
	char name[32];
	int n = 0;

	(void)state;
	for (int i = 0; i < 12000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		file(d, name);
	}
	for (int i = 0; i < 12000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		if (i % 5000 > 60 && i != 11999)
			assert_int_equal(vol_unlink(vol, d, name, NULL), 0);
	}
	do {
		l = list(d, from, 7, false);
		for (int i = 0; i < l.n; i++, n++) {
			int k = n / 61 * 5000 + n % 61;

			snprintf(name, sizeof(name), "%d", n == 183 ? 11999 : k);
			assert_string_equal(l.names[i], name);
			from = l.cookies[i];
		}
	} while (l.n > 0);
	assert_int_equal(n, 184);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_cookies), T(test_beside_changes), T(test_emptied_queue),
					   T(test_emptied_anyhow), T(test_sparse)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
