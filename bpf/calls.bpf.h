/* calls.bpf.h - allocator calls in progress, one per thread: what its entry saw,
 * kept for its return, and whether a call happens inside another one.
 *
 * A call is known by the stack pointer at its entry.  Calls that never return
 * (an exception or longjmp goes through them) and calls whose return nobody
 * looks at leave their mark behind, so a mark counts only while it can be alive:
 * the newer call is deeper in the stack, belongs to a lower layer, and the word
 * where the marked call's return address was is still the same.
 *
 * Must not know what becomes of a block. */

#ifndef MW_CALLS_BPF_H
#define MW_CALLS_BPF_H

#include "trace.bpf.h"

enum {
	/* The least recently used threads are forgotten past this; a call of theirs
	 * in progress is then counted as untracked when it returns. */
	CALL_THREADS = 16384,
	/* Between an outer call and the nested one lie a few small frames.  The mark
	 * of an unwatched call further up is more likely a left-over. */
	UNWATCHED_DEPTH_BYTES = 2048,
};

/* On x86-64 the return address is on the stack and can be compared; on arm64 it
 * is in a register, so there every return must be watched where layers matter. */
#if defined(__TARGET_ARCH_arm64)
enum { HAS_RETURN_SLOT = 0 };
#else
enum { HAS_RETURN_SLOT = 1 };
#endif

struct call {
	uint64_t stack_pointer; /* at the entry; 0: no call */
	uint64_t return_slot;	/* the word there while the call runs, as last seen; 0: not seen */
	uint64_t trampoline;	/* what the kernel puts there when it watches the return; 0: not learned yet */
	uint64_t time_ns;	/* of the entry, of a realloc */
	uint64_t argument;	/* the block of a realloc, or where posix_memalign puts the address */
	uint64_t size_bytes;
	uint32_t pid; /* a thread id may come again in another process */
	uint8_t call; /* of the cookie: a nested tail call may return in its place */
	uint8_t domain;
	uint8_t layer;
	uint8_t flags; /* enum call_flag */
};

enum call_flag {
	CALL_WATCHED = 1,    /* its return will be seen */
	CALL_SAMPLED = 2,    /* the block is to be told */
	CALL_OLD_TOLD = 4,   /* realloc: the old block's free is to be told */
	CALL_OLD_IN_SET = 8, /* and it was taken out of sampled_blocks */
};

MAP_HASH(calls, BPF_MAP_TYPE_LRU_HASH, uint32_t, struct call, CALL_THREADS);

/* The current thread's, or NULL if it never made a call that had to be kept. */
static __always_inline struct call *known_call(struct hit *hit)
{
	struct call *call = bpf_map_lookup_elem(MAP(calls), &hit->tid);

	if (call && call->pid != hit->pid) {
		call->pid = hit->pid;
		call->stack_pointer = 0;
		call->trampoline = 0;
	}
	return call;
}

/* The same, made if need be; NULL: no memory. */
static __always_inline struct call *thread_call(struct hit *hit)
{
	struct call *call = known_call(hit);
	struct call none = {.pid = hit->pid};

	if (call)
		return call;
	bpf_map_update_elem(MAP(calls), &hit->tid, &none, BPF_ANY);
	return bpf_map_lookup_elem(MAP(calls), &hit->tid);
}

static __always_inline uint64_t stack_word(uint64_t stack_pointer)
{
	uint64_t word;

	return bpf_probe_read_user(&word, sizeof(word), (void *)stack_pointer) ? 0 : word;
}

/* Is a call of layer at stack_pointer part of the marked one?  At the same stack
 * pointer, too: PyMem_RawMalloc ends with a jump to malloc. */
static __always_inline bool is_nested(struct call *call, uint32_t layer, uint64_t stack_pointer)
{
	uint64_t depth = call->stack_pointer - stack_pointer;
	bool watched = call->flags & CALL_WATCHED;
	uint64_t word;

	if (!call->stack_pointer || layer >= call->layer || stack_pointer > call->stack_pointer)
		return false;
	if (!watched && depth > UNWATCHED_DEPTH_BYTES)
		return false;
	if (!HAS_RETURN_SLOT)
		return true;
	word = stack_word(call->stack_pointer);
	if (watched && call->trampoline)
		return word == call->trampoline;
	if (watched && !call->return_slot) {
		call->return_slot = word; /* confirmed as the trampoline if this call's return comes */
		return true;
	}
	/* The return may be watched though not by us: where another process with a
	 * window of its own shares the library, the kernel (6.18) takes a session's
	 * filter by process for a wish to see the return. */
	return word == call->return_slot || (call->trampoline && word == call->trampoline);
}

/* Forget the marked call, which is over: it returned unwatched, or never will. */
static __always_inline void call_forget(struct hit *hit, struct call *call)
{
	uint32_t lost = CALL_WATCHED | CALL_SAMPLED;

	if (!call->stack_pointer)
		return;
	if ((call->flags & lost) == lost)
		COUNT(hit, abandoned_total);
	call->stack_pointer = 0;
}

/* Mark a call as the thread's outermost; the one before is forgotten. */
static __always_inline void call_begin(struct call *call, uint32_t layer, uint64_t stack_pointer, uint32_t flags)
{
	call->stack_pointer = stack_pointer;
	call->return_slot = HAS_RETURN_SLOT && !(flags & CALL_WATCHED) ? stack_word(stack_pointer) : 0;
	call->layer = layer;
	call->flags = flags;
}

/* Is this the return of the marked call?  If so the mark is gone. */
static __always_inline bool call_end(struct call *call, uint64_t stack_pointer)
{
	uint64_t popped = HAS_RETURN_SLOT ? sizeof(uint64_t) : 0;

	if (!call->stack_pointer || stack_pointer - popped != call->stack_pointer)
		return false;
	if (!call->trampoline)
		call->trampoline = call->return_slot;
	call->stack_pointer = 0;
	return true;
}

#endif
