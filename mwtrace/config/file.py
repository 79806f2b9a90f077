"""One file, checked as a whole: options and services, every fault of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click

from mwtrace.config.options import WATCH, plain_commands, read_options, unknown_tables
from mwtrace.config.reading import ConfigFaults, read
from mwtrace.config.services import SERVICE, Parse, read_services
from mwtrace.rules import Rules

DEFAULT_PATH = Path("/etc/mwtrace/mwtrace.toml")


class Config(NamedTuple):
    """What a file says."""

    defaults: dict[str, Any]  # for click: an option that is typed goes before
    rules: Rules


def load(
    path: Path, group: click.Group, ctx: click.Context, parse_size: Parse, parse_duration: Parse
) -> Config:
    """Read and check a file. Raises ConfigError; ConfigFaults has all that is wrong with it."""
    file = read(path)
    options = read_options(file, group, ctx)
    rules, faults = read_services(file, parse_size, parse_duration)
    known = {WATCH: None, SERVICE: None, **plain_commands(group)}
    faults = [*options.faults, *faults, *unknown_tables(file, known)]
    if faults:
        raise ConfigFaults(path, faults)
    return Config(options.defaults, Rules(tuple(rules)))
