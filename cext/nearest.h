/* nearest.h - the cheapest way from a root to every object.
 *
 * What makes a way cheap, such as few steps and a module at its beginning, is
 * the caller's to say, in small whole numbers. */

#ifndef MW_NEAREST_H
#define MW_NEAREST_H

#include "graph.h"

enum { MW_NEAREST_COST_MAX = 254 };

/* ret_parents[i] becomes the node before i on its cheapest way, MW_GRAPH_NONE
 * if that begins at i.  ret_order gets all nodes, parents before children.
 * root_costs: what beginning at a root costs, 255 for who is none.
 * step_costs: what stepping onto a node costs, at least 1.
 *
 * Return 0, -EINVAL if a node is not reached or a cost is none, or -ENOMEM. */
int mw_graph_nearest(const struct mw_graph *graph, const uint8_t *root_costs, const uint8_t *step_costs,
		     uint32_t *ret_parents, uint32_t *ret_order);

#endif
