/* stopped.h - a few bytes changed in a process that stands still, all or none.
 *
 * All threads are stopped by PTRACE_SEIZE and PTRACE_INTERRUPT: no signal is
 * sent, and no parent is told.  Then every condition is looked at; if all hold,
 * every change is written; then all threads go on.  This is done by a thread of
 * its own, whose end lets go of everything, on whatever path: the kernel
 * detaches a thread's tracees when it exits.
 *
 * What a stop does to the target: waiting system calls are restarted, but some
 * (epoll_wait, semop, receives with a timeout) return EINTR, as after SIGSTOP.
 *
 * Knows no interpreter. */

#ifndef MW_STOPPED_H
#define MW_STOPPED_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_EDITS_MAX = 8192,
	MW_EDIT_BYTES_MAX = 4096,
	MW_STOPPED_THREADS_MAX = 4096,
};

enum mw_edit_kind {
	MW_EDIT_EXPECT = 1, /* the bytes there must be these */
	MW_EDIT_WRITE = 2,  /* they become these */
	MW_EDIT_SET = 3,    /* these bits are set in them */
};

struct mw_edit {
	uint64_t address;
	const uint8_t *bytes;
	uint32_t size_bytes; /* at most MW_EDIT_BYTES_MAX */
	uint32_t kind;	     /* enum mw_edit_kind */
};

struct mw_stopped_report {
	uint64_t pause_ns; /* from the first thread's stop to the last one's go */
	uint32_t threads;
	int32_t failed_edit; /* the condition that did not hold, or what could not be read; or -1 */
};

/* Make count edits in process pid, in their order, conditions first.
 * wait_ns: how long its threads may take to stop.
 *
 * Return 0; -EAGAIN if a condition did not hold (report says which); -ETIME if
 * a thread did not stop; -ESRCH it is gone; -EPERM it may not be traced, or is
 * traced already; -E2BIG too many threads; -EFAULT, -EINVAL, -ENOMEM.  Then
 * nothing was changed, but for -EIO: a write failed half-way. */
int mw_stopped_edit(uint32_t pid, const struct mw_edit *edits, uint32_t count, uint64_t wait_ns,
		    struct mw_stopped_report *ret);

#endif
