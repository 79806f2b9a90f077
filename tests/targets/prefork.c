/* prefork WORKERS BYTES_PER_SECOND - a master with workers that leak, each at
 * that rate by the clock.
 *
 * Prints "ready PID..." with the workers' pids, and ends them when its input
 * ends; they also end when it is killed. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 4000 };

static double now_s(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void leak(double bytes_per_second)
{
	const struct timespec step = {.tv_nsec = 50 * 1000 * 1000};
	double began_s = now_s(), taken_bytes = 0;

	for (;;) {
		while (taken_bytes < bytes_per_second * (now_s() - began_s)) {
			char *volatile block = malloc(BLOCK_BYTES);

			if (!block)
				_exit(1);
			memset(block, 1, BLOCK_BYTES);
			taken_bytes += BLOCK_BYTES;
		}
		nanosleep(&step, NULL);
	}
}

int main(int argc, char **argv)
{
	int workers = argc > 1 ? atoi(argv[1]) : 1;
	double bytes_per_second = argc > 2 ? atof(argv[2]) : 1 << 20;
	char byte;

	printf("ready");
	for (int i = 0; i < workers; i++) {
		pid_t worker;

		fflush(stdout);
		worker = fork();
		if (worker < 0)
			return 1;
		if (!worker) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			leak(bytes_per_second);
		}
		printf(" %d", (int)worker);
	}
	puts("");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0; /* the kernel ends the workers */
}
