/* arenas.h - glibc's malloc seen from outside: what it holds, and what of it is
 * free.
 *
 * No symbol and no version is asked: a stripped libc will do.  The bins of
 * struct malloc_state point at themselves when empty; where that pattern lies,
 * and which of the layouts of glibc 2.17 to 2.43 it is, the structure says
 * itself (the list of arenas must close, tops must lie in writable memory,
 * sizes must be whole pages).
 *
 * The words are glibc's: system is what an arena got from the kernel, in use
 * what mallinfo2() calls uordblks (blocks kept by tcache count as in use
 * there, and here). */

#ifndef MW_ARENAS_H
#define MW_ARENAS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "regions.h"

enum {
	MW_ARENAS_MAX = 4096,
	MW_HEAPS_MAX = 1 << 15,
	MW_BINS = 128, /* as glibc numbers them: 2 to 63 small, 64 to 126 large */
};

struct mw_arena {
	uint64_t address;
	uint64_t system_bytes;
	uint64_t top_bytes;
	uint64_t free_bytes; /* in chunks of the bins, without top and fast ones */
	uint64_t free_chunks;
	uint64_t fast_bytes;
	uint64_t fast_chunks;
	uint64_t anon_bytes;	  /* pages of its heaps that are present */
	uint64_t free_anon_bytes; /* of them inside free chunks, fast chunks and top */
	uint64_t top_anon_bytes;
	uint64_t trim_bytes;	 /* estimate: present pages that malloc_trim() would give back */
	uint64_t unwalked_bytes; /* of system_bytes: heaps not found, or damaged while read */
	uint64_t attached_threads;
	uint32_t heaps;
	uint32_t resyncs; /* times the chain of chunks had to be found again */
};

/* A stretch of address space that arena's chunks lie in. */
struct mw_heap {
	uint64_t start;
	uint64_t end;
	uint32_t arena;
	uint32_t reserved;
};

struct mw_arenas_totals {
	uint64_t system_bytes;
	uint64_t in_use_bytes;
	uint64_t tcache_bytes; /* of in use: kept per thread, where the thread's table was found */
	uint64_t tcache_chunks;
	uint64_t tcaches;
	uint64_t mmapped_bytes; /* of single mapped chunks, as malloc counts them */
	uint64_t mmapped_chunks;
	uint64_t arenas_untracked_total;
	uint64_t heaps_untracked_total;
	uint64_t chunks_untracked_total; /* in lists too long to follow */
	uint64_t elapsed_ns;
	uint32_t has_mmapped;  /* whether malloc's own count was found */
	uint32_t state_offset; /* of the bins in struct malloc_state: which layout it is */
	int32_t stopped;       /* 0, or -ETIME, -ECANCELED */
	uint32_t reserved;
};

struct mw_arenas;

/* Look for main_arena in [start, end): libc's writable data, with the .bss that
 * follows it.  Return 0, -ENOENT if it is not there (no glibc, or malloc never
 * called), -EAGAIN if it changed since regions was opened (a new arena): open
 * again, -ENOMEM. */
int mw_arenas_read(struct mw_regions *regions, uint64_t start, uint64_t end, const struct mw_budget *budget,
		   struct mw_arenas **ret);
void mw_arenas_destroy(struct mw_arenas *arenas);

void mw_arenas_get_totals(const struct mw_arenas *arenas, struct mw_arenas_totals *ret);
uint32_t mw_arenas_list(const struct mw_arenas *arenas, const struct mw_arena **ret); /* main first */
uint32_t mw_arenas_heaps(const struct mw_arenas *arenas, const struct mw_heap **ret); /* by address */

/* Mark (1 in ret, else 0) which of count addresses, which ascend, lie in memory
 * that malloc has free: in chunks of the bins and in tops.  What lies there is
 * what was there before.  Small blocks that malloc keeps for reuse (tcache, fast
 * bins) are not told apart. */
void mw_arenas_mark_free(struct mw_arenas *arenas, const struct mw_budget *budget, const uint64_t *addresses,
			 uint32_t count, uint8_t *ret);

/* Free bytes and chunks of all arenas by bin: arrays of MW_BINS. */
void mw_arenas_bins(const struct mw_arenas *arenas, uint64_t *bytes, uint64_t *chunks);

#endif
