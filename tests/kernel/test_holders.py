"""Planted leaks: the path that holds the objects comes first, on every CPython here."""

from __future__ import annotations

import pytest
from interpreters import interpreters, label, on_every_python, script
from target import Target

from mwtrace.evidence.holders import holders_process
from mwtrace.evidence.paths import How

pytestmark = pytest.mark.kernel

# Shape -> what the first path must be.
SHAPES = {
    "module-dict": "__main__.SESSIONS['\u2026']",
    "module-list": "__main__.LOG[\u2026]",
    "class-dict": "__main__.Registry.cache[\u2026]",
    "tuples-in-an-attribute": "__main__.REGISTRY.log[\u2026][1]",
    "closure": "__main__.HANDLER -> make_handler.<locals>.handle()[0] (closure)[\u2026]",
    "lru-cache": "__main__.load (lru_cache)[\u2026]",
    # Not the locals of the frames in their tracebacks, which hold the sessions, too.
    "errors-in-a-cache": "__main__.wrap (lru_cache) key[0].__self__.session",
    "local-of-a-thread": "local hold_in_thread() mine[\u2026]",
    "deque": "__main__.QUEUE[\u2026]",
    "default-argument": "__main__.remember -> remember()[0][\u2026]",
    "set": "__main__.SEEN[\u2026]",
    "slots": "__main__.NODES[\u2026].session",
    "small-lists": "__main__.SESSIONS[\u2026][0]",
}


def holders_of(python, shape):
    target = Target([python, script("held"), shape])
    try:
        target.expect("ready")
        return holders_process(target.pid, "Session")
    finally:
        target.stop()


@on_every_python
@pytest.mark.parametrize("shape", SHAPES)
def test_the_right_path_comes_first(python, shape):
    holders = holders_of(python, shape)
    # an instance that lies in a free list of the interpreter may still look alive
    assert 3000 <= holders.objects <= 3005
    assert holders.paths[0].text == SHAPES[shape]
    assert holders.paths[0].count >= 0.95 * holders.sampled
    assert not holders.missing_decref


@on_every_python
def test_a_suspended_generator_is_found_as_a_holder(python):
    path = holders_of(python, "generator").paths[0].text
    assert path.startswith("__main__.GENERATOR")
    assert path.endswith("generate() held[\u2026]")


@on_every_python
def test_counts_higher_than_the_references_found_are_told_as_a_missing_decref(python):
    holders = holders_of(python, "missing-decref")
    assert holders.missing_decref
    assert holders.uncounted >= 0.95 * holders.sampled
    assert holders.paths[0].text == "no holder found for __main__.Session"


@on_every_python
def test_what_lies_in_leaked_lists_is_told_as_a_missing_decref_of_lists(python):
    holders = holders_of(python, "missing-decref-of-lists")
    assert holders.missing_decref
    assert holders.uncounted_type == "list"
    # some lists are still pointed at by what was freed before them
    assert holders.uncounted >= 0.85 * holders.sampled
    assert holders.defined_in == ""  # that the interpreter defines lists is no hint


@on_every_python
def test_objects_that_hold_themselves_are_not_counted_too_high(python):
    holders = holders_of(python, "garbage-that-holds-itself")
    assert not holders.missing_decref
    assert holders.uncounted <= 0.05 * holders.sampled


def test_the_words_for_how_are_those_of_c():
    from mwtrace.capi import lib

    names = {
        How.FIELD: lib.MW_BY_FIELD,
        How.ITEM: lib.MW_BY_ITEM,
        How.KEY: lib.MW_BY_KEY,
        How.BEING_KEY: lib.MW_BY_BEING_KEY,
        How.ATTRIBUTE: lib.MW_BY_ATTRIBUTE,
        How.MEMBER: lib.MW_BY_MEMBER,
        How.QUEUE: lib.MW_BY_QUEUE,
        How.LOCAL: lib.MW_BY_LOCAL,
        How.STACK: lib.MW_BY_STACK,
        How.STATIC: lib.MW_BY_STATIC,
        How.RAW: lib.MW_BY_RAW,
        How.WEAK: lib.MW_BY_WEAK,
    }
    assert all(int(how) == value for how, value in names.items())
    assert set(names) == set(How)


OLDER = [python for python in interpreters(oldest_minor=6) if python not in interpreters()]


@pytest.mark.parametrize("python", OLDER, ids=label)
@pytest.mark.parametrize("shape", ["module-dict", "lru-cache", "slots", "errors-in-a-cache"])
def test_older_interpreters_are_read_too(python, shape):
    holders = holders_of(python, shape)
    assert 3000 <= holders.objects <= 3005
    assert holders.paths[0].text == SHAPES[shape]
    assert holders.paths[0].count >= 0.95 * holders.sampled
