/* graph.c - see graph.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "mix.h"

static const uint32_t NONE = (uint32_t)MW_GRAPH_NONE;

/* Slots hold indices into ids; at most half of them are filled. */
struct index {
	uint32_t *slots;
	uint64_t mask;
};

static int index_init(struct index *index, const uint64_t *ids, uint32_t count, uint64_t seed)
{
	uint64_t size = 16;

	while (size < 2 * (uint64_t)count)
		size *= 2;
	index->slots = malloc(size * sizeof(*index->slots));
	if (!index->slots)
		return -ENOMEM;
	memset(index->slots, 0xff, size * sizeof(*index->slots));
	index->mask = size - 1;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t slot = mw_mix(ids[i] ^ seed) & index->mask;

		for (; index->slots[slot] != NONE; slot = (slot + 1) & index->mask)
			if (ids[index->slots[slot]] == ids[i]) {
				free(index->slots);
				return -EEXIST;
			}
		index->slots[slot] = i;
	}
	return 0;
}

int mw_graph_resolve(const uint64_t *ids, uint32_t count, const uint64_t *wanted, uint64_t wanted_count, uint64_t seed,
		     uint32_t *ret, uint64_t *ret_missing)
{
	struct index index;
	int rc = index_init(&index, ids, count, seed);

	*ret_missing = 0;
	if (rc)
		return rc;
	for (uint64_t i = 0; i < wanted_count; i++) {
		uint64_t slot = mw_mix(wanted[i] ^ seed) & index.mask;

		while (index.slots[slot] != NONE && ids[index.slots[slot]] != wanted[i])
			slot = (slot + 1) & index.mask;
		ret[i] = index.slots[slot];
		*ret_missing += ret[i] == NONE;
	}
	free(index.slots);
	return 0;
}

void mw_graph_reverse(const struct mw_graph *graph, uint64_t *ret_offsets, uint32_t *ret_sources)
{
	uint64_t edges = graph->offsets[graph->node_count];
	uint64_t sum = 0;

	/* Counted one place further on, so that filling moves each to its end: the next one's begin. */
	memset(ret_offsets, 0, ((uint64_t)graph->node_count + 1) * sizeof(*ret_offsets));
	for (uint64_t e = 0; e < edges; e++)
		if (graph->targets[e] != NONE)
			ret_offsets[graph->targets[e] + 1]++;
	for (uint32_t i = 0; i < graph->node_count; i++) {
		uint64_t count = ret_offsets[i + 1];

		ret_offsets[i + 1] = sum;
		sum += count;
	}
	for (uint32_t i = 0; i < graph->node_count; i++)
		for (uint64_t e = graph->offsets[i]; e < graph->offsets[i + 1]; e++)
			if (graph->targets[e] != NONE)
				ret_sources[ret_offsets[graph->targets[e] + 1]++] = i;
}

/* What is left to visit: nodes, and how far we are in each. */
struct walk {
	const struct mw_graph *graph;
	uint8_t *is_reached;
	uint32_t *nodes;
	uint64_t *edges;
	uint32_t depth;
};

static void walk_push(struct walk *walk, uint32_t node)
{
	walk->is_reached[node] = 1;
	walk->nodes[walk->depth] = node;
	walk->edges[walk->depth++] = walk->graph->offsets[node];
}

/* Reach all that can be reached from node, which is not reached yet.  Nodes
 * are written to finished in the order in which they are left; returns where
 * the next one goes.  finished may be NULL. */
static uint32_t *walk_from(struct walk *walk, uint32_t node, uint32_t *finished)
{
	walk_push(walk, node);
	while (walk->depth) {
		uint32_t top = walk->depth - 1;
		uint64_t end = walk->graph->offsets[walk->nodes[top] + 1];
		uint64_t edge = walk->edges[top];
		uint32_t target = NONE;

		while (edge < end) {
			target = walk->graph->targets[edge++];
			if (target != NONE && !walk->is_reached[target])
				break;
			target = NONE;
		}
		walk->edges[top] = edge;
		if (target != NONE) {
			walk_push(walk, target);
			continue;
		}
		if (finished)
			*finished++ = walk->nodes[top];
		walk->depth--;
	}
	return finished;
}

static void root_all(struct walk *walk, const struct mw_graph *reversed, const uint32_t *refcounts, uint8_t *kinds,
		     enum mw_graph_root kind)
{
	const uint32_t unknown = 0xffffffff;

	for (uint32_t i = 0; i < walk->graph->node_count; i++) {
		uint64_t referrers = reversed->offsets[i + 1] - reversed->offsets[i];

		if (walk->is_reached[i])
			continue;
		if (kind == MW_GRAPH_ROOT_HELD && (refcounts[i] == unknown || refcounts[i] <= referrers))
			continue;
		if (kind == MW_GRAPH_ROOT_ALONE && referrers)
			continue;
		kinds[i] = kind;
		walk_from(walk, i, NULL);
	}
}

/* Of what is left, every node is in a cycle or behind one.  Left last in a
 * search that begins anywhere is a node of a cycle that nothing leads to
 * (Kosaraju), so a second search in that order needs one root for each. */
static void root_cycles(struct walk *walk, uint32_t *finished, uint8_t *kinds)
{
	uint32_t nodes = walk->graph->node_count;
	uint32_t *end = finished;

	for (uint32_t i = 0; i < nodes; i++)
		if (!walk->is_reached[i])
			end = walk_from(walk, i, end);
	for (uint32_t *node = finished; node < end; node++)
		walk->is_reached[*node] = 0;
	while (end-- > finished) {
		if (walk->is_reached[*end])
			continue;
		kinds[*end] = MW_GRAPH_ROOT_CYCLE;
		walk_from(walk, *end, NULL);
	}
}

int mw_graph_find_roots(const struct mw_graph *graph, const struct mw_graph *reversed, const uint32_t *refcounts,
			uint8_t *ret_kinds)
{
	uint64_t nodes = (uint64_t)graph->node_count + 1; /* malloc(0) may be NULL */
	struct walk walk = {
	    .graph = graph,
	    .is_reached = calloc(nodes, 1),
	    .nodes = malloc(nodes * sizeof(*walk.nodes)),
	    .edges = malloc(nodes * sizeof(*walk.edges)),
	};
	uint32_t *finished = malloc(nodes * sizeof(*finished));
	int rc = -ENOMEM;

	if (!walk.is_reached || !walk.nodes || !walk.edges || !finished)
		goto out;
	for (uint32_t i = 0; i < graph->node_count; i++)
		if (ret_kinds[i] && !walk.is_reached[i])
			walk_from(&walk, i, NULL);
	root_all(&walk, reversed, refcounts, ret_kinds, MW_GRAPH_ROOT_HELD);
	root_all(&walk, reversed, refcounts, ret_kinds, MW_GRAPH_ROOT_ALONE);
	root_cycles(&walk, finished, ret_kinds);
	rc = 0;
out:
	free(finished);
	free(walk.edges);
	free(walk.nodes);
	free(walk.is_reached);
	return rc;
}

void mw_graph_sum_up(const uint32_t *parents, const uint32_t *order, uint32_t count, uint64_t *values)
{
	while (count--) {
		uint32_t node = order[count];

		if (parents[node] != NONE)
			values[parents[node]] += values[node];
	}
}
