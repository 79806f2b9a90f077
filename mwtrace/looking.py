"""One process looked into, as the command line asks for it: explanation, census, holders.

Reads and prints; what is read is decided in ``evidence``, and how it looks in ``tell``.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Optional

from mwtrace.errors import ConfigError, ProcessGone
from mwtrace.evidence.census import census_process, grown_types
from mwtrace.evidence.explain import explain_process
from mwtrace.evidence.holders import holders_process
from mwtrace.evidence.image import Budget
from mwtrace.host.procfs import Host
from mwtrace.lookup import Meant, find_process
from mwtrace.tell import explanation, objects
from mwtrace.tell.cells import printable
from mwtrace.tell.terminal import detect_style


def explain(
    word: str, as_json: bool, html: Optional[Path], with_holders: bool, budget_s: float
) -> None:
    meant = _find(word)
    read = explain_process(meant.pid, with_holders, Budget(budget_s))
    name = meant.service.name
    if html is not None:
        try:
            html.write_text(explanation.render_html(read, name), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write {html}: {error.strerror}", "Name a file in a folder that is there."
            ) from error
        print(f"mwtrace: written to {html}", file=sys.stderr)
    if as_json:
        print(explanation.render_json(read))
    elif html is None:
        print(explanation.render_text(read, name, _unicode()), end="")


def census(
    word: str, every_s: Optional[float], count: Optional[int], as_json: bool, top: int
) -> None:
    """Count once; or, with every_s, again and again, and tell what grew since the first time."""
    pid = _find(word).pid
    first_s = time.monotonic()
    first = census_process(pid)
    if every_s is None:
        if as_json:
            print(objects.census_json(pid, first, top))
        else:
            print(objects.census_text(pid, first, top, _unicode()), end="")
        return
    for number in itertools.count(1):
        time.sleep(max(0.0, first_s + number * every_s - time.monotonic()))
        now_s = time.monotonic()
        grown = grown_types(first, census_process(pid))
        if as_json:
            print(objects.growth_json(pid, grown, now_s - first_s, top), flush=True)
        else:
            text = objects.growth_text(pid, grown, now_s - first_s, top, _unicode())
            print(text, end="", flush=True)
        if number == count:
            return


def holders(word: str, type_name: str, as_json: bool) -> None:
    found = holders_process(_find(word).pid, type_name)
    if as_json:
        print(objects.holders_json(found))
    else:
        print(objects.holders_text(found, _unicode()), end="")


def _find(word: str) -> Meant:
    try:
        meant = find_process(Host(), word)
    except ProcessGone as error:
        error.remedy = error.remedy or "ps -e lists those that are there."
        raise
    if meant.process_count > 1:
        print(
            f"mwtrace: {printable(meant.service.name)} has {meant.process_count:,} processes; "
            f"reading the largest, pid {meant.pid}",
            file=sys.stderr,
        )
    return meant


def _unicode() -> bool:
    return detect_style(sys.stdout, os.environ).unicode
