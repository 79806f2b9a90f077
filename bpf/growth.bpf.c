/* growth.bpf.c - growth sampling: who touches fresh memory, without a probe in
 * any target.
 *
 * Two tracepoints on the host, page faults and mmap; a process that is not
 * traced pays one lookup per fault.  Each event is drawn by itself, one of N
 * (no countdown: draws must not fall in step with a loop of the target), and
 * stands for N times its size, so sums are unbiased.  Whoever touches the fresh
 * page is named, which is not always who keeps it: this ranks suspects.
 *
 * Must not know of allocators. */

#include "mappings.bpf.h"

enum {
	/* Bits of a page fault's error code on x86. */
	FAULT_WRITE = 2,
};

/* Yes for one of interval, at random; never if it is 0. */
static __always_inline bool is_drawn(uint32_t interval)
{
	if (interval <= 1)
		return interval;
	return bpf_get_prandom_u32() < 0xffffffffu / interval;
}

static __always_inline void tell_growth(void *ctx, struct hit *hit, uint64_t address, uint64_t size_bytes,
					uint32_t interval, uint32_t flags)
{
	struct mw_block_event event = {
	    .address = address,
	    .size_bytes = size_bytes,
	    .weight_bytes = size_bytes * interval,
	    .domain = MW_DOMAIN_MAP,
	    .kind = MW_BLOCK_GROWTH,
	    .flags = flags | (interval == 1 ? MW_BLOCK_EXACT : 0),
	};

	read_stacks(ctx, AT_TRACEPOINT, hit, &event);
	if (tell_block(hit, &event))
		COUNT(hit, growths_total);
	else
		COUNT(hit, dropped_growths_total);
}

/* Writes only: a read of fresh anonymous memory maps the shared zero page, and
 * one of a file is not private memory.  A write that copies a page (after fork,
 * or of a private file mapping) makes private memory grow, and counts.  Where
 * the kernel gives a huge page the event says one small page: too little. */
SEC("raw_tracepoint/page_fault_user")
int page_fault(struct bpf_raw_tracepoint_args *ctx)
{
	uint32_t interval;
	struct hit hit;

	if (!hit_begin(&hit))
		return 0;
	interval = hit.target->interval_faults;
	if (!interval || !(ctx->args[2] & FAULT_WRITE) || is_stopped(&hit))
		return 0;
	COUNT(&hit, faults_total);
	if (is_drawn(interval))
		tell_growth(ctx, &hit, ctx->args[0], PAGE_MASK + 1, interval, 0);
	return 0;
}

/* Private memory only: anonymous and not shared. */
SEC("tracepoint/syscalls/sys_exit_mmap")
int growth_mmap_return(struct syscall_exit *ctx)
{
	struct syscall_arguments given;
	uint32_t interval;
	struct hit hit;

	if (!hit_begin(&hit))
		return 0;
	interval = hit.target->interval_maps;
	if (!interval || !is_address(ctx->result) || is_stopped(&hit))
		return 0;
	given = syscall_arguments();
	if (mapping_flags(given.word[3]) || !is_drawn(interval))
		return 0;
	tell_growth(ctx, &hit, (uint64_t)ctx->result, whole_pages(given.word[1]), interval, MW_BLOCK_MAPPED);
	return 0;
}

STORE_TRACE_ABI;
LICENSE_GPL;
