/* Calls what it is told, exactly as often as it is told: "CALL COUNT" on a
 * line.  Prints with write(2), so that it allocates nothing of its own.
 * "threads COUNT" calls malloc and free in four threads; "churn MS" as often as
 * it can, and says how often. */

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEPT = 4096, THREADS = 4 };
static void *volatile kept[KEPT];

static void say(const char *text)
{
	if (write(1, text, strlen(text)) < 0)
		_exit(1);
}

static void *churn_some(void *count)
{
	for (long i = *(long *)count; i > 0; i--) {
		void *volatile block = malloc(24);

		free(block);
	}
	return NULL;
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void churn_for(long ms)
{
	long end = now_ms() + ms, calls = 0, batch = 100;
	char text[32];

	while (now_ms() < end) {
		churn_some(&batch);
		calls += batch;
	}
	snprintf(text, sizeof(text), "%ld\n", calls);
	say(text);
}

/* Some libraries make a jump table of such names: by pointer, so that no call is folded away. */
static void *(*volatile call_malloc)(size_t) = malloc;
static void *(*volatile call_calloc)(size_t, size_t) = calloc;
static void *(*volatile call_realloc)(void *, size_t) = realloc;
static void (*volatile call_free)(void *) = free;
static int (*volatile call_posix_memalign)(void **, size_t, size_t) = posix_memalign;
static void *(*volatile call_aligned_alloc)(size_t, size_t) = aligned_alloc;

static void act(const char *call, long count)
{
	for (long i = 0; i < count; i++) {
		void *block = kept[i % KEPT];

		if (!strcmp(call, "malloc"))
			kept[i % KEPT] = call_malloc(24);
		else if (!strcmp(call, "calloc"))
			kept[i % KEPT] = call_calloc(3, 7);
		else if (!strcmp(call, "realloc"))
			kept[i % KEPT] = call_realloc(block, 48);
		else if (!strcmp(call, "posix_memalign"))
			call_posix_memalign((void **)&kept[i % KEPT], 64, 24);
		else if (!strcmp(call, "aligned_alloc"))
			kept[i % KEPT] = call_aligned_alloc(64, 128);
		else if (!strcmp(call, "free")) {
			call_free(block);
			kept[i % KEPT] = NULL;
		} else if (!strcmp(call, "free_null"))
			call_free(NULL);
	}
}

int main(void)
{
	static char line[64];
	pthread_t threads[THREADS];

	/* The arenas and thread stacks that come with first use, before anybody counts. */
	long warm = 10;

	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, churn_some, &warm);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	say("ready\n");
	for (;;) {
		char call[32];
		long count = 0;
		ssize_t got = read(0, line, sizeof(line) - 1);

		if (got <= 0)
			return 0;
		line[got] = '\0';
		if (sscanf(line, "%31s %ld", call, &count) < 1)
			continue;
		if (!strcmp(call, "churn")) {
			churn_for(count);
			continue;
		}
		if (!strcmp(call, "threads")) {
			for (int i = 0; i < THREADS; i++)
				pthread_create(&threads[i], NULL, churn_some, &count);
			for (int i = 0; i < THREADS; i++)
				pthread_join(threads[i], NULL);
		} else {
			act(call, count);
		}
		say("done\n");
	}
}
