/* pyframes.bpf.h - the Python stack of the current thread, read from outside
 * the interpreter.
 *
 * No thread-local storage is read.  Who holds the GIL is one word of the
 * interpreter; the holder is us if its thread_id is our thread pointer
 * (pthread_self() is the thread pointer in glibc and musl).  Threads without
 * the GIL are looked up in what user space introduced.  Offsets are data
 * (struct mw_python): versions of CPython are not known here. */

#ifndef MW_PYFRAMES_BPF_H
#define MW_PYFRAMES_BPF_H

#include "frames.bpf.h"
#include "task.bpf.h"

enum {
	PYTHON_THREADS = 16384,	  /* least recently used ones are asked for again */
	TARGET_PAGE_BYTES = 4096, /* larger pages only make the window smaller than it could be */
	PYTHON_STEPS_MAX = 256,	  /* frames looked at, shims among them */
	THREAD_EVENT_NS = 1000000000,
};

MAP_HASH(pythons, BPF_MAP_TYPE_HASH, uint32_t, struct mw_python, MW_TARGETS_MAX);
MAP_HASH(python_threads, BPF_MAP_TYPE_LRU_HASH, struct mw_python_thread, uint64_t, PYTHON_THREADS);
/* When user space was last asked for a process's threads. */
MAP_HASH(python_asked, BPF_MAP_TYPE_LRU_HASH, uint32_t, uint64_t, MW_TARGETS_MAX);

static __always_inline uint64_t read_word(uint64_t address)
{
	uint64_t word;

	return bpf_probe_read_user(&word, sizeof(word), (void *)address) ? 0 : word;
}

static __always_inline void ask_for_threads(struct hit *hit, uint64_t pointer)
{
	uint64_t now = bpf_ktime_get_ns();
	uint64_t *asked = bpf_map_lookup_elem(MAP(python_asked), &hit->pid);
	struct mw_thread_event event = {};

	if (asked && now - *asked < THREAD_EVENT_NS)
		return;
	event.record = MW_RECORD_THREAD;
	event.pid = hit->pid;
	event.tid = hit->tid;
	event.time_ns = now;
	event.thread_pointer = pointer;
	/* If it does not fit, the next one asks. */
	if (!bpf_ringbuf_output(MAP(trace_events), &event, sizeof(event), BPF_RB_FORCE_WAKEUP))
		bpf_map_update_elem(MAP(python_asked), &hit->pid, &now, BPF_ANY);
}

/* The current thread's PyThreadState, or 0. */
static __always_inline uint64_t find_thread(struct hit *hit, const struct mw_python *python)
{
	struct mw_python_thread key = {.thread_pointer = task_thread_pointer(), .pid = hit->pid};
	uint64_t thread = read_word(python->gil_holder_address);
	uint64_t *known;

	if (thread && read_word(thread + python->thread_id) == key.thread_pointer)
		return thread;
	known = bpf_map_lookup_elem(MAP(python_threads), &key);
	if (known) {
		thread = *known;
		if (read_word(thread + python->thread_id) == key.thread_pointer)
			return thread;
		bpf_map_delete_elem(MAP(python_threads), &key);
	}
	ask_for_threads(hit, key.thread_pointer);
	return 0;
}

struct walk {
	struct scratch *scratch;
	const struct mw_python *python;
	uint64_t frame; /* the next one; 0: the walk came to the root */
	uint64_t hash;
	uint64_t window_address;
	uint64_t window_bytes;
	uint32_t frames;
	uint32_t unreadable;
};

/* Frames lie close together, in chunks of the interpreter's own stack (3.11 and
 * later), so one read fetches the page from its start to the end of the frame
 * wanted, and the walk goes on inside it.  Never below the page: a fault in the
 * middle of a read costs a microsecond.
 *
 * Return the frame's place in the window, or -1. */
static __always_inline long window_place(struct walk *walk)
{
	uint64_t place = walk->frame - walk->window_address;

	if (walk->window_address && place < TARGET_PAGE_BYTES && place + MW_FRAME_BYTES <= walk->window_bytes)
		return (long)place;
	place = walk->frame & (TARGET_PAGE_BYTES - 1);
	walk->window_address = walk->frame - place;
	walk->window_bytes = (place + MW_FRAME_BYTES) & (WINDOW_BYTES - 1);
	if (bpf_probe_read_user(walk->scratch->window, walk->window_bytes, (void *)walk->window_address)) {
		walk->window_address = 0;
		return -1;
	}
	return (long)place;
}

/* One frame; return 1 at the end of the walk. */
static __always_inline long take_frame(struct walk *walk)
{
	const struct mw_python *python = walk->python;
	uint8_t *frame = walk->scratch->window;
	uint64_t code, instruction, previous;
	uint64_t word; /* as in tell_stack() */
	long place;

	if (!walk->frame || walk->frames >= MW_FRAMES_MAX)
		return 1;
	place = window_place(walk);
	if (place < 0) {
		walk->unreadable = 1;
		return 1;
	}
	/* The masks say to the verifier what user space has checked. */
	frame += place & (TARGET_PAGE_BYTES - 1);
	code = *(uint64_t *)(frame + (python->frame_code & 127)) & ~7ull;
	previous = *(uint64_t *)(frame + (python->frame_previous & 127));
	instruction = *(uint64_t *)(frame + (python->frame_instruction & 127));
	if (python->instruction_bytes == 4)
		instruction = (uint32_t)instruction;
	walk->frame = previous;
	if (python->owner_end && frame[python->frame_owner & 127] >= python->owner_end)
		return 0;
	word = (uint64_t)walk->frames * 2;
	if (word > MW_STACK_WORDS - 2)
		return 1;
	walk->scratch->stack.words[word] = code;
	walk->scratch->stack.words[word + 1] = instruction;
	walk->hash = hash_word(hash_word(walk->hash, code), instruction);
	walk->frames++;
	return 0;
}

#ifndef MW_BCC
static long walk_frame(__u64 step, void *context)
{
	(void)step;
	return take_frame(context);
}
#else
/* bcc's functions have one argument; the loader makes it the second.  And bcc
 * would read whatever it points to by a helper, if it could see where it comes from. */
int walk_frame(void *context)
{
	struct walk *walk;

	asm("" : "=r"(walk) : "0"(context));
	return take_frame(walk);
}
#endif

/* 0 if the current thread runs no Python that can be read; counted which. */
static __always_inline uint64_t python_stack(struct hit *hit, struct scratch *scratch)
{
	const struct mw_python *python = bpf_map_lookup_elem(MAP(pythons), &hit->pid);
	struct walk walk = {};
	uint64_t thread;

	if (!python)
		return 0;
	thread = find_thread(hit, python);
	if (!thread) {
		COUNT(hit, threadless_total);
		return 0;
	}
	walk.scratch = scratch;
	walk.python = python;
	walk.hash = hash_begin(hit, MW_STACK_PYTHON);
	walk.frame = read_word(thread + python->thread_frame);
	if (python->cframe_frame >= 0 && walk.frame)
		walk.frame = read_word(walk.frame + python->cframe_frame);
	/* A plain bounded loop of this size is refused by the verifier. */
	bpf_loop(PYTHON_STEPS_MAX, CALLBACK(walk_frame), &walk, 0);
	if (walk.unreadable)
		COUNT(hit, unreadable_total);
	if (!walk.frames)
		return 0;
	return tell_stack(hit, scratch, walk.hash, MW_STACK_PYTHON, walk.frames, (uint64_t)walk.frames * 2,
			  walk.frame != 0);
}

/* Both stacks of the current thread, as far as the target wants them. */
static __always_inline void read_stacks(void *ctx, enum stack_at at, struct hit *hit, struct mw_block_event *event)
{
	uint32_t wanted = hit->target->flags & (MW_TARGET_NATIVE_STACKS | MW_TARGET_PYTHON_STACKS);
	struct scratch *scratch;

	if (!wanted)
		return;
	scratch = scratch_enter();
	if (!scratch) {
		COUNT(hit, scratchless_total);
		return;
	}
	if (wanted & MW_TARGET_NATIVE_STACKS)
		event->native_stack =
		    at == AT_PROBE ? probed_stack(ctx, hit, scratch) : native_stack(ctx, hit, scratch);
	if (wanted & MW_TARGET_PYTHON_STACKS)
		event->python_stack = python_stack(hit, scratch);
	scratch_leave(scratch);
}

#endif
