/* links.c - bpf(2) by hand, for what ties a program to the kernel.
 *
 * Must not know libbpf's objects: descriptors in, descriptors out. */

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
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

/* Tie the program to an open perf event, which the link then keeps alive. */
static int perf_link(int program_fd, int perf_fd, uint64_t cookie)
{
	union bpf_attr attributes;
	int fd;

	memset(&attributes, 0, sizeof(attributes));
	attributes.link_create.prog_fd = (uint32_t)program_fd;
	attributes.link_create.target_fd = (uint32_t)perf_fd;
	attributes.link_create.attach_type = BPF_PERF_EVENT;
	attributes.link_create.perf_event.bpf_cookie = cookie;
	fd = bpf_call(BPF_LINK_CREATE, &attributes);
	if (fd >= 0 && ioctl(perf_fd, PERF_EVENT_IOC_ENABLE, 0) < 0) {
		int error = -errno;

		close(fd);
		fd = error;
	}
	close(perf_fd);
	return fd;
}

static int perf_open(struct perf_event_attr *attributes, pid_t pid, int cpu)
{
	long fd;

	attributes->size = sizeof(*attributes);
	fd = syscall(SYS_perf_event_open, attributes, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

/* The number in a small text file like type or "config:0", or -ENOENT. */
static int file_number(int folder, const char *path)
{
	char text[64];
	const char *number;
	ssize_t length;
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -ENOENT;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return -ENOENT;
	text[length] = '\0';
	number = strchr(text, ':');
	return atoi(number ? number + 1 : text);
}

/* The events folder of tracefs, opened.  Where it is mounted nowhere we make a
 * mount of our own that no path leads to and that ends with its descriptor
 * (needs CAP_SYS_ADMIN). */
static int open_trace_events(void)
{
	enum { FSCONFIG_CMD_CREATE = 6, FSMOUNT_CLOEXEC = 1, FSOPEN_CLOEXEC = 1 };
	int folder = open("/sys/kernel/tracing/events", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int context, mount = -1;

	if (folder >= 0)
		return folder;
	context = (int)syscall(SYS_fsopen, "tracefs", FSOPEN_CLOEXEC);
	if (context < 0)
		return -errno;
	if (!syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
	if (mount >= 0)
		folder = openat(mount, "events", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		folder = -errno;
	if (mount >= 0)
		close(mount);
	close(context);
	return folder;
}

/* One event on one CPU is enough: the program runs wherever the tracepoint is hit. */
int mw_link_tracepoint(int program_fd, const char *category, const char *name)
{
	struct perf_event_attr attributes = {.type = PERF_TYPE_TRACEPOINT};
	int folder = open_trace_events();
	char path[128];
	int number, fd;

	if (folder < 0)
		return folder;
	if (snprintf(path, sizeof(path), "%s/%s/id", category, name) >= (int)sizeof(path))
		number = -ENAMETOOLONG;
	else
		number = file_number(folder, path);
	close(folder);
	if (number < 0)
		return number;
	attributes.config = (uint64_t)number;
	fd = perf_open(&attributes, -1, 0);
	return fd < 0 ? fd : perf_link(program_fd, fd, 0);
}

/* The part of union bpf_attr that came with 6.6 (89ae89f53d20), which an older
 * header does not have. */
struct uprobe_multi_attributes {
	uint32_t program_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t reference_counters;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags;
	uint32_t pid;
	uint32_t reserved;
};

int mw_link_uprobe_multi(int program_fd, const char *path, const uint64_t *offsets, const uint64_t *cookies,
			 uint32_t count, uint32_t pid, uint32_t flags)
{
	enum { ATTACH_MULTI = 48, ATTACH_SESSION = 57, MULTI_RETURN = 1 };
	struct uprobe_multi_attributes attributes = {
	    .program_fd = (uint32_t)program_fd,
	    .attach_type = flags & MW_UPROBE_SESSION ? ATTACH_SESSION : ATTACH_MULTI,
	    .path = (uint64_t)(uintptr_t)path,
	    .offsets = (uint64_t)(uintptr_t)offsets,
	    .cookies = (uint64_t)(uintptr_t)cookies,
	    .count = count,
	    .multi_flags = flags & MW_UPROBE_RETURN ? MULTI_RETURN : 0,
	    .pid = pid,
	};
	union bpf_attr whole;

	if (flags & MW_UPROBE_SESSION && flags & MW_UPROBE_RETURN)
		return -EINVAL;
	_Static_assert(sizeof(whole) >= sizeof(attributes), "union bpf_attr is too old to hold uprobe_multi");
	memset(&whole, 0, sizeof(whole));
	memcpy(&whole, &attributes, sizeof(attributes));
	return bpf_call(BPF_LINK_CREATE, &whole);
}

int mw_link_uprobe_perf(int program_fd, const char *path, uint64_t offset, uint64_t cookie, uint32_t pid,
			uint32_t flags)
{
	struct perf_event_attr attributes = {
	    .config1 = (uint64_t)(uintptr_t)path, /* uprobe_path */
	    .config2 = offset,			  /* probe_offset */
	};
	int type = file_number(AT_FDCWD, "/sys/bus/event_source/devices/uprobe/type");
	int fd;

	if (type < 0)
		return type;
	if (flags & MW_UPROBE_SESSION)
		return -EINVAL;
	attributes.type = (uint32_t)type;
	if (flags & MW_UPROBE_RETURN) {
		int bit = file_number(AT_FDCWD, "/sys/bus/event_source/devices/uprobe/format/retprobe");

		if (bit < 0)
			return bit;
		attributes.config |= 1ull << bit;
	}
	/* Of one process on every CPU, or of every process: then any one CPU does,
	 * as with tracepoints. */
	fd = perf_open(&attributes, pid ? (pid_t)pid : -1, pid ? -1 : 0);
	return fd < 0 ? fd : perf_link(program_fd, fd, cookie);
}
