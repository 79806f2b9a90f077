/* processes.h - the processes a tick has seen, by pid.
 *
 * A pid has one owner at a time, so the table is keyed by the pid alone and the
 * start time is compared by whoever asks: that is how a pid which was given
 * again is noticed.
 *
 * Must not know services, tables or where a record came from. */

#ifndef MW_PROCESSES_H
#define MW_PROCESSES_H

#include <stdint.h>

#include "events.h"
#include "subject.h"

enum mw_process_flag {
	MW_PROCESS_UNNAMED = 1,	  /* Python is to be asked for its service */
	MW_PROCESS_TOLD = 2,	  /* it was a rising row since its history began */
	MW_PROCESS_EXECED = 4,	  /* since it was last seen */
	MW_PROCESS_CLEARED = 8,	  /* the current tick is the first that sees it after an exec */
	MW_PROCESS_RESTORED = 16, /* from an archive, and not named since: an exec meanwhile went unseen */
};

/* Pages as 32 bits: at 4 KiB, 16 TiB of one kind, more than any machine has. */
struct mw_process {
	uint64_t start_time_ns;
	uint64_t cgroup_id;
	uint64_t total_vm_pages; /* not bounded by what the machine has */
	struct mw_subject subject;
	uint32_t pid;	     /* 0: a free slot */
	uint32_t service_id; /* 0: none */
	uint32_t anon_pages;
	uint32_t file_pages;
	uint32_t shmem_pages;
	uint32_t swap_pages;
	uint32_t seen_tick; /* ordinal of the last tick that saw it */
	uint32_t flags;	    /* enum mw_process_flag; in a free slot the next free one's number */
};

struct mw_processes;

/* At most processes_max at a time: up to 96 bytes each, the history apart.  NULL if
 * there is no memory. */
struct mw_processes *mw_processes_create(uint32_t processes_max);
void mw_processes_destroy(struct mw_processes *processes);

/* Return the process that has pid now, or NULL. */
struct mw_process *mw_processes_find(const struct mw_processes *processes, uint32_t pid);

/* Enter a pid that is not in the table, with an empty history and all else 0.
 * NULL if the table is full or there is no memory. */
struct mw_process *mw_processes_begin(struct mw_processes *processes, uint32_t pid);

/* Take it out and free its history. */
void mw_processes_end(struct mw_processes *processes, struct mw_process *process);

uint32_t mw_processes_count(const struct mw_processes *processes);

/* Each process once: start with NULL, go on until NULL.  The one at hand may be
 * ended in between. */
struct mw_process *mw_processes_next(const struct mw_processes *processes, const struct mw_process *process);

/* Anonymous memory, wherever it is now: what nobody else can free. */
static inline uint64_t mw_process_private_pages(const struct mw_process *process)
{
	return (uint64_t)process->anon_pages + process->swap_pages;
}

#endif
