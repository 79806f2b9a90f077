/* offsets.h - where the running kernel keeps a few words of a task, measured.
 *
 * For the engine that has no type information to ask.  A task's words are known
 * to the task itself: its thread pointer, the end of its heap, the arguments of
 * the system call that it is in.  So a program run in a task of our own reads
 * that task page by page (bpf/peek.bpf.c), and the places where these words lie
 * are the places in every task.
 *
 * x86-64 only.  Must not know which program wants an offset. */

#ifndef MW_OFFSETS_H
#define MW_OFFSETS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* In bytes; 0: not found, or more than one place would do.  The names are those
 * of bpf/task.bpf.h, behind OFFSET_. */
struct mw_offsets {
	uint32_t task_thread_pointer; /* in struct task_struct */
	uint32_t task_mm;
	uint32_t task_stack;
	uint32_t mm_brk;	  /* in struct mm_struct */
	uint32_t stack_registers; /* in the kernel stack: struct pt_regs of a system call */
};

/* Measure by a loaded peek program and its window, in the calling thread.
 *
 * Return 0, also if some were not found, or a negative errno: -EOPNOTSUPP not
 * on this architecture, or what the kernel says to running a program. */
int mw_offsets_measure(int program_fd, int window_fd, struct mw_offsets *ret);

#endif
