/* subject.c - see subject.h. */

#include <errno.h>
#include <string.h>

#include "subject.h"

int mw_subject_init(struct mw_subject *subject)
{
	memset(subject, 0, sizeof(*subject));
	subject->history = mw_history_create();
	return subject->history ? 0 : -ENOMEM;
}

void mw_subject_deinit(struct mw_subject *subject)
{
	mw_history_destroy(subject->history);
	memset(subject, 0, sizeof(*subject));
}

void mw_subject_clear(struct mw_subject *subject)
{
	mw_history_clear(subject->history);
	subject->fits = NULL;
	subject->rising_levels = 0;
	subject->saved_tick = 0;
}

static uint32_t least(const uint32_t *pages, uint32_t count)
{
	uint32_t minimum = pages[0];

	for (uint32_t i = 1; i < count; i++)
		minimum = pages[i] < minimum ? pages[i] : minimum;
	return minimum;
}

/* The greatest mw_fit.envelope_growth_bytes of the level's windows, in pages.
 * Growth below a bound is the first reason for which the judge dismisses a
 * window, so with this bound the screen dismisses nobody whom it would not. */
static uint64_t envelope_growth_pages(const struct mw_subject *subject, const struct mw_clock *clock, uint32_t level)
{
	uint32_t pages[MW_LEVEL_SAMPLES];
	uint32_t count = mw_history_copy_pages(subject->history, clock, level, pages);
	uint64_t greatest = 0;

	for (uint32_t i = 0; i < MW_FIT_WINDOWS; i++) {
		uint32_t samples = mw_fit_window_samples[i];
		uint32_t last_block = (MW_FIT_BLOCKS - 1) * samples / MW_FIT_BLOCKS;
		uint32_t first, last;

		if (samples > count)
			break;
		first = least(pages + count - samples, samples / MW_FIT_BLOCKS);
		last = least(pages + count - samples + last_block, samples - last_block);
		if (last > first && last - first > greatest)
			greatest = last - first;
	}
	return greatest;
}

void mw_subject_screen(struct mw_subject *subject, const struct mw_clock *clock, uint64_t screen_pages)
{
	uint32_t turned = mw_clock_turned_levels(clock);

	for (uint32_t level = 0; level < MW_LEVELS; level++) {
		uint32_t bit = 1U << level;

		if (!(turned & bit))
			continue;
		if (envelope_growth_pages(subject, clock, level) >= screen_pages)
			subject->rising_levels |= bit;
		else
			subject->rising_levels &= ~bit;
	}
}

uint64_t mw_subject_rise_pages(const struct mw_subject *subject, const struct mw_clock *clock)
{
	uint64_t greatest = 0;

	for (uint32_t level = 0; level < MW_LEVELS; level++) {
		uint64_t growth = envelope_growth_pages(subject, clock, level);

		greatest = growth > greatest ? growth : greatest;
	}
	return greatest;
}

struct mw_fits *mw_subject_fits(const struct mw_subject *subject)
{
	return subject->fits && subject->fits->owner == subject ? subject->fits : NULL;
}

void mw_subject_take_fits(struct mw_subject *subject, struct mw_fits *fits)
{
	fits->owner = subject;
	memset(fits->buckets, 0, sizeof(fits->buckets));
	subject->fits = fits;
}

/* A program's first minute says nothing of how large it normally is: it reads
 * its data, compiles, and lets go of what that took. */
static const double START_UP_S = 60;

/* The most that the lower envelope has grown in any window. */
static double greatest_growth(const struct mw_fits *fits)
{
	double greatest = 0;

	for (uint32_t level = 0; level < MW_LEVELS; level++) {
		for (uint32_t window = 0; window < MW_FIT_WINDOWS; window++) {
			double growth = fits->windows[level][window].envelope_growth_bytes;

			greatest = growth > greatest ? growth : greatest;
		}
	}
	return greatest;
}

/* Level 0 is not asked: its peaks may be bursts of one tick, while the least
 * of a minute was there for all of it. */
static void find_earlier_peaks(const struct mw_subject *subject, const struct mw_clock *clock)
{
	enum { COLUMNS = MW_LEVELS - 1 };
	double times_s[COLUMNS][MW_LEVEL_SAMPLES];
	double bytes[COLUMNS][MW_LEVEL_SAMPLES];
	struct mw_column columns[COLUMNS];
	double growth_bytes = greatest_growth(subject->fits);
	double from_s = (double)mw_history_first_time_ns(subject->history) / 1e9 + START_UP_S;

	for (uint32_t i = 0; i < COLUMNS; i++) {
		uint32_t level = i + 1;

		columns[i] = (struct mw_column){
		    .times_s = times_s[i],
		    .bytes = bytes[i],
		    .width_s = mw_clock_width_s(clock, level),
		    .count = mw_history_copy(subject->history, clock, level, times_s[i], bytes[i]),
		};
	}
	for (uint32_t level = 0; level < MW_LEVELS; level++) {
		for (uint32_t window = 0; window < MW_FIT_WINDOWS; window++) {
			struct mw_fit *fit = &subject->fits->windows[level][window];

			if (fit->sample_count)
				fit->earlier_peak_bytes =
				    mw_fit_earlier_peak(fit, columns, COLUMNS, from_s, growth_bytes);
		}
	}
}

void mw_subject_fit(struct mw_subject *subject, const struct mw_clock *clock)
{
	struct mw_fits *fits = subject->fits;

	for (uint32_t level = 0; level < MW_LEVELS; level++) {
		double times_s[MW_LEVEL_SAMPLES];
		double bytes[MW_LEVEL_SAMPLES];
		uint32_t bucket = mw_clock_bucket(clock, level);
		uint32_t count;

		if (!(subject->rising_levels & 1U << level)) {
			memset(fits->windows[level], 0, sizeof(fits->windows[level]));
			fits->buckets[level] = 0;
			continue;
		}
		if (level != MW_LEVEL0 && fits->buckets[level] == bucket)
			continue;
		fits->buckets[level] = bucket;
		count = mw_history_copy(subject->history, clock, level, times_s, bytes);
		/* It refuses only what a history cannot hold, and leaves zeros then. */
		mw_fit_level(times_s, bytes, count, fits->windows[level]);
	}
	find_earlier_peaks(subject, clock);
}
