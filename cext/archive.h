/* archive.h - what the aggregator knows, as bytes that outlive the process.
 *
 * One saved tick holds the clock, one value for each subject, and whole
 * histories of those subjects that were not saved for a while.  So each tick
 * writes little, and the last MW_SAVED_TICKS or so of them together hold
 * everything: reading them in order brings back the aggregator as it was after
 * the newest.  What is missing among them is a hole in the histories, no more.
 *
 * The bytes are this machine's: its byte order, its page size and the widths of
 * these histories.  They say so, and others are refused.  They may also be
 * torn or hostile: nothing in them is believed before it was checked.
 *
 * Must not know files, databases or Python. */

#ifndef MW_ARCHIVE_H
#define MW_ARCHIVE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "aggregator.h"

enum {
	MW_ARCHIVE_VERSION = 1,
	MW_SAVED_TICKS = 60,	       /* a subject's history is saved again after half of that, or as many at most */
	MW_SAVED_HISTORIES_MAX = 1024, /* in one tick; the others wait for the next one */
};

/* What a saved tick begins with. */
struct mw_saved_tick {
	uint64_t magic;
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint32_t version;
	uint32_t tick;	      /* ordinal; goes on after a restore */
	uint32_t oldest_tick; /* ticks before this one are needed by nobody; 0: not known yet */
	uint32_t process_count;
	uint32_t service_count;
	uint32_t process_histories;
	uint32_t service_histories;
	uint32_t histories_deferred; /* new or due, but beyond MW_SAVED_HISTORIES_MAX */
};

/* No saved tick is larger. */
uint64_t mw_aggregator_saved_bytes_max(const struct mw_aggregator *aggregator);

/* Save the tick that was just made.  Return the bytes written, -EAGAIN before the first
 * tick, or -ENOSPC if buffer is smaller than the above. */
int64_t mw_aggregator_save(struct mw_aggregator *aggregator, void *buffer, uint64_t size_bytes);

/* The save of that tick was lost, or with 0 all of them: those histories are saved
 * again with the next ones. */
void mw_aggregator_unsave(struct mw_aggregator *aggregator, uint32_t tick);

/* Take one saved tick, oldest first, before the first tick is made.  Subjects
 * that the next tick does not see end with it, as ever.  All processes are
 * handed out for naming; one that is then put into another service than it was
 * saved in runs another program, and its history begins anew.
 *
 * Return 0; -EPROTO, and nothing is taken, for bytes that are torn, of another
 * version, of other histories, not later than those before or later than
 * now_ns; -EBUSY after a tick. */
int mw_aggregator_restore(struct mw_aggregator *aggregator, const void *data, uint64_t size_bytes, uint64_t now_ns);

#endif
