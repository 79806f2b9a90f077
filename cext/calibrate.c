/* calibrate.c - see calibrate.h for what it is for. */

#include "calibrate.h"

#include "links_perf.h"
#include "links_uprobe.h"
#include "release.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__
/* The probe sits on the first instruction of each. */
__asm__(".pushsection .text\n"
	".balign 16\n"
	"mw_place_push: push %rbx; pop %rbx; ret\n"
	".balign 16\n"
	"mw_place_nop: nop; ret\n"
	".balign 16\n"
	"mw_place_long_nop: .byte 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00; ret\n"
	".balign 16\n"
	"mw_place_jump: .byte 0x72, 0x00; ret\n" /* jc to the next instruction */
	".balign 16\n"
	"mw_place_call: .byte 0xe8, 0, 0, 0, 0; lea 8(%rsp), %rsp; ret\n" /* likewise */
	".balign 16\n"
	"mw_place_other: mov %rdi, %rax; ret\n"
	".balign 16\n"
	".popsection\n");
extern char mw_place_push[], mw_place_nop[], mw_place_long_nop[], mw_place_jump[], mw_place_call[], mw_place_other[];

static const char *place_address(enum mw_place place)
{
	switch (place) {
	case MW_PLACE_PUSH:
		return mw_place_push;
	case MW_PLACE_NOP:
		return mw_place_nop;
	case MW_PLACE_LONG_NOP:
		return mw_place_long_nop;
	case MW_PLACE_JUMP:
		return mw_place_jump;
	case MW_PLACE_CALL:
		return mw_place_call;
	case MW_PLACE_OTHER:
		return mw_place_other;
	default:
		return NULL;
	}
}
#else
static const char *place_address(enum mw_place place)
{
	(void)place;
	return NULL;
}
#endif

enum { BATCH_CALLS = 64, ANSWER_LATE_MS = 5000 };

/* Of this thread's own time: on a busy host the clock on the wall also counts
 * what others had of the processor, several times what a hit costs. */
static uint64_t used_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* The file that address was loaded from, and where in it. */
static int locate(const char *address, char *path, size_t path_bytes, uint64_t *file_offset)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[4096 + 128];
	int rc = -ENOENT;

	if (!maps)
		return -errno;
	while (rc != 0 && fgets(line, sizeof(line), maps)) {
		unsigned long begin, end, offset;
		int path_at = 0;

		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &begin, &end, &offset, &path_at) < 3 || path_at == 0 ||
		    (uintptr_t)address < begin || (uintptr_t)address >= end)
			continue;
		line[strcspn(line, "\n")] = '\0';
		if (strlen(line + path_at) >= path_bytes)
			break;
		strcpy(path, line + path_at);
		*file_offset = (uintptr_t)address - begin + offset;
		rc = 0;
	}
	fclose(maps);
	return rc;
}

/* The child: for each byte that comes, call for sample_ns and tell the
 * nanoseconds per call.  After fork() of a process with threads, so: nothing
 * that takes a lock. */
static _Noreturn void serve(int wishes, int answers, const char *address, uint64_t sample_ns, pid_t parent)
{
	void (*call)(void) = (void (*)(void))(uintptr_t)address;
	char wish;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	while (read(wishes, &wish, 1) == 1) {
		uint64_t begin_ns = used_ns(), end_ns, calls = 0;
		double each_ns;

		do {
			for (int i = 0; i < BATCH_CALLS; i++)
				call();
			calls += BATCH_CALLS;
			end_ns = used_ns();
		} while (end_ns - begin_ns < sample_ns);
		each_ns = (double)(end_ns - begin_ns) / (double)calls;
		if (write(answers, &each_ns, sizeof(each_ns)) != sizeof(each_ns))
			_exit(1);
	}
	_exit(0);
}

struct child {
	pid_t pid;
	int wishes;
	int answers;
	int late_ms;
};

static int child_init(struct child *child, const char *address, uint64_t sample_ns)
{
	int wishes[2], answers[2];
	pid_t parent = getpid();

	if (pipe(wishes) != 0)
		return -errno;
	if (pipe(answers) != 0) {
		int rc = -errno;

		close(wishes[0]);
		close(wishes[1]);
		return rc;
	}
	child->pid = fork();
	if (child->pid == 0) {
		close(wishes[1]);
		close(answers[0]);
		serve(wishes[0], answers[1], address, sample_ns, parent);
	}
	close(wishes[0]);
	close(answers[1]);
	child->wishes = wishes[1];
	child->answers = answers[0];
	child->late_ms = (int)(sample_ns / 1000000) + ANSWER_LATE_MS;
	if (child->pid < 0) {
		close(child->wishes);
		close(child->answers);
		return -EAGAIN;
	}
	return 0;
}

/* Only ever our own child: it is not reaped before this. */
static void child_deinit(struct child *child)
{
	close(child->wishes);
	close(child->answers);
	kill(child->pid, SIGKILL);
	while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int child_time(struct child *child, double *ret)
{
	struct pollfd answer = {.fd = child->answers, .events = POLLIN};

	if (write(child->wishes, "", 1) != 1 || poll(&answer, 1, child->late_ms) != 1)
		return -ECHILD;
	return read(child->answers, ret, sizeof(*ret)) == sizeof(*ret) ? 0 : -ECHILD;
}

static uint32_t attach_type(enum mw_attach_kind kind)
{
	if (kind == MW_ATTACH_SESSION)
		return MW_ATTACH_TYPE_SESSION;
	return kind == MW_ATTACH_MULTI ? MW_ATTACH_TYPE_MULTI : 0;
}

/* Entry in links[0], and the return in links[1] where that is a link of its own. */
static int attach(enum mw_attach_kind kind, enum mw_calibrated what, int program_fd, const char *path,
		  uint64_t file_offset, pid_t pid, int links[2])
{
	bool both = what == MW_CALIBRATED_RETURN;

	links[0] = links[1] = -1;
	switch (kind) {
	case MW_ATTACH_SESSION:
		links[0] = mw_link_uprobes(program_fd, MW_UPROBE_SESSION, path, &file_offset, NULL, NULL, 1, pid);
		return links[0] < 0 ? links[0] : 0;
	case MW_ATTACH_MULTI:
		links[0] = mw_link_uprobes(program_fd, MW_UPROBE_ENTRY, path, &file_offset, NULL, NULL, 1, pid);
		if (links[0] >= 0 && both)
			links[1] =
			    mw_link_uprobes(program_fd, MW_UPROBE_RETURN, path, &file_offset, NULL, NULL, 1, pid);
		break;
	case MW_ATTACH_PERF:
		links[0] = mw_link_uprobe_perf(program_fd, path, file_offset, pid, false, 0, 0);
		if (links[0] >= 0 && both)
			links[1] = mw_link_uprobe_perf(program_fd, path, file_offset, pid, true, 0, 0);
		break;
	default:
		return -EINVAL;
	}
	if (links[0] < 0)
		return links[0];
	if (both && links[1] < 0) {
		close(links[0]);
		return links[1];
	}
	return 0;
}

static int time_with(struct child *child, enum mw_attach_kind kind, enum mw_calibrated what, int program_fd,
		     const char *path, uint64_t file_offset, double *ret)
{
	double without_ns, with_ns;
	int links[2];
	int rc = child_time(child, &without_ns);

	if (rc < 0)
		return rc;
	rc = attach(kind, what, program_fd, path, file_offset, child->pid, links);
	if (rc < 0)
		return rc;
	rc = child_time(child, &with_ns);
	close(links[0]);
	if (links[1] >= 0)
		close(links[1]);
	if (rc == 0)
		*ret = with_ns > without_ns ? with_ns - without_ns : 0;
	return rc;
}

int mw_calibrate(enum mw_place place, enum mw_attach_kind kind, enum mw_calibrated what, int program_fd,
		 uint64_t sample_ns, double *ret)
{
	const char *address = place_address(place);
	/* A session program says by returning 1 that it does not want the return. */
	int value = kind == MW_ATTACH_SESSION && what == MW_CALIBRATED_ENTRY;
	int own_fd = -1;
	uint64_t file_offset = 0;
	struct child child = {0};
	char path[4096];
	int rc;

	if (!address)
		return -ENOSYS;
	rc = locate(address, path, sizeof(path), &file_offset);
	if (rc < 0)
		return rc;
	if (program_fd < 0) {
		own_fd = mw_program_empty(attach_type(kind), value);
		if (own_fd < 0)
			return own_fd;
		program_fd = own_fd;
	}
	rc = child_init(&child, address, sample_ns);
	if (rc == 0) {
		rc = time_with(&child, kind, what, program_fd, path, file_offset, ret);
		child_deinit(&child);
	}
	if (own_fd >= 0)
		close(own_fd);
	return rc;
}

int mw_attach_kind_find(int32_t errnos[3])
{
	enum { SAMPLE_NS = 1000 }; /* attaching is the question, not the time */
	static const enum mw_attach_kind kinds[] = {MW_ATTACH_SESSION, MW_ATTACH_MULTI, MW_ATTACH_PERF};
	int found = -EPERM;

	for (uint32_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		double cost_ns;
		int rc = mw_calibrate(MW_PLACE_PUSH, kinds[i], MW_CALIBRATED_ENTRY, -1, SAMPLE_NS, &cost_ns);

		errnos[kinds[i] - 1] = -rc;
		if (rc == 0 && found < 0)
			found = (int)kinds[i];
	}
	return found;
}
