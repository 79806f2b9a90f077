"""Where a field lies in the running kernel's structs, by its own type information (BTF).

Through libbpf by ctypes and not by anything of mwtrace: it is what mwtrace's answer is held
against.
"""

from __future__ import annotations

import ctypes
import struct

_STRUCT = 4  # BTF_KIND_STRUCT
_UNION = 5


class KernelTypes:
    def __init__(self) -> None:
        self._bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name in ("btf__load_vmlinux_btf", "btf__type_by_id"):
            getattr(self._bpf, name).restype = ctypes.c_void_p
        self._bpf.btf__name_by_offset.restype = ctypes.c_char_p
        self._btf = ctypes.c_void_p(self._bpf.btf__load_vmlinux_btf())
        assert self._btf

    def offset(self, name: str, field: str) -> int:
        """Return the offset of a field, also of one inside of nameless or named structs."""
        type_id = self._bpf.btf__find_by_name_kind(self._btf, name.encode(), _STRUCT)
        assert type_id > 0
        bits = 0
        for part in field.split("."):
            found = self._find(type_id, part)
            assert found is not None, f"{name} has no {field}"
            bits += found[0]
            type_id = found[1]
        return bits // 8

    def close(self) -> None:
        self._bpf.btf__free(self._btf)

    def _find(self, type_id: int, field: str) -> tuple[int, int] | None:
        """Offset in bits and type of a member; nameless members are looked into."""
        place = self._bpf.btf__type_by_id(self._btf, type_id)
        _, info, _ = struct.unpack("3I", ctypes.string_at(place, 12))
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return None
        members = ctypes.string_at(place + 12, 12 * (info & 0xFFFF))
        for name_at, member_type, offset in struct.iter_unpack("3I", members):
            name = self._bpf.btf__name_by_offset(self._btf, name_at).decode()
            bits = offset & 0xFFFFFF if info >> 31 else offset
            if name == field:
                return bits, member_type
            inner = None if name else self._find(member_type, field)
            if inner is not None:
                return bits + inner[0], inner[1]
        return None
