"""Imports run downwards: each room of mwtrace has a floor and knows only those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mwtrace"

# A module or package directly under mwtrace -> its floor. Rooms of one floor do not know each
# other; within a room everybody may know everybody.
FLOOR = {
    "errors": 0,
    "model": 0,
    "assets": 1,
    "capi": 1,
    "demo": 1,
    "judge": 1,
    "evidence": 2,
    "host": 2,
    "remote": 2,
    "cpython": 3,
    "probes": 3,  # which functions to probe is asked of host's ELF facts
    "snapshot": 4,
    "aggregator": 2,
    "tracer": 2,
    "escalation": 7,
    "registry": 5,
    "sources": 5,
    "verdicts": 5,
    "tell": 5,
    "daemon": 8,
    "replay": 8,
    "trials": 8,
    "console": 9,
    "alerting": 10,
    "exporting": 9,
    "outlets": 10,
    "alert_options": 11,
    "watching": 11,
    "cli": 13,
    "__main__": 14,
    "incidents": 6,
    "tracing": 6,  # reports as profiles, so it is above tell
    "lookup": 10,
    "looking": 11,
    "config": 3,
    "rules": 2,  # what is asked for one service; thresholds are the judge's
    "state": 5,
    "supervised": 9,
    "ration": 9,
    "serving": 11,
    "units": 10,
    "keeping": 9,  # knows the daemon's parts, as its tellers do
    "analyzing": 11,
    "reporting": 12,
    "snapping": 11,
}
# Rooms that may know less than their floor allows.
ONLY = {"judge": {"model"}, "model": set(), "errors": set()}
# A library's errors and types stay in the one module that knows it.
ONE_MODULE_EACH = ["bcc", "capstone", "elftools", "prometheus_client", "psutil"]

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, wherever in it."""
    package = ["mwtrace", *path.relative_to(PACKAGE).with_suffix("").parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*prefix, *([node.module] if node.module else [])])
            if module == "mwtrace":
                found |= {f"mwtrace.{alias.name}" for alias in node.names}
            else:
                found.add(module)
    return found


def rooms_imported(path: Path) -> set[str]:
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("mwtrace.")}
    return rooms - {"__version__", "_cext", room(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_floors(path):
    own = room(path)
    assert own in FLOOR, f"give mwtrace/{own} a floor here"
    for other in rooms_imported(path):
        assert other in FLOOR, f"{own} imports {other}, which has no floor here"
        assert FLOOR[other] < FLOOR[own], f"{own} imports {other}"
        assert other in ONLY.get(own, {other}), f"{own} may not know {other}"


def test_the_built_module_is_imported_through_its_door_only():
    doors = {str(path.relative_to(PACKAGE)) for path in MODULES if knows_the_built_module(path)}
    assert doors == {"capi.py"}


def knows_the_built_module(path: Path) -> bool:
    """Whether it imports values from there; types, under TYPE_CHECKING, are no matter."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    return any(
        isinstance(node, ast.ImportFrom) and node.module == "mwtrace._cext"
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("library", ONE_MODULE_EACH)
def test_an_outside_library_is_known_to_one_module(library):
    knowing = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(name.split(".")[0] == library for name in imported(path))
    ]
    assert len(knowing) <= 1, knowing
