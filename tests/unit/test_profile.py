"""The rule by which a native and a Python stack become one."""

from __future__ import annotations

import pytest
from profiles import native, plain, python

from mwtrace.tell.profile import Frame, FrameKind, merge_stacks


def stack(*names):
    """Frames leaf first from names root first; lower-case p... is Python."""
    return [python(n) if n.startswith("py_") else native(n) for n in reversed(names)]


def names(frames):
    return [frame.name for frame in frames]


EVAL, GLUE = "_PyEval_EvalFrameDefault", "_PyFunction_Vectorcall"


@pytest.mark.parametrize(
    ("case", "native_names", "python_names", "merged"),
    [
        ("no Python", ["main", "work"], [], ["main", "work"]),
        (
            "one loop for many Python frames (3.11 and later)",
            ["_start", "main", "Py_RunMain", EVAL, "cfunction_vectorcall_O", "dumps", "grow"],
            ["py_main", "py_handle"],
            ["py_main", "py_handle", "dumps", "grow"],
        ),
        (
            "a loop per Python frame (up to 3.10)",
            ["main", EVAL, GLUE, "_PyEval_EvalFrame", "PyObject_Call", "dumps"],
            ["py_main", "py_handle"],
            ["py_main", "py_handle", "dumps"],
        ),
        (
            "C code between two Python frames keeps its place where loops tell it",
            ["main", EVAL, "list_sort", EVAL, "dumps"],
            ["py_main", "py_key"],
            ["py_main", "list_sort", "py_key", "dumps"],
        ),
        (
            "C code in between is left out where loops do not tell it",
            ["main", EVAL, "list_sort", EVAL, "dumps"],
            ["py_main", "py_sort", "py_key"],
            ["py_main", "py_sort", "py_key", "dumps"],
        ),
        (
            "the interpreter itself allocates",
            ["main", EVAL],
            ["py_main"],
            ["py_main"],
        ),
        (
            "a native stack that was cut before the loop",
            ["dumps", "grow"],
            ["py_main"],
            ["py_main", "dumps", "grow"],
        ),
        ("no native stack", [], ["py_main", "py_handle"], ["py_main", "py_handle"]),
        ("nothing", [], [], []),
    ],
)
def test_stacks_are_merged_root_first(case, native_names, python_names, merged):
    assert names(merge_stacks(stack(*native_names), stack(*python_names))) == merged


def test_a_python_function_named_like_the_loop_is_no_loop():
    frames = merge_stacks([native("dumps")], [python(EVAL), python("main")])
    assert names(frames) == ["main", EVAL, "dumps"]


def test_a_frame_without_a_name_is_titled_by_its_place():
    assert native("", 0x10).title == "liborjson.so+0x10"
    assert Frame("", FrameKind.NATIVE, address=0x20).title == "0x20"


def test_the_share_explained_is_unknown_without_both_rates():
    profile = plain()
    assert [profile.explained_share(site) for site in profile.sites] == [0.94, 0.0, None]
