/* audit_parts.h - what the files of the audit share.  Nobody else includes it.
 *
 * Each part sets the state of the blocks it can tell of, leaves MW_SETTLED_NOT
 * where a block is not its own, and returns 0 or what reading said. */

#ifndef MW_AUDIT_PARTS_H
#define MW_AUDIT_PARTS_H

#include "audit.h"
#include "trace_events.h"

enum {
	MW_AUDIT_BATCH = 128, /* blocks per round of remote reads */
	MW_AUDIT_WORDS = 8,   /* of a block's contents that make its fingerprint */
};

/* blocks ascend by address. */
int mw_audit_pools(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		   struct mw_audit_report *report);

/* At most MW_AUDIT_BATCH blocks. */
int mw_audit_chunks(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		    struct mw_audit_report *report);

/* The allocator says it is allocated: alive, unless its contents are another's. */
void mw_audit_alive(struct mw_block *block, const uint64_t words[MW_AUDIT_WORDS], struct mw_audit_report *report);

#endif
