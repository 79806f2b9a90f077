/* aggregator.c - the order of one tick, and what happens between two.
 *
 * Must not know how histories, sums and rows are made; only who takes part in
 * what, and what is counted. */

#include <errno.h>
#include <malloc.h> /* malloc_trim() */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "aggregator.h"
#include "archive_parts.h"
#include "processes.h"
#include "records.h"
#include "rows.h"
#include "services.h"

/* Histories come from malloc, which keeps what is freed between others that are
 * not.  After so many processes ended it is worth milliseconds to give the free
 * pages back. */
static const uint64_t TRIM_AFTER_GONE = 1000;

struct mw_aggregator {
	struct mw_clock *clock;
	struct mw_processes *processes;
	struct mw_services *services;
	struct mw_rows *rows;
	struct mw_reader *reader;
	struct mw_unnamed *unnamed; /* unnamed_max */
	/* Twice oom_kills_max: those of the table, which stay valid until the
	 * next tick, and those that arrive meanwhile. */
	struct mw_oom_kill *oom_kills[2];
	struct mw_limits limits;
	struct mw_counters counters;
	struct mw_table table;
	uint64_t screen_pages;
	uint64_t trimmed_gone_total; /* processes_gone_total when memory was last given back */
	uint32_t arriving;	     /* which of them are not in the table */
	uint32_t arriving_count;     /* how many of these */
	uint32_t tick;		     /* ordinal, to tell who was seen */
};

static int allocate(struct mw_aggregator *aggregator)
{
	const struct mw_limits *limits = &aggregator->limits;

	aggregator->clock = mw_clock_create(limits->bucket_ns);
	aggregator->processes = mw_processes_create(limits->processes_max);
	aggregator->services = mw_services_create(limits->services_max);
	aggregator->rows = mw_rows_create(limits, aggregator->clock, aggregator->processes, aggregator->services);
	aggregator->reader = mw_reader_create();
	aggregator->unnamed = calloc(limits->unnamed_max, sizeof(*aggregator->unnamed));
	aggregator->oom_kills[0] = calloc(limits->oom_kills_max, sizeof(*aggregator->oom_kills[0]));
	aggregator->oom_kills[1] = calloc(limits->oom_kills_max, sizeof(*aggregator->oom_kills[1]));
	return aggregator->clock && aggregator->processes && aggregator->services && aggregator->rows &&
	       aggregator->reader && aggregator->unnamed && aggregator->oom_kills[0] && aggregator->oom_kills[1];
}

struct mw_aggregator *mw_aggregator_create(const struct mw_limits *limits)
{
	struct mw_aggregator *aggregator;
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!limits->processes_max || !limits->services_max || !limits->rows_max || !limits->unnamed_max ||
	    !limits->oom_kills_max)
		return NULL;
	aggregator = calloc(1, sizeof(*aggregator));
	if (!aggregator)
		return NULL;
	aggregator->limits = *limits;
	/* Nobody rises by nothing, whatever the bound. */
	aggregator->screen_pages = limits->screen_bytes ? (limits->screen_bytes - 1) / page_bytes + 1 : 1;
	if (!allocate(aggregator)) {
		mw_aggregator_destroy(aggregator);
		return NULL;
	}
	return aggregator;
}

void mw_aggregator_destroy(struct mw_aggregator *aggregator)
{
	if (!aggregator)
		return;
	free(aggregator->oom_kills[1]);
	free(aggregator->oom_kills[0]);
	free(aggregator->unnamed);
	mw_reader_destroy(aggregator->reader);
	mw_rows_destroy(aggregator->rows);
	mw_services_destroy(aggregator->services);
	mw_processes_destroy(aggregator->processes);
	mw_clock_destroy(aggregator->clock);
	free(aggregator);
}

/* A pid alone may mean another process by now. */
static struct mw_process *find(const struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns)
{
	struct mw_process *process = mw_processes_find(aggregator->processes, pid);

	return process && process->start_time_ns == start_time_ns ? process : NULL;
}

static void end_process(struct mw_aggregator *aggregator, struct mw_process *process)
{
	mw_services_leave(aggregator->services, process);
	mw_processes_end(aggregator->processes, process);
	aggregator->counters.processes_gone_total++;
}

static struct mw_process *begin_process(struct mw_aggregator *aggregator, const struct mw_process_record *record)
{
	struct mw_process *process = mw_processes_begin(aggregator->processes, record->pid);

	if (!process) {
		aggregator->counters.processes_untracked_total++;
		return NULL;
	}
	aggregator->counters.processes_born_total++;
	process->start_time_ns = record->start_time_ns;
	process->cgroup_id = record->cgroup_id;
	process->flags = MW_PROCESS_UNNAMED;
	return process;
}

/* Once: else those that Python does not care for would take the others' turn in
 * every tick. */
static void offer_for_naming(struct mw_aggregator *aggregator, struct mw_process *process,
			     const struct mw_process_record *record)
{
	struct mw_unnamed *unnamed;

	if (aggregator->table.unnamed_count == aggregator->limits.unnamed_max) {
		aggregator->counters.naming_deferred_total++;
		return;
	}
	unnamed = &aggregator->unnamed[aggregator->table.unnamed_count++];
	unnamed->start_time_ns = record->start_time_ns;
	unnamed->cgroup_id = record->cgroup_id;
	unnamed->pid = record->pid;
	unnamed->parent_pid = record->parent_pid;
	memcpy(unnamed->comm, record->comm, sizeof(unnamed->comm));
	process->flags &= ~(uint32_t)MW_PROCESS_UNNAMED;
}

/* Where the CPUs' parts are not summed, a counter may be negative for a while:
 * that is next to nothing, not an error. */
static uint32_t pages_of(int64_t pages)
{
	if (pages < 0)
		return 0;
	return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

/* Runs once per process and tick: no allocation for a known one. */
static void take_record(struct mw_aggregator *aggregator, const struct mw_process_record *record)
{
	struct mw_process *process;

	aggregator->counters.records_total++;
	if (!record->pid) {
		aggregator->counters.records_refused_total++;
		return;
	}
	process = mw_processes_find(aggregator->processes, record->pid);
	if (process && process->start_time_ns != record->start_time_ns) {
		aggregator->counters.pid_reused_total++;
		end_process(aggregator, process);
		process = NULL;
	}
	if (!process) {
		/* It is offered for naming by the second tick that sees it, so
		 * that one which lives for less costs Python nothing. */
		process = begin_process(aggregator, record);
		if (!process)
			return;
	} else if (process->seen_tick != aggregator->tick) {
		if (process->cgroup_id != record->cgroup_id)
			process->flags |= MW_PROCESS_UNNAMED;
		process->cgroup_id = record->cgroup_id;
		if (process->flags & MW_PROCESS_UNNAMED)
			offer_for_naming(aggregator, process, record);
	}
	process->anon_pages = pages_of(record->anon_pages);
	process->file_pages = pages_of(record->file_pages);
	process->shmem_pages = pages_of(record->shmem_pages);
	process->swap_pages = pages_of(record->swap_pages);
	process->total_vm_pages = record->total_vm_pages;
	process->seen_tick = aggregator->tick;
}

static int read_records(struct mw_aggregator *aggregator, int fd)
{
	const struct mw_process_record *records;
	int count;

	mw_reader_begin(aggregator->reader, fd);
	while ((count = mw_reader_next(aggregator->reader, &records)) > 0) {
		for (int i = 0; i < count; i++)
			take_record(aggregator, &records[i]);
	}
	if (count == -EPROTO)
		aggregator->counters.records_refused_total++;
	return count;
}

static int read_iterator(struct mw_aggregator *aggregator, int link_fd)
{
	int fd, error;

	if (link_fd < 0)
		return 0;
	fd = bpf_iter_create(link_fd);
	if (fd < 0) {
		error = -errno;
	} else {
		error = read_records(aggregator, fd);
		close(fd);
	}
	if (error)
		aggregator->counters.iterator_errors_total++;
	return error;
}

static void take_sample(struct mw_aggregator *aggregator, struct mw_process *process)
{
	mw_history_add(process->subject.history, aggregator->clock, mw_process_private_pages(process));
	if (process->flags & MW_PROCESS_CLEARED)
		process->flags &= ~(uint32_t)(MW_PROCESS_CLEARED | MW_PROCESS_TOLD);
	if (process->flags & MW_PROCESS_EXECED) {
		process->flags &= ~(uint32_t)MW_PROCESS_EXECED;
		process->flags |= MW_PROCESS_CLEARED;
	}
}

/* The walk over all processes that ends a tick. */
static void settle_processes(struct mw_aggregator *aggregator, int is_whole)
{
	struct mw_process *process = NULL;

	while ((process = mw_processes_next(aggregator->processes, process))) {
		if (process->seen_tick == aggregator->tick) {
			take_sample(aggregator, process);
		} else if (is_whole) {
			end_process(aggregator, process);
			continue;
		}
		mw_subject_screen(&process->subject, aggregator->clock, aggregator->screen_pages);
		mw_services_add(aggregator->services, process);
	}
}

static void give_memory_back(struct mw_aggregator *aggregator)
{
	if (aggregator->counters.processes_gone_total - aggregator->trimmed_gone_total < TRIM_AFTER_GONE)
		return;
	aggregator->trimmed_gone_total = aggregator->counters.processes_gone_total;
#ifdef __GLIBC__ /* others give back by themselves */
	malloc_trim(0);
#endif
}

static void count_subjects(struct mw_aggregator *aggregator)
{
	aggregator->counters.process_count = mw_processes_count(aggregator->processes);
	aggregator->counters.service_count = 0;
	for (uint32_t id = 1; id < mw_services_end(aggregator->services); id++)
		aggregator->counters.service_count += mw_services_get(aggregator->services, id)->process_count > 0;
}

static void finish_table(struct mw_aggregator *aggregator, uint64_t time_ns)
{
	struct mw_table *table = &aggregator->table;

	table->time_ns = time_ns;
	table->row_count = mw_rows_choose(aggregator->rows, &aggregator->counters.rows_omitted_total, &table->rows);
	table->unnamed = aggregator->unnamed;
	table->oom_kills = aggregator->oom_kills[aggregator->arriving];
	table->oom_kill_count = aggregator->arriving_count;
	aggregator->arriving ^= 1;
	aggregator->arriving_count = 0;
	count_subjects(aggregator);
	table->counters = aggregator->counters;
}

int mw_aggregator_tick(struct mw_aggregator *aggregator, uint64_t time_ns, int iterator_fd,
		       const struct mw_process_record *records, uint64_t record_count, const struct mw_table **ret)
{
	int error, is_whole;

	*ret = NULL;
	if (mw_clock_advance(aggregator->clock, time_ns))
		return -EINVAL;
	aggregator->tick++;
	aggregator->counters.ticks_total++;
	aggregator->table.unnamed_count = 0;
	error = read_iterator(aggregator, iterator_fd);
	is_whole = !error && iterator_fd != MW_RECORDS_PARTIAL;
	for (uint64_t i = 0; i < record_count; i++)
		take_record(aggregator, &records[i]);
	mw_services_begin_tick(aggregator->services);
	settle_processes(aggregator, is_whole);
	mw_services_end_tick(aggregator->services, aggregator->clock, aggregator->screen_pages, is_whole);
	finish_table(aggregator, time_ns);
	give_memory_back(aggregator);
	*ret = &aggregator->table;
	return error;
}

static const struct mw_history *history_of(const struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns)
{
	const struct mw_service *service;
	const struct mw_process *process;

	if (pid) {
		process = find(aggregator, pid, start_time_ns);
		return process ? process->subject.history : NULL;
	}
	service = start_time_ns > UINT32_MAX ? NULL : mw_services_get(aggregator->services, (uint32_t)start_time_ns);
	return service ? service->subject.history : NULL;
}

/* Now: at the tick that tells of the kill, the history may be gone with the process. */
static void keep_history(const struct mw_aggregator *aggregator, const struct mw_process *process,
			 struct mw_oom_kill *oom_kill)
{
	const struct mw_history *history = process->subject.history;

	if (process->service_id)
		history = history_of(aggregator, 0, process->service_id);
	if (!history)
		return;
	for (uint32_t level = 0; level < MW_OOM_LEVELS; level++)
		oom_kill->sample_counts[level] = mw_history_copy(history, aggregator->clock, level,
								 oom_kill->times_s[level], oom_kill->bytes[level]);
}

static void keep_oom_kill(struct mw_aggregator *aggregator, const struct mw_lifecycle_event *event,
			  const struct mw_process *process)
{
	struct mw_oom_kill *oom_kill;

	if (aggregator->arriving_count == aggregator->limits.oom_kills_max) {
		aggregator->counters.oom_kills_dropped_total++;
		return;
	}
	oom_kill = &aggregator->oom_kills[aggregator->arriving][aggregator->arriving_count++];
	memset(oom_kill, 0, sizeof(*oom_kill));
	oom_kill->event = *event;
	if (process) {
		oom_kill->private_bytes = mw_process_private_pages(process) * (uint64_t)sysconf(_SC_PAGESIZE);
		oom_kill->service_id = process->service_id;
		keep_history(aggregator, process, oom_kill);
	}
}

/* The process goes on under its old service until Python has named it anew. */
static void restart_process(struct mw_process *process)
{
	mw_subject_clear(&process->subject);
	process->flags |= MW_PROCESS_UNNAMED | MW_PROCESS_EXECED;
}

void mw_aggregator_on_event(struct mw_aggregator *aggregator, const void *data, uint64_t size_bytes)
{
	struct mw_lifecycle_event event;
	struct mw_process *process;

	aggregator->counters.events_total++;
	if (size_bytes != sizeof(event)) {
		aggregator->counters.events_refused_total++;
		return;
	}
	memcpy(&event, data, sizeof(event));
	if (event.kind < MW_EVENT_EXEC || event.kind > MW_EVENT_OOM_VICTIM) {
		aggregator->counters.events_refused_total++;
		return;
	}
	process = find(aggregator, event.pid, event.start_time_ns);
	if (!process)
		aggregator->counters.events_unmatched_total++;
	if (event.kind == MW_EVENT_OOM_VICTIM)
		keep_oom_kill(aggregator, &event, process);
	else if (process && event.kind == MW_EVENT_EXEC)
		restart_process(process);
	else if (process)
		end_process(aggregator, process);
}

int mw_aggregator_name(struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns, uint32_t service_id)
{
	struct mw_process *process = find(aggregator, pid, start_time_ns);
	int error;

	if (!service_id)
		return -EINVAL;
	if (!process)
		return -ESRCH;
	if (process->flags & MW_PROCESS_RESTORED) {
		process->flags &= ~(uint32_t)MW_PROCESS_RESTORED;
		/* Nobody watched when it became another program. */
		if (process->service_id && process->service_id != service_id)
			mw_subject_clear(&process->subject);
	}
	error = mw_services_join(aggregator->services, service_id, process);
	if (error == -ENOSPC) {
		mw_services_leave(aggregator->services, process);
		aggregator->counters.services_untracked_total++;
	}
	return error;
}

int mw_aggregator_forget_service(struct mw_aggregator *aggregator, uint32_t service_id)
{
	return mw_services_forget(aggregator->services, service_id);
}

int mw_aggregator_history(const struct mw_aggregator *aggregator, uint32_t pid, uint64_t start_time_ns, uint32_t level,
			  double *times_s, double *bytes)
{
	const struct mw_history *history = history_of(aggregator, pid, start_time_ns);

	if (level >= MW_LEVELS)
		return -EINVAL;
	if (!history)
		return -ESRCH;
	return (int)mw_history_copy(history, aggregator->clock, level, times_s, bytes);
}

uint32_t mw_aggregator_members(struct mw_aggregator *aggregator, uint32_t service_id, struct mw_row *rows,
			       uint32_t count)
{
	return mw_rows_members(aggregator->rows, service_id, rows, count);
}

uint32_t mw_aggregator_services(const struct mw_aggregator *aggregator, struct mw_service_sums *sums, uint32_t count)
{
	return mw_rows_services(aggregator->rows, sums, count);
}

static struct mw_archive_parts parts_of(const struct mw_aggregator *aggregator)
{
	return (struct mw_archive_parts){
	    .clock = aggregator->clock,
	    .processes = aggregator->processes,
	    .services = aggregator->services,
	    .time_ns = aggregator->table.time_ns,
	    .tick = aggregator->tick,
	};
}

uint64_t mw_aggregator_saved_bytes_max(const struct mw_aggregator *aggregator)
{
	struct mw_archive_parts parts = parts_of(aggregator);

	return mw_archive_bytes_max(&parts);
}

int64_t mw_aggregator_save(struct mw_aggregator *aggregator, void *buffer, uint64_t size_bytes)
{
	struct mw_archive_parts parts = parts_of(aggregator);

	return mw_archive_save(&parts, buffer, size_bytes);
}

void mw_aggregator_unsave(struct mw_aggregator *aggregator, uint32_t tick)
{
	struct mw_archive_parts parts = parts_of(aggregator);

	mw_archive_unsave(&parts, tick);
}

int mw_aggregator_restore(struct mw_aggregator *aggregator, const void *data, uint64_t size_bytes, uint64_t now_ns)
{
	struct mw_archive_parts parts = parts_of(aggregator);
	int error;

	if (aggregator->counters.ticks_total)
		return -EBUSY;
	error = mw_archive_restore(&parts, data, size_bytes, now_ns);
	aggregator->tick = parts.tick;
	aggregator->table.time_ns = parts.time_ns;
	return error;
}
