/* pools.h - which blocks of a pymalloc pool are free.
 *
 * A pool's free blocks are linked through their first words; blocks behind its
 * nextoffset were never handed out.  Works on a copy of the pool: knows no
 * process.  The copy may be torn, or hostile. */

#ifndef MW_POOLS_H
#define MW_POOLS_H

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

static inline int mw_pool_is_free(const uint64_t marks[MW_POOL_FREE_WORDS], uint64_t index)
{
	return marks[index / 64] >> (index % 64) & 1;
}

#endif
