/* links.c - bpf(2) by hand, for what ties a program to the kernel.
 *
 * Must not know libbpf's objects: descriptors in, descriptors out. */

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include "links.h"

static int bpf_call(enum bpf_cmd command, union bpf_attr *attributes)
{
	long fd = syscall(SYS_bpf, command, attributes, sizeof(*attributes));

	return fd < 0 ? -errno : (int)fd;
}

int mw_link_iterator(int program_fd)
{
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.link_create.prog_fd = (uint32_t)program_fd;
	attributes.link_create.attach_type = BPF_TRACE_ITER;
	return bpf_call(BPF_LINK_CREATE, &attributes);
}

int mw_link_iterator_open(int link_fd)
{
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.iter_create.link_fd = (uint32_t)link_fd;
	return bpf_call(BPF_ITER_CREATE, &attributes);
}

int mw_link_raw_tracepoint(int program_fd, const char *name)
{
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.raw_tracepoint.prog_fd = (uint32_t)program_fd;
	attributes.raw_tracepoint.name = (uint64_t)(uintptr_t)name;
	return bpf_call(BPF_RAW_TRACEPOINT_OPEN, &attributes);
}
