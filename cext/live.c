/* live.c - linear probing with backward-shift deletion: no tombstones, so the
 * table is as fast after a billion frees as on the first day. */

#include "live.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "mix.h"

struct mw_live {
	struct mw_block *slots; /* address 0: empty (no allocator returns it as a block) */
	uint32_t slot_count;
	uint32_t count;
	uint32_t blocks_max;
};

struct mw_live *mw_live_create(uint32_t blocks_max)
{
	struct mw_live *live;

	/* More would not fit the 32-bit slot numbers once a quarter is added. */
	if (!blocks_max || blocks_max > UINT32_MAX / 2)
		return NULL;
	live = calloc(1, sizeof(*live));
	if (!live)
		return NULL;
	live->blocks_max = blocks_max;
	live->slot_count = mw_slots_for(blocks_max);
	live->slots = calloc(live->slot_count, sizeof(*live->slots));
	if (!live->slots) {
		free(live);
		return NULL;
	}
	return live;
}

void mw_live_destroy(struct mw_live *live)
{
	if (!live)
		return;
	free(live->slots);
	free(live);
}

static uint32_t home_of(const struct mw_live *live, uint32_t pid, uint64_t address)
{
	return mw_spread(mw_mix(address ^ ((uint64_t)pid << 40)), live->slot_count);
}

static uint32_t next_of(const struct mw_live *live, uint32_t slot)
{
	return slot + 1 == live->slot_count ? 0 : slot + 1;
}

/* The slot that holds the block, or the empty one where it would go. */
static uint32_t slot_of(const struct mw_live *live, uint32_t pid, uint64_t address)
{
	uint32_t slot = home_of(live, pid, address);

	while (live->slots[slot].address && (live->slots[slot].address != address || live->slots[slot].pid != pid))
		slot = next_of(live, slot);
	return slot;
}

int mw_live_add(struct mw_live *live, const struct mw_block *block, struct mw_block *ret_replaced)
{
	struct mw_block *slot;

	if (!block->address)
		return -ENOSPC;
	slot = &live->slots[slot_of(live, block->pid, block->address)];
	if (slot->address) {
		*ret_replaced = *slot;
		*slot = *block;
		slot->reuses = ret_replaced->reuses + 1;
		return 1;
	}
	if (live->count == live->blocks_max)
		return -ENOSPC;
	*slot = *block;
	live->count++;
	return 0;
}

/* Empty a slot and pull back the blocks that had to pass it, so that every
 * block stays reachable from its home without a gap. */
static void vacate(struct mw_live *live, uint32_t hole)
{
	uint32_t slot = hole;

	for (;;) {
		uint32_t home, distance, gap;

		slot = next_of(live, slot);
		if (!live->slots[slot].address)
			break;
		home = home_of(live, live->slots[slot].pid, live->slots[slot].address);
		distance = slot >= home ? slot - home : slot + live->slot_count - home;
		gap = slot >= hole ? slot - hole : slot + live->slot_count - hole;
		if (distance < gap)
			continue; /* its home lies behind the hole: it may not move before it */
		live->slots[hole] = live->slots[slot];
		hole = slot;
	}
	live->slots[hole] = (struct mw_block){0};
	live->count--;
}

int mw_live_remove(struct mw_live *live, uint32_t pid, uint64_t address, struct mw_block *ret)
{
	uint32_t slot;

	if (!address)
		return -ENOENT;
	slot = slot_of(live, pid, address);
	if (!live->slots[slot].address)
		return -ENOENT;
	*ret = live->slots[slot];
	vacate(live, slot);
	return 0;
}

struct mw_block *mw_live_find(struct mw_live *live, uint32_t pid, uint64_t address)
{
	struct mw_block *slot;

	if (!address)
		return NULL;
	slot = &live->slots[slot_of(live, pid, address)];
	return slot->address ? slot : NULL;
}

uint32_t mw_live_forget(struct mw_live *live, uint32_t pid)
{
	uint32_t forgotten = 0, start = 0;

	/* vacate() pulls blocks from later slots, as far as the next empty one.
	 * Begun behind an empty slot, none can slip into a slot already seen. */
	while (live->slots[start].address)
		start = next_of(live, start);
	for (uint32_t step = 0, slot = start; step < live->slot_count; step++, slot = next_of(live, slot)) {
		while (live->slots[slot].address && live->slots[slot].pid == pid) {
			vacate(live, slot);
			forgotten++;
		}
	}
	return forgotten;
}

uint32_t mw_live_walk(const struct mw_live *live, uint32_t pid, uint64_t since_ns, uint64_t until_ns, uint32_t *cursor,
		      struct mw_block *blocks, uint32_t count)
{
	uint32_t found = 0;

	while (*cursor < live->slot_count && found < count) {
		const struct mw_block *block = &live->slots[(*cursor)++];

		if (block->address && (!pid || block->pid == pid) && block->time_ns >= since_ns &&
		    block->time_ns < until_ns)
			blocks[found++] = *block;
	}
	return found;
}

uint32_t mw_live_count(const struct mw_live *live)
{
	return live->count;
}
