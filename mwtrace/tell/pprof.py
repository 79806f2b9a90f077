"""A profile in pprof's format: gzip of the protocol buffer that google/pprof's profile.proto says.

Written by hand, since it needs only varints and byte strings, and a daemon should not load a
protobuf library for it. Field numbers are profile.proto's.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence

from mwtrace.tell.cells import printable
from mwtrace.tell.profile import Frame, FrameKind, Profile, SiteProfile

# The order that Go's heap profiles have, which readers rely on.
_SAMPLE_TYPES = (
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
)
_DEFAULT_SAMPLE_TYPE = "inuse_space"
_INT64_MAX = 2**63 - 1


def pprof(profile: Profile) -> bytes:
    """The same profile makes the same bytes."""
    return gzip.compress(_Writer(profile).message(), compresslevel=6, mtime=0)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Zero is what an absent field means.
def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _bytes(field, b"".join(_varint(value) for value in values))


class _Writer:
    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._strings = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[Frame, int] = {}
        self._mappings = sorted(profile.mappings, key=lambda mapping: mapping.start_address)
        self._function_messages: list[bytes] = []
        self._location_messages: list[bytes] = []

    def message(self) -> bytes:
        profile = self._profile
        parts = [_bytes(1, self._value_type(*sample_type)) for sample_type in _SAMPLE_TYPES]
        parts += [_bytes(2, self._sample(site)) for site in profile.sites]
        parts += [_bytes(3, message) for message in self._mapping_messages()]
        parts += [_bytes(4, message) for message in self._location_messages]
        parts += [_bytes(5, message) for message in self._function_messages]
        tail = [
            _number(9, profile.time_ns),
            _number(10, round(profile.duration_s * 10**9)),
            _bytes(11, self._value_type("space", "bytes")),
            _number(12, profile.interval_bytes),
            _number(13, self._string(f"{profile.title} (pid {profile.pid})")),
            _number(14, self._string(_DEFAULT_SAMPLE_TYPE)),
        ]
        # Strings come last: all the others have named theirs by then.
        texts = [_bytes(6, text.encode("utf-8", "backslashreplace")) for text in self._strings]
        return b"".join([*parts, *texts, *tail])

    def _string(self, text: str) -> int:
        return self._strings.setdefault(printable(text), len(self._strings))

    def _value_type(self, name: str, unit: str) -> bytes:
        return _number(1, self._string(name)) + _number(2, self._string(unit))

    def _sample(self, site: SiteProfile) -> bytes:
        values = (site.alloc_objects, site.alloc_bytes, site.inuse_objects, site.inuse_bytes)
        locations = [self._location(frame) for frame in reversed(_frames(site))]
        parts = [_packed(1, locations), _packed(2, [_clamped(value) for value in values])]
        if site.inuse_objects > 0:
            size_bytes = max(1, site.inuse_bytes // site.inuse_objects)
            parts.append(_bytes(3, self._label("bytes", number=size_bytes, unit="bytes")))
        parts.append(_bytes(3, self._label("domain", text=site.domain)))
        parts.append(_bytes(3, self._label("known_by", text=site.known_by.value)))
        return b"".join(parts)

    def _label(self, key: str, text: str = "", number: int = 0, unit: str = "") -> bytes:
        return (
            _number(1, self._string(key))
            + _number(2, self._string(text))
            + _number(3, _clamped(number))
            + _number(4, self._string(unit))
        )

    def _location(self, frame: Frame) -> int:
        known = self._locations.get(frame)
        if known:
            return known
        number = self._locations[frame] = len(self._locations) + 1
        line = _number(1, self._function(frame)) + _number(2, frame.line)
        is_native = frame.kind is FrameKind.NATIVE
        self._location_messages.append(
            _number(1, number)
            + _number(2, self._mapping_of(frame) if is_native else 0)
            + _number(3, frame.address if is_native else 0)
            + _bytes(4, line)
        )
        return number

    def _function(self, frame: Frame) -> int:
        key = (frame.title, frame.file)
        known = self._functions.get(key)
        if known:
            return known
        number = self._functions[key] = len(self._functions) + 1
        name = self._string(frame.title)
        file = self._string(frame.file)
        self._function_messages.append(
            _number(1, number) + _number(2, name) + _number(3, name) + _number(4, file)
        )
        return number

    def _mapping_of(self, frame: Frame) -> int:
        for number, mapping in enumerate(self._mappings, start=1):
            if mapping.start_address <= frame.address < mapping.end_address:
                return number
        return 0

    def _mapping_messages(self) -> Sequence[bytes]:
        return [
            _number(1, number)
            + _number(2, mapping.start_address)
            + _number(3, mapping.end_address)
            + _number(4, mapping.file_offset)
            + _number(5, self._string(mapping.path))
            + _number(6, self._string(mapping.build_id))
            + _number(7, 1)  # has_functions: pprof need not look for symbols itself
            for number, mapping in enumerate(self._mappings, start=1)
        ]


# pprof leaves samples without a location out of its totals.
def _frames(site: SiteProfile) -> tuple[Frame, ...]:
    return site.frames or (Frame("[no stack]", FrameKind.NATIVE),)


def _clamped(value: int) -> int:
    return max(-_INT64_MAX, min(_INT64_MAX, value))
