#include "starts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int mw_starts_init(struct mw_starts *starts, uint32_t leaves_max)
{
	uint32_t slots = 1024;

	memset(starts, 0, sizeof(*starts));
	if (!leaves_max || leaves_max > 1 << 20)
		return -EINVAL;
	while (slots < 2 * leaves_max)
		slots *= 2;
	starts->leaf_max = leaves_max;
	starts->slot_mask = slots - 1;
	starts->low = UINT64_MAX;
	starts->leaves = calloc((uint64_t)leaves_max * MW_LEAF_WORDS, sizeof(*starts->leaves));
	starts->slots = calloc(slots, sizeof(*starts->slots));
	if (!starts->leaves || !starts->slots) {
		mw_starts_deinit(starts);
		return -ENOMEM;
	}
	return 0;
}

void mw_starts_deinit(struct mw_starts *starts)
{
	free(starts->leaves);
	free(starts->slots);
	starts->leaves = starts->slots = NULL;
}

static uint32_t slot_of(const struct mw_starts *starts, uint64_t number)
{
	uint32_t slot = (uint32_t)mw_hash(number) & starts->slot_mask;

	while (starts->slots[slot] && starts->slots[slot] >> 24 != number)
		slot = (slot + 1) & starts->slot_mask;
	return slot;
}

uint64_t *mw_starts_leaf(struct mw_starts *starts, uint64_t address)
{
	uint64_t found;

	if (address >> 47)
		return NULL;
	found = starts->slots[slot_of(starts, address >> 20)];
	return found ? starts->leaves + ((found & 0xffffff) - 1) * MW_LEAF_WORDS : NULL;
}

int mw_starts_add(struct mw_starts *starts, uint64_t address)
{
	uint64_t *bits = mw_starts_leaf(starts, address), mask = 1ULL << (address >> 4 & 63), *word;

	if (!bits) {
		if (starts->leaf_count == starts->leaf_max || address >> 47) {
			starts->untracked_total++;
			return -ENOSPC;
		}
		starts->slots[slot_of(starts, address >> 20)] = address >> 20 << 24 | ++starts->leaf_count;
		bits = mw_starts_leaf(starts, address);
		/* a "nothing there" may have been remembered */
		memset(starts->recent, 0, sizeof(starts->recent));
	}
	word = &bits[(address & (MW_LEAF_BYTES - 1)) >> 10];
	starts->count += !(*word & mask);
	*word |= mask;
	starts->low = address < starts->low ? address : starts->low;
	starts->high = address > starts->high ? address : starts->high;
	return 0;
}
