/* sweep.h - private memory from end to end, chunk by chunk.
 *
 * Census and holders look at the same pages in the same order; this is the loop
 * they share.  Knows nothing of what they look for. */

#ifndef MW_SWEEP_H
#define MW_SWEEP_H

#include "regions.h"

enum {
	MW_CHUNK_BYTES = 1 << 20,  /* chunks end at multiples of it, so that a pymalloc pool is never cut */
	MW_CHUNK_TAIL_BYTES = 512, /* of the next chunk, for what begins at the end of this one */
	MW_CHUNK_FRONT_BYTES = 64, /* of the one before */
};

/* A stretch of present pages in hand. */
struct mw_chunk {
	const struct mw_mapping *mapping;
	const uint8_t *bytes; /* whole pages; MW_CHUNK_FRONT_BYTES are readable in front if has_front */
	uint64_t address;     /* where they are in the process */
	uint64_t size_bytes;  /* to be looked at */
	uint64_t available;   /* readable from bytes on: size_bytes and up to the tail */
	int has_front;
};

enum mw_sweep_flag {
	MW_SWEEP_STACK = 1, /* the main thread's stack too */
};

/* Call visit for every chunk of every private, writable mapping, ascending.
 * Bytes that could not be read are added to *unread.  Return 0, -ETIME,
 * -ECANCELED, -ESRCH, -ENOMEM, or what visit returned. */
int mw_sweep(struct mw_regions *regions, uint32_t flags, const struct mw_budget *budget,
	     int (*visit)(void *context, const struct mw_chunk *chunk), void *context, uint64_t *unread);

#endif
