/* branches.c - see branches.h for what it is for.
 *
 * A byte loop over a few megabytes, once per file: 3 ms for a libpython. */

#include "branches.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	CHUNK_BYTES = 1 << 16,
	LONGEST_BYTES = 6, /* 0f 8x and four bytes of distance */
};

/* The function whose first bytes target lies behind, or count. */
static uint32_t function_at(const uint64_t *starts, uint32_t count, uint32_t span_bytes, uint64_t target)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (starts[middle] < target)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || target - starts[low - 1] >= span_bytes)
		return count;
	/* target == starts[low]: the begin of another function, which everybody may jump to. */
	if (low < count && starts[low] == target)
		return count;
	return low - 1;
}

/* The length of what could be a far branch at bytes, or 0. */
static uint32_t branch_bytes(const uint8_t *bytes)
{
	if (bytes[0] == 0xe8 || bytes[0] == 0xe9)
		return 5;
	if (bytes[0] == 0x0f && (bytes[1] & 0xf0) == 0x80)
		return 6;
	return 0;
}

int mw_branches_into(int fd, uint64_t file_offset, uint64_t size_bytes, const uint64_t *starts, uint32_t count,
		     uint32_t span_bytes, struct mw_branch *rets, uint32_t rets_max)
{
	uint64_t end = file_offset + size_bytes;
	uint32_t found = 0;
	uint8_t *chunk;

	if (end < file_offset || end > INT64_MAX)
		return -EINVAL;
	if (count == 0)
		return 0;
	chunk = malloc(CHUNK_BYTES);
	if (!chunk)
		return -ENOMEM;
	/* Chunks overlap, so that no branch is cut. */
	for (uint64_t at = file_offset; at < end; at += CHUNK_BYTES - LONGEST_BYTES) {
		uint64_t wanted = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
		ssize_t got = pread(fd, chunk, wanted, (off_t)at);

		if (got < 0) {
			free(chunk);
			return -errno;
		}
		for (ssize_t i = 0; i + LONGEST_BYTES <= got; i++) {
			uint32_t bytes = branch_bytes(&chunk[i]);
			uint64_t target;
			uint32_t function;
			int32_t distance;

			/* The overlap is looked at by the next chunk. */
			if (bytes == 0 || i >= CHUNK_BYTES - LONGEST_BYTES)
				continue;
			memcpy(&distance, &chunk[i + bytes - 4], 4);
			target = at + (uint64_t)i + bytes + (uint64_t)(int64_t)distance;
			function = function_at(starts, count, span_bytes, target);
			if (function == count)
				continue;
			if (found < rets_max)
				rets[found] = (struct mw_branch){function, (uint32_t)(target - starts[function])};
			if (found < INT_MAX)
				found++;
		}
		if ((uint64_t)got < wanted)
			break; /* the file is shorter than it said */
	}
	free(chunk);
	return (int)found;
}
