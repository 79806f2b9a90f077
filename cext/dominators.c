/* dominators.c - see dominators.h.
 *
 * Inside, nodes go by their number in a depth-first search; 0 is a node that
 * refers to all roots.  Numbers are 32 bits and so are the arrays: of what a
 * heap's graph takes, this is the largest part. */

#include <errno.h>
#include <stdlib.h>

#include "dominators.h"

static const uint32_t NONE = (uint32_t)MW_GRAPH_NONE;

struct search {
	const struct mw_graph *graph;
	uint32_t *numbers; /* by node; 0: not reached */
	uint32_t *nodes;   /* by number, from 1 */
	uint32_t *parents; /* by number: in the search's tree, later compressed */
	uint32_t *labels;  /* by number: of the compressed path, the node of the least semidominator */
	uint32_t *semis;   /* by number */
	uint32_t *idoms;   /* by number */
	uint32_t *stack;
	uint32_t count;
};

static void reach(struct search *search, uint32_t node, uint32_t parent)
{
	uint32_t number = ++search->count;

	search->numbers[node] = number;
	search->nodes[number] = node;
	search->parents[number] = parent;
}

/* A depth-first search needs to know how far it is in each node of its path.
 * semis and idoms are not in use yet: they hold it. */
static void search_from(struct search *search, uint32_t root)
{
	const struct mw_graph *graph = search->graph;
	uint32_t depth = 0;

	reach(search, root, 0);
	search->stack[depth] = search->count;
	search->semis[depth++] = 0;
	while (depth) {
		uint32_t number = search->stack[depth - 1];
		uint32_t node = search->nodes[number];
		uint64_t begin = graph->offsets[node];
		uint64_t degree = graph->offsets[node + 1] - begin;
		uint64_t edge = search->semis[depth - 1];
		uint32_t target = NONE;

		while (edge < degree) {
			target = graph->targets[begin + edge++];
			if (target != NONE && !search->numbers[target])
				break;
			target = NONE;
		}
		search->semis[depth - 1] = (uint32_t)edge;
		if (target == NONE) {
			depth--;
			continue;
		}
		reach(search, target, number);
		search->stack[depth] = search->count;
		search->semis[depth++] = 0;
	}
}

/* The node of least semidominator on the path from number up to, but without,
 * the first below linked; compresses the path. */
static uint32_t least(struct search *search, uint32_t number, uint32_t linked)
{
	uint32_t *parents = search->parents, *labels = search->labels, *semis = search->semis;
	uint32_t depth = 0, above;

	if (parents[number] < linked)
		return labels[number];
	do {
		search->stack[depth++] = number;
		number = parents[number];
	} while (parents[number] >= linked);
	above = number;
	while (depth) {
		number = search->stack[--depth];
		parents[number] = parents[above];
		if (semis[labels[above]] < semis[labels[number]])
			labels[number] = labels[above];
		above = number;
	}
	return labels[number];
}

static void find_semidominators(struct search *search, const struct mw_graph *reversed, const uint8_t *kinds)
{
	for (uint32_t number = 1; number <= search->count; number++) {
		search->idoms[number] = search->parents[number];
		search->semis[number] = search->labels[number] = number;
	}
	for (uint32_t number = search->count; number > 0; number--) {
		uint32_t node = search->nodes[number];
		uint32_t semi = search->parents[number];

		if (kinds[node])
			semi = 0;
		for (uint64_t e = reversed->offsets[node]; semi && e < reversed->offsets[node + 1]; e++) {
			uint32_t from = search->numbers[reversed->targets[e]];
			uint32_t other = search->semis[least(search, from, number + 1)];

			if (other < semi)
				semi = other;
		}
		search->semis[number] = semi;
	}
}

static void find_dominators(struct search *search)
{
	for (uint32_t number = 1; number <= search->count; number++) {
		uint32_t idom = search->idoms[number];

		while (idom > search->semis[number])
			idom = search->idoms[idom];
		search->idoms[number] = idom;
	}
}

static int search_init(struct search *search, const struct mw_graph *graph)
{
	uint64_t bytes = ((uint64_t)graph->node_count + 1) * sizeof(uint32_t);

	*search = (struct search){
	    .graph = graph,
	    .numbers = calloc(1, bytes),
	    .nodes = malloc(bytes),
	    .parents = malloc(bytes),
	    .labels = malloc(bytes),
	    .semis = malloc(bytes),
	    .idoms = malloc(bytes),
	    .stack = malloc(bytes),
	};
	if (search->numbers && search->nodes && search->parents && search->labels && search->semis && search->idoms &&
	    search->stack)
		return 0;
	return -ENOMEM;
}

static void search_deinit(struct search *search)
{
	free(search->stack);
	free(search->idoms);
	free(search->semis);
	free(search->labels);
	free(search->parents);
	free(search->nodes);
	free(search->numbers);
}

int mw_graph_dominators(const struct mw_graph *graph, const struct mw_graph *reversed, const uint8_t *kinds,
			uint32_t *ret_parents, uint32_t *ret_order)
{
	struct search search;
	int rc = search_init(&search, graph);

	if (rc)
		goto out;
	for (uint32_t node = 0; node < graph->node_count; node++)
		if (kinds[node] && !search.numbers[node])
			search_from(&search, node);
	rc = -EINVAL;
	if (search.count != graph->node_count)
		goto out;
	search.nodes[0] = NONE;
	search.parents[0] = search.semis[0] = search.labels[0] = search.idoms[0] = 0;
	find_semidominators(&search, reversed, kinds);
	find_dominators(&search);
	for (uint32_t number = 1; number <= search.count; number++) {
		ret_order[number - 1] = search.nodes[number];
		ret_parents[search.nodes[number]] = search.nodes[search.idoms[number]];
	}
	rc = 0;
out:
	search_deinit(&search);
	return rc;
}
