/* sharing.h - do two processes have one memory?
 *
 * Between vfork() and exec() a child runs in its parent's memory: a probe
 * "in the child" is one in the parent. */

#ifndef MW_SHARING_H
#define MW_SHARING_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* 1: they do; 0: not; a negative errno: -ENOSYS a kernel without kcmp(2),
 * -EPERM we may not know, -ESRCH one is gone. */
int mw_process_shares_memory(int32_t pid, int32_t other_pid);

#endif
