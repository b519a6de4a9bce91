#include "sched/device.h"

#include "sched/internal.h"
#include "sched/minibatch.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const struct executor_events executor_events = {
	.loaded = endpoint_loaded, .done = dispatch_done, .died = endpoint_died};

int devices_new(struct sched *s, int n)
{
	n = n < 1 ? 1 : n < MAX_DEVICES ? n : MAX_DEVICES;
	s->device = calloc((size_t)n, sizeof(*s->device));
	if (!s->device)
		return -ENOMEM;
	s->n_devices = n;
	for (int i = 0; i < n; i++)
		s->device[i] = (struct device){.s = s, .number = i, .pictured = -1};
	return 0;
}

/*
 * One core is left to the filesystem: it makes the answers visible while the next ones are computed, and a mini-batch
 * that is computed by threads in lockstep waits for the one that lost its core (measured on 2 cores, a small
 * ResNet: mini-batches of 2 ms took 8-10 ms; in 150 ms 20 % were answered with two threads, 49 % with one).
 * Several workers share the others.
 */
static int infer_threads(const struct sched_options *options, int n_workers)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int threads = cores > 2 ? ((int)cores - 1) / n_workers : 1;

	return options->worker_threads ? options->worker_threads : threads > 1 ? threads : 1;
}

int devices_start(struct sched *s)
{
	int r = 0;

	for (int i = 0; r == 0 && i < s->n_devices; i++) {
		struct device *device = &s->device[i];

		if (device->ex)
			continue;
		r = s->options.null_backend
			    ? executor_null_new(&device->ex, s->loop, &executor_events, device)
			    : executor_worker_new(&device->ex, s->loop, s->ops, s->host,
						  infer_threads(&s->options, s->n_devices), &executor_events,
						  device);
	}
	return r;
}

void devices_stop(struct sched *s)
{
	for (int i = 0; i < s->n_devices; i++) {
		struct device *device = &s->device[i];

		if (device->ex)
			device->ex->ops->free(device->ex);
		device->ex = NULL;
	}
}

void devices_free(struct sched *s)
{
	free(s->device);
	s->device = NULL;
	s->n_devices = 0;
}

uint64_t served_generation(const struct endpoint *ep)
{
	uint64_t sum = 0;

	for (int i = 0; i < ep->s->n_devices; i++)
		if (ep->on[i].ready)
			sum += profile_generation(&ep->on[i].profile);
	return sum;
}

int64_t served_together(const struct endpoint *ep,
			int64_t (*of)(const struct endpoint *ep, const struct served *on))
{
	int64_t ns = INT64_MAX;
	double rate = 0;
	int n = 0;

	for (int i = 0; i < ep->s->n_devices; i++) {
		if (!ep->on[i].ready)
			continue;
		ns = of(ep, &ep->on[i]);
		rate += 1 / (double)ns;
		n++;
	}
	return n > 1 ? (int64_t)(1 / rate) : ns;
}

static double largest(const struct endpoint *ep, double (*of)(const struct profile *), double least)
{
	for (int i = 0; i < ep->s->n_devices; i++)
		if (ep->on[i].ready)
			least = fmax(least, of(&ep->on[i].profile));
	return least;
}

double served_careful(const struct endpoint *ep)
{
	return largest(ep, profile_careful, 1);
}

double served_deviation(const struct endpoint *ep)
{
	return largest(ep, profile_deviation, 0);
}

int64_t device_free_at(const struct device *device)
{
	int64_t now = loop_now(device->s->loop), at = now;

	for (int i = 0; i < device->n_out; i++) {
		const struct minibatch *mb = device->out[i];

		if (i == 0) {
			int64_t started = mb->handed > device->last_done ? mb->handed : device->last_done;

			at = started + mb->expected > now ? started + mb->expected : now;
		} else {
			at += mb->expected;
		}
	}
	return at;
}

int64_t device_reckoned_at(const struct device *device)
{
	const struct minibatch *mb = device->n_out ? device->out[0] : NULL;
	int64_t at = device_free_at(device), now = loop_now(device->s->loop), over;

	if (!mb)
		return at;
	over = now - (mb->handed > device->last_done ? mb->handed : device->last_done) - mb->expected;
	return over > 0 ? at + over : at;
}

int64_t devices_free_at(const struct sched *s)
{
	int64_t now = loop_now(s->loop), sum = 0;

	for (int i = 0; i < s->n_devices; i++)
		sum += device_free_at(&s->device[i]) - now;
	return now + sum / s->n_devices;
}

void devices_apart(struct sched *s)
{
	int cores[MAX_DEVICES];

	for (int i = 0; i < s->n_devices; i++)
		cores[i] = s->device[i].n_out ? s->device[i].core : 0;
	apart_from(&s->apart, cores, s->n_devices);
}

struct minibatch *devices_out(const struct sched *s, int i)
{
	for (int k = 0; k < s->n_devices; k++) {
		const struct device *device = &s->device[k];

		if (i < device->n_out)
			return device->out[i];
		i -= device->n_out;
	}
	return NULL;
}
