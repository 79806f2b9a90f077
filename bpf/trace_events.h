/* trace_events.h - what allocation probes and growth sampling tell the user
 * side, and what they are told: the second half of events.h, same rules.
 *
 * Read by clang (alloc, maps and growth.bpf.c), the C compiler and cffi.  Longer
 * than a header should be, because what is told, what is set and what is counted
 * must agree and change together.  The placement of probes and the meaning of
 * sites are not its business.  Change a struct, raise MW_TRACE_ABI, fix the sizes
 * below. */

#ifndef MW_TRACE_EVENTS_H
#define MW_TRACE_EVENTS_H

#include "events.h"

enum {
	MW_TRACE_ABI = 1,
	MW_FRAMES_MAX = 127,   /* per stack and kind; what is deeper is cut at the root's end */
	MW_STACK_WORDS = 254,  /* room for MW_FRAMES_MAX Python frames of two words */
	MW_TARGETS_MAX = 1024, /* processes traced at once */
	MW_FRAME_BYTES = 112,  /* of an interpreter frame that the walker looks at: every offset lies below */
};

/* First field of every ring record. */
enum mw_record {
	MW_RECORD_BLOCK = 1,  /* struct mw_block_event */
	MW_RECORD_STACK = 2,  /* struct mw_stack_event, cut after its last word */
	MW_RECORD_THREAD = 3, /* struct mw_thread_event */
};

/* Who asked for a block.  Nested calls (PyObject_Malloc -> PyMem_RawMalloc ->
 * malloc) are charged once, to the outermost. */
enum mw_domain {
	MW_DOMAIN_NATIVE = 1, /* libc or another allocator library, called directly */
	MW_DOMAIN_PY_RAW = 2,
	MW_DOMAIN_PY_MEM = 3,
	MW_DOMAIN_PY_OBJECT = 4,
	MW_DOMAIN_MAP = 5, /* mmap, munmap, mremap, brk by system call */
};

enum mw_block_kind {
	MW_BLOCK_ALLOC = 1, /* a block became live at address */
	MW_BLOCK_FREE = 2,  /* the block at address is live no more */
	MW_BLOCK_MAP = 3,   /* [address, address + size_bytes) was mapped */
	MW_BLOCK_UNMAP = 4, /* [address, address + size_bytes) is mapped no more, perhaps a part of a mapping */
	MW_BLOCK_GROWTH =
	    5, /* growth sampling: size_bytes became resident (or, MW_BLOCK_MAPPED, were mapped) at address */
};

enum mw_block_flag {
	MW_BLOCK_EXACT = 1,   /* not sampled: weight_bytes is size_bytes */
	MW_BLOCK_MOVED = 2,   /* one half of a realloc or mremap */
	MW_BLOCK_HEAP = 4,    /* by brk, not by mmap */
	MW_BLOCK_FILE = 8,    /* backed by a file */
	MW_BLOCK_SHARED = 16, /* MAP_SHARED */
	MW_BLOCK_MAPPED = 32, /* of MW_BLOCK_GROWTH: an mmap, not a page fault */
};

/* One allocator event that was sampled, or, in exact mode, any.
 *
 * Order: an ALLOC or MAP is sent before its address can be known to anyone, a
 * FREE before its address can be given out again, so ring order is right, with
 * one exception.  A realloc, munmap or mremap is known to have succeeded only
 * when it returns; its FREE or UNMAP then carries the time of its *entry*, and
 * another thread's ALLOC of the same address may be in front of it.  So: a FREE
 * or UNMAP older (time_ns) than the live block it names means the block before
 * that one, and changes nothing. */
struct mw_block_event {
	uint32_t record; /* MW_RECORD_BLOCK */
	uint32_t pid;
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t address;
	uint64_t size_bytes;   /* as asked for; 0 for MW_BLOCK_FREE */
	uint64_t weight_bytes; /* what it stands for: sums are unbiased; it is weight / max(size, 1) blocks */
	uint64_t native_stack; /* names a mw_stack_event, 0: none */
	uint64_t python_stack; /* the same; 0: none (no interpreter, no Python thread, or not readable) */
	uint32_t tid;
	uint16_t domain; /* enum mw_domain */
	uint8_t kind;	 /* enum mw_block_kind */
	uint8_t flags;	 /* enum mw_block_flag */
};

enum mw_stack_kind {
	MW_STACK_NATIVE = 1, /* a word per frame: return addresses, the leaf is where the allocator returns to */
	MW_STACK_PYTHON =
	    2, /* two words per frame: code object (low 3 bits cleared), raw instruction pointer or index */
};

/* A stack, leaf first, sent before the first event that names it, and again
 * when the kernel side forgot that it did. */
struct mw_stack_event {
	uint32_t record; /* MW_RECORD_STACK */
	uint32_t pid;
	uint64_t stack; /* a 64-bit hash over the process, the kind and the words; never 0 */
	uint64_t time_ns;
	uint16_t kind; /* enum mw_stack_kind */
	uint16_t frame_count;
	uint32_t truncated;  /* 1: deeper than MW_FRAMES_MAX, or a frame was not readable: the root is missing */
	uint64_t words[254]; /* MW_STACK_WORDS; sent only as far as frame_count says */
};

/* A Python thread that runs without the GIL and that nobody introduced: read
 * the thread list again and fill python_threads.  Sent at most once a second. */
struct mw_thread_event {
	uint32_t record; /* MW_RECORD_THREAD */
	uint32_t pid;
	uint64_t time_ns;
	uint64_t thread_pointer; /* fsbase on x86-64: what pthread_self() says */
	uint32_t tid;
	uint32_t reserved;
};

/* ---- what user space tells the programs ---- */

/* How the arguments of a probed function are to be understood. */
enum mw_call {
	MW_CALL_MALLOC = 1,	    /* (size): also valloc, pvalloc, operator new, Py*_Malloc */
	MW_CALL_CALLOC = 2,	    /* (count, size) */
	MW_CALL_REALLOC = 3,	    /* (block, size) */
	MW_CALL_REALLOCARRAY = 4,   /* (block, count, size) */
	MW_CALL_ALIGNED = 5,	    /* (alignment, size): aligned_alloc, memalign */
	MW_CALL_POSIX_MEMALIGN = 6, /* (where the address goes, alignment, size) */
	MW_CALL_FREE = 7,	    /* (block): also operator delete, Py*_Free */
};

/* The attach cookie of an allocator probe is built from shifts:
 *   call | domain << 8 | layer << 16 | argument_shift << 24 | pushed_words << 32
 * layer: nested calls go from a higher layer to a lower one only; an equal or
 *   higher layer is never nested. malloc and free 0; calloc, realloc, memalign 1
 *   (glibc's realloc(p, 0) calls free); reallocarray, aligned_alloc,
 *   posix_memalign, valloc, pvalloc 2; operator new, delete 3; new[], delete[]
 *   4; PyMem_Raw 5; what PyMem_ and PyObject_ forward to 6; PyMem 7; PyObject 8.
 * argument_shift: 1 where the probe sits after the arguments were moved one
 *   register up (PyObject_Malloc+3: size is in the second one).
 * pushed_words: words pushed between function entry and the probe. Must be 0
 *   wherever the return is probed too: the kernel takes the word at the stack
 *   pointer for the return address. */
enum mw_cookie_shift {
	MW_COOKIE_CALL = 0,
	MW_COOKIE_DOMAIN = 8,
	MW_COOKIE_LAYER = 16,
	MW_COOKIE_ARGUMENT_SHIFT = 24,
	MW_COOKIE_PUSHED_WORDS = 32,
};

enum mw_target_flag {
	MW_TARGET_STOPPED = 1, /* emergency: every program returns at once */
	MW_TARGET_FREES = 2,   /* tell frees (of sampled blocks; of all in exact mode) */
	MW_TARGET_LAYERED = 4, /* probes sit in more than one layer: look for nested calls */
	MW_TARGET_NATIVE_STACKS = 8,
	MW_TARGET_PYTHON_STACKS = 16,
	MW_TARGET_MAPS = 32,  /* tell mmap, munmap, mremap, brk */
	MW_TARGET_QUIET = 64, /* no new blocks; frees of those that were told are still told */
};

/* One traced process: map `targets`, key pid. */
struct mw_target {
	uint64_t interval_bytes;  /* mean distance of samples, below 2^38; 0: every block */
	uint32_t interval_faults; /* growth sampling: one of so many page faults; 0: none */
	uint32_t interval_maps;	  /* growth sampling: one of so many mmaps; 0: none */
	uint32_t slot;		  /* of map `target_counts`: below MW_TARGETS_MAX, its own */
	uint32_t flags;		  /* enum mw_target_flag */
};

/* Where a CPython process keeps its stacks: map `pythons`, key pid. */
struct mw_python {
	uint64_t gil_holder_address; /* of a PyThreadState *: who holds, or held last, the main interpreter's GIL */
	uint16_t thread_id;	     /* offsets: in PyThreadState */
	uint16_t thread_frame;	     /* in PyThreadState: frame, cframe or current_frame */
	int16_t cframe_frame;	     /* in _PyCFrame; -1: thread_frame is the frame itself */
	uint16_t frame_previous;     /* in the frame; all below MW_FRAME_BYTES */
	uint16_t frame_code;
	uint16_t frame_instruction;
	uint16_t frame_owner;
	uint8_t instruction_bytes; /* 4: f_lasti, 8: a pointer */
	uint8_t owner_end;	   /* frames whose owner is not below are shims without code; 0: there is no owner */
};

/* A thread of a CPython process: key of map `python_threads`, whose value is
 * the address of its PyThreadState (uint64_t). */
struct mw_python_thread {
	uint64_t thread_pointer; /* = tstate->thread_id */
	uint32_t pid;
	uint32_t reserved;
};

/* ---- what is counted, per target and CPU: map `target_counts`, key slot ----
 *
 * Every probed call ends in exactly one of these:
 *   hits = nested + unsampled + failed + blocks + dropped_blocks + untracked
 *        + abandoned + frees + dropped_frees + unwatched_frees + still running */
struct mw_target_counts {
	uint64_t hits_total;		/* entries of probed functions */
	uint64_t returns_total;		/* returns of probed functions: hits, too, that cost */
	uint64_t stopped_hits_total;	/* hits that returned at once: MW_TARGET_STOPPED; not in hits_total */
	uint64_t nested_total;		/* inside a call that is charged already */
	uint64_t unsampled_total;	/* blocks that were asked for and not sampled */
	uint64_t failed_total;		/* the allocator gave no block (realloc(p, 0) may give none) */
	uint64_t blocks_total;		/* ALLOC events sent */
	uint64_t dropped_blocks_total;	/* not sent: ring full */
	uint64_t untracked_total;	/* not sent: a table was full, or its entry was lost */
	uint64_t abandoned_total;	/* calls that never returned: an exception or longjmp went through them */
	uint64_t frees_total;		/* FREE events sent for calls of free (not for realloc) */
	uint64_t dropped_frees_total;	/* not sent: ring full */
	uint64_t unwatched_frees_total; /* of blocks that were not sampled, or while frees were not wanted */
	uint64_t moved_frees_total;	/* FREE events sent by realloc: beside the call's own outcome */
	uint64_t dropped_moves_total;	/* not sent: ring full */
	uint64_t unset_samples_total;	/* ALLOC sent, but sampled_blocks was full: its free will not be seen */
	uint64_t maps_total;		/* MAP and UNMAP events sent */
	uint64_t dropped_maps_total;
	uint64_t faults_total;	/* growth: page faults seen */
	uint64_t growths_total; /* growth: events sent */
	uint64_t dropped_growths_total;
	uint64_t stacks_total;	       /* stacks sent whole */
	uint64_t dropped_stacks_total; /* ring full: their events name a stack that comes later, or never */
	uint64_t stackless_total;      /* events without a native stack though wanted */
	uint64_t threadless_total;     /* events without a Python stack: thread unknown or not Python's */
	uint64_t unreadable_total;     /* Python stacks cut short by memory that could not be read */
	uint64_t scratchless_total;    /* events without stacks: more than three programs at once on a CPU */
	int64_t until_sample_bytes;    /* the sampler's countdown: no count */
	uint64_t reserved[2];
};

#ifndef MW_CDEF
_Static_assert(sizeof(struct mw_block_event) == 64, "mw_block_event: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_stack_event) == 2064, "mw_stack_event: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_thread_event) == 32, "mw_thread_event: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_target) == 24, "mw_target: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_python) == 24, "mw_python: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_python_thread) == 16, "mw_python_thread: padded, or changed without MW_TRACE_ABI");
_Static_assert(sizeof(struct mw_target_counts) == 240, "mw_target_counts: padded, or changed without MW_TRACE_ABI");
#endif

#endif
