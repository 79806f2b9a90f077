/* chunks.h - the inside of a reading of arenas, and the chunks of one heap.
 *
 * arenas.c finds arenas and heaps; chunks.c walks what lies in them.  For the
 * two of them only: callers see arenas.h. */

#ifndef MW_CHUNKS_H
#define MW_CHUNKS_H

#include "arenas.h"

#include <string.h>

enum {
	MW_BIN_WORDS = 254,
	MW_FAST_BINS = 10,
	MW_LIST_CHUNKS_MAX = 4 << 20, /* followed along lists in one reading */
	MW_WINDOW_BYTES_MAX = 1 << 20,
	MW_WINDOW_BYTES_MIN = MW_PAGE_BYTES,
	MW_CACHE_LINES = 64,
	MW_CACHE_LINE_BYTES = 1 << 16,
	MW_SIZE_FLAGS = 7,
};

/* One struct malloc_state. */
struct state {
	uint64_t address;
	uint64_t top;
	uint64_t next;
	uint64_t system_bytes;
	uint64_t attached_threads;
	uint64_t fast[MW_FAST_BINS];
	uint64_t end; /* of the struct */
};

struct line {
	uint64_t address; /* plus 1; 0: empty */
	uint64_t bytes;
};

struct mw_arenas {
	struct mw_regions *regions;
	const struct mw_budget *budget;
	struct mw_arena *list;
	struct state *states;
	struct mw_heap *heaps;
	uint8_t *window; /* of the sequential walk */
	uint8_t *cache;	 /* lines for following lists */
	struct line lines[MW_CACHE_LINES];
	uint64_t window_start, window_bytes, window_wanted;
	const uint64_t *asked; /* by mw_arenas_mark_free(): the walk marks, and counts nothing */
	uint8_t *marks;
	uint32_t asked_count;
	uint64_t bin_bytes[MW_BINS];
	uint64_t bin_chunks[MW_BINS];
	uint32_t offset; /* one of state_offsets */
	uint32_t count;
	uint32_t heap_count;
	int is_broken; /* a list of arenas began well and did not close */
	struct mw_arenas_totals totals;
};

static inline uint64_t word(const void *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

int mw_arenas_is_writable(struct mw_arenas *arenas, uint64_t address);

/* Where from address on, below end, some sane chunks follow one another; end if nowhere. */
uint64_t mw_chunks_resync(struct mw_arenas *arenas, uint64_t address, uint64_t end);

/* The index of the first address asked for that is not below address; asked_count if none. */
uint32_t mw_chunks_first_asked(const struct mw_arenas *arenas, uint64_t address);

/* Mark the addresses asked for that lie in [start, end). */
void mw_chunks_mark(struct mw_arenas *arenas, uint64_t start, uint64_t end);

/* Walk the chunks of [start, end), adding what is free to arena; return the bytes that were covered. */
uint64_t mw_chunks_walk(struct mw_arenas *arenas, struct mw_arena *arena, uint64_t start, uint64_t end);

/* Add the chunks of a fast bin; followed counts those of all lists. */
void mw_chunks_follow_fast(struct mw_arenas *arenas, uint32_t index, uint64_t chunk, uint64_t *followed);

/* Take the free chunks of an arena from its bins, where its heaps could not be walked. */
void mw_chunks_follow_bins(struct mw_arenas *arenas, uint32_t index, uint64_t *followed);

#endif
