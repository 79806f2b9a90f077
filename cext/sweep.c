#include "sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sweep {
	struct mw_regions *regions;
	const struct mw_budget *budget;
	int (*visit)(void *context, const struct mw_chunk *chunk);
	void *context;
	uint64_t *unread;
	uint8_t *buffer;
};

static int sweep_stretch(struct sweep *sweep, const struct mw_mapping *mapping, uint64_t start, uint64_t stop)
{
	struct mw_chunk chunk = {.mapping = mapping, .bytes = sweep->buffer + MW_CHUNK_FRONT_BYTES};

	for (uint64_t at = start; at < stop;) {
		uint64_t boundary = (at & ~(uint64_t)(MW_CHUNK_BYTES - 1)) + MW_CHUNK_BYTES;
		uint64_t end = stop < boundary ? stop : boundary;
		uint64_t wanted = (stop - end < MW_CHUNK_TAIL_BYTES ? stop : end + MW_CHUNK_TAIL_BYTES) - at;
		int rc = mw_budget_check(sweep->budget);
		int64_t got;

		if (rc)
			return rc;
		got = mw_regions_read(sweep->regions, at, sweep->buffer + MW_CHUNK_FRONT_BYTES, wanted);
		if (got == -ESRCH)
			return -ESRCH;
		if (got < MW_PAGE_BYTES) {
			/* unmapped since: try behind it */
			*sweep->unread += MW_PAGE_BYTES;
			at += MW_PAGE_BYTES;
			chunk.has_front = 0;
			continue;
		}
		chunk.address = at;
		chunk.available = (uint64_t)got;
		chunk.size_bytes = end - at < (uint64_t)got ? end - at : (uint64_t)got & ~(uint64_t)(MW_PAGE_BYTES - 1);
		rc = sweep->visit(sweep->context, &chunk);
		if (rc)
			return rc;
		memmove(sweep->buffer, sweep->buffer + chunk.size_bytes, MW_CHUNK_FRONT_BYTES);
		chunk.has_front = 1;
		at += chunk.size_bytes;
	}
	return 0;
}

static int is_swept(const struct mw_mapping *mapping, uint32_t flags)
{
	uint32_t wanted = MW_MAPPING_READ | MW_MAPPING_WRITE;
	uint32_t unwanted = MW_MAPPING_EXEC | MW_MAPPING_SHARED | MW_MAPPING_KERNEL;

	if (!(flags & MW_SWEEP_STACK))
		unwanted |= MW_MAPPING_STACK;
	return (mapping->flags & wanted) == wanted && !(mapping->flags & unwanted);
}

int mw_sweep(struct mw_regions *regions, uint32_t flags, const struct mw_budget *budget,
	     int (*visit)(void *context, const struct mw_chunk *chunk), void *context, uint64_t *unread)
{
	struct sweep sweep = {regions, budget, visit, context, unread, NULL};
	const struct mw_mapping *mapping;
	uint64_t start, stop;
	int rc = 0;

	sweep.buffer = malloc(MW_CHUNK_FRONT_BYTES + MW_CHUNK_BYTES + MW_CHUNK_TAIL_BYTES);
	if (!sweep.buffer)
		return -ENOMEM;
	for (uint32_t i = 0; !rc && (mapping = mw_regions_mapping(regions, i)); i++) {
		if (!is_swept(mapping, flags))
			continue;
		for (uint64_t at = mapping->start; !rc && mw_regions_next(regions, at, mapping->end, &start, &stop);
		     at = stop)
			rc = sweep_stretch(&sweep, mapping, start, stop);
	}
	free(sweep.buffer);
	return rc;
}
