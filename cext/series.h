/* series.h - the past of each subject, at four resolutions, in bounded memory.
 *
 * Everyone is sampled on the same tick, so the times are kept once, in the
 * clock, and a history is four columns of page counts.  A bucket holds the least
 * value seen in it: the lower envelope, which garbage collection and bursts do
 * not move.  A level 0 bucket is one tick at the default interval.
 *
 * Knows no process, no service and no statistics. */

#ifndef MW_SERIES_H
#define MW_SERIES_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_LEVELS = 4,
	MW_LEVEL_SAMPLES = 60, /* per level: with 5 s ticks 5 min, 1 h, 15 h and 10 days */
	MW_LEVEL0 = 0,
	MW_HISTORY_BYTES = 1024, /* of a saved history */
	MW_CLOCK_BYTES = 2040,	 /* of a saved clock */
};

/* The tick times that all histories share: 2 KiB. */
struct mw_clock;

/* One subject's columns: 4 x 60 x 4 bytes and 64 of state. */
struct mw_history;

/* A clock whose level k has buckets of bucket_ns[k].  A bucket closes with the
 * first tick that is at least nine tenths of its width after its first one, so
 * ticks that come a little early or late still make one sample each where the
 * width is the interval, and a faster --interval only fills the buckets with
 * more ticks.  NULL if there is no memory or a width is 0. */
struct mw_clock *mw_clock_create(const uint64_t bucket_ns[4]);
void mw_clock_destroy(struct mw_clock *clock);

/* Begin the tick at time_ns (CLOCK_MONOTONIC).  Return 0, or -EINVAL if it is
 * not later than the one before; the clock is then as it was. */
int mw_clock_advance(struct mw_clock *clock, uint64_t time_ns);

/* Which bucket of a level is open, counted from 1; 0 before the first tick.
 * What was computed from a level above 0 stays true until this changes. */
uint32_t mw_clock_bucket(const struct mw_clock *clock, uint32_t level);

/* The levels whose samples may be others than a tick ago, as a mask: those
 * whose open bucket began with the current tick, and level 0. */
uint32_t mw_clock_turned_levels(const struct mw_clock *clock);

/* The width of a level's buckets, in seconds. */
double mw_clock_width_s(const struct mw_clock *clock, uint32_t level);

struct mw_history *mw_history_create(void);
void mw_history_destroy(struct mw_history *history);

/* Forget everything, as at a restart or an exec: the next sample is the first. */
void mw_history_clear(struct mw_history *history);

/* Record pages for the clock's current tick.  A second value in one tick
 * replaces the first (a process seen twice).  A bucket without a value is a
 * hole, which mw_history_copy() skips.  Pages beyond 2^32 - 2 (16 TiB of 4 KiB)
 * are taken for that many. */
void mw_history_add(struct mw_history *history, const struct mw_clock *clock, uint64_t pages);

/* Whether it took a sample at the clock's current tick. */
int mw_history_has_sample(const struct mw_history *history, const struct mw_clock *clock);

/* Write a clock or a history as bytes, and take it from there: bytes that this
 * machine wrote, in the same version, but that may be damaged.  Loading
 * returns -EPROTO, and changes nothing, for a clock with other widths or
 * another time than time_ns, and for a history that cannot be one of clock. */
void mw_clock_save(const struct mw_clock *clock, void *bytes);
int mw_clock_load(struct mw_clock *clock, const void *bytes, uint64_t time_ns);
void mw_history_save(const struct mw_history *history, void *bytes);
int mw_history_load(struct mw_history *history, const struct mw_clock *clock, const void *bytes);

/* When the first sample since creation or clearing was taken; 0: none yet. */
uint64_t mw_history_first_time_ns(const struct mw_history *history);

/* Copy a level's samples, oldest first, into arrays of MW_LEVEL_SAMPLES;
 * times in seconds of CLOCK_MONOTONIC, values in bytes.  The open bucket is
 * not among them, but for level 0's.  A bucket's time is that of its first
 * tick, which is when a growing subject had its least; but never before the
 * history's own first sample.  Return how many. */
uint32_t mw_history_copy(const struct mw_history *history, const struct mw_clock *clock, uint32_t level,
			 double *times_s, double *bytes);

/* The same samples as bare page counts, into an array of MW_LEVEL_SAMPLES: for
 * questions asked of everybody in every tick. */
uint32_t mw_history_copy_pages(const struct mw_history *history, const struct mw_clock *clock, uint32_t level,
			       uint32_t *pages);

#endif
