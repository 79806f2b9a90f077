/* prices.c - how long the things take that we put programs on, in one thread.
 *
 * Prints "ready", then answers each line with nanoseconds of one:
 *   pairs COUNT SIZE   malloc(SIZE) and free
 *   faults COUNT       first write to a fresh page
 *   calls COUNT        getppid(), a system call that does nothing
 * and "where malloc", "where free" with an address in hexadecimal. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void *volatile kept;

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double pairs(unsigned long count, unsigned long size)
{
	double start = now_ns();

	for (unsigned long i = 0; i < count; i++) {
		kept = malloc(size);
		free(kept);
	}
	return now_ns() - start;
}

static double faults(unsigned long count)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *area = mmap(NULL, count * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	double start, taken;

	if (area == MAP_FAILED)
		exit(1);
	madvise(area, count * page, MADV_NOHUGEPAGE);
	start = now_ns();
	for (unsigned long i = 0; i < count; i++)
		area[i * page] = 1;
	taken = now_ns() - start;
	munmap(area, count * page);
	return taken;
}

static double calls(unsigned long count)
{
	double start = now_ns();

	for (unsigned long i = 0; i < count; i++)
		syscall(SYS_getppid);
	return now_ns() - start;
}

int main(void)
{
	static char output[4096];
	char line[128];

	setvbuf(stdout, output, _IOLBF, sizeof(output));
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		unsigned long count, size;

		if (!strcmp(line, "where malloc\n"))
			printf("%lx\n", (uintptr_t)malloc);
		else if (!strcmp(line, "where free\n"))
			printf("%lx\n", (uintptr_t)free);
		else if (sscanf(line, "pairs %lu %lu", &count, &size) == 2)
			printf("%.1f\n", pairs(count, size) / (double)count);
		else if (sscanf(line, "faults %lu", &count) == 1)
			printf("%.1f\n", faults(count) / (double)count);
		else if (sscanf(line, "calls %lu", &count) == 1)
			printf("%.1f\n", calls(count) / (double)count);
		else
			return 1;
	}
	return 0;
}
