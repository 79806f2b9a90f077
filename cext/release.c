/* release.c - see release.h for what it is for. */

#include "release.h"

#include "links_uprobe.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK_BYTES = 16 << 10 };

struct orders {
	int go; /* eventfd: our descriptors are closed */
	pid_t parent;
};

/* The child: has a copy of every descriptor, waits until it alone has those of
 * the links, and exits.  It shares our memory, so: system calls only. */
static int wait_and_exit(void *context)
{
	const struct orders *orders = context;
	uint64_t value;

	/* If we die first, nobody says go: then SIGKILL does, which is as good. */
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (syscall(SYS_getppid) != orders->parent)
		return 1;
	while (syscall(SYS_read, orders->go, &value, sizeof(value)) < 0 && errno == EINTR)
		;
	return 0;
}

static void close_all(const int *fds, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close(fds[i]);
}

int mw_links_release(const int *fds, uint32_t count)
{
	struct orders orders = {.parent = getpid()};
	uint64_t one = 1;
	char *stack;
	pid_t child;

	if (count == 0)
		return 0;
	stack = malloc(STACK_BYTES);
	orders.go = eventfd(0, EFD_CLOEXEC);
	/* No exit signal: nobody's SIGCHLD handler or waitpid(-1) shall notice. Its descriptors
	 * are a copy (no CLONE_FILES), its memory is ours, so it is made in 0.1 ms. */
	child = stack && orders.go >= 0 ? clone(wait_and_exit, stack + STACK_BYTES, CLONE_VM, &orders) : -1;
	close_all(fds, count);
	if (child > 0) {
		while (write(orders.go, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		while (waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
			;
	}
	if (orders.go >= 0)
		close(orders.go);
	free(stack);
	return child > 0 ? 0 : -EAGAIN;
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
