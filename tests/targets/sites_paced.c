/* Four allocation sites at known rates, by the clock: churn, a bounded cache and
 * two leaks.  Paced, so that what probes take of its time does not change the
 * truth: LEAK_SMALL 90,000 and LEAK_LARGE 300,000 bytes per second.
 *
 * It says "ready", and from then on does a round per millisecond until its
 * standard input ends. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CACHED = 20000, CHURNED = 176, CACHED_PER_ROUND = 10 };

static long serial = 1;
static void *cached[CACHED];
static void *leaked;

/* As data is: some words are the same for all of a kind, some each block's own. */
static void *fill(void *block, unsigned size, int site)
{
	memset(block, site, size);
	for (unsigned at = 0; at + 8 <= size && at < 64; at += 16) {
		long own = serial * 2654435761l + at;
		memcpy((char *)block + at, &own, sizeof(own));
	}
	serial++;
	return block;
}

__attribute__((noinline)) void churn(void)
{
	for (int i = 0; i < CHURNED; i++) {
		void *block = fill(malloc(100), 100, 1);

		__asm__ volatile("" : : "r"(block) : "memory");
		free(block);
	}
}

__attribute__((noinline)) void cache(long number)
{
	for (int i = 0; i < CACHED_PER_ROUND; i++) {
		long at = (number * CACHED_PER_ROUND + i) % CACHED;

		free(cached[at]);
		cached[at] = fill(malloc(120), 120, 2);
	}
}

__attribute__((noinline)) void leak_small(void)
{
	void **block = fill(malloc(90), 90, 3);

	block[1] = leaked;
	leaked = block;
}

__attribute__((noinline)) void leak_large(void)
{
	void **block = fill(malloc(3000), 3000, 4);

	block[1] = leaked;
	leaked = block;
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(void)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	long began, number = 0;

	for (; number < 2 * CACHED / CACHED_PER_ROUND; number++)
		cache(number);
	puts("ready");
	fflush(stdout);
	began = now_ms() - number;
	while (poll(&input, 1, 1) == 0) {
		for (long due = now_ms() - began; number < due; number++) {
			churn();
			cache(number);
			leak_small();
			if (number % 10 == 0)
				leak_large();
		}
	}
	return 0;
}
