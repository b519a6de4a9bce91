/*
 * How open files are read and written (fs/node/backing.c) against what the kernel demands, with a kernel that only counts: it
 * checks the rules of linux fs/fuse/iomode.c at each open.
 */
#include "tests/unit/volume_test.h"

#include "engine/base/rng.h"
#include "fs/node/node.h"

#include <sys/mman.h>

#define LARGE 100000

static struct tree *tree;
static uint64_t dir;
static char large[LARGE];
static struct {
	int opened, closed, last;
	int answer; /* instead of a number; 1: a number */
	bool live[100000];
} kernel;

static int kernel_open(void *data, int fd)
{
	assert_ptr_equal(data, &kernel);
	assert_true(fcntl(fd, F_GETFD) >= 0);
	if (kernel.answer != 1) {
		kernel.opened += 1000;
		return kernel.answer;
	}
	kernel.opened++;
	kernel.live[++kernel.last] = true;
	return kernel.last;
}

static void kernel_close(void *data, int number)
{
	assert_ptr_equal(data, &kernel);
	assert_true(kernel.live[number]);
	kernel.live[number] = false;
	kernel.closed++;
}

static const struct tree_backing_ops ops = {kernel_open, kernel_close};

static void new_tree(void)
{
	struct err err = ERR_INIT;
	struct vol_attr attr;

	assert_int_equal(tree_new(&tree, vol, NULL, &err), 0);
	tree_back(tree, &ops, &kernel, true);
	if (!ino_of(ino_of(VOL_ROOT, "datasets"), "d"))
		assert_int_equal(tree_create(tree, &(struct tree_caller){0}, ino_of(VOL_ROOT, "datasets"),
					     "d", &(struct vol_new){.mode = S_IFDIR | 0755}, &attr),
				 0);
	dir = ino_of(ino_of(VOL_ROOT, "datasets"), "d");
}

static void begin(void)
{
	memset(&kernel, 0, sizeof(kernel));
	kernel.answer = 1;
	memset(large, 'l', sizeof(large));
	new_tree();
}

static struct tree_file *create(const char *name, int flags)
{
	struct vol_attr attr;
	struct tree_file *f;

	assert_int_equal(tree_create(tree, &(struct tree_caller){0}, dir, name,
				     &(struct vol_new){.mode = S_IFREG | 0644}, &attr),
			 0);
	assert_int_equal(tree_open(tree, attr.ino, flags, true, &f), 0);
	return f;
}

static struct tree_file *open_it(const char *name, int flags)
{
	struct tree_file *f;

	assert_int_equal(tree_open(tree, ino_of(dir, name), flags, false, &f), 0);
	return f;
}

static void create_large(const char *name)
{
	struct tree_file *f = create(name, O_WRONLY);

	assert_int_equal(tree_write(f, large, LARGE, 0), LARGE);
	tree_release(f);
}

static int io(const struct tree_file *f)
{
	return tree_io(f, NULL);
}

static void one_for_all(void **state)
{
	struct tree_file *a, *b, *c;
	int of_a, of_b, of_c;

	(void)state;
	begin();
	a = create("small", O_RDWR);
	assert_int_equal(io(a), TREE_IO_CACHED);
	tree_release(a);
	assert_int_equal(kernel.opened, 0);

	create_large("x");
	a = open_it("x", O_RDONLY);
	b = open_it("x", O_RDWR);
	assert_int_equal(tree_io(a, &of_a), TREE_IO_BACKED);
	assert_int_equal(tree_io(b, &of_b), TREE_IO_BACKED);
	assert_true(of_a > 0 && of_a == of_b);
	tree_release(a);
	c = open_it("x", O_RDONLY | O_DIRECT); /* does not begin, but goes along */
	assert_int_equal(tree_io(c, &of_c), TREE_IO_BACKED);
	assert_int_equal(of_c, of_a);
	tree_release(b);
	assert_int_equal(kernel.closed, 0);
	tree_release(c);
	assert_int_equal(kernel.opened, 1);
	assert_int_equal(kernel.closed, 1);
	a = open_it("x", O_RDONLY | O_DIRECT);
	assert_int_equal(io(a), TREE_IO_CACHED);
	b = open_it("x", O_RDONLY);
	assert_int_equal(io(b), TREE_IO_CACHED);
	tree_release(a);
	tree_release(b);
	tree_free(tree);
}

static void cached_until_all_have_closed(void **state)
{
	struct tree_file *a, *b;

	(void)state;
	begin();
	a = create("x", O_RDWR);
	assert_int_equal(tree_write(a, large, LARGE, 0), LARGE);
	b = open_it("x", O_RDONLY);
	assert_int_equal(io(b), TREE_IO_CACHED);
	assert_true(tree_keeps_cache(b));
	tree_release(a);
	a = open_it("x", O_RDWR);
	assert_int_equal(io(a), TREE_IO_CACHED);
	tree_release(a);
	tree_release(b);
	a = open_it("x", O_RDWR);
	assert_int_equal(io(a), TREE_IO_BACKED);
	tree_release(a);

	/* One that only writes, past the page cache, goes with either. */
	a = create("y", O_WRONLY);
	assert_int_equal(io(a), TREE_IO_DIRECT);
	b = open_it("y", O_RDONLY);
	assert_int_equal(io(b), TREE_IO_CACHED);
	tree_release(b);
	assert_int_equal(tree_write(a, large, LARGE, 0), LARGE);
	b = open_it("y", O_RDONLY);
	assert_int_equal(io(b), TREE_IO_BACKED);
	tree_release(a);
	tree_release(b);
	assert_int_equal(kernel.opened, 2);
	assert_int_equal(kernel.closed, 2);
	tree_free(tree);
}

static void where_there_is_none(void **state)
{
	struct tree_file *a, *b;
	char path[128], name[32];
	uint64_t ino;

	(void)state;
	begin();
	create_large("x");
	kernel.answer = 0; /* not now */
	a = open_it("x", O_RDONLY);
	assert_int_equal(io(a), TREE_IO_CACHED);
	assert_false(tree_keeps_cache(a)); /* it may have been backed before */
	b = open_it("x", O_RDONLY);
	assert_true(tree_keeps_cache(b));
	tree_release(a);
	tree_release(b);
	assert_int_equal(kernel.opened, 1000);
	kernel.answer = 1;
	a = open_it("x", O_RDONLY);
	assert_int_equal(io(a), TREE_IO_BACKED);
	tree_release(a);

	/* A blob that is not what its record says is read by us, who can tell. */
	ino = ino_of(dir, "x");
	snprintf(name, sizeof(name), "%02x/%016llx", (unsigned)(ino & 0xff), (unsigned long long)ino);
	snprintf(path, sizeof(path), "%s/blobs/%s", state_dir, name);
	assert_int_equal(truncate(path, LARGE - 1), 0);
	a = open_it("x", O_RDONLY);
	assert_int_equal(io(a), TREE_IO_CACHED);
	tree_release(a);
	assert_int_equal(truncate(path, LARGE), 0);
	assert_int_equal(kernel.opened, 1001);

	kernel.answer = -EOPNOTSUPP; /* never */
	tree_release(open_it("x", O_RDONLY));
	assert_int_equal(kernel.opened, 2001);
	kernel.answer = 1;
	a = open_it("x", O_RDONLY);
	assert_int_equal(io(a), TREE_IO_CACHED);
	assert_true(tree_keeps_cache(a));
	assert_int_equal(kernel.opened, 2001);
	tree_release(a);
	tree_free(tree);
}

static struct timespec mtime_of(const char *name)
{
	struct vol_attr attr;

	assert_int_equal(vol_getattr(vol, ino_of(dir, name), &attr), 0);
	return attr.mtime;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static void store(struct tree_file *f, size_t at, char c)
{
	char *map = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vol_backing_fd(tree_vol_file(f), true), 0);

	assert_true(map != MAP_FAILED);
	map[at] = c;
	assert_int_equal(munmap(map, LARGE), 0);
}

static void stores_are_noticed(void **state)
{
	struct timespec before, after;
	struct tree_file *f, *g;
	char c;

	(void)state;
	begin();
	create_large("x");
	usleep(10000); /* a filesystem's clock may tick so slowly */
	f = open_it("x", O_RDWR);
	assert_true(tree_wants_flush(f));
	before = mtime_of("x");
	assert_int_equal(tree_flush(f), 0);
	assert_false(later(mtime_of("x"), before));
	usleep(10000);
	store(f, 7, 's');
	assert_int_equal(tree_flush(f), 1);
	after = mtime_of("x");
	assert_true(later(after, before));
	assert_true(f->open->changed);
	assert_int_equal(tree_flush(f), 0);
	usleep(10000);
	assert_int_equal(tree_write(f, "w", 1, 8), 1); /* our own change is none of those */
	assert_int_equal(tree_flush(f), 0);
	usleep(10000);
	/* Set to the past afterwards, as cp -p does: it stays. */
	assert_int_equal(vol_setattr(vol, ino_of(dir, "x"), &(struct vol_attr){.mtime = {.tv_sec = 5}},
				     VOL_SET_MTIME, NULL),
			 0);
	assert_int_equal(tree_flush(f), 0);
	assert_int_equal(mtime_of("x").tv_sec, 5);
	assert_int_equal(tree_fsync(f, ino_of(dir, "x"), false), 0);
	usleep(10000);
	store(f, 9, 't');
	g = open_it("x", O_RDONLY);
	assert_int_equal(tree_fsync(g, ino_of(dir, "x"), false), 1);
	tree_release(g);
	assert_true(later(mtime_of("x"), after));
	after = mtime_of("x");
	usleep(10000);
	store(f, 10, 'u');
	tree_release(f);
	assert_true(later(mtime_of("x"), after));
	after = mtime_of("x");
	reopen(); /* it was committed */
	assert_false(later(after, mtime_of("x")));
	assert_int_equal(vol_file_open(vol, ino_of(dir, "x"), O_RDONLY, (struct vol_file **)&g), 0);
	assert_int_equal(vol_read((struct vol_file *)g, &c, 1, 10), 1);
	assert_int_equal(c, 'u');
	vol_file_close((struct vol_file *)g);
	tree_free(tree);
}

static void they_go_on(void **state)
{
	uint64_t backed, writer, cached, direct;
	struct tree_handles handles;
	struct err err = ERR_INIT;
	struct tree_file *f;
	int number, again;

	(void)state;
	begin();
	create_large("x");
	f = open_it("x", O_RDONLY);
	tree_io(f, &number);
	backed = tree_number(f);
	writer = tree_number(open_it("x", O_RDWR));
	f = create("y", O_RDWR);
	cached = tree_number(f);
	assert_int_equal(tree_write(f, large, LARGE, 0), LARGE);
	direct = tree_number(create("z", O_WRONLY));
	for (int round = 0; round < 3; round++) {
		assert_int_equal(tree_hand_over(tree, &handles), 0);
		tree_free(tree);
		volume_hand_over(vol);
		vol = NULL;
		assert_int_equal(volume_open(&vol, state_dir, VOLUME_TAKEN_OVER, &err), 0);
		new_tree();
		assert_int_equal(tree_take_over(tree, &handles), 0);
		tree_handles_release(&handles);
		assert_int_equal(kernel.opened, 1);
		assert_int_equal(kernel.closed, 0);
		f = open_it("x", O_RDONLY);
		assert_int_equal(tree_io(f, &again), TREE_IO_BACKED);
		assert_int_equal(again, number);
		tree_release(f);
		f = open_it("y", O_RDONLY);
		assert_int_equal(io(f), TREE_IO_CACHED);
		tree_release(f);
		assert_int_equal(io(tree_numbered(tree, direct)), TREE_IO_DIRECT);
	}
	usleep(10000);
	store(tree_numbered(tree, writer), 3, 'm');
	assert_int_equal(tree_flush(tree_numbered(tree, writer)), 1);
	/* What contradicts itself is refused. */
	assert_int_equal(tree_hand_over(tree, &handles), 0);
	for (size_t i = 0; i < handles.n_files; i++)
		if (handles.files[i].number == writer)
			handles.files[i].backing++;
	tree_free(tree);
	new_tree();
	assert_int_equal(tree_take_over(tree, &handles), -EBADMSG);
	tree_free(tree);
	for (size_t i = 0; i < handles.n_files; i++) {
		if (handles.files[i].number == writer)
			handles.files[i].backing--;
		if (handles.files[i].number == direct)
			handles.files[i].io = TREE_IO_BACKED, handles.files[i].backing = 9;
	}
	new_tree();
	assert_int_equal(tree_take_over(tree, &handles), -EBADMSG); /* it has no blob */
	tree_free(tree);
	for (size_t i = 0; i < handles.n_files; i++)
		if (handles.files[i].number == direct)
			handles.files[i].io = TREE_IO_DIRECT, handles.files[i].backing = 0;
	new_tree();
	assert_int_equal(tree_take_over(tree, &handles), 0);
	tree_handles_release(&handles);
	tree_release(tree_numbered(tree, backed));
	assert_int_equal(kernel.closed, 0);
	tree_release(tree_numbered(tree, writer));
	assert_int_equal(kernel.closed, 1);
	tree_release(tree_numbered(tree, cached));
	tree_release(tree_numbered(tree, direct));
	tree_free(tree);
}

/* Random opens, writes, truncations and closes; at each moment the kernel's rule holds, and at the end nothing is left. */
static void no_rule_is_broken(void **state)
{
	static const int flags[] = {O_RDONLY,        O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_DIRECT,
				    O_RDWR | O_TRUNC};
	static const char *const names[] = {"f0", "f1", "f2", "f3"};
	struct tree_file *files[12] = {0};
	struct rng rng;

	(void)state;
	begin();
	rng = rng_init(4, 0);
	for (int i = 0; i < 4; i++)
		tree_release(create(names[i], O_WRONLY));
	for (int n = 0; n < 20000; n++) {
		struct tree_file **f = &files[rng_below(&rng, 12)];

		if (!*f)
			*f = open_it(names[rng_below(&rng, 4)], flags[rng_below(&rng, 6)]);
		else if (rng_below(&rng, 3) == 0 && (*f)->open)
			assert_true(tree_write(*f, large, 70000, rng_below(&rng, 9)) == 70000);
		else {
			tree_release(*f);
			*f = NULL;
		}
		for (int i = 0; i < 12; i++) {
			for (int j = 0; j < i; j++) {
				if (!files[i] || !files[j] ||
				    vol_file_ino(files[i]->vf) != vol_file_ino(files[j]->vf))
					continue;
				assert_int_equal(files[i]->io, files[j]->io);
				assert_int_equal(files[i]->backing, files[j]->backing);
			}
			assert_true(!files[i] || files[i]->io != TREE_IO_BACKED ||
				    kernel.live[files[i]->backing]);
		}
		if (rng_below(&rng, 500) == 0) { /* small again */
			for (int i = 0; i < 12; i++) {
				if (files[i])
					tree_release(files[i]);
				files[i] = NULL;
			}
			assert_int_equal(kernel.opened, kernel.closed);
			for (int i = 0; i < 4; i++) {
				assert_int_equal(tree_unlink(tree, &(struct tree_caller){0}, dir, names[i]),
						 0);
				tree_release(create(names[i], O_WRONLY));
			}
		}
	}
	for (int i = 0; i < 12; i++)
		if (files[i])
			tree_release(files[i]);
	assert_true(kernel.opened > 1000);
	assert_int_equal(kernel.opened, kernel.closed);
	tree_free(tree);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(one_for_all),         T(cached_until_all_have_closed),
		T(where_there_is_none), T(stores_are_noticed),
		T(they_go_on),          T(no_rule_is_broken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
