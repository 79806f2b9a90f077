/* heap.c - a heap of a known shape, and what glibc itself says of it.
 *
 *     heap fragmented|fast|threads|big|mmapped [MiB]
 *
 * Prints one line, "ready SYSTEM IN_USE MMAPPED": what malloc_info() says all
 * arenas got, what mallinfo2() says is in use and mapped singly; then waits for
 * its input to close.  A C library before 2.33 has no mallinfo2(): there the
 * heap must stay below 2 GiB.  (malloc_info() is no witness for what is in use: it adds
 * up size fields with their flag bits, a byte too much for each free chunk.) */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* weak: not everywhere */
__attribute__((weak)) struct mallinfo2 mallinfo2(void);

enum { THREADS = 64 };

static pthread_barrier_t filled, told;

static void fill(size_t bytes, size_t size_min, size_t size_span, size_t keep_one_in)
{
	size_t count = bytes / (size_min + size_span / 2);
	void **blocks = malloc(count * sizeof(*blocks));

	for (size_t i = 0; i < count; i++) {
		size_t size = size_min + (i * 7919) % (size_span + 1);

		blocks[i] = malloc(size);
		memset(blocks[i], 0x5a, size);
	}
	for (size_t i = 0; i < count; i++)
		if (i % keep_one_in)
			free(blocks[i]);
	/* blocks itself stays: it is in use */
}

static void *run(void *megabytes)
{
	fill((size_t)megabytes << 20, 40, 900, 7);
	pthread_barrier_wait(&filled);
	pthread_barrier_wait(&told);
	return NULL;
}

static struct mallinfo2 malloc_figures(void)
{
	struct mallinfo2 figures = {0};

	if (mallinfo2)
		return mallinfo2();
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	struct mallinfo older = mallinfo();

	figures.uordblks = (unsigned int)older.uordblks;
	figures.hblkhd = (unsigned int)older.hblkhd;
	return figures;
}

static void tell(void)
{
	char *text = NULL, *at;
	size_t size = 0, system_bytes = 0;
	FILE *file = open_memstream(&text, &size);
	struct mallinfo2 info;

	malloc_info(0, file);
	fclose(file);
	/* behind the last </heap> stand the totals */
	at = text;
	for (char *next; (next = strstr(at, "</heap>")); at = next + 1)
		;
	sscanf(strstr(at, "type=\"current\""), "type=\"current\" size=\"%zu\"", &system_bytes);
	info = malloc_figures();
	printf("ready %zu %zu %zu\n", system_bytes, info.uordblks, info.hblkhd);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *shape = argc > 1 ? argv[1] : "fragmented";
	size_t megabytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 200;
	pthread_t thread;
	char line[8];

	/* stdout's buffer must not come and go between the count and the look */
	static char buffer[4096];
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	if (!strcmp(shape, "fragmented")) {
		fill(megabytes << 20, 200, 300, 100);
	} else if (!strcmp(shape, "fast")) {
		fill(megabytes << 20, 24, 80, 3);
	} else if (!strcmp(shape, "threads")) {
		pthread_barrier_init(&filled, NULL, THREADS + 1);
		pthread_barrier_init(&told, NULL, THREADS + 1);
		for (int i = 0; i < THREADS; i++)
			pthread_create(&thread, NULL, run, (void *)(megabytes / THREADS));
		pthread_barrier_wait(&filled);
	} else if (!strcmp(shape, "big")) {
		fill(megabytes << 20, 100, 4000, 2);
	} else {
		for (size_t i = 0; i < 23; i++)
			memset(malloc((megabytes << 20) / 23), 1, 4096);
	}
	tell();
	while (read(0, line, sizeof(line)) > 0) /* not by stdio: it would allocate a buffer */
		;
	return 0;
}
