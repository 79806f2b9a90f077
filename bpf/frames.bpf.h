/* frames.bpf.h - the native stack at a probe, climbed by frame pointers.
 *
 * The kernel's own walker (bpf_get_stack) costs 290 ns here where a program's
 * last frame keeps no frame pointer, as libc's start has none: it reads whatever
 * the register holds, and a read that faults is dear.  Ours goes only where the
 * next frame can be: upwards, aligned, and not far.  At a tracepoint, where no
 * probe's registers are at hand, the kernel's walker is still the one. */

#ifndef MW_FRAMES_BPF_H
#define MW_FRAMES_BPF_H

#include "stacks.bpf.h"

enum {
	FRAME_BYTES_MAX = 1 << 20, /* the climb ends at a larger one */
};

/* What a program was called for. */
enum stack_at {
	AT_TRACEPOINT,
	AT_PROBE,
};

struct climb {
	struct scratch *scratch;
	uint64_t code;	/* of the frame to be taken now */
	uint64_t frame; /* where its caller's frame pointer and code are saved */
	uint64_t below; /* no frame lies below */
	uint64_t hash;
};

/* One frame; return 1 at the end of the climb. */
static __always_inline long take_native_frame(struct climb *climb)
{
	uint64_t frame = climb->frame;
	/* Counted in the scratch: a number that the verifier could follow would be
	 * another state at every frame, too many for it.  64 bits: as in tell_stack(). */
	uint64_t word = climb->scratch->stack.frame_count;
	uint64_t saved[2];

	if (word >= MW_FRAMES_MAX)
		return 1;
	climb->scratch->stack.words[word] = climb->code;
	climb->hash = hash_word(climb->hash, climb->code);
	climb->scratch->stack.frame_count = word + 1;
	if (frame - climb->below >= FRAME_BYTES_MAX || frame % sizeof(uint64_t))
		return 1;
	if (bpf_probe_read_user(saved, sizeof(saved), (void *)frame) || !saved[1])
		return 1;
	climb->below = frame + sizeof(saved);
	climb->frame = saved[0];
	climb->code = saved[1];
	return 0;
}

#ifndef MW_BCC
static long climb_frame(__u64 step, void *context)
{
	(void)step;
	return take_native_frame(context);
}
#else
/* As walk_frame() in pyframes.bpf.h. */
int climb_frame(void *context)
{
	struct climb *climb;

	asm("" : "=r"(climb) : "0"(context));
	return take_native_frame(climb);
}
#endif

/* Leaf first; at a function's return the leaf is its caller. */
static __always_inline uint64_t probed_stack(struct pt_regs *ctx, struct hit *hit, struct scratch *scratch)
{
	struct climb climb = {
	    .scratch = scratch,
	    .code = PT_REGS_IP(ctx),
	    .frame = PT_REGS_FP(ctx),
	    .below = PT_REGS_SP(ctx),
	    .hash = hash_begin(hit, MW_STACK_NATIVE),
	};

	uint64_t frames;

	scratch->stack.frame_count = 0;
	bpf_loop(MW_FRAMES_MAX, CALLBACK(climb_frame), &climb, 0);
	frames = scratch->stack.frame_count;
	return tell_stack(hit, scratch, climb.hash, MW_STACK_NATIVE, frames, frames, frames >= MW_FRAMES_MAX);
}

#endif
