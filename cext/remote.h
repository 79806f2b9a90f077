/* remote.h - reading another process's memory, in bulk and within bounds.
 *
 * process_vm_readv: no stop of the target, no trace left in it.  One call costs
 * about 2 us, however few bytes it fetches, so ask for much at once.  Reading
 * pages that were never touched maps the zero page into the target: whoever
 * sweeps large ranges looks at pagemap first.
 *
 * Knows no interpreter and no allocator. */

#ifndef MW_REMOTE_H
#define MW_REMOTE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_REMOTE_RANGES_MAX = 512, /* of one mw_remote_read_ranges() */
};

/* One piece of a scattered read. */
struct mw_remote_range {
	uint64_t address;
	uint32_t size_bytes;
	uint32_t read_bytes; /* filled in: less than size_bytes if the rest is not readable */
};

/* Copy up to size_bytes at address in process pid to buffer.  Return the bytes
 * read, fewer than asked for where the rest is not mapped, or a negative errno:
 * -ESRCH it is gone, -EPERM we may not, -EFAULT nothing there can be read. */
int64_t mw_remote_read(uint32_t pid, uint64_t address, void *buffer, uint64_t size_bytes);

/* Copy count ranges (at most MW_REMOTE_RANGES_MAX, else -E2BIG), each to its
 * place in buffer: they follow one another there by size_bytes, read or not.
 * What could not be read is zero.  -ENOSPC: they don't fit into buffer_bytes.
 * Return 0 or a negative errno; unreadable ranges are no error. */
int mw_remote_read_ranges(uint32_t pid, struct mw_remote_range *ranges, uint32_t count, void *buffer,
			  uint64_t buffer_bytes);

#endif
