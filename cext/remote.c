/* remote.c - process_vm_readv, with its partial reads made plain.
 *
 * Must not know what is read. */

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "remote.h"

enum {
	/* The kernel stops a read at the first bad page of an iovec, and at
	 * MAX_RW_COUNT (2 GiB) in all; smaller calls also let signals in. */
	CALL_BYTES_MAX = 1 << 24,
};

int64_t mw_remote_read(uint32_t pid, uint64_t address, void *buffer, uint64_t size_bytes)
{
	uint64_t done = 0;

	if (size_bytes > INT64_MAX)
		return -EINVAL;
	while (done < size_bytes) {
		uint64_t wanted = size_bytes - done < CALL_BYTES_MAX ? size_bytes - done : CALL_BYTES_MAX;
		struct iovec here = {(char *)buffer + done, wanted};
		struct iovec there = {(void *)(uintptr_t)(address + done), wanted};
		ssize_t got = process_vm_readv((pid_t)pid, &here, 1, &there, 1, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			/* Part was read: that is the answer, unless the process went away under us. */
			return done && errno == EFAULT ? (int64_t)done : -errno;
		}
		done += (uint64_t)got;
		if ((uint64_t)got < wanted)
			break;
	}
	return (int64_t)done;
}

/* Read ranges [first, end) with one system call; return how many bytes came, or
 * a negative errno. */
static int64_t read_batch(uint32_t pid, const struct mw_remote_range *ranges, uint32_t first, uint32_t end,
			  char *buffer)
{
	struct iovec there[MW_REMOTE_RANGES_MAX];
	uint64_t total = 0;
	ssize_t got;

	for (uint32_t i = first; i < end; i++) {
		there[i - first].iov_base = (void *)(uintptr_t)ranges[i].address;
		there[i - first].iov_len = ranges[i].size_bytes;
		total += ranges[i].size_bytes;
	}
	struct iovec here = {buffer, total};
	do
		got = process_vm_readv((pid_t)pid, &here, 1, there, end - first, 0);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

int mw_remote_read_ranges(uint32_t pid, struct mw_remote_range *ranges, uint32_t count, void *buffer,
			  uint64_t buffer_bytes)
{
	char *place = buffer;
	uint64_t total = 0;

	if (count > MW_REMOTE_RANGES_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < count; i++) {
		ranges[i].read_bytes = 0;
		total += ranges[i].size_bytes;
	}
	if (total > buffer_bytes)
		return -ENOSPC;
	memset(buffer, 0, total);

	/* A call ends at the first range that cannot be read in full: note how far
	 * it came, skip that one and go on behind it. */
	for (uint32_t i = 0; i < count;) {
		int64_t got = read_batch(pid, ranges, i, count, place);

		if (got == -EFAULT)
			got = 0;
		if (got < 0)
			return (int)got;
		for (; i < count && (uint64_t)got >= ranges[i].size_bytes; i++) {
			ranges[i].read_bytes = ranges[i].size_bytes;
			got -= ranges[i].size_bytes;
			place += ranges[i].size_bytes;
		}
		if (i < count) {
			ranges[i].read_bytes = (uint32_t)got;
			place += ranges[i++].size_bytes;
		}
	}
	return 0;
}
