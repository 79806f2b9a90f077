/* Feeds a recording of ring records to the tracer: blocks, stacks and requests for threads, whole or
 * not.  Each block that it was told must be accounted for afterwards, as tracer.h says. */

#include "fuzz_input.h"
#include "tracer.h"

#include <stdlib.h>

static const struct mw_tracer_limits limits = {
    .blocks_max = 64,
    .ranges_max = 16,
    .stacks_max = 16,
    .words_max = 256,
    .sites_max = 8,
    .processes_max = 4,
    .rows_max = 4,
};

static void check_counters(const struct mw_tracer_counters *counters)
{
	if (counters->allocated_total != counters->block_count + counters->freed_total + counters->missed_frees_total +
					     counters->untracked_blocks_total + counters->settled_freed_total +
					     counters->forgotten_blocks_total)
		abort();
	if (counters->block_count > limits.blocks_max || counters->range_count > limits.ranges_max ||
	    counters->stack_count > limits.stacks_max || counters->word_count > limits.words_max ||
	    counters->process_count > limits.processes_max)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	uint8_t *records; /* aligned, as in a ring, and not a byte longer than it is */
	size_t records_bytes;
	struct mw_tracer *tracer;
	const struct mw_tracer_table *table;
	struct mw_block blocks[8];
	struct mw_thread_event threads[4];
	struct mw_target_counts counts;
	uint32_t cursor = 0, count;
	uint8_t choice = take_u8(&input);
	uint64_t time_ns = 1;

	if (mw_tracer_create(&limits, &tracer))
		abort();
	records_bytes = input.left;
	records = malloc(records_bytes);
	if (!records)
		abort();
	take(&input, records, records_bytes);
	mw_tracer_take(tracer, records, choice < records_bytes ? choice : records_bytes);
	mw_tracer_replay(tracer, records, records_bytes);
	for (uint32_t order = MW_ORDER_GROWTH; order <= MW_ORDER_ALLOCATED + 1; order++) {
		time_ns += 1000000000;
		if (mw_tracer_table(tracer, time_ns, 0, order, &table))
			continue;
		check_counters(&table->counters);
		for (uint32_t i = 0; i < table->site_count; i++)
			mw_tracer_stack(tracer, table->sites[i].pid, table->sites[i].native_stack);
		for (uint32_t i = 0; i < table->process_count; i++) {
			uint32_t pid = table->processes[i].pid;

			while ((count = mw_tracer_survivors(tracer, pid, 0, UINT64_MAX, &cursor, blocks, 8)) > 0) {
				for (uint32_t k = 0; k < count; k++)
					blocks[k].state = choice % (MW_SETTLED_UNKNOWN + 1);
				mw_tracer_settle(tracer, blocks, count, order & 1);
			}
			cursor = 0;
			mw_tracer_add_window(tracer, pid, 1000);
			memset(&counts, choice, sizeof(counts));
			mw_tracer_tell_counts(tracer, pid, time_ns, &counts);
			if (order == MW_ORDER_ALLOCATED && choice & 1)
				mw_tracer_forget(tracer, pid);
		}
	}
	if (mw_tracer_thread_requests(tracer, threads, 4) > 4)
		abort();
	if (mw_tracer_table(tracer, time_ns + 1, 1, MW_ORDER_LIVE, &table) == 0)
		check_counters(&table->counters);
	mw_tracer_destroy(tracer);
	free(records);
	return 0;
}
