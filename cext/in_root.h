/* in_root.h - folders as another process sees them.
 *
 * What lies under /proc/PID/root belongs to the process: a link in there must
 * not lead us out of it, so the kernel is told to resolve it as the process
 * would (openat2, Linux 5.6). */

#ifndef MW_IN_ROOT_H
#define MW_IN_ROOT_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* Open a folder by its path in the root of process pid.  Return a descriptor,
 * or a negative errno: -ESRCH it is gone, -ENOSYS the kernel is too old. */
int mw_open_in_root(uint32_t pid, const char *folder);

#endif
