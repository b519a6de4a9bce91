/*
 * exercise_names DIR [OPERATIONS [SEED]]: eight threads do random operations on names. Each has a subtree of its own
 * (DIRS directories with NAMES names each) and a model of it: every call's answer has to be the model's. All of them
 * work in DIR/shared too, where only what must always hold is looked at. At a difference: what, and status 1.
 */
#include "engine/base/rng.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define DIRS    4
#define NAMES   12
#define SLOTS   (DIRS * NAMES)

struct slot {
	mode_t type; /* 0: nothing there */
	ino_t ino;
	char value[16]; /* of user.v; files only; "" none */
};

struct thread {
	pthread_t id;
	unsigned n;
	struct rng rng;
	struct slot slots[SLOTS];
	uint64_t op;
	int top, shared; /* descriptors */
};

static const char *top_path;
static uint64_t seed, count = 4000;

static void differ(const struct thread *t, const char *call, const char *name, int got, int wanted)
{
	fprintf(stderr, "seed %" PRIu64 ", thread %u, operation %" PRIu64 ": %s %s: %s, should be %s\n", seed,
		t->n, t->op, call, name, got ? strerror(got) : "done", wanted ? strerror(wanted) : "done");
	exit(1);
}

static void check(const struct thread *t, const char *call, const char *name, int r, int wanted)
{
	int got = r < 0 ? errno : 0;

	if (got != wanted)
		differ(t, call, name, got, wanted);
}

static unsigned below(struct thread *t, unsigned n)
{
	return (unsigned)rng_below(&t->rng, n);
}

static void slot_name(unsigned i, char name[32])
{
	snprintf(name, 32, "d%u/n%u", i / NAMES, i % NAMES);
}

/* Other names of the same file. */
static unsigned links(const struct thread *t, const struct slot *s)
{
	unsigned n = 0;

	for (int i = 0; i < SLOTS; i++)
		n += t->slots[i].type && t->slots[i].ino == s->ino;
	return n;
}

static void look(struct thread *t, unsigned i)
{
	struct slot *s = &t->slots[i];
	char name[32], value[16] = "", path[PATH_MAX];
	struct stat st;

	slot_name(i, name);
	check(t, "stat", name, fstatat(t->top, name, &st, AT_SYMLINK_NOFOLLOW), s->type ? 0 : ENOENT);
	if (!s->type)
		return;
	if ((st.st_mode & S_IFMT) != s->type || st.st_ino != s->ino ||
	    (s->type != S_IFDIR && st.st_nlink != links(t, s)))
		differ(t, "stat: type, number or links of", name, EIO, 0);
	if (s->type != S_IFREG)
		return;
	snprintf(path, sizeof(path), "%s/t%u/%s", top_path, t->n, name);
	check(t, "getxattr", name, (int)getxattr(path, "user.v", value, sizeof(value)),
	      s->value[0] ? 0 : ENODATA);
	if (strcmp(value, s->value) != 0)
		differ(t, "getxattr: value of", name, EIO, 0);
}

static void make(struct thread *t, unsigned i)
{
	static const mode_t types[] = {S_IFREG, S_IFREG, S_IFDIR, S_IFLNK};
	mode_t type = types[below(t, 4)];
	struct slot *s = &t->slots[i];
	char name[32];
	struct stat st;
	int r;

	slot_name(i, name);
	if (type == S_IFREG) {
		r = openat(t->top, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (r >= 0)
			close(r);
	} else {
		r = type == S_IFDIR ? mkdirat(t->top, name, 0755) : symlinkat("to", t->top, name);
	}
	check(t, "make", name, r, s->type ? EEXIST : 0);
	if (s->type)
		return;
	check(t, "stat", name, fstatat(t->top, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	*s = (struct slot){.type = type, .ino = st.st_ino};
}

static void drop(struct thread *t, unsigned i)
{
	struct slot *s = &t->slots[i];
	bool as_dir = below(t, 2);
	char name[32];
	int wanted = !s->type ? ENOENT : as_dir == (s->type == S_IFDIR) ? 0 : as_dir ? ENOTDIR : EISDIR;

	slot_name(i, name);
	check(t, as_dir ? "rmdir" : "unlink", name, unlinkat(t->top, name, as_dir ? AT_REMOVEDIR : 0),
	      wanted);
	if (wanted == 0)
		s->type = 0;
}

static void link_it(struct thread *t, unsigned i, unsigned k)
{
	struct slot *from = &t->slots[i], *to = &t->slots[k];
	char a[32], b[32];
	int wanted = !from->type ? ENOENT : to->type ? EEXIST : from->type == S_IFDIR ? EPERM : 0;

	slot_name(i, a);
	slot_name(k, b);
	check(t, "link", b, linkat(t->top, a, t->top, b, 0), wanted);
	if (wanted == 0)
		*to = *from;
}

static void move(struct thread *t, unsigned i, unsigned k)
{
	static const unsigned all[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	struct slot *from = &t->slots[i], *to = &t->slots[k], kept = *to;
	unsigned flags = all[below(t, 4)];
	char a[32], b[32];
	int wanted = 0;

	if (!from->type || (flags == RENAME_EXCHANGE && !to->type))
		wanted = ENOENT;
	else if (flags == RENAME_NOREPLACE && to->type)
		wanted = EEXIST;
	else if (!flags && to->type && (from->type == S_IFDIR) != (to->type == S_IFDIR))
		wanted = from->type == S_IFDIR ? ENOTDIR : EISDIR;
	slot_name(i, a);
	slot_name(k, b);
	check(t, "rename", b, renameat2(t->top, a, t->top, b, flags), wanted);
	if (wanted || (to->type && to->ino == from->ino))
		return;
	*to = *from;
	if (flags == RENAME_EXCHANGE)
		*from = kept;
	else
		from->type = 0;
}

static void tag(struct thread *t, unsigned i)
{
	struct slot *s = &t->slots[i];
	char name[32], path[PATH_MAX], value[16];
	ino_t ino = s->ino;

	if (s->type != S_IFREG)
		return;
	slot_name(i, name);
	snprintf(path, sizeof(path), "%s/t%u/%s", top_path, t->n, name);
	snprintf(value, sizeof(value), "%u", below(t, 100000));
	check(t, "setxattr", name, setxattr(path, "user.v", value, strlen(value), 0), 0);
	for (int k = 0; k < SLOTS; k++)
		if (t->slots[k].type && t->slots[k].ino == ino)
			strcpy(t->slots[k].value, value);
}

static void list(struct thread *t, unsigned d)
{
	bool seen[NAMES] = {0};
	char name[32];
	struct dirent *e;
	DIR *dir;
	int fd;

	snprintf(name, sizeof(name), "d%u", d);
	fd = openat(t->top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(t, "open", name, fd, 0);
	dir = fdopendir(fd);
	while ((e = readdir(dir))) {
		unsigned i = e->d_name[0] == 'n' ? (unsigned)atoi(e->d_name + 1) : NAMES;

		if (i >= NAMES)
			continue;
		if (seen[i] || !t->slots[d * NAMES + i].type || t->slots[d * NAMES + i].ino != e->d_ino)
			differ(t, "readdir: twice or wrong", e->d_name, EIO, 0);
		seen[i] = true;
	}
	closedir(dir);
	for (unsigned i = 0; i < NAMES; i++)
		if (!seen[i] && t->slots[d * NAMES + i].type)
			differ(t, "readdir: misses a name of", name, EIO, 0);
}

/* Here others change the same names: no call may fail but for that reason. */
static void share(struct thread *t)
{
	char a[32], b[32];
	struct stat st;
	int r, e;

	snprintf(a, sizeof(a), "s%u", below(t, 20));
	snprintf(b, sizeof(b), "s%u", below(t, 20));
	switch (below(t, 6)) {
	case 0:
		r = openat(t->shared, a, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (r >= 0)
			r = close(r);
		break;
	case 1:
		r = mkdirat(t->shared, a, 0755);
		break;
	case 2:
		r = unlinkat(t->shared, a, below(t, 2) ? AT_REMOVEDIR : 0);
		break;
	case 3:
		r = renameat2(t->shared, a, t->shared, b, below(t, 3));
		break;
	case 4:
		r = linkat(t->shared, a, t->shared, b, 0);
		break;
	default:
		r = fstatat(t->shared, a, &st, AT_SYMLINK_NOFOLLOW);
		if (r == 0 && st.st_nlink > 20 + 2)
			differ(t, "stat: too many links of", a, EIO, 0);
	}
	e = errno;
	if (r < 0 && e != ENOENT && e != EEXIST && e != EISDIR && e != ENOTDIR && e != EPERM && e != ESTALE)
		differ(t, "shared", a, e, 0);
}

static void *run(void *arg)
{
	struct thread *t = arg;

	for (t->op = 0; t->op < count; t->op++) {
		unsigned i = below(t, SLOTS), k = below(t, SLOTS), what = below(t, 20);

		if (what < 5)
			make(t, i);
		else if (what < 8)
			drop(t, i);
		else if (what < 10)
			link_it(t, i, k);
		else if (what < 13)
			move(t, i, k);
		else if (what < 14)
			tag(t, i);
		else if (what < 15)
			list(t, i / NAMES);
		else if (what < 17)
			share(t);
		else
			look(t, i);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		look(t, i);
	return NULL;
}

static int make_dir(const char *path)
{
	int fd = mkdir(path, 0755) == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	static struct thread threads[THREADS];
	char path[PATH_MAX];
	int shared;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: exercise_names DIR [OPERATIONS [SEED]]\n");
		return 2;
	}
	top_path = argv[1];
	count = argc > 2 ? strtoull(argv[2], NULL, 10) : count;
	seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
	snprintf(path, sizeof(path), "%s/shared", top_path);
	shared = make_dir(path);
	for (unsigned i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){.n = i, .rng = rng_init(seed, i), .shared = shared};
		snprintf(path, sizeof(path), "%s/t%u", top_path, i);
		threads[i].top = make_dir(path);
		for (int d = 0; d < DIRS; d++) {
			snprintf(path, sizeof(path), "%s/t%u/d%d", top_path, i, d);
			close(make_dir(path));
		}
	}
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i].id, NULL, run, &threads[i]) != 0)
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i].id, NULL);
	printf("seed %" PRIu64 ": %d x %" PRIu64 " operations, no difference\n", seed, THREADS, count);
	return 0;
}
