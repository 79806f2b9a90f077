"""What the command line does for a watch that runs as a service: its configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import click

from mwtrace.config.file import DEFAULT_PATH, Config, load
from mwtrace.tell.units import parse_duration, parse_size

__all__ = ["DEFAULT_PATH", "changed", "check_config", "config_of", "read_config"]

# Options that a running watch takes up; the others are built into it.
HEARD_AT_ONCE = {"interval", "services", "verbose", "watch_only"}
_CONFIG = "mwtrace.config"


def read_config(
    ctx: click.Context, option: click.Parameter, path: Optional[Path]
) -> Optional[Path]:
    """Callback of --config: what the file says becomes the defaults of all options."""
    if path is not None:
        config = check_config(ctx, path)
        ctx.meta[_CONFIG] = config
        ctx.default_map = config.defaults
    return path


def check_config(ctx: click.Context, path: Path) -> Config:
    """Read a file. Raises ConfigError, with all that is wrong with it."""
    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    return load(path, group, ctx, parse_size, parse_duration)


def config_of(ctx: click.Context) -> Optional[Config]:
    found = ctx.meta.get(_CONFIG)
    return found if isinstance(found, Config) else None


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the options that changed and are heard at a start only."""
    return [
        "--" + name.replace("_", "-")
        for name in now
        if now[name] != before.get(name) and name not in HEARD_AT_ONCE
    ]
