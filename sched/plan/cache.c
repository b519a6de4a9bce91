/*
 * Plans by the exact request, sub-models included. A fixed number of entries, chained from a hash table and
 * strung in order of use; the longest unused one is replaced.
 */
#include "sched/plan/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 1024 /* 700 KB; chosen */
#define BUCKETS 2048
#define NONE    -1

struct key {
	struct plan_submodel submodels[MAX_SUBMODELS];
	int64_t instances, deadline;
	int n_submodels, batch;
};

struct entry {
	struct key key;
	struct plan plan;
	int bucket, next; /* in the bucket */
	int newer, older;
};

struct plan_cache {
	struct entry entries[ENTRIES];
	int buckets[BUCKETS];
	int n, newest, oldest;
};

int plan_cache_new(struct plan_cache **ret)
{
	struct plan_cache *c = malloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	for (int i = 0; i < BUCKETS; i++)
		c->buckets[i] = NONE;
	c->n = 0;
	c->newest = c->oldest = NONE;
	*ret = c;
	return 0;
}

void plan_cache_free(struct plan_cache *c)
{
	free(c);
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
	/* The finaliser of splitmix64 (Steele et al., OOPSLA 2014), chained. */
	hash = (hash ^ word) * UINT64_C(0xbf58476d1ce4e5b9);
	return hash ^ (hash >> 29);
}

static int bucket_of(const struct plan_request *r)
{
	uint64_t hash = mix((uint64_t)r->instances, (uint64_t)r->deadline_ns);

	hash = mix(hash, (uint64_t)r->batch);
	for (int i = 0; i < r->n_submodels; i++) {
		uint64_t accuracy;

		memcpy(&accuracy, &r->submodels[i].accuracy, sizeof(accuracy));
		hash = mix(hash, accuracy);
		hash = mix(hash, (uint64_t)r->submodels[i].time_ns);
		hash = mix(hash, (uint64_t)r->submodels[i].time_one_ns);
	}
	return (int)((hash >> 32) % BUCKETS);
}

static bool is_of(const struct key *k, const struct plan_request *r)
{
	if (k->instances != r->instances || k->deadline != r->deadline_ns || k->batch != r->batch ||
	    k->n_submodels != r->n_submodels)
		return false;
	for (int i = 0; i < r->n_submodels; i++)
		if (k->submodels[i].accuracy != r->submodels[i].accuracy ||
		    k->submodels[i].time_ns != r->submodels[i].time_ns ||
		    k->submodels[i].time_one_ns != r->submodels[i].time_one_ns)
			return false;
	return true;
}

static void unstring(struct plan_cache *c, int i)
{
	struct entry *e = &c->entries[i];

	*(e->newer == NONE ? &c->newest : &c->entries[e->newer].older) = e->older;
	*(e->older == NONE ? &c->oldest : &c->entries[e->older].newer) = e->newer;
}

static void make_newest(struct plan_cache *c, int i)
{
	struct entry *e = &c->entries[i];

	e->newer = NONE;
	e->older = c->newest;
	*(c->newest == NONE ? &c->oldest : &c->entries[c->newest].newer) = i;
	c->newest = i;
}

static bool valid(const struct plan_request *r)
{
	return r->n_submodels >= 1 && r->n_submodels <= MAX_SUBMODELS;
}

static int find(const struct plan_cache *c, const struct plan_request *r, int bucket)
{
	int i = c->buckets[bucket];

	while (i != NONE && !is_of(&c->entries[i].key, r))
		i = c->entries[i].next;
	return i;
}

bool plan_cache_get(struct plan_cache *c, const struct plan_request *request, struct plan *ret)
{
	int i = valid(request) ? find(c, request, bucket_of(request)) : NONE;

	if (i == NONE)
		return false;
	unstring(c, i);
	make_newest(c, i);
	*ret = c->entries[i].plan;
	return true;
}

void plan_cache_put(struct plan_cache *c, const struct plan_request *request, const struct plan *plan)
{
	int bucket = bucket_of(request), i = find(c, request, bucket), *link;
	struct entry *e;

	if (i != NONE) {
		c->entries[i].plan = *plan;
		return;
	}
	if (c->n < ENTRIES) {
		i = c->n++;
	} else {
		i = c->oldest;
		unstring(c, i);
		for (link = &c->buckets[c->entries[i].bucket]; *link != i; link = &c->entries[*link].next)
			;
		*link = c->entries[i].next;
	}
	e = &c->entries[i];
	e->key = (struct key){.instances = request->instances,
			      .deadline = request->deadline_ns,
			      .n_submodels = request->n_submodels,
			      .batch = request->batch};
	memcpy(e->key.submodels, request->submodels,
	       (size_t)request->n_submodels * sizeof(*request->submodels));
	e->plan = *plan;
	e->bucket = bucket;
	e->next = c->buckets[bucket];
	c->buckets[bucket] = i;
	make_newest(c, i);
}
