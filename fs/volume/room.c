/*
 * How much may still be stored. A full disk would stop RocksDB altogether, and with it what makes room again, since a removal
 * is written too. So users' data stops earlier, at a reserve that is kept for removals, renames, the scheduler's records
 * and the status files. `-o max_bytes` is a second limit of the same kind, on all that lies in the state directory.
 *
 * Below a floor within the reserve nothing is written at all: when its log finds no room, Debian's RocksDB 7.8 is not only stopped
 * until it is opened again, it may abort (an assertion in WritableFileWriter, met in tests/fault/full_disk.sh). A table that finds none
 * is nothing to fear: it tries again by itself when there is room.
 *
 * Accounting is cheap: `left` is looked up every LOOK_NS and lessened meanwhile by what is written (twice: in
 * the log and in a table). The keeper's thread counts the state directory, where it is limited, and, while the volume is full
 * and things are removed, lets RocksDB give back their room: it does so by itself only when more is written.
 */
#include "fs/volume/private.h"

#include "engine/base/clock.h"
#include "engine/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS      INT64_C(100000000)  /* chosen */
#define KEEP_NS      INT64_C(1000000000) /* chosen: the keeper's pace while the volume is full */
#define COUNT_PAUSE  20                  /* chosen: counting may take 1/20 of a core */
#define LOOK_SOON_NS INT64_C(5000000)    /* when little is left: compaction takes some between our looks */
#define RESERVE_MAX \
	(INT64_C(256) << 20) /* what RocksDB's logs (64 MiB), memory (32 MiB) and a compaction may take */
#define FLOOR_PART   2       /* of the reserve … */
#define FLOOR_MAX    (INT64_C(16) << 20) /* … at most: a log's block and its next one */
#define RESERVE_PART 4                   /* of a disk below 1 GiB */
#define AGAIN_PART   8                   /* of the reserve; chosen */
#define AMPLIFIED    2

static int64_t reserve_of(uint64_t total)
{
	int64_t part = (int64_t)(total / RESERVE_PART);

	return part < RESERVE_MAX ? part : RESERVE_MAX;
}

static int64_t floor_of(int64_t reserve)
{
	return reserve / FLOOR_PART < FLOOR_MAX ? reserve / FLOOR_PART : FLOOR_MAX;
}

static void become(struct room *room, enum room_state state)
{
	static const char *const said[] = {"there is room again", "the disk of the state directory is full",
					   "max_bytes is reached"};

	if (__atomic_exchange_n(&room->state, state, __ATOMIC_RELAXED) == state)
		return;
	__atomic_store_n(&room->since, (int64_t)time(NULL), __ATOMIC_RELAXED);
	log_warn("volume: %s", said[state]);
	pthread_mutex_lock(&room->lock);
	pthread_cond_signal(&room->wake);
	pthread_mutex_unlock(&room->lock);
}

static int64_t limit_left(const struct room *room, int64_t *reserve)
{
	uint64_t max = room->max_bytes;
	uint64_t used = __atomic_load_n(&room->counted, __ATOMIC_RELAXED) +
			__atomic_load_n(&room->since_count, __ATOMIC_RELAXED);

	*reserve = reserve_of(max);
	return (int64_t)max - (int64_t)used - *reserve;
}

static void look(struct volume *vol, int64_t when)
{
	struct room *room = &vol->room;
	int64_t left, reserve, limit, limit_reserve;
	enum room_state state = ROOM_THERE, was;
	struct statvfs st;

	if (fstatvfs(vol->dir_fd, &st) < 0)
		return;
	if (st.f_blocks == 0) /* a tmpfs without a size: it doesn't know */
		st.f_bavail = UINT64_MAX / 4 / st.f_frsize;
	reserve = reserve_of((uint64_t)st.f_blocks * st.f_frsize);
	left = (int64_t)((uint64_t)st.f_bavail * st.f_frsize) - reserve;
	if (left <= 0)
		state = ROOM_NO_DISK;
	if (room->max_bytes) {
		limit = limit_left(room, &limit_reserve);
		if (limit <= 0 && state == ROOM_THERE)
			state = ROOM_NO_QUOTA;
		if (limit + limit_reserve < left + reserve) {
			left = limit;
			reserve = limit_reserve;
		}
	}
	/* Full stays full until it is worth saying otherwise: compaction comes and goes. */
	was = __atomic_load_n(&room->state, __ATOMIC_RELAXED);
	if (was != ROOM_THERE && left < reserve / AGAIN_PART) {
		left = left < 0 ? left : 0;
		state = state == ROOM_THERE ? was : state;
	}
	__atomic_store_n(&room->disk, (int64_t)((uint64_t)st.f_bavail * st.f_frsize), __ATOMIC_RELAXED);
	__atomic_store_n(&room->floor, floor_of(reserve_of((uint64_t)st.f_blocks * st.f_frsize)),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&room->left, left, __ATOMIC_RELAXED);
	__atomic_store_n(&room->reserve, reserve, __ATOMIC_RELAXED);
	__atomic_store_n(&room->looked, when, __ATOMIC_RELAXED);
	become(room, state);
}

static bool is_stale(const struct room *room, int64_t when)
{
	bool little = __atomic_load_n(&room->disk, __ATOMIC_RELAXED) < RESERVE_MAX;

	return when - __atomic_load_n(&room->looked, __ATOMIC_RELAXED) > (little ? LOOK_SOON_NS : LOOK_NS);
}

int room_for_log(struct volume *vol)
{
	struct room *room = &vol->room;
	int64_t when = clock_monotonic_ns();

	if (is_stale(room, when))
		look(vol, when);
	return __atomic_load_n(&room->disk, __ATOMIC_RELAXED) <
			       __atomic_load_n(&room->floor, __ATOMIC_RELAXED)
		       ? -ENOSPC
		       : 0;
}

int room_take(struct volume *vol, uint64_t bytes, enum room_use use)
{
	struct room *room = &vol->room;
	int64_t when = clock_monotonic_ns(), left, need = (int64_t)(bytes + 512) * AMPLIFIED;

	if (is_stale(room, when) || __atomic_load_n(&room->left, __ATOMIC_RELAXED) < need)
		look(vol, when);
	left = __atomic_load_n(&room->left, __ATOMIC_RELAXED);
	if (use ==
	    ROOM_RECORD) { /* the last of the reserve is for removals alone, and for compaction, which takes some for a while */
		int64_t reserve = __atomic_load_n(&room->reserve, __ATOMIC_RELAXED);

		left += reserve - reserve / 8;
	}
	if (left < need) {
		enum room_state state = __atomic_load_n(&room->state, __ATOMIC_RELAXED);

		if (use == ROOM_DATA && state == ROOM_THERE) { /* too little for this one: let it be known */
			state = room->max_bytes && limit_left(room, &left) < need ? ROOM_NO_QUOTA
										  : ROOM_NO_DISK;
			become(room, state);
		}
		return state == ROOM_NO_QUOTA ? -EDQUOT : -ENOSPC;
	}
	__atomic_fetch_sub(&room->left, need, __ATOMIC_RELAXED);
	__atomic_fetch_add(&room->since_count, (uint64_t)bytes, __ATOMIC_RELAXED);
	return 0;
}

void room_freed(struct volume *vol)
{
	__atomic_store_n(&vol->room.freed, true, __ATOMIC_RELAXED);
}

/* --- the keeper's thread --- */

/* All below a directory, in bytes on the disk; what goes meanwhile is not there. */
static uint64_t count(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	uint64_t sum = 0;
	struct stat st;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		/* A file of two names counts half with each. */
		sum += (uint64_t)st.st_blocks * 512 / (S_ISDIR(st.st_mode) || !st.st_nlink ? 1 : st.st_nlink);
		if (S_ISDIR(st.st_mode))
			sum += count(fd, e->d_name);
	}
	closedir(dir);
	return sum;
}

static void recount(struct volume *vol)
{
	struct room *room = &vol->room;
	uint64_t before = __atomic_load_n(&room->since_count, __ATOMIC_RELAXED);
	uint64_t sum = count(vol->dir_fd, ".");

	__atomic_store_n(&room->counted, sum, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&room->since_count, before, __ATOMIC_RELAXED);
	look(vol, clock_monotonic_ns());
}

/* What was removed gives its room back. */
static void give_back(struct volume *vol)
{
	uint64_t size = 0;
	char *message = NULL;
	rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();

	for (int i = 0; i < CF_COUNT && !message; i++)
		rocksdb_flush_cf(vol->db.db, options, vol->db.cf[i], &message);
	rocksdb_flushoptions_destroy(options);
	if (message)
		log_warn("rocksdb: flush: %s", message);
	rocksdb_free(message);
	/* A compaction of all needs as much again for a while. Else RocksDB compacts what is worth it file by file. */
	rocksdb_property_int_cf(vol->db.db, vol->db.cf[CF_DATA], "rocksdb.total-sst-files-size", &size);
	look(vol, clock_monotonic_ns());
	if (__atomic_exchange_n(&vol->room.freed, false, __ATOMIC_RELAXED) &&
	    (int64_t)size < __atomic_load_n(&vol->room.disk, __ATOMIC_RELAXED) - FLOOR_MAX)
		rocksdb_compact_range_cf(vol->db.db, vol->db.cf[CF_DATA], NULL, 0, NULL, 0);
	look(vol, clock_monotonic_ns());
}

static void *keeper(void *arg)
{
	struct volume *vol = arg;
	struct room *room = &vol->room;
	int64_t pause = KEEP_NS;
	bool flushed = false;

	pthread_setname_np(pthread_self(), "inferfs/keeper");
	pthread_mutex_lock(&room->lock);
	while (!room->stop) {
		bool full = __atomic_load_n(&room->state, __ATOMIC_RELAXED) != ROOM_THERE;

		if (full || room->max_bytes) {
			int64_t end = clock_monotonic_ns() + pause;
			struct timespec ts = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

			pthread_cond_timedwait(&room->wake, &room->lock, &ts);
		} else {
			pthread_cond_wait(&room->wake, &room->lock);
		}
		if (room->stop)
			break;
		pthread_mutex_unlock(&room->lock);
		full = __atomic_load_n(&room->state, __ATOMIC_RELAXED) != ROOM_THERE;
		if (full && (!flushed || __atomic_load_n(&room->freed, __ATOMIC_RELAXED)))
			give_back(vol);
		else if (full)
			look(vol, clock_monotonic_ns());
		flushed = full;
		pause = KEEP_NS;
		if (room->max_bytes && (full || __atomic_load_n(&room->since_count, __ATOMIC_RELAXED))) {
			int64_t begin = clock_monotonic_ns();

			recount(vol);
			pause += COUNT_PAUSE * (clock_monotonic_ns() - begin);
		}
		pthread_mutex_lock(&room->lock);
	}
	pthread_mutex_unlock(&room->lock);
	return NULL;
}

int room_start(struct volume *vol)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&vol->room.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vol->room.wake, &attr);
	pthread_condattr_destroy(&attr);
	vol->room.started = pthread_create(&vol->room.keeper, NULL, keeper, vol) == 0;
	return vol->room.started ? 0 : -ENOMEM;
}

void room_stop(struct volume *vol)
{
	struct room *room = &vol->room;

	if (!room->started)
		return;
	pthread_mutex_lock(&room->lock);
	room->stop = true;
	pthread_cond_signal(&room->wake);
	pthread_mutex_unlock(&room->lock);
	pthread_join(room->keeper, NULL);
	pthread_cond_destroy(&room->wake);
	pthread_mutex_destroy(&room->lock);
	room->started = false;
}

void volume_limit(struct volume *vol, uint64_t max_bytes)
{
	vol->room.max_bytes = max_bytes;
	recount(vol);
	pthread_mutex_lock(&vol->room.lock);
	pthread_cond_signal(&vol->room.wake);
	pthread_mutex_unlock(&vol->room.lock);
}

int volume_statvfs(struct volume *vol, struct statvfs *ret)
{
	struct statvfs st;

	if (fstatvfs(vol->dir_fd, &st) < 0)
		return -errno;
	st.f_namemax = 255;
	if (vol->room.max_bytes) {
		int64_t reserve, left = limit_left(&vol->room, &reserve);
		uint64_t blocks = left > 0 ? (uint64_t)left / st.f_frsize : 0;

		if (vol->room.max_bytes / st.f_frsize < st.f_blocks)
			st.f_blocks = vol->room.max_bytes / st.f_frsize;
		if (blocks < st.f_bavail)
			st.f_bavail = blocks;
		if (st.f_bavail < st.f_bfree)
			st.f_bfree = st.f_bavail;
	}
	*ret = st;
	return 0;
}

/* --- what is wrong --- */

bool volume_trouble(struct volume *vol, char *ret, size_t size)
{
	static const char *const words[] = {NULL, "full: the disk of the state directory has no room",
					    "full: max_bytes is reached"};
	int64_t failed = __atomic_load_n(&vol->db.failed_since, __ATOMIC_RELAXED), since;
	uint64_t blobs = __atomic_load_n(&vol->bad_blobs, __ATOMIC_RELAXED);
	enum room_state state = __atomic_load_n(&vol->room.state, __ATOMIC_RELAXED);
	struct tm tm;
	char when[32];

	if (!failed && state == ROOM_THERE && !blobs)
		return false;
	since = failed ? failed
		       : __atomic_load_n(state == ROOM_THERE ? &vol->bad_since : &vol->room.since,
					 __ATOMIC_RELAXED);
	gmtime_r(&(time_t){since}, &tm);
	strftime(when, sizeof(when), "%FT%TZ", &tm);
	if (failed)
		snprintf(ret, size,
			 "volume read-only since %s: writing to the state directory failed (the log says "
			 "how). What was "
			 "stored is there and can be read; mend the disk, then unmount and mount again",
			 when);
	else if (state != ROOM_THERE)
		snprintf(ret, size, "volume %s, since %s", words[state], when);
	else
		snprintf(ret, size, "volume damaged since %s: %" PRIu64 " reads of large files failed", when,
			 blobs);
	return true;
}
