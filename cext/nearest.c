/* nearest.c - see nearest.h.
 *
 * Dijkstra's algorithm with Dial's buckets: costs are small and whole, so a
 * ring of doubly linked lists does what a heap would, without a logarithm and
 * with each node in it once. */

#include <errno.h>
#include <stdlib.h>

#include "nearest.h"

enum { BUCKETS = 256 };
static const uint32_t NONE = (uint32_t)MW_GRAPH_NONE;

struct queue {
	uint32_t heads[BUCKETS];
	uint32_t *next;
	uint32_t *previous;
	uint64_t *costs; /* UINT64_MAX: not met yet */
	uint64_t length;
};

static void queue_add(struct queue *queue, uint32_t node, uint64_t cost)
{
	uint32_t *head = &queue->heads[cost % BUCKETS];

	queue->costs[node] = cost;
	queue->previous[node] = NONE;
	queue->next[node] = *head;
	if (*head != NONE)
		queue->previous[*head] = node;
	*head = node;
	queue->length++;
}

static void queue_remove(struct queue *queue, uint32_t node)
{
	uint32_t next = queue->next[node], previous = queue->previous[node];

	if (previous == NONE)
		queue->heads[queue->costs[node] % BUCKETS] = next;
	else
		queue->next[previous] = next;
	if (next != NONE)
		queue->previous[next] = previous;
	queue->length--;
}

static int queue_init(struct queue *queue, uint32_t nodes)
{
	uint64_t count = (uint64_t)nodes + 1;

	queue->next = malloc(count * sizeof(*queue->next));
	queue->previous = malloc(count * sizeof(*queue->previous));
	queue->costs = malloc(count * sizeof(*queue->costs));
	queue->length = 0;
	if (!queue->next || !queue->previous || !queue->costs)
		return -ENOMEM;
	for (uint32_t i = 0; i < nodes; i++)
		queue->costs[i] = UINT64_MAX;
	for (int i = 0; i < BUCKETS; i++)
		queue->heads[i] = NONE;
	return 0;
}

static void queue_deinit(struct queue *queue)
{
	free(queue->costs);
	free(queue->previous);
	free(queue->next);
}

static void offer(struct queue *queue, uint32_t *parents, uint32_t node, uint32_t parent, uint64_t cost)
{
	if (queue->costs[node] <= cost)
		return;
	if (queue->costs[node] != UINT64_MAX)
		queue_remove(queue, node);
	parents[node] = parent;
	queue_add(queue, node, cost);
}

int mw_graph_nearest(const struct mw_graph *graph, const uint8_t *root_costs, const uint8_t *step_costs,
		     uint32_t *ret_parents, uint32_t *ret_order)
{
	struct queue queue;
	uint32_t done = 0;
	int rc = queue_init(&queue, graph->node_count);

	if (rc)
		goto out;
	rc = -EINVAL;
	for (uint32_t i = 0; i < graph->node_count; i++) {
		if (!step_costs[i] || step_costs[i] > MW_NEAREST_COST_MAX)
			goto out;
		if (root_costs[i] <= MW_NEAREST_COST_MAX)
			offer(&queue, ret_parents, i, NONE, root_costs[i]);
	}
	/* All that wait cost less than BUCKETS more than cost does. */
	for (uint64_t cost = 0; queue.length; cost++) {
		uint32_t node;

		while ((node = queue.heads[cost % BUCKETS]) != NONE) {
			queue_remove(&queue, node);
			ret_order[done++] = node;
			for (uint64_t e = graph->offsets[node]; e < graph->offsets[node + 1]; e++) {
				uint32_t target = graph->targets[e];

				if (target != NONE)
					offer(&queue, ret_parents, target, node, cost + step_costs[target]);
			}
		}
	}
	if (done == graph->node_count)
		rc = 0;
out:
	queue_deinit(&queue);
	return rc;
}
