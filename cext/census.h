/* census.h - one pass over a process's private memory: which Python objects
 * live there, and whose each page is.
 *
 * Objects are recognised by shape (pyobject.h); pymalloc's pools and the large
 * blocks that glibc maps singly are recognised by their headers on the way.
 * What nobody claims is summed per mapping.  The target runs on: what changes
 * under the pass is seen in one state or the other.
 *
 * Memory is bounded (about 20 MiB at the most), time by the budget. */

#ifndef MW_CENSUS_H
#define MW_CENSUS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "pyobject.h"
#include "regions.h"

enum mw_zone_kind {
	MW_ZONE_ARENA = 1, /* a heap of glibc: malloc's small blocks */
	MW_ZONE_STACK = 2, /* not searched for objects: stale frames would count */
};

/* Memory whose owner is known before the pass. */
struct mw_zone {
	uint64_t start;
	uint64_t end;
	uint64_t object_bytes; /* filled in: malloc chunks that are Python objects or their tables */
	uint64_t objects;
	uint32_t kind; /* enum mw_zone_kind */
	uint32_t reserved;
};

/* A block that malloc mapped for itself alone. */
struct mw_large_block {
	uint64_t start; /* of the chunk: what malloc returned is 16 bytes on */
	uint64_t size_bytes;
	uint64_t anon_bytes;   /* of them present */
	uint64_t object_bytes; /* of them Python objects or their tables */
};

struct mw_census_row {
	uint64_t type; /* its address */
	uint64_t objects;
	uint64_t bytes; /* as sys.getsizeof() says */
};

struct mw_census_totals {
	uint64_t objects;
	uint64_t bytes;
	uint64_t scanned_bytes;
	uint64_t unread_bytes; /* present at the start, not readable any more */
	uint64_t pools;
	uint64_t pool_anon_bytes;   /* present pages of pymalloc's pools */
	uint64_t pool_in_use_bytes; /* of them in blocks that are allocated */
	uint64_t large_blocks;
	uint64_t large_anon_bytes;
	uint64_t large_untracked_total;	  /* large blocks beyond the table */
	uint64_t buffers_untracked_total; /* tables whose place was not noted: less is known of who owns what */
	uint64_t types_untracked_total;
	uint64_t type_probes_total;
	uint64_t elapsed_ns;
	uint32_t types;
	int32_t stopped; /* 0: seen to the end; -ETIME, -ECANCELED, -ESRCH: not */
};

struct mw_census;

/* Take a census.  python NULL: no interpreter is known, pages are claimed and
 * nothing is counted.  zones are ascending and disjoint (else -EINVAL).
 * Return 0, also when stopped early (totals.stopped says so), or -ENOMEM. */
int mw_census_take(struct mw_regions *regions, const struct mw_interpreter *python, struct mw_zone *zones,
		   uint32_t zone_count, const struct mw_budget *budget, struct mw_census **ret);
void mw_census_destroy(struct mw_census *census);

void mw_census_get_totals(const struct mw_census *census, struct mw_census_totals *ret);

/* Copy the count largest rows by bytes; return how many there are in all. */
uint32_t mw_census_rows(struct mw_census *census, struct mw_census_row *rows, uint32_t count);

/* "module.Class" of a type met in the census; the target is read for it. */
void mw_census_name(struct mw_census *census, uint64_t type, char *buffer, uint32_t buffer_bytes);

uint32_t mw_census_large_blocks(const struct mw_census *census, const struct mw_large_block **ret);

/* Private pages of a mapping that nothing claimed, and how many of them hold only zeros. */
void mw_census_unclaimed(const struct mw_census *census, uint32_t mapping, uint64_t *ret_bytes,
			 uint64_t *ret_zero_bytes);

#endif
