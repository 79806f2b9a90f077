"""The stacks of a process's threads, those included that glibc keeps for the next thread.

Up to glibc 2.41 each stack is a mapping of its own above a guard that cannot be read. From 2.42 on
the guard is a mark inside the mapping (MADV_GUARD_INSTALL, Linux 6.13), so that the kernel joins
neighbours to one mapping, and malloc's with them: then glibc's own lists of stacks are followed.
They begin where the kernel knows a place in the main thread's struct pthread: its robust list.

Everything read is hostile: a list ends at a bound, and a node counts only as a struct pthread that
points at itself and lies inside the stack that it names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mwtrace.capi import ffi, lib
from mwtrace.evidence.image import Image, Mapping, is_anonymous

# struct pthread on x86-64, the same since 2.10; its first part is as large as the ABI has it.
_SELF = 16  # header.self; header.tcb, at 0, says the same
_LIST = 704
_ROBUST_HEAD = 736
# stackblock and stackblock_size moved with releases: they are found by what they say.
_PTHREAD_BYTES = 2560
_HEADS_BYTES = 16  # between the heads of glibc's lists: used, of the user's, cached (2.34)
_PAGE_BYTES = 4096
_STACK_BYTES_MAX = 1 << 36
_TAIL_BYTES = 8192  # struct pthread lies at the top of a thread's stack
THREADS_MAX = 1 << 16


def find_stacks(image: Image) -> list[tuple[int, int]]:
    """Return the stacks but the main thread's, ascending."""
    found = dict(_listed(image))
    # A stack in both begins above its guard in one of them; joined mappings hold several.
    ends = set(found.values())
    for start, end in _guarded(image):
        if not any(start < known <= end for known in ends):
            found[start] = end
    return sorted(found.items())


def _guarded(image: Image) -> Iterator[tuple[int, int]]:
    """Mappings above a guard, with a struct pthread at their top."""
    before: Mapping | None = None
    for mapping in image.mappings:
        guarded = (
            before is not None
            and before.end == mapping.start
            and not before.has(lib.MW_MAPPING_READ | lib.MW_MAPPING_FILE)
        )
        if guarded and is_anonymous(mapping) and mapping.has(lib.MW_MAPPING_WRITE):
            if _has_pthread_at_top(image, mapping):
                yield mapping.start, mapping.end
        before = mapping


def _has_pthread_at_top(image: Image, mapping: Mapping) -> bool:
    start = max(mapping.start, mapping.end - _TAIL_BYTES)
    raw = image.read(start, mapping.end - start)
    return any(
        _is_pthread(start + offset, raw[offset : offset + 24])
        for offset in range(0, len(raw) - 24, 64)
    )


def _is_pthread(address: int, raw: bytes) -> bool:
    itself = struct.pack("<Q", address)
    return raw.startswith(itself) and raw.startswith(itself, _SELF)


def _listed(image: Image) -> Iterator[tuple[int, int]]:
    """What glibc's lists of stacks in use and of cached ones hold."""
    robust = ffi.new("uint64_t *")
    if lib.mw_thread_robust_list(image.pid, robust) or robust[0] < _ROBUST_HEAD:
        return
    main = int(robust[0]) - _ROBUST_HEAD
    if not _is_pthread(main, image.read(main, 24)):
        return  # another C library
    # The main thread's stack is the user's; the one node that is no thread is the list's head.
    node = image.word(main + _LIST)
    for _ in range(THREADS_MAX):
        if not node or not _is_pthread(node - _LIST, image.read(node - _LIST, 24)):
            break
        node = image.word(node)
    for head in (node - _HEADS_BYTES, node + _HEADS_BYTES):
        yield from _members(image, head)


def _members(image: Image, head: int) -> Iterator[tuple[int, int]]:
    """The stacks of the list at head; nothing if it does not come back to it."""
    found: list[tuple[int, int]] = []
    node = image.word(head)
    for _ in range(THREADS_MAX):
        if node == head:
            yield from found
            return
        address = node - _LIST
        raw = image.read(address, _PTHREAD_BYTES) if address > 0 else b""
        if not _is_pthread(address, raw):
            return
        span = _span(address, raw)
        if span is not None:
            found.append(span)
        node = int(struct.unpack_from("<Q", raw, _LIST)[0])


def _span(address: int, raw: bytes) -> tuple[int, int] | None:
    """Where the stack is that this struct pthread lies on top of."""
    words = struct.unpack_from(f"<{len(raw) // 8}Q", raw)
    for start, size, guard in zip(words, words[1:], words[2:]):
        if (
            not (start | size | guard) % _PAGE_BYTES
            and guard < size <= _STACK_BYTES_MAX
            and start < address < start + size
        ):
            return start, start + size
    return None
