/* fork_bomb: says "ready", and at the first line becomes as many processes as it may, each of which
 * goes on to fork and to end.  To be started in a cgroup that bounds it, and ended by that. */

#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>

int main(void)
{
	char line[16];

	puts("ready");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	if (nice(19) < 0)
		return 1;
	puts("done");
	fflush(stdout);
	for (;;) {
		pid_t pid = fork();

		if (pid < 0) {
			/* No more: let one of ours end, and try again. */
			usleep(1000);
			if (waitpid(-1, NULL, WNOHANG) < 0)
				_exit(0);
		}
	}
}
