/*
 * What one daemon hands to the next: the bytes, which are read as if they were hostile, the numbers of open files, and
 * files that go on in a tree of their own over a volume that was closed and opened meanwhile.
 */
#include "tests/unit/volume_test.h"

#include "fs/mount/handover.h"
#include "fs/node/node.h"

/* --- the bytes --- */

static char init_bytes[104];

static void fill(struct handover *h)
{
	memset(init_bytes, 'i', sizeof(init_bytes));
	*h = (struct handover){
		.init = request_new(init_bytes, sizeof(init_bytes)), .want = 0x80000011, .paused_ns = -5};
	strcpy(h->options, "settle=5ms,threads=4");
	h->handles.files = calloc(3, sizeof(*h->handles.files));
	h->handles.files[0] = (struct tree_handle){.number = 1,
						   .ino = 17,
						   .kind = 3,
						   .mode = O_RDWR,
						   .writer = true,
						   .io = TREE_IO_BACKED,
						   .backing = INT32_MAX};
	h->handles.files[1] = (struct tree_handle){.number = UINT64_MAX, .ino = UINT64_MAX, .kind = 255};
	h->handles.files[2] = (struct tree_handle){.number = 9, .ino = 17, .mode = O_WRONLY, .writer = true};
	h->handles.n_files = 3;
	h->handles.writing = calloc(2, sizeof(*h->handles.writing));
	h->handles.writing[0] =
		(struct tree_writing){.ino = 17, .dir = 4, .kind = 3, .changed = true, .name = "x.png"};
	h->handles.writing[1] = (struct tree_writing){.ino = 18, .synced = true, .gone = true};
	h->handles.n_writing = 2;
	h->held = request_new("first request, of at least 40 bytes........", 43);
	h->held->next = request_new("second request, of at least 40 bytes.......", 43);
}

static void bytes_come_back(void **state)
{
	struct buf first = BUF_INIT, second = BUF_INIT;
	struct handover h, got;

	(void)state;
	fill(&h);
	assert_int_equal(handover_encode(&h, &first), 0);
	assert_int_equal(handover_decode(&got, first.data, first.len), 0);
	assert_int_equal(got.want, 0x80000011);
	assert_int_equal(got.paused_ns, -5);
	assert_string_equal(got.options, "settle=5ms,threads=4");
	assert_int_equal(got.init->size, sizeof(init_bytes));
	assert_int_equal(got.handles.n_files, 3);
	assert_memory_equal(&got.handles.files[1].number, &(uint64_t){UINT64_MAX}, 8);
	assert_int_equal(got.handles.files[2].mode, O_WRONLY);
	assert_int_equal(got.handles.files[0].io, TREE_IO_BACKED);
	assert_int_equal(got.handles.files[0].backing, INT32_MAX);
	assert_int_equal(got.handles.n_writing, 2);
	assert_string_equal(got.handles.writing[0].name, "x.png");
	assert_true(got.handles.writing[1].gone && got.handles.writing[1].synced &&
		    !got.handles.writing[1].changed);
	assert_memory_equal(got.held->next->bytes, "second", 6);
	assert_int_equal(handover_encode(&got, &second), 0);
	assert_int_equal(first.len, second.len);
	assert_memory_equal(first.data, second.data, first.len);
	handover_release(&h);
	handover_release(&got);
	buf_release(&first);
	buf_release(&second);
}

static void cut_or_changed(void **state)
{
	struct handover h, got;
	struct buf b = BUF_INIT;

	(void)state;
	fill(&h);
	assert_int_equal(handover_encode(&h, &b), 0);
	for (size_t len = 0; len < b.len; len++) {
		char *copy = malloc(len + 1); /* so that a sanitizer sees the end */

		memcpy(copy, b.data, len);
		memset(&got, 'g', sizeof(got));
		assert_int_equal(handover_decode(&got, copy, len), -EBADMSG);
		assert_int_equal(got.want, 0x67676767); /* untouched */
		free(copy);
	}
	for (size_t at = 0; at < b.len; at++) {
		for (int bit = 0; bit < 8; bit++) {
			b.data[at] ^= (char)(1 << bit);
			if (handover_decode(&got, b.data, b.len) == 0)
				handover_release(&got);
			b.data[at] ^= (char)(1 << bit);
		}
	}
	buf_add(&b, "x", 1);
	assert_int_equal(handover_decode(&got, b.data, b.len), -EBADMSG);
	handover_release(&h);
	buf_release(&b);
}

static void add(struct buf *b, uint32_t type, const void *data, uint32_t size)
{
	buf_add(b, &type, 4);
	buf_add(b, &size, 4);
	if (size)
		buf_add(b, data, size);
}

/* The four that must come, and then one record more. */
static int decode_with(uint32_t type, const void *data, uint32_t size)
{
	struct buf b = BUF_INIT;
	struct handover got;
	int r;

	add(&b, 'I', init_bytes, sizeof(init_bytes));
	add(&b, 'W', "0000", 4);
	add(&b, 'T', "", 0);
	add(&b, 'P', "00000000", 8);
	if (type)
		add(&b, type, data, size);
	add(&b, 'E', NULL, 0);
	r = handover_decode(&got, b.data, b.len);
	if (r == 0)
		handover_release(&got);
	buf_release(&b);
	return r;
}

static void limits(void **state)
{
	static char zeros[2 << 20];
	char open[20 + 256] = "12345678\0\0\0\0\0\0\0\0\3\1\0\0", file[24] = "1234567812345678k\0";

	(void)state;
	assert_int_equal(decode_with(0, NULL, 0), 0);
	assert_int_equal(decode_with('?', NULL, 0), -EBADMSG);
	assert_int_equal(decode_with('I', init_bytes, sizeof(init_bytes)), -EBADMSG); /* once */
	assert_int_equal(decode_with('W', "0000", 4), -EBADMSG);
	assert_int_equal(decode_with('T', "", 0), -EBADMSG);
	assert_int_equal(decode_with('P', "00000000", 8), -EBADMSG);
	assert_int_equal(decode_with('H', zeros, 39), -EBADMSG);
	assert_int_equal(decode_with('H', zeros, 40), 0);
	assert_int_equal(decode_with('H', zeros, sizeof(zeros)), -EBADMSG);
	assert_int_equal(decode_with('F', file, 24), 0);
	assert_int_equal(decode_with('F', file, 23), -EBADMSG);
	file[17] = 3; /* no such mode */
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[17] = O_WRONLY; /* a writer that is none */
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[18] = 2;
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[17] = file[18] = 0;
	file[19] = TREE_IO_BACKED; /* by nothing */
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[20] = 1;
	assert_int_equal(decode_with('F', file, 24), 0);
	file[23] = (char)0x80; /* below 0 */
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[23] = 0;
	file[19] = TREE_IO_DIRECT;
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[19] = TREE_IO_BACKED + 1;
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	file[19] = file[20] = 0;
	memset(file, 0, 8); /* number 0 */
	assert_int_equal(decode_with('F', file, 24), -EBADMSG);
	assert_int_equal(decode_with('O', open, 20), 0);
	assert_int_equal(decode_with('O', open, 21), -EBADMSG); /* a name in no directory */
	memset(open + 8, 'd', 8);
	assert_int_equal(decode_with('O', open, 20), -EBADMSG); /* none in one */
	memset(open + 20, 'n', 256);
	assert_int_equal(decode_with('O', open, 20 + 255), 0);
	assert_int_equal(decode_with('O', open, 20 + 256), -EBADMSG);
	open[30] = '/';
	assert_int_equal(decode_with('O', open, 20 + 255), -EBADMSG);
	open[30] = '\0';
	assert_int_equal(decode_with('O', open, 20 + 255), -EBADMSG);
}

/* --- numbers --- */

static int count(void *data, struct tree_file *file, uint64_t number)
{
	(void)file;
	*(uint64_t *)data += number;
	return 0;
}

static void numbers(void **state)
{
	struct tree_file *f = (struct tree_file *)0x1000, *g = (struct tree_file *)0x2000;
	struct numbers *n;
	uint64_t number, sum = 0;

	(void)state;
	assert_int_equal(numbers_new(&n), 0);
	assert_null(numbers_get(n, 0));
	assert_null(numbers_get(n, 1));
	assert_null(numbers_get(n, UINT64_MAX));
	for (uint64_t i = 1; i <= 10000; i++) {
		assert_int_equal(numbers_put(n, f, &number), 0);
		assert_int_equal(number, i);
	}
	numbers_drop(n, 7000);
	numbers_drop(n, 3);
	assert_null(numbers_get(n, 3));
	assert_int_equal(numbers_put(n, g, &number), 0);
	assert_int_equal(number, 3);
	assert_ptr_equal(numbers_get(n, 3), g);
	assert_ptr_equal(numbers_get(n, 4), f);
	numbers_each(n, count, &sum);
	assert_int_equal(sum, 10000ull * 10001 / 2 - 7000);
	numbers_free(n);

	assert_int_equal(numbers_new(&n), 0);
	assert_int_equal(numbers_claim(n, f, 0), -EINVAL);
	assert_int_equal(numbers_claim(n, f, UINT64_C(1) << 40), -EINVAL);
	assert_int_equal(numbers_claim(n, f, 5000), 0);
	assert_int_equal(numbers_claim(n, g, 2), 0);
	assert_int_equal(numbers_claim(n, g, 5000), -EEXIST);
	numbers_claimed(n);
	for (uint64_t i = 1; i <= 5001; i++) {
		if (i == 2 || i == 5000)
			continue;
		assert_int_equal(numbers_put(n, f, &number), 0);
		assert_int_equal(number, i);
	}
	assert_ptr_equal(numbers_get(n, 2), g);
	numbers_free(n);
}

/* --- files --- */

static struct tree *tree;

static void new_tree(void)
{
	struct err err = ERR_INIT;

	assert_int_equal(tree_new(&tree, vol, NULL, &err), 0);
}

static struct tree_file *open_file(uint64_t dir, const char *name, int flags, uint64_t *ret_ino)
{
	struct tree_caller caller = {0};
	struct vol_attr attr;
	struct tree_file *f;

	if (tree_lookup(tree, &caller, dir, name, &attr) < 0)
		assert_int_equal(tree_create(tree, &caller, dir, name,
					     &(struct vol_new){.mode = S_IFREG | 0644}, &attr),
				 0);
	assert_int_equal(tree_open(tree, attr.ino, flags, false, &f), 0);
	*ret_ino = attr.ino;
	return f;
}

static void check(uint64_t number, const char *text)
{
	struct tree_file *f = tree_numbered(tree, number);
	char got[128];
	ssize_t n;

	assert_non_null(f);
	n = vol_read(tree_vol_file(f), got, sizeof(got), 0);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(got, text, n);
}

static void files_go_on(void **state)
{
	struct tree_caller caller = {0};
	struct tree_handles handles;
	struct tree_file *a, *b, *gone, *read;
	uint64_t a_ino, gone_ino, ino, dir, numbers[4];
	struct vol_attr attr;
	struct err err = ERR_INIT;

	(void)state;
	new_tree();
	assert_int_equal(tree_lookup(tree, &caller, VOL_ROOT, "datasets", &attr), 0);
	assert_int_equal(
		tree_create(tree, &caller, attr.ino, "d", &(struct vol_new){.mode = S_IFDIR | 0755}, &attr),
		0);
	dir = attr.ino;
	tree_release(open_file(dir, "between", O_RDONLY, &ino)); /* so that numbers are not in order */
	a = open_file(dir, "a", O_RDWR, &a_ino);
	gone = open_file(dir, "gone", O_RDWR, &gone_ino);
	b = open_file(dir, "a", O_WRONLY, &ino);
	read = open_file(dir, "between", O_RDONLY, &ino);
	assert_int_equal(tree_write(a, "half", 4, 0), 4);
	assert_int_equal(tree_write(gone, "still here", 10, 0), 10);
	assert_int_equal(tree_unlink(tree, &caller, dir, "gone"), 0);
	assert_int_equal(tree_write(gone, "STILL", 5, 0), 5);
	numbers[0] = tree_number(a);
	numbers[1] = tree_number(gone);
	numbers[2] = tree_number(b);
	numbers[3] = tree_number(read);

	for (int round = 0; round < 3; round++) {
		assert_int_equal(tree_hand_over(tree, &handles), 0);
		assert_int_equal(handles.n_files, 4);
		assert_int_equal(handles.n_writing, 2);
		tree_free(tree);
		volume_hand_over(vol);
		vol = NULL;
		assert_int_equal(volume_open(&vol, state_dir, VOLUME_TAKEN_OVER, &err), 0);
		new_tree();
		assert_int_equal(tree_take_over(tree, &handles), 0);
		tree_handles_release(&handles);
		check(numbers[0], round == 0 ? "half" : "half and more");
		check(numbers[1], "STILL here");
		check(numbers[3], "");
		assert_int_equal(tree_write(tree_numbered(tree, numbers[2]), " and more", 9, 4), 9);
		assert_int_equal(tree_write(tree_numbered(tree, numbers[3]), "x", 1, 0), -EBADF);
		assert_int_equal(vol_getattr(vol, gone_ino, &attr), 0);
	}
	/* The last ones that close it are those that came over: the inode goes with them. */
	tree_release(tree_numbered(tree, numbers[1]));
	assert_null(tree_numbered(tree, numbers[1]));
	assert_int_equal(vol_getattr(vol, gone_ino, &attr), -ESTALE);
	tree_release(tree_numbered(tree, numbers[0]));
	tree_release(tree_numbered(tree, numbers[2]));
	tree_release(tree_numbered(tree, numbers[3]));
	assert_int_equal(vol_getattr(vol, a_ino, &attr), 0);
	assert_int_equal(attr.size, 13);
	tree_free(tree);
}

/* Handed over to one that never came: the next start purges. */
static void nobody_comes(void **state)
{
	struct tree_caller caller = {0};
	struct tree_handles handles;
	struct vol_attr attr;
	struct err err = ERR_INIT;
	uint64_t ino;

	(void)state;
	new_tree();
	assert_int_equal(tree_lookup(tree, &caller, VOL_ROOT, "datasets", &attr), 0);
	assert_int_equal(
		tree_create(tree, &caller, attr.ino, "d", &(struct vol_new){.mode = S_IFDIR | 0755}, &attr),
		0);
	assert_int_equal(tree_write(open_file(attr.ino, "gone", O_RDWR, &ino), "x", 1, 0), 1);
	assert_int_equal(tree_unlink(tree, &caller, attr.ino, "gone"), 0);
	assert_int_equal(tree_hand_over(tree, &handles), 0);
	tree_handles_release(&handles);
	tree_free(tree);
	volume_hand_over(vol);
	assert_int_equal(volume_open(&vol, state_dir, 0, &err), 0);
	assert_int_equal(vol_getattr(vol, ino, &attr), -ESTALE);
}

static void what_is_not_there(void **state)
{
	struct tree_handle file = {.number = 4, .ino = 4711};
	struct tree_writing writing = {.ino = 1, .changed = true};
	struct tree_handles handles = {.files = &file, .n_files = 1};

	(void)state;
	new_tree();
	assert_int_equal(tree_take_over(tree, &handles), -ESTALE);
	tree_free(tree);
	new_tree();
	file.ino = VOL_ROOT;
	assert_int_equal(tree_take_over(tree, &handles), -EISDIR);
	tree_free(tree);
	new_tree(); /* a writer without its record, and the other way round */
	assert_int_equal(vol_lookup(vol, VOL_ROOT, "README", &(struct vol_attr){0}), 0);
	file = (struct tree_handle){
		.number = 4, .ino = ino_of(VOL_ROOT, "README"), .mode = O_WRONLY, .writer = true};
	assert_int_equal(tree_take_over(tree, &handles), -EBADMSG);
	tree_free(tree);
	new_tree();
	handles = (struct tree_handles){.writing = &writing, .n_writing = 1};
	assert_int_equal(tree_take_over(tree, &handles), -EBADMSG);
	tree_free(tree);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_come_back),
		cmocka_unit_test(cut_or_changed),
		cmocka_unit_test(limits),
		cmocka_unit_test(numbers),
		T(files_go_on),
		T(nobody_comes),
		T(what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
