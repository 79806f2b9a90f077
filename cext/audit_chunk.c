/* audit_chunk.c - glibc's blocks, judged by their own words and their
 * neighbours'; the arenas are not walked.  Offsets are glibc's since 2.0. */

#include <stdbool.h>
#include <string.h>

#include "audit_parts.h"
#include "remote.h"

enum {
	PREV_INUSE = 1,
	IS_MMAPPED = 2,
	NON_MAIN_ARENA = 4,
	FLAGS = 7,
	CHUNK_BYTES_MIN = 32,
	CHUNK_ALIGN = 16,
	/* The rest of a chunk that is too small to be split off (memalign: MINSIZE). */
	SLACK_BYTES_MAX = 32,
	/* sizeof(struct tcache_perthread_struct) + header, 2.29 and 2.30 to 2.31: the key is its address. */
	TCACHE_CHUNK_2_29 = 0x250 | PREV_INUSE,
	TCACHE_CHUNK_2_30 = 0x290 | PREV_INUSE,
	FAST_CHUNK_MAX = 128, /* M_MXFAST's default, with the header */
	LOOKS = 4,	      /* second reads per block */
};

static const uint64_t address_end = 1ull << 47; /* of user space; 5-level heaps are above only if asked for */

struct chunk {
	uint64_t previous_bytes; /* valid if the chunk before is free */
	uint64_t size;		 /* with flags */
	uint64_t words[MW_AUDIT_WORDS];
};

/* What the second round brings, one word or three each. */
struct look {
	uint64_t next_size;	/* of the chunk behind */
	uint64_t previous_size; /* of the free chunk before */
	uint64_t linked[3];	/* around where word 0 links to: -8, 0, +8 */
	uint64_t key_size;	/* before where word 1 points to */
};

static uint64_t bytes_of(uint64_t size)
{
	return size & ~(uint64_t)FLAGS;
}

/* The link in a tcache or fast bin: mangled with its own place since 2.32. */
static uint64_t link_of(const struct mw_block *block, const struct chunk *chunk)
{
	return chunk->words[0] ^ block->address >> 12;
}

static bool is_address(uint64_t address)
{
	return address > 4096 && address < address_end && !(address % CHUNK_ALIGN);
}

/* Whether a chunk of this size may have been made for the block. */
static bool is_size_of(const struct mw_block *block, const struct chunk *chunk)
{
	uint64_t bytes = bytes_of(chunk->size), asked = block->size_bytes;
	uint64_t needed = (asked + 8 + CHUNK_ALIGN - 1) & ~(uint64_t)(CHUNK_ALIGN - 1);

	if (needed < asked)
		return false;
	/* A mapping of its own: whole pages, aligned ones with some in front. */
	if (chunk->size & IS_MMAPPED)
		return bytes >= needed && bytes - needed <= asked + (1 << 16);
	if (needed < CHUNK_BYTES_MIN)
		needed = CHUNK_BYTES_MIN;
	return !(bytes % CHUNK_ALIGN) && bytes >= needed && bytes - needed <= SLACK_BYTES_MAX;
}

/* A tcache links to the block, a fast bin to its chunk; the last one nowhere. */
static bool is_linked(const struct mw_block *block, const struct chunk *chunk, const struct look *look)
{
	uint64_t link = link_of(block, chunk), bytes = bytes_of(chunk->size);

	return !link ||
	       (is_address(link) && (bytes_of(look->linked[0]) == bytes || bytes_of(look->linked[2]) == bytes));
}

/* glibc 2.29 to 2.31: word 1 of what lies in a tcache is the tcache's address,
 * and word 0 a plain link.  A living word 1 may point at anything, even behind
 * a number like a tcache's size (Python's 594), hence both, and the flags. */
static bool is_keyed(const struct chunk *chunk, const struct look *look)
{
	uint64_t key_size = look->key_size & ~(uint64_t)NON_MAIN_ARENA, link = chunk->words[0];

	return (!link || is_address(link)) && is_address(chunk->words[1]) &&
	       (key_size == TCACHE_CHUNK_2_29 || key_size == TCACHE_CHUNK_2_30);
}

/* CPython's debug hooks put the size, big-endian, and a letter before seven
 * times 0xfd in front of a block; freeing overwrites both. */
static bool is_debug_block(const struct mw_block *block, const struct chunk *chunk)
{
	return __builtin_bswap64(chunk->previous_bytes) == block->size_bytes && chunk->size >> 8 == 0xfdfdfdfdfdfdfdull;
}

static void free_block(struct mw_block *block, uint64_t *counter)
{
	(*counter)++;
	block->state = MW_SETTLED_FREED;
}

static void judge(struct mw_block *block, const struct chunk *chunk, const struct look *look,
		  struct mw_audit_report *report)
{
	bool is_mapped = chunk->size & IS_MMAPPED;

	if (is_debug_block(block, chunk))
		mw_audit_alive(block, chunk->words, report);
	else if (!is_size_of(block, chunk))
		free_block(block, &report->chunks_melted);
	else if (!is_mapped && is_keyed(chunk, look))
		free_block(block, &report->chunks_linked);
	else if (!is_mapped && is_linked(block, chunk, look) && chunk->words[1] && block->size_bytes >= 8)
		free_block(block, &report->chunks_linked);
	/* A tcache clears word 1 when it gives a block out, and leaves the link
	 * until the program writes there: alive. But what lies in a fast bin
	 * with a zero of the program's looks the same. */
	else if (!is_mapped && is_linked(block, chunk, look) && bytes_of(chunk->size) <= FAST_CHUNK_MAX)
		block->state = MW_SETTLED_UNKNOWN;
	else if (!is_mapped && !(look->next_size & PREV_INUSE))
		free_block(block, &report->chunks_binned);
	/* A header left behind inside of a larger free chunk or the top: what
	 * it says of the chunk before is not true any more. */
	else if (!is_mapped && !(chunk->size & PREV_INUSE) && bytes_of(look->previous_size) != chunk->previous_bytes)
		free_block(block, &report->chunks_melted);
	else
		mw_audit_alive(block, chunk->words, report);
}

/* Ask for what the first words point at; return how many ranges that are. */
static uint32_t wish(const struct mw_block *block, const struct chunk *chunk, struct look *look,
		     struct mw_remote_range *ranges, uint64_t **places)
{
	uint64_t start = block->address - 16, link = link_of(block, chunk), key = chunk->words[1];
	uint64_t previous_bytes = chunk->previous_bytes;
	uint32_t count = 0;

	if (chunk->size & IS_MMAPPED || !is_size_of(block, chunk))
		return 0;
	places[count] = &look->next_size;
	ranges[count++] = (struct mw_remote_range){.address = start + bytes_of(chunk->size) + 8, .size_bytes = 8};
	if (!(chunk->size & PREV_INUSE) && previous_bytes < start && !(previous_bytes % CHUNK_ALIGN)) {
		places[count] = &look->previous_size;
		ranges[count++] = (struct mw_remote_range){.address = start - previous_bytes + 8, .size_bytes = 8};
	}
	if (is_address(link)) {
		places[count] = look->linked;
		ranges[count++] = (struct mw_remote_range){.address = link - 8, .size_bytes = 24};
	}
	if (is_address(key)) {
		places[count] = &look->key_size;
		ranges[count++] = (struct mw_remote_range){.address = key - 8, .size_bytes = 8};
	}
	return count;
}

int mw_audit_chunks(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		    struct mw_audit_report *report)
{
	struct mw_remote_range ranges[MW_AUDIT_BATCH * LOOKS];
	uint64_t *places[MW_AUDIT_BATCH * LOOKS], words[MW_AUDIT_BATCH * LOOKS * 3], *from = words;
	uint32_t read_bytes[MW_AUDIT_BATCH], wishes = 0;
	struct chunk chunks[MW_AUDIT_BATCH];
	struct look looks[MW_AUDIT_BATCH];
	int result;

	_Static_assert(MW_AUDIT_BATCH * LOOKS <= MW_REMOTE_RANGES_MAX, "more looks than one call reads");
	for (uint32_t i = 0; i < count; i++)
		ranges[i] = (struct mw_remote_range){.address = blocks[i]->address - 16, .size_bytes = sizeof(*chunks)};
	result = mw_remote_read_ranges(target->pid, ranges, count, chunks, sizeof(chunks));
	if (result)
		return result;
	memset(looks, 0, sizeof(looks));
	for (uint32_t i = 0; i < count; i++)
		read_bytes[i] = ranges[i].read_bytes;
	for (uint32_t i = 0; i < count; i++)
		wishes += wish(blocks[i], &chunks[i], &looks[i], &ranges[wishes], &places[wishes]);
	result = mw_remote_read_ranges(target->pid, ranges, wishes, words, sizeof(words));
	if (result)
		return result;
	for (uint32_t i = 0; i < wishes; i++) {
		memcpy(places[i], from, ranges[i].size_bytes);
		from += ranges[i].size_bytes / sizeof(*from);
	}
	for (uint32_t i = 0; i < count; i++) {
		/* The header and two words are enough: a small block may end with its page. */
		if (read_bytes[i] < 32)
			free_block(blocks[i], &report->unmapped);
		else
			judge(blocks[i], &chunks[i], &looks[i], report);
	}
	return 0;
}
