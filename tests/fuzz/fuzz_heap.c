/* Feeds made-up memory to everything that looks for Python objects: the search for the interpreter,
 * the census and the search for holders.  The first bytes say which CPython is meant and where its
 * types are; the rest is memory at a fixed address, so that pointers in it can be right. */

#include "census.h"
#include "fuzz_input.h"
#include "holders.h"

#include <stdlib.h>

static const uint64_t base = 0x7F0000000000; /* as in tests/heap_image.py */
enum {
	PAGES_MAX = 16,
	SAMPLES = 8,
};

static uint64_t total_bytes(struct mw_regions *regions, const struct mw_interpreter *python, struct mw_zone *zone)
{
	struct mw_census_totals totals;
	struct mw_census_row rows[16];
	struct mw_census *census;
	uint64_t objects = 0;
	char name[64];
	uint32_t count;

	if (mw_census_take(regions, python, zone, zone != NULL, NULL, &census))
		return 0;
	mw_census_get_totals(census, &totals);
	count = mw_census_rows(census, rows, 16);
	for (uint32_t i = 0; i < count && i < 16; i++) {
		objects += rows[i].objects;
		mw_census_name(census, rows[i].type, name, sizeof(name));
		if (memchr(name, '\0', sizeof(name)) == NULL)
			abort();
	}
	if (objects > totals.objects || totals.stopped)
		abort();
	mw_census_destroy(census);
	return totals.bytes;
}

static void search_holders(struct mw_regions *regions, const struct mw_interpreter *python, uint64_t wanted)
{
	const struct mw_reference *references;
	struct mw_holders *holders;
	const uint64_t *targets;
	uint64_t objects;
	uint32_t count, found;
	char label[MW_LABEL_BYTES];

	if (mw_holders_open(regions, python, wanted, SAMPLES, NULL, &holders))
		return;
	count = mw_holders_samples(holders, &targets, &objects);
	if (count > SAMPLES || count > objects)
		abort();
	if (mw_holders_search(holders, count ? targets : &wanted, count ? count : 1, NULL, &references, &found) == 0)
		for (uint32_t i = 0; i < found; i++)
			if (memchr(references[i].label, '\0', MW_LABEL_BYTES) == NULL)
				abort();
	mw_holders_label(holders, wanted, label, sizeof(label));
	mw_holders_type_name(holders, wanted, label, sizeof(label));
	mw_holders_type_file(holders, wanted, label, sizeof(label));
	mw_holders_count(holders, wanted);
	mw_holders_close(holders);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint8_t minor = 8 + take_u8(&input) % 8, zone_page = take_u8(&input), zone_pages = take_u8(&input);
	uint16_t type_type = take_u16(&input), wanted = take_u16(&input);
	size_t pages = (input.left + MW_PAGE_BYTES - 1) / MW_PAGE_BYTES;
	struct mw_interpreter python = {.type_type = base + type_type, .minor = minor};
	struct mw_piece piece = {.address = base, .flags = MW_MAPPING_READ | MW_MAPPING_WRITE};
	struct mw_zone zone = {.kind = zone_pages & 1 ? MW_ZONE_ARENA : MW_ZONE_STACK};
	struct mw_regions *regions;
	uint64_t found;
	uint8_t *memory;

	if (pages == 0 || pages > PAGES_MAX)
		return -1;
	/* Exactly as large as it says, for the sanitizer to see one byte too many. */
	memory = malloc(pages * MW_PAGE_BYTES);
	if (!memory)
		abort();
	piece.size_bytes = pages * MW_PAGE_BYTES;
	piece.bytes = memory;
	take(&input, memory, piece.size_bytes);
	if (mw_regions_open_image(&piece, 1, &regions))
		abort();
	zone.start = base + zone_page % pages * MW_PAGE_BYTES;
	zone.end = zone.start + (1 + zone_pages % (pages - zone_page % pages)) * MW_PAGE_BYTES;
	mw_python_find(regions, base, base + piece.size_bytes, &found);
	total_bytes(regions, &python, NULL);
	total_bytes(regions, &python, &zone);
	search_holders(regions, &python, base + wanted);
	mw_regions_close(regions);
	free(memory);
	return 0;
}
