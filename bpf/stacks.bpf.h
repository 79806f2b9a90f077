/* stacks.bpf.h - stacks by name: a hash in each event, the frames only once.
 *
 * Must not know what a frame is; the walkers fill struct scratch's stack. */

#ifndef MW_STACKS_BPF_H
#define MW_STACKS_BPF_H

#include "trace.bpf.h"

enum {
	/* Of the same order as the sites of a large program.  What falls out is
	 * sent again, which costs time and nothing else. */
	STACKS_SEEN = 16384,
};

MAP_HASH(stacks_seen, BPF_MAP_TYPE_LRU_HASH, uint64_t, uint32_t, STACKS_SEEN);

/* Two odd constants with well mixed bits: Knuth's multiplier and one of xxHash's. */
static __always_inline uint64_t hash_word(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
	return (hash << 29 | hash >> 35) * 0xC2B2AE3D27D4EB4Full;
}

static __always_inline uint64_t hash_begin(struct hit *hit, uint32_t kind)
{
	return hash_word(kind, hit->pid);
}

/* Send scratch's first words unless user space has this stack already.  Return
 * its name, even if the ring was full: it will be sent when it comes again.
 * (words has 64 bits because bcc's compiler makes 32 of shifts, which hide from
 * the verifier that it was checked.) */
static __always_inline uint64_t tell_stack(struct hit *hit, struct scratch *scratch, uint64_t hash, uint32_t kind,
					   uint32_t frames, uint64_t words, bool truncated)
{
	uint32_t one = 1;

	hash ^= hash >> 32;
	hash |= 1; /* never 0 */
	if (bpf_map_lookup_elem(MAP(stacks_seen), &hash))
		return hash;
	if (words > MW_STACK_WORDS)
		return 0;
	scratch->stack.record = MW_RECORD_STACK;
	scratch->stack.pid = hit->pid;
	scratch->stack.stack = hash;
	scratch->stack.time_ns = bpf_ktime_get_ns();
	scratch->stack.kind = kind;
	scratch->stack.frame_count = frames;
	scratch->stack.truncated = truncated;
	if (bpf_ringbuf_output(MAP(trace_events), &scratch->stack,
			       __builtin_offsetof(struct mw_stack_event, words) + words * sizeof(uint64_t),
			       ring_wake_flags())) {
		COUNT(hit, dropped_stacks_total);
		return hash;
	}
	COUNT(hit, stacks_total);
	bpf_map_update_elem(MAP(stacks_seen), &hash, &one, BPF_ANY);
	return hash;
}

/* The user stack by frame pointers, leaf first; 0 if the kernel gives none.
 * At a function's return the leaf is its caller. */
static __always_inline uint64_t native_stack(void *ctx, struct hit *hit, struct scratch *scratch)
{
	long bytes = bpf_get_stack(ctx, scratch->stack.words, MW_FRAMES_MAX * sizeof(uint64_t), BPF_F_USER_STACK);
	uint64_t hash = hash_begin(hit, MW_STACK_NATIVE);
	uint64_t frames;

	if (bytes <= 0) {
		COUNT(hit, stackless_total);
		return 0;
	}
	frames = (uint64_t)bytes / sizeof(uint64_t);
#pragma clang loop unroll(disable)
	for (uint32_t i = 0; i < MW_FRAMES_MAX; i++) {
		if (i >= frames)
			break;
		hash = hash_word(hash, scratch->stack.words[i]);
	}
	return tell_stack(hit, scratch, hash, MW_STACK_NATIVE, frames, frames, frames == MW_FRAMES_MAX);
}

#endif
