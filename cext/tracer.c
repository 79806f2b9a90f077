/* tracer.c - takes records and keeps the books. */

#include "tracer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tracer_state.h"

int mw_tracer_create(const struct mw_tracer_limits *limits, struct mw_tracer **ret)
{
	struct mw_tracer *tracer;

	if (!limits->blocks_max || !limits->ranges_max || !limits->stacks_max || !limits->words_max ||
	    !limits->sites_max || !limits->processes_max || !limits->rows_max || limits->blocks_max > UINT32_MAX / 2 ||
	    limits->ranges_max > UINT32_MAX / 2 || limits->stacks_max > UINT32_MAX / 2 ||
	    limits->sites_max > UINT32_MAX / 2)
		return -EINVAL;
	tracer = calloc(1, sizeof(*tracer));
	if (!tracer)
		return -ENOMEM;
	tracer->limits = *limits;
	tracer->live = mw_live_create(limits->blocks_max);
	tracer->ranges = mw_ranges_create(limits->ranges_max);
	tracer->stacks = mw_stacks_create(limits->stacks_max, limits->words_max);
	tracer->sites = mw_sites_create(limits->sites_max);
	tracer->processes = calloc(limits->processes_max, sizeof(*tracer->processes));
	tracer->pids = calloc(limits->processes_max, sizeof(*tracer->pids));
	tracer->process_rows = calloc(limits->processes_max, sizeof(*tracer->process_rows));
	tracer->site_rows = calloc(limits->rows_max, sizeof(*tracer->site_rows));
	tracer->ranked = calloc((size_t)limits->sites_max + 1, sizeof(*tracer->ranked));
	if (!tracer->live || !tracer->ranges || !tracer->stacks || !tracer->sites || !tracer->processes ||
	    !tracer->pids || !tracer->process_rows || !tracer->site_rows || !tracer->ranked) {
		mw_tracer_destroy(tracer);
		return -ENOMEM;
	}
	*ret = tracer;
	return 0;
}

void mw_tracer_destroy(struct mw_tracer *tracer)
{
	if (!tracer)
		return;
	mw_tracer_close_ring(tracer);
	free(tracer->ranked);
	free(tracer->site_rows);
	free(tracer->process_rows);
	free(tracer->pids);
	free(tracer->processes);
	mw_sites_destroy(tracer->sites);
	mw_stacks_destroy(tracer->stacks);
	mw_ranges_destroy(tracer->ranges);
	mw_live_destroy(tracer->live);
	free(tracer);
}

enum mw_heap_group mw_group_of(uint16_t domain)
{
	if (domain == MW_DOMAIN_NATIVE)
		return MW_HEAP_NATIVE;
	return domain == MW_DOMAIN_MAP ? MW_HEAP_MAP : MW_HEAP_PYTHON;
}

static struct mw_tracer_process *find_process(struct mw_tracer *tracer, uint32_t pid)
{
	if (tracer->latest && tracer->latest->pid == pid)
		return tracer->latest;
	/* A walk over packed pids: few processes are traced at a time. */
	for (uint32_t i = 0; i < tracer->limits.processes_max; i++) {
		if (tracer->pids[i] == pid)
			return tracer->latest = &tracer->processes[i];
	}
	return NULL;
}

static struct mw_tracer_process *process_of(struct mw_tracer *tracer, uint32_t pid, uint64_t time_ns)
{
	struct mw_tracer_process *process = find_process(tracer, pid);

	if (process)
		return process;
	process = tracer->counters.process_count < tracer->limits.processes_max ? find_process(tracer, 0) : NULL;
	tracer->latest = process;
	if (!process)
		return NULL;
	*process = (struct mw_tracer_process){.pid = pid, .since_ns = time_ns};
	tracer->pids[process - tracer->processes] = pid;
	tracer->counters.process_count++;
	return process;
}

/* How many blocks one stands for; one of no bytes is sampled as if it had one,
 * and in exact mode it weighs nothing and is one. */
static double weight_blocks(uint64_t size_bytes, uint64_t weight_bytes)
{
	if (!size_bytes)
		return weight_bytes ? (double)weight_bytes : 1.0;
	return (double)weight_bytes / (double)size_bytes;
}

static void sum_add(struct mw_sum *sum, uint64_t size_bytes, uint64_t weight_bytes, double blocks)
{
	sum->blocks++;
	sum->bytes += size_bytes;
	sum->weight_bytes += weight_bytes;
	sum->weight_blocks += blocks;
}

static void sum_take(struct mw_sum *sum, uint64_t size_bytes, uint64_t weight_bytes, double blocks)
{
	sum->blocks--;
	sum->bytes -= size_bytes;
	sum->weight_bytes -= weight_bytes;
	sum->weight_blocks -= blocks;
}

/* The site of an event, with its times; its process' first event is its birth. */
static uint32_t site_of(struct mw_tracer *tracer, const struct mw_tracer_process *process,
			const struct mw_block_event *event)
{
	uint32_t index = mw_sites_intern(tracer->sites, event->pid, event->domain, event->native_stack,
					 event->python_stack, process->since_ns);
	struct mw_site *site = mw_sites_at(tracer->sites, index);

	if (!site->first_time_ns)
		site->first_time_ns = event->time_ns;
	site->last_time_ns = event->time_ns;
	return index;
}

/* The block lives no more: its site and process are told. */
static void credit_block(struct mw_tracer *tracer, const struct mw_block *block)
{
	struct mw_tracer_process *process = find_process(tracer, block->pid);
	struct mw_site *site = mw_sites_at(tracer->sites, block->site);
	double blocks = weight_blocks(block->size_bytes, block->weight_bytes);

	sum_add(&site->freed, block->size_bytes, block->weight_bytes, blocks);
	if (process)
		sum_add(&process->freed[block->domain], block->size_bytes, block->weight_bytes, blocks);
	if (block->state != MW_SETTLED_ALIVE)
		return;
	sum_take(&site->survived, block->size_bytes, block->weight_bytes, blocks);
	if (process)
		sum_take(&process->survived[block->domain], block->size_bytes, block->weight_bytes, blocks);
}

static void take_alloc(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	struct mw_tracer_process *process = process_of(tracer, event->pid, event->time_ns);
	double blocks = weight_blocks(event->size_bytes, event->weight_bytes);
	struct mw_block replaced, block = {
				      .address = event->address,
				      .size_bytes = event->size_bytes,
				      .weight_bytes = event->weight_bytes,
				      .time_ns = event->time_ns,
				      .pid = event->pid,
				      .domain = event->domain,
				  };
	struct mw_site *site;
	int result;

	tracer->counters.allocated_total++;
	if (!process) {
		tracer->counters.processes_refused_total++;
		tracer->counters.untracked_blocks_total++;
		tracer->counters.untracked_bytes_total += event->weight_bytes;
		return;
	}
	block.site = site_of(tracer, process, event);
	result = mw_live_add(tracer->live, &block, &replaced);
	if (result < 0) {
		/* Not charged to the site: its free could never be credited. */
		tracer->counters.untracked_blocks_total++;
		tracer->counters.untracked_bytes_total += event->weight_bytes;
		process->untracked_bytes += event->weight_bytes;
		return;
	}
	if (result == 1) {
		tracer->counters.missed_frees_total++;
		credit_block(tracer, &replaced);
	}
	site = mw_sites_at(tracer->sites, block.site);
	sum_add(&site->allocated, event->size_bytes, event->weight_bytes, blocks);
	sum_add(&process->allocated[event->domain], event->size_bytes, event->weight_bytes, blocks);
}

static void take_free(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	const struct mw_block *live = mw_live_find(tracer->live, event->pid, event->address);
	struct mw_block block;

	if (!live) {
		tracer->counters.unmatched_frees_total++;
		return;
	}
	if (live->time_ns > event->time_ns) {
		tracer->counters.stale_frees_total++;
		return;
	}
	mw_live_remove(tracer->live, event->pid, event->address, &block);
	tracer->counters.freed_total++;
	credit_block(tracer, &block);
}

/* Cut a range of address space out; return whether anything was there. */
static bool cut(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	uint64_t end = event->address + event->size_bytes;
	struct mw_range parts[16];
	uint32_t count;
	bool is_hit = false;

	while ((count = mw_ranges_cut(tracer->ranges, event->pid, event->address, event->size_bytes, event->time_ns,
				      parts, 16))) {
		is_hit = true;
		for (uint32_t i = 0; i < count; i++) {
			struct mw_tracer_process *process = find_process(tracer, parts[i].pid);
			struct mw_site *site = mw_sites_at(tracer->sites, parts[i].site);
			double share = weight_blocks(parts[i].size_bytes, parts[i].weight_bytes);

			/* A rest that found no place: still mapped, but not ours to watch any more. */
			if (parts[i].address >= end) {
				tracer->counters.untracked_ranges_total++;
				tracer->counters.untracked_bytes_total += parts[i].weight_bytes;
				if (process)
					process->untracked_bytes += parts[i].weight_bytes;
			}
			sum_add(&site->freed, parts[i].size_bytes, parts[i].weight_bytes, share);
			if (process)
				sum_add(&process->freed[MW_DOMAIN_MAP], parts[i].size_bytes, parts[i].weight_bytes,
					share);
		}
	}
	return is_hit;
}

static void take_map(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	struct mw_tracer_process *process = process_of(tracer, event->pid, event->time_ns);
	struct mw_range range = {
	    .address = event->address,
	    .size_bytes = event->size_bytes,
	    .weight_bytes = event->weight_bytes,
	    .time_ns = event->time_ns,
	    .pid = event->pid,
	};
	double blocks = weight_blocks(event->size_bytes, event->weight_bytes);

	tracer->counters.mapped_total++;
	if (!process) {
		tracer->counters.processes_refused_total++;
		tracer->counters.untracked_ranges_total++;
		tracer->counters.untracked_bytes_total += event->weight_bytes;
		return;
	}
	if (cut(tracer, event))
		tracer->counters.missed_unmaps_total++;
	range.site = site_of(tracer, process, event);
	if (mw_ranges_add(tracer->ranges, &range)) {
		tracer->counters.untracked_ranges_total++;
		tracer->counters.untracked_bytes_total += event->weight_bytes;
		process->untracked_bytes += event->weight_bytes;
		return;
	}
	sum_add(&mw_sites_at(tracer->sites, range.site)->allocated, event->size_bytes, event->weight_bytes, blocks);
	sum_add(&process->allocated[MW_DOMAIN_MAP], event->size_bytes, event->weight_bytes, blocks);
}

static void take_unmap(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	if (cut(tracer, event))
		tracer->counters.unmapped_total++;
	else
		tracer->counters.unmatched_unmaps_total++;
}

static void take_growth(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	struct mw_tracer_process *process = process_of(tracer, event->pid, event->time_ns);
	double blocks = weight_blocks(event->size_bytes, event->weight_bytes);
	struct mw_site *site;

	tracer->counters.growths_total++;
	if (!process) {
		tracer->counters.processes_refused_total++;
		return;
	}
	site = mw_sites_at(tracer->sites, site_of(tracer, process, event));
	sum_add(&site->grown, event->size_bytes, event->weight_bytes, blocks);
	sum_add(&process->grown[event->domain], event->size_bytes, event->weight_bytes, blocks);
}

static void take_block_event(struct mw_tracer *tracer, const struct mw_block_event *event)
{
	bool is_range = event->kind == MW_BLOCK_MAP || event->kind == MW_BLOCK_UNMAP;

	if (!event->pid || !event->address || !event->domain || event->domain > MW_DOMAIN_MAP ||
	    (is_range && event->domain != MW_DOMAIN_MAP)) {
		tracer->counters.records_refused_total++;
		return;
	}
	switch (event->kind) {
	case MW_BLOCK_ALLOC:
		take_alloc(tracer, event);
		break;
	case MW_BLOCK_FREE:
		take_free(tracer, event);
		break;
	case MW_BLOCK_MAP:
		take_map(tracer, event);
		break;
	case MW_BLOCK_UNMAP:
		take_unmap(tracer, event);
		break;
	case MW_BLOCK_GROWTH:
		take_growth(tracer, event);
		break;
	default:
		tracer->counters.records_refused_total++;
	}
}

static void take_stack_event(struct mw_tracer *tracer, const struct mw_stack_event *event, uint64_t size_bytes)
{
	uint64_t head_bytes = sizeof(*event) - sizeof(event->words);
	uint32_t words_per_frame = event->kind == MW_STACK_PYTHON ? 2 : 1;
	struct mw_stack stack = {
	    .stack = event->stack,
	    .words = event->words,
	    .pid = event->pid,
	    .word_count = event->frame_count * words_per_frame,
	    .kind = event->kind,
	    .truncated = event->truncated ? 1 : 0,
	};

	/* The ring may round a record up, never down. */
	if (!event->pid || (event->kind != MW_STACK_NATIVE && event->kind != MW_STACK_PYTHON) ||
	    event->frame_count > MW_FRAMES_MAX || size_bytes < head_bytes + 8ull * stack.word_count) {
		tracer->counters.records_refused_total++;
		return;
	}
	tracer->counters.stacks_total++;
	switch (mw_stacks_add(tracer->stacks, &stack)) {
	case -EEXIST:
		tracer->counters.stacks_collided_total++;
		break;
	case -ENOSPC:
		tracer->counters.stacks_refused_total++;
		break;
	case -EINVAL:
		tracer->counters.records_refused_total++;
		break;
	}
}

static void take_thread_event(struct mw_tracer *tracer, const struct mw_thread_event *event)
{
	tracer->counters.threads_asked_total++;
	if (tracer->thread_request_count < MW_THREAD_REQUESTS_MAX)
		tracer->thread_requests[tracer->thread_request_count++] = *event;
}

void mw_tracer_take(struct mw_tracer *tracer, const void *record, uint64_t size_bytes)
{
	const uint64_t stack_head_bytes = sizeof(struct mw_stack_event) - sizeof(((struct mw_stack_event *)0)->words);
	uint32_t kind = size_bytes >= sizeof(kind) ? *(const uint32_t *)record : 0;

	tracer->counters.records_total++;
	if (kind == MW_RECORD_BLOCK && size_bytes == sizeof(struct mw_block_event))
		take_block_event(tracer, record);
	else if (kind == MW_RECORD_STACK && size_bytes >= stack_head_bytes)
		take_stack_event(tracer, record, size_bytes);
	else if (kind == MW_RECORD_THREAD && size_bytes == sizeof(struct mw_thread_event))
		take_thread_event(tracer, record);
	else
		tracer->counters.records_refused_total++;
}

int64_t mw_tracer_replay(struct mw_tracer *tracer, const void *bytes, uint64_t size_bytes)
{
	const char *at = bytes;
	int64_t count = 0;

	while (size_bytes >= sizeof(uint64_t)) {
		uint64_t record_bytes, padded_bytes;

		memcpy(&record_bytes, at, sizeof(record_bytes));
		if (record_bytes > size_bytes - sizeof(uint64_t))
			return -EINVAL;
		padded_bytes = (record_bytes + 7) & ~7ull;
		if (padded_bytes > size_bytes - sizeof(uint64_t))
			return -EINVAL;
		mw_tracer_take(tracer, at + sizeof(uint64_t), record_bytes);
		at += sizeof(uint64_t) + padded_bytes;
		size_bytes -= sizeof(uint64_t) + padded_bytes;
		count++;
	}
	return size_bytes ? -EINVAL : count;
}

int mw_tracer_tell_counts(struct mw_tracer *tracer, uint32_t pid, uint64_t time_ns,
			  const struct mw_target_counts *counts)
{
	struct mw_tracer_process *process = pid ? process_of(tracer, pid, time_ns) : NULL;

	if (!process)
		return -ESRCH;
	process->counts = *counts;
	process->counts_time_ns = time_ns;
	return 0;
}

uint32_t mw_tracer_survivors(struct mw_tracer *tracer, uint32_t pid, uint64_t since_ns, uint64_t until_ns,
			     uint32_t *cursor, struct mw_block *blocks, uint32_t count)
{
	return mw_live_walk(tracer->live, pid, since_ns, until_ns, cursor, blocks, count);
}

static void settle_alive(struct mw_tracer *tracer, struct mw_block *block)
{
	struct mw_tracer_process *process = find_process(tracer, block->pid);
	double blocks = weight_blocks(block->size_bytes, block->weight_bytes);

	tracer->counters.settled_alive_total++;
	if (block->state == MW_SETTLED_ALIVE)
		return;
	block->state = MW_SETTLED_ALIVE;
	sum_add(&mw_sites_at(tracer->sites, block->site)->survived, block->size_bytes, block->weight_bytes, blocks);
	if (process)
		sum_add(&process->survived[block->domain], block->size_bytes, block->weight_bytes, blocks);
}

uint32_t mw_tracer_settle(struct mw_tracer *tracer, const struct mw_block *blocks, uint32_t count, uint32_t is_final)
{
	uint32_t settled = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct mw_block *block = mw_live_find(tracer->live, blocks[i].pid, blocks[i].address);
		struct mw_block gone;

		if (!block || block->time_ns != blocks[i].time_ns)
			continue;
		settled++;
		memcpy(block->fingerprint, blocks[i].fingerprint, sizeof(block->fingerprint));
		switch (blocks[i].state) {
		case MW_SETTLED_ALIVE:
			if (is_final)
				settle_alive(tracer, block);
			break;
		case MW_SETTLED_FREED:
			tracer->counters.settled_freed_total++;
			mw_live_remove(tracer->live, block->pid, block->address, &gone);
			credit_block(tracer, &gone);
			break;
		case MW_SETTLED_UNKNOWN:
			/* An earlier answer stands: what could be read once counts. */
			tracer->counters.settled_unknown_total++;
			if (block->state == MW_SETTLED_NOT)
				block->state = MW_SETTLED_UNKNOWN;
			break;
		default:
			break;
		}
	}
	return settled;
}

int mw_tracer_add_window(struct mw_tracer *tracer, uint32_t pid, uint64_t window_ns)
{
	struct mw_tracer_process *process = pid ? find_process(tracer, pid) : NULL;

	if (!process)
		return -ESRCH;
	process->window_ns += window_ns;
	return 0;
}

/* What pid has at MW_SITE_OTHER; its own sites go with all they hold. */
static void credit_other(struct mw_tracer *tracer, uint32_t pid)
{
	struct mw_site *other = mw_sites_at(tracer->sites, MW_SITE_OTHER);
	struct mw_block blocks[64];
	struct mw_range ranges[64];
	uint64_t address = 0;
	uint32_t cursor = 0, count;

	while ((count = mw_live_walk(tracer->live, pid, 0, UINT64_MAX, &cursor, blocks, 64))) {
		for (uint32_t i = 0; i < count; i++) {
			if (blocks[i].site == MW_SITE_OTHER)
				credit_block(tracer, &blocks[i]);
		}
	}
	while ((count = mw_ranges_copy(tracer->ranges, pid, address, ranges, 64))) {
		for (uint32_t i = 0; i < count; i++) {
			if (ranges[i].site == MW_SITE_OTHER)
				sum_add(&other->freed, ranges[i].size_bytes, ranges[i].weight_bytes,
					weight_blocks(ranges[i].size_bytes, ranges[i].weight_bytes));
		}
		address = ranges[count - 1].address + 1;
	}
}

void mw_tracer_forget(struct mw_tracer *tracer, uint32_t pid)
{
	struct mw_tracer_process *process = pid ? find_process(tracer, pid) : NULL;

	if (!pid)
		return;
	credit_other(tracer, pid);
	tracer->counters.forgotten_blocks_total += mw_live_forget(tracer->live, pid);
	tracer->counters.forgotten_ranges_total += mw_ranges_forget(tracer->ranges, pid);
	mw_stacks_forget(tracer->stacks, pid);
	mw_sites_forget(tracer->sites, pid);
	if (process) {
		tracer->pids[process - tracer->processes] = 0;
		*process = (struct mw_tracer_process){0};
		tracer->counters.process_count--;
	}
	tracer->latest = NULL;
}

uint32_t mw_tracer_thread_requests(struct mw_tracer *tracer, struct mw_thread_event *requests, uint32_t count)
{
	uint32_t taken = tracer->thread_request_count < count ? tracer->thread_request_count : count;

	memcpy(requests, tracer->thread_requests, taken * sizeof(*requests));
	tracer->thread_request_count -= taken;
	memmove(tracer->thread_requests, tracer->thread_requests + taken,
		tracer->thread_request_count * sizeof(*requests));
	return taken;
}

const struct mw_stack *mw_tracer_stack(const struct mw_tracer *tracer, uint32_t pid, uint64_t stack)
{
	return stack ? mw_stacks_find(tracer->stacks, pid, stack) : NULL;
}
