/* links_tracepoint.c - perf events on tracepoints, and tracefs that may not be mounted.
 *
 * Must not know what a program does there. */

#include "links_tracepoint.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* A tracepoint's number, or a negative errno. */
static int tracepoint_number(const char *category, const char *name)
{
	int folder = open_trace_events();
	char text[64];
	ssize_t length;
	int fd;

	if (folder < 0)
		return folder;
	if (snprintf(text, sizeof(text), "%s/%s/id", category, name) >= (int)sizeof(text)) {
		close(folder);
		return -ENAMETOOLONG;
	}
	fd = openat(folder, text, O_RDONLY | O_CLOEXEC);
	close(folder);
	if (fd < 0)
		return -errno;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return -EIO;
	text[length] = '\0';
	return atoi(text);
}

/* Tie the program to the event, which the link then keeps alive. */
static int link_event(int program_fd, int event_fd)
{
	union bpf_attr attributes;
	long fd;

	memset(&attributes, 0, sizeof(attributes));
	attributes.link_create.prog_fd = (uint32_t)program_fd;
	attributes.link_create.target_fd = (uint32_t)event_fd;
	attributes.link_create.attach_type = BPF_PERF_EVENT;
	fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attributes, sizeof(attributes));
	if (fd < 0)
		return -errno;
	if (ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0) < 0) {
		int error = -errno;

		close((int)fd);
		return error;
	}
	return (int)fd;
}

int mw_link_tracepoint(int program_fd, const char *category, const char *name)
{
	struct perf_event_attr attributes = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof(attributes)};
	int number = tracepoint_number(category, name);
	long event_fd;
	int fd;

	if (number < 0)
		return number;
	attributes.config = (uint64_t)number;
	/* One event on one CPU is enough: the program runs wherever the tracepoint is hit. */
	event_fd = syscall(SYS_perf_event_open, &attributes, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	if (event_fd < 0)
		return -errno;
	fd = link_event(program_fd, (int)event_fd);
	close((int)event_fd);
	return fd;
}
