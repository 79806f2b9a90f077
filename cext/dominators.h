/* dominators.h - without whom would an object be free?
 *
 * Node d dominates n if every way from a root to n leads through d; the last
 * such d is n's immediate dominator, and what a node dominates is what it
 * retains.  Semi-NCA (Georgiadis): near linear on heaps, where it beats both
 * Lengauer-Tarjan's balanced form and iteration to a fixed point. */

#ifndef MW_DOMINATORS_H
#define MW_DOMINATORS_H

#include "graph.h"

/* ret_parents[i] becomes i's immediate dominator, or MW_GRAPH_NONE if only the
 * roots together hold it.  ret_order gets all nodes, dominators before what
 * they dominate.  kinds says who is a root; every node must be reached (see
 * mw_graph_find_roots()).
 *
 * Return 0, -EINVAL if a node is not reached, or -ENOMEM (24 bytes a node). */
int mw_graph_dominators(const struct mw_graph *graph, const struct mw_graph *reversed, const uint8_t *kinds,
			uint32_t *ret_parents, uint32_t *ret_order);

#endif
