/*
 * Private to sched: what runs mini-batches. "Workers" to users: one or several executors side by side, each with a pipeline and with
 * times of its own. What waits is in one queue (dispatch.c), and whoever has room takes from it: a device that is faster than it was
 * thought, or whose neighbour died, has nothing to steal from anybody.
 */
#ifndef SCHED_DEVICE_H
#define SCHED_DEVICE_H

#include "sched/executor.h"
#include "sched/profile.h"

#include <stdbool.h>
#include <stdint.h>

struct endpoint;
struct minibatch;
struct sched;

#define MAX_DEVICES 32
#define PIPELINE    2 /* executor.h: one runs, one waits so that the device never idles */

struct device {
	struct sched *s;
	int number;          /* from 0; users count from 1 */
	struct executor *ex; /* from the first endpoint that starts */
	struct minibatch *out[PIPELINE];
	int n_out;
	int64_t last_done;
	int core;   /* batch_done's of its last answer */
	bool dying; /* a mini-batch was answered with -EIO, and `died` or another answer did not come yet */
	/* Of the last pictures that were made: an endpoint's number, -1: none were. The worker keeps what it needs for one sub-model. */
	int64_t pictured;
	int pictured_submodel;
};

/* What an endpoint is on one of them. */
struct served {
	bool ready; /* it has it loaded, and did not die since; dispatch_set_ready */
	struct profile profile;
	/* What the executor calls the endpoint's sub-models: what is worth having is measured on each device. -1: this one has it not. */
	int number[MAX_SUBMODELS];
	uint64_t minibatches, instances; /* computed */
	int64_t compute_ns;
};

int devices_new(struct sched *s, int n); /* s->device, (s->n_devices) */
int devices_start(struct sched *s);      /* their executors, where there are none yet */
void devices_stop(struct sched *s);      /* frees the executors */
void devices_free(struct sched *s);      /* after dispatch_release */

/* --- of an endpoint, over the devices that have it loaded --- */

/* Moves when one of their profiles does, and when there is one more or less. */
uint64_t served_generation(const struct endpoint *ep);
/* What a mini-batch takes, as one of many that all of them run side by side, where it takes of(ep, on) on each: of one device that. */
int64_t served_together(const struct endpoint *ep,
			int64_t (*of)(const struct endpoint *ep, const struct served *on));
double served_careful(const struct endpoint *ep);   /* the largest profile_careful */
double served_deviation(const struct endpoint *ep); /* the largest profile_deviation */

/* --- a device's own time --- */

/* When it is free for another mini-batch, as far as is known. */
int64_t device_free_at(const struct device *device);
/* The same to others than itself: who takes longer than it should is expected to take as much longer again. */
int64_t device_reckoned_at(const struct device *device);
/* The mean of device_free_at over all of them. */
int64_t devices_free_at(const struct sched *s);
/* The loop's thread keeps off the cores of those that have more to do; after each answer. */
void devices_apart(struct sched *s);
/* What is handed over to any of them, i from 0; NULL: no more. */
struct minibatch *devices_out(const struct sched *s, int i);

#endif
