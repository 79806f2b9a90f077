/* sharing.c - see sharing.h for what it is for. */

#include "sharing.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

int mw_process_shares_memory(int32_t pid, int32_t other_pid)
{
	long order = syscall(SYS_kcmp, pid, other_pid, KCMP_VM, 0, 0);

	if (order < 0)
		return -errno;
	return order == 0;
}
