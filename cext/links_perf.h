/* links_perf.h - uprobes through perf events: the second choice.
 *
 * For kernels before 6.6, which have no uprobe_multi links.  One descriptor
 * per place, and CAP_SYS_ADMIN; else as links.h: it dies with its descriptor. */

#ifndef MW_LINKS_PERF_H
#define MW_LINKS_PERF_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdbool.h>
#include <stdint.h>
#endif

/* Attach program_fd to file_offset of path, in the process pid (0: not allowed,
 * a probe is always confined).  semaphore_offset: where in the file the counter
 * is that arms the place, 0: none.
 *
 * A descriptor owned by the caller, or a negative errno: -ENOENT no such file
 * or no perf uprobes here, -EINVAL no instruction there or a counter that
 * contradicts another tool's probe, -ENOTSUP an instruction that cannot be
 * probed, -EPERM or -EACCES, -ESRCH no such process. */
int mw_link_uprobe_perf(int program_fd, const char *path, uint64_t file_offset, int32_t pid, bool is_return,
			uint64_t cookie, uint64_t semaphore_offset);

#endif
