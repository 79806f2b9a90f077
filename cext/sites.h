/* sites.h - the code that is charged for blocks, and what it was charged with.
 *
 * A site is a process, a domain and a pair of stacks.  Numbers come twice:
 * as seen, and weighted by what each sample stands for.  Knows no block, no
 * address and no frame; who frees a block says which site had it. */

#ifndef MW_SITES_H
#define MW_SITES_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "trace_events.h"
#include "ticks.h"

struct mw_sites;

/* Site 0 stands for all the sites past the bound: its blocks count, namelessly. */
enum {
	MW_SITE_OTHER = 0,
};

/* Blocks and bytes; the weighted ones estimate what the program really did. */
struct mw_sum {
	uint64_t blocks; /* as seen */
	uint64_t bytes;	 /* as seen */
	uint64_t weight_bytes;
	double weight_blocks;
};

struct mw_site {
	uint64_t native_stack; /* hash, see stacks.h; 0: none */
	uint64_t python_stack;
	uint64_t since_ns;	/* since when its process is traced: its age and its fit begin there */
	uint64_t first_time_ns; /* of its first and its last event */
	uint64_t last_time_ns;
	struct mw_sum allocated;
	struct mw_sum freed;	    /* seen freed, returned again (freed in between), or found freed by an audit */
	struct mw_sum survived;	    /* of the live ones: what the last audit found alive */
	struct mw_sum grown;	    /* growth sampling: pages that became resident here, no block behind them */
	uint64_t told_weight_bytes; /* allocated.weight_bytes at the last tick */
	uint32_t pid;
	uint16_t domain; /* enum mw_domain */
	uint16_t is_used;
	struct mw_past live; /* allocated - freed in weighted bytes */
};

/* An empty table for at most sites_max sites besides MW_SITE_OTHER (about 500
 * bytes each, taken at creation but untouched until used), or NULL. */
struct mw_sites *mw_sites_create(uint32_t sites_max);
void mw_sites_destroy(struct mw_sites *sites);

/* The index of a site, made at need, or MW_SITE_OTHER past the bound. */
uint32_t mw_sites_intern(struct mw_sites *sites, uint32_t pid, uint16_t domain, uint64_t native_stack,
			 uint64_t python_stack, uint64_t since_ns);

/* A site by index below mw_sites_end(); look at is_used. */
struct mw_site *mw_sites_at(struct mw_sites *sites, uint32_t index);
uint32_t mw_sites_end(const struct mw_sites *sites);

/* Record every site's live bytes at a kept tick. */
void mw_sites_tick(struct mw_sites *sites, const struct mw_ticks *ticks, int index);

/* Forget every site of pid; indices of others stay.  Return how many. */
uint32_t mw_sites_forget(struct mw_sites *sites, uint32_t pid);

uint32_t mw_sites_count(const struct mw_sites *sites);

/* How often a charge went to MW_SITE_OTHER for want of room. */
uint64_t mw_sites_refused(const struct mw_sites *sites);

uint64_t mw_site_live_weight_bytes(const struct mw_site *site);

#endif
