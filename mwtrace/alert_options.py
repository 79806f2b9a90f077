"""The options of a watch that say who is told of incidents, and what they mean together.

Part of the command line; what is heavy is imported when a watch begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import click

from mwtrace.errors import ConfigError
from mwtrace.tell.units import parse_duration

if TYPE_CHECKING:
    from mwtrace.alerting import AlertSettings

_RESEND_MIN_S = 1.0
_RESEND_MAX_S = 3600.0

# Options that tell somebody, and those that only say how.
_TELLING = {
    *("--alertmanager", "--webhook", "--slack-webhook", "--exec", "--journal"),
    "--incidents-dir",
}
_HOW = {
    "--alertmanager-auth-file": {"--alertmanager"},
    "--alertmanager-resend": {"--alertmanager"},
    "--runbook-base": {"--alertmanager"},
    "--resolve-after": _TELLING,
}


def _resend(ctx: click.Context, option: click.Parameter, text: str) -> float:
    resend_s = parse_duration(text)
    if not _RESEND_MIN_S <= resend_s <= _RESEND_MAX_S:
        raise ConfigError(
            f"cannot send alerts again every {text}",
            "Choose a time from 1s to 1h; Alertmanager's own advice is 30s to 3m.",
        )
    return resend_s


def _optional_s(
    ctx: click.Context, option: click.Parameter, text: Optional[str]
) -> Optional[float]:
    return None if text is None else parse_duration(text)


_OPTIONS = (
    click.option(
        "--alertmanager",
        "alertmanagers",
        multiple=True,
        metavar="URL",
        help="Alert of incidents there; give every peer of a cluster.",
    ),
    click.option(
        "--alertmanager-auth-file",
        metavar="FILE",
        help="Credentials and certificates for it; docs/alerts.md shows one.",
    ),
    click.option(
        "--alertmanager-resend",
        callback=_resend,
        default="60s",
        show_default=True,
        metavar="TIME",
        help="How often open alerts are sent again.",
    ),
    click.option(
        "--runbook-base",
        metavar="URL",
        default="",
        help="Where you publish the runbooks, for alerts.",
    ),
    click.option(
        "--webhook", "webhooks", multiple=True, metavar="URL", help="Post incidents there, as JSON."
    ),
    click.option(
        "--slack-webhook",
        "slack_webhooks",
        multiple=True,
        metavar="URL",
        help="Post them as text, to Slack or what speaks as it does.",
    ),
    click.option(
        "--exec",
        "commands",
        multiple=True,
        metavar="COMMAND",
        help="Run this for each, with the JSON on its standard input.",
    ),
    click.option("--journal", is_flag=True, help="Write them to systemd's journal."),
    click.option(
        "--incidents-dir",
        type=click.Path(path_type=Path),
        help="Keep a record of each there; 'mwtrace incidents' shows them.",
    ),
    click.option(
        "--resolve-after",
        callback=_optional_s,
        metavar="TIME",
        help="How long a service must be steady.  [default: as long as its leak took to notice]",
    ),
)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def alert_options(command: _Command) -> _Command:
    """Add them to a command, which gets them as keywords for ``settings_of()``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check(given: set[str], once: bool) -> None:
    """Raise ConfigError if nobody could be told as it was asked for; given are long names."""
    if once and given & _TELLING:
        option = min(given & _TELLING)
        raise ConfigError(
            f"--once is over before there is anything for {option}", "Leave --once out."
        )
    for option, needed in _HOW.items():
        if option in given and not given & needed:
            raise ConfigError(f"{option} of what?", f"Say {min(needed)}, too.")


def settings_of(told: Mapping[str, Any]) -> AlertSettings:
    """Turn what was given into settings."""
    from mwtrace.alerting import AlertSettings
    from mwtrace.incidents.book import IncidentLimits

    return AlertSettings(
        alertmanagers=told["alertmanagers"],
        alertmanager_auth_file=told["alertmanager_auth_file"],
        alertmanager_resend_s=told["alertmanager_resend"],
        runbook_base=told["runbook_base"],
        webhooks=told["webhooks"],
        slack_webhooks=told["slack_webhooks"],
        commands=told["commands"],
        journal=told["journal"],
        incidents_dir=told["incidents_dir"],
        limits=IncidentLimits(resolve_after_s=told["resolve_after"]),
    )
