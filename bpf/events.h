/* events.h - what the kernel side tells the user side, and nothing else.
 *
 * Three compilers read this file: clang (for bpf/), the C compiler (for cext/)
 * and cffi (for Python, through cext/build.py).  So that all three agree, keep
 * to: fixed-width integers, enumerators instead of #define, widest field first,
 * no bit-fields, no pointers, no implicit padding.  Change a struct, raise
 * MW_EVENTS_ABI, fix the sizes below. */

#ifndef MW_EVENTS_H
#define MW_EVENTS_H

#ifndef MW_CDEF				/* cffi knows these types already and cannot read headers */
#if defined(__bpf__) || defined(MW_BCC) /* bcc reads the text as the host's C at first */
#include "vmlinux_min.h"
#else
#include <stdint.h>
#endif
#endif

enum {
	MW_EVENTS_ABI = 2,
	MW_COMM_BYTES = 16, /* TASK_COMM_LEN: the kernel truncates names to 15 bytes and a NUL */
	MW_CPUS_SUMMED_MAX = 128,
};

/* One process, as the task iterator saw it during one tick. */
struct mw_process_record {
	uint64_t start_time_ns; /* CLOCK_BOOTTIME, of the thread group leader: with pid, the identity */
	uint64_t cgroup_id;	/* of the cgroup v2 hierarchy; on a v1 host the root's */
	int64_t anon_pages; /* signed: where the per-CPU parts are not summed, batching can make a counter negative */
	int64_t file_pages;
	int64_t shmem_pages;
	int64_t swap_pages;
	uint64_t total_vm_pages;
	uint32_t pid;	     /* thread group id in the reader's pid namespace, what ps calls a PID there */
	uint32_t parent_pid; /* thread group id of the parent; 0 if it has none there */
	char comm[16];	     /* MW_COMM_BYTES; any bytes but NUL, chosen by the process itself */
};

enum mw_event_kind {
	MW_EVENT_EXEC = 1,	 /* the process runs another program from now on */
	MW_EVENT_EXIT = 2,	 /* its last thread ended */
	MW_EVENT_OOM_VICTIM = 3, /* the kernel chose it to die for want of memory */
};

/* Something that happened to one process between two ticks. */
struct mw_lifecycle_event {
	uint64_t time_ns;	/* CLOCK_MONOTONIC */
	uint64_t start_time_ns; /* as in mw_process_record */
	uint64_t cgroup_id;
	int64_t anon_pages; /* as far as the process still has memory; 0 else */
	int64_t swap_pages;
	uint32_t pid;
	uint32_t kind; /* enum mw_event_kind */
	char comm[16]; /* MW_COMM_BYTES */
};

/* Written once by user space after load, read by the programs. */
struct mw_watch_config {
	uint32_t events_abi;  /* MW_EVENTS_ABI of the loader: programs of another one stay silent */
	uint32_t cpus_summed; /* per-CPU parts of a counter to add up, 0: take the batched total */
	/* The inode of /proc/self/ns/pid, if it is not the host's: only processes that are in it (or in one
	 * below it) are told, by their pids there.  0: all, by the host's. */
	uint32_t pid_namespace;
};

/* What the programs could not tell us, one slot each in the map `losses` (per CPU, u64). */
enum mw_loss {
	MW_LOSS_LIFECYCLE_DROPPED = 0, /* ring buffer full */
	MW_LOSS_RECORD_UNWRITTEN = 1,  /* the iterator's buffer refused a record */
	MW_LOSS_VICTIM_UNTRANSLATED =
	    2, /* an old kernel told an OOM victim by its host pid to a reader who has others */
	MW_LOSSES = 3,
};

#ifndef MW_CDEF
_Static_assert(sizeof(struct mw_process_record) == 80, "mw_process_record: padded, or changed without MW_EVENTS_ABI");
_Static_assert(sizeof(struct mw_lifecycle_event) == 64, "mw_lifecycle_event: padded, or changed without MW_EVENTS_ABI");
_Static_assert(sizeof(struct mw_watch_config) == 12, "mw_watch_config: padded, or changed without MW_EVENTS_ABI");
#endif

#endif
