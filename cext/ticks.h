/* ticks.h - the past of many totals in little memory: one clock, one column each.
 *
 * Every column is sampled at the same ticks.  When the columns are full every
 * second sample is dropped and the distance between kept ticks doubles, so 32
 * samples always span the whole time since the start, be it a minute or a week.
 * Knows no site and no process. */

#ifndef MW_TICKS_H
#define MW_TICKS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "fit.h"

enum {
	MW_TICKS_MAX = 32, /* even; with the present value at most MW_FIT_SAMPLES_MAX */
};

struct mw_ticks {
	uint64_t times_ns[32]; /* MW_TICKS_MAX; CLOCK_MONOTONIC, ascending */
	uint32_t count;
	uint32_t stride;  /* ticks per kept tick; 0 at first, read as 1 */
	uint32_t skipped; /* ticks since the last kept one */
	uint32_t thinned; /* 1: the last tick halved the clock, so columns must be thinned before they are written */
};

struct mw_past {
	uint64_t values[32]; /* MW_TICKS_MAX */
};

/* Begin a tick.  Return the index at which every column records its present
 * value, or -1 if this tick is not kept (or time does not advance). */
int mw_ticks_advance(struct mw_ticks *ticks, uint64_t time_ns);

/* Drop every second sample, as the clock did. */
void mw_past_thin(struct mw_past *column);

/* Fit the kept samples not older than since_ns, and the present one. */
void mw_past_fit(const struct mw_past *column, const struct mw_ticks *ticks, uint64_t since_ns, uint64_t now_ns,
		 uint64_t now_value, struct mw_fit *ret);

/* How far the present value lies above the least of the newer half of the kept
 * samples: the cheap question that decides which columns are worth a fit. */
uint64_t mw_past_rise(const struct mw_past *column, const struct mw_ticks *ticks, uint64_t now_value);

#endif
