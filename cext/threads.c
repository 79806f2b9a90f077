/* threads.c - see threads.h for what it is for. */

#include "threads.h"

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

int mw_thread_robust_list(int32_t tid, uint64_t *ret)
{
	void *head = NULL;
	size_t size_bytes;

	if (syscall(SYS_get_robust_list, tid, &head, &size_bytes))
		return -errno;
	*ret = (uint64_t)(uintptr_t)head;
	return 0;
}
