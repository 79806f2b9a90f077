/* crowd COUNT: so many threads, each of which allocates and frees a block now and
 * then, and one that leaks 2000 bytes a millisecond, by the clock.  It says
 * "ready" when all run, and goes on until its input ends. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STACK_BYTES = 64 << 10, REST_MS = 2000 };

static void *leaked;

__attribute__((noinline)) void leak(void)
{
	void **block = malloc(2000);

	memset(block, 7, 2000);
	block[1] = leaked;
	leaked = block;
}

/* Threads rest for different times, so that they do not all wake at once. */
static void *work(void *number)
{
	for (;;) {
		void *block = malloc(300);

		memset(block, 8, 300);
		__asm__ volatile("" : : "r"(block) : "memory");
		free(block);
		poll(NULL, 0, REST_MS + (int)((size_t)number % REST_MS));
	}
	return NULL;
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	pthread_attr_t attributes;
	pthread_t thread;
	long began_ms, done = 0;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	for (size_t i = 0; i < count; i++)
		if (pthread_create(&thread, &attributes, work, (void *)i))
			return 1;
	puts("ready");
	fflush(stdout);
	began_ms = now_ms();
	while (poll(&input, 1, 1) == 0)
		for (long due = now_ms() - began_ms; done < due; done++)
			leak();
	return 0;
}
