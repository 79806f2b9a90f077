/* aggregator.h - records and events in, one table per tick out.
 *
 * The only room where processes, services, histories and fits meet.  A subject
 * is what is judged: a process, or a service (all processes that Python gave
 * one service id, their private memory added up).  Python makes one call a
 * tick and reads finished rows; it never sees a record or an event. */

#ifndef MW_AGGREGATOR_H
#define MW_AGGREGATOR_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif
#include "events.h"
#include "fit.h"
#include "series.h"

struct mw_aggregator;

/* Bounds, fixed at creation, none of them 0.  A watchdog for leaks must not be
 * the one that leaks: past a bound things are counted in mw_counters, not
 * stored.  Sizes are of address space; memory is taken as entries are used. */
struct mw_limits {
	uint64_t bucket_ns[4];	/* widths of the history levels */
	uint64_t screen_bytes;	/* a subject whose lower envelope rose by less in every window is not fitted */
	uint32_t processes_max; /* up to 120 bytes each, and a history of 1 KiB while it lives */
	uint32_t services_max;	/* 176 bytes each, and a history of 1 KiB while it has processes; id 0 is nobody's */
	uint32_t rows_max;	/* rows of one table: 112 bytes each, and 3.9 KiB for the fits of a rising one */
	uint32_t unnamed_max;	/* processes handed to Python for naming in one tick: 40 bytes each */
	uint32_t oom_kills_max; /* OOM victims kept for one table: 4 KiB each */
	uint32_t reserved;
};

/* NULL if a bound or a bucket's width is 0, or if there is no memory. */
struct mw_aggregator *mw_aggregator_create(const struct mw_limits *limits);
void mw_aggregator_destroy(struct mw_aggregator *aggregator);

enum mw_subject_kind {
	MW_SUBJECT_PROCESS = 1,
	MW_SUBJECT_SERVICE = 2,
};

enum mw_row_flag {
	MW_ROW_RISING = 1,  /* the screen let it through: fits are filled in */
	MW_ROW_TOP = 2,	    /* among the largest services: shown, fitted only if rising too */
	MW_ROW_GONE = 4,    /* a service that has lost its last process; told once */
	MW_ROW_CLEARED = 8, /* a process, once a rising row, that ran another program: its history began anew */
};

/* One subject at one tick. */
struct mw_row {
	uint64_t start_time_ns; /* process: identity with pid; service: of its oldest process */
	uint64_t first_time_ns; /* CLOCK_MONOTONIC of the history's first sample */
	uint64_t private_bytes; /* anon + swap */
	uint64_t anon_bytes;
	uint64_t file_bytes;
	uint64_t shmem_bytes;
	uint64_t swap_bytes;
	uint64_t total_vm_bytes;
	uint64_t cgroup_id;	/* process: its own; service: of its largest process */
	uint32_t kind;		/* enum mw_subject_kind */
	uint32_t flags;		/* enum mw_row_flag */
	uint32_t pid;		/* process: its own; service: of its largest process */
	uint32_t service_id;	/* 0: not named yet */
	uint32_t process_count; /* 1 for a process */
	uint32_t births;	/* service: processes that joined since the history began */
	/* Of a rising subject MW_LEVELS x MW_FIT_WINDOWS fits, finest level and
	 * shortest window first; the table's, like the row.  A level in which no
	 * window rises is all 0.  Else NULL. */
	const struct mw_fit *fits;
};

/* A service as the last tick added it up: for whoever tells of all services,
 * not only of those in the table.  Nothing in it says how they grow. */
struct mw_service_sums {
	uint64_t private_bytes; /* anon + swap */
	uint64_t anon_bytes;
	uint64_t file_bytes;
	uint64_t shmem_bytes;
	uint64_t swap_bytes;
	uint64_t largest_bytes;	       /* private, of its largest process */
	uint64_t oldest_start_time_ns; /* CLOCK_BOOTTIME; of its oldest process */
	uint32_t service_id;
	uint32_t process_count;
};

/* A process that Python has not named yet, or that must be named anew. */
struct mw_unnamed {
	uint64_t start_time_ns;
	uint64_t cgroup_id;
	uint32_t pid;
	uint32_t parent_pid;
	char comm[16];
};

enum {
	MW_OOM_LEVELS = 2, /* of a victim's history, from the finest */
};

/* The kernel chose this process to die. */
struct mw_oom_kill {
	struct mw_lifecycle_event event;
	uint64_t private_bytes; /* at the last tick that saw it */
	uint32_t service_id;	/* 0 if it was never named */
	uint32_t sample_counts[MW_OOM_LEVELS];
	uint32_t reserved;
	/* Of its service's history, which ends with its last process; without
	 * one, of its own.  As mw_history_copy() has them. */
	double times_s[MW_OOM_LEVELS][MW_LEVEL_SAMPLES];
	double bytes[MW_OOM_LEVELS][MW_LEVEL_SAMPLES];
};

/* Totals since creation, but for the two of the current tick. */
struct mw_counters {
	uint64_t ticks_total;
	uint64_t records_total;
	uint64_t records_refused_total; /* not a record: pid 0, or the iterator ended inside it */
	uint64_t events_total;
	uint64_t events_refused_total;	 /* not an event: wrong size or unknown kind */
	uint64_t events_unmatched_total; /* of a process no tick has seen (it lived between two) */
	uint64_t processes_born_total;
	uint64_t processes_gone_total;
	uint64_t processes_untracked_total; /* records of processes beyond processes_max */
	uint64_t services_untracked_total;  /* names beyond services_max */
	uint64_t rows_omitted_total;	    /* rising, gone or cleared subjects that did not fit into a table */
	uint64_t naming_deferred_total;	    /* processes that waited a tick for a name, once per tick */
	uint64_t oom_kills_dropped_total;
	uint64_t pid_reused_total;	/* a pid that came back with another start time */
	uint64_t iterator_errors_total; /* ticks whose iterator ended early */
	uint64_t process_count;		/* this tick */
	uint64_t service_count;		/* this tick */
};

struct mw_table {
	uint64_t time_ns;
	const struct mw_row *rows; /* rising services, rising processes, gone and cleared ones, the rest by size */
	const struct mw_unnamed *unnamed;
	const struct mw_oom_kill *oom_kills;
	uint32_t row_count;
	uint32_t unnamed_count;
	uint32_t oom_kill_count;
	uint32_t reserved;
	struct mw_counters counters;
};

enum {
	MW_NO_ITERATOR = -1,
	MW_RECORDS_PARTIAL = -2, /* no iterator, and the records are known to miss processes */
};

/* One tick at time_ns (CLOCK_MONOTONIC): read iterator_fd to its end (or see above),
 * then take record_count records from memory (the fallback without BPF, and
 * replay), end the processes that neither showed, update services and
 * histories, screen, fit.  iterator_fd is the link; each tick reads it anew.
 * The table is the aggregator's, valid until the next tick.
 *
 * Return 0; -EINVAL and no table (NULL) if time does not advance; a read error
 * of the iterator as a negative errno, with a table, in which case, as with
 * MW_RECORDS_PARTIAL, nothing is ended for want of being seen and no service
 * takes a sample. */
int mw_aggregator_tick(struct mw_aggregator *aggregator, uint64_t time_ns, int iterator_fd,
		       const struct mw_process_record *records, uint64_t record_count, const struct mw_table **ret);

/* Take one lifecycle event; size_bytes is what the ring said it has. */
void mw_aggregator_on_event(struct mw_aggregator *aggregator, const void *data, uint64_t size_bytes);

/* Say which service a process belongs to; 0 < service_id < services_max.  A
 * process is handed out for naming once: by the second tick that sees it, or a
 * later one if more wait than unnamed_max; and again after it ran another
 * program or changed its cgroup.  It stays with the service it had until it is
 * named.  So whoever is not to be watched need not be named.
 *
 * Return 0, -EINVAL for id 0, -ESRCH if that process is gone, -ENOMEM, or
 * -ENOSPC beyond services_max: it is then without a service. */
int mw_aggregator_name(struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns, uint32_t service_id);

/* Forget a service, so that its id can be given again.  Return 0, or -EBUSY if
 * it has a process. */
int mw_aggregator_forget_service(struct mw_aggregator *aggregator, uint32_t service_id);

/* Copy a subject's level as mw_history_copy() does; a service if pid is 0
 * (start_time_ns is then the service id).  Return the count, -EINVAL for no
 * such level, or -ESRCH. */
int mw_aggregator_history(const struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns, uint32_t level,
			  double *times_s, double *bytes);

/* Copy up to count rows of the processes of a service (0: of those without
 * one), largest first; return how many.  Their fits are the table's: NULL for a
 * rising one that found no row in it. */
uint32_t mw_aggregator_members(struct mw_aggregator *aggregator, uint32_t service_id, struct mw_row *rows,
			       uint32_t count);

/* Copy the sums of up to count services that have processes, by id; return how many. */
uint32_t mw_aggregator_services(const struct mw_aggregator *aggregator, struct mw_service_sums *sums, uint32_t count);

#endif
