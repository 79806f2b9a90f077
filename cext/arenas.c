#include "chunks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	BINS_BYTES = MW_BIN_WORDS * 8,
	STATE_AFTER_BINS = BINS_BYTES + 16, /* binmap */
	STATE_BYTES = 2400,
	SEARCH_BYTES = 1 << 20,
	GROWN_BYTES_MAX = 1 << 30,
};

/* Where the bins begin in struct malloc_state: 2.27 and later; before that,
 * without have_fastchunks; without fast bins (2.43), with and without it. */
static const uint32_t state_offsets[] = {112, 104, 24, 32};

int mw_arenas_is_writable(struct mw_arenas *arenas, uint64_t address)
{
	const struct mw_mapping *mapping = mw_regions_find(arenas->regions, address);

	return mapping && (mapping->flags & MW_MAPPING_WRITE);
}

/* Bounds of what the kernel called [heap] when the regions were opened; 0 if there is none. */
static uint64_t heap_bounds(const struct mw_arenas *arenas, uint64_t *end)
{
	const struct mw_mapping *mapping;
	uint64_t start = 0;

	*end = 0;
	for (uint32_t i = 0; (mapping = mw_regions_mapping(arenas->regions, i)); i++) {
		if (!(mapping->flags & MW_MAPPING_HEAP))
			continue;
		start = start ? start : mapping->start;
		*end = mapping->end;
	}
	return start;
}

/* Whether main_arena has grown since then: a busy program does so all the time. */
static int has_outgrown(const struct mw_arenas *arenas, uint64_t top)
{
	uint64_t end;

	return heap_bounds(arenas, &end) && top >= end && top - end < GROWN_BYTES_MAX;
}

/* Decode the struct whose bins begin at offset; the addresses in it must make sense. */
static int read_state(struct mw_arenas *arenas, uint64_t address, uint32_t offset, struct state *ret)
{
	uint8_t body[STATE_BYTES];
	int64_t got = mw_regions_read(arenas->regions, address, body, sizeof(body));
	const uint8_t *after = body + offset + STATE_AFTER_BINS;
	uint32_t fast_offset = offset == 112 ? 16 : 8;
	uint64_t first, second, third;

	if (got < (int64_t)(offset + STATE_AFTER_BINS + 48))
		return 0;
	*ret = (struct state){.address = address, .top = word(body + offset - 16), .next = word(after)};
	/* next, next_free, attached_threads (since 2.23), system_mem, max_system_mem */
	first = word(after + 16);
	second = word(after + 24);
	third = word(after + 32);
	if (first >= MW_PAGE_BYTES && first % MW_PAGE_BYTES == 0 && second >= first) {
		ret->system_bytes = first;
		ret->end = address + offset + STATE_AFTER_BINS + 32;
	} else {
		ret->attached_threads = first;
		ret->system_bytes = second;
		ret->end = address + offset + STATE_AFTER_BINS + 40;
		if (third < second || first > 1 << 24)
			return 0;
	}
	if (offset >= 104)
		memcpy(ret->fast, body + fast_offset, sizeof(ret->fast));
	return ret->system_bytes % MW_PAGE_BYTES == 0 && ret->system_bytes >> 47 == 0 && ret->top % 16 == 0 &&
	       (mw_arenas_is_writable(arenas, ret->top) || has_outgrown(arenas, ret->top)) && !(ret->next & 7) &&
	       mw_arenas_is_writable(arenas, ret->next);
}

/* Collect the arenas by their next links, which must come back to the first.
 * A link to what was not there yet when the pagemap was read (a thread has just
 * begun an arena) is noted: the caller should look again. */
static int read_chain(struct mw_arenas *arenas, uint64_t address, uint32_t offset)
{
	uint64_t at = address;

	arenas->count = 0;
	do {
		if (arenas->count == MW_ARENAS_MAX)
			return 0;
		if (!read_state(arenas, at, offset, &arenas->states[arenas->count])) {
			arenas->is_broken |= arenas->count > 0;
			return 0;
		}
		at = arenas->states[arenas->count++].next;
	} while (at != address);
	arenas->offset = offset;
	return 1;
}

/* An empty bin at address points twice at where a chunk would begin whose links it is. */
static int find_in_chunk(struct mw_arenas *arenas, const uint8_t *chunk, uint64_t address, uint64_t bytes)
{
	for (uint64_t i = 0; i + 16 <= bytes; i += 8) {
		uint64_t bin = address + i;

		if (word(chunk + i) != bin - 16 || word(chunk + i + 8) != bin - 16)
			continue;
		for (uint64_t k = 0; k < MW_BIN_WORDS / 2; k++) {
			uint64_t bins = bin - 16 * k, place = bins - address + STATE_AFTER_BINS;

			/* the cheap questions first, of bytes already here */
			if (bins < address || place + 8 > bytes || (word(chunk + place) & 7) ||
			    !mw_arenas_is_writable(arenas, word(chunk + place)))
				continue;
			for (uint32_t o = 0; o < sizeof(state_offsets) / sizeof(state_offsets[0]); o++)
				if (read_chain(arenas, bins - state_offsets[o], state_offsets[o]))
					return 1;
		}
		/* The other bins of this struct would only say the same. */
		i += BINS_BYTES;
	}
	return 0;
}

static int find_main(struct mw_arenas *arenas, uint64_t start, uint64_t end)
{
	uint8_t *chunk = malloc(SEARCH_BYTES);
	uint64_t low, high;
	int found = 0;

	if (!chunk)
		return -ENOMEM;
	while (!found && mw_regions_next(arenas->regions, start, end, &low, &high)) {
		uint64_t wanted = high - low < SEARCH_BYTES ? high - low : SEARCH_BYTES;
		int64_t got = mw_regions_read(arenas->regions, low, chunk, wanted);

		if (got > 0)
			found = find_in_chunk(arenas, chunk, low, (uint64_t)got);
		/* a struct that straddles two chunks is seen whole in the second */
		start = low + wanted >= high ? high : low + wanted - STATE_BYTES;
	}
	free(chunk);
	if (found)
		return 0;
	return arenas->is_broken ? -EAGAIN : -ENOENT;
}

/* ---- malloc's own count of mapped chunks, in struct malloc_par */

/* Take it if the words before sbrk_base make sense as: n_mmaps, n_mmaps_max,
 * max_n_mmaps, no_dyn_threshold (ints), mmapped_mem, max_mmapped_mem, and up
 * to 2.23 max_total_mem.  Since 2.35 an int lies in front of the ints. */
static int take_par(struct mw_arenas *arenas, const uint8_t *sbrk_base)
{
	static const struct {
		uint32_t ints, sums;
	} shapes[] = {{36, 16}, {32, 16}, {40, 24}};

	for (uint32_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		uint64_t bytes = word(sbrk_base - shapes[s].sums), bytes_max = word(sbrk_base - shapes[s].sums + 8);
		int32_t ints[4]; /* now, limit, most so far, whether the threshold is fixed */

		memcpy(ints, sbrk_base - shapes[s].ints, sizeof(ints));
		if (ints[0] < 0 || ints[0] > ints[2] || ints[2] > ints[1] || ints[1] < 1 || ints[3] < 0 ||
		    ints[3] > 1 || bytes % MW_PAGE_BYTES || bytes > bytes_max || (ints[0] == 0) != (bytes == 0) ||
		    bytes_max >> 47)
			continue;
		arenas->totals.has_mmapped = 1;
		arenas->totals.mmapped_bytes = bytes;
		arenas->totals.mmapped_chunks = (uint64_t)ints[0];
		return 1;
	}
	return 0;
}

static void find_mmapped(struct mw_arenas *arenas, uint64_t start, uint64_t end)
{
	enum { FRONT = 40 };
	const struct mw_mapping *heap = NULL, *mapping;
	uint8_t *chunk = malloc(SEARCH_BYTES);
	uint64_t low, high;
	int found = 0;

	for (uint32_t i = 0; !heap && (mapping = mw_regions_mapping(arenas->regions, i)); i++)
		heap = mapping->flags & MW_MAPPING_HEAP ? mapping : NULL;
	while (chunk && heap && !found && mw_regions_next(arenas->regions, start, end, &low, &high)) {
		uint64_t wanted = high - low < SEARCH_BYTES ? high - low : SEARCH_BYTES;
		int64_t got = mw_regions_read(arenas->regions, low, chunk, wanted);

		for (int64_t i = FRONT; !found && i + 8 <= got; i += 8) {
			/* sbrk_base is where the heap begins, but for alignment */
			uint64_t base = word(chunk + i);

			if (base >= heap->start && base < heap->start + MW_PAGE_BYTES)
				found = take_par(arenas, chunk + i);
		}
		start = low + wanted;
	}
	free(chunk);
}

/* ---- heaps */

static void add_heap(struct mw_arenas *arenas, uint64_t start, uint64_t end, uint32_t arena)
{
	if (arenas->heap_count == MW_HEAPS_MAX) {
		arenas->totals.heaps_untracked_total++;
		return;
	}
	arenas->heaps[arenas->heap_count++] = (struct mw_heap){start, end, arena, 0};
	arenas->list[arena].heaps++;
	arenas->list[arena].anon_bytes += mw_regions_anon_bytes(arenas->regions, start, end);
}

/* main_arena grows by brk; where that failed it has mapped pieces that nothing lists. */
static void find_main_heap(struct mw_arenas *arenas)
{
	uint64_t end, start = heap_bounds(arenas, &end);

	if (start)
		add_heap(arenas, start, end, 0);
}

/* The other arenas have heaps aligned to their greatest size, each with its
 * arena, the heap before it and its size at the start. */
static void find_heaps(struct mw_arenas *arenas, uint32_t arena)
{
	/* 64 MiB; other powers where huge pages were tuned in (2.35) */
	static const uint32_t shifts[] = {26, 27, 28, 29, 30, 31, 25, 24, 23, 22, 21, 20};

	for (uint32_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
		uint64_t at = arenas->states[arena].top & ~((1ULL << shifts[s]) - 1), info[3];
		uint32_t found = 0;

		while (at && found < MW_HEAPS_MAX &&
		       mw_regions_read(arenas->regions, at, info, sizeof(info)) == sizeof(info) &&
		       info[0] == arenas->states[arena].address && info[2] >= MW_PAGE_BYTES &&
		       info[2] <= 1ULL << shifts[s] && !(info[1] & ((1ULL << shifts[s]) - 1))) {
			add_heap(arenas, at, at + info[2], arena);
			found++;
			at = info[1];
		}
		if (found)
			return;
	}
}

static int compare_heaps(const void *left, const void *right)
{
	uint64_t a = ((const struct mw_heap *)left)->start, b = ((const struct mw_heap *)right)->start;

	return a < b ? -1 : a > b;
}

/* Hostile heap lists may overlap: each address is walked once. */
static void sort_heaps(struct mw_arenas *arenas)
{
	uint32_t kept = 0;

	qsort(arenas->heaps, arenas->heap_count, sizeof(*arenas->heaps), compare_heaps);
	for (uint32_t i = 0; i < arenas->heap_count; i++) {
		if (kept && arenas->heaps[i].start < arenas->heaps[kept - 1].end)
			continue;
		arenas->heaps[kept++] = arenas->heaps[i];
	}
	arenas->heap_count = kept;
}

/* ---- all together */

static void measure_top(struct mw_arenas *arenas, uint32_t index)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t top = arenas->states[index].top;
	uint8_t header[16];

	if (!index && has_outgrown(arenas, top)) {
		/* told as it was when the regions were opened, like all else */
		uint64_t end, start = heap_bounds(arenas, &end);

		arena->system_bytes = end - start;
		return;
	}
	/* before the first chunk of a new arena, top points into the struct itself */
	if (mw_regions_read(arenas->regions, top, header, sizeof(header)) != sizeof(header))
		return;
	arena->top_bytes = word(header + 8) & ~(uint64_t)MW_SIZE_FLAGS;
	if (arena->top_bytes > arena->system_bytes)
		arena->top_bytes = 0;
	arena->top_anon_bytes = mw_regions_anon_bytes(arenas->regions, top, top + arena->top_bytes);
	arena->free_anon_bytes += arena->top_anon_bytes;
	/* malloc_trim() cuts main_arena's top, and no other */
	if (!index)
		arena->trim_bytes += arena->top_anon_bytes & ~(uint64_t)(MW_PAGE_BYTES - 1);
}

static void walk_heap(struct mw_arenas *arenas, const struct mw_heap *heap, uint64_t *covered)
{
	struct mw_arena *arena = &arenas->list[heap->arena];
	const struct state *state = &arenas->states[heap->arena];
	uint64_t start = heap->start, end = heap->end;

	/* The chunk before top is never free: the two would be one. */
	if (state->top >= heap->start && state->top < heap->end)
		end = state->top;
	if (!heap->arena) {
		start = mw_chunks_resync(arenas, heap->start, end);
	} else if (state->address >= heap->start && state->address < heap->end) {
		start = (state->end + 15) & ~15ULL;
	} else {
		/* behind struct heap_info, which grew in 2.35 */
		start = mw_chunks_resync(arenas, heap->start + 32, end);
	}
	covered[heap->arena] += start - heap->start;
	covered[heap->arena] += mw_chunks_walk(arenas, arena, start, end);
}

void mw_arenas_mark_free(struct mw_arenas *arenas, const struct mw_budget *budget, const uint64_t *addresses,
			 uint32_t count, uint8_t *ret)
{
	uint64_t *covered = calloc(arenas->count, sizeof(*covered));

	memset(ret, 0, count);
	if (!covered)
		return; /* nothing is told to be free */
	arenas->budget = budget;
	arenas->asked = addresses;
	arenas->asked_count = count;
	arenas->marks = ret;
	arenas->window_bytes = 0; /* what it holds may have changed since */
	for (uint32_t i = 0; i < arenas->count; i++)
		mw_chunks_mark(arenas, arenas->states[i].top, arenas->states[i].top + arenas->list[i].top_bytes);
	for (uint32_t i = 0; i < arenas->heap_count && !arenas->totals.stopped; i++) {
		uint32_t first = mw_chunks_first_asked(arenas, arenas->heaps[i].start);

		if (first < count && addresses[first] < arenas->heaps[i].end)
			walk_heap(arenas, &arenas->heaps[i], covered);
	}
	arenas->asked = NULL;
	arenas->budget = NULL;
	free(covered);
}

static int read_all(struct mw_arenas *arenas)
{
	uint64_t *covered = calloc(arenas->count, sizeof(*covered)), followed = 0;

	if (!covered)
		return -ENOMEM;
	for (uint32_t i = 0; i < arenas->count; i++) {
		arenas->list[i].address = arenas->states[i].address;
		arenas->list[i].system_bytes = arenas->states[i].system_bytes;
		arenas->list[i].attached_threads = arenas->states[i].attached_threads;
		if (i)
			find_heaps(arenas, i);
		else
			find_main_heap(arenas);
		measure_top(arenas, i);
	}
	sort_heaps(arenas);
	for (uint32_t i = 0; i < arenas->heap_count && !arenas->totals.stopped; i++)
		walk_heap(arenas, &arenas->heaps[i], covered);
	for (uint32_t i = 0; i < arenas->count && !arenas->totals.stopped; i++) {
		struct mw_arena *arena = &arenas->list[i];
		uint64_t seen = covered[i] + arena->top_bytes, free_bytes;

		arena->unwalked_bytes = seen < arena->system_bytes ? arena->system_bytes - seen : 0;
		if (arena->unwalked_bytes > arena->system_bytes / 256)
			mw_chunks_follow_bins(arenas, i, &followed);
		for (uint32_t f = 0; f < MW_FAST_BINS && !arenas->totals.stopped; f++)
			mw_chunks_follow_fast(arenas, i, arenas->states[i].fast[f], &followed);
		free_bytes = arena->top_bytes + arena->free_bytes + arena->fast_bytes;
		if (arena->free_anon_bytes > arena->anon_bytes)
			arena->free_anon_bytes = arena->anon_bytes;
		arenas->totals.system_bytes += arena->system_bytes;
		arenas->totals.in_use_bytes += free_bytes < arena->system_bytes ? arena->system_bytes - free_bytes : 0;
	}
	free(covered);
	return 0;
}

int mw_arenas_read(struct mw_regions *regions, uint64_t start, uint64_t end, const struct mw_budget *budget,
		   struct mw_arenas **ret)
{
	uint64_t begin_ns = mw_now_ns();
	struct mw_arenas *arenas = calloc(1, sizeof(*arenas));
	int rc = 0;

	if (!arenas)
		return -ENOMEM;
	arenas->regions = regions;
	arenas->budget = budget;
	arenas->window_wanted = MW_WINDOW_BYTES_MIN;
	arenas->states = calloc(MW_ARENAS_MAX, sizeof(*arenas->states));
	arenas->heaps = calloc(MW_HEAPS_MAX, sizeof(*arenas->heaps));
	arenas->window = malloc(MW_WINDOW_BYTES_MAX);
	arenas->cache = malloc((uint64_t)MW_CACHE_LINES * MW_CACHE_LINE_BYTES);
	if (!arenas->states || !arenas->heaps || !arenas->window || !arenas->cache)
		rc = -ENOMEM;
	if (!rc)
		rc = find_main(arenas, start, end);
	if (!rc) {
		arenas->list = calloc(arenas->count, sizeof(*arenas->list));
		rc = arenas->list ? 0 : -ENOMEM;
	}
	if (!rc) {
		arenas->totals.state_offset = arenas->offset;
		find_mmapped(arenas, start, end);
		rc = read_all(arenas);
	}
	if (rc) {
		mw_arenas_destroy(arenas);
		return rc;
	}
	arenas->budget = NULL;
	arenas->totals.elapsed_ns = mw_now_ns() - begin_ns;
	*ret = arenas;
	return 0;
}

void mw_arenas_destroy(struct mw_arenas *arenas)
{
	if (!arenas)
		return;
	free(arenas->list);
	free(arenas->states);
	free(arenas->heaps);
	free(arenas->window);
	free(arenas->cache);
	free(arenas);
}

void mw_arenas_get_totals(const struct mw_arenas *arenas, struct mw_arenas_totals *ret)
{
	*ret = arenas->totals;
}

uint32_t mw_arenas_list(const struct mw_arenas *arenas, const struct mw_arena **ret)
{
	*ret = arenas->list;
	return arenas->count;
}

uint32_t mw_arenas_heaps(const struct mw_arenas *arenas, const struct mw_heap **ret)
{
	*ret = arenas->heaps;
	return arenas->heap_count;
}

void mw_arenas_bins(const struct mw_arenas *arenas, uint64_t *bytes, uint64_t *chunks)
{
	memcpy(bytes, arenas->bin_bytes, sizeof(arenas->bin_bytes));
	memcpy(chunks, arenas->bin_chunks, sizeof(arenas->bin_chunks));
}
