"""The configuration file: every fault with its line, and every option of the command line."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from mwtrace.cli import cli
from mwtrace.config.file import Config, load
from mwtrace.config.options import plain_commands
from mwtrace.config.reading import ConfigFaults, read
from mwtrace.errors import ConfigError
from mwtrace.judge.trend import Thresholds
from mwtrace.model import Service, ServiceKind
from mwtrace.rules import thresholds_under
from mwtrace.tell.units import parse_duration, parse_size


def loaded(path: Path, text: str) -> Config:
    file = path / "mwtrace.toml"
    file.write_text(text)
    with cli.make_context("mwtrace", [], resilient_parsing=True) as ctx:
        return load(file, cli, ctx, parse_size, parse_duration)


def faults(path: Path, text: str) -> list[tuple[int, str]]:
    with pytest.raises(ConfigFaults) as caught:
        loaded(path, text)
    assert all(line.startswith(str(path)) for line in caught.value.remedy.split("\n  "))
    return [(fault.line, fault.message) for fault in caught.value.faults]


def test_what_it_says_becomes_the_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[watch]\nall = true\ninterval = "10s"\nservice = ["a", "b"]\n')
    with cli.make_context("mwtrace", [], default_map=config.defaults) as ctx:
        assert ctx.params["watch_all"] is True
        assert ctx.params["interval"] == 10
        assert ctx.params["services"] == ("a", "b")


def test_what_is_typed_goes_before(tmp_path: Path) -> None:
    (tmp_path / "mwtrace.toml").write_text('[watch]\ninterval = "10s"\n')
    words = ["--config", str(tmp_path / "mwtrace.toml"), "--interval", "2s"]
    with cli.make_context("mwtrace", words) as ctx:
        assert ctx.params["interval"] == 2


def test_commands_have_tables_of_their_own(tmp_path: Path) -> None:
    config = loaded(tmp_path, "[trace]\nseconds = 120\n")
    with cli.make_context("mwtrace", ["trace"], default_map=config.defaults) as root:
        command = cli.commands["trace"]
        with command.make_context("trace", ["4711"], parent=root) as ctx:
            assert ctx.params["seconds"] == 120


@pytest.mark.parametrize("name", ["watch", *plain_commands(cli)])
def test_every_option_of_every_command_can_be_said(tmp_path: Path, name: str) -> None:
    command = cli if name == "watch" else cli.commands[name]
    for option in command.params:
        if not isinstance(option, click.Option) or option.name in ("help", "version", "config"):
            continue
        long = max(option.opts, key=len)[2:]
        # A table where a value belongs: the answer shows that the option is known.
        text = f"[{name}]\n{long} = {{}}\n" if "." not in long else f'[{name}]\n"{long}" = {{}}\n'
        ((line, message),) = faults(tmp_path, text)
        assert line == 2
        assert "takes" in message


def test_all_faults_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """# ours
[watch]
al = true
interval = "5 parsecs"
services = [
  "a",  # interval = 3
]
no-bpf = "yes"
service = ["a", true]
[watc]
[trace]
seconds = -4
[service."x*"]
ignor = true
leak = "lots"
calm = true
"""
    found = faults(tmp_path, text)
    assert [line for line, _ in found] == [3, 4, 5, 8, 9, 10, 12, 14, 15, 16]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[watch]\nall = \n", 2),
        ("[watch]\nall = true\nall = false\n", 3),
        ("[watch\n", 1),
        ("x = 1\n", 1),
        ("watch = 3\n", 1),
        ("service = 3\n", 1),
        ("service.orders = 3\n", 1),
    ],
)
def test_a_file_of_another_shape_is_refused_with_a_line(
    tmp_path: Path, text: str, line: int
) -> None:
    assert faults(tmp_path, text)[0][0] == line


def test_lines_are_found_behind_anything_that_looks_like_keys(tmp_path: Path) -> None:
    file = tmp_path / "any.toml"
    file.write_text(
        '[a]\nx = """\n[b]\ny = 1\n"""\nz = [\n  { k = "]" },\n]\n'
        "[ 'c.d' . e ]\n\"k=\" = '#' # x = 1\nf.g = 2\n"
    )
    lines = read(file).lines
    assert lines[("a", "x")] == 2
    assert lines[("a", "z")] == 6
    assert lines[("c.d", "e", "k=")] == 10
    assert lines[("c.d", "e", "f", "g")] == 11


def test_what_is_no_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="cannot read"):
            read(path)
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="larger"):
        read(tmp_path / "large")
    (tmp_path / "latin").write_bytes(b"[watch]\n# caf\xe9\n")
    with pytest.raises(ConfigFaults) as caught:
        read(tmp_path / "latin")
    assert caught.value.faults[0].line == 2


def test_the_first_pattern_that_matches_decides(tmp_path: Path) -> None:
    text = '[service.orders]\nleak = "16M"\nwarm-up = "10m"\n[service."o*"]\nignore = true\n'
    rules = loaded(tmp_path, text).rules
    orders = rules.of(Service("orders.service", ServiceKind.UNIT))
    assert not orders.is_ignored
    changed = thresholds_under(orders, Thresholds())
    assert (changed.leak_bytes, changed.warm_up_s) == (16 << 20, 600)
    assert isinstance(changed.leak_bytes, int)
    assert rules.of(Service("other", ServiceKind.COMMAND)).is_ignored
    assert not rules.of(Service("cart", ServiceKind.COMMAND)).is_ignored


def test_names_of_a_file_are_printable_when_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "mwtrace.toml").write_text('[watch]\n"\\u001b[31m" = 1\n')
    with cli.make_context("mwtrace", [], resilient_parsing=True) as ctx:
        with pytest.raises(ConfigFaults) as caught:
            load(tmp_path / "mwtrace.toml", cli, ctx, parse_size, parse_duration)
    assert "\x1b" not in caught.value.remedy
