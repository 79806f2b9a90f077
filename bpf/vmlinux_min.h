/* vmlinux_min.h - the few kernel types that our programs read, kept by hand.
 *
 * A full dump has 134,724 lines, takes four times as long to compile and its
 * names collide with ours.  Field offsets here mean nothing: every access is
 * relocated against the running kernel's BTF at load (preserve_access_index),
 * so list only the fields that are used, in any order.  A name with three
 * underscores is a flavour: libbpf drops what follows them when it looks for
 * the kernel's type, so one kernel type can be described as two versions.
 *
 * Nothing is relocated for bcc, so it sees types of the kernel's ABI only; how
 * its text reads a task is in task.bpf.h.
 *
 * Must not know anything of mwtrace. */

#ifndef MW_VMLINUX_MIN_H
#define MW_VMLINUX_MIN_H

/* bpf_tracing.h chooses the kernel's register names by this. */
#define __VMLINUX_H__

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* The names that events.h uses. */
typedef __s16 int16_t;
typedef __s32 int32_t;
typedef __s64 int64_t;
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;

typedef _Bool bool;

enum {
	false = 0,
	true = 1,
};

/* Kernel ABI (include/uapi/linux/bpf.h): these numbers never change. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_F_USER_STACK = 1 << 8,
};

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
};

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#ifdef MW_BCC

/* uapi/asm/ptrace.h of x86-64, whole: this is where the registers really lie. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#else

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* A user's registers, under the names that bpf_tracing.h uses. */
#if defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
};

struct pt_regs {
	__u64 orig_x0;
	__u64 sp;
};

/* The kernel's type of uw has no name either. */
struct thread_struct {
	struct {
		unsigned long tp_value;
	} uw;
};
#else
struct pt_regs {
	unsigned long r10, r9, r8, ax, cx, dx, si, di, ip, sp, bp;
};

struct thread_struct {
	unsigned long fsbase;
};
#endif

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long counter;
} atomic_long_t;

struct percpu_counter {
	__s64 count;
	__s32 *counters; /* a per-CPU pointer: add the CPU's offset to reach its part */
};

/* Kernel 6.2 and later (f1a7941243c1): four percpu_counter. */
struct mm_struct {
	unsigned long total_vm;
	unsigned long brk;
	struct percpu_counter rss_stat[4];
};

/* Before. */
struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct___old {
	struct mm_rss_stat rss_stat;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct signal_struct {
	atomic_t live;
};

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

/* A process's number in each namespace that sees it, the host's first. */
struct pid {
	unsigned int level;
	struct upid numbers[1]; /* level + 1 in the kernel */
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct pid *thread_pid; /* Linux 4.19 (2c4704756cab) */
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct thread_struct thread;
	char comm[16];
};

/* Kernels that hand group_dead to this tracepoint show it here. */
struct trace_event_raw_sched_process_exit {
	bool group_dead;
};

struct bpf_array {
	void *pptrs[1]; /* [0] in the kernel; an array of a per-CPU map */
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif /* MW_BCC */

#endif
