"""What is said of small graphs whose truth is known, as values, text, JSON and from the command."""

from __future__ import annotations

import json

import pytest
import snapshots

from mwtrace.cli import main
from mwtrace.snapshot.analysis import analyze
from mwtrace.snapshot.format import RootKind, Row, Writer


@pytest.fixture
def three(tmp_path):
    sizes = (100, 1100, 1200)
    return [
        snapshots.shop(tmp_path / f"{n}.mwsnap", size, float(n)) for n, size in enumerate(sizes)
    ]


def test_three_snapshots_tell_what_came_between_two_and_stayed(three):
    analysis = analyze(three)
    assert analysis.grown_objects == 1000
    (suspect,) = analysis.suspects
    assert (suspect.objects, suspect.type_name) == (1000, "shop.Session")
    assert suspect.path == "shop.cache['…'] -> Session"
    # The dict itself grew, too: it was there at first.
    assert analysis.grown_bytes == 1000 * 1000 + 8 * 1100
    assert suspect.size_bytes == analysis.grown_bytes
    assert suspect.retained_bytes == 64 + 1200 * 1008


def test_two_snapshots_tell_all_that_is_new(three):
    analysis = analyze(three[:2])
    assert analysis.grown_objects == 1000
    row = next(row for row in analysis.types if row.name == "shop.Session")
    assert row == ("shop.Session", 1100, 1_100_000, 1000, 1_000_000, 1_100_000)


def test_nothing_grown_is_said(three, tmp_path, capsys):
    again = snapshots.shop(tmp_path / "again.mwsnap", 1200, 9.0)
    with pytest.raises(SystemExit):
        main(["analyze", str(three[2]), str(again)])
    assert capsys.readouterr().out.startswith("nothing grew")


def test_the_first_line_says_what_to_do(three, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", *map(str, three)])
    assert ended.value.code == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("100% of the growth: 1,000 Session (+985 KiB) held by shop.cache['")
    assert first.endswith("a module-level container that grows; bound it")


def test_json_holds_the_figures(three, capsys):
    with pytest.raises(SystemExit):
        main(["analyze", "--json", *map(str, three)])
    fields = json.loads(capsys.readouterr().out)
    assert fields["suspects"][0]["signature"] == analyze(three[:2]).suspects[0].signature
    assert fields["grown_objects"] == 1000
    assert fields["conclusion"][0].startswith("100% of the growth")


def test_a_signature_is_of_the_place_not_of_the_process(three, tmp_path):
    other = [snapshots.shop(tmp_path / f"o{n}.mwsnap", n * 700, float(n), pid=99) for n in (1, 2)]
    elsewhere = [
        snapshots.shop(tmp_path / f"e{n}.mwsnap", n * 700, float(n), name="users") for n in (1, 2)
    ]
    signature = analyze(three).suspects[0].signature
    assert analyze(other).suspects[0].signature == signature
    assert analyze(elsewhere).suspects[0].signature != signature


def test_names_of_the_target_cannot_move_the_cursor(tmp_path, capsys):
    path = snapshots.shop(tmp_path / "a.mwsnap", 50, name="evil\x1b[2J\u202e")
    with pytest.raises(SystemExit):
        main(["analyze", str(path)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "evil\\x1b[2J" in out


def test_a_second_holder_is_told(tmp_path):
    path = tmp_path / "a.mwsnap"
    sessions = range(1000, 1100)
    with Writer(path, {"pid": 1}) as writer:
        writer.types([(1, "builtins.module", 0), (2, "builtins.list", 0), (3, "shop.Order", 0)])
        writer.objects(
            [
                Row(1, 1, 10, 1, [3]),
                Row(2, 1, 10, 1, [4]),
                Row(3, 2, 10, 1, list(sessions)),
                Row(4, 2, 10, 1, [5]),
                Row(5, 2, 10, 1, list(sessions)),
                *(Row(one, 3, 500, 2, []) for one in sessions),
            ]
        )
        writer.roots([(1, "shop", RootKind.MODULE), (2, "audit", RootKind.MODULE)])
    (suspect,) = analyze([path]).suspects
    assert suspect.path == "shop -> list[…] -> Order"
    assert suspect.also == ("audit -> list[…]",)


def test_an_empty_snapshot_is_no_error(tmp_path):
    path = tmp_path / "a.mwsnap"
    with Writer(path, {}):
        pass
    analysis = analyze([path])
    assert (analysis.objects, analysis.suspects) == (0, ())


@pytest.mark.parametrize("count", [0, 4])
def test_more_or_fewer_files_are_refused(count, three, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", *([str(three[0])] * count)])
    assert ended.value.code == 2
    assert "oldest first" in capsys.readouterr().err
