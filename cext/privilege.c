/* privilege.c - see privilege.h. */

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "privilege.h"

int mw_capability_drop(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	uint32_t bit = 1U << capability % 32;
	int word = capability / 32;

	if (capability < 0 || word >= _LINUX_CAPABILITY_U32S_3)
		return -EINVAL;
	/* libcap is not needed for two calls, and would be one more library. */
	if (syscall(SYS_capget, &header, sets))
		return -errno;
	if (!(sets[word].permitted & bit))
		return 0;
	/* Without CAP_SETPCAP the bounding set stays; NoNewPrivileges is what
	 * keeps an exec from giving it back. */
	prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
	sets[word].effective &= ~bit;
	sets[word].permitted &= ~bit;
	sets[word].inheritable &= ~bit;
	return syscall(SYS_capset, &header, sets) ? -errno : 1;
}
