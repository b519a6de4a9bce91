/* The tree's `metrics`, by a strict reading of Prometheus' text format, and the same figures in stats.json. */
#include "tests/support/serving.h"

#include "engine/base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SERIES 1024

struct series {
	char name[512]; /* with its labels, as it stands there */
	double value;
};

struct metrics {
	struct series series[MAX_SERIES];
	int n;
};

static bool is_of(char c, const char *more)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c && strchr(more, c));
}

/* From `text` to behind the name. */
static const char *skip_name(const char *text, const char *more)
{
	assert_true(is_of(*text, more));
	for (text++; is_of(*text, more) || (*text >= '0' && *text <= '9'); text++)
		;
	return text;
}

/* From behind "{" to behind "}". */
static const char *skip_labels(const char *p)
{
	for (;;) {
		p = skip_name(p, "");
		assert_memory_equal(p, "=\"", 2);
		for (p += 2; *p != '"'; p += utf8_length(p)) {
			assert_true(*p && *p != '\n' && utf8_length(p));
			if (*p == '\\')
				assert_true(*++p == '\\' || *p == '"' || *p == 'n');
		}
		if (*++p != ',')
			break;
		p++;
	}
	assert_int_equal(*p, '}');
	return p + 1;
}

/* Whether the sample is of the family: a histogram's have suffixes. */
static bool belongs(const char *sample, size_t len, const char *family, const char *type)
{
	static const char *const suffixes[] = {"_bucket", "_sum", "_count"};

	if (strcmp(type, "histogram") != 0)
		return strlen(family) == len && memcmp(sample, family, len) == 0;
	for (size_t i = 0; i < 3; i++)
		if (len == strlen(family) + strlen(suffixes[i]) &&
		    memcmp(sample, family, strlen(family)) == 0 &&
		    memcmp(sample + strlen(family), suffixes[i], strlen(suffixes[i])) == 0)
			return true;
	return false;
}

static double value_of(const struct metrics *m, const char *name)
{
	for (int i = 0; i < m->n; i++)
		if (strcmp(m->series[i].name, name) == 0)
			return m->series[i].value;
	return NAN;
}

/* Buckets: ascending, each at least the one before, the last +Inf and as many as _count says. */
static void check_histograms(const struct metrics *m)
{
	int n = 0;

	for (int i = 0; i < m->n; i++) {
		const char *name = m->series[i].name, *bucket = strstr(name, "_bucket{"), *le;
		double bound = -1, last = 0;
		char other[600];

		if (!bucket)
			continue;
		n++;
		for (;; i++) {
			double next;

			assert_true(strncmp(m->series[i].name, name, (size_t)(bucket - name) + 8) == 0);
			le = strstr(m->series[i].name, ",le=\"");
			assert_non_null(le);
			next = strtod(le + 5, NULL);
			assert_true(next > bound && m->series[i].value >= last);
			bound = next;
			last = m->series[i].value;
			if (isinf(next))
				break;
		}
		le = strstr(name, ",le=\"");
		snprintf(other, sizeof(other), "%.*s_count%.*s}", (int)(bucket - name), name,
			 (int)(le - bucket - 7), bucket + 7);
		assert_true(value_of(m, other) == last);
		snprintf(other, sizeof(other), "%.*s_sum%.*s}", (int)(bucket - name), name,
			 (int)(le - bucket - 7), bucket + 7);
		assert_true(value_of(m, other) >= 0);
	}
	assert_int_equal(n % 3, 0);
	assert_true(n > 0);
}

/* Each family has HELP and TYPE, once, and then all of its samples; no sample is there twice. */
static void parse(struct metrics *m, const char *text)
{
	char family[128] = "", type[16] = "", seen[64][128];
	int n_seen = 0;

	*m = (struct metrics){0};
	assert_non_null(text);
	while (*text) {
		const char *p = text, *end = strchr(text, '\n');
		struct series *s = &m->series[m->n];

		assert_non_null(end);
		if (*text == '#') {
			char again[128];

			assert_int_equal(sscanf(text, "# HELP %127s %15s", family, type), 2);
			assert_int_equal(sscanf(end + 1, "# TYPE %127s %15s", again, type), 2);
			assert_string_equal(again, family);
			assert_true(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0 ||
				    strcmp(type, "histogram") == 0);
			p = strstr(family, "_total");
			assert_int_equal(p && !p[6], strcmp(type, "counter") == 0);
			for (int i = 0; i < n_seen; i++)
				assert_string_not_equal(seen[i], family);
			strcpy(seen[n_seen++], family);
			assert_true(n_seen < 64);
			text = strchr(end + 1, '\n') + 1;
			continue;
		}
		p = skip_name(p, ":");
		assert_true(belongs(text, (size_t)(p - text), family, type));
		if (*p == '{')
			p = skip_labels(p + 1);
		snprintf(s->name, sizeof(s->name), "%.*s", (int)(p - text), text);
		assert_true(isnan(value_of(m, s->name)));
		assert_int_equal(*p, ' ');
		s->value = strtod(p + 1, (char **)&p);
		assert_true(p == end && isfinite(s->value));
		m->n++;
		assert_true(m->n < MAX_SERIES);
		text = end + 1;
	}
	check_histograms(m);
}

static void assert_value(const struct metrics *m, const char *name, double value)
{
	double is = value_of(m, name);

	if (!(fabs(is - value) <= 1e-9))
		fail_msg("%s is %.10g, not %.10g", name, is, value);
}

/* In 110 ms five mini-batches of the fast slice: 20 of 40. Then one of the wide slice, 100 ms, and one that is ten times as slow. */
static void serve(void)
{
	char path[32];

	for (int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "over/%d", i);
		world_put(&w, path, "1");
	}
	world_deadline(&w, "over", "110ms");
	world_run(&w, 3000);
	world_put(&w, "free/0", "1");
	world_run(&w, 3000);
	executor_null_set_factor(w.s->device[0].ex, 10);
	world_put(&w, "slow/0", "1");
	world_put(&w, "slow/1", "bad");
	world_deadline(&w, "slow", "150ms");
	world_run(&w, 3000);
}

static void test_figures(void **state)
{
	struct metrics m;

	(void)state;
	world_run(&w, 1000);
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}", 0);
	serve();
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_answers_total{endpoint=\"app\",status=\"ok\"}", 21);
	assert_value(&m, "inferfs_answers_total{endpoint=\"app\",status=\"late\"}", 1);
	assert_value(&m, "inferfs_answers_total{endpoint=\"app\",status=\"dropped\"}", 20);
	assert_value(&m, "inferfs_answers_total{endpoint=\"app\",status=\"failed\"}", 1);
	assert_value(&m, "inferfs_misses_total{endpoint=\"app\"}", 21);
	assert_value(&m, "inferfs_queue_length{endpoint=\"app\"}", 0);
	assert_value(&m, "inferfs_tasks_total{endpoint=\"app\"}", 3);
	/* 4 after 20 ms, 4 after 40 … 100, and one more after 100, of which a bucket is at most; one after 1 s. */
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"0.01\"}", 0);
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"0.025\"}", 4);
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"0.05\"}", 8);
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"0.1\"}", 21);
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"0.5\"}", 21);
	assert_value(&m, "inferfs_latency_seconds_bucket{endpoint=\"app\",le=\"1\"}", 22);
	assert_value(&m, "inferfs_latency_seconds_sum{endpoint=\"app\"}", 4 * 0.3 + 0.1 + 1);
	assert_value(&m, "inferfs_minibatch_compute_seconds_bucket{endpoint=\"app\",le=\"0.025\"}", 5);
	assert_value(&m, "inferfs_minibatch_compute_seconds_count{endpoint=\"app\"}", 7);
	assert_value(&m, "inferfs_minibatch_compute_seconds_sum{endpoint=\"app\"}", 1.2);
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"0.25\",precision=\"f32\"}", 5);
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}", 2);
	assert_value(&m,
		     "inferfs_minibatch_instances_total{endpoint=\"app\",slice=\"0.25\",precision=\"f32\"}",
		     20);
	assert_value(&m, "inferfs_minibatch_instances_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}",
		     3);
	assert_value(&m, "inferfs_compute_seconds_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}",
		     1.1);
	assert_value(&m, "inferfs_worker_deaths_total{endpoint=\"app\"}", 0);
	/* 20 answers of mini-batches of 4 were in time; the last one wasn't, by when the mean size was 3.7575. */
	assert_value(&m, "inferfs_reserve_deviations{endpoint=\"app\"}",
		     4 - 20 * 0.25 / 4 * 0.0005 + 0.25 / 3.7575 * 0.9995);
	/* 20 of 40 were promised and kept. Of two the one that could be read was not. */
	assert_value(&m, "inferfs_unpromised_share{endpoint=\"app\"}", 0.1 * (0.5 - 0.0005));
	assert_value(&m, "inferfs_time_deviation{endpoint=\"app\"}", 0);
	/* Planning takes no time on this clock. */
	assert_true(value_of(&m, "inferfs_plan_seconds_bucket{endpoint=\"app\",le=\"1e-06\"}") >= 7);

	assert_true(world_stat(&w, "misses") == 21);
	assert_true(world_stat(&w, "queued") == 0);
	assert_true(world_stat(&w, "time_deviation") == 0);
	assert_true(fabs(world_stat(&w, "reserve_deviations") - 4.0659) < 1e-9);
	assert_true(fabs(world_stat(&w, "unpromised") - 0.05) < 1e-9);
	assert_non_null(strstr(fake_content(&w.host, "infer/app/stats.json"), "\"compute_ms\":\t{\n"));
	assert_non_null(
		strstr(fake_content(&w.host, "infer/app/stats.json"),
		       "\"slice\":\t0.25,\n\t\t\t\"precision\":\t\"f32\",\n\t\t\t\"minibatches\":\t5,\n"
		       "\t\t\t\"instances\":\t20,\n\t\t\t\"share\":\t0.8696\n"));
	executor_null_set_factor(w.s->device[0].ex, 100); /* 10 s: beyond the last bucket */
	world_put(&w, "slower.png", "1");
	world_run(&w, 15000);
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_minibatch_compute_seconds_bucket{endpoint=\"app\",le=\"5\"}", 7);
	assert_value(&m, "inferfs_minibatch_compute_seconds_bucket{endpoint=\"app\",le=\"+Inf\"}", 8);
}

/* A worker's death is counted; what it did not finish is no mini-batch. */
static void test_deaths(void **state)
{
	struct metrics m;

	(void)state;
	world_put(&w, "b/0", "1");
	world_deadline(&w, "b", "5s");
	world_run(&w, 30);
	executor_null_kill(w.s->device[0].ex);
	world_run(&w, 3000);
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_worker_deaths_total{endpoint=\"app\"}", 1);
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}", 1);
	assert_value(&m, "inferfs_minibatch_compute_seconds_count{endpoint=\"app\"}", 1);
}

/* Counters never fall, and what another model ran before stays beside the new one's. */
static void test_reload(void **state)
{
	static const char other[] =
		"{\"classes\":10,\"submodels\":[{\"slice\":0.5,\"accuracy\":0.9,\"ms\":10},"
		"{\"slice\":1,\"accuracy\":0.95,\"ms\":20}]}";
	struct metrics m;

	(void)state;
	world_put(&w, "a.png", "1");
	world_run(&w, 3000);
	fake_put(&w.host, "models/m/1/model.json", other);
	sched_post_endpoint_ctl(w.s, "app", "reload");
	world_run(&w, 1000);
	world_put(&w, "b.png", "1");
	world_run(&w, 3000);
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"0.25\",precision=\"f32\"}", 0);
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"0.5\",precision=\"f32\"}", 0);
	assert_value(&m, "inferfs_minibatches_total{endpoint=\"app\",slice=\"1\",precision=\"f32\"}", 2);
}

/* Names are bytes. */
static void test_names(void **state)
{
	static const char spec[] = "{\"model\":\"m\"}";
	struct metrics m;

	(void)state;
	sched_post_endpoint_spec(w.s, "a\"b\\c\nd\xff", spec, strlen(spec));
	sched_post_job_spec(w.s, "j\"\xfe", "{}", 2);
	world_run(&w, 3000);
	parse(&m, fake_content(&w.host, "metrics"));
	assert_value(&m, "inferfs_endpoint_running{endpoint=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"}", 1);
	assert_value(&m, "inferfs_endpoint_running{endpoint=\"app\"}", 1);
	assert_value(&m, "inferfs_job_percent{job=\"j\\\"\xef\xbf\xbd\"}", 0);
}

static void test_histogram(void **state)
{
	static struct histogram h;

	(void)state;
	assert_int_equal(histogram_bound(0), 1000);
	assert_int_equal(histogram_bound(10), 2500000);
	assert_int_equal(histogram_bound(HISTOGRAM_BOUNDS - 1), INT64_C(50000000000));
	assert_true(histogram_quantile(&h, 0.5) == 0);
	for (int i = 1; i <= 1000; i++)
		histogram_add(&h, i * INT64_C(1000000));
	histogram_add(&h, 0);
	histogram_add(&h, INT64_MAX / 2); /* beyond all bounds */
	assert_int_equal(h.n, 1002);
	assert_int_equal(h.coarse[0], 1);
	assert_int_equal(h.coarse[9], 1);    /* 1 ms */
	assert_int_equal(h.coarse[18], 500); /* to 1 s */
	for (int q = 1; q < 10; q++)
		assert_true(fabs(histogram_quantile(&h, q / 10.0) / (q * 1e8) - 1) < 0.06);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_figures),
		T(test_deaths),
		T(test_reload),
		T(test_names),
		cmocka_unit_test(test_histogram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
