/* links_uprobe.c - see links_uprobe.h for what it is for. */

#include "links_uprobe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* union bpf_attr.link_create as Linux 6.6 declares it; the headers of older
 * distributions end before. */
struct link_create {
	uint32_t program_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t semaphores;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags; /* BPF_F_UPROBE_MULTI_RETURN is 1 */
	uint32_t pid;
	uint32_t reserved;
};

int mw_link_uprobes(int program_fd, enum mw_uprobe_link kind, const char *path, const uint64_t *file_offsets,
		    const uint64_t *cookies, const uint64_t *semaphores, uint32_t count, int32_t pid)
{
	struct link_create attributes;
	long fd;

	if (pid <= 0) /* to the kernel 0 is every process of the host */
		return -ESRCH;
	memset(&attributes, 0, sizeof(attributes));
	attributes.program_fd = (uint32_t)program_fd;
	attributes.attach_type = kind == MW_UPROBE_SESSION ? MW_ATTACH_TYPE_SESSION : MW_ATTACH_TYPE_MULTI;
	attributes.path = (uint64_t)(uintptr_t)path;
	attributes.offsets = (uint64_t)(uintptr_t)file_offsets;
	attributes.semaphores = (uint64_t)(uintptr_t)semaphores;
	attributes.cookies = (uint64_t)(uintptr_t)cookies;
	attributes.count = count;
	attributes.multi_flags = kind == MW_UPROBE_RETURN ? 1 : 0;
	attributes.pid = (uint32_t)pid;
	fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof(attributes));
	return fd < 0 ? -errno : (int)fd;
}
