/* ranges.h - the ranged blocks that are live: mappings, which are freed in parts.
 *
 * munmap may take a mapping's head, tail or middle, or several mappings at
 * once; what is left keeps its site and its share of the weight.  Knows no
 * event and no system call. */

#ifndef MW_RANGES_H
#define MW_RANGES_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_ranges;

struct mw_range {
	uint64_t address;
	uint64_t size_bytes;
	uint64_t weight_bytes;
	uint64_t time_ns; /* CLOCK_MONOTONIC, when it was mapped */
	uint32_t pid;
	uint32_t site; /* index into sites.h; 0: the site could not be kept */
};

/* An empty set that will hold at most ranges_max ranges (64 bytes each, taken
 * at creation), or NULL if there is no memory for it. */
struct mw_ranges *mw_ranges_create(uint32_t ranges_max);
void mw_ranges_destroy(struct mw_ranges *ranges);

/* Record a range that overlaps none of its process: cut first.  Return 0,
 * -ENOSPC if the set is full, -EINVAL if it is empty, wraps or overlaps. */
int mw_ranges_add(struct mw_ranges *ranges, const struct mw_range *range);

/* Take [address, address + size_bytes) of pid out of the set, but for ranges
 * younger than time_ns (they were mapped there after this cut was decided).
 * Copies up to count, at least 2, of the parts taken out to parts; call again
 * until 0 is returned.  A cut in the middle needs a place for the rest: where there is none, the rest
 * is taken out too, as a part that lies outside of the asked range. */
uint32_t mw_ranges_cut(struct mw_ranges *ranges, uint32_t pid, uint64_t address, uint64_t size_bytes, uint64_t time_ns,
		       struct mw_range *parts, uint32_t count);

/* Forget every range of pid; return how many. */
uint32_t mw_ranges_forget(struct mw_ranges *ranges, uint32_t pid);

/* Copy up to count ranges of pid at or above address, in order of address. */
uint32_t mw_ranges_copy(const struct mw_ranges *ranges, uint32_t pid, uint64_t address, struct mw_range *parts,
			uint32_t count);

uint32_t mw_ranges_count(const struct mw_ranges *ranges);

#endif
