/* tracer.h - allocation events in, tables of sites out.
 *
 * The room where blocks, ranges, stacks and sites meet.  Python makes one call
 * to drain the ring and one for a table; it never sees an event.  Knows no
 * probe, no symbol and no verdict.  One thread at a time: the caller locks. */

#ifndef MW_TRACER_H
#define MW_TRACER_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "trace_events.h"
#include "live.h"
#include "ranges.h"
#include "sites.h"
#include "stacks.h"

struct mw_tracer;

/* Bounds, fixed at creation; past one, things are counted in
 * mw_tracer_counters, not stored. */
struct mw_tracer_limits {
	uint32_t blocks_max;	/* 70 bytes each */
	uint32_t ranges_max;	/* 64 bytes each */
	uint32_t stacks_max;	/* 50 bytes each */
	uint32_t words_max;	/* 8 bytes each, of all stacks together */
	uint32_t sites_max;	/* 520 bytes each, once used */
	uint32_t processes_max; /* 1.5 KiB each, once used */
	uint32_t rows_max;	/* site rows of one table, 420 bytes each */
	uint32_t reserved;
};

/* -EINVAL: a bound is 0 or too large; -ENOMEM. */
int mw_tracer_create(const struct mw_tracer_limits *limits, struct mw_tracer **ret);
void mw_tracer_destroy(struct mw_tracer *tracer);

/* Take every record that is in the ring buffer of map_fd; if there is none,
 * wait up to timeout_ms for some (BPF programs that do not wake us are seen
 * when it is over).  The ring stays open for the next call; another map's
 * closes it.  -1 closes it and takes nothing.
 *
 * Return how many records were taken, or a negative errno: -EINTR on a signal. */
int mw_tracer_drain(struct mw_tracer *tracer, int map_fd, int timeout_ms);

/* Take one record of size_bytes, as the ring does. */
void mw_tracer_take(struct mw_tracer *tracer, const void *record, uint64_t size_bytes);

/* Take a recording: each record behind its size as a uint64_t, padded to a
 * multiple of 8.  Return how many records it held, -EINVAL if it is cut off. */
int64_t mw_tracer_replay(struct mw_tracer *tracer, const void *bytes, uint64_t size_bytes);

/* What the kernel side counted for pid since its tracing began (all CPUs'
 * values added up).  Kept for the table; -ESRCH if no event of pid was taken
 * and there is no room for it. */
int mw_tracer_tell_counts(struct mw_tracer *tracer, uint32_t pid, uint64_t time_ns,
			  const struct mw_target_counts *counts);

/* Copy up to count of pid's remembered blocks (not ranges) allocated in
 * [since_ns, until_ns), from *cursor on (0 at first); 0 when all were shown. */
uint32_t mw_tracer_survivors(struct mw_tracer *tracer, uint32_t pid, uint64_t since_ns, uint64_t until_ns,
			     uint32_t *cursor, struct mw_block *blocks, uint32_t count);

/* Take an audit's answers: each block's state and fingerprint.  Freed ones are
 * credited to their sites.  A block that is gone, or was replaced since (its
 * time differs), is left alone.  is_final 0: a first look, soon after the
 * window; what is alive then need not be there for long, so it is remembered
 * with its contents, and not yet counted as a survivor.  Return how many were
 * still remembered. */
uint32_t mw_tracer_settle(struct mw_tracer *tracer, const struct mw_block *blocks, uint32_t count, uint32_t is_final);

/* Say that window_ns of pid's time were traced in a window, all of whose
 * blocks have been settled: what survived divided by these is a leak's rate. */
int mw_tracer_add_window(struct mw_tracer *tracer, uint32_t pid, uint64_t window_ns);

/* Forget pid: it ended, runs another program, or is traced no more. */
void mw_tracer_forget(struct mw_tracer *tracer, uint32_t pid);

/* Copy up to count requests for a process' thread list, oldest first, and
 * forget them.  64 are kept; a process asks again. */
uint32_t mw_tracer_thread_requests(struct mw_tracer *tracer, struct mw_thread_event *requests, uint32_t count);

/* Totals since creation, but for the *_count, which are of now.
 *   allocated = live blocks + freed + replaced + untracked + settled freed + forgotten */
struct mw_tracer_counters {
	uint64_t records_total;
	uint64_t records_refused_total;	 /* not a record: wrong size, kind or domain, address 0, pid 0 */
	uint64_t allocated_total;	 /* MW_BLOCK_ALLOC */
	uint64_t freed_total;		 /* MW_BLOCK_FREE of a remembered block */
	uint64_t unmatched_frees_total;	 /* of a block we do not remember: allocated before, not sampled, untracked */
	uint64_t stale_frees_total;	 /* of the block before the one that is live (see mw_block_event) */
	uint64_t missed_frees_total;	 /* a block came where one was live: replaced */
	uint64_t untracked_blocks_total; /* blocks_max, or processes_max */
	uint64_t untracked_bytes_total;
	uint64_t forgotten_blocks_total;
	uint64_t mapped_total;	 /* MW_BLOCK_MAP */
	uint64_t unmapped_total; /* MW_BLOCK_UNMAP that hit a remembered range */
	uint64_t unmatched_unmaps_total;
	uint64_t missed_unmaps_total;	 /* a mapping came over a remembered one */
	uint64_t untracked_ranges_total; /* ranges_max: mappings, or rests of cut ones */
	uint64_t forgotten_ranges_total;
	uint64_t growths_total; /* MW_BLOCK_GROWTH */
	uint64_t stacks_total;
	uint64_t stacks_refused_total;	  /* stacks_max or words_max */
	uint64_t stacks_collided_total;	  /* a hash that stood for other words */
	uint64_t sites_refused_total;	  /* charges to MW_SITE_OTHER: sites_max */
	uint64_t processes_refused_total; /* events of processes past processes_max */
	uint64_t threads_asked_total;
	uint64_t settled_alive_total; /* answers, not blocks: a block may be audited often */
	uint64_t settled_freed_total;
	uint64_t settled_unknown_total;
	uint64_t block_count;
	uint64_t range_count;
	uint64_t stack_count;
	uint64_t word_count;
	uint64_t site_count;
	uint64_t process_count;
};

/* The groups that slopes are told for. */
enum mw_heap_group {
	MW_HEAP_PYTHON = 0, /* the three domains of CPython */
	MW_HEAP_NATIVE = 1, /* MW_DOMAIN_NATIVE */
	MW_HEAP_MAP = 2,    /* MW_DOMAIN_MAP; holds the other two's arenas, too, so never add it to them */
	MW_HEAP_GROUPS = 3,
};

struct mw_process_row {
	uint64_t since_ns;	    /* CLOCK_MONOTONIC of its first event */
	uint64_t window_ns;	    /* see mw_tracer_add_window() */
	struct mw_sum allocated[6]; /* by enum mw_domain; [0] is empty */
	struct mw_sum freed[6];
	struct mw_sum survived[6];
	struct mw_sum grown[6];
	uint64_t untracked_bytes;
	double allocated_bytes_per_second[3]; /* by enum mw_heap_group, weighted, since the last table */
	struct mw_fit live[3];		      /* of live weighted bytes */
	struct mw_target_counts counts;	      /* as last told */
	uint64_t counts_time_ns;	      /* 0: never told */
	uint32_t pid;
	uint32_t reserved;
};

struct mw_site_row {
	uint64_t native_stack; /* ask mw_tracer_stack() */
	uint64_t python_stack;
	uint64_t since_ns;
	uint64_t first_time_ns;
	uint64_t last_time_ns;
	struct mw_sum allocated;
	struct mw_sum freed;
	struct mw_sum survived;
	struct mw_sum grown;
	double allocated_bytes_per_second; /* weighted, since the last table */
	double survived_bytes_per_second;  /* survived / audited windows; 0: no window */
	struct mw_fit live;		   /* of live weighted bytes */
	uint32_t pid;
	uint32_t site; /* MW_SITE_OTHER: all sites past sites_max, of all processes */
	uint16_t domain;
	uint16_t reserved[3];
};

/* What "top" means. */
enum mw_site_order {
	MW_ORDER_GROWTH = 1,	/* slope of live bytes, of those that rose most */
	MW_ORDER_LIVE = 2,	/* live weighted bytes */
	MW_ORDER_SURVIVED = 3,	/* what audits found alive */
	MW_ORDER_GROWN = 4,	/* growth sampling */
	MW_ORDER_ALLOCATED = 5, /* allocated weighted bytes */
};

struct mw_tracer_table {
	uint64_t time_ns;
	const struct mw_process_row *processes;
	const struct mw_site_row *sites; /* in order */
	uint32_t process_count;
	uint32_t site_count;
	uint64_t sites_omitted; /* sites with anything to tell that did not fit */
	struct mw_tracer_counters counters;
};

/* The state at time_ns (CLOCK_MONOTONIC), of pid or (0) of all, sites by
 * order.  Also the tick at which live bytes are sampled for slopes, so call it
 * at a steady pace.  The table is the tracer's, valid until the next call. */
int mw_tracer_table(struct mw_tracer *tracer, uint64_t time_ns, uint32_t pid, uint32_t order,
		    const struct mw_tracer_table **ret);

/* The stack a hash stands for, or NULL; valid until the next forget. */
const struct mw_stack *mw_tracer_stack(const struct mw_tracer *tracer, uint32_t pid, uint64_t stack);

#endif
