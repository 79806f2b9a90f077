"""The file's tables against the options that the command line has: one list, and no second.

``[watch]`` holds the options of ``mwtrace`` itself and ``[trace]``, say, those of ``mwtrace
trace``, under their long names. Each value is checked by the option that it is for, as if it had
been typed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from mwtrace.config.reading import Fault, File
from mwtrace.errors import MwtraceError

WATCH = "watch"
# They say where to look, or are asked of a terminal.
_NOT_IN_A_FILE = {"help", "version", "config"}


class Read(NamedTuple):
    """What a file says for the command line, and what is wrong with it."""

    defaults: dict[str, Any]  # click's default_map
    faults: list[Fault]


def read_options(file: File, group: click.Group, ctx: click.Context) -> Read:
    """Check every table that is a command's, each value by its option."""
    read = Read({}, [])
    tables = {WATCH: group, **plain_commands(group)}
    for name, command in tables.items():
        table = file.values.get(name)
        if table is None or name not in file.values:
            continue
        if not isinstance(table, dict):
            read.faults.append(_no_table(file, name))
            continue
        defaults = dict(_values(file, name, table, command, ctx, read.faults))
        if name == WATCH:
            read.defaults.update(defaults)
        else:
            read.defaults[name] = defaults
    return read


def plain_commands(group: click.Group) -> dict[str, click.Command]:
    """Commands that have options; `mwtrace service ...` has none that a file could say."""
    commands = group.commands.items()
    return {name: command for name, command in commands if not isinstance(command, click.Group)}


def unknown_tables(file: File, known: Mapping[str, object]) -> Iterator[Fault]:
    """Yield a fault for each top-level name that is nobody's."""
    for name in file.values:
        if name not in known:
            where = (
                "an option? It belongs into [watch]"
                if not isinstance(file.values[name], dict)
                else nearest(name, known)
            )
            yield Fault(file.line(name), f"nobody reads '{name}'", where)


def _values(
    file: File,
    table_name: str,
    table: Mapping[str, Any],
    command: click.Command,
    ctx: click.Context,
    faults: list[Fault],
) -> Iterator[tuple[str, Any]]:
    options = _options(command)
    for key, value in table.items():
        line = file.line(table_name, key)
        option = options.get(key.replace("_", "-"))
        if option is None:
            faults.append(Fault(line, f"there is no option '{key}'", nearest(key, options)))
            continue
        try:
            yield str(option.name), _typed(option, value, ctx)
        except _WrongType as error:
            faults.append(Fault(line, f"'{key}' takes {error}, and this is {_kind(value)}"))
        except MwtraceError as error:
            faults.append(Fault(line, f"{key}: {error}", error.remedy))
        except click.ClickException as error:
            faults.append(Fault(line, f"{key}: {error.format_message()}"))


def _options(command: click.Command) -> dict[str, click.Option]:
    """Options by their long names without the dashes."""
    return {
        name[2:]: option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _NOT_IN_A_FILE
        for name in option.opts
        if name.startswith("--")
    }


class _WrongType(Exception):
    pass


def _typed(option: click.Option, value: Any, ctx: click.Context) -> Any:
    """Return the value as click takes it from a default_map, once it has passed the option."""
    if option.is_flag and isinstance(option.type, click.types.BoolParamType):
        if not isinstance(value, bool):
            raise _WrongType("true or false")
        typed: Any = value
    elif option.multiple:
        items = value if isinstance(value, list) else [value]
        typed = [_text(item) for item in items]
    else:
        typed = _text(value)
    option.process_value(ctx, typed)
    return typed


def _text(value: Any) -> str:
    """As it would have been typed."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _WrongType("a text or a number")
    return str(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {"dict": "a table", "list": "a list", "str": "a text"}
    return kinds.get(type(value).__name__, f"'{value}'")


def _no_table(file: File, name: str) -> Fault:
    return Fault(file.line(name), f"'{name}' is a table", f"write [{name}] above its options")


def nearest(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), list(known), 1)
    return f"do you mean '{near[0]}'?" if near else "there are: " + ", ".join(sorted(known))
