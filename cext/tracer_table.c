/* tracer_table.c - the tracer's books as rows: who is at the top, and how fast
 * it grows.  Takes no record. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tracer_state.h"

static uint64_t weight_in_group(const struct mw_sum sums[MW_DOMAINS], enum mw_heap_group group)
{
	uint64_t bytes = 0;

	for (uint16_t domain = MW_DOMAIN_NATIVE; domain <= MW_DOMAIN_MAP; domain++) {
		if (mw_group_of(domain) == group)
			bytes += sums[domain].weight_bytes;
	}
	return bytes;
}

static uint64_t live_in_group(const struct mw_tracer_process *process, enum mw_heap_group group)
{
	return weight_in_group(process->allocated, group) - weight_in_group(process->freed, group);
}

static void fill_process(struct mw_tracer *tracer, struct mw_tracer_process *process, double elapsed_s,
			 struct mw_process_row *row)
{
	*row = (struct mw_process_row){
	    .since_ns = process->since_ns,
	    .window_ns = process->window_ns,
	    .untracked_bytes = process->untracked_bytes,
	    .counts = process->counts,
	    .counts_time_ns = process->counts_time_ns,
	    .pid = process->pid,
	};
	memcpy(row->allocated, process->allocated, sizeof(row->allocated));
	memcpy(row->freed, process->freed, sizeof(row->freed));
	memcpy(row->survived, process->survived, sizeof(row->survived));
	memcpy(row->grown, process->grown, sizeof(row->grown));
	for (int group = 0; group < MW_HEAP_GROUPS; group++) {
		uint64_t allocated = weight_in_group(process->allocated, group);

		if (elapsed_s > 0)
			row->allocated_bytes_per_second[group] =
			    (double)(allocated - process->told_weight_bytes[group]) / elapsed_s;
		mw_past_fit(&process->live[group], &tracer->ticks, process->since_ns, tracer->table.time_ns,
			    live_in_group(process, group), &row->live[group]);
	}
}

static double key_of(const struct mw_tracer *tracer, const struct mw_site *site, uint32_t order)
{
	uint64_t live = mw_site_live_weight_bytes(site);

	switch (order) {
	case MW_ORDER_GROWTH:
		return (double)mw_past_rise(&site->live, &tracer->ticks, live);
	case MW_ORDER_LIVE:
		return (double)live;
	case MW_ORDER_SURVIVED:
		return (double)site->survived.weight_bytes;
	case MW_ORDER_GROWN:
		return (double)site->grown.weight_bytes;
	default:
		return (double)site->allocated.weight_bytes;
	}
}

/* Largest first; equal ones by index, so that a table never flickers. */
static int compare_ranked(const void *left, const void *right)
{
	const struct mw_ranked_site *one = left, *other = right;

	if (one->key != other->key)
		return one->key < other->key ? 1 : -1;
	return one->site < other->site ? -1 : one->site > other->site;
}

static int compare_slope(const void *left, const void *right)
{
	const struct mw_site_row *one = left, *other = right;
	double slope = one->live.theil_sen_bytes_per_second, other_slope = other->live.theil_sen_bytes_per_second;

	if (slope != other_slope)
		return slope < other_slope ? 1 : -1;
	return one->site < other->site ? -1 : one->site > other->site;
}

static uint32_t rank(struct mw_tracer *tracer, uint32_t pid, uint32_t order)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < mw_sites_end(tracer->sites); i++) {
		const struct mw_site *site = mw_sites_at(tracer->sites, i);

		/* MW_SITE_OTHER is of nobody, hence in every process' table. */
		if (!site->is_used || !site->first_time_ns || (pid && i != MW_SITE_OTHER && site->pid != pid))
			continue;
		tracer->ranked[count++] = (struct mw_ranked_site){key_of(tracer, site, order), i};
	}
	qsort(tracer->ranked, count, sizeof(*tracer->ranked), compare_ranked);
	return count;
}

static uint64_t window_of(const struct mw_tracer *tracer, uint32_t pid)
{
	for (uint32_t i = 0; i < tracer->limits.processes_max; i++) {
		if (tracer->processes[i].pid == pid)
			return tracer->processes[i].window_ns;
	}
	return 0;
}

static void fill_site(struct mw_tracer *tracer, uint32_t index, double elapsed_s, struct mw_site_row *row)
{
	const struct mw_site *site = mw_sites_at(tracer->sites, index);
	uint64_t window_ns = site->pid ? window_of(tracer, site->pid) : 0;

	*row = (struct mw_site_row){
	    .native_stack = site->native_stack,
	    .python_stack = site->python_stack,
	    .since_ns = site->since_ns,
	    .first_time_ns = site->first_time_ns,
	    .last_time_ns = site->last_time_ns,
	    .allocated = site->allocated,
	    .freed = site->freed,
	    .survived = site->survived,
	    .grown = site->grown,
	    .pid = site->pid,
	    .site = index,
	    .domain = site->domain,
	};
	if (elapsed_s > 0)
		row->allocated_bytes_per_second =
		    (double)(site->allocated.weight_bytes - site->told_weight_bytes) / elapsed_s;
	if (window_ns)
		row->survived_bytes_per_second = (double)site->survived.weight_bytes / ((double)window_ns / 1e9);
	mw_past_fit(&site->live, &tracer->ticks, site->since_ns, tracer->table.time_ns, mw_site_live_weight_bytes(site),
		    &row->live);
}

static void count_now(struct mw_tracer *tracer)
{
	struct mw_tracer_counters *counters = &tracer->counters;

	counters->block_count = mw_live_count(tracer->live);
	counters->range_count = mw_ranges_count(tracer->ranges);
	counters->stack_count = mw_stacks_count(tracer->stacks);
	counters->word_count = mw_stacks_word_count(tracer->stacks);
	counters->site_count = mw_sites_count(tracer->sites);
	counters->sites_refused_total = mw_sites_refused(tracer->sites);
	tracer->table.counters = *counters;
}

/* Sample everything for the slopes of later tables. */
static void tick(struct mw_tracer *tracer)
{
	int index = mw_ticks_advance(&tracer->ticks, tracer->table.time_ns);

	for (uint32_t i = 0; i < mw_sites_end(tracer->sites); i++) {
		struct mw_site *site = mw_sites_at(tracer->sites, i);

		site->told_weight_bytes = site->allocated.weight_bytes;
	}
	if (index >= 0)
		mw_sites_tick(tracer->sites, &tracer->ticks, index);
	for (uint32_t i = 0; i < tracer->limits.processes_max; i++) {
		struct mw_tracer_process *process = &tracer->processes[i];

		if (!process->pid)
			continue;
		for (int group = 0; group < MW_HEAP_GROUPS; group++) {
			process->told_weight_bytes[group] = weight_in_group(process->allocated, group);
			if (index < 0)
				continue;
			if (tracer->ticks.thinned)
				mw_past_thin(&process->live[group]);
			process->live[group].values[index] = live_in_group(process, group);
		}
	}
}

int mw_tracer_table(struct mw_tracer *tracer, uint64_t time_ns, uint32_t pid, uint32_t order,
		    const struct mw_tracer_table **ret)
{
	struct mw_tracer_table *table = &tracer->table;
	double elapsed_s = table->time_ns ? (double)(time_ns - table->time_ns) / 1e9 : 0;
	uint32_t ranked;

	if (order < MW_ORDER_GROWTH || order > MW_ORDER_ALLOCATED)
		return -EINVAL;
	if (time_ns <= table->time_ns)
		return -EINVAL;
	*table = (struct mw_tracer_table){
	    .time_ns = time_ns,
	    .processes = tracer->process_rows,
	    .sites = tracer->site_rows,
	};
	for (uint32_t i = 0; i < tracer->limits.processes_max; i++) {
		struct mw_tracer_process *process = &tracer->processes[i];

		if (process->pid && (!pid || process->pid == pid))
			fill_process(tracer, process, elapsed_s, &tracer->process_rows[table->process_count++]);
	}
	ranked = rank(tracer, pid, order);
	table->site_count = ranked < tracer->limits.rows_max ? ranked : tracer->limits.rows_max;
	table->sites_omitted = ranked - table->site_count;
	for (uint32_t i = 0; i < table->site_count; i++)
		fill_site(tracer, tracer->ranked[i].site, elapsed_s, &tracer->site_rows[i]);
	if (order == MW_ORDER_GROWTH)
		qsort(tracer->site_rows, table->site_count, sizeof(*tracer->site_rows), compare_slope);
	count_now(tracer);
	tick(tracer);
	*ret = table;
	return 0;
}
