/* same_pid: starts two programs one after the other, both with the same pid, as happens by chance
 * where pids go round.  Prints the pid, and at each line ends what runs and starts the next one:
 * "first", "second".  The kernel gives a pid that is asked for to root (clone3, since Linux 5.5). */

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In the unit that /proc tells start times in. */
static uint64_t ticks_since_boot(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 100 + (uint64_t)now.tv_nsec / 10000000;
}

static pid_t start(pid_t wanted)
{
	struct clone_args arguments = {
	    .exit_signal = SIGCHLD,
	    .set_tid = wanted ? (uint64_t)(uintptr_t)&wanted : 0,
	    .set_tid_size = wanted ? 1 : 0,
	};
	pid_t parent = getpid();
	pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) /* it ended before that was said */
			_exit(0);
		for (;;)
			pause();
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	if (waitpid(pid, NULL, 0) != pid)
		exit(2);
}

int main(void)
{
	char line[16];
	pid_t first = start(0), second;
	uint64_t started = ticks_since_boot();

	if (first < 0)
		return 1;
	printf("ready\n%d\n", first);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	end(first);
	/* A pid comes again after thousands of others: never within a tick of its last start. */
	while (ticks_since_boot() <= started + 1)
		usleep(1000);
	second = start(first);
	/* Somebody else may have got it meanwhile: then the test has to be told, not misled. */
	puts(second == first ? "done" : strerror(errno));
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	if (second > 0)
		end(second);
	return 0;
}
