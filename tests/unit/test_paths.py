"""References become the paths that people read; graphs by hand."""

from __future__ import annotations

from mwtrace.evidence.paths import How, OwnerKind, Reference, cluster

MODULE, NAMESPACE, REGISTRY, SAMPLE = 1, 2, 3, 100


def ref(target, owner, how, label="", kind=OwnerKind.OTHER, type_name="dict", place=0):
    return Reference(target, owner, how, place, label, kind, type_name)


def module_holds(target, name):
    return {
        target: [ref(target, NAMESPACE, How.KEY, f"'{name}'", OwnerKind.DICT)],
        NAMESPACE: [
            ref(NAMESPACE, MODULE, How.ATTRIBUTE, "__dict__", OwnerKind.MODULE, "module"),
        ],
    }


def paths(samples, edges):
    return cluster(samples, edges, {MODULE: "app.registry"}, "app.Session")


def test_a_module_level_dict_is_told_with_its_key():
    edges = module_holds(REGISTRY, "SESSIONS")
    edges[SAMPLE] = [ref(SAMPLE, REGISTRY, How.KEY, "'a'", OwnerKind.DICT)]
    assert paths([SAMPLE], edges)[0].text == "app.registry.SESSIONS['a']"


def test_the_keys_of_a_collection_are_not_told_apart():
    edges = module_holds(REGISTRY, "SESSIONS")
    samples = list(range(100, 110))
    for sample in samples:
        edges[sample] = [ref(sample, REGISTRY, How.KEY, f"'{sample}'", OwnerKind.DICT)]
    found = paths(samples, edges)
    assert [(path.text, path.count) for path in found] == [("app.registry.SESSIONS['\u2026']", 10)]
    assert found[0].is_python


def test_a_module_is_a_better_root_than_a_local_that_may_be_stale():
    edges = module_holds(SAMPLE, "CURRENT")
    edges[SAMPLE].insert(0, ref(SAMPLE, 0, How.LOCAL, "main() session"))
    assert paths([SAMPLE], edges)[0].text == "app.registry.CURRENT"


def test_a_local_is_told_where_there_is_nothing_else():
    edges = {SAMPLE: [ref(SAMPLE, 0, How.STACK), ref(SAMPLE, 0, How.LOCAL, "main() session")]}
    assert paths([SAMPLE], edges)[0].text == "local main() session"


def test_weak_references_hold_nothing():
    edges = module_holds(50, "WEAK")
    edges[SAMPLE] = [ref(SAMPLE, 50, How.WEAK, type_name="weakref")]
    found = paths([SAMPLE], edges)
    assert found[0].text == "no holder found for app.Session"
    assert not found[0].is_python


def test_a_cycle_without_a_root_ends():
    edges = {
        SAMPLE: [ref(SAMPLE, 101, How.ATTRIBUTE, "peer", type_name="app.Session")],
        101: [ref(101, SAMPLE, How.ATTRIBUTE, "peer", type_name="app.Session")],
    }
    assert paths([SAMPLE], edges)[0].text == "no holder found for app.Session"


def test_a_linked_list_is_told_as_a_chain():
    edges = module_holds(200, "HEAD")
    for node in range(201, 220):
        edges[node] = [ref(node, node - 1, How.ATTRIBUTE, "next", type_name="app.Node")]
    assert paths([219], edges)[0].text == "app.registry.HEAD.next\u2026 (a chain)"
