/*
 * `inferfs simulate FILE`: the scheduler itself, on the fake clock and the null executor, against a trace. FILE is JSON:
 *
 *	{"profile": {"accuracy":[79.37,71.88,70.94,65.12], "time_ms":[45.12,34.56,22.72,15.68],
 *		     "one_ms":[…], "real_ms":[…], "sure":[…], "then":[…]},
 *	 "batch":32, "deadline":"8s", "instances":[32,6400,12800],
 *	 "arrivals":{"kind":"poisson","rate":2,"duration":"60s","burst":5},
 *	 "workers":1, "noise":0.05, "publish_us":90, "seed":1, "policies":["optimal","best-single"]}
 *
 * profile: accuracies in percent and times of a full mini-batch, as of `inferfs plan`; one_ms: of one instance (default: as a full
 * one); real_ms: what mini-batches take while time_ms is what was measured before. sure, then: cascades, of each sub-model a list of CASCADE_POINTS percentages, and a list
 * of such for each other one, as engine/cascade.h says; null: none. noise: the deviation of single mini-batches, a share of their time.
 * stalls: so many times a second, at random (0), nothing is computed for stall_ms (150). workers: how many, or a list of their speeds ([1,0.5]: the second one takes twice the time); real_workers: the speeds that they turn out to have, while
 * those were measured. publish_us: what each answer's publication takes (0). A run for each number of "instances" and each policy: tasks of so many instances and that deadline arrive
 * "once" (the default), "uniform"ly, as a "poisson" process or in bursts ("bursty": `burst` tasks at once, as a Poisson
 * process), `rate` tasks a second for `duration`. In their place "tasks" may name them, of one run:
 *
 *	"tasks":[{"at":"1.5s","instances":64,"deadline":"2s"},…]
 *
 * Several endpoints share the device (one run, of one number of instances each):
 *
 *	"endpoints":[{"name":"a","weight":3,"instances":64},{"name":"b","profile":{…}}], "until":"60s"
 *
 * profile, batch, deadline, arrivals, and instances or tasks, are the trace's where an endpoint doesn't say them. until: how long it is
 * looked at who has the device; as long as tasks come.
 *
 * Standard output is CSV, a line a run, or with "endpoints" a line an endpoint: policy,[endpoint,weight,device,]instances,tasks,rate,effective_accuracy,bound,planned,ok,late,dropped,throughput,
 * latency_ms,plan_us,admitted,broken,share_1,…: the part of the time that was computed for it; instances of a task; offered instances a second (of D where there is one task); percent of all
 * instances, by the profile's accuracies; the LP's bound of it, each task alone on all workers with real times; answers in time a second,
 * until the last one; mean time until a task is finished; mean time of a task's first plan; instances that were promised at their
 * submission, and how many of them were not in time after all, task by task; the part of the mini-batches that each sub-model ran.
 */
#ifndef SCHED_SIMULATE_SIMULATE_H
#define SCHED_SIMULATE_SIMULATE_H

int simulate_main(int argc, char **argv);

#endif
