/* memory_file.h - another process's memory in bulk, without unsharing it.
 *
 * process_vm_readv() pins what it reads, and since Linux 5.19 (a7f226604170)
 * pinning a page that a fork left shared makes a copy of it for the process
 * that is read: reading a whole prefork worker, or a forked child that waits to
 * be read, would double its memory.  /proc/PID/mem only looks.  It costs a copy
 * more (3.4 GB/s for 5.2 here) and is bound to the program it was opened on: an
 * exec ends it.
 *
 * Knows nothing of what is read. */

#ifndef MW_MEMORY_FILE_H
#define MW_MEMORY_FILE_H

#include <stdint.h>

/* Return a descriptor, or a negative errno: -ESRCH it is gone, -EACCES or -EPERM we may not. */
int mw_memory_open(uint32_t pid);

/* Copy up to size_bytes at address.  Return the bytes read, fewer where the
 * rest is not mapped; -EFAULT for none, -ESRCH when the program is gone. */
int64_t mw_memory_read(int fd, uint64_t address, void *buffer, uint64_t size_bytes);

#endif
