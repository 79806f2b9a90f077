/* ticks.c - see ticks.h.  No memory, no clock of its own. */

#include "ticks.h"

#include <string.h>

int mw_ticks_advance(struct mw_ticks *ticks, uint64_t time_ns)
{
	ticks->thinned = 0;
	if (ticks->count && time_ns <= ticks->times_ns[ticks->count - 1])
		return -1;
	if (!ticks->stride)
		ticks->stride = 1;
	if (ticks->count && ++ticks->skipped < ticks->stride)
		return -1;
	ticks->skipped = 0;
	if (ticks->count == MW_TICKS_MAX) {
		for (uint32_t i = 0; i < MW_TICKS_MAX / 2; i++)
			ticks->times_ns[i] = ticks->times_ns[2 * i];
		ticks->count = MW_TICKS_MAX / 2;
		ticks->stride *= 2;
		ticks->thinned = 1;
	}
	ticks->times_ns[ticks->count] = time_ns;
	return (int)ticks->count++;
}

void mw_past_thin(struct mw_past *column)
{
	for (uint32_t i = 0; i < MW_TICKS_MAX / 2; i++)
		column->values[i] = column->values[2 * i];
	memset(&column->values[MW_TICKS_MAX / 2], 0, sizeof(column->values) / 2);
}

void mw_past_fit(const struct mw_past *column, const struct mw_ticks *ticks, uint64_t since_ns, uint64_t now_ns,
		 uint64_t now_value, struct mw_fit *ret)
{
	double times_s[MW_TICKS_MAX + 1], bytes[MW_TICKS_MAX + 1];
	uint32_t count = 0;

	for (uint32_t i = 0; i < ticks->count; i++) {
		if (ticks->times_ns[i] < since_ns || ticks->times_ns[i] >= now_ns)
			continue;
		times_s[count] = (double)ticks->times_ns[i] / 1e9;
		bytes[count++] = (double)column->values[i];
	}
	times_s[count] = (double)now_ns / 1e9;
	bytes[count++] = (double)now_value;
	if (mw_fit_compute(times_s, bytes, count, ret))
		memset(ret, 0, sizeof(*ret));
}

uint64_t mw_past_rise(const struct mw_past *column, const struct mw_ticks *ticks, uint64_t now_value)
{
	uint64_t least = now_value;

	for (uint32_t i = ticks->count / 2; i < ticks->count; i++) {
		if (column->values[i] < least)
			least = column->values[i];
	}
	return now_value - least;
}
