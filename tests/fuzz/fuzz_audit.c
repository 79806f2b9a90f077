/* Feeds made-up heap memory to the audit that tells which remembered blocks still live.  It reads a
 * process, so this one stands in for it: the memory is a mapping of its own. */

#include "audit.h"
#include "fuzz_input.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	MEMORY_BYTES = 1 << 16, /* four of pymalloc's pools */
	BLOCKS_MAX = 32,
};

static uint8_t *memory;

static void run(const struct mw_audit_target *target, struct mw_block *blocks, uint32_t count)
{
	struct mw_audit_report report;

	if (mw_audit_run(target, blocks, count, &report))
		abort();
	if (report.alive + report.freed + report.unknown != count)
		abort();
	for (uint32_t i = 0; i < count; i++)
		if (blocks[i].state < MW_SETTLED_ALIVE || blocks[i].state > MW_SETTLED_UNKNOWN)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	struct mw_audit_target target = {.pid = (uint32_t)getpid()};
	struct mw_block blocks[BLOCKS_MAX] = {{0}};
	uint32_t count = take_u8(&input) % (BLOCKS_MAX + 1);

	if (!memory) {
		/* A page that cannot be read on either side: the process goes on there, its memory does not. */
		uint8_t *mapped = mmap(NULL, MEMORY_BYTES + (2 << 14), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (mapped == MAP_FAILED)
			abort();
		memory = (uint8_t *)(((uintptr_t)mapped + (1 << 14)) & ~(uintptr_t)((1 << 14) - 1));
		if (mprotect(memory, MEMORY_BYTES, PROT_READ | PROT_WRITE))
			abort();
	}
	target.native_layout = take_u8(&input) & 1 ? MW_LAYOUT_GLIBC : MW_LAYOUT_OPAQUE;
	target.python_layout = 1 + take_u8(&input) % 3;
	for (uint32_t i = 0; i < count; i++) {
		blocks[i].address = (uintptr_t)memory + take_u16(&input) / 8 * 8;
		blocks[i].size_bytes = take_u16(&input);
		blocks[i].domain = 1 + take_u8(&input) % 4;
		blocks[i].reuses = take_u8(&input);
		blocks[i].time_ns = i + 1;
	}
	take(&input, memory, MEMORY_BYTES);
	/* What lies there may be links, and those would be absolute. */
	for (size_t i = 0; i + 8 <= MEMORY_BYTES; i += 256) {
		uint64_t word;

		memcpy(&word, memory + i, sizeof(word));
		if (word && word < MEMORY_BYTES) {
			word += (uintptr_t)memory;
			memcpy(memory + i, &word, sizeof(word));
		}
	}
	run(&target, blocks, count);
	memory[count * 64] ^= 0xFF;
	run(&target, blocks, count);
	return 0;
}
