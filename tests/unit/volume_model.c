/*
 * The volume against a model: a random, seeded run of metadata calls, each answer compared with that of a
 * tree in memory that follows POSIX in the plainest way; then the whole tree compared, also after a reopen.
 * And a run with 8 threads that must neither hang nor leave anything that fsck names.
 * VOLUME_SEED=N replays a run.
 */
#include "tests/unit/volume_test.h"

#include <linux/fs.h>
#include <pthread.h>

#define MODEL_INODES 4096
#define STEPS        6000
#define NAMES        6

struct model_inode {
	bool used, dir;
	uint64_t ino;
	int nlink, parent;
	int entry[NAMES]; /* of a directory: index of the inode, or -1 */
	char content[64];
	size_t len;
};

static struct model_inode m[MODEL_INODES];
static int n_model;
static uint64_t rng;

static unsigned rnd(unsigned n)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(rng >> 33) % n;
}

static const char *name_of(int i)
{
	static const char *const names[NAMES] = {"a", "b", "c", "dd", "e e", "\xc3\xa9"};

	return names[i];
}

static int model_new(bool dir, int parent)
{
	int i = n_model++;

	assert_true(i < MODEL_INODES);
	m[i] = (struct model_inode){.used = true, .dir = dir, .nlink = dir ? 2 : 1, .parent = parent};
	for (int k = 0; k < NAMES; k++)
		m[i].entry[k] = -1;
	return i;
}

static bool empty(int d)
{
	for (int k = 0; k < NAMES; k++)
		if (m[d].entry[k] >= 0)
			return false;
	return true;
}

static bool below(int d, int ancestor)
{
	while (d != ancestor && d != 0)
		d = m[d].parent;
	return d == ancestor;
}

static void drop(int i)
{
	m[i].nlink -= m[i].dir ? 2 : 1;
	m[i].used = m[i].nlink > 0;
}

static int model_rename(int p, int a, int q, int b, unsigned flags)
{
	int s = m[p].entry[a], t = m[q].entry[b];

	if (s < 0)
		return -ENOENT;
	if (t >= 0 && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (t < 0 && flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (m[s].dir && below(q, s))
		return -EINVAL;
	if (t >= 0 && !(flags & RENAME_EXCHANGE) && m[s].dir != m[t].dir)
		return m[s].dir ? -ENOTDIR : -EISDIR;
	if (t >= 0 && t != s && m[t].dir && below(p, t))
		return flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (s == t)
		return 0;
	if (t >= 0 && !(flags & RENAME_EXCHANGE)) {
		if (m[t].dir && !empty(t))
			return -ENOTEMPTY;
		if (m[t].dir)
			m[q].nlink--;
		drop(t);
	}
	m[p].entry[a] = flags & RENAME_EXCHANGE ? t : -1;
	m[q].entry[b] = s;
	if (m[s].dir) {
		m[s].parent = q;
		m[p].nlink--;
		m[q].nlink++;
	}
	if (flags & RENAME_EXCHANGE && m[t].dir) {
		m[t].parent = p;
		m[q].nlink--;
		m[p].nlink++;
	}
	return 0;
}

static int pick(bool dir)
{
	int i;

	do
		i = (int)rnd((unsigned)n_model);
	while (!m[i].used || (dir && !m[i].dir));
	return i;
}

static void step_create(void)
{
	int d = pick(true), k = (int)rnd(NAMES), i;
	bool dir = rnd(3) == 0;
	struct vol_new what = {.mode = (dir ? S_IFDIR : S_IFREG) | 0700};
	struct vol_attr attr;
	int expect = m[d].entry[k] >= 0 ? -EEXIST : 0;

	assert_int_equal(vol_create(vol, m[d].ino, name_of(k), &what, &attr), expect);
	if (expect)
		return;
	i = model_new(dir, d);
	m[i].ino = attr.ino;
	m[d].entry[k] = i;
	m[d].nlink += dir;
}

static void step_remove(void)
{
	int d = pick(true), k = (int)rnd(NAMES), i = m[d].entry[k], expect;
	bool dir = rnd(2);

	expect = i < 0              ? -ENOENT
		 : dir && !m[i].dir ? -ENOTDIR
		 : !dir && m[i].dir ? -EISDIR
		 : dir && !empty(i) ? -ENOTEMPTY
				    : 0;
	assert_int_equal((dir ? vol_rmdir : vol_unlink)(vol, m[d].ino, name_of(k), NULL), expect);
	if (expect)
		return;
	m[d].entry[k] = -1;
	m[d].nlink -= dir;
	drop(i);
}

static void step_link(void)
{
	int i = pick(false), d = pick(true), k = (int)rnd(NAMES);
	int expect = m[i].dir ? -EPERM : m[d].entry[k] >= 0 ? -EEXIST : 0;

	assert_int_equal(vol_link(vol, m[i].ino, m[d].ino, name_of(k), NULL), expect);
	if (expect)
		return;
	m[d].entry[k] = i;
	m[i].nlink++;
}

static void step_rename(void)
{
	static const unsigned flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	int p = pick(true), q = rnd(2) ? p : pick(true), a = (int)rnd(NAMES), b = (int)rnd(NAMES);
	unsigned f = flags[rnd(4)];
	int got = vol_rename(vol, m[p].ino, name_of(a), m[q].ino, name_of(b), f, -1);

	assert_int_equal(got, model_rename(p, a, q, b, f));
}

static void step_write(void)
{
	int i = pick(false);
	char text[16];
	size_t n = rnd(sizeof(text)) + 1, at = rnd(40);
	struct vol_file *f;

	if (m[i].dir)
		return;
	memset(text, 'a' + (int)rnd(26), n);
	assert_int_equal(vol_file_open(vol, m[i].ino, O_WRONLY, &f), 0);
	assert_int_equal(vol_write(f, text, n, at), n);
	vol_file_close(f);
	memcpy(m[i].content + at, text, n);
	if (m[i].len < at + n)
		m[i].len = at + n;
}

static int count(void *data, const char *name, uint64_t cookie, const struct vol_attr *attr)
{
	(void)name;
	(void)cookie;
	(void)attr;
	++*(int *)data;
	return 0;
}

static void compare(void)
{
	for (int i = 0; i < n_model; i++) {
		struct vol_attr attr;
		int r = vol_getattr(vol, m[i].ino, &attr), entries = 0, listed = 0;

		assert_int_equal(r, m[i].used ? 0 : -ESTALE);
		if (!m[i].used)
			continue;
		assert_int_equal(attr.nlink, m[i].nlink);
		if (!m[i].dir) {
			void *content;
			size_t len;

			assert_int_equal(vol_content(vol, m[i].ino, 64, &content, &len), 0);
			assert_int_equal(len, m[i].len);
			assert_memory_equal(content, m[i].content, len);
			free(content);
			continue;
		}
		assert_int_equal(attr.parent, m[m[i].parent].ino);
		for (int k = 0; k < NAMES; k++) {
			int e = m[i].entry[k];

			assert_int_equal(ino_of(m[i].ino, name_of(k)), e < 0 ? 0 : m[e].ino);
			entries += e >= 0;
		}
		assert_int_equal(vol_readdir(vol, m[i].ino, 0, false, count, &listed), 0);
		assert_int_equal(listed, entries);
	}
}

static void test_model(void **state)
{
	static void (*const steps[])(void) = {step_create, step_create, step_remove, step_link,
					      step_rename, step_rename, step_write};
	const char *seed = getenv("VOLUME_SEED");

	(void)state;
	rng = seed ? strtoull(seed, NULL, 10) : 20260101;
	n_model = 0;
	m[model_new(true, 0)].ino = VOL_ROOT;
	for (int i = 0; i < STEPS; i++) {
		steps[rnd(sizeof(steps) / sizeof(steps[0]))]();
		if (i % 1000 == 999)
			compare();
		if (i % 2000 == 1999)
			reopen();
	}
	compare();
}

#define THREADS 8

static uint64_t dirs[4];
static int unexpected;

/* All threads in the same four directories, each of which is also renamed below the others. */
static void *smoke(void *data)
{
	uint64_t x = (uint64_t)(uintptr_t)data * 7919 + 1;

	for (int i = 0; i < 1500; i++) {
		struct vol_attr attr;
		struct vol_file *f;
		char a[8], b[8];
		uint64_t p, q;
		int r = 0;

		x = x * 6364136223846793005u + 1442695040888963407u;
		p = dirs[x >> 40 & 3];
		q = dirs[x >> 42 & 3];
		snprintf(a, sizeof(a), "%d", (int)(x >> 44 & 7));
		snprintf(b, sizeof(b), "%d", (int)(x >> 47 & 7));
		switch (x >> 50 & 7) {
		case 0:
			r = vol_create(vol, p, a, &(struct vol_new){.mode = S_IFREG | 0600}, NULL);
			break;
		case 1:
			r = vol_create(vol, p, a, &(struct vol_new){.mode = S_IFDIR | 0700}, NULL);
			break;
		case 2:
			r = vol_unlink(vol, p, a, NULL);
			break;
		case 3:
			r = vol_rmdir(vol, p, a, NULL);
			break;
		case 4:
			r = vol_rename(vol, p, a, q, b, 0, -1);
			break;
		case 5:
			r = vol_rename(vol, p, a, q, b, RENAME_EXCHANGE, -1);
			break;
		case 6:
			r = vol_lookup(vol, p, a, &attr);
			if (r == 0 && S_ISREG(attr.mode) && vol_file_open(vol, attr.ino, O_RDWR, &f) == 0) {
				vol_write(f, a, 1, x >> 58);
				vol_setxattr(vol, attr.ino, "user.a", a, 1, 0);
				vol_file_close(f);
			}
			break;
		case 7: {
			int n = 0;

			r = vol_readdir(vol, p, 0, true, count, &n);
			if (r == 0)
				r = vol_link(vol, dirs[0] + 4, q, b, NULL);
			break;
		}
		}
		switch (r) {
		case 0:
		case -EEXIST:
		case -ENOENT:
		case -ENOTEMPTY:
		case -ENOTDIR:
		case -EISDIR:
		case -EINVAL:
		case -EPERM:
		case -ESTALE:
			break;
		default:
			print_message("%d\n", r);
			__atomic_store_n(&unexpected, r, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i < 4; i++)
		dirs[i] = folder(i < 2 ? VOL_ROOT : dirs[i - 2], (char[]){(char)('0' + i), 0});
	file(VOL_ROOT, "linked");
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, smoke, (void *)(uintptr_t)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(unexpected, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_model), T(test_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
