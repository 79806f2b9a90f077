/* governor.h - ends windows in time, whatever Python is doing.
 *
 * A window is the time in which a process has allocation probes.  A thread of
 * our own looks every few milliseconds at what each open window has cost so
 * far, and ends it at its time, at its price, or with its process: first a flag
 * that makes the programs return at once, then the links' descriptors.  So a
 * budget holds even while Python waits for a disk.
 *
 * What a window may cost is planned elsewhere (mwtrace/probes/governor.py).
 * Knows no layouts and no probes: map descriptors, numbers and links.
 *
 * Calls may come from any thread. */

#ifndef MW_GOVERNOR_H
#define MW_GOVERNOR_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_PRICED_WORDS_MAX = 32,
	MW_WINDOW_LINKS_MAX = 64,
	MW_WINDOWS_MAX = 64, /* open at once, on the whole host */
};

/* Where the programs count, and where they are told to stop. */
struct mw_governor_maps {
	int counts_fd;	/* per-CPU array; a value begins with priced_words counters of u64 */
	int targets_fd; /* hash by pid (u32), whose value has a u32 of flags */
	uint32_t flags_offset;
	uint32_t stop_flag;
	uint32_t priced_words;
	/* Nanoseconds of the target's time that one count of each word stands for; 0: costs nothing. */
	uint32_t price_ns[32]; /* MW_PRICED_WORDS_MAX */
};

enum mw_window_end {
	MW_WINDOW_OPEN = 0,
	MW_WINDOW_TIME = 1,    /* ran for as long as planned */
	MW_WINDOW_PRICE = 2,   /* cost as much as it may: emergency */
	MW_WINDOW_ASKED = 3,   /* mw_governor_ask() or _close() */
	MW_WINDOW_GONE = 4,    /* the process ended */
	MW_WINDOW_UNKNOWN = 5, /* what it costs could not be read: ended to be safe */
};

struct mw_window {
	uint64_t opened_ns;  /* CLOCK_MONOTONIC */
	uint64_t flagged_ns; /* programs return at once from here; 0: still open */
	uint64_t closed_ns;  /* the last link is gone; 0: not yet */
	uint64_t spent_ns;   /* of the target's time, by price_ns */
	uint64_t words[32];  /* counted within the window */
	uint32_t end;	     /* enum mw_window_end */
	uint32_t reserved;
};

struct mw_governor;

/* Start the threads; one looks every poll_ns.  0 or a negative errno. */
int mw_governor_create(const struct mw_governor_maps *maps, uint64_t poll_ns, struct mw_governor **ret);

/* End all windows, then the threads. No other call may be under way. */
void mw_governor_destroy(struct mw_governor *governor);

/* Watch the window of process pid, whose counts are in slot and whose stop flag
 * the caller has cleared: until duration_ns from now, or spent_max_ns of cost.
 * Takes the links: their descriptors are closed by the thread, also on error.
 * pidfd (taken too) tells of the process's end, -1: not watched.
 *
 * Return a number for the window, or -EBUSY if MW_WINDOWS_MAX are open, -E2BIG
 * too many links, or what reading the maps says. */
int mw_governor_open(struct mw_governor *governor, uint32_t pid, uint32_t slot, uint64_t duration_ns,
		     uint64_t spent_max_ns, const int *link_fds, uint32_t link_count, int pidfd);

/* How the window stands; it stays known until it is collected. */
int mw_governor_look(struct mw_governor *governor, int window, struct mw_window *ret);

/* End the window if it is open, and do not wait: mw_governor_look() says when
 * its links are gone.  0, or -ENOENT. */
int mw_governor_ask(struct mw_governor *governor, int window);

/* End the window if it is open, wait until its links are gone, say how it went
 * and forget it; once per window.  0, or -ENOENT. */
int mw_governor_close(struct mw_governor *governor, int window, struct mw_window *ret);

#endif
