/* fit.c - see fit.h.
 *
 * Sixty samples make 1,770 pairwise slopes, so everything here is done the
 * plain way on the stack: no heap, no incremental state that could drift. */

#include "fit.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { PAIRS_MAX = MW_FIT_SAMPLES_MAX * (MW_FIT_SAMPLES_MAX - 1) / 2 };

const uint32_t mw_fit_window_samples[MW_FIT_WINDOWS] = {8, 15, 22, 32, 45, 60};

/* Hoare's selection: the k-th least of n values, which are reordered. */
static double nth_least(double *values, uint32_t n, uint32_t k)
{
	uint32_t low = 0, high = n - 1;

	while (low < high) {
		double pivot = values[low + (high - low) / 2];
		uint32_t i = low, j = high;

		for (;;) {
			while (values[i] < pivot)
				i++;
			while (values[j] > pivot)
				j--;
			if (i >= j)
				break;
			double swapped = values[i];
			values[i++] = values[j];
			values[j--] = swapped;
		}
		/* All up to j are <= pivot, all from j + 1 on >= pivot, and j < high. */
		if (k <= j)
			high = j;
		else
			low = j + 1;
	}
	return values[low];
}

static double median(double *values, uint32_t n)
{
	double upper = nth_least(values, n, n / 2);

	return n % 2 ? upper : (upper + nth_least(values, n, n / 2 - 1)) / 2;
}

/* Fill slopes with the slope of every pair; return how many. */
static uint32_t pairwise_slopes(const double *times_s, const double *bytes, uint32_t count, double *slopes)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < count; i++)
		for (uint32_t j = i + 1; j < count; j++)
			slopes[n++] = (bytes[j] - bytes[i]) / (times_s[j] - times_s[i]);
	return n;
}

static double least_squares(const double *times_s, const double *bytes, uint32_t count)
{
	double mean_time = 0, mean_bytes = 0, covariance = 0, variance = 0;

	for (uint32_t i = 0; i < count; i++) {
		mean_time += times_s[i] / count;
		mean_bytes += bytes[i] / count;
	}
	for (uint32_t i = 0; i < count; i++) {
		covariance += (times_s[i] - mean_time) * (bytes[i] - mean_bytes);
		variance += (times_s[i] - mean_time) * (times_s[i] - mean_time);
	}
	return covariance / variance;
}

/* By how much neighbours that resemble each other inflate the variance of a
 * trend: (1 + r) / (1 - r) for a lag-1 autocorrelation r of the residuals
 * (Bayley and Hammersley's effective sample size for a first-order process).
 * Bounded: with sixty samples a larger r is not told from a trend. */
static double autocorrelation_inflation(const double *residuals, uint32_t count)
{
	double mean = 0, variance = 0, covariance = 0;

	for (uint32_t i = 0; i < count; i++)
		mean += residuals[i] / count;
	for (uint32_t i = 0; i < count; i++) {
		variance += (residuals[i] - mean) * (residuals[i] - mean);
		if (i)
			covariance += (residuals[i] - mean) * (residuals[i - 1] - mean);
	}
	/* What an exact line leaves over is rounding, and rounding resembles its
	 * neighbours; values are whole bytes. */
	double r = variance > count ? covariance / variance : 0;
	r = fmin(fmax(r, 0), 0.9);
	return (1 + r) / (1 - r);
}

/* The time from which "flat, then a straight line" leaves the least behind. */
static double onset(const double *times_s, const double *bytes, uint32_t count)
{
	double best = INFINITY, onset_time_s = times_s[0];

	for (uint32_t bend = 0; bend + 2 < count; bend++) {
		double mean_x = 0, mean_y = 0, xx = 0, xy = 0, yy = 0;

		for (uint32_t i = 0; i < count; i++) {
			mean_x += fmax(0, times_s[i] - times_s[bend]) / count;
			mean_y += bytes[i] / count;
		}
		for (uint32_t i = 0; i < count; i++) {
			double x = fmax(0, times_s[i] - times_s[bend]) - mean_x, y = bytes[i] - mean_y;

			xx += x * x;
			xy += x * y;
			yy += y * y;
		}
		double left = yy - xy * xy / xx;
		/* On a tie the earlier bend: a line that rises all along began at its first sample. */
		if (left < best * (1 - 1e-9)) {
			best = left;
			onset_time_s = times_s[bend];
		}
	}
	return onset_time_s;
}

static void fit_envelope(const double *bytes, uint32_t count, struct mw_fit *ret)
{
	double least[MW_FIT_BLOCKS];

	for (uint32_t block = 0; block < MW_FIT_BLOCKS; block++) {
		uint32_t from = block * count / MW_FIT_BLOCKS, to = (block + 1) * count / MW_FIT_BLOCKS;

		least[block] = bytes[from];
		for (uint32_t i = from + 1; i < to; i++)
			least[block] = fmin(least[block], bytes[i]);
		if (block)
			ret->rise_bytes[block - 1] = least[block] - least[block - 1];
	}
	ret->envelope_growth_bytes = least[MW_FIT_BLOCKS - 1] - least[0];
}

static void fit_step(const double *times_s, const double *bytes, uint32_t count, struct mw_fit *ret)
{
	for (uint32_t i = 1; i < count; i++) {
		if (bytes[i] - bytes[i - 1] > ret->step_bytes) {
			ret->step_bytes = bytes[i] - bytes[i - 1];
			ret->step_time_s = times_s[i];
		}
	}
}

static int refused(const double *times_s, const double *bytes, uint32_t count)
{
	if (count < MW_FIT_SAMPLES_MIN || count > MW_FIT_SAMPLES_MAX)
		return 1;
	for (uint32_t i = 0; i < count; i++)
		if (!isfinite(times_s[i]) || !isfinite(bytes[i]) || (i && times_s[i] <= times_s[i - 1]))
			return 1;
	return 0;
}

int mw_fit_compute(const double *times_s, const double *bytes, uint32_t count, struct mw_fit *ret)
{
	double slopes[PAIRS_MAX], residuals[MW_FIT_SAMPLES_MAX];

	memset(ret, 0, sizeof(*ret));
	if (refused(times_s, bytes, count))
		return -EINVAL;

	ret->sample_count = count;
	ret->first_time_s = times_s[0];
	ret->span_s = times_s[count - 1] - times_s[0];
	ret->last_bytes = bytes[count - 1];
	ret->least_squares_bytes_per_second = least_squares(times_s, bytes, count);

	uint32_t tail = count - count / 3 > count - 3 ? count - 3 : count - count / 3;
	uint32_t pairs = pairwise_slopes(times_s + tail, bytes + tail, count - tail, slopes);
	ret->tail_bytes_per_second = median(slopes, pairs);

	pairs = pairwise_slopes(times_s, bytes, count, slopes);
	double slope = median(slopes, pairs);
	ret->theil_sen_bytes_per_second = slope;
	for (uint32_t i = 0; i < count; i++)
		residuals[i] = bytes[i] - slope * (times_s[i] - times_s[0]);

	/* Mann-Kendall's S counts rising less falling pairs; its variance also
	 * says which ranks among the slopes bound the interval (Sen 1968). */
	double s = 0;
	for (uint32_t i = 0; i < pairs; i++)
		s += (slopes[i] > 0) - (slopes[i] < 0);
	double variance = count * (count - 1.0) * (2.0 * count + 5) / 18 * autocorrelation_inflation(residuals, count);
	double deviation = sqrt(variance);
	ret->trend_z = s > 0 ? (s - 1) / deviation : s < 0 ? (s + 1) / deviation : 0;

	double reach = 1.96 * deviation;
	double low_rank = floor((pairs - reach) / 2), high_rank = ceil((pairs + reach) / 2);
	ret->theil_sen_low_bytes_per_second = nth_least(slopes, pairs, low_rank > 0 ? (uint32_t)low_rank : 0);
	ret->theil_sen_high_bytes_per_second =
	    nth_least(slopes, pairs, high_rank < pairs - 1 ? (uint32_t)high_rank : pairs - 1);

	ret->onset_time_s = onset(times_s, bytes, count);
	fit_envelope(bytes, count, ret);
	fit_step(times_s, bytes, count, ret);

	ret->swing_bytes =
	    nth_least(residuals, count, count - 1 - count / 20) - nth_least(residuals, count, count / 20);
	return 0;
}

int mw_fit_level(const double *times_s, const double *bytes, uint32_t count, struct mw_fit ret[MW_FIT_WINDOWS])
{
	memset(ret, 0, MW_FIT_WINDOWS * sizeof(*ret));
	for (uint32_t window = 0; window < MW_FIT_WINDOWS; window++) {
		uint32_t samples = mw_fit_window_samples[window];

		if (samples > count)
			break;
		int rc = mw_fit_compute(times_s + count - samples, bytes + count - samples, samples, &ret[window]);
		if (rc)
			return rc;
	}
	return 0;
}

double mw_fit_earlier_peak(const struct mw_fit *fit, const struct mw_column *columns, uint32_t column_count,
			   double from_s, double growth_bytes)
{
	double peak = 0;

	for (uint32_t c = 0; c < column_count; c++) {
		const struct mw_column *column = &columns[c];
		double hidden =
		    fmin(column->width_s * fmax(0, fit->theil_sen_bytes_per_second), 0.8 * fmax(0, growth_bytes));

		for (uint32_t i = 0; i < column->count; i++) {
			if (column->times_s[i] + column->width_s > fit->first_time_s)
				break;
			if (column->times_s[i] >= from_s)
				peak = fmax(peak, column->bytes[i] + hidden);
		}
	}
	return peak;
}
