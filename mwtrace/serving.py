"""What the command line does for a watch that runs as a service: its configuration file, its units.

The commands themselves are here, too, so that cli.py only has to name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import click

from mwtrace import units
from mwtrace.config.file import DEFAULT_PATH, Config, load
from mwtrace.tell.units import parse_duration, parse_size

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


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_PATH)
@click.pass_context
def check_config_command(ctx: click.Context, file: Path) -> None:
    """Say everything that is wrong with a configuration file."""
    found = check_config(ctx, file)
    click.echo(f"{file}: no faults, {len(found.rules.rules)} rules for single services")


@click.group()
def service() -> None:
    """Install mwtrace as a service of systemd, remove it, or ask how it is."""


@service.command()
@click.option("--textfile-only", is_flag=True, help="A timer that looks once a minute instead.")
@click.option("--now", is_flag=True, help="Enable and start it, too.")
def install(textfile_only: bool, now: bool) -> None:
    """Write the units, and /etc/mwtrace/mwtrace.toml if there is none."""
    click.echo("\n".join(units.install(units.Place(), textfile_only, units.own_program())))
    if now:
        units.enable(textfile_only)


@service.command()
def uninstall() -> None:
    """Stop and remove the units; configuration and state stay."""
    click.echo("\n".join(units.uninstall(units.Place())))


@service.command()
def status() -> None:
    """Say how the service is, in its own words."""
    click.echo("\n".join(units.status(units.Place())))
