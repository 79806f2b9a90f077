/* release.c - see release.h for what it is for. */

#include "release.h"

#include "links_uprobe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	STACK_BYTES = 16 << 10,
	CHILDREN_MAX = 64,
	READS_MAX = 1000, /* interrupted ones */
};

struct orders {
	const int *fds; /* of all links */
	uint32_t count;
	uint32_t mine; /* index of the one that this child closes by its exit */
	int ready;     /* eventfd: a child has let go of the others' links */
	int go;	       /* eventfd, a semaphore: our descriptors are closed */
	pid_t parent;
};

/* errno is shared with the parent and the other children, so it says nothing. */
static bool read_one(int fd)
{
	uint64_t value;

	for (int i = 0; i < READS_MAX; i++) {
		if (syscall(SYS_read, fd, &value, sizeof(value)) == sizeof(value))
			return true;
	}
	return false;
}

/* A child: has a copy of every descriptor, keeps that of one link, waits until it
 * alone has it, and exits.  It shares our memory, so: system calls only. */
static int wait_and_exit(void *context)
{
	const struct orders *orders = context;
	uint64_t one = 1;

	/* If we die first, nobody says go: then SIGKILL does, which is as good. */
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (syscall(SYS_getppid) != orders->parent)
		return 1;
	for (uint32_t i = 0; i < orders->count; i++) {
		if (i != orders->mine)
			syscall(SYS_close, orders->fds[i]);
	}
	syscall(SYS_write, orders->ready, &one, sizeof(one));
	return read_one(orders->go) ? 0 : 1;
}

static void close_all(const int *fds, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close(fds[i]);
}

/* Wait until as many children have let go of the others' links, or died. */
static void wait_ready(int ready, const pid_t *children, uint32_t count)
{
	uint32_t seen = 0;

	while (seen < count) {
		struct pollfd ask = {.fd = ready, .events = POLLIN};
		uint64_t value = 0;

		if (poll(&ask, 1, 100) == 1 && read(ready, &value, sizeof(value)) == sizeof(value)) {
			seen += (uint32_t)value;
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			siginfo_t end = {0};

			/* Somebody killed it: its copies are closed, which is what is waited for. */
			if (waitid(P_PID, (id_t)children[i], &end, WEXITED | WNOHANG | WNOWAIT | __WCLONE) == 0 &&
			    end.si_pid)
				return;
		}
	}
}

/* A child per link: closing one waits for RCU after its breakpoints are gone, and
 * the next one's would trap for all that time. */
static uint32_t make_children(struct orders *orders, char *stacks, pid_t *children)
{
	uint32_t made = 0;

	for (; made < orders->count; made++) {
		struct orders *own = orders + made;

		*own = *orders;
		own->mine = made;
		/* No exit signal: nobody's SIGCHLD handler or waitpid(-1) shall notice. Its descriptors
		 * are a copy (no CLONE_FILES), its memory is ours, so it is made in 0.1 ms. */
		children[made] = clone(wait_and_exit, stacks + (made + 1) * (size_t)STACK_BYTES, CLONE_VM, own);
		if (children[made] < 0)
			break;
	}
	return made;
}

static int release(const int *fds, uint32_t count)
{
	struct orders orders[CHILDREN_MAX] = {{.fds = fds, .count = count, .parent = getpid()}};
	char *stacks = malloc((size_t)STACK_BYTES * count);
	uint64_t children_count = 0;
	pid_t children[CHILDREN_MAX];

	orders[0].ready = eventfd(0, EFD_CLOEXEC);
	orders[0].go = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (stacks && orders[0].ready >= 0 && orders[0].go >= 0)
		children_count = make_children(orders, stacks, children);
	if (children_count)
		wait_ready(orders[0].ready, children, (uint32_t)children_count);
	close_all(fds, count);
	if (children_count) {
		while (write(orders[0].go, &children_count, sizeof(children_count)) < 0 && errno == EINTR)
			;
	}
	for (uint32_t i = 0; i < children_count; i++) {
		while (waitpid(children[i], NULL, __WCLONE) < 0 && errno == EINTR)
			;
	}
	if (orders[0].ready >= 0)
		close(orders[0].ready);
	if (orders[0].go >= 0)
		close(orders[0].go);
	free(stacks);
	return children_count == count ? 0 : -EAGAIN;
}

int mw_links_release(const int *fds, uint32_t count)
{
	int result = 0;

	for (uint32_t done = 0; done < count; done += CHILDREN_MAX) {
		uint32_t rest = count - done;
		int one = release(fds + done, rest < CHILDREN_MAX ? rest : CHILDREN_MAX);

		if (one)
			result = one;
	}
	return result;
}

int mw_program_empty(uint32_t attach_type, int32_t value)
{
	struct bpf_insn code[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = value},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attributes;
	long fd;

	memset(&attributes, 0, sizeof(attributes));
	attributes.prog_type = BPF_PROG_TYPE_KPROBE;
	attributes.insns = (uint64_t)(uintptr_t)code;
	attributes.insn_cnt = sizeof(code) / sizeof(code[0]);
	attributes.license = (uint64_t)(uintptr_t) "GPL";
	attributes.expected_attach_type = attach_type;
	fd = syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
	return fd < 0 ? -errno : (int)fd;
}

int mw_uprobes_heal(const char *path, const uint64_t *file_offsets, uint32_t count, int32_t pid)
{
	int program = mw_program_empty(MW_ATTACH_TYPE_MULTI, 0);
	int link;

	if (program < 0)
		return program;
	link = mw_link_uprobes(program, MW_UPROBE_ENTRY, path, file_offsets, NULL, NULL, count, pid);
	close(program);
	if (link < 0)
		return link;
	mw_links_release(&link, 1);
	return 0;
}
