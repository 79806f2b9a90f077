#include "memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { CALL_BYTES_MAX = 1 << 24 }; /* smaller calls let signals in */

int mw_memory_open(uint32_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return fd;
}

int64_t mw_memory_read(int fd, uint64_t address, void *buffer, uint64_t size_bytes)
{
	uint64_t done = 0;

	if (size_bytes > INT64_MAX || address >> 47)
		return -EFAULT;
	while (done < size_bytes) {
		uint64_t wanted = size_bytes - done < CALL_BYTES_MAX ? size_bytes - done : CALL_BYTES_MAX;
		ssize_t got = pread(fd, (char *)buffer + done, wanted, (off_t)(address + done));

		if (got < 0 && errno == EINTR)
			continue;
		/* EIO: nothing is mapped there; nothing at all: the address space has no user any more */
		if (got <= 0)
			return done ? (int64_t)done : got == 0 ? -ESRCH : errno == EIO ? -EFAULT : -errno;
		done += (uint64_t)got;
		if ((uint64_t)got < wanted)
			break;
	}
	return (int64_t)done;
}
