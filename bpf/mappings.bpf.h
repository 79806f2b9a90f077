/* mappings.bpf.h - address ranges that a process takes from the kernel and gives
 * back: mmap, munmap, mremap and brk, by the tracepoints of these system calls.
 *
 * One perf tracepoint per call, not raw sys_enter and sys_exit: those would run
 * a program for every system call of the host.  What a call asked for is read at
 * its exit from the registers that it came with; only what the call itself
 * changes is kept from its entry. */

#ifndef MW_MAPPINGS_BPF_H
#define MW_MAPPINGS_BPF_H

#include "pyframes.bpf.h"

enum {
	MAP_SHARED = 1, /* uapi/asm-generic/mman-common.h: the same on x86-64 and arm64 */
	MAP_ANONYMOUS = 0x20,
	MAPPING_THREADS = 4096,
	PAGE_MASK = 4095,
};

/* Layout of the syscalls tracepoints (their `format` file), the same for all. */
struct syscall_exit {
	uint64_t common;
	int64_t number;
	int64_t result;
};

/* A system call in progress. */
struct mapping_call {
	uint64_t time_ns;
	uint64_t brk; /* where the heap ended */
};

MAP_HASH(mapping_calls, BPF_MAP_TYPE_LRU_HASH, uint32_t, struct mapping_call, MAPPING_THREADS);

static __always_inline uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
}

/* Is this a result, and not a negative errno? */
static __always_inline bool is_address(int64_t result)
{
	return (uint64_t)result < (uint64_t)-4095;
}

static __always_inline uint32_t mapping_flags(uint64_t flags)
{
	return (flags & MAP_ANONYMOUS ? 0 : MW_BLOCK_FILE) | (flags & MAP_SHARED ? MW_BLOCK_SHARED : 0);
}

#endif
