/* tracer_state.h - what the files of the tracer share: tracer.c takes records,
 * tracer_ring.c fetches them, tracer_table.c tells.  Nobody else includes it. */

#ifndef MW_TRACER_STATE_H
#define MW_TRACER_STATE_H

#include "tracer.h"

enum {
	MW_THREAD_REQUESTS_MAX = 64,
	MW_DOMAINS = MW_DOMAIN_MAP + 1,
};

struct ring_buffer;

/* A traced process; live[group] samples its live weighted bytes. */
struct mw_tracer_process {
	uint64_t since_ns;
	uint64_t window_ns;
	struct mw_sum allocated[MW_DOMAINS];
	struct mw_sum freed[MW_DOMAINS];
	struct mw_sum survived[MW_DOMAINS];
	struct mw_sum grown[MW_DOMAINS];
	struct mw_past live[MW_HEAP_GROUPS];
	uint64_t told_weight_bytes[MW_HEAP_GROUPS]; /* allocated at the last table */
	uint64_t untracked_bytes;
	struct mw_target_counts counts;
	uint64_t counts_time_ns;
	uint32_t pid; /* 0: unused */
	uint32_t reserved;
};

/* A site and what it is ordered by. */
struct mw_ranked_site {
	double key;
	uint32_t site;
};

struct mw_tracer {
	struct mw_tracer_limits limits;
	struct mw_live *live;
	struct mw_ranges *ranges;
	struct mw_stacks *stacks;
	struct mw_sites *sites;
	struct mw_tracer_process *processes;
	uint32_t *pids;			  /* of processes, packed for the search; 0: unused */
	struct mw_tracer_process *latest; /* events come in runs of one process */
	struct mw_ticks ticks;
	struct mw_tracer_counters counters;
	struct mw_thread_event thread_requests[MW_THREAD_REQUESTS_MAX];
	uint32_t thread_request_count;
	/* the table */
	struct mw_process_row *process_rows;
	struct mw_site_row *site_rows;
	struct mw_ranked_site *ranked;
	struct mw_tracer_table table;
	/* the ring */
	struct ring_buffer *ring;
	uint32_t ring_map_id;
};

enum mw_heap_group mw_group_of(uint16_t domain);
void mw_tracer_close_ring(struct mw_tracer *tracer);

#endif
