#include "arenas.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	BIN_WORDS = 254,
	BINS_BYTES = BIN_WORDS * 8,
	STATE_AFTER_BINS = BINS_BYTES + 16, /* binmap */
	STATE_BYTES = 2400,
	WINDOW_BYTES_MAX = 1 << 20,
	WINDOW_BYTES_MIN = MW_PAGE_BYTES,
	CACHE_LINES = 64,
	CACHE_LINE_BYTES = 1 << 16,
	SEARCH_BYTES = 1 << 20,
	FAST_BINS = 10,
	FAST_SIZE_MAX = 0xb0,
	FAST_CHUNKS_MAX = 4 << 20,
	TCACHE_CHUNKS_MAX = 1 << 12, /* of one list */
	CHUNK_HEADER_BYTES = 48,     /* sizeof(struct malloc_chunk) */
	CHUNK_SIZE_MIN = 32,
	PREV_IN_USE = 1,
	SIZE_FLAGS = 7,
	FENCE_BYTES = 64,
	SURE_CHUNKS = 4, /* sane in a row: a chain, not chance */
};

/* Where the bins begin in struct malloc_state: 2.27 and later; before that,
 * without have_fastchunks; without fast bins (2.43), with and without it. */
static const uint32_t state_offsets[] = {112, 104, 24, 32};

/* One struct malloc_state. */
struct state {
	uint64_t address;
	uint64_t top;
	uint64_t next;
	uint64_t system_bytes;
	uint64_t attached_threads;
	uint64_t fast[FAST_BINS];
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
	struct line lines[CACHE_LINES];
	uint64_t window_start, window_bytes, window_wanted;
	uint64_t bin_bytes[MW_BINS];
	uint64_t bin_chunks[MW_BINS];
	uint32_t offset; /* one of state_offsets */
	uint32_t count;
	uint32_t heap_count;
	int is_broken; /* a list of arenas began well and did not close */
	struct mw_arenas_totals totals;
};

static uint64_t word(const void *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static int is_writable(struct mw_arenas *arenas, uint64_t address)
{
	const struct mw_mapping *mapping = mw_regions_find(arenas->regions, address);

	return mapping && (mapping->flags & MW_MAPPING_WRITE);
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
	       is_writable(arenas, ret->top) && !(ret->next & 7) && is_writable(arenas, ret->next);
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
		for (uint64_t k = 0; k < BIN_WORDS / 2; k++) {
			uint64_t bins = bin - 16 * k, place = bins - address + STATE_AFTER_BINS;

			/* the cheap questions first, of bytes already here */
			if (bins < address || place + 8 > bytes || (word(chunk + place) & 7) ||
			    !is_writable(arenas, word(chunk + place)))
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
	const struct mw_mapping *mapping;
	uint64_t start = 0, end = 0;

	for (uint32_t i = 0; (mapping = mw_regions_mapping(arenas->regions, i)); i++) {
		if (!(mapping->flags & MW_MAPPING_HEAP))
			continue;
		start = start ? start : mapping->start;
		end = mapping->end;
	}
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

/* ---- the walk */

/* size_bytes at address, through the window; NULL where nothing can be read.
 * The window widens while the walk goes on closely, and is small behind a leap. */
static const uint8_t *look(struct mw_arenas *arenas, uint64_t address, uint64_t size_bytes)
{
	int64_t got;

	if (address >= arenas->window_start && address + size_bytes <= arenas->window_start + arenas->window_bytes)
		return arenas->window + (address - arenas->window_start);
	if (address - (arenas->window_start + arenas->window_bytes) < WINDOW_BYTES_MIN)
		arenas->window_wanted =
		    arenas->window_wanted * 4 < WINDOW_BYTES_MAX ? arenas->window_wanted * 4 : WINDOW_BYTES_MAX;
	else
		arenas->window_wanted = WINDOW_BYTES_MIN * 2;
	got = mw_regions_read(arenas->regions, address, arenas->window, arenas->window_wanted);
	arenas->window_start = address;
	arenas->window_bytes = got > 0 ? (uint64_t)got : 0;
	return arenas->window_bytes >= size_bytes ? arenas->window : NULL;
}

static int is_sane(uint64_t size_word, uint64_t room)
{
	uint64_t size = size_word & ~(uint64_t)SIZE_FLAGS;

	return size >= CHUNK_SIZE_MIN && size % 16 == 0 && size <= room && !(size_word & 2);
}

/* Where from address on, below end, SURE_CHUNKS sane chunks follow one another; end if nowhere. */
static uint64_t resync(struct mw_arenas *arenas, uint64_t address, uint64_t end)
{
	for (address = (address + 15) & ~15ULL; address + 16 <= end;) {
		uint64_t at = address;
		int sane = 0;

		while (sane < SURE_CHUNKS && at + 16 <= end) {
			const uint8_t *header = look(arenas, at, 16);

			if (!header || !is_sane(word(header + 8), end - at))
				break;
			at += word(header + 8) & ~(uint64_t)SIZE_FLAGS;
			sane++;
		}
		if (sane == SURE_CHUNKS || (sane && at == end))
			return address;
		if (!look(arenas, address, 16)) {
			uint64_t low, high;

			if (!mw_regions_next(arenas->regions, address + 16, end, &low, &high))
				return end;
			address = low > address ? low : address + 16;
			continue;
		}
		address += 16;
	}
	return end;
}

/* The bin that glibc would put a free chunk of this size into (largebin_index_64). */
static uint32_t bin_of(uint64_t size)
{
	if (size < 1024)
		return (uint32_t)(size >> 4);
	if (size >> 6 <= 48)
		return 48 + (uint32_t)(size >> 6);
	if (size >> 9 <= 20)
		return 91 + (uint32_t)(size >> 9);
	if (size >> 12 <= 10)
		return 110 + (uint32_t)(size >> 12);
	if (size >> 15 <= 4)
		return 119 + (uint32_t)(size >> 15);
	return size >> 18 <= 2 ? 124 + (uint32_t)(size >> 18) : 126;
}

static void take_free(struct mw_arenas *arenas, struct mw_arena *arena, uint64_t chunk, uint64_t size)
{
	/* as mtrim() reckons: whole pages behind the links of the chunk */
	uint64_t low = (chunk + CHUNK_HEADER_BYTES + MW_PAGE_BYTES - 1) & ~(uint64_t)(MW_PAGE_BYTES - 1);
	uint64_t high = (chunk + size) & ~(uint64_t)(MW_PAGE_BYTES - 1);
	uint32_t bin = bin_of(size);

	arena->free_bytes += size;
	arena->free_chunks++;
	arenas->bin_bytes[bin] += size;
	arenas->bin_chunks[bin]++;
	if (low < high) {
		uint64_t present = mw_regions_anon_bytes(arenas->regions, low, high);

		arena->trim_bytes += present;
		arena->free_anon_bytes += size - (high - low) + present;
	} else {
		arena->free_anon_bytes += size;
	}
}

/* ---- lists */

/* Copy 32 bytes at address through the cache: neighbours in a list mostly are neighbours in memory. */
static int peek(struct mw_arenas *arenas, uint64_t address, uint8_t *ret)
{
	uint64_t base = address & ~(uint64_t)(CACHE_LINE_BYTES - 1);
	uint32_t slot = (uint32_t)(base / CACHE_LINE_BYTES % CACHE_LINES);
	struct line *line = &arenas->lines[slot];
	uint8_t *bytes = arenas->cache + (uint64_t)slot * CACHE_LINE_BYTES;

	if (line->address != base + 1) {
		uint64_t low, high;
		int64_t got = 0;

		/* the pages in front of address may be absent: read from the first present stretch that holds it */
		memset(bytes, 0, CACHE_LINE_BYTES);
		for (uint64_t from = base; mw_regions_next(arenas->regions, from, base + CACHE_LINE_BYTES, &low, &high);
		     from = high) {
			got = mw_regions_read(arenas->regions, low, bytes + (low - base), high - low);
			if (got < 0)
				break;
		}
		line->address = base + 1;
	}
	if (address - base + 32 > CACHE_LINE_BYTES)
		return mw_regions_read(arenas->regions, address, ret, 32) == 32;
	memcpy(ret, bytes + (address - base), 32);
	return 1;
}

/* Undo the masking of list links: since 2.32 they are xored with their own
 * place ("safe linking"). */
static uint64_t unmask(struct mw_arenas *arenas, uint64_t link, uint64_t place)
{
	if ((link & 15) || (link && !is_writable(arenas, link)))
		link ^= place >> 12;
	return (link & 15) || !is_writable(arenas, link) ? 0 : link;
}

/* Count a tcache list by its links: 2.42 counts free places instead of blocks. */
static void follow_tcache(struct mw_arenas *arenas, uint64_t entry, uint64_t *chunks, uint64_t *bytes)
{
	for (uint32_t i = 0; entry && i < TCACHE_CHUNKS_MAX; i++) {
		uint8_t header[32];

		if (!peek(arenas, entry - 16, header))
			return;
		++*chunks;
		*bytes += word(header + 8) & ~(uint64_t)SIZE_FLAGS & 0xffffffff;
		entry = unmask(arenas, word(header + 16), entry);
	}
}

/* Is this block a thread's tcache table?  2.26 to 2.29, 2.30 to 2.41, 2.42 and
 * later: a count for each size, then a list for each.  Where it counts blocks,
 * lists and counts must agree. */
static void take_tcache(struct mw_arenas *arenas, uint64_t chunk, uint64_t size)
{
	static const struct {
		uint32_t chunk_bytes, bins, count_bytes, counts_places;
	} shapes[] = {{0x250, 64, 1, 0}, {0x290, 64, 2, 0}, {0x310, 76, 2, 1}};
	uint64_t chunks = 0, bytes = 0;
	const uint8_t *found;
	uint8_t body[0x310];

	for (uint32_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		uint32_t counts_bytes = shapes[s].bins * shapes[s].count_bytes;

		if (size != shapes[s].chunk_bytes && !(shapes[s].counts_places && size == 0x300))
			continue;
		found = look(arenas, chunk, size);
		if (!found)
			return;
		memcpy(body, found + 16, size - 16);
		for (uint32_t i = 0; i < shapes[s].bins; i++) {
			uint64_t entry = word(body + counts_bytes + 8 * i);
			uint32_t count = body[i];

			if (shapes[s].count_bytes == 2)
				count = body[2 * i] | (uint32_t)body[2 * i + 1] << 8;
			if ((entry & 15) || (entry && !is_writable(arenas, entry)) ||
			    (!shapes[s].counts_places && (count != 0) != (entry != 0)) ||
			    (shapes[s].counts_places && count > 127))
				return;
			if (shapes[s].counts_places)
				follow_tcache(arenas, entry, &chunks, &bytes);
			else
				bytes += (uint64_t)count * (CHUNK_SIZE_MIN + 16 * i);
			chunks += shapes[s].counts_places ? 0 : count;
		}
		if (!chunks)
			return;
		arenas->totals.tcaches++;
		arenas->totals.tcache_chunks += chunks;
		arenas->totals.tcache_bytes += bytes;
	}
}

/* Walk the chunks of [start, end); return the bytes that were covered. */
static uint64_t walk(struct mw_arenas *arenas, struct mw_arena *arena, uint64_t start, uint64_t end)
{
	uint64_t at = start, before = 0, before_size = 0, covered = 0;
	uint32_t steps = 0;

	while (at + 16 <= end) {
		const uint8_t *header = look(arenas, at, 16);
		uint64_t size_word = header ? word(header + 8) : 0, size = size_word & ~(uint64_t)SIZE_FLAGS;

		if (!(++steps & 0xfff) && (arenas->totals.stopped = mw_budget_check(arenas->budget)))
			break;
		/* A free chunk says so in the next one. */
		if (header && before_size && !(size_word & PREV_IN_USE) && word(header) == before_size)
			take_free(arenas, arena, before, before_size);
		if (!header || !is_sane(size_word, end - at)) {
			if (end - at <= FENCE_BYTES)
				return covered + (end - at);
			arena->resyncs++;
			at = resync(arenas, at + 16, end);
			before_size = 0;
			continue;
		}
		if (size == 0x250 || size == 0x290 || size == 0x300 || size == 0x310)
			take_tcache(arenas, at, size);
		before = at;
		before_size = size;
		covered += size;
		at += size;
	}
	return covered;
}

static void follow_fast(struct mw_arenas *arenas, uint32_t index, uint64_t chunk, uint64_t *followed)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t expected = 0;

	while (chunk) {
		uint8_t header[32];
		uint64_t size;

		if (chunk & 15 || !peek(arenas, chunk, header))
			return;
		size = word(header + 8) & ~(uint64_t)SIZE_FLAGS;
		if (size < CHUNK_SIZE_MIN || size > FAST_SIZE_MAX || (expected && size != expected))
			return;
		if (++*followed > FAST_CHUNKS_MAX ||
		    (!(*followed & 0xfff) && (arenas->totals.stopped = mw_budget_check(arenas->budget)))) {
			arenas->totals.chunks_untracked_total++;
			return;
		}
		expected = size;
		arena->fast_bytes += size;
		arena->fast_chunks++;
		arena->free_anon_bytes += size;
		chunk = unmask(arenas, word(header + 16), chunk + 16);
	}
}

/* Where free chunks could not be walked (pieces of main_arena that nothing
 * lists), its bins still know them. */
static void follow_bins(struct mw_arenas *arenas, uint32_t index, uint64_t *followed)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t bins = arenas->states[index].address + arenas->offset;

	arena->free_bytes = arena->free_chunks = 0;
	for (uint32_t i = 0; i < BIN_WORDS; i += 2) {
		uint64_t head = bins + 8 * i - 16, chunk;
		uint8_t header[32];

		if (!peek(arenas, head, header))
			return;
		for (chunk = word(header + 16); chunk != head && !(chunk & 15) && chunk; chunk = word(header + 16)) {
			if (++*followed > FAST_CHUNKS_MAX ||
			    (!(*followed & 0xfff) && (arenas->totals.stopped = mw_budget_check(arenas->budget)))) {
				arenas->totals.chunks_untracked_total++;
				return;
			}
			if (!is_writable(arenas, chunk) || !peek(arenas, chunk, header))
				break;
			arena->free_bytes += word(header + 8) & ~(uint64_t)SIZE_FLAGS;
			arena->free_chunks++;
		}
	}
}

/* ---- all together */

static void measure_top(struct mw_arenas *arenas, uint32_t index)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t top = arenas->states[index].top;
	uint8_t header[16];

	/* before the first chunk of a new arena, top points into the struct itself */
	if (mw_regions_read(arenas->regions, top, header, sizeof(header)) != sizeof(header))
		return;
	arena->top_bytes = word(header + 8) & ~(uint64_t)SIZE_FLAGS;
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
		start = resync(arenas, heap->start, end);
	} else if (state->address >= heap->start && state->address < heap->end) {
		start = (state->end + 15) & ~15ULL;
	} else {
		/* behind struct heap_info, which grew in 2.35 */
		start = resync(arenas, heap->start + 32, end);
	}
	covered[heap->arena] += start - heap->start;
	covered[heap->arena] += walk(arenas, arena, start, end);
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
			follow_bins(arenas, i, &followed);
		for (uint32_t f = 0; f < FAST_BINS && !arenas->totals.stopped; f++)
			follow_fast(arenas, i, arenas->states[i].fast[f], &followed);
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
	arenas->window_wanted = WINDOW_BYTES_MIN;
	arenas->states = calloc(MW_ARENAS_MAX, sizeof(*arenas->states));
	arenas->heaps = calloc(MW_HEAPS_MAX, sizeof(*arenas->heaps));
	arenas->window = malloc(WINDOW_BYTES_MAX);
	arenas->cache = malloc((uint64_t)CACHE_LINES * CACHE_LINE_BYTES);
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
