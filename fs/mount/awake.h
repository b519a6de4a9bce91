/*
 * Private to fs/mount: idle cores that stay awake while requests come.
 *
 * Waking a core that sleeps costs more than most requests (25 µs a halted virtual one, 100 µs and more a deep state of
 * a real one), and each request wakes two: the server's and the client's. So as long as many come, the kernel is asked for no
 * delay (PM QoS, the kernel's Documentation/power/pm_qos_interface.rst), and idle cores poll; it forgets the wish with the descriptor, so also
 * with a process that is killed. That costs power while it lasts, and is for root only: without, all works as before.
 */
#ifndef FS_MOUNT_AWAKE_H
#define FS_MOUNT_AWAKE_H

#include <stdbool.h>

struct awake {
	int fd; /* of the wish; -1: there is none */
	int quiet, refused;
};
#define AWAKE_NONE       \
	{                \
		.fd = -1 \
	}

/* Called every few milliseconds with how many requests came meanwhile; one thread's. */
void awake_tick(struct awake *awake, unsigned n_requests);
void awake_end(struct awake *awake); /* takes the wish back */

#endif
