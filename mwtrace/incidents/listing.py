"""``mwtrace incidents``: what was kept on disk, as a table, in full, or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Optional

from mwtrace.errors import ConfigError
from mwtrace.incidents.records import read
from mwtrace.model import Incident, IncidentType, PostMortem
from mwtrace.tell.cells import pad, printable, shorten
from mwtrace.tell.incident import SCHEMA_VERSION, evidence, incident_object
from mwtrace.tell.units import format_bytes, format_duration, iso_utc

DEFAULT_DIRECTORY = "/var/lib/mwtrace/incidents"
_SERVICE_CELLS = 32
_SAMPLES_SHOWN_MAX = 20


def directory(given: Optional[Path], environment: Mapping[str, str]) -> Optional[Path]:
    """Where incidents are kept: as told, or in the state directory that systemd gave us."""
    if given is not None:
        return given
    # Several, separated by colons, if the unit names several.
    state = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(state) / "incidents" if state else None


def show(given: Optional[Path], wanted: Optional[str], as_json: bool) -> str:
    """Return the text of the command. Raises ConfigError."""
    place = directory(given, os.environ) or Path(DEFAULT_DIRECTORY)
    if wanted is None and given is None and not place.exists():
        return f"no incident is kept in {place}\n"
    found = list(read(place))
    kept = [one for one in found if one is not None]
    if wanted is not None:
        kept = [one for one in kept if one.id.startswith(wanted)]
        if not kept:
            raise ConfigError(
                f"no incident in {place} is called {printable(wanted)}",
                "'mwtrace incidents' lists them.",
            )
    if as_json:
        return "".join(_json_line(one, wanted is not None) for one in kept)
    if wanted is not None:
        return "\n\n".join("\n".join(_in_full(one)) for one in kept) + "\n"
    lines = list(_table(kept)) if kept else [f"no incident is kept in {place}"]
    if len(found) > len(kept):
        lines.append(f"note: {len(found) - len(kept)} files there are no records of ours")
    return "\n".join(lines) + "\n"


def _json_line(incident: Incident, with_history: bool) -> str:
    told = {"schema_version": SCHEMA_VERSION, **incident_object(incident, with_history)}
    return json.dumps(told, allow_nan=False, separators=(",", ":")) + "\n"


def _table(kept: list[Incident]) -> Iterator[str]:
    yield f"{'OPENED':<22}{'TYPE':<10}{'STATE':<10}{'SERVICE':<{_SERVICE_CELLS}} ID"
    for one in reversed(kept):
        state = "open" if one.resolved_unix_s is None else "resolved"
        name = pad(shorten(printable(one.service.name), _SERVICE_CELLS), _SERVICE_CELLS)
        opened = iso_utc(one.opened_unix_s) or "?"
        yield f"{opened:<22}{one.type.value:<10}{state:<10}{name} {one.id}"


def _in_full(one: Incident) -> Iterator[str]:
    yield f"{one.id}: {one.type.value} of {printable(one.service.name)}"
    yield printable(one.summary)
    opened = iso_utc(one.opened_unix_s) or "?"
    yield f"opened {opened}, last told {iso_utc(one.updated_unix_s) or '?'}"
    if one.resolved_unix_s is not None:
        lasted = format_duration(max(0.0, one.resolved_unix_s - one.opened_unix_s))
        why = printable(one.resolution)
        yield f"resolved {iso_utc(one.resolved_unix_s) or '?'} after {lasted}: {why}"
    if one.type is IncidentType.LEAK:
        for name, value in evidence(one).items():
            yield f"{name}: {printable(value)}"
    for post_mortem in one.post_mortems:
        yield from _post_mortem(post_mortem)


def _post_mortem(one: PostMortem) -> Iterator[str]:
    size = format_bytes(one.private_bytes) if one.private_bytes else "unknown size"
    yield f"killed {iso_utc(one.time_unix_s) or '?'}: pid {one.pid} ({printable(one.comm)}), {size}"
    if one.verdict:
        yield f"  verdict then: {printable(one.verdict)}"
    for name, value in one.cgroup:
        yield f"  cgroup {printable(name)}: {printable(value)}"
    for pid, size_bytes in one.processes:
        yield f"  process {pid}: {format_bytes(size_bytes)}"
    for unix_s, size_bytes in one.history[-_SAMPLES_SHOWN_MAX:]:
        yield f"  {iso_utc(unix_s) or '?'} {format_bytes(size_bytes)}"
    if one.snapshot_path:
        yield f"  snapshot: {printable(one.snapshot_path)}"
