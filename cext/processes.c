/* processes.c - slots that never move, found by an open-addressing index.
 *
 * The index holds slot numbers + 1 and is at most half full, so a search is
 * short; a removal shifts the entries behind it back, so that no tombstones
 * pile up over months of short-lived processes. */

#include <stdlib.h>

#include "processes.h"

struct mw_processes {
	struct mw_process *slots;
	uint32_t *index;     /* slot number + 1; 0: empty */
	uint32_t index_mask; /* size - 1, size being a power of two */
	uint32_t slots_max;
	uint32_t slots_used; /* slots from here on were never taken: their memory is not touched */
	uint32_t free_slot;  /* number + 1 of the first in the list of freed ones; 0: none */
	uint32_t count;
};

struct mw_processes *mw_processes_create(uint32_t processes_max)
{
	struct mw_processes *processes = calloc(1, sizeof(*processes));
	uint32_t size = 2;

	if (!processes)
		return NULL;
	while (size < processes_max * 2ULL && size < 1U << 31)
		size *= 2;
	processes->slots_max = processes_max < size / 2 ? processes_max : size / 2;
	processes->index_mask = size - 1;
	/* Large callocs are fresh zero pages: what is not used is not resident. */
	processes->slots = calloc(processes->slots_max, sizeof(*processes->slots));
	processes->index = calloc(size, sizeof(*processes->index));
	if (!processes->slots || !processes->index) {
		mw_processes_destroy(processes);
		return NULL;
	}
	return processes;
}

void mw_processes_destroy(struct mw_processes *processes)
{
	if (!processes)
		return;
	for (uint32_t i = 0; i < processes->slots_used; i++) {
		if (processes->slots[i].pid)
			mw_subject_deinit(&processes->slots[i].subject);
	}
	free(processes->slots);
	free(processes->index);
	free(processes);
}

/* Pids are dense and given out by the kernel; nobody can aim at one bucket
 * beyond what wrapping around allows, so a fixed multiplier does. */
static uint32_t home_of(const struct mw_processes *processes, uint32_t pid)
{
	return (uint32_t)((pid * 0x9e3779b97f4a7c15ULL) >> 32) & processes->index_mask;
}

/* Where pid is in the index, or the empty place where it would be. */
static uint32_t place_of(const struct mw_processes *processes, uint32_t pid)
{
	uint32_t place = home_of(processes, pid);

	while (processes->index[place] && processes->slots[processes->index[place] - 1].pid != pid)
		place = (place + 1) & processes->index_mask;
	return place;
}

struct mw_process *mw_processes_find(const struct mw_processes *processes, uint32_t pid)
{
	uint32_t entry = processes->index[place_of(processes, pid)];

	return entry ? &processes->slots[entry - 1] : NULL;
}

struct mw_process *mw_processes_begin(struct mw_processes *processes, uint32_t pid)
{
	struct mw_subject subject;
	uint32_t slot;

	if (processes->count == processes->slots_max || mw_subject_init(&subject))
		return NULL;
	if (processes->free_slot) {
		slot = processes->free_slot - 1;
		processes->free_slot = processes->slots[slot].flags;
	} else {
		slot = processes->slots_used++;
	}
	processes->index[place_of(processes, pid)] = slot + 1;
	processes->slots[slot] = (struct mw_process){.pid = pid, .subject = subject};
	processes->count++;
	return &processes->slots[slot];
}

/* Empty a place of the index, and move up every entry behind it that would no
 * longer be found because its search passes over the gap. */
static void vacate(struct mw_processes *processes, uint32_t gap)
{
	uint32_t mask = processes->index_mask;

	for (uint32_t place = (gap + 1) & mask; processes->index[place]; place = (place + 1) & mask) {
		uint32_t home = home_of(processes, processes->slots[processes->index[place] - 1].pid);

		if (((place - home) & mask) < ((place - gap) & mask))
			continue;
		processes->index[gap] = processes->index[place];
		gap = place;
	}
	processes->index[gap] = 0;
}

void mw_processes_end(struct mw_processes *processes, struct mw_process *process)
{
	uint32_t slot = (uint32_t)(process - processes->slots);

	vacate(processes, place_of(processes, process->pid));
	mw_subject_deinit(&process->subject);
	*process = (struct mw_process){.flags = processes->free_slot};
	processes->free_slot = slot + 1;
	processes->count--;
}

uint32_t mw_processes_count(const struct mw_processes *processes)
{
	return processes->count;
}

struct mw_process *mw_processes_next(const struct mw_processes *processes, const struct mw_process *process)
{
	uint32_t slot = process ? (uint32_t)(process - processes->slots) + 1 : 0;

	while (slot < processes->slots_used && !processes->slots[slot].pid)
		slot++;
	return slot < processes->slots_used ? &processes->slots[slot] : NULL;
}
