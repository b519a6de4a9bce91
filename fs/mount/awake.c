#include "fs/mount/awake.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#define MANY 5 /* requests in a tick that are worth it; chosen: a gigabyte a second by large ones */
#define QUIET \
	4 /* ticks with less until the wish is taken back; chosen: a program that computes between its files */

static int wish(void)
{
	const int32_t latency_us = 0;
	int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, &latency_us, sizeof(latency_us)) != sizeof(latency_us)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

void awake_tick(struct awake *awake, unsigned n_requests)
{
	if (n_requests >= MANY) {
		awake->quiet = 0;
		if (awake->fd < 0 && !awake->refused) {
			awake->fd = wish();
			awake->refused = awake->fd < 0;
		}
	} else if (awake->fd >= 0 && ++awake->quiet >= QUIET) {
		awake_end(awake);
	}
}

void awake_end(struct awake *awake)
{
	if (awake->fd >= 0)
		close(awake->fd);
	awake->fd = -1;
	awake->quiet = 0;
}
