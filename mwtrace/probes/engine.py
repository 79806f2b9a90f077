"""What an engine is: *object or text in, program and map descriptors out*.

Whoever uses programs sees descriptors only and cannot know which engine made them; attaching is
not an engine's business. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class Loaded(Protocol):
    """Programs that the kernel has accepted; they stay until ``close()`` and their links' end."""

    @property
    def programs(self) -> Mapping[str, int]: ...

    @property
    def maps(self) -> Mapping[str, int]: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """One way to bring a unit of ``bpf/`` into the kernel."""

    @property
    def name(self) -> str: ...

    @property
    def lacked(self) -> frozenset[str]:
        """Programs that it cannot make, of any unit: attach by others."""
        ...

    def load(self, unit: str, disabled: Collection[str] = (), ring_bytes: int = 0) -> Loaded:
        """Load ``bpf/<unit>.bpf.c`` without the programs named in disabled, and without lacked.

        ring_bytes: what its ring buffers get, a power of two of pages; 0: what they declare.
        Raises EngineError, with what the operator can do about it.
        """
        ...
