"""The command line: what was asked for, turned into a watch, a report or a demonstration.

Errors that we raise on purpose end here as one line and a remedy, never as a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Optional

import click

from mwtrace import __version__
from mwtrace.alert_options import alert_options, check, settings_of
from mwtrace.demo import SHAPES, run
from mwtrace.errors import ConfigError, MwtraceError
from mwtrace.serving import changed, check_config_command, config_of, read_config, service
from mwtrace.tell.units import WallAnchor, format_duration, parse_duration, parse_size

if TYPE_CHECKING:
    from mwtrace.daemon import Settings
    from mwtrace.supervised import Reloaded

# Below, ticks alone would take a CPU; above, a leak has ended the host before it is named.
_INTERVAL_MIN_S = 0.1
_INTERVAL_MAX_S = 3600.0
_DEFAULT_ADDRESS = "127.0.0.1:9469"
_PERIOD_MIN_S = 60.0  # between two snapshots on a schedule


def _quantity(parse: Callable[[str], float]) -> Callable[..., Optional[float]]:
    """Return a click callback for options that people write with a unit."""

    def read(ctx: click.Context, option: click.Parameter, text: Optional[str]) -> Optional[float]:
        return None if text is None else parse(text)

    return read


class _Group(click.Group):
    """As click's, but that it leaves errors of writing to ``main()``."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _write_errors():
            return super().make_context(*args, **kwargs)  # shows the help

    def invoke(self, ctx: click.Context) -> Any:
        with _write_errors():
            return super().invoke(ctx)


@contextlib.contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _WriteError(error) from error


class _WriteError(Exception):
    """An OSError that click must not see: it ends the process for a broken pipe by itself."""


def _interval(ctx: click.Context, option: click.Parameter, text: str) -> float:
    interval_s = parse_duration(text)
    if not _INTERVAL_MIN_S <= interval_s <= _INTERVAL_MAX_S:
        raise ConfigError(
            f"cannot look at all processes every {text}",
            "Choose an interval from 100ms to 1h; the default of 5s suits nearly everyone.",
        )
    return interval_s


def _duration(ctx: click.Context, option: click.Parameter, text: Optional[str]) -> Optional[float]:
    duration_s = None if text is None else parse_duration(text)
    if duration_s == 0:
        raise ConfigError("cannot watch for no time", "See --once for what is there now.")
    return duration_s


@click.group(
    cls=_Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    callback=_interval,
    default="5s",
    show_default=True,
    help="Time between two looks at all processes.",
)
@click.option("--duration", callback=_duration, help="Stop after this time.  [default: never]")
@click.option("--once", is_flag=True, help="Show what is there now, and stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per verdict change.")
@click.option("--record", metavar="FILE", help="With one --pid: write what 'mwtrace replay' reads.")
@click.option("--no-bpf", is_flag=True, help="Read /proc even where BPF works.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "libbpf", "bcc"]),
    default="auto",
    show_default=True,
    help="How programs come into the kernel: compiled when mwtrace was built, or here, by bcc.",
)
@click.option(
    "--watch-only", is_flag=True, help="Read no suspect's memory and put no probe into any process."
)
@click.option(
    "--web-listen-address",
    "--web.listen-address",
    "web_listen_address",
    is_flag=False,
    flag_value=_DEFAULT_ADDRESS,
    metavar="[ADDRESS]",
    help=f"Serve /metrics there; alone, on {_DEFAULT_ADDRESS}.",
)
@click.option("--textfile-dir", metavar="DIR", help="Keep mwtrace.prom there for a node-exporter.")
@click.option(
    "--metrics-prefix",
    metavar="PREFIX",
    default="mwtrace_",
    show_default=True,
    help="What the names of metrics begin with.",
)
@click.option(
    "--metrics-services",
    type=click.IntRange(1, 4096),
    default=100,
    show_default=True,
    help="So many services have metrics of their own; the others are told as one.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep histories and verdicts there, so that a restart loses a tick and no more.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    callback=read_config,
    help="Take from there what is not said here; SIGHUP has it read again.",
)
@alert_options
@click.option(
    "--snapshots",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep snapshots of suspects that have the hook there: when one grows, when it leaks.",
)
@click.option(
    "--snapshot-every",
    "schedule",
    multiple=True,
    metavar="NAME=TIME",
    help="Besides, one of this service in each period; may be given several times.",
)
@click.option(
    "--snapshot-encrypt-to",
    "encrypt_to",
    metavar="KEY",
    help="Encrypt them to an age public key, or to those in a file.",
)
@click.option(
    "--snapshot-then",
    "then",
    metavar="COMMAND",
    help="Run this on each, its path as last word.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell every verdict change, not only alarms.")
@click.pass_context
def cli(
    ctx: click.Context,
    /,
    watch_all: bool,
    pids: tuple[int, ...],
    services: tuple[str, ...],
    interval: float,
    duration: Optional[float],
    once: bool,
    as_json: bool,
    record: Optional[str],
    no_bpf: bool,
    engine: str,
    watch_only: bool,
    web_listen_address: Optional[str],
    textfile_dir: Optional[str],
    metrics_prefix: str,
    metrics_services: int,
    state_dir: Optional[Path],
    config: Optional[Path],
    snapshots: Optional[Path],
    schedule: tuple[str, ...],
    encrypt_to: Optional[str],
    then: Optional[str],
    verbose: bool,
    **told: Any,
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
    if watch_all and pids:
        # What is typed goes before what the file says.
        watch_all, pids = (
            watch_all and _is_typed(ctx, "watch_all"),
            pids if _is_typed(ctx, "pids") else (),
        )
    asked = [name for name, given in (("--all", watch_all), ("--pid", pids)) if given]
    if ctx.invoked_subcommand is not None:
        given = _given(ctx) - {"--verbose", "--config"}
        if given:
            raise ConfigError(f"'{ctx.invoked_subcommand}' takes no {min(given)}")
        return
    if not asked and not services and not once:
        given = _given(ctx)
        if given:
            raise ConfigError(f"{min(given)} of what?", "Say --all, --pid or --service.")
        click.echo(ctx.get_help())
        return
    if len(asked) > 1:
        raise ConfigError("--all and --pid exclude each other")
    if record and len(pids) != 1:
        raise ConfigError("--record needs exactly one --pid")
    if once and web_listen_address:
        raise ConfigError(
            "--once ends before anybody could scrape it", "Use --textfile-dir, or no --once."
        )
    outlets = None
    if web_listen_address or textfile_dir:
        from mwtrace.outlets import Outlets

        outlets = Outlets(
            web_listen_address or "", textfile_dir or "", metrics_prefix, metrics_services
        )
    elif _given(ctx, in_file=True) & {"--metrics-prefix", "--metrics-services"}:
        raise ConfigError("metrics for whom?", "Say --web-listen-address or --textfile-dir.")
    if (schedule or encrypt_to or then) and snapshots is None:
        raise ConfigError("nothing says where snapshots are kept", "Say --snapshots DIR.")
    from mwtrace.watching import Serve, watch

    check(_given(ctx, in_file=True), once)
    watch(
        _settings(ctx, pids),
        services,
        once=once,
        as_json=as_json,
        record=record,
        is_verbose=verbose,
        alerting=settings_of(told),
        outlets=outlets,
        serve=Serve(state_dir, _reloader(ctx) if config else None),
    )


def _period(text: str) -> tuple[str, float]:
    name, equals, period = text.rpartition("=")
    if not name or not equals:
        raise ConfigError(
            f"cannot read --snapshot-every {text!r}", "Write it as orders.service=1d."
        )
    every_s = parse_duration(period)
    if every_s < _PERIOD_MIN_S:
        raise ConfigError(f"a snapshot every {period} is too often", "Choose 1 min or more.")
    return name, every_s


def _settings(ctx: click.Context, pids: tuple[int, ...]) -> Settings:
    from mwtrace.daemon import Settings
    from mwtrace.escalation.snapshots import SnapshotSettings
    from mwtrace.rules import Rules

    asked = ctx.params
    snapshots = None
    if asked["snapshots"] is not None:
        schedule = tuple(map(_period, asked["schedule"]))
        snapshots = SnapshotSettings(
            asked["snapshots"], asked["encrypt_to"], asked["then"], schedule
        )
    file = config_of(ctx)
    return Settings(
        interval_s=asked["interval"],
        duration_s=asked["duration"],
        pids=pids,
        allow_bpf=not asked["no_bpf"],
        engine=asked["engine"],
        escalates=not asked["watch_only"],
        rules=file.rules if file else Rules(),
        snapshots=snapshots,
    )


def _reloader(ctx: click.Context) -> Callable[[], Reloaded]:
    """Return what reads the command line and its file once more."""
    from mwtrace.supervised import Reloaded

    before = dict(ctx.params)

    def reload() -> Reloaded:
        try:
            again = cli.make_context("mwtrace", list(ctx.obj or ()))
        except click.ClickException as error:
            raise ConfigError(error.format_message()) from error
        now = again.params
        settings = _settings(again, now["pids"])
        return Reloaded(settings, now["services"], now["verbose"], changed(before, now))

    return reload


def _is_typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _given(ctx: click.Context, in_file: bool = False) -> set[str]:
    """Return the options of the watch that the operator wrote, by their long names.

    in_file: those of the configuration file, too.
    """
    source = click.core.ParameterSource
    sources = {source.COMMANDLINE, source.DEFAULT_MAP} if in_file else {source.COMMANDLINE}
    return {
        max(option.opts, key=len)
        for option in ctx.command.params
        if option.name and ctx.get_parameter_source(option.name) in sources
    }


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
@click.option(
    "--seconds",
    callback=_quantity(parse_duration),
    metavar="TIME",
    help="Stop after this time.  [default: never]",
)
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
    from mwtrace.host.procfs import Host
    from mwtrace.lookup import find_process
    from mwtrace.tracing.command import Format, Subject, Wish, parse_share, run

    def find(host: Host, word: str) -> Subject:
        meant = find_process(host, word)
        others = (
            f"{meant.process_count - 1} other processes of {meant.service.name} were not traced; "
            f"process {meant.pid} has the most private memory"
        )
        remarks = (others,) if meant.process_count > 1 else ()
        return Subject(host.process_id(meant.pid), meant.service.name, remarks)

    if exact and growth_only:
        raise ConfigError("--exact and --growth-only exclude each other")
    share = parse_share(budget)
    wish = Wish(subject, seconds, share, exact, growth_only, Format(output_format), output)
    run(wish, find)


@cli.command()
@click.argument("process", metavar="PID|SERVICE")
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page.")
@click.option("--no-holders", is_flag=True, help="Do not search who holds the largest class.")
@click.option(
    "--budget",
    callback=_duration,
    default="2m",
    show_default=True,
    metavar="TIME",
    help="How long reading may take; what is not read by then is said.",
)
def explain(
    process: str, as_json: bool, html: Optional[Path], no_holders: bool, budget: float
) -> None:
    """Say what a process's memory is made of; of a service, its largest process's."""
    from mwtrace import looking

    looking.explain(process, as_json, html, not no_holders, budget)


@cli.command()
@click.argument("process", metavar="PID|SERVICE")
@click.option("--diff", is_flag=True, help="Count again and again; tell what grew, how fast.")
@click.option(
    "--every", callback=_duration, default="60s", show_default=True, help="Time between two counts."
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many.  [default: never]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per count.")
@click.option(
    "--top", type=click.IntRange(1, 200), default=20, show_default=True, help="Types to tell."
)
def census(
    process: str, diff: bool, every: float, count: Optional[int], as_json: bool, top: int
) -> None:
    """Count the live Python objects of a process by type, without stopping it."""
    from mwtrace import looking

    looking.census(process, every if diff else None, count, as_json, top)


@cli.command()
@click.argument("process", metavar="PID|SERVICE")
@click.argument("type_name", metavar="TYPE")
@click.option("--json", "as_json", is_flag=True, help="All paths as JSON.")
def holders(process: str, type_name: str, as_json: bool) -> None:
    """Say who holds the objects of a type: the paths that lead to them, and how many each."""
    from mwtrace import looking

    looking.holders(process, type_name, as_json)


@cli.command()
@click.argument("incident", metavar="[ID]", required=False)
@click.option(
    "--incidents-dir",
    type=click.Path(path_type=Path),
    help="Where they are kept.  [default: the service's]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per incident.")
def incidents(incident: Optional[str], incidents_dir: Optional[Path], as_json: bool) -> None:
    """List the incidents that were kept: leaks and OOM kills; one of them in full."""
    from mwtrace.incidents.listing import show

    click.echo(show(incidents_dir, incident, as_json), nl=False)


@cli.group("assets")
def assets_group() -> None:
    """Rules for Prometheus, a dashboard for Grafana, and runbooks for the alerts."""


@assets_group.command("list")
def assets_list() -> None:
    """Name what there is."""
    from mwtrace.assets import assets

    found = assets()
    width = max(len(asset.name) for asset in found)
    for asset in found:
        click.echo(f"{asset.name:{width}}  {asset.what}")


@assets_group.command("show")
@click.argument("name")
@click.option("--runbook-base", metavar="URL", default="", help="Where you publish the runbooks.")
def assets_show(name: str, runbook_base: str) -> None:
    """Print one of them.

    \b
    mwtrace assets show mwtrace.rules.yml > /etc/prometheus/mwtrace.rules.yml
    """
    from mwtrace.assets import read

    click.echo(read(name, runbook_base), nl=False)


cli.add_command(check_config_command)
cli.add_command(service)


@cli.command()
@click.argument("process", metavar="PID|SERVICE")
@click.option(
    "--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="So many, in a row."
)
@click.option(
    "--every", callback=_duration, default="60s", show_default=True, help="Time between two."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default="/var/lib/mwtrace/snapshots",
    show_default=True,
    help="Keep them there; made if it is not there, for this user alone.",
)
@click.option("--encrypt-to", metavar="KEY", help="An age public key, or a file of them.")
@click.option("--then", metavar="COMMAND", help="Run this on each file, its path as last word.")
@click.option(
    "--inject",
    is_flag=True,
    help="Where there is no hook, bring it in: memory of the running interpreter is changed.",
)
@click.option(
    "--trust-seccomp",
    is_flag=True,
    help="With --inject: its seccomp filter answers with errors, and does not kill.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per snapshot.")
def snapshot(
    process: str,
    count: int,
    every: float,
    directory: Path,
    encrypt_to: Optional[str],
    then: Optional[str],
    inject: bool,
    trust_seccomp: bool,
    as_json: bool,
) -> int:
    """Have a Python process write its object graph to a file; needs the hook in it, or --inject.

    \b
    sudo mwtrace snapshot orders                        one, of its largest process
    sudo mwtrace snapshot 4711 --count 3 --every 60s    three, for 'mwtrace analyze A B C'
    """
    from dataclasses import replace

    from mwtrace.snapping import Wish, take

    wish = Wish(process, directory, count, every, encrypt_to, then, as_json)
    return take(replace(wish, injects=inject, trusts_filter=trust_seccomp))


@cli.command()
@click.option(
    "--install",
    "python",
    type=click.Path(path_type=Path),
    metavar="PYTHON",
    help="Copy it into this interpreter's environment; MWTRACE_HOOK=1 then enables it.",
)
@click.option("--remove", type=click.Path(path_type=Path), metavar="PYTHON", help="Undo that.")
def hook(python: Optional[Path], remove: Optional[Path]) -> None:
    """Say where the hook is, for PYTHONPATH, or put it into a service's environment.

    \b
    mwtrace hook                                        a folder with mwtrace_hook.py
    sudo mwtrace hook --install /srv/orders/venv/bin/python
    """
    from mwtrace.snapshot import placing

    if python is not None and remove is not None:
        raise ConfigError("--install and --remove exclude each other")
    if python is not None:
        for path in placing.install(python):
            click.echo(path)
    elif remove is not None:
        for path in placing.remove(remove):
            click.echo(f"removed {path}")
    else:
        click.echo(placing.FOLDER)


@cli.command()
@click.argument("files", metavar="A [B [C]]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page.")
@click.option(
    "--memory",
    callback=_quantity(parse_size),
    default="8G",
    show_default=True,
    metavar="SIZE",
    help="What analysing may take.",
)
@click.option("--salvage", is_flag=True, help="Take what there is of a file that breaks off.")
@click.option(
    "--top", type=click.IntRange(1, 5000), default=20, show_default=True, help="Types to tell."
)
def analyze(
    files: tuple[Path, ...],
    as_json: bool,
    html: Optional[Path],
    memory: float,
    salvage: bool,
    top: int,
) -> None:
    """Say who holds the memory of one process, from snapshots; of two or three, what grew.

    \b
    mwtrace analyze before.mwsnap after.mwsnap
    mwtrace analyze 1.mwsnap 2.mwsnap 3.mwsnap --html heap.html
    """
    from mwtrace.analyzing import analyze

    if not 1 <= len(files) <= 3:
        raise ConfigError("name one, two or three snapshots, oldest first")
    analyze(files, as_json, html, int(memory), salvage, top)


@cli.command()
@click.argument("process", metavar="PID|SERVICE")
@click.option(
    "--seconds",
    type=click.FloatRange(5.0, 3600.0),
    default=60.0,
    show_default=True,
    help="How long to watch and trace.",
)
@click.option(
    "--snapshot",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="One, two or three of them, oldest first.  [default: the newest of its pid]",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default="/var/lib/mwtrace/snapshots",
    show_default=True,
    help="Where snapshots are kept.",
)
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page.")
def report(
    process: str,
    seconds: float,
    files: tuple[Path, ...],
    directory: Path,
    as_json: bool,
    html: Optional[Path],
) -> None:
    """Put all about one leak on a page: slope, kind, sites, holders, retainer paths."""
    from mwtrace.reporting import Asked, report

    report(Asked(process, seconds, files, directory), as_json, html)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command line; exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not _open_standard_files():
        _fail("standard output is closed", "Send it somewhere: a file, a pipe or /dev/null.", 2)
    try:
        words = _spread_pids(words)
        code = cli.main(words, prog_name="mwtrace", standalone_mode=False, obj=words)
        sys.stdout.flush()
    except MwtraceError as error:
        _fail(f"{error}", error.remedy, error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), "Run 'mwtrace --help' to see what can be asked for.", 2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except (_WriteError, OSError) as error:
        cause = error.__cause__ if isinstance(error, _WriteError) else error
        # What is still in the buffer cannot be written either: no flush at exit may try.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        if isinstance(cause, BrokenPipeError):
            sys.exit(141)  # whoever read us has gone: nothing is left to say
        where = f"{cause.filename}: " if isinstance(cause, OSError) and cause.filename else ""
        why = cause.strerror if isinstance(cause, OSError) else cause
        _fail(f"cannot go on: {where}{why}", "Make room, or send the output somewhere else.", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_files() -> bool:
    """Fill the places of closed standard files; return whether standard output was open.

    Else the next file to be opened would get its number, and our words.
    """
    is_open = sys.stdout is not None
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stderr is None:
        # Not file 2: a library may have got that number for its own (libffi 3.8 keeps one open).
        sys.stderr = open(os.devnull, "w")
    return is_open


def _fail(message: str, remedy: str, exit_code: int) -> NoReturn:
    # What is named in it may be foreign, as the whole message of click is.
    print(f"mwtrace: {_one_line(message)}", file=sys.stderr)
    if remedy:
        print(f"  {remedy}", file=sys.stderr)
    sys.exit(exit_code)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _spread_pids(words: list[str]) -> list[str]:
    """Turn ``--pid 1 2 3`` into ``--pid 1 --pid 2 --pid 3``, as click wants it."""
    spread: list[str] = []
    in_pids = False
    for word in words:
        if in_pids and word.isdigit() and spread[-1] != "--pid":
            spread.append("--pid")
        in_pids = word == "--pid" or word.startswith("--pid=") or (in_pids and word.isdigit())
        spread.append(word)
    return spread
