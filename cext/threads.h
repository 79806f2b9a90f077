/* threads.h - where the C library keeps what it knows of a thread.
 *
 * Each thread tells the kernel where its list of robust mutexes is, and that is
 * inside the C library's own structure of the thread.  Knows no C library. */

#ifndef MW_THREADS_H
#define MW_THREADS_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

/* The address of thread tid's robust list, 0 if it told none.  Return 0 or a
 * negative errno: -ESRCH it is gone, -EPERM we may not know. */
int mw_thread_robust_list(int32_t tid, uint64_t *ret);

#endif
