"""The tables ``[service."name"]``: what holds for some services only.

Order is the file's: the first pattern that matches a service decides for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mwtrace.config.options import nearest
from mwtrace.config.reading import Fault, File
from mwtrace.errors import MwtraceError
from mwtrace.rules import Rule

SERVICE = "service"
Parse = Callable[[str], float]


class Field(NamedTuple):
    """A key of the file that is a field of ``Thresholds``."""

    name: str
    is_size: bool  # else a duration


THRESHOLDS = {
    "growth": Field("growth_bytes", True),
    "leak": Field("leak_bytes", True),
    "warm-up": Field("warm_up_s", False),
    "settling": Field("settling_s", False),
    "learning": Field("learning_s", False),
    "calm": Field("calm_s", False),
}
FLAGS = {"ignore", "watch-only"}


def read_services(
    file: File, parse_size: Parse, parse_duration: Parse
) -> tuple[list[Rule], list[Fault]]:
    """Return the rules in their order, and what is wrong with them."""
    rules: list[Rule] = []
    faults: list[Fault] = []
    tables = file.values.get(SERVICE, {})
    if not isinstance(tables, dict):
        return [], [Fault(file.line(SERVICE), "'service' is a table", 'write [service."name"]')]
    parsers = (parse_duration, parse_size)
    for pattern, table in tables.items():
        if isinstance(table, dict):
            rules.append(_rule(file, pattern, table, parsers, faults))
        else:
            line = file.line(SERVICE, pattern)
            words = f"'{pattern}' is to be a service's name"
            faults.append(Fault(line, words, f'write [service."{pattern}"]'))
    return rules, faults


def _rule(
    file: File,
    pattern: str,
    table: Mapping[str, Any],
    parsers: tuple[Parse, Parse],
    faults: list[Fault],
) -> Rule:
    flags: dict[str, bool] = {}
    thresholds: list[tuple[str, float]] = []
    for key, value in table.items():
        line = file.line(SERVICE, pattern, key)
        name = key.replace("_", "-")
        if name in FLAGS:
            if isinstance(value, bool):
                flags[name] = value
            else:
                faults.append(Fault(line, f"'{key}' takes true or false"))
        elif name in THRESHOLDS:
            field = THRESHOLDS[name]
            try:
                if not isinstance(value, (str, int)) or isinstance(value, bool):
                    raise MwtraceError("takes a text such as " + ("4M" if field.is_size else "90s"))
                thresholds.append((field.name, parsers[field.is_size](str(value))))
            except MwtraceError as error:
                faults.append(Fault(line, f"{key}: {error}", error.remedy))
        else:
            known = dict.fromkeys([*FLAGS, *THRESHOLDS])
            faults.append(Fault(line, f"there is no '{key}' for a service", nearest(key, known)))
    return Rule(
        pattern, flags.get("ignore", False), flags.get("watch-only", False), tuple(thresholds)
    )
