/* pages NAME: calls itself NAME, prints "ready"; for each line N touches N more
 * pages of its own and prints "done". */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static void say(const char *word)
{
	if (write(STDOUT_FILENO, word, strlen(word)) < 0)
		exit(1);
}

int main(int argc, char **argv)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	char line[32];

	if (argc > 1)
		prctl(PR_SET_NAME, argv[1]);
	say("ready\n");
	for (;;) {
		/* No stdio: its buffer would be touched at the first line and counted. */
		ssize_t got = read(STDIN_FILENO, line, sizeof(line) - 1);
		size_t bytes;
		char *pages;

		if (got <= 0)
			return 0;
		line[got] = '\0';
		bytes = strtoul(line, NULL, 10) * page_bytes;
		pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (pages == MAP_FAILED)
			return 1;
		/* A huge page would count 512 at the first touch. */
		madvise(pages, bytes, MADV_NOHUGEPAGE);
		for (size_t offset = 0; offset < bytes; offset += page_bytes)
			pages[offset] = 1;
		say("done\n");
	}
}
