#include "sched/readers.h"

#include <unistd.h>

void readers_add(struct readers *all, const struct host_access *one)
{
	if ((one->mode & 0044) == 0044)
		return;
	if (!all->restricted) {
		*all = (struct readers){.restricted = true, .access = *one};
		all->access.mode &= 0440;
		return;
	}
	all->many_owners |= one->uid != all->access.uid;
	if (!(one->mode & 0040) || one->gid != all->access.gid)
		all->access.mode &= ~0040u;
}

void readers_join(struct readers *all, const struct readers *some)
{
	if (some->restricted)
		readers_add(all, &some->access);
	all->many_owners |= some->many_owners;
}

bool readers_access(const struct readers *readers, struct host_access *ret)
{
	if (!readers->restricted)
		return false;
	*ret = readers->access;
	if (readers->many_owners) { /* nobody may read all but who may read everything */
		ret->uid = geteuid();
		ret->gid = ret->mode & 0040 ? ret->gid : getegid();
	}
	return true;
}
