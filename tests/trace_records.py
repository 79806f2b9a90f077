"""Records as the kernel side makes them, for tests that feed the tracer by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mwtrace.capi import ffi, lib


def block_event(kind: int, pid: int, address: int, size_bytes: int = 0, **fields: Any) -> bytes:
    values = {
        "record": lib.MW_RECORD_BLOCK,
        "kind": kind,
        "pid": pid,
        "tid": pid,
        "address": address,
        "size_bytes": size_bytes,
        "weight_bytes": size_bytes,
        "time_ns": 1,
        "domain": lib.MW_DOMAIN_NATIVE,
        **fields,
    }
    return bytes(ffi.buffer(ffi.new("struct mw_block_event *", values)))


def stack_event(pid: int, stack: int, words: Sequence[int], **fields: Any) -> bytes:
    kind = fields.get("kind", lib.MW_STACK_NATIVE)
    values = {
        "record": lib.MW_RECORD_STACK,
        "pid": pid,
        "stack": stack,
        "kind": kind,
        "frame_count": len(words) // (2 if kind == lib.MW_STACK_PYTHON else 1),
        "words": list(words),
        **fields,
    }
    event = ffi.new("struct mw_stack_event *", values)
    return bytes(ffi.buffer(event))[
        : ffi.offsetof("struct mw_stack_event", "words") + 8 * len(words)
    ]


def thread_event(pid: int, thread_pointer: int) -> bytes:
    values = {"record": lib.MW_RECORD_THREAD, "pid": pid, "thread_pointer": thread_pointer}
    return bytes(ffi.buffer(ffi.new("struct mw_thread_event *", values)))


def recording(records: Sequence[bytes]) -> bytes:
    """The records as mw_tracer_replay() takes them."""
    parts = []
    for record in records:
        parts += [len(record).to_bytes(8, "little"), record, bytes(-len(record) % 8)]
    return b"".join(parts)
