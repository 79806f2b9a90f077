/* subject.h - what a process and a service have in common: a past, and whether
 * that past rises enough to be worth a fit.
 *
 * Must not know which of the two it is, nor who reads the fits. */

#ifndef MW_SUBJECT_H
#define MW_SUBJECT_H

#include <stdint.h>

#include "fit.h"
#include "series.h"

/* Fits of one subject in every window, kept from tick to tick: a level's stay
 * true until it gets a new sample, and only level 0 gets one every tick. */
struct mw_fits {
	struct mw_fit windows[MW_LEVELS][MW_FIT_WINDOWS];
	const struct mw_subject *owner; /* whoever else points here has lost them */
	uint64_t used_tick;		/* the last table they were in */
	uint32_t buckets[MW_LEVELS];	/* mw_clock_bucket() when computed; 0: never */
};

struct mw_subject {
	struct mw_history *history; /* NULL while nobody watches */
	struct mw_fits *fits;	    /* the table's, maybe lent to another by now; NULL: never had any */
	uint32_t rising_levels;	    /* mask of the levels in which a window's lower envelope rose by the bound */
	uint32_t saved_tick;	    /* archive.h; 0: what is saved of it, if anything, is another history */
};

/* Give the subject an empty history.  Return 0 or -ENOMEM. */
int mw_subject_init(struct mw_subject *subject);
void mw_subject_deinit(struct mw_subject *subject);

/* Forget the past but go on. */
void mw_subject_clear(struct mw_subject *subject);

/* See which levels have a window that rises by screen_pages; levels that did not turn with
 * this tick keep their answer.  Once a tick, with or without a new sample,
 * since the window moves on. */
void mw_subject_screen(struct mw_subject *subject, const struct mw_clock *clock, uint64_t screen_pages);

/* The greatest rise of any window, in pages. */
uint64_t mw_subject_rise_pages(const struct mw_subject *subject, const struct mw_clock *clock);

/* The fits that are still the subject's own, or NULL. */
struct mw_fits *mw_subject_fits(const struct mw_subject *subject);

/* Give the subject room for fits, whoever had it before. */
void mw_subject_take_fits(struct mw_subject *subject, struct mw_fits *fits);

/* Bring its fits up to the current tick.  Levels that do not rise are not
 * described: all 0. */
void mw_subject_fit(struct mw_subject *subject, const struct mw_clock *clock);

#endif
