/* starts.h - at which addresses an object begins: a bit for every 16 bytes.
 *
 * Leaves of 8 KiB stand for 1 MiB of the process each, made where something
 * begins; so ten million objects in a gigabyte cost 8 MiB, and the question "is
 * this word a reference?" costs one lookup.  Bounded at creation.  Knows no
 * process and no interpreter. */

#ifndef MW_STARTS_H
#define MW_STARTS_H

#include "pyobject.h"

#include <stdint.h>

enum {
	MW_LEAF_BYTES = 1 << 20,		 /* of the process */
	MW_LEAF_WORDS = MW_LEAF_BYTES / 16 / 64, /* of the bitmap */
	MW_STARTS_RECENT = 256,
};

struct mw_starts {
	uint64_t *leaves; /* MW_LEAF_WORDS each */
	uint64_t *slots;  /* hash table: (leaf's address >> 20) << 24 | index + 1 */
	uint64_t low, high;
	uint64_t count;
	uint64_t untracked_total; /* starts beyond the last leaf */
	uint32_t leaf_count, leaf_max, slot_mask;
	struct {
		uint64_t number; /* address >> 20 */
		uint64_t *bits;	 /* NULL: nothing begins there */
	} recent[MW_STARTS_RECENT];
};

/* Room for leaves_max leaves, at most 2^20; pages of it that are not used cost nothing.
 * Return 0, -EINVAL or -ENOMEM. */
int mw_starts_init(struct mw_starts *starts, uint32_t leaves_max);
void mw_starts_deinit(struct mw_starts *starts);

/* Mark an address, a multiple of 16.  Return 0, or -ENOSPC: it is counted, and not marked. */
int mw_starts_add(struct mw_starts *starts, uint64_t address);

/* The bits of the leaf that address lies in, or NULL. */
uint64_t *mw_starts_leaf(struct mw_starts *starts, uint64_t address);

static inline int mw_starts_has(struct mw_starts *starts, uint64_t word)
{
	uint64_t number = word >> 20, *bits, slot = (number ^ number >> 8) & (MW_STARTS_RECENT - 1);

	if ((word & 15) || word < starts->low || word > starts->high)
		return 0;
	if (starts->recent[slot].number != number) {
		starts->recent[slot].bits = mw_starts_leaf(starts, word);
		starts->recent[slot].number = number;
	}
	bits = starts->recent[slot].bits;
	return bits && (bits[(word & (MW_LEAF_BYTES - 1)) >> 10] >> (word >> 4 & 63) & 1);
}

#endif
