/* maps.bpf.c - every mapping that a traced process makes or gives back.
 *
 * Must not know what lies in a mapping, nor of allocators. */

#include "mappings.bpf.h"

/* Begin a program for a process whose mappings are wanted. */
static __always_inline bool mapping_begin(struct hit *hit)
{
	return hit_begin(hit) && hit->target->flags & MW_TARGET_MAPS && !is_stopped(hit);
}

static __always_inline int entered(void)
{
	struct mapping_call call = {};
	struct hit hit;

	if (!mapping_begin(&hit))
		return 0;
	call.time_ns = bpf_ktime_get_ns();
	call.brk = task_heap_end();
	if (bpf_map_update_elem(MAP(mapping_calls), &hit.tid, &call, BPF_ANY))
		COUNT(&hit, dropped_maps_total);
	return 0;
}

/* What the entry kept, or NULL: it was not seen, or is forgotten. */
static __always_inline struct mapping_call *returned(struct hit *hit)
{
	return mapping_begin(hit) ? bpf_map_lookup_elem(MAP(mapping_calls), &hit->tid) : 0;
}

static __always_inline void tell(void *ctx, struct hit *hit, uint32_t kind, uint32_t flags, uint64_t address,
				 uint64_t size_bytes, uint64_t time_ns)
{
	struct mw_block_event event = {
	    .time_ns = time_ns,
	    .address = address,
	    .size_bytes = size_bytes,
	    .weight_bytes = size_bytes,
	    .domain = MW_DOMAIN_MAP,
	    .kind = kind,
	    .flags = flags | MW_BLOCK_EXACT,
	};

	if (kind == MW_BLOCK_MAP)
		read_stacks(ctx, AT_TRACEPOINT, hit, &event);
	if (tell_block(hit, &event))
		COUNT(hit, maps_total);
	else
		COUNT(hit, dropped_maps_total);
}

SEC("tracepoint/syscalls/sys_exit_mmap")
int mmap_return(struct syscall_exit *ctx)
{
	struct syscall_arguments given;
	struct hit hit;

	if (!is_address(ctx->result) || !mapping_begin(&hit))
		return 0;
	given = syscall_arguments();
	tell(ctx, &hit, MW_BLOCK_MAP, mapping_flags(given.word[3]), (uint64_t)ctx->result, whole_pages(given.word[1]),
	     0);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_munmap")
int munmap_enter(void *ctx)
{
	(void)ctx;
	return entered();
}

SEC("tracepoint/syscalls/sys_exit_munmap")
int munmap_return(struct syscall_exit *ctx)
{
	struct syscall_arguments given;
	struct mapping_call *call;
	struct hit hit;

	if (ctx->result)
		return 0;
	call = returned(&hit);
	if (!call)
		return 0;
	given = syscall_arguments();
	tell(ctx, &hit, MW_BLOCK_UNMAP, 0, given.word[0], whole_pages(given.word[1]), call->time_ns);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_mremap")
int mremap_enter(void *ctx)
{
	(void)ctx;
	return entered();
}

/* With an old size of 0 (a copy of a shared mapping) nothing is given back. */
SEC("tracepoint/syscalls/sys_exit_mremap")
int mremap_return(struct syscall_exit *ctx)
{
	struct syscall_arguments given;
	struct mapping_call *call;
	struct hit hit;

	if (!is_address(ctx->result))
		return 0;
	call = returned(&hit);
	if (!call)
		return 0;
	given = syscall_arguments();
	if (given.word[1])
		tell(ctx, &hit, MW_BLOCK_UNMAP, MW_BLOCK_MOVED, given.word[0], whole_pages(given.word[1]),
		     call->time_ns);
	tell(ctx, &hit, MW_BLOCK_MAP, MW_BLOCK_MOVED, (uint64_t)ctx->result, whole_pages(given.word[2]), 0);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_brk")
int brk_enter(void *ctx)
{
	(void)ctx;
	return entered();
}

/* brk() answers with the end of the heap, moved or not. */
SEC("tracepoint/syscalls/sys_exit_brk")
int brk_return(struct syscall_exit *ctx)
{
	uint64_t now = whole_pages((uint64_t)ctx->result), before;
	struct mapping_call *call;
	struct hit hit;

	call = returned(&hit);
	if (!call)
		return 0;
	before = whole_pages(call->brk);
	if (now > before)
		tell(ctx, &hit, MW_BLOCK_MAP, MW_BLOCK_HEAP, before, now - before, 0);
	else if (now < before)
		tell(ctx, &hit, MW_BLOCK_UNMAP, MW_BLOCK_HEAP, now, before - now, call->time_ns);
	return 0;
}

STORE_TRACE_ABI;
LICENSE_GPL;
