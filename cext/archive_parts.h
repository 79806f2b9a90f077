/* archive_parts.h - the aggregator's parts, as archive.c sees them.
 *
 * Between aggregator.c and archive.c only: the aggregator itself stays opaque. */

#ifndef MW_ARCHIVE_PARTS_H
#define MW_ARCHIVE_PARTS_H

#include "archive.h"
#include "processes.h"
#include "services.h"

struct mw_archive_parts {
	struct mw_clock *clock;
	struct mw_processes *processes;
	struct mw_services *services;
	uint64_t time_ns;
	uint32_t tick; /* ordinal of the last tick; restoring sets it */
};

int64_t mw_archive_save(const struct mw_archive_parts *parts, void *buffer, uint64_t size_bytes);
uint64_t mw_archive_bytes_max(const struct mw_archive_parts *parts);
void mw_archive_unsave(const struct mw_archive_parts *parts, uint32_t tick);
int mw_archive_restore(struct mw_archive_parts *parts, const void *data, uint64_t size_bytes, uint64_t now_ns);

#endif
