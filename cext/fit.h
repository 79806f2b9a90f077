/* fit.h - what can be said of a column of samples: pure arithmetic.
 *
 * Times in seconds, values in bytes, ascending times.  No clock, no state, no
 * memory from the heap.  It describes; what counts as a leak is decided in
 * mwtrace/judge/. */

#ifndef MW_FIT_H
#define MW_FIT_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_FIT_SAMPLES_MAX = 60,
	MW_FIT_SAMPLES_MIN = 5, /* one a block */
	MW_FIT_BLOCKS = 5,	/* a window is cut into this many blocks of equal length */
	MW_FIT_RISES = 4,	/* from block to block */
};

struct mw_fit {
	double first_time_s;
	double span_s; /* newest minus oldest sample */
	double last_bytes;
	double least_squares_bytes_per_second;
	double theil_sen_bytes_per_second;     /* median of pairwise slopes */
	double theil_sen_low_bytes_per_second; /* 95% interval, widened for autocorrelation (see fit.c) */
	double theil_sen_high_bytes_per_second;
	double tail_bytes_per_second; /* Theil-Sen of the last third */
	double trend_z;		      /* Mann-Kendall, corrected for autocorrelation */
	double swing_bytes;	      /* between the 5th and the 95th percentile of what the line leaves over */
	double envelope_growth_bytes; /* minimum of the last block minus that of the first */
	double rise_bytes[4];	      /* MW_FIT_RISES: from each block's minimum to the next one's */
	double onset_time_s;	      /* where a flat line best bends into a rising one */
	double step_time_s;	      /* end of the largest rise between two samples; 0 if none */
	double step_bytes;
	double earlier_peak_bytes; /* highest sample of the level before this window; 0 if none */
	uint32_t sample_count;	   /* 0: the level has too few samples for this window, all else is 0 */
	uint32_t reserved;
};

/* Describe the samples of one window.  -EINVAL if there are fewer than
 * MW_FIT_SAMPLES_MIN or more than MW_FIT_SAMPLES_MAX, if times do not ascend
 * or a number is not finite; *ret is then all 0. */
int mw_fit_compute(const double *times_s, const double *bytes, uint32_t count, struct mw_fit *ret);

/* The windows of one level: its newest 8, 15, 22, 32, 45 and 60 samples. */
enum { MW_FIT_WINDOWS = 6 };
extern const uint32_t mw_fit_window_samples[6];

/* Describe every window that a level of count samples fills.  Returns 0, or
 * -EINVAL as above; unfilled windows are all 0. */
int mw_fit_level(const double *times_s, const double *bytes, uint32_t count, struct mw_fit ret[6]);

/* One level's samples, as the earlier peak is looked for in them. */
struct mw_column {
	const double *times_s;
	const double *bytes;
	double width_s; /* of a bucket: a sample is the least of that long a time */
	uint32_t count;
	uint32_t reserved;
};

/* The highest that a subject has been before fit's window and after from_s
 * (its start-up says nothing), as far as the columns go back; 0 if they do not.
 *
 * The columns keep minima, so the top of a saw's tooth is not in them: a
 * sample counts for as much more as the subject, at the window's slope, would
 * have grown within its bucket.  Not for more than four fifths of
 * growth_bytes, the most that the envelope has grown in any window, or a leak
 * that sets in after a long calm would hide behind it. */
double mw_fit_earlier_peak(const struct mw_fit *fit, const struct mw_column *columns, uint32_t column_count,
			   double from_s, double growth_bytes);

#endif
