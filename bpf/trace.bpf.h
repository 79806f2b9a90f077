/* trace.bpf.h - what the tracing units share: who is traced, how he is counted,
 * and the way of a record into the ring.
 *
 * Each unit that includes this gets its own maps of these names.  Must not know
 * why an event is sent. */

#ifndef MW_TRACE_BPF_H
#define MW_TRACE_BPF_H

#include "compat.h"
#ifndef MW_BCC
#include <bpf/bpf_tracing.h>
#endif
#include "trace_events.h"

enum {
	/* Unless the loader makes it as large as the host needs: 256 KiB per CPU. */
	TRACE_RING_BYTES = 1 << 20,

	/* Readers are woken when a quarter of what one CPU adds to the ring lies in
	 * it (910 block events); below, their clock must do.  A stretch wide enough
	 * that a record cannot jump over it. */
	WAKE_FROM_BYTES = (256 << 10) / 4,
	WAKE_TO_BYTES = WAKE_FROM_BYTES + 4096,

	SCRATCHES = 3,
	WINDOW_BYTES = 8192,
};

/* Room for a stack: a program's own has 512 bytes.  Per CPU, and more than one,
 * because on a preemptible kernel another thread's program may run on this CPU
 * before ours is done. */
struct scratch {
	uint64_t taken;
	struct mw_stack_event stack;
	uint8_t window[WINDOW_BYTES]; /* a page of the target and the frame that ends behind it */
};

MAP_RING(trace_events, TRACE_RING_BYTES);
MAP_HASH(targets, BPF_MAP_TYPE_HASH, uint32_t, struct mw_target, MW_TARGETS_MAX);
MAP_ARRAY(target_counts, BPF_MAP_TYPE_PERCPU_ARRAY, struct mw_target_counts, MW_TARGETS_MAX);
MAP_ARRAY(scratches, BPF_MAP_TYPE_PERCPU_ARRAY, struct scratch, SCRATCHES);

/* One run of a program for one target. */
struct hit {
	const struct mw_target *target;
	struct mw_target_counts *counts;
	uint32_t pid;
	uint32_t tid;
};

/* Atomic though per CPU: see struct scratch; and the sums must come out even. */
#define COUNT(hit, name) ((void)__sync_fetch_and_add(&(hit)->counts->name, 1))

/* Is the current process traced?  Fills in hit if so. */
static __always_inline bool hit_begin(struct hit *hit)
{
	uint64_t pid_tid = bpf_get_current_pid_tgid();

	hit->pid = pid_tid >> 32;
	hit->tid = (uint32_t)pid_tid;
	hit->target = bpf_map_lookup_elem(MAP(targets), &hit->pid);
	if (!hit->target)
		return false;
	uint32_t slot = hit->target->slot;

	hit->counts = bpf_map_lookup_elem(MAP(target_counts), &slot);
	return hit->counts;
}

static __always_inline bool is_stopped(struct hit *hit)
{
	if (!(hit->target->flags & MW_TARGET_STOPPED))
		return false;
	COUNT(hit, stopped_hits_total);
	return true;
}

/* NULL if all are taken; give it back with scratch_leave(). */
static __always_inline struct scratch *scratch_enter(void)
{
	for (uint32_t i = 0; i < SCRATCHES; i++) {
		uint32_t key = i;
		struct scratch *scratch = bpf_map_lookup_elem(MAP(scratches), &key);

		if (scratch && !__sync_lock_test_and_set(&scratch->taken, 1))
			return scratch;
	}
	return 0;
}

static __always_inline void scratch_leave(struct scratch *scratch)
{
	__sync_lock_test_and_set(&scratch->taken, 0);
}

static __always_inline uint64_t ring_wake_flags(void)
{
	uint64_t waiting = bpf_ringbuf_query(MAP(trace_events), BPF_RB_AVAIL_DATA);

	return waiting >= WAKE_FROM_BYTES && waiting < WAKE_TO_BYTES ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Fill in who and when of a block event, and send it.  False: the ring is full. */
static __always_inline bool tell_block(struct hit *hit, struct mw_block_event *event)
{
	event->record = MW_RECORD_BLOCK;
	event->pid = hit->pid;
	event->tid = hit->tid;
	if (!event->time_ns)
		event->time_ns = bpf_ktime_get_ns();
	return !bpf_ringbuf_output(MAP(trace_events), event, sizeof(*event), ring_wake_flags());
}

#endif
