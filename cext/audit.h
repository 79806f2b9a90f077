/* audit.h - which remembered blocks still live, asked of the target's memory.
 *
 * With it a window needs no probe on free (DESIGN 4.6): remember what was
 * allocated, look later.  The target runs on meanwhile, so each allocator is
 * read in a way that notices when it was changed under our eyes.
 *
 *   pymalloc: a pool's free list and its counters say exactly which of its
 *     blocks are allocated; a pool whose numbers do not add up was caught in
 *     the middle of a change and is read again.
 *   glibc: a free chunk is in a bin (the next chunk's PREV_INUSE bit is off),
 *     in a tcache or fast bin (word 0 is a mangled link to a chunk of its size:
 *     glibc 2.32 and later; word 1 is the tcache's address: 2.29 to 2.31), or
 *     melted into another (its size is not what was asked for).  Unknown: up to
 *     120 bytes, word 1 zero and word 0 a link, which is either in a fast bin
 *     or was never written since it was given out.  Not noticed: fast bins
 *     before 2.32, any tcache before 2.29.
 *   others: contents compared with what an earlier audit saw; weak.
 *
 * Everywhere: unreadable is unmapped, hence freed; and a block a third
 * of whose first eight words changed (of CPython's a quarter) is another one at
 * the same address.  Knows no site
 * and no window; writes nothing into the target. */

#ifndef MW_AUDIT_H
#define MW_AUDIT_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "live.h"

/* How an allocator's memory can be read. */
enum mw_layout {
	MW_LAYOUT_GLIBC = 1,
	MW_LAYOUT_PYMALLOC = 2, /* CPython's small objects; its large ones are the native allocator's */
	MW_LAYOUT_OPAQUE = 3,	/* jemalloc, tcmalloc, mimalloc (free-threaded CPython), musl, ... */
};

struct mw_audit_target {
	uint32_t pid;
	uint16_t native_layout; /* of MW_DOMAIN_NATIVE and PY_RAW: MW_LAYOUT_GLIBC or OPAQUE */
	uint16_t python_layout; /* of MW_DOMAIN_PY_MEM and PY_OBJECT: any */
};

/* How the answers came about, in blocks. */
struct mw_audit_report {
	uint64_t alive;
	uint64_t freed;
	uint64_t unknown;
	uint64_t pools_exact;	   /* told by a pymalloc pool */
	uint64_t pools_torn;	   /* its pool changed each time it was read: unknown */
	uint64_t chunks_linked;	   /* freed: in a tcache or fast bin */
	uint64_t chunks_binned;	   /* freed: PREV_INUSE of the next chunk */
	uint64_t chunks_melted;	   /* freed: size is another now */
	uint64_t contents_same;	   /* alive, by contents alone */
	uint64_t contents_changed; /* freed: another block at the same address */
	uint64_t unmapped;	   /* freed: cannot be read any more */
};

/* Look at count blocks of target and fill in each one's state and, at first
 * sight, fingerprint; pids are not looked at.  Blocks may come in any order.
 * Call it once when a window closes (so that contents are known), and again
 * when what is short-lived should be gone.
 *
 * Return 0, -ENOMEM, or what reading said: -ESRCH it is gone, -EPERM. */
int mw_audit_run(const struct mw_audit_target *target, struct mw_block *blocks, uint32_t count,
		 struct mw_audit_report *ret);

#endif
