/*
 * The two tables of the tree: which kind a new name is, and what each kind does.
 */
#include "fs/node/node.h"

#include <string.h>

/* The first row that fits decides. type: a file type of S_IFMT, 0 for any; name NULL: any. */
static const struct rule {
	uint8_t parent;
	mode_t type;
	const char *name;
	uint8_t kind;
} rules[] = {
	{NODE_ROOT, S_IFDIR, "datasets", NODE_DATASETS},
	{NODE_ROOT, S_IFDIR, "models", NODE_MODELS},
	{NODE_ROOT, S_IFDIR, "jobs", NODE_JOBS},
	{NODE_ROOT, S_IFDIR, "infer", NODE_INFERS},

	{NODE_DATASETS, S_IFDIR, NULL, NODE_DATASET},
	{NODE_DATASET, S_IFDIR, NULL, NODE_DATASET_DIR},
	{NODE_DATASET, 0, NULL, NODE_DATASET_FILE},
	{NODE_DATASET_DIR, S_IFDIR, NULL, NODE_DATASET_DIR},
	{NODE_DATASET_DIR, 0, NULL, NODE_DATASET_FILE},

	{NODE_MODELS, S_IFDIR, NULL, NODE_MODEL},
	{NODE_MODEL, S_IFDIR, NULL, NODE_MODEL_DIR},
	{NODE_MODEL, S_IFREG, NULL, NODE_MODEL_FILE},
	{NODE_MODEL_DIR, S_IFDIR, "export", NODE_EXPORT},
	{NODE_MODEL_DIR, S_IFDIR, NULL, NODE_MODEL_DIR},

	{NODE_JOBS, S_IFDIR, NULL, NODE_JOB},
	{NODE_JOB, S_IFREG, "spec.json", NODE_JOB_SPEC},
	{NODE_JOB, S_IFREG, "ctl", NODE_JOB_CTL},
	{NODE_JOB, S_IFDIR, "trials", NODE_JOB_DIR},
	{NODE_JOB_DIR, S_IFDIR, NULL, NODE_JOB_DIR},

	{NODE_INFERS, S_IFDIR, NULL, NODE_APP},
	{NODE_APP, S_IFREG, "spec.json", NODE_APP_SPEC},
	{NODE_APP, S_IFREG, "ctl", NODE_APP_CTL},
	{NODE_APP, S_IFDIR, "in", NODE_IN},
	{NODE_APP, S_IFDIR, "out", NODE_OUT},
	{NODE_IN, S_IFDIR, NULL, NODE_BATCH},
	{NODE_IN, S_IFREG, ".deadline", NODE_DEADLINE},
	{NODE_IN, 0, NULL, NODE_INSTANCE},
	{NODE_BATCH, S_IFDIR, NULL, NODE_BATCH_DIR},
	{NODE_BATCH, S_IFREG, ".deadline", NODE_DEADLINE},
	{NODE_BATCH, 0, NULL, NODE_INSTANCE},
	{NODE_BATCH_DIR, S_IFDIR, NULL, NODE_BATCH_DIR},
	{NODE_BATCH_DIR, 0, NULL, NODE_INSTANCE},
	{NODE_OUT, S_IFDIR, NULL, NODE_OUT_DIR},
	{NODE_OUT_DIR, S_IFDIR, NULL, NODE_OUT_DIR},
};

static const struct node_type types[NODE_KINDS] = {
	[NODE_MADE] = {.name = "made"},
	[NODE_ROOT] = {.name = "root", .flags = NODE_FIXED | NODE_CLOSED},
	[NODE_PLAIN] = {.name = "plain"},
	[NODE_DATASETS] = {.name = "datasets", .flags = NODE_FIXED},
	[NODE_DATASET] = {.name = "dataset",
			  .flags = NODE_OWNS_MADE,
			  .came = dataset_came,
			  .went = dataset_went},
	[NODE_DATASET_DIR] = {.name = "dataset directory",
			      .came = dataset_file_came,
			      .went = dataset_file_went},
	[NODE_DATASET_FILE] = {.name = "dataset file",
			       .flags = NODE_PLACED,
			       .came = dataset_file_came,
			       .went = dataset_file_went,
			       .complete = dataset_file_complete},
	[NODE_MODELS] = {.name = "models", .flags = NODE_FIXED},
	[NODE_MODEL] = {.name = "model", .flags = NODE_OWNS_MADE, .came = model_came, .went = model_went},
	[NODE_MODEL_DIR] = {.name = "model version", .came = model_dir_came},
	[NODE_JOBS] = {.name = "jobs", .flags = NODE_FIXED | NODE_ONLY_DIRS},
	[NODE_JOB] = {.name = "job",
		      .flags = NODE_PINNED | NODE_OWNS_MADE,
		      .came = job_came,
		      .went = job_went},
	[NODE_JOB_SPEC] = {.name = "job spec",
			   .flags = NODE_PLACED | NODE_TEXT,
			   .came = spec_came,
			   .check = spec_check,
			   .complete = spec_complete},
	[NODE_JOB_CTL] = {.name = "job ctl",
			  .flags = NODE_PLACED | NODE_TEXT | NODE_WORD,
			  .check = ctl_check,
			  .wrote = ctl_wrote},
	[NODE_JOB_DIR] = {.name = "job directory", .flags = NODE_OWNS_MADE},
	[NODE_INFERS] = {.name = "infer", .flags = NODE_FIXED | NODE_ONLY_DIRS},
	[NODE_APP] = {.name = "endpoint",
		      .flags = NODE_PINNED | NODE_OWNS_MADE,
		      .came = app_came,
		      .went = app_went},
	[NODE_APP_SPEC] = {.name = "endpoint spec",
			   .flags = NODE_PLACED | NODE_TEXT,
			   .came = spec_came,
			   .check = spec_check,
			   .complete = spec_complete},
	[NODE_APP_CTL] = {.name = "endpoint ctl",
			  .flags = NODE_PLACED | NODE_TEXT | NODE_WORD,
			  .check = ctl_check,
			  .wrote = ctl_wrote},
	[NODE_IN] = {.name = "in",
		     .flags = NODE_PINNED,
		     .check_xattr = deadline_check_xattr,
		     .xattr = deadline_xattr},
	[NODE_BATCH] = {.name = "batch",
			.came = batch_came,
			.went = batch_went,
			.check_xattr = deadline_check_xattr,
			.xattr = deadline_xattr},
	[NODE_BATCH_DIR] = {.name = "batch directory", .came = batch_came, .went = batch_went},
	[NODE_INSTANCE] = {.name = "instance",
			   .flags = NODE_PLACED,
			   .came = instance_came,
			   .went = instance_went,
			   .writing = instance_writing,
			   .complete = instance_complete,
			   .synced = instance_synced,
			   .check_xattr = instance_check_xattr,
			   .xattr = deadline_xattr},
	[NODE_DEADLINE] = {.name = "deadline",
			   .flags = NODE_PLACED | NODE_TEXT,
			   .went = deadline_went,
			   .check = deadline_check,
			   .wrote = deadline_wrote},
	[NODE_OUT] = {.name = "out", .flags = NODE_PINNED | NODE_OWNS_MADE},
	[NODE_OUT_DIR] = {.name = "out directory", .flags = NODE_OWNS_MADE},
	[NODE_MODEL_FILE] = {.name = "model file",
			     .flags = NODE_PLACED,
			     .came = model_file_came,
			     .went = model_file_went,
			     .writing = model_file_writing,
			     .complete = model_file_complete,
			     .synced = model_file_synced,
			     .check_xattr = model_file_check_xattr},
	[NODE_EXPORT] = {.name = "export"},
};

const struct node_type *node_type(uint8_t kind)
{
	return &types[kind < NODE_KINDS ? kind : NODE_PLAIN];
}

uint8_t node_child_kind(uint8_t parent_kind, const char *name, mode_t mode)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *r = &rules[i];

		if (r->parent == parent_kind && (!r->type || r->type == (mode & S_IFMT)) &&
		    (!r->name || strcmp(r->name, name) == 0))
			return r->kind;
	}
	return NODE_PLAIN;
}

bool node_name_waits(const char *name)
{
	static const char *const ends[] = {"~", ".tmp", ".part"};
	size_t len = strlen(name);

	if (name[0] == '.')
		return true;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		size_t n = strlen(ends[i]);

		if (len >= n && strcmp(name + len - n, ends[i]) == 0)
			return true;
	}
	return false;
}
