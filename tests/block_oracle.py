"""Slow, obvious versions of what the C tracer keeps: blocks in a dictionary, address space as
a dictionary of pages. What they cannot know (bounds) they do not have."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Block:
    size_bytes: int
    weight_bytes: int
    time_ns: int
    site: object


@dataclass
class Blocks:
    """Simple blocks by (pid, address)."""

    live: dict[tuple[int, int], Block] = field(default_factory=dict)
    counters: dict[str, int] = field(
        default_factory=lambda: {
            "allocated_total": 0,
            "freed_total": 0,
            "unmatched_frees_total": 0,
            "stale_frees_total": 0,
            "missed_frees_total": 0,
            "forgotten_blocks_total": 0,
        }
    )

    def add(self, pid: int, address: int, block: Block) -> Block | None:
        self.counters["allocated_total"] += 1
        replaced = self.live.get((pid, address))
        self.counters["missed_frees_total"] += replaced is not None
        self.live[pid, address] = block
        return replaced

    def free(self, pid: int, address: int, time_ns: int) -> None:
        block = self.live.get((pid, address))
        if block is None:
            self.counters["unmatched_frees_total"] += 1
        elif block.time_ns > time_ns:
            self.counters["stale_frees_total"] += 1
        else:
            self.counters["freed_total"] += 1
            del self.live[pid, address]

    def forget(self, pid: int) -> int:
        gone = [key for key in self.live if key[0] == pid]
        for key in gone:
            del self.live[key]
        self.counters["forgotten_blocks_total"] += len(gone)
        return len(gone)


@dataclass
class Pages:
    """Ranges as one entry per page: (pid, page) -> (time, site)."""

    live: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def add(self, pid: int, first: int, count: int, time_ns: int, site: int) -> None:
        for page in range(first, first + count):
            self.live[pid, page] = (time_ns, site)

    def cut(self, pid: int, first: int, count: int, time_ns: int) -> list[int]:
        """Remove the pages that are not younger than time_ns; return them."""
        gone = [
            page
            for page in range(first, first + count)
            if (pid, page) in self.live and self.live[pid, page][0] <= time_ns
        ]
        for page in gone:
            del self.live[pid, page]
        return gone
