/* series.c - the columns behind series.h.
 *
 * Every level is kept the same way: buckets are numbered from 1, the open one
 * stands apart, and the 60 closed before it lie in a ring at number % 60.  A
 * closed bucket is moved into the ring by the first sample after it, so a tick
 * costs a subject that has no sample nothing.
 *
 * Must not know whose history it is, nor what is made of it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "series.h"

/* A bucket without a sample.  Being the identity of the minimum, it needs no
 * case of its own where samples are added. */
static const uint32_t HOLE = UINT32_MAX;

struct level_clock {
	uint64_t times_ns[MW_LEVEL_SAMPLES]; /* first tick of each closed bucket */
	uint64_t open_time_ns;
	uint32_t number; /* of the open bucket; 0 before the first tick */
};

struct mw_clock {
	struct level_clock levels[MW_LEVELS];
	uint64_t bucket_ns[MW_LEVELS];
	uint64_t time_ns;
	uint64_t page_bytes;
	uint32_t tick;	   /* ordinal, like the buckets' enough for 136 years of one a second */
	uint32_t is_fresh; /* loaded: 2 until the next tick, 1 during it */
};

/* What a tick touches lies together, in one cache line. */
struct mw_history {
	uint64_t first_time_ns;
	uint32_t tick;			  /* of the last sample */
	uint32_t numbers[MW_LEVELS];	  /* of the last bucket with a sample; 0: none */
	uint32_t open_pages[MW_LEVELS];	  /* the least in that bucket */
	uint32_t before_pages[MW_LEVELS]; /* the same without the current tick, whose value may be replaced */
	uint32_t pages[MW_LEVELS][MW_LEVEL_SAMPLES];
};

_Static_assert(sizeof(struct mw_history) == 4 * 60 * 4 + 64, "series.h and aggregator.h state another size");
_Static_assert(sizeof(struct mw_history) == MW_HISTORY_BYTES, "what is saved changed: raise MW_ARCHIVE_VERSION");
_Static_assert(sizeof(struct mw_clock) == MW_CLOCK_BYTES, "what is saved changed: raise MW_ARCHIVE_VERSION");

/* The buckets that mw_history_copy() speaks of: [first, end) by number. */
struct window {
	uint32_t first;
	uint32_t end;
};

struct mw_clock *mw_clock_create(const uint64_t bucket_ns[4])
{
	struct mw_clock *clock;

	for (int level = 0; level < MW_LEVELS; level++) {
		if (!bucket_ns[level])
			return NULL;
	}
	clock = calloc(1, sizeof(*clock));
	if (!clock)
		return NULL;
	memcpy(clock->bucket_ns, bucket_ns, sizeof(clock->bucket_ns));
	clock->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	return clock;
}

void mw_clock_destroy(struct mw_clock *clock)
{
	free(clock);
}

/* Nine tenths of the width, without overflow. */
static int is_over(uint64_t elapsed_ns, uint64_t bucket_ns)
{
	return elapsed_ns >= bucket_ns - bucket_ns / 10;
}

int mw_clock_advance(struct mw_clock *clock, uint64_t time_ns)
{
	if (time_ns <= clock->time_ns)
		return -EINVAL;
	clock->time_ns = time_ns;
	clock->tick++;
	clock->is_fresh /= 2;
	for (int i = 0; i < MW_LEVELS; i++) {
		struct level_clock *level = &clock->levels[i];

		if (level->number && !is_over(time_ns - level->open_time_ns, clock->bucket_ns[i]))
			continue;
		level->times_ns[level->number % MW_LEVEL_SAMPLES] = level->open_time_ns;
		level->number++;
		level->open_time_ns = time_ns;
	}
	return 0;
}

uint32_t mw_clock_bucket(const struct mw_clock *clock, uint32_t level)
{
	return level < MW_LEVELS ? clock->levels[level].number : 0;
}

uint32_t mw_clock_turned_levels(const struct mw_clock *clock)
{
	uint32_t mask = 1U << MW_LEVEL0;

	/* Nobody has looked at any level of what was loaded. */
	if (clock->is_fresh)
		return (1U << MW_LEVELS) - 1;
	for (uint32_t level = 1; level < MW_LEVELS; level++) {
		if (clock->levels[level].open_time_ns == clock->time_ns)
			mask |= 1U << level;
	}
	return mask;
}

double mw_clock_width_s(const struct mw_clock *clock, uint32_t level)
{
	return level < MW_LEVELS ? (double)clock->bucket_ns[level] / 1e9 : 0;
}

struct mw_history *mw_history_create(void)
{
	struct mw_history *history = malloc(sizeof(*history));

	if (history)
		mw_history_clear(history);
	return history;
}

void mw_history_destroy(struct mw_history *history)
{
	free(history);
}

void mw_history_clear(struct mw_history *history)
{
	history->first_time_ns = 0;
	history->tick = 0;
	memset(history->numbers, 0, sizeof(history->numbers));
	/* Each byte of a HOLE is the same. */
	memset(history->open_pages, 0xff, sizeof(history->open_pages));
	memset(history->before_pages, 0xff, sizeof(history->before_pages));
	memset(history->pages, 0xff, sizeof(history->pages));
}

/* Move the open bucket into the ring and open the one of that number.  The
 * buckets between had no sample; more than a ring of them empties it. */
static void turn_bucket(struct mw_history *history, int level, uint32_t number)
{
	uint32_t *pages = history->pages[level];
	uint32_t old = history->numbers[level];

	if (old) {
		uint32_t holes = number - old - 1;

		pages[old % MW_LEVEL_SAMPLES] = history->open_pages[level];
		for (uint32_t i = 1; i <= holes && i <= MW_LEVEL_SAMPLES; i++)
			pages[(old + i) % MW_LEVEL_SAMPLES] = HOLE;
	}
	history->numbers[level] = number;
	history->before_pages[level] = HOLE;
}

void mw_history_add(struct mw_history *history, const struct mw_clock *clock, uint64_t pages)
{
	int tick_is_new = history->tick != clock->tick;
	uint32_t value = pages < HOLE ? (uint32_t)pages : HOLE - 1;

	if (!history->first_time_ns)
		history->first_time_ns = clock->time_ns;
	history->tick = clock->tick;
	for (int level = 0; level < MW_LEVELS; level++) {
		uint32_t number = clock->levels[level].number;
		uint32_t before;

		if (history->numbers[level] != number)
			turn_bucket(history, level, number);
		else if (tick_is_new)
			history->before_pages[level] = history->open_pages[level];
		before = history->before_pages[level];
		history->open_pages[level] = value < before ? value : before;
	}
}

int mw_history_has_sample(const struct mw_history *history, const struct mw_clock *clock)
{
	return history->tick == clock->tick;
}

void mw_clock_save(const struct mw_clock *clock, void *bytes)
{
	memcpy(bytes, clock, sizeof(*clock));
}

/* Times of a level only rise, up to the present. */
static int is_plausible(const struct level_clock *level, uint64_t time_ns)
{
	uint64_t before_ns = 0;
	uint32_t closed = level->number > MW_LEVEL_SAMPLES ? MW_LEVEL_SAMPLES : level->number;

	for (uint32_t i = closed; i > 0; i--) {
		uint32_t number = level->number - i;
		uint64_t at_ns = level->times_ns[number % MW_LEVEL_SAMPLES];

		/* Number 0 is before the first tick: no time. */
		if (number && at_ns <= before_ns)
			return 0;
		before_ns = number ? at_ns : 0;
	}
	return level->number && level->open_time_ns > before_ns && level->open_time_ns <= time_ns;
}

int mw_clock_load(struct mw_clock *clock, const void *bytes, uint64_t time_ns)
{
	struct mw_clock saved;

	memcpy(&saved, bytes, sizeof(saved));
	if (memcmp(saved.bucket_ns, clock->bucket_ns, sizeof(saved.bucket_ns)) ||
	    saved.page_bytes != clock->page_bytes || saved.time_ns != time_ns || !saved.tick)
		return -EPROTO;
	for (int level = 0; level < MW_LEVELS; level++) {
		if (!is_plausible(&saved.levels[level], time_ns))
			return -EPROTO;
	}
	*clock = saved;
	clock->is_fresh = 2;
	return 0;
}

void mw_history_save(const struct mw_history *history, void *bytes)
{
	memcpy(bytes, history, sizeof(*history));
}

int mw_history_load(struct mw_history *history, const struct mw_clock *clock, const void *bytes)
{
	struct mw_history saved;

	memcpy(&saved, bytes, sizeof(saved));
	if (saved.tick > clock->tick || saved.first_time_ns > clock->time_ns)
		return -EPROTO;
	for (int level = 0; level < MW_LEVELS; level++) {
		if (saved.numbers[level] > clock->levels[level].number)
			return -EPROTO;
	}
	*history = saved;
	return 0;
}

uint64_t mw_history_first_time_ns(const struct mw_history *history)
{
	return history->first_time_ns;
}

/* The last 60 closed buckets.  Of level 0 the open one counts too, so that
 * what happens now is told now. */
static struct window window_of(const struct mw_clock *clock, uint32_t level)
{
	struct window window = {.first = 1, .end = clock->levels[level].number};

	if (level == MW_LEVEL0)
		window.end++;
	if (window.end > MW_LEVEL_SAMPLES)
		window.first = window.end - MW_LEVEL_SAMPLES;
	return window;
}

/* Of a bucket in the window, or HOLE. */
static uint32_t pages_of(const struct mw_history *history, uint32_t level, uint32_t number)
{
	if (number < history->numbers[level])
		return history->pages[level][number % MW_LEVEL_SAMPLES];
	return number == history->numbers[level] ? history->open_pages[level] : HOLE;
}

static uint64_t time_of(const struct mw_history *history, const struct level_clock *level, uint32_t number)
{
	uint64_t time_ns = number == level->number ? level->open_time_ns : level->times_ns[number % MW_LEVEL_SAMPLES];

	return time_ns < history->first_time_ns ? history->first_time_ns : time_ns;
}

uint32_t mw_history_copy(const struct mw_history *history, const struct mw_clock *clock, uint32_t level,
			 double *times_s, double *bytes)
{
	struct window window;
	uint32_t count = 0;

	if (level >= MW_LEVELS)
		return 0;
	window = window_of(clock, level);
	for (uint32_t number = window.first; number < window.end; number++) {
		uint32_t pages = pages_of(history, level, number);

		if (pages == HOLE)
			continue;
		times_s[count] = (double)time_of(history, &clock->levels[level], number) / 1e9;
		bytes[count] = (double)pages * (double)clock->page_bytes;
		count++;
	}
	return count;
}

uint32_t mw_history_copy_pages(const struct mw_history *history, const struct mw_clock *clock, uint32_t level,
			       uint32_t *pages)
{
	struct window window;
	uint32_t count = 0;

	if (level >= MW_LEVELS)
		return 0;
	window = window_of(clock, level);
	for (uint32_t number = window.first; number < window.end; number++) {
		pages[count] = pages_of(history, level, number);
		count += pages[count] != HOLE;
	}
	return count;
}
