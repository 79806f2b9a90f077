/* offsets.c - see offsets.h for what it is for. */

#include "offsets.h"

#include <errno.h>

#ifndef __x86_64__

int mw_offsets_measure(int program_fd, int window_fd, struct mw_offsets *ret)
{
	(void)program_fd;
	(void)window_fd;
	(void)ret;
	return -EOPNOTSUPP;
}

#else

#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>

enum {
	WINDOW_BYTES = 4096, /* struct peek_window */
	WINDOW_WORDS = WINDOW_BYTES / 8,
	TASK_WINDOWS = 6, /* a task_struct has 4 to 14 KiB, by what the kernel was built with */
	TASK_WORDS = TASK_WINDOWS * WINDOW_WORDS,
	REGISTERS_DX_WORD = 12, /* of struct pt_regs; si, di and orig_ax follow */
	TRIES = 3,		/* another thread may move the heap's end meanwhile */
};

/* Kernel addresses begin here, whatever the number of page table levels. */
static const uint64_t kernel_begin = 0xff00000000000000;

struct measure {
	int program_fd;
	int window_fd;
	union bpf_attr run; /* its address is an argument of the system call that the program sees */
	uint64_t task[TASK_WORDS];
	uint32_t task_words; /* as many as could be read */
	uint64_t window[WINDOW_WORDS];
};

/* Read a page of kernel memory into window; address 0 is the current task. */
static int peek(struct measure *measure, uint64_t address, uint64_t offset)
{
	uint64_t arguments[] = {address, offset};
	uint32_t key = 0;

	memset(&measure->run, 0, sizeof(measure->run));
	measure->run.test.prog_fd = (uint32_t)measure->program_fd;
	measure->run.test.ctx_in = (uint64_t)(uintptr_t)arguments;
	measure->run.test.ctx_size_in = sizeof(arguments);
	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &measure->run, sizeof(measure->run)) < 0)
		return -errno;
	if (measure->run.test.retval)
		return -EFAULT;
	return bpf_map_lookup_elem(measure->window_fd, &key, measure->window);
}

static int read_task(struct measure *measure)
{
	for (uint32_t i = 0; i < TASK_WINDOWS; i++) {
		int error = peek(measure, 0, (uint64_t)i * WINDOW_BYTES);

		if (error)
			return i && error == -EFAULT ? 0 : error;
		memcpy(measure->task + i * WINDOW_WORDS, measure->window, WINDOW_BYTES);
		measure->task_words += WINDOW_WORDS;
	}
	return 0;
}

/* How often value is among words; *ret is the last place. */
static uint32_t count_word(const uint64_t *words, uint32_t count, uint64_t value, uint32_t *ret)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (words[i] != value)
			continue;
		found++;
		*ret = i;
	}
	return found;
}

static void find_thread_pointer(const struct measure *measure, struct mw_offsets *offsets)
{
	uint32_t place;

	if (count_word(measure->task, measure->task_words, (uint64_t)pthread_self(), &place) == 1)
		offsets->task_thread_pointer = place * 8;
}

/* Field number of /proc/self/stat, as proc(5) counts; 0 if there is none. */
static uint64_t stat_field(const char *text, int number)
{
	const char *at = strrchr(text, ')'); /* the end of field 2, which may hold anything */
	unsigned long long value = 0;

	for (int field = 2; at && field < number; field++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, "%llu", &value) == 1 ? value : 0;
}

/* Addresses that our mm_struct holds beside the heap's end, and nothing else in
 * the kernel holds together. */
struct landmarks {
	uint64_t heap_end;
	uint64_t stack_start;
	uint64_t arguments_start;
	uint64_t environment_end;
};

static bool find_landmarks(struct landmarks *ret)
{
	char text[1024] = "";
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t got = -1;

	if (fd >= 0) {
		got = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (got <= 0)
		return false;
	ret->heap_end = (uint64_t)syscall(SYS_brk, 0);
	ret->stack_start = stat_field(text, 28);
	ret->arguments_start = stat_field(text, 48);
	ret->environment_end = stat_field(text, 51);
	return ret->stack_start && ret->arguments_start && ret->environment_end;
}

/* Is window a mm_struct with these landmarks?  Then *ret is where it has brk. */
static bool is_our_mm(const uint64_t *window, const struct landmarks *landmarks, uint32_t *ret)
{
	uint32_t unused;

	return count_word(window, WINDOW_WORDS, landmarks->stack_start, &unused) &&
	       count_word(window, WINDOW_WORDS, landmarks->arguments_start, &unused) &&
	       count_word(window, WINDOW_WORDS, landmarks->environment_end, &unused) &&
	       count_word(window, WINDOW_WORDS, landmarks->heap_end, ret) == 1;
}

static bool is_kernel_pointer(uint64_t word)
{
	return word >= kernel_begin && word < (uint64_t)-WINDOW_BYTES && word % 8 == 0;
}

/* Of mm and active_mm, which are equal in a process, the first will do. */
static bool find_heap_end(struct measure *measure, struct mw_offsets *offsets)
{
	struct landmarks landmarks;
	uint32_t place;

	if (!find_landmarks(&landmarks))
		return false;
	for (uint32_t i = 0; i < measure->task_words; i++) {
		if (!is_kernel_pointer(measure->task[i]) || peek(measure, measure->task[i], 0))
			continue;
		if (!is_our_mm(measure->window, &landmarks, &place))
			continue;
		offsets->task_mm = i * 8;
		offsets->mm_brk = place * 8;
		return true;
	}
	return false;
}

/* Does window hold the registers that this very reading came into the kernel
 * with?  They lie at the end of the stack. */
static bool find_own_call(const struct measure *measure, uint32_t *ret)
{
	for (uint32_t i = WINDOW_WORDS - 4; i >= REGISTERS_DX_WORD; i--) {
		const uint64_t *words = measure->window + i;

		if (words[0] == sizeof(measure->run) && words[1] == (uint64_t)(uintptr_t)&measure->run &&
		    words[2] == BPF_PROG_TEST_RUN && words[3] == SYS_bpf) {
			*ret = i - REGISTERS_DX_WORD;
			return true;
		}
	}
	return false;
}

static void find_registers(struct measure *measure, struct mw_offsets *offsets)
{
	/* THREAD_SIZE: 16 KiB, or 32 in kernels that check their own memory (KASAN). */
	static const uint32_t stack_bytes[] = {16384, 32768};
	uint32_t place;

	for (uint32_t i = 0; i < measure->task_words; i++) {
		if (!is_kernel_pointer(measure->task[i]) || measure->task[i] % WINDOW_BYTES)
			continue;
		for (uint32_t j = 0; j < sizeof(stack_bytes) / sizeof(stack_bytes[0]); j++) {
			uint32_t last = stack_bytes[j] - WINDOW_BYTES;

			if (peek(measure, measure->task[i], last) || !find_own_call(measure, &place))
				continue;
			offsets->task_stack = i * 8;
			offsets->stack_registers = last + place * 8;
			return;
		}
	}
}

int mw_offsets_measure(int program_fd, int window_fd, struct mw_offsets *ret)
{
	struct measure measure = {.program_fd = program_fd, .window_fd = window_fd};
	int error;

	memset(ret, 0, sizeof(*ret));
	error = read_task(&measure);
	if (error)
		return error;
	find_thread_pointer(&measure, ret);
	find_registers(&measure, ret);
	for (int i = 0; i < TRIES; i++) {
		if (find_heap_end(&measure, ret))
			break;
	}
	return 0;
}

#endif
