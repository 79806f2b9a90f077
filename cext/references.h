/* references.h - the inside of an open search, and what a hit in it means.
 *
 * holders.c finds words; references.c says whose they are.  For the two of them
 * only: callers see holders.h. */

#ifndef MW_REFERENCES_H
#define MW_REFERENCES_H

#include "holders.h"
#include "pools.h"

enum {
	MW_SAMPLES_MAX = 4096,
	MW_DEQUE_BLOCK_WORDS = 66,
	MW_FILTER_BITS = 1 << 16,
};

enum table_kind {
	TABLE_LIST = 1,
	TABLE_KEYS,
	TABLE_VALUES,
	TABLE_SET,
	TABLE_DEQUE,
	TABLE_TUPLE, /* the object itself, too long to look back over */
};

struct table {
	uint64_t start;
	uint64_t owner;
	uint64_t end_kind; /* bytes << 8 | enum table_kind */
};

/* A word that equals a target, and whose memory it lies in as far as the chunk showed it. */
struct hit {
	uint64_t location;
	uint64_t target;
	uint64_t object; /* it lies in this object; or 0 */
	uint64_t block;	 /* else: in this block of a pool; or 0 */
	uint64_t block_bytes;
	uint32_t flags; /* of the mapping */
	uint32_t reserved;
};

struct mw_holders {
	struct mw_regions *regions;
	struct mw_types *types;
	struct table *tables;
	struct mw_reference *references;
	struct hit *hits;
	uint64_t *targets; /* hash table of what is searched for */
	uint64_t target_slots;
	uint64_t low, span; /* all targets lie in [low, low + span] */
	uint64_t mask;	    /* bits of a word that are no tag */
	uint64_t wanted;
	uint64_t wanted_objects;
	uint64_t pools;
	uint64_t random;
	uint64_t skip_until;
	uint64_t tables_capacity;
	uint64_t samples[MW_SAMPLES_MAX];
	uint32_t sample_count, sample_limit;
	uint32_t table_count;
	uint32_t hit_count, reference_count;
	struct mw_pool_marks pool; /* that the last hit lay in */
	int all_tables;		   /* no pools: small tables too */
	const struct mw_mapping *mapping;
	struct mw_holders_totals totals;
	uint8_t filter[MW_FILTER_BITS / 8];
};

/* Fill in a reference that lies in the body of object. */
void mw_reference_in_object(struct mw_holders *holders, struct mw_reference *reference, uint64_t object);

/* Fill in a hit that no object's body explains: a large table, a frame, a deque, C. */
void mw_reference_in_raw(struct mw_holders *holders, struct mw_reference *reference, uint32_t flags);

/* A block of a pool that is no object and holds a word we look for. */
struct small_table {
	uint64_t block;
	uint64_t owner;	 /* 0 until a pointer to the block was found */
	uint64_t values; /* that pointer, if it means values; else 0 */
	uint64_t keys;
	uint32_t kind; /* enum table_kind */
	uint32_t reserved;
};

/* Fill in a reference that lies in such a block; table NULL: nobody knows it. */
void mw_reference_in_small(struct mw_holders *holders, struct mw_reference *reference, const struct small_table *table);

#endif
