#include "engine/base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t io_pread_some(int fd, void *data, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)data + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_pread(int fd, void *data, size_t len, uint64_t offset)
{
	ssize_t n = io_pread_some(fd, data, len, offset);

	return n < 0 ? (int)n : (size_t)n < len ? -ENODATA : 0;
}

int io_write(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int io_pwrite(int fd, const void *data, size_t len, uint64_t offset, size_t *ret_done)
{
	size_t done = 0;
	int r = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r = n < 0 ? -errno : -EIO;
			break;
		}
		done += (size_t)n;
	}
	if (ret_done)
		*ret_done = done;
	return r;
}

int io_read(int fd, uint64_t max, void **ret, size_t *ret_len)
{
	struct stat st;
	char *data;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < 0 || (uint64_t)st.st_size > max)
		return -EFBIG;
	data = malloc((size_t)st.st_size + 1);
	if (!data)
		return -ENOMEM;
	r = io_pread(fd, data, (size_t)st.st_size, 0);
	if (r < 0) {
		free(data);
		return r;
	}
	data[st.st_size] = '\0';
	*ret = data;
	*ret_len = (size_t)st.st_size;
	return 0;
}

int io_memfd_new(const char *name, int *ret_fd)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int io_memfd_seal(int fd)
{
	return fcntl(fd, F_ADD_SEALS, IO_SEALS | F_SEAL_SEAL) < 0 ? -errno : 0;
}

int io_memfd(const char *name, const void *data, size_t len, int *ret_fd)
{
	int fd = -1, r;

	r = io_memfd_new(name, &fd);
	if (r < 0)
		return r;
	r = io_write(fd, data, len);
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		r = io_memfd_seal(fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}
