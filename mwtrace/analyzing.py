"""``mwtrace analyze``: files in, text, JSON or a page out.

Reads and prints; what is found is decided in ``snapshot``, and how it looks in ``tell``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from mwtrace.errors import ConfigError, HostError
from mwtrace.tell.terminal import detect_style

if TYPE_CHECKING:
    from mwtrace.snapshot.analysis import Analysis


def analyze(
    files: Sequence[Path],
    as_json: bool,
    html: Optional[Path],
    memory_max_bytes: int,
    salvage: bool,
    top: int,
) -> None:
    found = analyze_files(files, memory_max_bytes, salvage)
    # After numpy is known to be there: these know the analysis's values.
    from mwtrace.tell import analysis
    from mwtrace.tell.heap_page import heap_page

    if html is not None:
        write_page(html, heap_page(found))
    if as_json:
        print(analysis.render_json(found))
    elif html is None:
        unicode = detect_style(sys.stdout, os.environ).unicode
        print(analysis.render_text(found, top, unicode), end="")


def analyze_files(files: Sequence[Path], memory_max_bytes: int, salvage: bool) -> Analysis:
    """Analyse; without numpy, or with too little memory, one line and a remedy."""
    try:
        from mwtrace.snapshot.analysis import analyze
    except ImportError as error:
        raise HostError(
            f"cannot analyse snapshots: {error}",
            "Install numpy beside mwtrace: pip install 'mwtrace[analyze]'.",
        ) from error
    try:
        return analyze(files, memory_max_bytes, salvage)
    except MemoryError:
        raise HostError(
            "cannot analyse these snapshots: this host has not enough memory",
            "Copy them to one that has; 5 million objects take about 1.5 GB.",
        ) from None


def write_page(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", "Name a file in a folder that is there."
        ) from error
    print(f"mwtrace: written to {path}", file=sys.stderr)
