/* children: for each line does what it says and prints "done":
 *   exec N     N children that run another program, which ends at once
 *   exit N     N children that end at once
 *   threads N  N threads that end at once
 *   pids       prints the children's pids so far, one a line, in order */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>

enum { CHILDREN_MAX = 65536 };

static pid_t pids[CHILDREN_MAX];
static int pid_count;

static void make_child(int runs_another)
{
	pid_t pid = vfork();

	if (pid < 0 || pid_count == CHILDREN_MAX)
		exit(1);
	if (pid == 0) {
		if (runs_another)
			execl("/bin/true", "true", NULL);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	pids[pid_count++] = pid;
}

static void *end_at_once(void *nothing)
{
	return nothing;
}

static void make_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, end_at_once, NULL))
		exit(1);
	pthread_join(thread, NULL);
}

int main(void)
{
	char word[16];
	int count;

	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	puts("ready");
	fflush(stdout);
	while (scanf("%15s", word) == 1) {
		if (!strcmp(word, "pids")) {
			for (int i = 0; i < pid_count; i++)
				printf("%d\n", pids[i]);
		} else if (scanf("%d", &count) == 1) {
			for (int i = 0; i < count; i++) {
				if (!strcmp(word, "threads"))
					make_thread();
				else
					make_child(!strcmp(word, "exec"));
			}
		}
		puts("done");
		fflush(stdout);
	}
	return 0;
}
