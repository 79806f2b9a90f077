/* ranges.c - a treap over a fixed pool of nodes, ordered by (pid, address).
 *
 * Balanced by random priorities, so a hostile order of addresses cannot make
 * it deep; a pool, so that it cannot grow. */

#include "ranges.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "mix.h"

enum {
	NONE = 0, /* node 0 stands for "no node" */
};

struct node {
	struct mw_range range;
	uint32_t priority;
	uint32_t left;
	uint32_t right; /* of a free node: the next free one */
	uint32_t reserved;
};

struct mw_ranges {
	struct node *nodes;
	uint64_t random;
	uint32_t root;
	uint32_t free;
	uint32_t count;
	uint32_t ranges_max;
};

struct mw_ranges *mw_ranges_create(uint32_t ranges_max)
{
	struct mw_ranges *ranges;

	if (!ranges_max || ranges_max > UINT32_MAX / 2)
		return NULL;
	ranges = calloc(1, sizeof(*ranges));
	if (!ranges)
		return NULL;
	ranges->nodes = calloc((size_t)ranges_max + 1, sizeof(*ranges->nodes));
	if (!ranges->nodes) {
		free(ranges);
		return NULL;
	}
	ranges->ranges_max = ranges_max;
	/* Where the pool lies is not known to the traced processes. */
	ranges->random = mw_mix((uint64_t)(uintptr_t)ranges->nodes);
	for (uint32_t node = 1; node < ranges_max; node++)
		ranges->nodes[node].right = node + 1;
	ranges->free = 1;
	return ranges;
}

void mw_ranges_destroy(struct mw_ranges *ranges)
{
	if (!ranges)
		return;
	free(ranges->nodes);
	free(ranges);
}

static bool is_before(const struct mw_range *range, uint32_t pid, uint64_t address)
{
	return range->pid != pid ? range->pid < pid : range->address < address;
}

/* Part the tree into what lies before (pid, address) and the rest. */
static void split(struct mw_ranges *ranges, uint32_t tree, uint32_t pid, uint64_t address, uint32_t *ret_before,
		  uint32_t *ret_rest)
{
	uint32_t *before = ret_before, *rest = ret_rest;

	while (tree) {
		struct node *node = &ranges->nodes[tree];

		if (is_before(&node->range, pid, address)) {
			*before = tree;
			before = &node->right;
			tree = node->right;
		} else {
			*rest = tree;
			rest = &node->left;
			tree = node->left;
		}
	}
	*before = NONE;
	*rest = NONE;
}

/* One tree out of two, all of left lying before all of right. */
static uint32_t merge(struct mw_ranges *ranges, uint32_t left, uint32_t right)
{
	uint32_t root = NONE, *place = &root;

	while (left && right) {
		if (ranges->nodes[left].priority > ranges->nodes[right].priority) {
			*place = left;
			place = &ranges->nodes[left].right;
			left = *place;
		} else {
			*place = right;
			place = &ranges->nodes[right].left;
			right = *place;
		}
	}
	*place = left ? left : right;
	return root;
}

/* The first range at or after (pid, address), or NONE. */
static uint32_t first_from(const struct mw_ranges *ranges, uint32_t pid, uint64_t address)
{
	uint32_t found = NONE;

	for (uint32_t tree = ranges->root; tree;) {
		if (is_before(&ranges->nodes[tree].range, pid, address)) {
			tree = ranges->nodes[tree].right;
		} else {
			found = tree;
			tree = ranges->nodes[tree].left;
		}
	}
	return found;
}

/* The last range before (pid, address), or NONE. */
static uint32_t last_before(const struct mw_ranges *ranges, uint32_t pid, uint64_t address)
{
	uint32_t found = NONE;

	for (uint32_t tree = ranges->root; tree;) {
		if (is_before(&ranges->nodes[tree].range, pid, address)) {
			found = tree;
			tree = ranges->nodes[tree].right;
		} else {
			tree = ranges->nodes[tree].left;
		}
	}
	return found;
}

static uint64_t end_of(const struct mw_range *range)
{
	return range->address + range->size_bytes;
}

/* The lowest range of pid that overlaps [address, end), or NONE. */
static uint32_t first_overlap(const struct mw_ranges *ranges, uint32_t pid, uint64_t address, uint64_t end)
{
	uint32_t node = last_before(ranges, pid, address);
	const struct mw_range *range = &ranges->nodes[node].range;

	if (node && range->pid == pid && end_of(range) > address)
		return node;
	node = first_from(ranges, pid, address);
	range = &ranges->nodes[node].range;
	return node && range->pid == pid && range->address < end ? node : NONE;
}

static void insert(struct mw_ranges *ranges, const struct mw_range *range)
{
	uint32_t before, rest, node = ranges->free;

	ranges->free = ranges->nodes[node].right;
	ranges->random = mw_mix(ranges->random + 0x9e3779b97f4a7c15ull);
	ranges->nodes[node] = (struct node){.range = *range, .priority = (uint32_t)ranges->random};
	split(ranges, ranges->root, range->pid, range->address, &before, &rest);
	ranges->root = merge(ranges, merge(ranges, before, node), rest);
	ranges->count++;
}

static void erase(struct mw_ranges *ranges, uint32_t node)
{
	const struct mw_range range = ranges->nodes[node].range;
	uint32_t before, rest, self, after;

	split(ranges, ranges->root, range.pid, range.address, &before, &rest);
	split(ranges, rest, range.pid, range.address + 1, &self, &after);
	ranges->root = merge(ranges, before, after);
	ranges->nodes[node].right = ranges->free;
	ranges->free = node;
	ranges->count--;
}

int mw_ranges_add(struct mw_ranges *ranges, const struct mw_range *range)
{
	if (!range->size_bytes || end_of(range) < range->address)
		return -EINVAL;
	if (first_overlap(ranges, range->pid, range->address, end_of(range)))
		return -EINVAL;
	if (ranges->count == ranges->ranges_max)
		return -ENOSPC;
	insert(ranges, range);
	return 0;
}

/* [from, to) of range, with its share of the weight. */
static struct mw_range part_of(const struct mw_range *range, uint64_t from, uint64_t to)
{
	struct mw_range part = *range;

	part.address = from;
	part.size_bytes = to - from;
	part.weight_bytes = (uint64_t)((unsigned __int128)range->weight_bytes * part.size_bytes / range->size_bytes);
	return part;
}

uint32_t mw_ranges_cut(struct mw_ranges *ranges, uint32_t pid, uint64_t address, uint64_t size_bytes, uint64_t time_ns,
		       struct mw_range *parts, uint32_t count)
{
	/* A range that reaches past the end of the address space ends there. */
	uint64_t end = size_bytes > UINT64_MAX - address ? UINT64_MAX : address + size_bytes;
	uint32_t found = 0, node;

	/* Two places for each step: the part asked for and a rest without a place. */
	while (count - found >= 2 && address < end && (node = first_overlap(ranges, pid, address, end)) != NONE) {
		const struct mw_range whole = ranges->nodes[node].range;

		if (whole.time_ns > time_ns) {
			address = end_of(&whole);
			continue;
		}
		uint64_t from = whole.address > address ? whole.address : address;
		uint64_t to = end_of(&whole) < end ? end_of(&whole) : end;
		struct mw_range head = part_of(&whole, whole.address, from);
		struct mw_range tail = part_of(&whole, to, end_of(&whole));
		struct mw_range part = part_of(&whole, from, to);

		/* What division lost goes with the part: live and freed add up. */
		part.weight_bytes = whole.weight_bytes - head.weight_bytes - tail.weight_bytes;
		erase(ranges, node);
		if (head.size_bytes)
			insert(ranges, &head);
		parts[found++] = part;
		if (!tail.size_bytes)
			continue;
		if (ranges->count < ranges->ranges_max)
			insert(ranges, &tail);
		else
			parts[found++] = tail;
	}
	return found;
}

uint32_t mw_ranges_forget(struct mw_ranges *ranges, uint32_t pid)
{
	uint32_t forgotten = 0, node;

	while ((node = first_from(ranges, pid, 0)) != NONE && ranges->nodes[node].range.pid == pid) {
		erase(ranges, node);
		forgotten++;
	}
	return forgotten;
}

uint32_t mw_ranges_copy(const struct mw_ranges *ranges, uint32_t pid, uint64_t address, struct mw_range *parts,
			uint32_t count)
{
	uint32_t found = 0, node;

	while (found < count && (node = first_from(ranges, pid, address)) != NONE &&
	       ranges->nodes[node].range.pid == pid) {
		parts[found++] = ranges->nodes[node].range;
		address = ranges->nodes[node].range.address + 1;
	}
	return found;
}

uint32_t mw_ranges_count(const struct mw_ranges *ranges)
{
	return ranges->count;
}
