/* RocksDB as the volume uses it: options that bound memory, errors as errnos, bounded scans. */
#include "fs/volume/private.h"

#include "engine/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Chosen for a daemon that should stay below 200 MiB with 100,000 files: all memtables together at most 32
 * MiB, one cache for blocks, indexes and filters. */
#define CACHE_SIZE         (32u << 20)
#define MEMTABLES_TOTAL    (32u << 20)
#define MAX_OPEN_FILES     256
#define BLOOM_BITS_PER_KEY 10

static const struct {
	const char *name;
	size_t write_buffer;
} families[CF_COUNT] = {
	[CF_DEFAULT] = {"default", 1u << 20},   [CF_INODES] = {"inodes", 4u << 20},
	[CF_DENTRIES] = {"dentries", 4u << 20}, [CF_XATTRS] = {"xattrs", 2u << 20},
	[CF_DATA] = {"data", 8u << 20},         [CF_SCHED] = {"sched", 2u << 20},
};

/* Frees RocksDB's message and says which errno it is. */
static int db_error(char *message, const char *doing)
{
	int r = strstr(message, "No space left") ? -ENOSPC : -EIO;

	log_error("rocksdb: %s: %s", doing, message);
	rocksdb_free(message);
	return r;
}

static rocksdb_options_t *options_new(const struct db *db, size_t write_buffer)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_block_cache(t, db->cache);
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
	/* In parts of 4 KiB: a whole index or filter of a large table (1 MiB and more) is larger than a shard of the
	 * cache, so each lookup would read it from the file (1,000,000 names: 0.5 ms a lookup). */
	rocksdb_block_based_options_set_index_type(
		t, rocksdb_block_based_table_index_type_two_level_index_search);
	rocksdb_block_based_options_set_partition_filters(t, 1);
	rocksdb_block_based_options_set_pin_top_level_index_and_filter(t, 1);
	rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
	rocksdb_block_based_options_set_filter_policy(
		t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY));
	rocksdb_options_set_block_based_table_factory(o, t);
	rocksdb_block_based_options_destroy(t);

	rocksdb_options_set_write_buffer_size(o, write_buffer);
	rocksdb_options_set_arena_block_size(o, 64 << 10);
	rocksdb_options_set_max_write_buffer_number(o, 2);
	rocksdb_options_set_db_write_buffer_size(o, MEMTABLES_TOTAL);
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	rocksdb_options_set_max_open_files(o, MAX_OPEN_FILES);
	rocksdb_options_set_max_total_wal_size(o, 64u << 20);
	rocksdb_options_set_max_background_jobs(o, 2);
	rocksdb_options_set_max_log_file_size(o, 1u << 20);
	rocksdb_options_set_keep_log_file_num(o, 2);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_stats_persist_period_sec(o, 0);
	rocksdb_options_set_info_log_level(o, 2); /* warnings */
	/* Most names that are looked up are not there: they need not be searched for among the latest writes. */
	rocksdb_options_set_memtable_whole_key_filtering(o, 1);
	rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.05);
	/* Files full of deletions are compacted early: queues stay quick to list. */
	rocksdb_options_add_compact_on_deletion_collector_factory(o, 4096, 1024);
	return o;
}

/* Compactions take half a second of a core now and then: requests and mini-batches go first. (Flushes, which writers wait for when they are
 * late, have threads of their own.) */
static void compact_in_the_background(rocksdb_options_t *o)
{
	rocksdb_env_t *env = rocksdb_create_default_env();

	rocksdb_env_lower_thread_pool_cpu_priority(env);
	rocksdb_options_set_env(o, env);
	rocksdb_env_destroy(env); /* the default one is the process's: only what holds it goes */
}

int db_open(struct db *db, const char *path, bool read_only, bool create, struct err *err)
{
	rocksdb_options_t *options[CF_COUNT];
	const char *names[CF_COUNT];
	char *message = NULL;

	memset(db, 0, sizeof(*db));
	db->cache = rocksdb_cache_create_lru(CACHE_SIZE);
	for (int i = 0; i < CF_COUNT; i++) {
		names[i] = families[i].name;
		options[i] = options_new(db, families[i].write_buffer);
	}
	compact_in_the_background(options[0]);
	/* Counts of packs. Without the limit each look at one would add up all changes since the last flush. */
	rocksdb_options_set_uint64add_merge_operator(options[CF_DEFAULT]);
	rocksdb_options_set_max_successive_merges(options[CF_DEFAULT], 8);
	rocksdb_options_set_create_if_missing(options[0], create);
	rocksdb_options_set_create_missing_column_families(options[0], create);
	if (read_only)
		db->db = rocksdb_open_for_read_only_column_families(options[0], path, CF_COUNT, names,
								    (const rocksdb_options_t *const *)options,
								    db->cf, 0, &message);
	else
		db->db = rocksdb_open_column_families(options[0], path, CF_COUNT, names,
						      (const rocksdb_options_t *const *)options, db->cf,
						      &message);
	for (int i = 0; i < CF_COUNT; i++)
		rocksdb_options_destroy(options[i]);
	if (message) {
		int r = err_set(err, ERR_IO, "%s: %s", path, message);

		rocksdb_free(message);
		db->db = NULL;
		db_close(db);
		return r;
	}
	db->read = rocksdb_readoptions_create();
	db->write = rocksdb_writeoptions_create();
	db->write_sync = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(db->write_sync, 1);
	return 0;
}

struct db db_left_open; /* so that it can still be reached: no leak */

void db_close(struct db *db)
{
	/* RocksDB would write to a log that it could not write to, and Debian's 7.8 aborts on that: as after kill -9, the next open
	 * reads what the log has. Its memory goes with the process. */
	if (db_failed(db)) {
		db_left_open = *db;
		return;
	}
	if (db->db) {
		rocksdb_cancel_all_background_work(db->db, 1);
		for (int i = 0; i < CF_COUNT; i++)
			rocksdb_column_family_handle_destroy(db->cf[i]);
		rocksdb_close(db->db);
	}
	if (db->read)
		rocksdb_readoptions_destroy(db->read);
	if (db->write)
		rocksdb_writeoptions_destroy(db->write);
	if (db->write_sync)
		rocksdb_writeoptions_destroy(db->write_sync);
	if (db->cache)
		rocksdb_cache_destroy(db->cache);
	memset(db, 0, sizeof(*db));
}

/* RocksDB counts every comparison of keys, for each thread, unless it is told not to. */
static void count_nothing(void)
{
	static __thread bool told;

	if (!told)
		rocksdb_set_perf_level(rocksdb_disable);
	told = true;
}

static int get_pinned(struct db *db, enum cf cf, const void *key, size_t key_len,
		      rocksdb_pinnableslice_t **ret)
{
	char *message = NULL;
	rocksdb_pinnableslice_t *s;

	count_nothing();
	s = rocksdb_get_pinned_cf(db->db, db->read, db->cf[cf], key, key_len, &message);
	if (message)
		return db_error(message, "get");
	if (!s)
		return -ENOENT;
	*ret = s;
	return 0;
}

int db_get(struct db *db, enum cf cf, const void *key, size_t key_len, void *value, size_t max,
	   size_t *ret_len)
{
	rocksdb_pinnableslice_t *s;
	const char *data;
	size_t len;
	int r = get_pinned(db, cf, key, key_len, &s);

	if (r < 0)
		return r;
	data = rocksdb_pinnableslice_value(s, &len);
	if (len > max) {
		r = -EIO;
	} else {
		memcpy(value, data, len);
		*ret_len = len;
	}
	rocksdb_pinnableslice_destroy(s);
	return r;
}

int db_get_alloc(struct db *db, enum cf cf, const void *key, size_t key_len, char **ret, size_t *ret_len)
{
	rocksdb_pinnableslice_t *s;
	const char *data;
	char *copy;
	size_t len;
	int r = get_pinned(db, cf, key, key_len, &s);

	if (r < 0)
		return r;
	data = rocksdb_pinnableslice_value(s, &len);
	copy = malloc(len + 1);
	if (copy) {
		memcpy(copy, data, len);
		copy[len] = 0;
		*ret = copy;
		*ret_len = len;
	} else {
		r = -ENOMEM;
	}
	rocksdb_pinnableslice_destroy(s);
	return r;
}

bool db_has(struct db *db, enum cf cf, const void *key, size_t key_len)
{
	rocksdb_pinnableslice_t *s;

	if (get_pinned(db, cf, key, key_len, &s) < 0)
		return false;
	rocksdb_pinnableslice_destroy(s);
	return true;
}

int db_scan(struct db *db, enum cf cf, const void *from, size_t from_len, const void *to, size_t to_len,
	    int (*fn)(void *data, const void *key, size_t key_len, const void *value, size_t value_len),
	    void *data)
{
	rocksdb_readoptions_t *options = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;
	char *message = NULL;
	int r = 0;

	if (to)
		rocksdb_readoptions_set_iterate_upper_bound(options, to, to_len);
	it = rocksdb_create_iterator_cf(db->db, options, db->cf[cf]);
	for (rocksdb_iter_seek(it, from, from_len); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
		size_t key_len, value_len;
		const char *key = rocksdb_iter_key(it, &key_len);
		const char *value = rocksdb_iter_value(it, &value_len);

		r = fn(data, key, key_len, value, value_len);
		if (r)
			break;
	}
	if (!r)
		rocksdb_iter_get_error(it, &message);
	rocksdb_iter_destroy(it);
	rocksdb_readoptions_destroy(options);
	if (message)
		return db_error(message, "scan");
	return r < 0 ? r : 0;
}

int batch_init(struct batch *b, struct volume *vol)
{
	*b = (struct batch){.db = &vol->db, .vol = vol};
	if (vol->read_only || db_failed(&vol->db))
		return -EROFS;
	b->wb = rocksdb_writebatch_create();
	return b->wb ? 0 : -ENOMEM;
}

void batch_release(struct batch *b)
{
	if (b->wb)
		rocksdb_writebatch_destroy(b->wb);
	b->wb = NULL;
}

void batch_put(struct batch *b, enum cf cf, const void *key, size_t key_len, const void *value, size_t len)
{
	rocksdb_writebatch_put_cf(b->wb, b->db->cf[cf], key, key_len, value, len);
}

void batch_delete(struct batch *b, enum cf cf, const void *key, size_t key_len)
{
	rocksdb_writebatch_delete_cf(b->wb, b->db->cf[cf], key, key_len);
}

void batch_merge(struct batch *b, enum cf cf, const void *key, size_t key_len, const void *value, size_t len)
{
	rocksdb_writebatch_merge_cf(b->wb, b->db->cf[cf], key, key_len, value, len);
}

void batch_single_delete(struct batch *b, enum cf cf, const void *key, size_t key_len)
{
	rocksdb_writebatch_singledelete_cf(b->wb, b->db->cf[cf], key, key_len);
}

int batch_commit(struct batch *b, bool sync)
{
	char *message = NULL;
	int r = dentry_batch_blocks(b);

	if (r == 0)
		r = room_for_log(b->vol);
	if (r < 0)
		return r;
	/* A sync of nothing still has to write something for the log to be synced, and with it all before it:
	 * log data is not stored. It joins the write groups of other threads. */
	if (sync && rocksdb_writebatch_count(b->wb) == 0)
		rocksdb_writebatch_put_log_data(b->wb, "s", 1);
	rocksdb_write(b->db->db, sync ? b->db->write_sync : b->db->write, b->wb, &message);
	if (b->adds_names) /* also when it failed: perhaps they are there */
		dentries_made();
	for (int i = 0; i < b->n_packs && !message; i++)
		pack_left(b->vol, &b->packs[i]);
	if (!message)
		return 0;
	r = db_error(message, "write");
	/* What of it is in the log nobody knows: nothing is built upon it until the next start has read the log. */
	if (r != -ENOSPC)
		__atomic_store_n(&b->db->failed_since, (int64_t)time(NULL), __ATOMIC_RELAXED);
	return r;
}
