/* services.h - groups of processes under one id, added up at each tick.
 *
 * A service's history must show growth, not the order in which its processes
 * became known.  So it begins anew whenever a process joins that was there when
 * the first one was: the samples so far were of a part of the service.  A
 * process born later is a step, and that is real.  The first ticks, in which
 * thousands of processes are named bit by bit, need no case of their own.
 *
 * "When the first one was", not when the first sample was: naming takes a tick,
 * so of a service that starts a process in every tick there is always one that
 * is not named yet, and its history would begin anew for ever.
 *
 * Must not know names, tables or events. */

#ifndef MW_SERVICES_H
#define MW_SERVICES_H

#include <stdint.h>

#include "processes.h"

/* Sums as of the last tick. */
struct mw_service {
	struct mw_subject subject;
	uint64_t anon_pages;
	uint64_t file_pages;
	uint64_t shmem_pages;
	uint64_t swap_pages;
	uint64_t total_vm_pages;
	uint64_t oldest_start_time_ns;
	uint64_t first_time_ns; /* of the history, kept for the row that says GONE */
	uint64_t founded_ns;	/* first sample of the latest of those processes that joined before the history began */
	uint64_t largest_private_pages;
	uint64_t largest_cgroup_id;
	uint32_t largest_pid;
	uint32_t process_count;
	uint32_t member_count; /* now, between the ticks too */
	uint32_t births;       /* since the history began */
	uint8_t is_occupied;   /* it was given a process since it was last gone */
	uint8_t is_gone;       /* and no table has said so yet */
};

struct mw_services;

/* Ids below services_max: 152 bytes each once used, the history apart.  NULL
 * if there is no memory. */
struct mw_services *mw_services_create(uint32_t services_max);
void mw_services_destroy(struct mw_services *services);

/* The service of that id, or NULL past the end.  For all of them count ids from
 * 1; those without a process have process_count 0. */
struct mw_service *mw_services_get(const struct mw_services *services, uint32_t service_id);

/* Ids from here on were never used. */
uint32_t mw_services_end(const struct mw_services *services);

/* Return 0, -ENOSPC if the id is beyond the bound, or -ENOMEM: the process is
 * then where it was. */
int mw_services_join(struct mw_services *services, uint32_t service_id, struct mw_process *process);

/* The same for a process from an archive, whose service's history is there, too;
 * beyond the bound or without memory it is then without a service. */
void mw_services_rejoin(struct mw_services *services, uint32_t service_id, struct mw_process *process);

/* The service of that id with a history to be filled from an archive; NULL
 * beyond the bound or without memory. */
struct mw_service *mw_services_open(struct mw_services *services, uint32_t service_id);

/* Undo that, if no process joined it. */
void mw_services_close(struct mw_services *services, uint32_t service_id);

/* Take a process out of its service, if it has one. */
void mw_services_leave(struct mw_services *services, struct mw_process *process);

/* Add up one tick: zero the sums, add each process, then let each service take
 * its sample (unless records are missing) and see who is gone. */
void mw_services_begin_tick(struct mw_services *services);
void mw_services_add(struct mw_services *services, const struct mw_process *process);
void mw_services_end_tick(struct mw_services *services, const struct mw_clock *clock, uint64_t screen_pages,
			  int is_whole);

/* Return 0, or -EBUSY if it has a process. */
int mw_services_forget(struct mw_services *services, uint32_t service_id);

#endif
