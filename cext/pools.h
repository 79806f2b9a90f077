/* pools.h - which blocks of a pymalloc pool are free.
 *
 * A pool's free blocks are linked through their first words; blocks behind its
 * nextoffset were never handed out.  Works on a copy of the pool: knows no
 * process.  The copy may be torn, or hostile. */

#ifndef MW_POOLS_H
#define MW_POOLS_H

#include "pyobject.h"

#include <stdint.h>

enum {
	MW_POOL_HEADER_BYTES = 48,
	MW_POOL_FREE_WORDS = 32, /* a bit for each block of the largest pool */
};

/* Mark in ret the free ones of the first block_count blocks of the pool that
 * was copied from address.  Return how many they are, or -1 if their list does
 * not stay among them. */
int mw_pool_mark_free(const uint8_t *copy, uint64_t address, uint32_t block_bytes, uint32_t block_count,
		      uint64_t ret[MW_POOL_FREE_WORDS]);

/* A pool's blocks that hold nothing; of one pool at a time. */
struct mw_pool_marks {
	uint64_t address, end; /* both 0: of none */
	uint32_t block_bytes;
	uint32_t block_count;
	int is_sure; /* its list and its counters agreed */
	uint64_t free[MW_POOL_FREE_WORDS];
};

/* Mark a pool, of which available bytes from address on lie at copy. */
void mw_pool_marks_set(struct mw_pool_marks *marks, const struct mw_pool *pool, uint64_t address, const uint8_t *copy,
		       uint64_t available);

static inline int mw_pool_is_free(const uint64_t marks[MW_POOL_FREE_WORDS], uint64_t index)
{
	return marks[index / 64] >> (index % 64) & 1;
}

/* Whether address lies in a block that nobody has: what is there was left behind. */
static inline int mw_pool_marks_has_free(const struct mw_pool_marks *marks, uint64_t address)
{
	uint64_t index;

	if (!marks->is_sure || address >= marks->end || address < marks->address + MW_POOL_HEADER_BYTES)
		return 0;
	index = (address - marks->address - MW_POOL_HEADER_BYTES) / marks->block_bytes;
	return index >= marks->block_count || mw_pool_is_free(marks->free, index);
}

#endif
