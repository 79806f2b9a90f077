/* graph.h - a heap's objects as a graph of numbers: who refers to whom.
 *
 * Objects are indices below node_count; what they are is not known here.
 * Arrays are the caller's.  For graphs of many millions, so nothing recurses
 * and every function is linear, or nearly.  No clock, no file. */

#ifndef MW_GRAPH_H
#define MW_GRAPH_H

#ifndef MW_CDEF /* cffi reads no system headers */
#include <stdint.h>
#endif

enum {
	MW_GRAPH_NODES_MAX = 0x7fffffff,
	MW_GRAPH_NONE = -1, /* as uint32_t: a target outside of the graph, no parent */
};

/* The referents of node i are targets[offsets[i]] up to targets[offsets[i + 1]].
 * Targets of MW_GRAPH_NONE are passed over. */
struct mw_graph {
	const uint64_t *offsets; /* node_count + 1, ascending */
	const uint32_t *targets;
	uint32_t node_count;
	uint32_t reserved;
};

/* What made a node a root, in the order in which they are looked for. */
enum mw_graph_root {
	MW_GRAPH_ROOT_NAMED = 1, /* it was given as one */
	MW_GRAPH_ROOT_HELD = 2,	 /* counted more often than referred to: native code holds it */
	MW_GRAPH_ROOT_ALONE = 3, /* nobody refers to it, and its count is not known */
	MW_GRAPH_ROOT_CYCLE = 4, /* one of a cycle that nothing else holds */
};

/* Turn ids into indices: ret[i] becomes the index of wanted[i] in ids, or
 * MW_GRAPH_NONE.  ret_missing counts the latter.  seed is any number that
 * who chose the ids did not know, or they could make this slow.
 *
 * Return 0, -EEXIST if an id comes twice in ids, or -ENOMEM. */
int mw_graph_resolve(const uint64_t *ids, uint32_t count, const uint64_t *wanted, uint64_t wanted_count, uint64_t seed,
		     uint32_t *ret, uint64_t *ret_missing);

/* Turn all edges round: who refers to node i is ret_sources[ret_offsets[i]] up
 * to ret_sources[ret_offsets[i + 1]].  ret_offsets has node_count + 1 entries,
 * ret_sources room for as many as graph has edges. */
void mw_graph_reverse(const struct mw_graph *graph, uint64_t *ret_offsets, uint32_t *ret_sources);

/* Find roots such that all nodes are reached: those given, marked in
 * ret_kinds by MW_GRAPH_ROOT_NAMED on entry, and as few more as it takes.
 * refcounts may be 0xffffffff: not known.
 *
 * Return 0 or -ENOMEM.  ret_kinds has an enum mw_graph_root per node, 0 for
 * who is no root. */
int mw_graph_find_roots(const struct mw_graph *graph, const struct mw_graph *reversed, const uint32_t *refcounts,
			uint8_t *ret_kinds);

/* Add every node's value to its parent's, and so on up to the roots.  order
 * has all nodes, parents before their children. */
void mw_graph_sum_up(const uint32_t *parents, const uint32_t *order, uint32_t count, uint64_t *values);

#endif
