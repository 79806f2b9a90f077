#include "chunks.h"

#include <errno.h>

enum {
	FAST_SIZE_MAX = 0xb0,
	TCACHE_CHUNKS_MAX = 1 << 12, /* of one list */
	CHUNK_HEADER_BYTES = 48,     /* sizeof(struct malloc_chunk) */
	CHUNK_SIZE_MIN = 32,
	PREV_IN_USE = 1,
	FENCE_BYTES = 64,
	SURE_CHUNKS = 4, /* sane in a row: a chain, not chance */
};

/* ---- the walk */

/* size_bytes at address, through the window; NULL where nothing can be read.
 * The window widens while the walk goes on closely, and is small behind a leap. */
static const uint8_t *look(struct mw_arenas *arenas, uint64_t address, uint64_t size_bytes)
{
	int64_t got;

	if (address >= arenas->window_start && address + size_bytes <= arenas->window_start + arenas->window_bytes)
		return arenas->window + (address - arenas->window_start);
	if (address - (arenas->window_start + arenas->window_bytes) < MW_WINDOW_BYTES_MIN)
		arenas->window_wanted =
		    arenas->window_wanted * 4 < MW_WINDOW_BYTES_MAX ? arenas->window_wanted * 4 : MW_WINDOW_BYTES_MAX;
	else
		arenas->window_wanted = MW_WINDOW_BYTES_MIN * 2;
	got = mw_regions_read(arenas->regions, address, arenas->window, arenas->window_wanted);
	arenas->window_start = address;
	arenas->window_bytes = got > 0 ? (uint64_t)got : 0;
	return arenas->window_bytes >= size_bytes ? arenas->window : NULL;
}

static int is_sane(uint64_t size_word, uint64_t room)
{
	uint64_t size = size_word & ~(uint64_t)MW_SIZE_FLAGS;

	return size >= CHUNK_SIZE_MIN && size % 16 == 0 && size <= room && !(size_word & 2);
}

/* Where from address on, below end, SURE_CHUNKS sane chunks follow one another; end if nowhere. */
uint64_t mw_chunks_resync(struct mw_arenas *arenas, uint64_t address, uint64_t end)
{
	for (address = (address + 15) & ~15ULL; address + 16 <= end;) {
		uint64_t at = address;
		int sane = 0;

		while (sane < SURE_CHUNKS && at + 16 <= end) {
			const uint8_t *header = look(arenas, at, 16);

			if (!header || !is_sane(word(header + 8), end - at))
				break;
			at += word(header + 8) & ~(uint64_t)MW_SIZE_FLAGS;
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

uint32_t mw_chunks_first_asked(const struct mw_arenas *arenas, uint64_t address)
{
	uint32_t low = 0, high = arenas->asked_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (arenas->asked[middle] < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void mw_chunks_mark(struct mw_arenas *arenas, uint64_t start, uint64_t end)
{
	for (uint32_t i = mw_chunks_first_asked(arenas, start); i < arenas->asked_count && arenas->asked[i] < end; i++)
		arenas->marks[i] = 1;
}

static void take_free(struct mw_arenas *arenas, struct mw_arena *arena, uint64_t chunk, uint64_t size)
{
	/* as mtrim() reckons: whole pages behind the links of the chunk */
	uint64_t low = (chunk + CHUNK_HEADER_BYTES + MW_PAGE_BYTES - 1) & ~(uint64_t)(MW_PAGE_BYTES - 1);
	uint64_t high = (chunk + size) & ~(uint64_t)(MW_PAGE_BYTES - 1);
	uint32_t bin = bin_of(size);

	if (arenas->asked) {
		mw_chunks_mark(arenas, chunk, chunk + size);
		return;
	}
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
	uint64_t base = address & ~(uint64_t)(MW_CACHE_LINE_BYTES - 1);
	uint32_t slot = (uint32_t)(base / MW_CACHE_LINE_BYTES % MW_CACHE_LINES);
	struct line *line = &arenas->lines[slot];
	uint8_t *bytes = arenas->cache + (uint64_t)slot * MW_CACHE_LINE_BYTES;

	if (line->address != base + 1) {
		uint64_t low, high;
		int64_t got = 0;

		/* the pages in front of address may be absent: read from the first present stretch that holds it */
		memset(bytes, 0, MW_CACHE_LINE_BYTES);
		for (uint64_t from = base;
		     mw_regions_next(arenas->regions, from, base + MW_CACHE_LINE_BYTES, &low, &high); from = high) {
			got = mw_regions_read(arenas->regions, low, bytes + (low - base), high - low);
			if (got < 0)
				break;
		}
		line->address = base + 1;
	}
	if (address - base + 32 > MW_CACHE_LINE_BYTES)
		return mw_regions_read(arenas->regions, address, ret, 32) == 32;
	memcpy(ret, bytes + (address - base), 32);
	return 1;
}

/* Undo the masking of list links: since 2.32 they are xored with their own
 * place ("safe linking"). */
static uint64_t unmask(struct mw_arenas *arenas, uint64_t link, uint64_t place)
{
	if ((link & 15) || (link && !mw_arenas_is_writable(arenas, link)))
		link ^= place >> 12;
	return (link & 15) || !mw_arenas_is_writable(arenas, link) ? 0 : link;
}

/* Count a tcache list by its links: 2.42 counts free places instead of blocks. */
static void follow_tcache(struct mw_arenas *arenas, uint64_t entry, uint64_t *chunks, uint64_t *bytes)
{
	for (uint32_t i = 0; entry && i < TCACHE_CHUNKS_MAX; i++) {
		uint8_t header[32];

		if (!peek(arenas, entry - 16, header))
			return;
		++*chunks;
		*bytes += word(header + 8) & ~(uint64_t)MW_SIZE_FLAGS & 0xffffffff;
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
			if ((entry & 15) || (entry && !mw_arenas_is_writable(arenas, entry)) ||
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
uint64_t mw_chunks_walk(struct mw_arenas *arenas, struct mw_arena *arena, uint64_t start, uint64_t end)
{
	uint64_t at = start, before = 0, before_size = 0, covered = 0;
	uint32_t steps = 0;

	while (at + 16 <= end) {
		const uint8_t *header = look(arenas, at, 16);
		uint64_t size_word = header ? word(header + 8) : 0, size = size_word & ~(uint64_t)MW_SIZE_FLAGS;

		if (!(++steps & 0xfff) && (arenas->totals.stopped = mw_budget_check(arenas->budget)))
			break;
		/* A free chunk says so in the next one. */
		if (header && before_size && !(size_word & PREV_IN_USE) && word(header) == before_size)
			take_free(arenas, arena, before, before_size);
		if (!header || !is_sane(size_word, end - at)) {
			if (end - at <= FENCE_BYTES)
				return covered + (end - at);
			arena->resyncs++;
			at = mw_chunks_resync(arenas, at + 16, end);
			before_size = 0;
			continue;
		}
		if (!arenas->asked && (size == 0x250 || size == 0x290 || size == 0x300 || size == 0x310))
			take_tcache(arenas, at, size);
		before = at;
		before_size = size;
		covered += size;
		at += size;
	}
	return covered;
}

void mw_chunks_follow_fast(struct mw_arenas *arenas, uint32_t index, uint64_t chunk, uint64_t *followed)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t expected = 0;

	while (chunk) {
		uint8_t header[32];
		uint64_t size;

		if (chunk & 15 || !peek(arenas, chunk, header))
			return;
		size = word(header + 8) & ~(uint64_t)MW_SIZE_FLAGS;
		if (size < CHUNK_SIZE_MIN || size > FAST_SIZE_MAX || (expected && size != expected))
			return;
		if (++*followed > MW_LIST_CHUNKS_MAX ||
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
void mw_chunks_follow_bins(struct mw_arenas *arenas, uint32_t index, uint64_t *followed)
{
	struct mw_arena *arena = &arenas->list[index];
	uint64_t bins = arenas->states[index].address + arenas->offset;

	arena->free_bytes = arena->free_chunks = 0;
	for (uint32_t i = 0; i < MW_BIN_WORDS; i += 2) {
		uint64_t head = bins + 8 * i - 16, chunk;
		uint8_t header[32];

		if (!peek(arenas, head, header))
			return;
		for (chunk = word(header + 16); chunk != head && !(chunk & 15) && chunk; chunk = word(header + 16)) {
			if (++*followed > MW_LIST_CHUNKS_MAX ||
			    (!(*followed & 0xfff) && (arenas->totals.stopped = mw_budget_check(arenas->budget)))) {
				arenas->totals.chunks_untracked_total++;
				return;
			}
			if (!mw_arenas_is_writable(arenas, chunk) || !peek(arenas, chunk, header))
				break;
			arena->free_bytes += word(header + 8) & ~(uint64_t)MW_SIZE_FLAGS;
			arena->free_chunks++;
		}
	}
}
