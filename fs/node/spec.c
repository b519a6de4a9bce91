/*
 * spec.json and ctl of jobs and endpoints. A spec is refused at the write that completes a wrong one; a
 * refused write leaves the file as it was. A text that is cut short passes until the last close, since more
 * writes may follow.
 */
#include "fs/node/node.h"

#include "engine/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool of_job(const struct node *node)
{
	return node->kind == NODE_JOB_SPEC || node->kind == NODE_JOB_CTL;
}

/* The text beside a refused spec or word; NULL removes it. */
static void node_error(const struct node *node, const struct err *err)
{
	char path[PATH_MAX];

	if (!node->tree->glue || !*node->dir->thing)
		return;
	snprintf(path, sizeof(path), "%s/%s/error", of_job(node) ? "jobs" : "infer", node->dir->thing);
	glue_publish_error(node->tree->glue, path, err);
}

int spec_check(const struct node *node, const char *text, size_t len, bool final)
{
	struct err err = ERR_INIT;
	int r;

	if (!len) /* `>` and editors empty it first */
		return 0;
	r = sched_check_spec(of_job(node) ? SPEC_JOB : SPEC_INFER, text, len, &err);
	if (r == -EAGAIN) {
		if (!final)
			return 0;
		r = -EINVAL;
		if (!err.code)
			err_set(&err, ERR_JSON_SYNTAX, "it ends before it is complete");
	}
	if (r < 0)
		node_error(node, &err);
	return r;
}

void spec_complete(const struct node *node)
{
	struct sched *sched = node_sched(node);
	size_t len = 0;
	void *text;
	int r;

	if (!sched)
		return;
	r = vol_content(node->tree->vol, node->ino, NODE_TEXT_MAX, &text, &len);
	if (r < 0) {
		log_warn("spec of %s: %s", node->dir->thing, strerror(-r));
		return;
	}
	/* Cut short: `error` says so since the flush. */
	if (len && sched_check_spec(of_job(node) ? SPEC_JOB : SPEC_INFER, text, len, NULL) == 0) {
		node_error(node, NULL);
		if (of_job(node))
			sched_post_job_spec(sched, node->dir->thing, text, len);
		else
			sched_post_endpoint_spec(sched, node->dir->thing, text, len);
	}
	free(text);
}

int spec_came(const struct node *node, enum node_event event, bool open_for_writing)
{
	if (event == NODE_MOVED && !open_for_writing)
		spec_complete(node);
	return 0;
}

int ctl_check(const struct node *node, const char *text, size_t len, bool final)
{
	struct err err = ERR_INIT;
	int r;

	(void) final;
	if (!len)
		return 0;
	r = sched_check_ctl(of_job(node) ? CTL_JOB : CTL_INFER, text, len, &err);
	if (r < 0)
		node_error(node, &err);
	return r;
}

int ctl_wrote(const struct node *node, const char *text, size_t len)
{
	struct sched *sched = node_sched(node);
	char word[64];

	len = strcspn(text, "\n") < len ? strcspn(text, "\n") : len;
	if (!sched || !len || len >= sizeof(word))
		return 0;
	memcpy(word, text, len);
	word[len] = '\0';
	if (of_job(node))
		sched_post_job_ctl(sched, node->dir->thing, word);
	else
		sched_post_endpoint_ctl(sched, node->dir->thing, word);
	return 0;
}
