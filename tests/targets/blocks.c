/* Allocates blocks in known ways and says which of them live: the truth for the
 * audit of glibc's heap.  Prints "address size alive" per block, then "ready",
 * and ends with its input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 6000 };

static struct {
	void *block;
	size_t size;
	int alive;
} blocks[BLOCKS];

static unsigned random_state = 1;

static unsigned roll(unsigned below)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % below;
}

/* Sizes of every kind: tcache, fast bins, small and large bins, mappings. */
static size_t any_size(void)
{
	switch (roll(8)) {
	case 0:
		return roll(25);
	case 1:
		return 2000 + roll(60000);
	case 2:
		return roll(50) ? 1024 + roll(100) : 300000;
	default:
		return 24 + roll(500);
	}
}

int main(void)
{
	static char output[1 << 16];
	char line[16];

	/* stdio's own buffer must not take the place of a freed block. */
	setvbuf(stdout, output, _IOFBF, sizeof(output));
	setvbuf(stdin, line, _IONBF, 0);
	for (int i = 0; i < BLOCKS; i++) {
		blocks[i].size = any_size();
		blocks[i].block = malloc(blocks[i].size);
		/* Distinct contents, so that no two blocks look alike. */
		for (size_t at = 0; at + 8 <= blocks[i].size && at < 64; at += 8) {
			unsigned long word = (i + 1) * 2654435761ul + at;
			memcpy((char *)blocks[i].block + at, &word, 8);
		}
		blocks[i].alive = 1;
	}
	for (int i = 0; i < BLOCKS; i++) {
		if (roll(2)) {
			free(blocks[i].block);
			blocks[i].alive = 0;
		}
	}
	for (int i = 0; i < BLOCKS; i++)
		printf("%lx %zu %d\n", (unsigned long)blocks[i].block, blocks[i].size, blocks[i].alive);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		;
	return 0;
}
