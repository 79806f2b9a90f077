/* allocations.c - allocates exactly what it is told, and nothing for itself.
 *
 * Prints "ready", then answers each line of its input:
 *   where SYMBOL        the address of a function, in hexadecimal
 *   leak CALL COUNT     COUNT blocks of 1000, 1001, ... bytes by CALL, never freed
 *   pairs COUNT SIZE    COUNT times malloc(SIZE) and free
 *   churn COUNT SIZE    the same, the frees COUNT later: COUNT blocks live, then none
 *   move                reallocs of every kind; prints the addresses
 *   fail                calls that give no block
 *   escape COUNT        COUNT calls of layered_malloc() that leave by longjmp
 *   layered COUNT       COUNT calls of layered_malloc() that return
 *   map                 mmap, a part given back, mremap; prints the addresses
 * Its input and output are plain system calls: stdio would allocate. */

#include <dlfcn.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	FIRST_SIZE = 1000,
	ALIGNMENT = 64,
	LINE_BYTES = 256,
};

static jmp_buf escape;
static int escapes;
static void *volatile kept;
static void *(*operator_new)(size_t);

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		_exit(1);
}

/* vsnprintf() of these formats allocates nothing. */
static void say_number(const char *format, unsigned long number)
{
	char text[64];

	snprintf(text, sizeof(text), format, number);
	say(text);
}

/* What a higher allocator layer does: asks the one below. */
__attribute__((noinline)) void *layered_malloc(size_t size)
{
	void *block = malloc(size);

	if (escapes)
		longjmp(escape, 1);
	memset(block, 1, 1);
	return block;
}

static void leak(const char *call, unsigned long count)
{
	for (unsigned long i = 0; i < count; i++) {
		size_t size = FIRST_SIZE + i;
		void *block = NULL;

		if (!strcmp(call, "malloc"))
			block = malloc(size);
		else if (!strcmp(call, "calloc"))
			block = calloc(size, 1);
		else if (!strcmp(call, "realloc"))
			block = realloc(NULL, size);
		else if (!strcmp(call, "reallocarray"))
			block = reallocarray(NULL, size, 1);
		else if (!strcmp(call, "aligned_alloc"))
			block = aligned_alloc(ALIGNMENT, size);
		else if (!strcmp(call, "memalign"))
			block = memalign(ALIGNMENT, size);
		else if (!strcmp(call, "valloc"))
			block = valloc(size);
		else if (!strcmp(call, "pvalloc"))
			block = pvalloc(size);
		else if (!strcmp(call, "posix_memalign") && posix_memalign(&block, ALIGNMENT, size))
			block = NULL;
		else if (!strcmp(call, "_Znwm"))
			block = operator_new(size);
		if (!block)
			_exit(2);
		kept = block;
	}
}

static void churn(unsigned long count, size_t size)
{
	void **blocks = mmap(NULL, count * sizeof(*blocks), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (unsigned long i = 0; i < count; i++)
		blocks[i] = malloc(size);
	for (unsigned long i = 0; i < count; i++)
		free(blocks[i]);
	munmap(blocks, count * sizeof(*blocks));
}

static void move(void)
{
	void *small = malloc(100);
	uintptr_t small_address = (uintptr_t)small;
	void *large = realloc(small, 1 << 20);
	uintptr_t large_address = (uintptr_t)large;
	void *same;

	say_number("%lx ", small_address);
	say_number("%lx ", large_address);
	same = realloc(large, SIZE_MAX / 4); /* fails: the block stays */
	if (same)
		_exit(2);
	kept = realloc(large, 0); /* glibc: freed, no block */
	say_number("%lx\n", (unsigned long)(uintptr_t)kept);
}

static void fail(void)
{
	size_t huge = SIZE_MAX / 4;
	void *block = NULL;

	__asm__("" : "+r"(huge)); /* the compiler would refuse such sizes */
	kept = malloc(huge);
	kept = calloc(huge, 8);
	kept = calloc(huge, 2);
	kept = realloc(NULL, huge);
	kept = reallocarray(NULL, huge, 8);
	if (!posix_memalign(&block, ALIGNMENT, huge))
		_exit(2);
}

static void layered(unsigned long count, int escaping)
{
	for (volatile unsigned long i = 0; i < count; i++) {
		escapes = escaping;
		if (!setjmp(escape))
			kept = layered_malloc(FIRST_SIZE);
	}
	escapes = 0;
}

static void map(void)
{
	size_t page = 4096;
	char *place = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	say_number("%lx ", (uintptr_t)place);
	munmap(place + page, 2 * page);
	munmap(place + 1, page); /* not aligned: refused */
	place = mremap(place + 3 * page, 5 * page, 64 * page, MREMAP_MAYMOVE);
	say_number("%lx\n", (uintptr_t)place);
}

/* Move the heap's end up by six pages and down by two; say where it was before. */
static void heap(void)
{
	intptr_t page = 4096;
	uintptr_t end = (uintptr_t)sbrk(0);

	if (sbrk(6 * page) == (void *)-1 || sbrk(-2 * page) == (void *)-1)
		_exit(2);
	say_number("%lx\n", end);
}

static void act(const char *line)
{
	char word[32];
	unsigned long count, size;

	if (!strcmp(line, "where layered_malloc"))
		say_number("%lx\n", (uintptr_t)layered_malloc); /* not exported */
	else if (sscanf(line, "where %31s", word) == 1)
		say_number("%lx\n", (uintptr_t)dlsym(RTLD_DEFAULT, word));
	else if (sscanf(line, "leak %31s %lu", word, &count) == 2)
		leak(word, count), say("done\n");
	else if (sscanf(line, "pairs %lu %lu", &count, &size) == 2) {
		while (count--) {
			kept = malloc(size);
			free(kept);
		}
		say("done\n");
	} else if (sscanf(line, "churn %lu %lu", &count, &size) == 2)
		churn(count, size), say("done\n");
	else if (!strcmp(line, "move"))
		move();
	else if (!strcmp(line, "fail"))
		fail(), say("done\n");
	else if (sscanf(line, "escape %lu", &count) == 1)
		layered(count, 1), say("done\n");
	else if (sscanf(line, "layered %lu", &count) == 1)
		layered(count, 0), say("done\n");
	else if (!strcmp(line, "map"))
		map();
	else if (!strcmp(line, "heap"))
		heap();
	else
		_exit(3);
}

int main(void)
{
	char line[LINE_BYTES];
	size_t used = 0;

	/* C++'s allocator, without being a C++ program; loading it allocates, so at once. */
	operator_new = (void *(*)(size_t))dlsym(dlopen("libstdc++.so.6", RTLD_NOW | RTLD_GLOBAL), "_Znwm");
	say("ready\n");
	while (used < sizeof(line) && read(STDIN_FILENO, line + used, 1) == 1) {
		if (line[used++] != '\n')
			continue;
		line[used - 1] = '\0';
		used = 0;
		act(line);
	}
	return 0;
}
