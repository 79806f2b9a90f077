/* fit.h - what can be said of a column of samples: pure arithmetic.
 *
 * Times in seconds, values in bytes, ascending times.  No clock, no state, no
 * memory from the heap: at most MW_LEVEL_SAMPLES samples, on the stack. */

#ifndef MW_FIT_H
#define MW_FIT_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

struct mw_fit {
	double span_s; /* newest minus oldest sample */
	double first_time_s;
	double last_bytes;
	double least_squares_bytes_per_second;
	double theil_sen_bytes_per_second;      /* median of pairwise slopes */
	double theil_sen_low_bytes_per_second;  /* 95% interval, widened for autocorrelation */
	double theil_sen_high_bytes_per_second;
	double envelope_bytes_per_second;       /* Theil-Sen through the minima of blocks */
	double envelope_growth_bytes;           /* last block's minimum minus first block's */
	double tail_bytes_per_second;           /* Theil-Sen of the last third */
	double residual_mad_bytes;              /* median absolute deviation from the Theil-Sen line */
	double trend_z;                         /* Mann-Kendall, corrected for autocorrelation */
	double onset_time_s;                    /* where flat best turns into rising (hinge fit) */
	double step_time_s;                     /* after the largest single rise; 0 if nothing rose */
	double step_bytes;                      /* that rise */
	double rising_share;                    /* share of blocks whose minimum lies above the block's before */
	uint32_t sample_count;                  /* 0: nothing is known, all else is 0 */
	uint32_t block_count;
};

/* Describe count samples (at most MW_LEVEL_SAMPLES; more are refused with
 * -EINVAL, as are times that do not ascend).  Fewer than 4 leave all but the
 * first three fields and sample_count at 0. */
int mw_fit_compute(const double *times_s, const double *bytes, uint32_t count, struct mw_fit *ret);

#endif
