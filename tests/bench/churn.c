/* churn.c - a program that does little but malloc and free: 10,000 blocks of 16 to 1,039 bytes live
 * at any time, filled when made, freed in random order.
 *
 * Its argument is a file of eight bytes; it counts there what it has done. It says "ready" and goes
 * on until its standard input ends. */

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LIVE = 10000, BATCH = 1000 };

static void *blocks[LIVE];

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

int main(int argc, char **argv)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	int fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
	uint32_t state = 2463534242u;
	volatile uint64_t *done;

	done = mmap(NULL, sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (done == MAP_FAILED)
		return 1;
	puts("ready");
	fflush(stdout);
	while (poll(&input, 1, 0) == 0) {
		for (int i = 0; i < BATCH; i++) {
			uint32_t random = next_random(&state);
			size_t size = 16 + (random >> 16) % 1024;
			void **block = &blocks[random % LIVE];

			free(*block);
			*block = malloc(size);
			if (!*block)
				return 1;
			memset(*block, (int)random, size);
		}
		*done += BATCH;
	}
	return 0;
}
