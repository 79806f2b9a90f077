/* links_uprobe.h - many user-space places tied to one program by one call.
 *
 * The first choice for probes: needs CAP_BPF and CAP_PERFMON only.  By plain
 * bpf(2), as links.h, and like there a link dies with its descriptor. */

#ifndef MW_LINKS_UPROBE_H
#define MW_LINKS_UPROBE_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum mw_uprobe_link {
	MW_UPROBE_ENTRY = 0,   /* multi link; program loaded for MW_ATTACH_TYPE_MULTI */
	MW_UPROBE_RETURN = 1,  /* the same, at the return */
	MW_UPROBE_SESSION = 2, /* both; program loaded for MW_ATTACH_TYPE_SESSION */
};

/* What a program must have been loaded for (enum bpf_attach_type; fixed ABI). */
enum {
	MW_ATTACH_TYPE_MULTI = 48,
	MW_ATTACH_TYPE_SESSION = 57,
};

/* Attach program_fd to count places of one file, in the process pid only.
 * cookies and semaphores (0: none) may be NULL.
 *
 * A descriptor, or a negative errno: -EINVAL no such link on this kernel, a
 * program of the wrong type, or a semaphore that contradicts another tool's
 * probe; -ENOTSUP or -EIO no probe possible there; -EPERM; -ENOENT; -ESRCH. */
int mw_link_uprobes(int program_fd, enum mw_uprobe_link kind, const char *path, const uint64_t *file_offsets,
		    const uint64_t *cookies, const uint64_t *semaphores, uint32_t count, int32_t pid);

#endif
