/* audit.c - sorts the blocks by who can tell, and compares contents; the two
 * allocators that can be read are in audit_pool.c and audit_chunk.c. */

#include "audit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "audit_parts.h"
#include "mix.h"
#include "remote.h"

enum {
	PYMALLOC_BLOCK_MAX = 512, /* SMALL_REQUEST_THRESHOLD, since Python 3.3 */
	LANE_VALUES = 65535,
};

_Static_assert(sizeof(((struct mw_block *)NULL)->fingerprint) == MW_AUDIT_WORDS * sizeof(uint16_t), "a lane per word");

/* 16 bits per word: of 8, one in 255 new words passes for the old one, and where
 * entries differ in three words, one in a hundred of a cache's for a survivor.  0
 * stands for a word of zeros or none. */
static void fingerprint(const struct mw_block *block, const uint64_t words[MW_AUDIT_WORDS],
			uint16_t ret[MW_AUDIT_WORDS])
{
	for (uint32_t i = 0; i < MW_AUDIT_WORDS; i++) {
		bool is_there = (i + 1) * sizeof(*words) <= block->size_bytes && words[i];

		ret[i] = is_there ? (uint16_t)(mw_spread(mw_mix(words[i]), LANE_VALUES) + 1) : 0;
	}
}

static bool is_taken(const struct mw_block *block)
{
	uint64_t words[2];

	memcpy(words, block->fingerprint, sizeof(words));
	return words[0] | words[1];
}

/* Whether a third or more (CPython's: a quarter) of the words that were there have
 * changed.  What a leak holds is at rest, while a cache puts another entry of the
 * same kind in the place of an old one: some words (a type, flags, neighbours in a
 * list that goes round) are then the same.  A Python object's count and type say
 * nothing either way. */
static bool is_other(const struct mw_block *block, const uint16_t now[MW_AUDIT_WORDS])
{
	int is_object = block->domain == MW_DOMAIN_PY_OBJECT;
	int is_python = is_object || block->domain == MW_DOMAIN_PY_MEM;
	uint32_t known = 0, changed = 0;

	for (uint32_t i = is_object ? 2 : 0; i < MW_AUDIT_WORDS; i++) {
		if (!block->fingerprint[i])
			continue;
		known++;
		changed += block->fingerprint[i] != now[i];
	}
	/* One word of a native block may well be a counter in a living one. */
	return changed > (is_python ? 0 : 1) && (is_python ? 4 : 3) * changed >= known;
}

void mw_audit_alive(struct mw_block *block, const uint64_t words[MW_AUDIT_WORDS], struct mw_audit_report *report)
{
	uint16_t now[MW_AUDIT_WORDS];

	fingerprint(block, words, now);
	if (is_taken(block) && is_other(block, now)) {
		report->contents_changed++;
		block->state = MW_SETTLED_FREED;
		return;
	}
	if (!is_taken(block))
		memcpy(block->fingerprint, now, sizeof(now));
	block->state = MW_SETTLED_ALIVE;
}

static uint32_t room_of(const struct mw_audit_target *target, const struct mw_block *block)
{
	int is_python = block->domain == MW_DOMAIN_PY_MEM || block->domain == MW_DOMAIN_PY_OBJECT;

	if (!is_python)
		return target->native_layout;
	if (target->python_layout == MW_LAYOUT_PYMALLOC && block->size_bytes > PYMALLOC_BLOCK_MAX)
		return target->native_layout;
	return target->python_layout;
}

/* Blocks of an allocator that cannot be read. */
static int audit_opaque(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
			struct mw_audit_report *report)
{
	struct mw_remote_range ranges[MW_AUDIT_BATCH];
	uint64_t words[MW_AUDIT_BATCH][MW_AUDIT_WORDS];
	int result;

	for (uint32_t i = 0; i < count; i++)
		ranges[i] = (struct mw_remote_range){.address = blocks[i]->address, .size_bytes = sizeof(words[i])};
	result = mw_remote_read_ranges(target->pid, ranges, count, words, sizeof(words));
	if (result)
		return result;
	for (uint32_t i = 0; i < count; i++) {
		struct mw_block *block = blocks[i];
		bool was_taken = is_taken(block);

		if (!ranges[i].read_bytes) {
			report->unmapped++;
			block->state = MW_SETTLED_FREED;
			continue;
		}
		mw_audit_alive(block, words[i], report);
		/* Nothing to compare with is no answer yet. */
		if (block->state == MW_SETTLED_ALIVE && !was_taken)
			block->state = MW_SETTLED_UNKNOWN;
		else if (block->state == MW_SETTLED_ALIVE)
			report->contents_same++;
	}
	return 0;
}

typedef int audit_some(const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		       struct mw_audit_report *report);

static int in_batches(audit_some *audit, const struct mw_audit_target *target, struct mw_block **blocks, uint32_t count,
		      struct mw_audit_report *report)
{
	for (uint32_t i = 0; i < count; i += MW_AUDIT_BATCH) {
		uint32_t some = count - i < MW_AUDIT_BATCH ? count - i : MW_AUDIT_BATCH;
		int result = audit(target, blocks + i, some, report);

		if (result)
			return result;
	}
	return 0;
}

static int by_address(const void *left, const void *right)
{
	const struct mw_block *const *one = left, *const *other = right;

	return (*one)->address < (*other)->address ? -1 : (*one)->address > (*other)->address;
}

static int audit_sorted(const struct mw_audit_target *target, struct mw_block *blocks, uint32_t count,
			struct mw_block **sorted, struct mw_audit_report *report)
{
	uint32_t pooled = 0, chunked = 0, opaque = 0;
	struct mw_block **chunks = sorted + count, **opaques = sorted + 2 * (size_t)count;
	int result;

	for (uint32_t i = 0; i < count; i++) {
		blocks[i].state = MW_SETTLED_NOT;
		switch (room_of(target, &blocks[i])) {
		case MW_LAYOUT_PYMALLOC:
			sorted[pooled++] = &blocks[i];
			break;
		case MW_LAYOUT_GLIBC:
			chunks[chunked++] = &blocks[i];
			break;
		default:
			opaques[opaque++] = &blocks[i];
		}
	}
	qsort(sorted, pooled, sizeof(*sorted), by_address);
	result = mw_audit_pools(target, sorted, pooled, report);
	if (result)
		return result;
	/* What lies in no pool: pymalloc hands on to malloc when it is out of
	 * arenas or switched off (PYTHONMALLOC=malloc). */
	for (uint32_t i = 0; i < pooled; i++) {
		if (sorted[i]->state != MW_SETTLED_NOT)
			continue;
		if (target->native_layout == MW_LAYOUT_GLIBC)
			chunks[chunked++] = sorted[i];
		else
			opaques[opaque++] = sorted[i];
	}
	result = in_batches(mw_audit_chunks, target, chunks, chunked, report);
	return result ? result : in_batches(audit_opaque, target, opaques, opaque, report);
}

int mw_audit_run(const struct mw_audit_target *target, struct mw_block *blocks, uint32_t count,
		 struct mw_audit_report *ret)
{
	struct mw_block **sorted;
	int result;

	*ret = (struct mw_audit_report){0};
	if (!count)
		return 0;
	sorted = calloc(3 * (size_t)count, sizeof(struct mw_block *));
	if (!sorted)
		return -ENOMEM;
	result = audit_sorted(target, blocks, count, sorted, ret);
	free(sorted);
	if (result)
		return result;
	for (uint32_t i = 0; i < count; i++) {
		if (blocks[i].state == MW_SETTLED_ALIVE)
			ret->alive++;
		else if (blocks[i].state == MW_SETTLED_FREED)
			ret->freed++;
		else
			ret->unknown++;
	}
	return 0;
}
