/* Four allocation sites whose truth is known: churn, a bounded cache and two
 * leaks.  On a line "COUNT LOG" it does COUNT rounds; with LOG 1 it then prints
 * "address size site" of each block it asked for, which is what probes would
 * have told, and "done" in the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHURN = 1, CACHE = 2, LEAK = 3, LEAK_LARGE = 4, CACHED = 5000, LOGGED = 1 << 20 };

static struct {
	void *address;
	unsigned size;
	int site;
} events[LOGGED];

static int event_count, is_logging;
static long serial = 1;
static void *cached[CACHED];

static void *ask(unsigned size, int site)
{
	void *block = malloc(size);

	/* As data is: some words are the same for all of a kind, some are each
	 * block's own. */
	memset(block, site, size);
	for (unsigned at = 0; at + 8 <= size && at < 64; at += 16) {
		long own = serial * 2654435761l + at;
		memcpy((char *)block + at, &own, sizeof(own));
	}
	serial++;
	if (is_logging && event_count < LOGGED) {
		events[event_count].address = block;
		events[event_count].size = size;
		events[event_count].site = site;
	}
	event_count++;
	return block;
}

static void do_round(long number)
{
	static void *leaked;

	for (int i = 0; i < 50; i++)
		free(ask(100, CHURN));
	for (int i = 0; i < 20; i++) {
		int at = (number * 20 + i) % CACHED;

		free(cached[at]);
		cached[at] = ask(120, CACHE);
	}
	/* Kept reachable, the older one in the newer. */
	*((void **)ask(90, LEAK) + 1) = leaked;
	if (number % 10 == 0)
		leaked = ask(3000, LEAK_LARGE);
}

int main(void)
{
	static char output[1 << 16];
	char line[64];
	long number = 0;

	setvbuf(stdout, output, _IOFBF, sizeof(output));
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		char *end;
		long count = strtol(line, &end, 10);

		is_logging = strtol(end, NULL, 10) != 0;
		event_count = 0;
		for (long i = 0; i < count; i++)
			do_round(number++);
		for (int i = 0; is_logging && i < event_count; i++)
			printf("%lx %u %d\n", (unsigned long)events[i].address, events[i].size, events[i].site);
		puts("done");
		fflush(stdout);
	}
	return 0;
}
