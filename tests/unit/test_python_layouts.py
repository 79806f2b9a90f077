"""The tables of CPython's structures: which version gets which, and who is refused."""

from __future__ import annotations

import pytest

from mwtrace.cpython.layouts import (
    PythonVersion,
    UnknownPython,
    debug_offsets_bytes,
    known_minors,
    layout_for,
    with_debug_offsets,
)

# What resolving a stack needs, of every version.
NEEDED = ["is.threads_head", "ts.next", "ts.interp", "ts.thread_id", "rt.main_thread"]
NEEDED += ["fr.previous", "fr.code", "co.name", "co.filename", "co.firstlineno", "co.linetable"]
FRAME_BYTES = 112  # MW_FRAME_BYTES


@pytest.mark.parametrize("minor", known_minors())
def test_every_version_has_what_a_stack_needs(minor):
    layout = layout_for(PythonVersion(*minor, 3))
    assert all(layout.get(name) is not None for name in NEEDED)
    frame = {name: value for name, value in layout.offsets.items() if name.startswith("fr.")}
    assert all(value + 8 <= FRAME_BYTES for name, value in frame.items() if name != "fr.size")
    frames = {"ts.frame", "ts.cframe", "ts.current_frame"} & set(layout.offsets)
    assert len(frames) == 1


def test_a_patch_release_changes_what_it_changed_and_all_before_it():
    def garbage(patch: int) -> int | None:
        return layout_for(PythonVersion(3, 13, patch)).get("gc.generations")

    assert [garbage(patch) for patch in (0, 4, 5, 18)] == [24, 24, 20, 20]
    # 3.14.8 took a field away again.
    assert layout_for(PythonVersion(3, 14, 4)).get("gc.young") == 24
    assert layout_for(PythonVersion(3, 14, 8)).get("gc.young") is None


def test_a_release_that_nobody_measured_is_marked():
    assert layout_for(PythonVersion(3, 11, 5)).is_seen
    assert not layout_for(PythonVersion(3, 11, 99)).is_seen


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 99, 0)])
def test_a_version_without_a_table_is_refused(version):
    with pytest.raises(UnknownPython):
        layout_for(PythonVersion(*version))


def test_what_the_process_says_goes_before_the_table():
    version = PythonVersion(3, 13, 0)
    layout = layout_for(version)
    size = debug_offsets_bytes(version)
    data = bytearray(size)
    data[192:200] = (4711).to_bytes(8, "little")  # thread_state.thread_id
    told = with_debug_offsets(layout, bytes(data))
    assert told["ts.thread_id"] == 4711
    assert told.is_self_described
    assert layout["ts.thread_id"] == 152


def test_an_absurd_offset_is_refused():
    version = PythonVersion(3, 13, 0)
    data = b"\xff" * debug_offsets_bytes(version)
    with pytest.raises(UnknownPython):
        with_debug_offsets(layout_for(version), data)


def test_a_table_cut_short_leaves_the_rest_as_measured():
    layout = layout_for(PythonVersion(3, 13, 0))
    assert with_debug_offsets(layout, b"xdebugpy").offsets == layout.offsets
