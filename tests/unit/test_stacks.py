"""The table of stacks: known again, bounded twice, kept per process."""

from __future__ import annotations

import errno
import random

import pytest

from mwtrace.capi import ffi, lib


@pytest.fixture
def make_stacks():
    def make(stacks_max=100, words_max=10_000):
        stacks = lib.mw_stacks_create(stacks_max, words_max)
        assert stacks
        return ffi.gc(stacks, lib.mw_stacks_destroy)

    return make


def add(stacks, name, words, pid=1, kind=None, truncated=0):
    array = ffi.new("uint64_t[]", words)
    stack = ffi.new("struct mw_stack *", {"stack": name, "words": array, "pid": pid})
    stack.word_count = len(words)
    stack.kind = lib.MW_STACK_NATIVE if kind is None else kind
    stack.truncated = truncated
    return lib.mw_stacks_add(stacks, stack)


def find(stacks, name, pid=1):
    stack = lib.mw_stacks_find(stacks, pid, name)
    return list(stack.words[0 : stack.word_count]) if stack else None


def test_a_stack_is_found_with_all_its_words(make_stacks):
    stacks = make_stacks()
    assert add(stacks, 7, [1, 2, 3], truncated=1) == 0
    assert find(stacks, 7) == [1, 2, 3]
    assert lib.mw_stacks_find(stacks, 1, 7).truncated == 1
    assert find(stacks, 8) is None


def test_a_stack_sent_again_changes_nothing(make_stacks):
    stacks = make_stacks()
    assert [add(stacks, 7, [1, 2]), add(stacks, 7, [1, 2])] == [0, 1]
    assert lib.mw_stacks_count(stacks) == 1


def test_the_first_meaning_of_a_hash_stays(make_stacks):
    stacks = make_stacks()
    add(stacks, 7, [1, 2])
    assert add(stacks, 7, [1, 3]) == -errno.EEXIST
    assert add(stacks, 7, [1, 2], kind=lib.MW_STACK_PYTHON) == -errno.EEXIST
    assert find(stacks, 7) == [1, 2]


def test_the_same_hash_in_another_process_is_another_stack(make_stacks):
    stacks = make_stacks()
    assert [add(stacks, 7, [1], pid=1), add(stacks, 7, [2], pid=2)] == [0, 0]
    assert [find(stacks, 7, 1), find(stacks, 7, 2)] == [[1], [2]]


def test_both_bounds_refuse_and_forgetting_makes_room(make_stacks):
    stacks = make_stacks(stacks_max=2, words_max=5)
    assert add(stacks, 1, [1, 2, 3]) == 0
    assert add(stacks, 2, [1, 2, 3], pid=2) == -errno.ENOSPC
    assert add(stacks, 2, [1, 2], pid=2) == 0
    assert add(stacks, 3, [1]) == -errno.ENOSPC
    assert lib.mw_stacks_forget(stacks, 1) == 1
    assert lib.mw_stacks_word_count(stacks) == 2
    assert add(stacks, 3, [1, 2, 3]) == 0
    assert find(stacks, 2, 2) == [1, 2]


def test_a_stack_without_hash_or_words_is_refused(make_stacks):
    stacks = make_stacks()
    assert add(stacks, 0, [1]) == -errno.EINVAL
    assert add(stacks, 1, []) == -errno.EINVAL


# Seeds with which a chain once broke, and one that is new each time.
@pytest.mark.parametrize("seed", [64, 122, 241, 291, 301, random.randrange(2**32)])
def test_random_stacks_survive_the_forgetting_of_others(make_stacks, seed):
    rng = random.Random(seed)
    stacks, known = make_stacks(300, 100_000), {}
    for _ in range(5000):
        pid, name = rng.randrange(1, 6), rng.randrange(1, 400)
        if (pid, name) in known or len(known) == 300:
            assert find(stacks, name, pid) == known.get((pid, name))
        else:
            words = [rng.randrange(2**64) for _ in range(rng.randrange(1, 9))]
            assert add(stacks, name, words, pid) == 0
            known[pid, name] = words
        if rng.random() < 0.01:
            gone = [key for key in known if key[0] == pid]
            assert lib.mw_stacks_forget(stacks, pid) == len(gone)
            for key in gone:
                del known[key]
    assert lib.mw_stacks_count(stacks) == len(known)
    for (pid, name), words in known.items():
        assert find(stacks, name, pid) == words


def test_an_impossible_bound_is_refused():
    assert not lib.mw_stacks_create(0, 10)
    assert not lib.mw_stacks_create(2**32 - 1, 10)
