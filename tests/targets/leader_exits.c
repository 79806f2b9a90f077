/* leader_exits: its main thread ends, another one touches 1,009 pages, prints
 * "ready" once the main thread is ending, and lives until its input ends. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

enum { PAGES = 1009 };

static void *survive(void *main_thread)
{
	size_t bytes = PAGES * (size_t)sysconf(_SC_PAGESIZE);
	char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char line[8];

	if (pages == MAP_FAILED)
		exit(1);
	madvise(pages, bytes, MADV_NOHUGEPAGE);
	memset(pages, 1, bytes);
	/* The kernel clears a thread's id while it ends, so it may need a moment more after this. */
	pthread_join(*(pthread_t *)main_thread, NULL);
	if (write(STDOUT_FILENO, "ready\n", 6) < 0)
		exit(1);
	while (read(STDIN_FILENO, line, sizeof(line)) > 0)
		;
	exit(0);
}

int main(void)
{
	static pthread_t main_thread;
	pthread_t survivor;

	main_thread = pthread_self();
	if (pthread_create(&survivor, NULL, survive, &main_thread))
		return 1;
	pthread_exit(NULL);
}
