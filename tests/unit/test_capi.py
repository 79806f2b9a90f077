"""C's codes become exceptions, and the hand-written stub matches the module that was built."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from mwtrace import _cext
from mwtrace.capi import check, ffi
from mwtrace.errors import EngineError, HostError

STUB = Path(__file__).parents[2] / "mwtrace" / "_cext.pyi"


def test_a_result_that_is_no_error_passes_through():
    assert check(0, "do a thing") == 0
    assert check(17, "do a thing") == 17


def test_a_negative_errno_says_what_could_not_be_done_and_why():
    with pytest.raises(HostError) as raised:
        check(-errno.ENOSPC, "name the process")
    assert str(raised.value) == "cannot name the process: No space left on device"
    assert raised.value.remedy


def test_the_caller_chooses_the_kind_of_error():
    with pytest.raises(EngineError):
        check(-errno.EPERM, "attach", EngineError)


def test_every_name_of_the_stub_exists_in_the_built_module():
    tree = ast.parse(STUB.read_text())
    values = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert values == {"ffi", "lib"}
    assert all(hasattr(_cext, name) for name in values)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in classes["_Ffi"].body:
        name = node.target.id if isinstance(node, ast.AnnAssign) else node.name
        assert hasattr(ffi, name), name
