/* live.h - the simple blocks that are live: those that are freed whole.
 *
 * A bounded open-addressing table from (pid, address) to what must be known
 * when the block is freed or audited.  Knows no event, no site's meaning and
 * no clock; blocks that may be freed in part are in ranges.h. */

#ifndef MW_LIVE_H
#define MW_LIVE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_live;

/* What an audit said of a block. */
enum mw_settlement {
	MW_SETTLED_NOT = 0, /* no audit has looked at it */
	MW_SETTLED_ALIVE = 1,
	MW_SETTLED_FREED = 2,
	MW_SETTLED_UNKNOWN = 3, /* it looked and could not tell */
};

/* One remembered block. */
struct mw_block {
	uint64_t address;
	uint64_t size_bytes;   /* as asked for */
	uint64_t weight_bytes; /* what the sample stands for */
	uint64_t time_ns;      /* CLOCK_MONOTONIC, of the allocation: with pid and address, the identity */
	uint32_t pid;
	uint32_t site;		 /* index into sites.h; 0: the site could not be kept */
	uint16_t domain;	 /* enum mw_domain */
	uint16_t state;		 /* enum mw_settlement */
	uint32_t reuses;	 /* how often this address was returned before this time: each a free in between */
	uint16_t fingerprint[8]; /* of its first words when an audit first saw it; all 0: not taken */
};

/* An empty table that will hold at most blocks_max blocks (78 bytes each, taken
 * at creation), or NULL if there is no memory for it.  It never grows: a
 * watchdog for leaks must not be the one that leaks. */
struct mw_live *mw_live_create(uint32_t blocks_max);
void mw_live_destroy(struct mw_live *live);

/* Record a block.  If one is live at its address already we missed its free
 * (or nobody watches frees): the old one is copied to *ret_replaced, and the
 * new one carries its count of reuses on.
 *
 * Return 0, 1 if a block was replaced, or -ENOSPC if the table is full; the
 * block is then not tracked. */
int mw_live_add(struct mw_live *live, const struct mw_block *block, struct mw_block *ret_replaced);

/* Take the block at address out of the table and copy it to *ret.  Return 0,
 * or -ENOENT if none is live there. */
int mw_live_remove(struct mw_live *live, uint32_t pid, uint64_t address, struct mw_block *ret);

/* The block at address, or NULL.  It is the table's, valid until the next
 * add, remove or forget; everything but pid and address may be written. */
struct mw_block *mw_live_find(struct mw_live *live, uint32_t pid, uint64_t address);

/* Forget every block of pid (it ended, or runs another program); return how many. */
uint32_t mw_live_forget(struct mw_live *live, uint32_t pid);

/* Walk: copy up to count blocks of pid (0: of everyone) allocated in
 * [since_ns, until_ns) to blocks, starting at slot *cursor (0 at first), and
 * move the cursor behind the last one looked at.  Return how many; 0 when the
 * table's end was reached.  Adds and removals in between may hide a block from
 * the walk or show it twice, never invent one. */
uint32_t mw_live_walk(const struct mw_live *live, uint32_t pid, uint64_t since_ns, uint64_t until_ns, uint32_t *cursor,
		      struct mw_block *blocks, uint32_t count);

uint32_t mw_live_count(const struct mw_live *live);

#endif
