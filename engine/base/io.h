/*
 * Whole reads and writes of files: they go on after a signal and after a short count. 0 or a negative errno
 * where nothing else is said.
 */
#ifndef ENGINE_BASE_IO_H
#define ENGINE_BASE_IO_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read, fewer than len only at the end of the file. */
ssize_t io_pread_some(int fd, void *data, size_t len, uint64_t offset);
int io_pread(int fd, void *data, size_t len, uint64_t offset); /* all of it, or -ENODATA */
int io_write(int fd, const void *data, size_t len);            /* all of it */
/* All of it; *ret_done (may be NULL) is set on failure too: so much was written. */
int io_pwrite(int fd, const void *data, size_t len, uint64_t offset, size_t *ret_done);

/* The whole content of a file (any kind that pread reads), NUL-terminated beyond *ret_len; *ret malloc'd;
 * -EFBIG beyond max. */
int io_read(int fd, uint64_t max, void **ret, size_t *ret_len);

#define IO_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* A memfd with these bytes, sealed against every change, at offset 0; the caller owns *ret_fd. */
int io_memfd(const char *name, const void *data, size_t len, int *ret_fd);
/* The same in steps: an empty memfd, filled by write(2), then sealed. */
int io_memfd_new(const char *name, int *ret_fd);
int io_memfd_seal(int fd);

#endif
