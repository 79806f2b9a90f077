/* pools.c - see pools.h for what it is for. */

#include "pools.h"

#include <string.h>

enum {
	FIRST_FREE = 8, /* pool_header.freeblock */
};

int mw_pool_mark_free(const uint8_t *copy, uint64_t address, uint32_t block_bytes, uint32_t block_count,
		      uint64_t ret[MW_POOL_FREE_WORDS])
{
	int found = 0;
	uint64_t at;

	memset(ret, 0, MW_POOL_FREE_WORDS * sizeof(*ret));
	if (block_count > MW_POOL_FREE_WORDS * 64)
		return -1;
	memcpy(&at, copy + FIRST_FREE, sizeof(at));
	for (; at; found++) {
		uint64_t offset = at - address - MW_POOL_HEADER_BYTES, index = offset / block_bytes;

		if (offset % block_bytes || index >= block_count || mw_pool_is_free(ret, index))
			return -1;
		ret[index / 64] |= 1ULL << (index % 64);
		memcpy(&at, copy + MW_POOL_HEADER_BYTES + offset, sizeof(at));
	}
	return found;
}

void mw_pool_marks_set(struct mw_pool_marks *marks, const struct mw_pool *pool, uint64_t address, const uint8_t *copy,
		       uint64_t available)
{
	int found = -1;

	marks->address = address;
	marks->end = address + pool->pool_bytes;
	marks->block_bytes = pool->block_bytes;
	marks->block_count = pool->block_count;
	/* pages behind the last block that was handed out may not be there */
	if (available >= MW_POOL_HEADER_BYTES + (uint64_t)pool->block_count * pool->block_bytes)
		found = mw_pool_mark_free(copy, address, pool->block_bytes, pool->block_count, marks->free);
	/* else it changed while it was read */
	marks->is_sure = found >= 0 && (uint32_t)found + pool->used_count == pool->block_count;
}
