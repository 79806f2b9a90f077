/* stretches.c - a mapping of which every other 4 pages are there: 1,601 stretches
 * of present pages, more than the kernel tells at a time. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, STRETCH = 4 * PAGE, STRETCHES = 1601 };

int main(void)
{
	char *map = mmap(NULL, 2L * STRETCHES * STRETCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char line[8];

	if (map == MAP_FAILED || madvise(map, 2L * STRETCHES * STRETCH, MADV_NOHUGEPAGE))
		return 1;
	for (long i = 0; i < STRETCHES; i++)
		memset(map + 2 * i * STRETCH, 1, STRETCH);
	puts("ready");
	fflush(stdout);
	while (read(0, line, sizeof(line)) > 0)
		;
	return 0;
}
