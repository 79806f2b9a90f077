"""Graphs in C against what is slow and plain: dominators by leaving nodes out, ways by Bellman."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwtrace.capi import lib
from mwtrace.snapshot.dominators import Children, dominators
from mwtrace.snapshot.graph import NONE, Graph, find_roots, resolve, sum_up
from mwtrace.snapshot.nearest import NO_ROOT, nearest

UNKNOWN = 0xFFFFFFFF


def graph_of(referents):
    offsets = np.cumsum([0, *map(len, referents)]).astype(np.uint64)
    targets = np.array([t for targets in referents for t in targets], np.uint32)
    return Graph(offsets, targets)


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 14))
    node = st.integers(0, count - 1)
    targets = st.one_of(node, node, node, st.just(NONE))
    return draw(st.lists(st.lists(targets, max_size=4), min_size=count, max_size=count))


def reached_from(referents, roots, without=None):
    seen, left = set(), [root for root in roots if root != without]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left += [t for t in referents[node] if t != NONE and t != without]
    return seen


def no_counts(referents):
    return np.full(len(referents), UNKNOWN, np.uint32)


@given(graphs(), st.data())
@settings(max_examples=300, deadline=None)
def test_roots_are_found_until_every_node_is_reached(referents, data):
    nodes = range(len(referents))
    named = sorted(data.draw(st.sets(st.sampled_from(nodes))))
    counts = data.draw(st.lists(st.sampled_from([0, 1, 2, 9, UNKNOWN]), min_size=len(nodes)))
    counts = np.array(counts[: len(nodes)], np.uint32)
    kinds = find_roots(graph_of(referents), np.array(named, np.int64), counts)
    assert [i for i in nodes if kinds[i] == lib.MW_GRAPH_ROOT_NAMED] == named
    roots = [int(i) for i in np.flatnonzero(kinds)]
    assert reached_from(referents, roots) == set(nodes)
    referrers = [sum(row.count(i) for row in referents) for i in nodes]
    by_name = reached_from(referents, named)
    for i in nodes:
        if kinds[i] > lib.MW_GRAPH_ROOT_NAMED:
            assert i not in by_name
        if kinds[i] == lib.MW_GRAPH_ROOT_HELD:
            assert counts[i] != UNKNOWN
            assert counts[i] > referrers[i]
        if kinds[i] == lib.MW_GRAPH_ROOT_ALONE:
            assert referrers[i] == 0
        if kinds[i] == lib.MW_GRAPH_ROOT_CYCLE:
            # nothing but its own cycle leads to it
            assert i in {t for j in reached_from(referents, [i]) for t in referents[j]}
            others = [j for j in nodes if i in reached_from(referents, [j])]
            assert set(others) <= reached_from(referents, [i])


@given(graphs(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_dominator_is_who_cannot_be_left_out(referents, data):
    nodes = range(len(referents))
    named = sorted(data.draw(st.sets(st.sampled_from(nodes))))
    graph = graph_of(referents)
    kinds = find_roots(graph, np.array(named, np.int64), no_counts(referents))
    roots = [int(i) for i in np.flatnonzero(kinds)]
    tree = dominators(graph, kinds)
    position = {int(node): at for at, node in enumerate(tree.order)}
    lost = {i: set(nodes) - reached_from(referents, roots, without=i) - {i} for i in nodes}
    for i in nodes:
        above, parent = set(), int(tree.parents[i])
        assert parent == NONE or position[parent] < position[i]
        while parent != NONE:
            above.add(parent)
            parent = int(tree.parents[parent])
        assert above == {j for j in nodes if i in lost[j]}
    retained = sum_up(tree.parents, tree.order, np.ones(len(referents), np.uint64))
    assert retained.tolist() == [len(lost[i]) + 1 for i in nodes]


@given(graphs(), st.data())
@settings(max_examples=300, deadline=None)
def test_the_way_told_is_the_cheapest(referents, data):
    nodes = range(len(referents))
    kinds = find_roots(graph_of(referents), np.array([0]), no_counts(referents))
    costs = st.lists(st.integers(1, 254), min_size=len(nodes), max_size=len(nodes))
    begin, step = data.draw(costs), data.draw(costs)
    root_costs = [cost if kind else NO_ROOT for kind, cost in zip(kinds, begin)]
    tree = nearest(graph_of(referents), np.array(root_costs, np.uint8), np.array(step, np.uint8))
    best = [cost if cost != NO_ROOT else 10**9 for cost in root_costs]
    for _ in nodes:
        for source in nodes:
            for target in referents[source]:
                if target != NONE:
                    best[target] = min(best[target], best[source] + step[target])
    told = {}
    for node in map(int, tree.order):
        parent = int(tree.parents[node])
        told[node] = root_costs[node] if parent == NONE else told[parent] + step[node]
        assert parent == NONE or node in referents[parent]
    assert [told[i] for i in nodes] == best


def test_a_step_that_costs_nothing_is_refused():
    with pytest.raises(OSError, match="Invalid argument"):
        nearest(graph_of([[]]), np.array([0], np.uint8), np.array([0], np.uint8))


def test_a_long_chain_takes_no_stack():
    count = 1_000_000
    graph = graph_of([[i + 1] for i in range(count - 1)] + [[]])
    kinds = find_roots(graph, np.array([0]), np.full(count, UNKNOWN, np.uint32))
    assert kinds.sum() == 1
    tree = dominators(graph, kinds)
    assert tree.parents[1:].tolist() == list(range(count - 1))
    retained = sum_up(tree.parents, tree.order, np.ones(count, np.uint64))
    assert retained[0] == count


def test_ids_become_indices_and_a_double_one_is_refused():
    ids = np.array([7 << 32, 3, 2**64 - 1, 0], np.uint64)
    wanted = np.array([3, 4, 0, 7 << 32, 2**64 - 1], np.uint64)
    assert resolve(ids, wanted).tolist() == [1, NONE, 3, 0, 2]
    with pytest.raises(FileExistsError):
        resolve(np.array([5, 6, 5], np.uint64), wanted)


def test_children_are_under_their_parents_and_the_top_under_none():
    graph = graph_of([[1, 2], [3], [], [], [4], []])
    tree = dominators(graph, find_roots(graph, np.array([0, 4]), no_counts(range(6))))
    children = Children(tree)
    assert sorted(children.of(0)) == [1, 2]
    assert sorted(children.top()) == [0, 4, 5]
    assert children.of(5).tolist() == []
