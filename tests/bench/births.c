/* births RATE LIFE_S - RATE children a second, each of which sleeps for up to LIFE_S and ends; until
 * its input ends. */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long rate = argc > 1 ? atol(argv[1]) : 50;
	long life_us = (argc > 2 ? atol(argv[2]) : 10) * 1000000;
	struct pollfd input = {.fd = 0, .events = POLLIN};

	puts("ready");
	fflush(stdout);
	while (poll(&input, 1, (int)(1000 / rate)) == 0) {
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			srand((unsigned)getpid());
			usleep((useconds_t)(rand() % life_us));
			_exit(0);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return 0;
}
