/* Feeds made-up memory of glibc's allocator to the reader of arenas: a piece of libc's data, in which
 * main_arena is searched, and a heap.  Both say where they lie, because what is in them are pointers;
 * seeds.py takes them from a real process. */

#include "arenas.h"
#include "fuzz_input.h"

#include <stdlib.h>

enum { PIECE_BYTES_MAX = 1 << 18 };

static uint64_t whole_pages(uint64_t size_bytes)
{
	uint64_t bounded = size_bytes % (PIECE_BYTES_MAX + 1);

	return (bounded + MW_PAGE_BYTES - 1) / MW_PAGE_BYTES * MW_PAGE_BYTES;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct mw_piece pieces[2] = {{0}};
	uint8_t *memory[2] = {NULL};
	struct mw_regions *regions;
	struct mw_arenas *arenas;

	for (int i = 0; i < 2; i++) {
		pieces[i].address = take_u64(&input) & 0x7FFFFFFFF000;
		pieces[i].size_bytes = whole_pages(take_u64(&input));
		pieces[i].flags = MW_MAPPING_READ | MW_MAPPING_WRITE | (i ? 0 : MW_MAPPING_HEAP);
	}
	if (!pieces[0].size_bytes || !pieces[1].size_bytes)
		return -1;
	for (int i = 0; i < 2; i++) {
		memory[i] = malloc(pieces[i].size_bytes);
		if (!memory[i])
			abort();
		take(&input, memory[i], pieces[i].size_bytes);
		pieces[i].bytes = memory[i];
	}
	/* The heap below, libc's data above: as they come, or not at all. */
	if (mw_regions_open_image(pieces, 2, &regions) == 0) {
		uint64_t start = pieces[1].address, bytes[MW_BINS], chunks[MW_BINS];

		if (mw_arenas_read(regions, start, start + pieces[1].size_bytes, NULL, &arenas) == 0) {
			struct mw_arenas_totals totals;
			const struct mw_arena *list;
			const struct mw_heap *heaps;
			uint64_t addresses[16];
			uint8_t marks[16];

			mw_arenas_get_totals(arenas, &totals);
			if (mw_arenas_list(arenas, &list) > MW_ARENAS_MAX ||
			    mw_arenas_heaps(arenas, &heaps) > MW_HEAPS_MAX)
				abort();
			for (uint64_t i = 0; i < 16; i++)
				addresses[i] = pieces[0].address + i * 48;
			mw_arenas_mark_free(arenas, NULL, addresses, 16, marks);
			mw_arenas_bins(arenas, bytes, chunks);
			mw_arenas_destroy(arenas);
		}
		mw_regions_close(regions);
	}
	free(memory[0]);
	free(memory[1]);
	return 0;
}
