"""The command line: what was asked for, turned into a watch, a report or a demonstration.

Errors that we raise on purpose end here as one line and a remedy, never as a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Optional

import click

from mwtrace import __version__
from mwtrace.demo import SHAPES, run
from mwtrace.errors import ConfigError, MwtraceError
from mwtrace.tell.units import WallAnchor, format_duration, parse_duration, parse_size


def _quantity(parse: Callable[[str], float]) -> Callable[..., Optional[float]]:
    """Return a click callback for options that people write with a unit."""

    def read(ctx: click.Context, option: click.Parameter, text: Optional[str]) -> Optional[float]:
        return None if text is None else parse(text)

    return read


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mwtrace")
@click.option("--all", "watch_all", is_flag=True, help="Watch every process of this host.")
@click.option(
    "--pid",
    "pids",
    type=click.IntRange(1),
    multiple=True,
    metavar="PID...",
    help="Watch only these processes, each for itself.",
)
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="NAME",
    help="Tell only of this service; may be given several times, and * matches any text.",
)
@click.option(
    "--interval",
    callback=_quantity(parse_duration),
    default="5s",
    show_default=True,
    help="Time between two looks at all processes.",
)
@click.option(
    "--duration", callback=_quantity(parse_duration), help="Stop after this time.  [default: never]"
)
@click.option("--once", is_flag=True, help="Show what is there now, and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per verdict change.")
@click.option("--record", metavar="FILE", help="With one --pid: write what 'mwtrace replay' reads.")
@click.option("--no-bpf", is_flag=True, help="Read /proc even where BPF works.")
@click.option("-v", "--verbose", is_flag=True, help="Tell every verdict change, not only alarms.")
@click.pass_context
def cli(
    ctx: click.Context,
    watch_all: bool,
    pids: tuple[int, ...],
    services: tuple[str, ...],
    interval: float,
    duration: Optional[float],
    once: bool,
    as_json: bool,
    record: Optional[str],
    no_bpf: bool,
    verbose: bool,
) -> None:
    """Find the services that leak memory on this host, without touching them.

    \b
    sudo mwtrace --all              watch everything, show a live table
    mwtrace --pid 4711              watch one process
    mwtrace doctor                  what this host lets us see
    mwtrace demo leak-objects       a leak to try it on
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="mwtrace: %(message)s"
    )
    asked = [name for name, given in (("--all", watch_all), ("--pid", pids)) if given]
    if ctx.invoked_subcommand is not None:
        if asked or services:
            raise ConfigError(f"'{ctx.invoked_subcommand}' takes no {(*asked, '--service')[0]}")
        return
    if not asked and not services and not once:
        click.echo(ctx.get_help())
        return
    if len(asked) > 1:
        raise ConfigError("--all and --pid exclude each other")
    if record and len(pids) != 1:
        raise ConfigError("--record needs exactly one --pid")
    from mwtrace.daemon import Settings
    from mwtrace.watching import watch

    settings = Settings(interval_s=interval, duration_s=duration, pids=pids, allow_bpf=not no_bpf)
    watch(settings, services, once=once, as_json=as_json, record=record, is_verbose=verbose)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="The facts as JSON.")
@click.option("--probes", type=click.IntRange(1), metavar="PID", help="Where its probes would sit.")
def doctor(as_json: bool, probes: Optional[int]) -> None:
    """Say what this host and user can do, what is missing, and the remedy for each."""
    if probes is not None:
        from mwtrace.tracing.command import probes as table

        click.echo(table(probes))
        return
    from mwtrace.host import doctor
    from mwtrace.host.procfs import Host
    from mwtrace.trials import TRIALS

    facts = doctor.survey(Host(), TRIALS)
    click.echo(doctor.render_json(facts) if as_json else doctor.render(facts))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per verdict change.")
def replay(file: Path, as_json: bool) -> None:
    """Judge a recording again: a CSV file with the columns time_s,private_bytes."""
    from mwtrace.aggregator import Limits
    from mwtrace.judge.trend import Thresholds
    from mwtrace.replay import BEGIN_S, replay
    from mwtrace.tell.lines import json_line, text_line

    recording = WallAnchor(monotonic_s=BEGIN_S, unix_s=0.0)
    last = None
    for last in replay(file, Thresholds(), Limits()):
        if as_json:
            click.echo(json_line(last, recording))
        else:
            at = format_duration(last.time_s - BEGIN_S)
            click.echo(f"after {at}: {text_line(last, None)}")
    if last is None:
        raise ConfigError(f"cannot judge {file}: it has too few samples", "Record for longer.")


@cli.command()
@click.argument("shape", type=click.Choice(sorted(SHAPES)))
@click.option(
    "--rate",
    callback=_quantity(parse_size),
    default="1M",
    show_default=True,
    metavar="SIZE",
    help="Growth, or turnover, per second.",
)
@click.option("--seconds", type=float, help="Stop after this time.  [default: never]")
def demo(shape: str, rate: float, seconds: Optional[float]) -> None:
    """Run a program that leaks, or one that only looks as if it did."""
    run(shape, rate, seconds)


@cli.command()
@click.argument("subject", metavar="PID|SERVICE")
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 86_400.0),
    default=60.0,
    show_default=True,
    help="How long to trace.",
)
@click.option(
    "--budget",
    default="1%",
    show_default=True,
    help="Part of the process's time that probes may take.",
)
@click.option("--exact", is_flag=True, help="Every block and every free, whatever it costs.")
@click.option("--growth-only", is_flag=True, help="No probe in the process: page faults only.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "collapsed", "pprof", "speedscope", "html"]),
    default="table",
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), help="Write there, not to the terminal.")
def trace(
    subject: str,
    seconds: float,
    budget: str,
    exact: bool,
    growth_only: bool,
    output_format: str,
    output: Optional[Path],
) -> None:
    """Name the code of one process whose memory grows, in Python and native frames.

    \b
    sudo mwtrace trace 4711
    sudo mwtrace trace orders --seconds 120 --format html --output orders.html
    """
    from mwtrace.tracing.command import Format, Wish, parse_share, run

    if exact and growth_only:
        raise ConfigError("--exact and --growth-only exclude each other")
    share = parse_share(budget)
    run(Wish(subject, seconds, share, exact, growth_only, Format(output_format), output))


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command line; exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(_spread_pids(words), prog_name="mwtrace", standalone_mode=False)
    except MwtraceError as error:
        _fail(f"{error}", error.remedy, error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), "Run 'mwtrace --help' to see what can be asked for.", 2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read us has gone: nothing is left to say, and no flush at exit may say otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, remedy: str, exit_code: int) -> NoReturn:
    print(f"mwtrace: {message}", file=sys.stderr)
    if remedy:
        print(f"  {remedy}", file=sys.stderr)
    sys.exit(exit_code)


def _spread_pids(words: list[str]) -> list[str]:
    """Turn ``--pid 1 2 3`` into ``--pid 1 --pid 2 --pid 3``, as click wants it."""
    spread: list[str] = []
    in_pids = False
    for word in words:
        if in_pids and word.isdigit() and spread[-1] != "--pid":
            spread.append("--pid")
        in_pids = word == "--pid" or (in_pids and word.isdigit())
        spread.append(word)
    return spread
