/* Private to sched: the tree's `metrics`. */
#ifndef SCHED_METRICS_H
#define SCHED_METRICS_H

#include "engine/base/buf.h"

struct sched;

/* A label's value as the text format wants it. */
void metrics_label(struct buf *ret, const char *value);
/* What is told of endpoints; of jobs: jobs_metrics. */
void metrics_print(struct sched *s, struct buf *ret);

#endif
