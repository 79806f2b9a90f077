/* calibrate.h - what a probe hit costs on this host, tried on a child of ours.
 *
 * The cost of a hit depends on the kernel (which instructions it emulates), on
 * the processor, and on being in a virtual machine: nothing to look up.  So a
 * forked child calls one of our own little functions, first without, then with
 * a probe on the instruction in question, and both are timed by the child's own
 * processor time.
 *
 * Knows how to open the kinds of link, no real program and no real target. */

#ifndef MW_CALIBRATE_H
#define MW_CALIBRATE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* Instructions to put the probe on; the names of placement's kinds. */
enum mw_place {
	MW_PLACE_PUSH = 0,
	MW_PLACE_NOP = 1,
	MW_PLACE_LONG_NOP = 2, /* nop word [rax+rax], six bytes */
	MW_PLACE_JUMP = 3,     /* conditional, not taken */
	MW_PLACE_CALL = 4,
	MW_PLACE_OTHER = 5, /* mov: single-stepped everywhere so far */
	MW_PLACES = 6,
};

enum mw_attach_kind {
	MW_ATTACH_SESSION = 1, /* uprobe session link, 6.13 */
	MW_ATTACH_MULTI = 2,   /* uprobe multi link, 6.6 */
	MW_ATTACH_PERF = 3,    /* perf event */
};

enum mw_calibrated {
	MW_CALIBRATED_ENTRY = 0,  /* a program at the place, none at the return */
	MW_CALIBRATED_RETURN = 1, /* one at the return, too */
};

/* Time hits at place, over at least sample_ns.  program_fd: of a program that
 * returns at once for a process it does not know; -1: an empty one of our own.
 * What it costs beyond the trap is then not in the figure.
 *
 * Return 0 and the cost of a hit in nanoseconds, or a negative errno: what
 * attaching says, -ENOSYS on machines without such functions, -ECHILD if the
 * child died. */
int mw_calibrate(enum mw_place place, enum mw_attach_kind kind, enum mw_calibrated what, int program_fd,
		 uint64_t sample_ns, double *ret);

/* The cheapest attach kind that this kernel and these privileges allow, found
 * by attaching each kind to a child of ours: enum mw_attach_kind, or -EPERM if
 * none.  errnos receives what each said, indexed by kind - 1. */
int mw_attach_kind_find(int32_t errnos[3]);

#endif
