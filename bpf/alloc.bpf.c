/* alloc.bpf.c - probes on allocators: which blocks became live, and which died.
 *
 * One program serves many functions: the attach cookie says how the arguments
 * are to be understood and who is asking (trace_events.h).  The same body comes
 * three times: as a session program, whose entry decides whether the return is
 * looked at (6.13 and later), and as an entry and return pair for uprobe_multi
 * and for perf uprobes; user space loads one of the three.
 *
 * Must not know where a probe sits, nor what a site is. */

#include "calls.bpf.h"
#include "pyframes.bpf.h"
#include "sampling.bpf.h"

enum {
	SAMPLED_BLOCKS = 65536, /* at the default distance of samples: 32 GiB of live blocks */
};

/* Live blocks that were told by sampling: their frees are told, too. */
struct block_key {
	uint64_t address;
	uint64_t pid;
};

MAP_HASH(sampled_blocks, BPF_MAP_TYPE_HASH, struct block_key, uint64_t, SAMPLED_BLOCKS);

#ifndef MW_BCC
extern bool bpf_session_is_return(void) __ksym __weak;
extern long *bpf_session_cookie(void) __ksym __weak;
#else
/* bcc's text calls no kernel functions: it has the pairs only, which never come here. */
static __always_inline long *bpf_session_cookie(void)
{
	return 0;
}
#endif

/* How a program was attached. */
enum attach {
	ATTACH_PAIR = 0,
	ATTACH_SESSION = 1,
};

/* What a probe sees: the cookie, taken apart. */
struct probe {
	uint8_t call;
	uint8_t domain;
	uint8_t layer;
	uint8_t argument_shift;
	uint8_t pushed_words;
};

static __always_inline struct probe probe_here(void *ctx)
{
	uint64_t cookie = bpf_get_attach_cookie(ctx);
	struct probe probe = {
	    .call = cookie >> MW_COOKIE_CALL,
	    .domain = cookie >> MW_COOKIE_DOMAIN,
	    .layer = cookie >> MW_COOKIE_LAYER,
	    .argument_shift = cookie >> MW_COOKIE_ARGUMENT_SHIFT,
	    .pushed_words = cookie >> MW_COOKIE_PUSHED_WORDS,
	};
	return probe;
}

/* Both are read before one is chosen: the compiler would choose between their
 * addresses, and the verifier allows only fixed offsets into the registers. */
static __always_inline uint64_t chosen(struct probe probe, uint64_t in_place, uint64_t shifted)
{
	barrier_var(in_place);
	barrier_var(shifted);
	return probe.argument_shift ? shifted : in_place;
}

static __always_inline uint64_t argument1(struct pt_regs *ctx, struct probe probe)
{
	return chosen(probe, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

static __always_inline uint64_t argument2(struct pt_regs *ctx, struct probe probe)
{
	return chosen(probe, PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
}

static __always_inline uint64_t argument3(struct pt_regs *ctx, struct probe probe)
{
	return chosen(probe, PT_REGS_PARM3(ctx), PT_REGS_PARM4(ctx));
}

/* count * size, or false: no allocator can give so much.  By halves, since the
 * compiler makes a 128-bit product of anything plainer, and BPF has none. */
static __always_inline bool product(uint64_t count, uint64_t size, uint64_t *ret)
{
	uint64_t large = count > size ? count : size;
	uint64_t small = count > size ? size : count;
	uint64_t high = (large >> 32) * small;
	uint64_t low = (large & 0xffffffff) * small;

	if (small >> 32 || high >> 32)
		return false;
	*ret = (high << 32) + low;
	return *ret >= low;
}

/* The bytes asked for. */
static __always_inline bool wanted_bytes(struct pt_regs *ctx, struct probe probe, uint64_t *ret)
{
	switch (probe.call) {
	case MW_CALL_CALLOC:
		return product(argument1(ctx, probe), argument2(ctx, probe), ret);
	case MW_CALL_REALLOCARRAY:
		return product(argument2(ctx, probe), argument3(ctx, probe), ret);
	case MW_CALL_REALLOC:
	case MW_CALL_ALIGNED:
		*ret = argument2(ctx, probe);
		return true;
	case MW_CALL_POSIX_MEMALIGN:
		*ret = argument3(ctx, probe);
		return true;
	default:
		*ret = argument1(ctx, probe);
		return true;
	}
}

static __always_inline bool is_realloc(struct probe probe)
{
	return probe.call == MW_CALL_REALLOC || probe.call == MW_CALL_REALLOCARRAY;
}

/* Where a call is kept between entry and return.  In the lowest layer, where
 * nothing nests, the 8 bytes do that the kernel carries for a session. */
static __always_inline bool is_kept(struct probe probe, enum attach attach)
{
	return attach == ATTACH_PAIR || probe.layer || is_realloc(probe) || probe.call == MW_CALL_POSIX_MEMALIGN;
}

/* Is this call part of one that is charged already?  If not, whatever the thread
 * was in is over. */
static __always_inline bool is_inside(struct hit *hit, struct probe probe, struct call *call, uint64_t stack_pointer)
{
	if (!call || !call->stack_pointer)
		return false;
	if (hit->target->flags & MW_TARGET_LAYERED && is_nested(call, probe.layer, stack_pointer)) {
		COUNT(hit, nested_total);
		return true;
	}
	call_forget(hit, call);
	return false;
}

/* Is a free of the block at address to be told?  In sampled mode the block
 * leaves the set at once: after the realloc another thread may get the address. */
static __always_inline uint32_t old_block_flags(struct hit *hit, uint64_t address)
{
	struct block_key key = {.address = address, .pid = hit->pid};

	if (!address || !(hit->target->flags & MW_TARGET_FREES))
		return 0;
	if (!hit->target->interval_bytes)
		return CALL_OLD_TOLD;
	if (!bpf_map_lookup_elem(MAP(sampled_blocks), &key) || bpf_map_delete_elem(MAP(sampled_blocks), &key))
		return 0;
	return CALL_OLD_TOLD | CALL_OLD_IN_SET;
}

/* Return 0 to see the call's return, 1 to skip it (sessions only). */
static __always_inline int block_entered(struct pt_regs *ctx, enum attach attach)
{
	struct probe probe = probe_here(ctx);
	uint64_t stack_pointer = PT_REGS_SP(ctx);
	bool kept = is_kept(probe, attach);
	struct call *call = 0;
	uint64_t size_bytes;
	uint32_t flags = 0;
	struct hit hit;

	if (!hit_begin(&hit) || is_stopped(&hit))
		return 1;
	COUNT(&hit, hits_total);
	if (kept)
		call = thread_call(&hit);
	else if (hit.target->flags & MW_TARGET_LAYERED)
		call = known_call(&hit);
	if (kept && !call) {
		COUNT(&hit, untracked_total);
		return 1;
	}
	if (is_inside(&hit, probe, call, stack_pointer))
		return 1;
	if (!wanted_bytes(ctx, probe, &size_bytes)) {
		COUNT(&hit, failed_total);
		return 1;
	}
	if (is_sampled(&hit, size_bytes))
		flags = CALL_SAMPLED;
	else
		COUNT(&hit, unsampled_total);
	if (!kept || !call) {
		if (!flags)
			return 1;
		long *carried = bpf_session_cookie();

		*carried = (long)size_bytes;
		return 0;
	}
	if (is_realloc(probe))
		flags |= old_block_flags(&hit, argument1(ctx, probe));
	/* Nothing to tell, and the end of the call can be seen without its return. */
	if (!flags && attach == ATTACH_SESSION && (HAS_RETURN_SLOT || !(hit.target->flags & MW_TARGET_LAYERED))) {
		call_begin(call, probe.layer, stack_pointer, 0);
		return 1;
	}
	call_begin(call, probe.layer, stack_pointer, flags | CALL_WATCHED);
	call->call = probe.call;
	call->domain = probe.domain;
	call->size_bytes = size_bytes;
	call->argument = argument1(ctx, probe);
	if (flags & CALL_OLD_TOLD)
		call->time_ns = bpf_ktime_get_ns();
	return 0;
}

/* The address that a returning call gave, 0: none. */
static __always_inline uint64_t given_address(struct pt_regs *ctx, struct probe probe, uint64_t where)
{
	if (probe.call != MW_CALL_POSIX_MEMALIGN)
		return PT_REGS_RC(ctx);
	return (int32_t)PT_REGS_RC(ctx) ? 0 : stack_word(where);
}

static __always_inline void tell_alloc(struct pt_regs *ctx, struct hit *hit, struct probe probe, uint64_t address,
				       uint64_t size_bytes, uint32_t flags)
{
	uint64_t interval = hit->target->interval_bytes;
	struct mw_block_event event = {
	    .address = address,
	    .size_bytes = size_bytes,
	    .weight_bytes = sample_weight(size_bytes, interval),
	    .domain = probe.domain,
	    .kind = MW_BLOCK_ALLOC,
	    .flags = flags | (interval ? 0 : MW_BLOCK_EXACT),
	};

	read_stacks(ctx, AT_PROBE, hit, &event);
	if (!tell_block(hit, &event)) {
		COUNT(hit, dropped_blocks_total);
		return;
	}
	COUNT(hit, blocks_total);
	if (interval && hit->target->flags & MW_TARGET_FREES) {
		struct block_key key = {.address = address, .pid = hit->pid};

		if (bpf_map_update_elem(MAP(sampled_blocks), &key, &event.time_ns, BPF_ANY))
			COUNT(hit, unset_samples_total);
	}
}

/* The first half of a realloc that gave address: the old block is live no more.
 * glibc's realloc(p, 0) frees and gives nothing; CPython's always gives a block. */
static __always_inline void realloc_returned(struct hit *hit, struct probe probe, const struct call *call,
					     uint64_t address)
{
	struct mw_block_event event = {
	    .time_ns = call->time_ns,
	    .address = call->argument,
	    .domain = probe.domain,
	    .kind = MW_BLOCK_FREE,
	    .flags = MW_BLOCK_MOVED | (hit->target->interval_bytes ? 0 : MW_BLOCK_EXACT),
	};
	bool freed = address || (!call->size_bytes && probe.domain == MW_DOMAIN_NATIVE);

	if (freed) {
		if (tell_block(hit, &event))
			COUNT(hit, moved_frees_total);
		else
			COUNT(hit, dropped_moves_total);
	} else if (call->flags & CALL_OLD_IN_SET) {
		struct block_key key = {.address = call->argument, .pid = hit->pid};

		if (bpf_map_update_elem(MAP(sampled_blocks), &key, &call->time_ns, BPF_ANY))
			COUNT(hit, unset_samples_total);
	}
}

static __always_inline int block_returned(struct pt_regs *ctx, enum attach attach)
{
	struct probe probe = probe_here(ctx);
	struct call *call;
	uint64_t address;
	struct hit hit;

	if (!hit_begin(&hit) || is_stopped(&hit))
		return 0;
	COUNT(&hit, returns_total);
	if (!is_kept(probe, attach)) {
		long *carried = bpf_session_cookie();

		address = PT_REGS_RC(ctx);
		if (address)
			tell_alloc(ctx, &hit, probe, address, (uint64_t)*carried, 0);
		else
			COUNT(&hit, failed_total);
		return 0;
	}
	call = bpf_map_lookup_elem(MAP(calls), &hit.tid);
	if (!call) {
		COUNT(&hit, untracked_total);
		return 0;
	}
	/* Else a nested call, or one that began before we were attached. */
	if (!call_end(call, PT_REGS_SP(ctx)))
		return 0;
	probe.call = call->call;
	probe.domain = call->domain;
	address = given_address(ctx, probe, call->argument);
	if (call->flags & CALL_OLD_TOLD)
		realloc_returned(&hit, probe, call, address);
	if (!(call->flags & CALL_SAMPLED))
		return 0;
	if (address)
		tell_alloc(ctx, &hit, probe, address, call->size_bytes,
			   is_realloc(probe) && call->argument ? MW_BLOCK_MOVED : 0);
	else
		COUNT(&hit, failed_total);
	return 0;
}

static __always_inline void tell_free(struct hit *hit, struct probe probe, uint64_t address)
{
	struct mw_block_event event = {
	    .address = address,
	    .domain = probe.domain,
	    .kind = MW_BLOCK_FREE,
	    .flags = hit->target->interval_bytes ? 0 : MW_BLOCK_EXACT,
	};
	struct block_key key = {.address = address, .pid = hit->pid};
	bool is_set = hit->target->interval_bytes;

	if (!address || !(hit->target->flags & MW_TARGET_FREES) ||
	    (is_set && !bpf_map_lookup_elem(MAP(sampled_blocks), &key))) {
		COUNT(hit, unwatched_frees_total);
		return;
	}
	if (!tell_block(hit, &event)) {
		/* Kept in the set: the next free of this address tells it. */
		COUNT(hit, dropped_frees_total);
		return;
	}
	COUNT(hit, frees_total);
	if (is_set)
		bpf_map_delete_elem(MAP(sampled_blocks), &key);
}

static __always_inline int free_entered(struct pt_regs *ctx)
{
	struct probe probe = probe_here(ctx);
	struct hit hit;

	if (!hit_begin(&hit) || is_stopped(&hit))
		return 0;
	COUNT(&hit, hits_total);
	if (hit.target->flags & MW_TARGET_LAYERED) {
		uint64_t stack_pointer = PT_REGS_SP(ctx) + probe.pushed_words * sizeof(uint64_t);
		/* Not marked where the stack cannot tell when this call is over. */
		bool marks = probe.layer && HAS_RETURN_SLOT;
		struct call *call = marks ? thread_call(&hit) : known_call(&hit);

		if (is_inside(&hit, probe, call, stack_pointer))
			return 0;
		if (marks && call)
			call_begin(call, probe.layer, stack_pointer, 0);
	}
	tell_free(&hit, probe, argument1(ctx, probe));
	return 0;
}

#ifndef MW_BCC
SEC("uprobe.session")
int block_session(struct pt_regs *ctx)
{
	if (bpf_session_is_return())
		return block_returned(ctx, ATTACH_SESSION);
	return block_entered(ctx, ATTACH_SESSION);
}
#endif

SEC("uprobe.multi")
int block_enter_multi(struct pt_regs *ctx)
{
	block_entered(ctx, ATTACH_PAIR);
	return 0;
}

SEC("uprobe.multi")
int block_return_multi(struct pt_regs *ctx)
{
	return block_returned(ctx, ATTACH_PAIR);
}

SEC("uprobe.multi")
int free_enter_multi(struct pt_regs *ctx)
{
	return free_entered(ctx);
}

SEC("uprobe")
int block_enter(struct pt_regs *ctx)
{
	block_entered(ctx, ATTACH_PAIR);
	return 0;
}

SEC("uprobe")
int block_return(struct pt_regs *ctx)
{
	return block_returned(ctx, ATTACH_PAIR);
}

SEC("uprobe")
int free_enter(struct pt_regs *ctx)
{
	return free_entered(ctx);
}

STORE_TRACE_ABI;
LICENSE_GPL;
