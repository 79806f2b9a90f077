/* task.bpf.h - what programs read of the current task: its thread pointer, the
 * end of its heap, and what its system call was given.
 *
 * libbpf fits these accesses to the running kernel by its type information.  In
 * bcc's text the places are numbers, -DOFFSET_name=N, which user space has
 * measured on a task of its own (cext/offsets.h): they need no type information
 * and no kernel headers.
 *
 * Must not know what anybody does with it. */

#ifndef MW_TASK_BPF_H
#define MW_TASK_BPF_H

#include "compat.h"
#ifndef MW_BCC
#include <bpf/bpf_tracing.h>
#endif

/* What the current system call was given. */
struct syscall_arguments {
	uint64_t word[5];
};

#ifndef MW_BCC

static __always_inline uint64_t task_thread_pointer(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

#if defined(__TARGET_ARCH_arm64)
	return task->thread.uw.tp_value;
#else
	return task->thread.fsbase;
#endif
}

static __always_inline uint64_t task_heap_end(void)
{
	return bpf_get_current_task_btf()->mm->brk;
}

static __always_inline struct syscall_arguments syscall_arguments(void)
{
	struct pt_regs *registers = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct syscall_arguments arguments;

#if defined(__TARGET_ARCH_arm64)
	arguments.word[0] = registers->orig_x0;
#else
	arguments.word[0] = PT_REGS_PARM1_CORE(registers);
#endif
	arguments.word[1] = PT_REGS_PARM2_CORE(registers);
	arguments.word[2] = PT_REGS_PARM3_CORE(registers);
	arguments.word[3] = PT_REGS_PARM4_CORE_SYSCALL(registers);
	arguments.word[4] = PT_REGS_PARM5_CORE(registers);
	return arguments;
}

#else

/* A word of kernel memory; 0 if it cannot be read. */
static __always_inline uint64_t kernel_word(uint64_t address)
{
	uint64_t word;

	return bpf_probe_read_kernel(&word, sizeof(word), (void *)address) ? 0 : word;
}

static __always_inline uint64_t task_thread_pointer(void)
{
	return kernel_word(bpf_get_current_task() + OFFSET_task_thread_pointer);
}

static __always_inline uint64_t task_heap_end(void)
{
	return kernel_word(kernel_word(bpf_get_current_task() + OFFSET_task_mm) + OFFSET_mm_brk);
}

static __always_inline struct syscall_arguments syscall_arguments(void)
{
	uint64_t stack = kernel_word(bpf_get_current_task() + OFFSET_task_stack);
	/* These eight lie side by side in struct pt_regs. */
	struct {
		uint64_t r10, r9, r8, ax, cx, dx, si, di;
	} registers = {};
	struct syscall_arguments arguments;

	bpf_probe_read_kernel(&registers, sizeof(registers),
			      (void *)(stack + OFFSET_stack_registers + __builtin_offsetof(struct pt_regs, r10)));
	arguments.word[0] = registers.di;
	arguments.word[1] = registers.si;
	arguments.word[2] = registers.dx;
	arguments.word[3] = registers.r10;
	arguments.word[4] = registers.r8;
	return arguments;
}

#endif

#endif
