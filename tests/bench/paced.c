/* paced.c - malloc/free pairs at a steady rate: paced PAIRS_PER_SECOND.
 *
 * It says "ready"; each line "go SECONDS" is done, a batch per millisecond, and
 * answered with the number of pairs. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void *volatile kept;

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* What a late wake-up has missed is made up for: the rate holds on average. */
static uint64_t run(uint64_t pairs_per_second, uint64_t seconds)
{
	const struct timespec millisecond = {.tv_nsec = 1000000};
	uint64_t begin_us = now_us(), done = 0, passed_us;

	while ((passed_us = now_us() - begin_us) < seconds * 1000000) {
		for (uint64_t due = passed_us * pairs_per_second / 1000000; done < due; done++) {
			kept = malloc(64);
			free(kept);
		}
		nanosleep(&millisecond, NULL);
	}
	return done;
}

int main(int argc, char **argv)
{
	uint64_t pairs_per_second = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	unsigned long seconds;
	char line[64];

	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "go %lu", &seconds) != 1)
			return 1;
		printf("%lu\n", (unsigned long)run(pairs_per_second, seconds));
		fflush(stdout);
	}
	return 0;
}
