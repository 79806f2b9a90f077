/* guarded: leaks a block of 2000 bytes a millisecond, by the clock, behind a seccomp filter that
 * kills for system calls it does not know, as sandboxes do.  With an argument it
 * first starts so many threads, which allocate and free.  It says "ready" and
 * goes on until its input ends; a line "exec" makes it another program, "exit"
 * ends it. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *leaked;

__attribute__((noinline)) void leak(void)
{
	void **block = malloc(2000);

	memset(block, 7, 2000);
	block[1] = leaked;
	leaked = block;
}

static void *work(void *nothing)
{
	for (;;) {
		for (int i = 0; i < 100; i++) {
			void *block = malloc(300);

			memset(block, 8, 300);
			__asm__ volatile("" : : "r"(block) : "memory");
			free(block);
		}
		poll(NULL, 0, 10);
	}
	return nothing;
}

/* Everything up to a number that is known today, and not what is added for the
 * kernel's own use (uretprobe is 335 and uprobe 336 on x86-64). */
static int guard(void)
{
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 334, 0, 2),
	    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 423, 1, 0),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	long began_ms, done = 0;
	char line[16];

	for (int i = 0; argc > 1 && i < atoi(argv[1]); i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, work, NULL))
			return 1;
	}
	if (guard())
		return 1;
	puts("ready");
	fflush(stdout);
	began_ms = now_ms();
	for (;;) {
		if (poll(&input, 1, 1) == 0) {
			for (long due = now_ms() - began_ms; done < due; done++)
				leak();
			continue;
		}
		if (!fgets(line, sizeof(line), stdin) || !strcmp(line, "exit\n"))
			return 0;
		if (!strcmp(line, "exec\n"))
			execl("/bin/sleep", "sleep", "60", NULL);
	}
}
