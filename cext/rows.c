/* rows.c - see rows.h. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rows.h"

/* In the order of a table.  Rising ones come first because nothing that others
 * can bring about, not a storm of exec calls nor of dying services, may crowd
 * out a leak. */
enum group {
	RISING_SERVICE,
	RISING_PROCESS,
	GONE_SERVICE,
	CLEARED_PROCESS,
	OTHER_SERVICE,
};

struct candidate {
	uint64_t weight_pages;
	union {
		struct mw_process *process;
		struct mw_service *service;
	};
	uint32_t group; /* enum group */
	uint32_t id;	/* pid or service id: unique within a group */
};

struct mw_rows {
	const struct mw_clock *clock;
	struct mw_processes *processes;
	struct mw_services *services;
	struct candidate *candidates; /* processes_max + services_max */
	struct mw_row *rows;	      /* rows_max */
	struct mw_fits *fits;	      /* rows_max: as many as there can be rising rows */
	uint64_t page_bytes;
	uint64_t tick; /* ordinal of the table */
	uint32_t rows_max;
};

struct mw_rows *mw_rows_create(const struct mw_limits *limits, const struct mw_clock *clock,
			       struct mw_processes *processes, struct mw_services *services)
{
	struct mw_rows *rows = calloc(1, sizeof(*rows));

	if (!rows)
		return NULL;
	rows->clock = clock;
	rows->processes = processes;
	rows->services = services;
	rows->candidates = calloc((size_t)limits->processes_max + limits->services_max, sizeof(*rows->candidates));
	rows->rows = calloc(limits->rows_max, sizeof(*rows->rows));
	rows->fits = calloc(limits->rows_max, sizeof(*rows->fits));
	rows->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	rows->rows_max = limits->rows_max;
	if (!rows->candidates || !rows->rows || !rows->fits) {
		mw_rows_destroy(rows);
		return NULL;
	}
	return rows;
}

void mw_rows_destroy(struct mw_rows *rows)
{
	if (!rows)
		return;
	free(rows->candidates);
	free(rows->rows);
	free(rows->fits);
	free(rows);
}

static int compare(const void *left, const void *right)
{
	const struct candidate *a = left, *b = right;

	if (a->group != b->group)
		return a->group < b->group ? -1 : 1;
	if (a->weight_pages != b->weight_pages)
		return a->weight_pages > b->weight_pages ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static struct candidate candidate_of_process(const struct mw_rows *rows, struct mw_process *process)
{
	struct candidate candidate = {.group = CLEARED_PROCESS, .id = process->pid, .process = process};

	candidate.weight_pages = mw_process_private_pages(process);
	if (process->subject.rising_levels) {
		candidate.group = RISING_PROCESS;
		candidate.weight_pages = mw_subject_rise_pages(&process->subject, rows->clock);
	}
	return candidate;
}

static struct candidate candidate_of_service(const struct mw_rows *rows, struct mw_service *service, uint32_t id)
{
	struct candidate candidate = {.group = OTHER_SERVICE, .id = id, .service = service};

	candidate.weight_pages = service->anon_pages + service->swap_pages;
	if (service->is_gone) {
		candidate.group = GONE_SERVICE;
	} else if (service->subject.rising_levels) {
		candidate.group = RISING_SERVICE;
		candidate.weight_pages = mw_subject_rise_pages(&service->subject, rows->clock);
	}
	return candidate;
}

/* A process that ran another program is news only to who was told of the
 * program before: otherwise whoever calls exec often enough fills the table. */
static int is_news(const struct mw_process *process)
{
	return (process->flags & MW_PROCESS_CLEARED) && (process->flags & MW_PROCESS_TOLD);
}

static uint32_t collect(struct mw_rows *rows)
{
	struct mw_process *process = NULL;
	uint32_t count = 0;

	while ((process = mw_processes_next(rows->processes, process))) {
		if (process->subject.rising_levels || is_news(process))
			rows->candidates[count++] = candidate_of_process(rows, process);
	}
	for (uint32_t id = 1; id < mw_services_end(rows->services); id++) {
		struct mw_service *service = mw_services_get(rows->services, id);

		if (service->process_count || service->is_gone)
			rows->candidates[count++] = candidate_of_service(rows, service, id);
	}
	return count;
}

static void fill_process(const struct mw_rows *rows, const struct mw_process *process, struct mw_row *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->start_time_ns = process->start_time_ns;
	ret->first_time_ns = mw_history_first_time_ns(process->subject.history);
	ret->private_bytes = mw_process_private_pages(process) * rows->page_bytes;
	ret->anon_bytes = process->anon_pages * rows->page_bytes;
	ret->file_bytes = process->file_pages * rows->page_bytes;
	ret->shmem_bytes = process->shmem_pages * rows->page_bytes;
	ret->swap_bytes = process->swap_pages * rows->page_bytes;
	ret->total_vm_bytes = process->total_vm_pages * rows->page_bytes;
	ret->cgroup_id = process->cgroup_id;
	ret->kind = MW_SUBJECT_PROCESS;
	ret->pid = process->pid;
	ret->service_id = process->service_id;
	ret->process_count = 1;
	if (process->subject.rising_levels)
		ret->flags |= MW_ROW_RISING;
	if (process->flags & MW_PROCESS_CLEARED)
		ret->flags |= MW_ROW_CLEARED;
}

static void fill_service(const struct mw_rows *rows, const struct mw_service *service, uint32_t id, struct mw_row *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->start_time_ns = service->oldest_start_time_ns;
	ret->first_time_ns = service->first_time_ns;
	ret->private_bytes = (service->anon_pages + service->swap_pages) * rows->page_bytes;
	ret->anon_bytes = service->anon_pages * rows->page_bytes;
	ret->file_bytes = service->file_pages * rows->page_bytes;
	ret->shmem_bytes = service->shmem_pages * rows->page_bytes;
	ret->swap_bytes = service->swap_pages * rows->page_bytes;
	ret->total_vm_bytes = service->total_vm_pages * rows->page_bytes;
	ret->cgroup_id = service->largest_cgroup_id;
	ret->kind = MW_SUBJECT_SERVICE;
	ret->pid = service->largest_pid;
	ret->service_id = id;
	ret->process_count = service->process_count;
	ret->births = service->births;
	if (service->is_gone)
		ret->flags |= MW_ROW_GONE;
	if (service->subject.rising_levels)
		ret->flags |= MW_ROW_RISING;
}

/* NULL if the subject is no rising row of this table. */
static const struct mw_fit *fits_of_row(const struct mw_rows *rows, const struct mw_subject *subject)
{
	const struct mw_fits *fits = mw_subject_fits(subject);

	return fits && fits->used_tick == rows->tick ? &fits->windows[0][0] : NULL;
}

static void fill(const struct mw_rows *rows, const struct candidate *candidate, struct mw_row *ret)
{
	switch ((enum group)candidate->group) {
	case RISING_SERVICE:
		fill_service(rows, candidate->service, candidate->id, ret);
		ret->fits = fits_of_row(rows, &candidate->service->subject);
		break;
	case RISING_PROCESS:
		fill_process(rows, candidate->process, ret);
		ret->fits = fits_of_row(rows, &candidate->process->subject);
		candidate->process->flags |= MW_PROCESS_TOLD;
		break;
	case CLEARED_PROCESS:
		fill_process(rows, candidate->process, ret);
		break;
	case GONE_SERVICE:
		fill_service(rows, candidate->service, candidate->id, ret);
		candidate->service->is_gone = 0;
		break;
	case OTHER_SERVICE:
		fill_service(rows, candidate->service, candidate->id, ret);
		break;
	}
}

/* A rising service is among the largest too if it is no smaller than one that
 * is shown for its size, or if every service is shown. */
static void mark_top(struct mw_row *rows, uint32_t count, int all_shown)
{
	uint64_t least_bytes = UINT64_MAX;

	for (uint32_t i = count; i-- > 0;) {
		struct mw_row *row = &rows[i];

		if (row->kind != MW_SUBJECT_SERVICE || row->flags & MW_ROW_GONE)
			continue;
		if (!(row->flags & MW_ROW_RISING) && row->private_bytes < least_bytes)
			least_bytes = row->private_bytes;
		if (all_shown || row->private_bytes >= least_bytes)
			row->flags |= MW_ROW_TOP;
	}
}

static struct mw_subject *rising_subject(const struct candidate *candidate)
{
	if (candidate->group == RISING_SERVICE)
		return &candidate->service->subject;
	return candidate->group == RISING_PROCESS ? &candidate->process->subject : NULL;
}

/* Bring the fits of the first count candidates up to this tick.  Those who had
 * room for fits in the last table keep it; the others then take what is left,
 * which is enough, since there is as much room as rows. */
static void fit_rising(struct mw_rows *rows, uint32_t count)
{
	struct mw_fits *room = rows->fits;

	for (uint32_t i = 0; i < count; i++) {
		struct mw_subject *subject = rising_subject(&rows->candidates[i]);

		if (subject && mw_subject_fits(subject))
			subject->fits->used_tick = rows->tick;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct mw_subject *subject = rising_subject(&rows->candidates[i]);

		if (!subject)
			continue;
		if (!mw_subject_fits(subject)) {
			while (room->used_tick == rows->tick)
				room++;
			mw_subject_take_fits(subject, room);
			room->used_tick = rows->tick;
		}
		mw_subject_fit(subject, rows->clock);
	}
}

/* Those that were to be judged, or whose end was to be told; who is calm and
 * small is judged by having no row. */
static uint64_t count_omitted(const struct candidate *omitted, uint32_t count)
{
	uint64_t news = 0;

	for (uint32_t i = 0; i < count && omitted[i].group != OTHER_SERVICE; i++)
		news++;
	return news;
}

uint32_t mw_rows_choose(struct mw_rows *rows, uint64_t *omitted_total, const struct mw_row **ret)
{
	uint32_t candidates = collect(rows);
	uint32_t count = candidates < rows->rows_max ? candidates : rows->rows_max;

	qsort(rows->candidates, candidates, sizeof(*rows->candidates), compare);
	rows->tick++;
	fit_rising(rows, count);
	for (uint32_t i = 0; i < count; i++)
		fill(rows, &rows->candidates[i], &rows->rows[i]);
	mark_top(rows->rows, count, count == candidates);
	*omitted_total += count_omitted(rows->candidates + count, candidates - count);
	*ret = rows->rows;
	return count;
}

uint32_t mw_rows_members(struct mw_rows *rows, uint32_t service_id, struct mw_row *ret, uint32_t count)
{
	struct mw_process *process = NULL;
	uint32_t candidates = 0;

	while ((process = mw_processes_next(rows->processes, process))) {
		if (process->service_id != service_id)
			continue;
		rows->candidates[candidates++] = (struct candidate){
		    .weight_pages = mw_process_private_pages(process),
		    .id = process->pid,
		    .process = process,
		};
	}
	qsort(rows->candidates, candidates, sizeof(*rows->candidates), compare);
	if (count > candidates)
		count = candidates;
	for (uint32_t i = 0; i < count; i++) {
		process = rows->candidates[i].process;
		fill_process(rows, process, &ret[i]);
		ret[i].fits = fits_of_row(rows, &process->subject);
	}
	return count;
}

uint32_t mw_rows_services(const struct mw_rows *rows, struct mw_service_sums *ret, uint32_t count)
{
	uint32_t end = mw_services_end(rows->services);
	uint32_t filled = 0;

	for (uint32_t id = 1; id < end && filled < count; id++) {
		const struct mw_service *service = mw_services_get(rows->services, id);

		if (!service->process_count)
			continue;
		ret[filled++] = (struct mw_service_sums){
		    .private_bytes = (service->anon_pages + service->swap_pages) * rows->page_bytes,
		    .anon_bytes = service->anon_pages * rows->page_bytes,
		    .file_bytes = service->file_pages * rows->page_bytes,
		    .shmem_bytes = service->shmem_pages * rows->page_bytes,
		    .swap_bytes = service->swap_pages * rows->page_bytes,
		    .largest_bytes = service->largest_private_pages * rows->page_bytes,
		    .oldest_start_time_ns = service->oldest_start_time_ns,
		    .service_id = id,
		    .process_count = service->process_count,
		};
	}
	return filled;
}
