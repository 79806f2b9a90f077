/* links_perf.c - see links_perf.h for what it is for. */

#include "links_perf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A small number that the kernel shows in sysfs, for what has no fixed one. */
static int read_number(const char *path)
{
	char text[32];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return -ENOENT;
	text[got] = '\0';
	return (int)strtol(text, NULL, 10);
}

/* The bit of perf_event_attr.config that means "at the return". */
static int return_bit(void)
{
	char text[64];
	int fd = open("/sys/bus/event_source/devices/uprobe/format/retprobe", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (got <= 0)
		return -ENOENT;
	text[got] = '\0';
	if (strncmp(text, "config:", 7) != 0)
		return -ENOENT;
	return (int)strtol(text + 7, NULL, 10);
}

/* Tie a program to an open perf event.  A link holds the event and takes a
 * cookie (5.15); before, the event itself is what holds the program. */
static int tie(int program_fd, int event_fd, uint64_t cookie)
{
	union bpf_attr attributes;
	long fd;

	memset(&attributes, 0, sizeof(attributes));
	attributes.link_create.prog_fd = (uint32_t)program_fd;
	attributes.link_create.target_fd = (uint32_t)event_fd;
	attributes.link_create.attach_type = BPF_PERF_EVENT;
	attributes.link_create.perf_event.bpf_cookie = cookie;
	fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof(attributes));
	if (fd >= 0) {
		close(event_fd);
		return (int)fd;
	}
	if (errno != EINVAL || cookie != 0) {
		int rc = -errno;

		close(event_fd);
		return rc;
	}
	if (ioctl(event_fd, PERF_EVENT_IOC_SET_BPF, program_fd) < 0 || ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0) < 0) {
		int rc = -errno;

		close(event_fd);
		return rc;
	}
	return event_fd;
}

int mw_link_uprobe_perf(int program_fd, const char *path, uint64_t file_offset, int32_t pid, bool is_return,
			uint64_t cookie, uint64_t semaphore_offset)
{
	enum { SEMAPHORE_SHIFT = 32 }; /* of config: format/ref_ctr_offset says 32-63 */
	struct perf_event_attr event;
	int type = read_number("/sys/bus/event_source/devices/uprobe/type");
	long fd;

	if (type < 0)
		return type;
	if (pid <= 0)
		return -ESRCH;
	if (semaphore_offset > UINT32_MAX)
		return -EINVAL;
	memset(&event, 0, sizeof(event));
	event.size = sizeof(event);
	event.type = (uint32_t)type;
	event.config = semaphore_offset << SEMAPHORE_SHIFT;
	if (is_return) {
		int bit = return_bit();

		if (bit < 0)
			return bit;
		event.config |= 1ULL << bit;
	}
	event.uprobe_path = (uint64_t)(uintptr_t)path;
	event.probe_offset = file_offset;
	fd = syscall(SYS_perf_event_open, &event, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		return -errno;
	return tie(program_fd, (int)fd, cookie);
}
