/*
 * ONNX's own operator and model cases (Debian's libonnx-testdata) through the importer and the interpreter: each
 * model on its inputs gives its outputs, within the tolerances of ONNX's own runner. What the importer refuses as
 * unsupported is counted by op; anything else is a failure. CASE=name runs that one alone, and says more.
 *
 *	conform-onnx [DIRECTORY]	the cases in it instead, of later operator sets: pip's onnx (up to 1.18) has them
 *				in onnx/backend/test/data/node
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/onnx/tensor.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA      "/usr/share/libonnx-testdata/data/"
#define MOST      64 /* inputs or outputs of a case */
#define TOLERANCE 1e-3
#define ABSOLUTE  1e-7

enum { FLOOR = 995 }; /* cases passed; raise it with each family of ops, never lower it */

static const char *const suites[] = {DATA "node", DATA "pytorch-converted", DATA "pytorch-operator",
				     DATA "simple"};
static const char *given; /* a directory in place of them */

/* In a given directory: cases whose outputs aren't what the documentation says. Those of QLinearMatMul don't saturate but wrap around
 * (-236 became 20), where ONNX Runtime, too, gives -128. */
static const char *const wrong[] = {
	"test_qlinearmatmul_2D_int8_float16", "test_qlinearmatmul_2D_int8_float32",
	"test_qlinearmatmul_3D_int8_float16", "test_qlinearmatmul_3D_int8_float32"};

static struct {
	int passed, failed, unsupported, wrong;
	struct {
		char op[64];
		int cases;
	} by_op[256];
	int n_ops;
} count;

/* The whole file; NULL when it isn't there. */
static void *slurp(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	char *data = NULL;

	*size = 0;
	if (!f)
		return NULL;
	for (size_t room = 1 << 16;; room *= 2) {
		data = realloc(data, room);
		assert_non_null(data);
		*size += fread(data + *size, 1, room - *size, f);
		if (*size < room)
			break;
	}
	fclose(f);
	return data;
}

/* input_0.pb, input_1.pb …; the number of them, or the loader's error. */
static int load_all(const char *dir, int set, const char *what, struct onnx_tensor **t, int *n,
		    struct err *err)
{
	for (*n = 0; *n < MOST; ++*n) {
		char path[1024];
		size_t size;
		void *data;
		int r;

		snprintf(path, sizeof(path), "%s/test_data_set_%d/%s_%d.pb", dir, set, what, *n);
		data = slurp(path, &size);
		if (!data)
			return 0;
		r = onnx_tensor_load(&t[*n], data, size, err);
		free(data);
		if (r < 0)
			return r;
	}
	return -E2BIG;
}

/*
 * numpy has no bfloat16: the data holds its bits as uint16 where the model says bfloat16. And one number where the
 * model says 3×4 in what CastLike only takes the type of.
 */
static void mend_bfloat16(struct onnx_tensor **t, const struct onnx_value *v)
{
	if (v->type == ONNX_BFLOAT16 && (*t)->type == ONNX_UINT16)
		(*t)->type = ONNX_BFLOAT16;
	if (strcmp(v->name, "like") == 0 && (*t)->count == 1 && v->rank == 2) {
		onnx_tensor_free(*t);
		assert_int_equal(onnx_tensor_new(t, v->type, v->rank, v->dims, NULL), 0);
	}
}

static bool close_to(const struct onnx_tensor *have, const struct onnx_tensor *want, char *why, size_t size)
{
	char a[128], b[128];

	if (have->type != want->type || !dims_equal(have->rank, have->dims, want->rank, want->dims)) {
		snprintf(why, size, "%s %s instead of %s %s", onnx_type_name(have->type),
			 dims_text(a, sizeof(a), have->rank, have->dims), onnx_type_name(want->type),
			 dims_text(b, sizeof(b), want->rank, want->dims));
		return false;
	}
	/* of bfloat16 the last bit may differ: this version's data was cut off, later ones are rounded */
	double relative = want->type == ONNX_BFLOAT16 ? 0x1p-7 : TOLERANCE;

	for (size_t i = 0; i < want->count; i++) {
		double x = tensor_real(have, i), y = tensor_real(want, i);
		bool same = isnan(y)   ? isnan(x)
			    : isinf(y) ? x == y
				       : fabs(x - y) <= ABSOLUTE + relative * fabs(y);

		if (!same) {
			snprintf(why, size, "element %zu of %zu is %.9g instead of %.9g", i, want->count, x,
				 y);
			return false;
		}
	}
	return true;
}

static void note_unsupported(const char *name, const struct err *err)
{
	size_t len = strcspn(err->detail, " ");
	int i;

	if (strncmp(err->detail, "tensors of type ", 16) == 0 || strncmp(err->detail, "sequences", 9) == 0)
		len = strcspn(err->detail, "('");
	count.unsupported++;
	for (i = 0; i < count.n_ops; i++)
		if (strlen(count.by_op[i].op) == len && strncmp(count.by_op[i].op, err->detail, len) == 0)
			break;
	if (i == count.n_ops) {
		assert_true(i < 256 && len < sizeof(count.by_op[0].op));
		snprintf(count.by_op[i].op, sizeof(count.by_op[i].op), "%.*s", (int)len, err->detail);
		count.n_ops++;
	}
	count.by_op[i].cases++;
	if (getenv("CASE") || getenv("VERBOSE"))
		print_message("%s: %s\n", name, err->detail);
}

/* 0: passed; ERR_ONNX_UNSUPPORTED in err; else failed, and why says how. */
static int run_set(const struct onnx_model *model, const char *dir, int set, char *why, size_t size,
		   struct err *err)
{
	struct onnx_tensor *in[MOST] = {NULL}, *want[MOST] = {NULL}, *out[MOST] = {NULL};
	int n_in, n_want = 0, r;

	r = load_all(dir, set, "input", in, &n_in, err);
	if (r == 0)
		r = load_all(dir, set, "output", want, &n_want, err);
	if (r == 0 && (size_t)n_want != onnx_outputs(model))
		r = err_set(err, ERR_ONNX_INPUT, "%d outputs are there", n_want);
	for (size_t i = 0; r == 0 && i < (size_t)n_in && i < onnx_inputs(model); i++)
		mend_bfloat16(&in[i], onnx_input(model, i));
	for (size_t i = 0; r == 0 && i < (size_t)n_want; i++)
		mend_bfloat16(&want[i], onnx_output(model, i));
	if (r == 0)
		r = onnx_run(model, in, (size_t)n_in, out, (size_t)n_want, err);
	if (r < 0)
		snprintf(why, size, "%.400s", err->detail);
	for (int i = 0; r == 0 && i < n_want; i++)
		if (!close_to(out[i], want[i], why, size))
			r = -EDOM;
	for (int i = 0; i < MOST; i++) {
		onnx_tensor_free(in[i]);
		onnx_tensor_free(want[i]);
		onnx_tensor_free(out[i]);
	}
	return r;
}

/* suite: a directory */
static void run_case(const char *suite, const char *name)
{
	struct onnx_model *model = NULL;
	struct err err = ERR_INIT;
	char dir[512], path[600], why[512] = "";
	size_t size;
	void *data;
	int r;

	for (size_t i = 0; given && i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (strcmp(name, wrong[i]) == 0) {
			count.wrong++;
			return;
		}
	snprintf(dir, sizeof(dir), "%s/%s", suite, name);
	snprintf(path, sizeof(path), "%s/model.onnx", dir);
	data = slurp(path, &size);
	if (!data)
		return;
	r = onnx_load(&model, data, size, NULL, &err);
	free(data);
	if (r < 0)
		snprintf(why, sizeof(why), "%s", err.detail);
	for (int set = 0; r == 0; set++) {
		snprintf(path, sizeof(path), "%s/test_data_set_%d/output_0.pb", dir, set);
		data = slurp(path, &size);
		free(data);
		if (!data)
			break;
		r = run_set(model, dir, set, why, sizeof(why), &err);
	}
	onnx_free(model);
	if (r == 0) {
		count.passed++;
	} else if (err.code == ERR_ONNX_UNSUPPORTED) {
		note_unsupported(name, &err);
	} else {
		print_error("%s/%s: %s\n", suite, name, why);
		count.failed++;
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void run_suite(const char *suite)
{
	char *names[2048];
	struct dirent *de;
	size_t n = 0;
	DIR *dir;

	dir = opendir(suite);
	assert_non_null(dir);
	while ((de = readdir(dir)))
		if (de->d_name[0] != '.' && (!getenv("CASE") || strcmp(getenv("CASE"), de->d_name) == 0)) {
			assert_true(n < 2048);
			names[n++] = strdup(de->d_name);
		}
	closedir(dir);
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++) {
		run_case(suite, names[i]);
		free(names[i]);
	}
}

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; !given && i < sizeof(suites) / sizeof(suites[0]); i++)
		run_suite(suites[i]);
	if (given)
		run_suite(given);
	if (count.wrong)
		print_message("%d with wrong outputs left out\n", count.wrong);
	print_message("%d passed, %d failed, %d unsupported:", count.passed, count.failed, count.unsupported);
	for (int i = 0; i < count.n_ops; i++)
		print_message(" %s %d%s", count.by_op[i].op, count.by_op[i].cases,
			      i + 1 < count.n_ops ? "," : "");
	print_message("\n");
	assert_int_equal(count.failed, 0);
	if (!getenv("CASE") && !given)
		assert_true(count.passed >= FLOOR);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};

	given = argc > 1 ? argv[1] : NULL;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
