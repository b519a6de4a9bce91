#include "fs/options.h"

#include "sched/device.h"
#include "sched/sched.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS INT64_C(1000000)

enum option_type {
	OPTION_FLAG,     /* bool; NAME sets it */
	OPTION_DURATION, /* int64_t ns: "50ms", "1s"; also 0 */
	OPTION_NUMBER,   /* int64_t */
	OPTION_SIZE,     /* int64_t bytes: "500M", "2G", "1T", also plain */
	OPTION_IGNORED,  /* fstab's words that mean nothing to us */
};

static const struct option_row {
	const char *name;
	enum option_type type;
	size_t at; /* in struct mount_options */
	int64_t def, min, max;
	const char *help;
} rows[] = {
#define AT(field) offsetof(struct mount_options, field)
	{"settle", OPTION_DURATION, AT(settle_ns), 50 * MS, 0, 60000 * MS,
	 "loose files that arrive within this time are one task"},
	{"settle_batch", OPTION_DURATION, AT(settle_batch_ns), 1000 * MS, 0, 3600000 * MS,
	 "a batch directory is submitted when quiet for this long"},
	{"queue", OPTION_NUMBER, AT(queue), 65536, 1, INT64_C(1) << 40,
	 "instances that wait in memory, of all endpoints; more of them wait on disk"},
	{"queue_bytes", OPTION_SIZE, AT(queue_bytes), 64 << 20, 1 << 16, INT64_C(1) << 40,
	 "memory that these may take, names included (64M; K, M, G)"},
	{"threads", OPTION_NUMBER, AT(threads), 16, 4, 256, "threads that serve the filesystem"},
	{"workers", OPTION_NUMBER, AT(workers), 1, 1, MAX_DEVICES,
	 "worker processes that run mini-batches, side by side"},
	{"worker_threads", OPTION_NUMBER, AT(worker_threads), 0, 0, 1024,
	 "threads of a worker; 0: all cores, but for inference one less, divided by workers"},
	{"max_bytes", OPTION_SIZE, AT(max_bytes), 0, 16 << 20, INT64_C(1) << 60,
	 "a limit on the state directory's size (K, M, G, T): EDQUOT beyond it"},
	{"allow_other", OPTION_FLAG, AT(allow_other), 0, 0, 1,
	 "other users may use the tree too (always so when root mounts)"},
	{"no_ahead", OPTION_FLAG, AT(no_ahead), 0, 0, 1,
	 "batch directories are computed only when they are submitted (also \"ahead\" in spec.json)"},
	{"null_backend", OPTION_FLAG, AT(null_backend), 0, 0, 1,
	 "endpoints compute nothing and take programmed times (tests)"},
	{"trace", OPTION_FLAG, AT(trace), 0, 0, 1, "log every event (SIGUSR1 switches it too)"},
	{"power_save", OPTION_FLAG, AT(power_save), 0, 0, 1,
	 "let idle cores sleep also while requests come (root's mounts keep them awake: faster)"},
	{"no_passthrough", OPTION_FLAG, AT(no_passthrough), 0, 0, 1,
	 "large files are read through the daemon, not straight from the disk"},
	{"clone_fd", OPTION_FLAG, AT(clone_fd), 0, 0, 1, "a /dev/fuse descriptor for each thread"},
#undef AT
	{.name = "rw", .type = OPTION_IGNORED},
	{.name = "defaults", .type = OPTION_IGNORED},
	{.name = "auto", .type = OPTION_IGNORED},
	{.name = "noauto", .type = OPTION_IGNORED},
	{.name = "user", .type = OPTION_IGNORED},
	{.name = "nofail", .type = OPTION_IGNORED},
	{.name = "_netdev", .type = OPTION_IGNORED},
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void set(struct mount_options *options, const struct option_row *row, int64_t value)
{
	char *at = (char *)options + row->at;

	if (row->type == OPTION_FLAG)
		*(bool *)at = value;
	else if (row->type != OPTION_IGNORED)
		*(int64_t *)at = value;
}

void options_init(struct mount_options *options)
{
	*options = (struct mount_options){0};
	for (size_t i = 0; i < N_ROWS; i++)
		set(options, &rows[i], rows[i].def);
	options->allow_other = geteuid() == 0;
}

static int parse_value(const struct option_row *row, const char *text, int64_t *ret, struct err *err)
{
	struct deadline d;
	char *end;

	if (row->type == OPTION_NUMBER) {
		errno = 0;
		*ret = strtoll(text, &end, 10);
		if (errno || end == text || *end)
			return err_set(err, ERR_SPEC_VALUE, "-o %s=%s: not a number", row->name, text);
	} else if (row->type == OPTION_SIZE) {
		static const char units[] = "KMGT";
		const char *unit;

		errno = 0;
		*ret = strtoll(text, &end, 10);
		unit = *end ? strchr(units, *end) : NULL;
		if (errno || end == text || (*end && (!unit || end[1])))
			return err_set(err, ERR_SPEC_VALUE, "-o %s=%s: not a size like 500M or 2G", row->name,
				       text);
		for (int64_t i = unit ? unit - units : -1; i >= 0 && *ret <= row->max; i--)
			*ret *= 1024;
	} else if (strspn(text, "0") == strlen(text) || strcmp(text, "0s") == 0 ||
		   strcmp(text, "0ms") == 0) { /* no deadline is zero, a pause may be */
		if (!*text)
			return err_set(err, ERR_SPEC_VALUE, "-o %s=: no value", row->name);
		*ret = 0;
	} else if (deadline_parse(&d, text, strlen(text), NULL) == 0 && !d.absolute) {
		*ret = d.ns;
	} else {
		return err_set(err, ERR_SPEC_VALUE, "-o %s=%s: not a duration like 50ms or 1s", row->name,
			       text);
	}
	if (*ret < row->min || *ret > row->max) {
		int64_t unit = row->type == OPTION_DURATION ? MS : 1;

		return err_set(err, ERR_SPEC_VALUE, "-o %s=%s: from %" PRId64 " to %" PRId64 "%s", row->name,
			       text, row->min / unit, row->max / unit, unit == MS ? " ms" : "");
	}
	return 0;
}

static int parse_one(struct mount_options *options, char *word, struct err *err)
{
	char *value = strchr(word, '=');
	int64_t number = 1;
	int r;

	if (value)
		*value++ = '\0';
	if (strncmp(word, "x-", 2) == 0) /* mount(8): for others' eyes */
		return 0;
	for (size_t i = 0; i < N_ROWS; i++) {
		if (strcmp(rows[i].name, word) != 0)
			continue;
		if (!value != (rows[i].type == OPTION_FLAG || rows[i].type == OPTION_IGNORED))
			return err_set(err, ERR_SPEC_VALUE, "-o %s: %s", word,
				       value ? "takes no value" : "needs a value");
		if (value) {
			r = parse_value(&rows[i], value, &number, err);
			if (r < 0)
				return r;
		}
		set(options, &rows[i], number);
		return 0;
	}
	return err_set(err, ERR_SPEC_KEY, "-o %s: see inferfs mount --help", word);
}

int options_parse(struct mount_options *options, const char *text, struct err *err)
{
	struct mount_options parsed = *options;
	char *copy = strdup(text), *save = NULL;
	size_t len = strlen(parsed.given);
	int r = 0;

	if (!copy)
		return err_set(err, ERR_NO_MEMORY, "-o");
	if (len + 1 + strlen(text) + 1 > sizeof(parsed.given))
		r = err_set(err, ERR_SPEC_VALUE, "-o: more than %zu bytes", sizeof(parsed.given));
	else
		sprintf(parsed.given + len, "%s%s", len ? "," : "", text);
	for (char *word = strtok_r(copy, ",", &save); r == 0 && word; word = strtok_r(NULL, ",", &save))
		r = parse_one(&parsed, word, err);
	free(copy);
	if (r == 0)
		*options = parsed;
	return r;
}

void options_help(FILE *to)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		const struct option_row *row = &rows[i];
		char left[64], range[96] = "";

		if (row->type == OPTION_IGNORED)
			continue;
		snprintf(left, sizeof(left), "%s%s", row->name,
			 row->type == OPTION_FLAG     ? ""
			 : row->type == OPTION_NUMBER ? "=N"
			 : row->type == OPTION_SIZE   ? "=SIZE"
						      : "=TIME");
		if (row->type == OPTION_NUMBER)
			snprintf(range, sizeof(range), " (%" PRId64 "; %" PRId64 " to %" PRId64 ")", row->def,
				 row->min, row->max);
		else if (row->type == OPTION_DURATION)
			snprintf(range, sizeof(range), " (%" PRId64 "ms; at most %" PRId64 "s)",
				 row->def / MS, row->max / (1000 * MS));
		fprintf(to, "  %-20s %s%s\n", left, row->help, range);
	}
}
