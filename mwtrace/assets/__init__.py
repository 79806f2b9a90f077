"""What an installed mwtrace brings for other programs: rules, a dashboard, runbooks.

Knows the files by name and prints them; what is in them is checked by tests, against the real
programs. The runbooks are those of docs/.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

from mwtrace.errors import ConfigError

RUNBOOKS = "runbooks"
_RUNBOOK_LINE = re.compile(r"^( *)runbook: mwtrace assets show runbooks/(\w+\.md)$", re.MULTILINE)


class Asset(NamedTuple):
    name: str
    what: str


_FILES = (
    Asset("mwtrace.rules.yml", "Prometheus: recording and alerting rules"),
    Asset("mwtrace.dashboard.json", "Grafana: a dashboard, to be imported"),
)


def assets() -> list[Asset]:
    """Return all that can be shown."""
    folder = files(__name__) / RUNBOOKS
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".md"))
    pages = [Asset(f"{RUNBOOKS}/{name}", f"what to do about {name[:-3]}") for name in names]
    return [*_FILES, *pages]


def read(name: str, runbook_base: str = "") -> str:
    """Return an asset's text; with runbook_base alerts link to their runbooks below that URL."""
    if name not in {asset.name for asset in assets()}:
        raise ConfigError(f"there is no '{name}'", "'mwtrace assets list' says what there is.")
    text = files(__name__).joinpath(*name.split("/")).read_text(encoding="utf-8")
    if runbook_base:
        base = runbook_base.rstrip("/")
        text = _RUNBOOK_LINE.sub(rf"\1runbook_url: {_quoted(base)}/\2", text)
    return text


def _quoted(base: str) -> str:
    """A URL as it may stand in YAML and in a replacement; anything else is refused."""
    if not re.fullmatch(r"https?://[\w.:/~%@+-]+", base, re.ASCII):
        raise ConfigError(
            f"'{base}' is not the URL of a folder", "Such as https://wiki.example.org/runbooks"
        )
    return base
