/* audit_pool.c - CPython's small blocks: a pool is read whole, its free list
 * walked in the copy.  Needs no symbol and no version: a pool's header says
 * enough to be checked against itself. */

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "audit_parts.h"
#include "pools.h"
#include "remote.h"

enum {
	POOL_BYTES_MAX = 16384, /* 3.10 and later; 4096 before */
	POOL_BYTES_MIN = 4096,
	POOL_HEADER_BYTES = MW_POOL_HEADER_BYTES,
	POOL_READS_MAX = 4,
};

/* struct pool_header of Objects/obmalloc.c, the same since 2.3 but for the padding. */
struct pool_header {
	uint32_t count; /* allocated blocks */
	uint32_t padding;
	uint64_t freeblock;
	uint64_t nextpool;
	uint64_t prevpool;
	uint32_t arenaindex;
	uint32_t szidx;
	uint32_t nextoffset;	/* blocks from here on were never handed out */
	uint32_t maxnextoffset; /* of the last block */
};

_Static_assert(sizeof(struct pool_header) == POOL_HEADER_BYTES, "struct pool_header: not CPython's");

struct pool {
	uint64_t address;
	uint32_t pool_bytes; /* 0: not a pool */
	uint32_t block_bytes;
	uint32_t block_count; /* that were ever handed out */
	bool is_torn;
	uint64_t free[MW_POOL_FREE_WORDS]; /* bit set: on the free list */
	union {
		struct pool_header header;
		uint64_t words[POOL_BYTES_MAX / 8];
		uint8_t bytes[POOL_BYTES_MAX];
	} copy;
};

/* Whether the header can be that of a pool of pool_bytes; fills in the sizes. */
static bool is_pool(struct pool *pool, uint32_t pool_bytes)
{
	const struct pool_header *header = &pool->copy.header;
	uint32_t block_bytes, capacity;

	if (header->maxnextoffset >= pool_bytes || header->szidx >= 64)
		return false;
	block_bytes = pool_bytes - header->maxnextoffset;
	/* Steps of 16 bytes; of 8 before Python 3.7.4 and 3.8. */
	if (block_bytes != (header->szidx + 1) * 16 && block_bytes != (header->szidx + 1) * 8)
		return false;
	capacity = (pool_bytes - POOL_HEADER_BYTES) / block_bytes;
	if (header->count > capacity || header->nextoffset < POOL_HEADER_BYTES ||
	    header->nextoffset > header->maxnextoffset + block_bytes ||
	    (header->nextoffset - POOL_HEADER_BYTES) % block_bytes)
		return false;
	pool->pool_bytes = pool_bytes;
	pool->block_bytes = block_bytes;
	pool->block_count = (header->nextoffset - POOL_HEADER_BYTES) / block_bytes;
	return true;
}

/* Mark the free blocks; false if the list and the counters do not agree. */
static bool walk_free_list(struct pool *pool)
{
	int free_count =
	    mw_pool_mark_free(pool->copy.bytes, pool->address, pool->block_bytes, pool->block_count, pool->free);

	return free_count >= 0 && free_count + pool->copy.header.count == pool->block_count;
}

/* Read the pool around address, of one size or the other. */
static int read_pool(uint32_t pid, uint64_t address, struct pool *pool)
{
	const uint32_t sizes[] = {POOL_BYTES_MAX, POOL_BYTES_MIN};

	for (uint32_t i = 0; i < 2; i++) {
		pool->address = address & ~(uint64_t)(sizes[i] - 1);
		for (uint32_t reads = 0; reads < POOL_READS_MAX; reads++) {
			int64_t got = mw_remote_read(pid, pool->address, pool->copy.bytes, sizes[i]);

			pool->pool_bytes = 0;
			if (got < 0 && got != -EFAULT)
				return (int)got;
			if (got != sizes[i] || !is_pool(pool, sizes[i]))
				break;
			pool->is_torn = !walk_free_list(pool);
			if (!pool->is_torn)
				return 0;
		}
		if (pool->pool_bytes)
			return 0;
	}
	return 0;
}

/* PYTHONMALLOC=debug, or a debug build: 16 bytes in front of what the caller
 * got, the first 8 of which are the size asked for, big-endian. */
static bool is_debug_block(const struct pool *pool, uint64_t offset, const struct mw_block *block)
{
	uint64_t size_bytes;

	if (offset % pool->block_bytes != 16)
		return false;
	memcpy(&size_bytes, &pool->copy.bytes[POOL_HEADER_BYTES + offset - 16], sizeof(size_bytes));
	return __builtin_bswap64(size_bytes) == block->size_bytes;
}

static bool is_class_of(const struct pool *pool, uint64_t size_bytes)
{
	uint32_t step = pool->block_bytes / (pool->copy.header.szidx + 1);
	uint64_t rounded = size_bytes ? (size_bytes + step - 1) / step * step : step;

	return rounded == pool->block_bytes;
}

static void audit_block(const struct pool *pool, struct mw_block *block, struct mw_audit_report *report)
{
	uint64_t offset = block->address - pool->address - POOL_HEADER_BYTES;
	uint64_t index = offset / pool->block_bytes, words[MW_AUDIT_WORDS] = {0}, readable;

	if (block->address < pool->address + POOL_HEADER_BYTES)
		return; /* in the header: never handed out by this pool */
	if (pool->is_torn) {
		report->pools_torn++;
		block->state = MW_SETTLED_UNKNOWN;
		return;
	}
	report->pools_exact++;
	/* Not the start or the size of its blocks: the pool was empty in between
	 * and serves another size now. */
	if (index >= pool->block_count || mw_pool_is_free(pool->free, index) ||
	    !(offset % pool->block_bytes ? is_debug_block(pool, offset, block)
					 : is_class_of(pool, block->size_bytes))) {
		block->state = MW_SETTLED_FREED;
		return;
	}
	readable = pool->pool_bytes - POOL_HEADER_BYTES - offset;
	memcpy(words, &pool->copy.bytes[POOL_HEADER_BYTES + offset],
	       readable < sizeof(words) ? readable : sizeof(words));
	mw_audit_alive(block, words, report);
}

int mw_audit_pools(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		   struct mw_audit_report *report)
{
	struct pool pool = {0};

	for (uint32_t i = 0; i < count; i++) {
		uint64_t address = blocks[i]->address;

		if (!pool.pool_bytes || address - pool.address >= pool.pool_bytes) {
			int result = read_pool(target->pid, address, &pool);

			if (result)
				return result;
		}
		if (pool.pool_bytes)
			audit_block(&pool, blocks[i], report);
	}
	return 0;
}
