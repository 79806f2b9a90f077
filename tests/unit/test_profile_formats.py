"""Collapsed stacks, speedscope, the terminal's table and the flame graph's file, as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from profiles import HOSTILE, hostile, plain

from mwtrace.tell.cells import width_cells
from mwtrace.tell.collapsed import alloc_bytes, collapsed
from mwtrace.tell.flamegraph import NODES_MAX, flamegraph
from mwtrace.tell.profile import Frame, FrameKind, KnownBy, Profile, SiteProfile
from mwtrace.tell.sites_table import compact, sites_table
from mwtrace.tell.speedscope import speedscope

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "speedscope-schema.json").read_text())


def parse_collapsed(text):
    stacks = {}
    for line in text.splitlines():
        stack, _, value = line.rpartition(" ")
        stacks[tuple(stack.split(";"))] = int(value)
    return stacks


def test_collapsed_stacks_read_back_are_what_went_in():
    assert parse_collapsed(collapsed(plain())) == {
        ("main (handlers.py:3)", "handle (handlers.py:41)", "orjson_dumps"): 50_000_000,
        ("main (handlers.py:3)", "render (handlers.py:99)"): 192,
        ("[no stack]",): 4096,
    }
    assert sum(parse_collapsed(collapsed(plain(), alloc_bytes)).values()) == 90_640_000


def test_hostile_names_stay_in_their_line_and_frame():
    stacks = parse_collapsed(collapsed(hostile()))
    assert len(stacks) == len(HOSTILE)
    assert {len(stack) for stack in stacks} == {2}
    assert collapsed(hostile()).isprintable() is False  # its newlines
    assert collapsed(hostile()).replace("\n", "").isprintable()


def test_equal_stacks_are_added_up():
    site = SiteProfile((Frame("f", FrameKind.NATIVE),), "native", KnownBy.LIVE, inuse_bytes=5)
    assert collapsed(Profile("t", 1, 0, 0, 0, (site, site))) == "f 10\n"


@pytest.mark.parametrize("make", [plain, hostile])
def test_speedscope_files_follow_the_schema(make):
    document = json.loads(speedscope(make()))
    jsonschema.validate(document, SCHEMA)
    frames = document["shared"]["frames"]
    for profile in document["profiles"]:
        assert profile["endValue"] == sum(profile["weights"])
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(0 <= index < len(frames) for stack in profile["samples"] for index in stack)


def test_the_schema_refuses_a_wrong_unit():
    document = json.loads(speedscope(plain()))
    document["profiles"][0]["unit"] = "bananas"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_speedscope_stacks_are_root_first():
    document = json.loads(speedscope(plain()))
    stack = document["profiles"][0]["samples"][0]
    assert [document["shared"]["frames"][i]["name"] for i in stack] == [
        "main",
        "handle",
        "orjson_dumps",
    ]


def test_the_table_says_what_leaks_how_fast_and_how_that_is_known():
    lines = sites_table(plain()).splitlines()
    assert lines[0].split() == ["LIVE", "GROWTH", "SHARE", "KNOWN", "BY", "SITE"]
    assert re.search(r"47\.7 MiB .*\+1\.08 MiB/s \[.*94%  audited survivors", lines[1])
    assert lines[1].endswith("handlers.py:3 main > handlers.py:41 handle > orjson_dumps")
    assert "sampled growth" in lines[3]
    assert lines[3].endswith("[no stack]")
    assert lines[-1] == "the named sites explain 94% of +1.1 MiB/s"


def test_the_table_says_what_it_left_out():
    assert "and 2 more sites with 4.2 KiB" in sites_table(plain(), rows_max=1)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_hostile_names_cannot_leave_their_cell(columns, unicode):
    text = sites_table(hostile(), columns=columns, unicode=unicode)
    lines = text.splitlines()
    assert len(lines) == 1 + len(HOSTILE) + 1
    assert text.replace("\n", "").isprintable()
    # Below that, the columns before the last take what they need.
    assert max(map(width_cells, lines)) <= max(columns, 100)
    assert unicode or text.isascii()


def test_a_compact_site_shows_the_innermost_frames_of_each_kind():
    frames = plain().sites[0].frames
    assert compact(frames[2:] * 5) == "orjson_dumps > orjson_dumps > orjson_dumps"
    assert compact(frames[:2] * 3).count(" > ") == 1
    assert compact(()) == "[no stack]"


def data_of(page):
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_flame_graph_holds_the_tree_and_its_sums():
    title, _, kind, inuse, alloc, children = data_of(flamegraph(plain()))
    assert (title, kind, inuse, alloc) == ("all", "root", 50_004_288, 90_640_000)
    assert [child[0] for child in children] == ["[no stack]", "main"]
    assert [child[0] for child in children[1][5]] == ["handle", "render"]


def test_hostile_names_cannot_leave_the_flame_graphs_data():
    page, innocent = flamegraph(hostile()), flamegraph(plain())
    for tag in ("<script", "</script", "<img", "<!--"):
        assert page.count(tag) == innocent.count(tag)
    assert len(data_of(page)[5]) == len(HOSTILE)
    assert "\x1b" not in page
    page.encode("utf-8")


def test_a_flame_graph_fetches_nothing():
    page = flamegraph(plain())
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page)
    assert "default-src 'none'" in page


def test_a_flame_graph_is_bounded_and_says_so():
    frames = [Frame(f"f{i}", FrameKind.NATIVE) for i in range(NODES_MAX + 50)]
    sites = tuple(SiteProfile((f,), "native", KnownBy.LIVE, inuse_bytes=1) for f in frames)
    page = flamegraph(Profile("t", 1, 0, 0, 0, sites))
    assert len(data_of(page)[5]) == NODES_MAX - 1
    assert "51 frames beyond 20000 left out" in page
