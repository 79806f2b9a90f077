"""Incidents on disk: whole or not there, within a bound, and nobody else's files are touched."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from incidents_made import BEGIN_UNIX_S, incident, opened, post_mortem, resolved

from mwtrace.errors import ConfigError, HostError
from mwtrace.incidents import listing
from mwtrace.incidents.records import Records, read
from mwtrace.model import IncidentType
from mwtrace.tell.sinks import Undelivered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "incidents"


@pytest.fixture
def records(folder: Path) -> Iterator[Records]:
    records = Records(folder, files_max=3, bytes_max=20_000)
    yield records
    records.close()


def kept(folder: Path) -> list[str]:
    return [one.id[-1] if one else "?" for one in read(folder)]


def test_an_incident_is_one_file_whatever_becomes_of_it(records: Records, folder: Path) -> None:
    records.deliver([opened(1, post_mortems=(post_mortem(),))])
    records.deliver([resolved(1)])
    assert list(read(folder)) == [resolved(1).incident]
    (file,) = folder.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def later(number: int, **changes: object) -> object:
    news = opened(number)
    stamp = f"20260528T20264{number}Z-{number:08x}"
    return news._replace(incident=replace(news.incident, id=stamp, **changes))


def test_the_oldest_go_when_there_are_too_many(records: Records, folder: Path) -> None:
    for number in range(1, 6):
        records.deliver([later(number)])
    assert kept(folder) == ["3", "4", "5"]


def test_the_oldest_go_when_they_are_too_large_but_never_the_newest(
    records: Records, folder: Path
) -> None:
    history = tuple((BEGIN_UNIX_S + n, n) for n in range(450))
    large = (post_mortem(history=history),)
    for number in (1, 2, 3):
        records.deliver([later(number, post_mortems=large)])
    assert kept(folder) == ["3"] or kept(folder) == ["2", "3"]
    records.deliver([later(4, post_mortems=3 * large)])
    assert kept(folder) == ["4"]


def test_files_of_others_stay_and_are_not_read(records: Records, folder: Path) -> None:
    (folder / "notes.json").write_text("mine")
    (folder / "20260101T000000Z-00000000.json").symlink_to("/etc/hostname")
    for number in range(1, 6):
        records.deliver([later(number)])
    assert kept(folder) == ["3", "4", "5"]
    assert (folder / "notes.json").read_text() == "mine"
    assert (folder / "20260101T000000Z-00000000.json").is_symlink()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b"\xff" * 100, b"[" * 100_000, b"x" * (2 << 20)]
)
def test_a_file_that_is_none_of_ours_is_said_and_not_guessed(
    records: Records, folder: Path, raw: bytes
) -> None:
    records.deliver([opened(2)])
    (folder / "20260101T000000Z-00000000.json").write_bytes(raw)
    assert list(read(folder)) == [None, opened(2).incident]
    assert "note: 1 files there are no records of ours" in listing.show(folder, None, False)


def test_a_directory_that_went_away_is_tried_again(records: Records, folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(Undelivered, match="No such file") as raised:
        records.deliver([opened()])
    assert raised.value.again


def test_a_full_disk_leaves_the_record_before_whole() -> None:
    """In a process of its own, whose files may not grow: a write fails as on a full disk."""
    script = """
import resource, signal, sys
from pathlib import Path
from incidents_made import opened, post_mortem
from mwtrace.incidents.records import Records, read
from mwtrace.tell.sinks import Undelivered
import tempfile
with tempfile.TemporaryDirectory() as folder:
    records = Records(Path(folder))
    records.deliver([opened(1)])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    history = tuple((1.0, n) for n in range(500))
    try:
        records.deliver([opened(1, post_mortems=(post_mortem(history=history),))])
    except Undelivered as error:
        assert error.again, error
        assert "File too large" in str(error), error
        assert list(read(Path(folder))) == [opened(1).incident]
        assert len(list(Path(folder).iterdir())) == 2, "a temporary file stays"
        print("said")
"""
    tests = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": f"{tests}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert (ended.stdout, ended.stderr) == ("said\n", "")


def test_a_second_daemon_at_one_directory_is_refused(folder: Path) -> None:
    first = Records(folder)
    with pytest.raises(HostError, match="another mwtrace keeps its incidents"):
        Records(folder)
    first.close()
    Records(folder).close()


def test_a_directory_that_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "incidents", tmp_path / "none" / "incidents"):
        with pytest.raises(ConfigError):
            Records(folder)


# -- mwtrace incidents ---------------------------------------------------------------------------


def test_incidents_are_listed_newest_first(records: Records, folder: Path) -> None:
    records.deliver([later(1), later(2, resolved_unix_s=BEGIN_UNIX_S, type=IncidentType.OOM_KILL)])
    head, second, first = listing.show(folder, None, False).splitlines()
    assert head.split() == ["OPENED", "TYPE", "STATE", "SERVICE", "ID"]
    assert second.split()[1:4] == ["oom_kill", "resolved", "orders-2.service"]
    assert first.split()[1:4] == ["leak", "open", "orders-1.service"]


def test_one_is_shown_in_full_by_the_beginning_of_its_id(records: Records, folder: Path) -> None:
    records.deliver([later(1), later(2, type=IncidentType.OOM_KILL, post_mortems=(post_mortem(),))])
    leak = listing.show(folder, "20260528T202641", False)
    assert "holder: app.SESSIONS[\u2026]" in leak
    killed = listing.show(folder, "20260528T202642", False)
    assert "killed 2026-05-28T20:26:40Z: pid 4711 (python3), 990 MiB" in killed
    assert "cgroup memory.max: 1073741824" in killed
    assert "2026-05-28T20:26:35Z 980 MiB" in killed
    (told,) = map(json.loads, listing.show(folder, "20260528T202642", True).splitlines())
    assert len(told["post_mortems"][0]["history"]) == 2
    with pytest.raises(ConfigError, match="no incident in .* is called 2027"):
        listing.show(folder, "2027", False)


def test_what_a_record_says_cannot_control_a_terminal(records: Records, folder: Path) -> None:
    evil = "\x1b[2J\nfaked: line\u202e"
    records.deliver([later(1, summary=evil, holder=evil, place=evil, resolution=evil)])
    shown = listing.show(folder, "20260528", False)
    assert "\x1b" not in shown
    assert "\nfaked" not in shown
    assert "\u202e" not in shown


def test_no_incident_is_no_error(records: Records, folder: Path, tmp_path: Path) -> None:
    assert listing.show(folder, None, False) == f"no incident is kept in {folder}\n"
    assert listing.show(folder, None, True) == ""
    with pytest.raises(ConfigError):
        listing.show(tmp_path / "none", None, False)


def test_the_services_directory_is_where_systemd_says() -> None:
    assert listing.directory(None, {"STATE_DIRECTORY": "/s/a:/s/b"}) == Path("/s/a/incidents")
    assert listing.directory(Path("/x"), {"STATE_DIRECTORY": "/s/a"}) == Path("/x")
    assert listing.directory(None, {}) is None


def test_all_of_an_incident_comes_back(records: Records, folder: Path) -> None:
    whole = incident(1, post_mortems=(post_mortem(),), reopened_unix_s=1.0, recurrences=3)
    records.deliver([opened(1)._replace(incident=whole)])
    assert list(read(folder)) == [whole]
