/* audit.c - sorts the blocks by who can tell, and compares contents; the two
 * allocators that can be read are in audit_pool.c and audit_chunk.c. */

#include "audit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "audit_parts.h"
#include "mix.h"
#include "remote.h"

enum {
	PYMALLOC_BLOCK_MAX = 512, /* SMALL_REQUEST_THRESHOLD, since Python 3.3 */
	LANE_BITS = 8,
	LANE_VALUES = 255,
};

/* A lane of 8 bits per word; 0 stands for a word of zeros or none. */
uint64_t mw_audit_fingerprint(const uint64_t words[MW_AUDIT_WORDS], uint64_t size_bytes)
{
	uint64_t fingerprint = 0;

	for (uint32_t i = 0; i < MW_AUDIT_WORDS && (i + 1) * sizeof(*words) <= size_bytes; i++) {
		uint64_t lane = words[i] ? mw_spread(mw_mix(words[i]), LANE_VALUES) + 1 : 0;

		fingerprint |= lane << (LANE_BITS * i);
	}
	return fingerprint;
}

/* Whether a third or more (CPython's: a quarter) of the words that were there have
 * changed.  What a leak holds is at rest, while a cache puts another entry of the
 * same kind in the place of an old one: some words (a type, flags, neighbours in a
 * list that goes round) are then the same.  A Python object's count and type say
 * nothing either way. */
static int is_other(const struct mw_block *block, uint64_t now)
{
	int is_object = block->domain == MW_DOMAIN_PY_OBJECT;
	int is_python = is_object || block->domain == MW_DOMAIN_PY_MEM;
	uint32_t known = 0, changed = 0;

	for (uint32_t i = is_object ? 2 : 0; i < MW_AUDIT_WORDS; i++) {
		uint8_t lane = (uint8_t)(block->fingerprint >> (LANE_BITS * i));

		if (!lane)
			continue;
		known++;
		changed += lane != (uint8_t)(now >> (LANE_BITS * i));
	}
	/* One word of a native block may well be a counter in a living one. */
	return changed > (is_python ? 0 : 1) && (is_python ? 4 : 3) * changed >= known;
}

void mw_audit_alive(struct mw_block *block, uint64_t fingerprint, struct mw_audit_report *report)
{
	if (block->fingerprint && is_other(block, fingerprint)) {
		report->contents_changed++;
		block->state = MW_SETTLED_FREED;
		return;
	}
	if (!block->fingerprint)
		block->fingerprint = fingerprint;
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
		uint64_t before = block->fingerprint;

		if (!ranges[i].read_bytes) {
			report->unmapped++;
			block->state = MW_SETTLED_FREED;
			continue;
		}
		mw_audit_alive(block, mw_audit_fingerprint(words[i], block->size_bytes), report);
		/* Nothing to compare with is no answer yet. */
		if (block->state == MW_SETTLED_ALIVE && !before)
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
