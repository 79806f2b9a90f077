"""Foreign text on a grid of cells; widths compared with the tables that emulators use."""

from __future__ import annotations

import sys

import pytest
from wcwidth import wcwidth

from mwtrace.tell import cells


def test_every_character_that_is_shown_is_as_wide_as_terminals_draw_it() -> None:
    characters = map(chr, range(sys.maxunicode + 1))
    shown = [char for char in characters if cells.printable(char) == char]
    wrong = [hex(ord(char)) for char in shown if wcwidth(char) != cells.width_cells(char)]
    assert wrong == []
    assert len(shown) > 100_000  # not by showing nothing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("orders.service", "orders.service"),
        (r"dev-disk\x2duuid.swap", r"dev-disk\x2duuid.swap"),
        ("café", "café"),
        ("cafe\u0301", "café"),  # composed first
        ("注文", "注文"),
        ("a\nb\tc\rd", r"a\x0ab\x09c\x0dd"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b2J", r"\x9b2J"),  # the one-byte form of ESC [
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\u05d0\u05d1", r"\u05d0\u05d1"),
        ("x\u0316\u0315", r"x\u0316\u0315"),
        ("a\u200bb\u00adc\ufeff", r"a\u200bb\xadc\ufeff"),
        ("a\u00a0b\u3000c", r"a\xa0b\u3000c"),
        ("\ue000\U000f0000", r"\ue000\U000f0000"),
        ("bad\udcff", r"bad\xff"),  # a byte as os.fsdecode() hides it
        ("\U0001f680", "\U0001f680"),
        ("\U0001f1e9\U0001f1ea", r"\U0001f1e9\U0001f1ea"),
    ],
)
def test_what_cannot_be_shown_is_written_as_an_escape(text: str, shown: str) -> None:
    assert cells.printable(text) == shown


def test_without_unicode_everything_is_ascii() -> None:
    assert cells.printable("注文 café", unicode=False) == r"\u6ce8\u6587 caf\xe9"
    assert cells.printable("x" * 9999, unicode=False).isascii()


def test_a_name_of_any_length_is_bounded_before_it_is_looked_at() -> None:
    assert cells.width_cells(cells.printable("\x1b" * 10_240)) <= 4 * cells.TEXT_MAX + 1
    assert cells.printable("a" + "b" * 10_240 + "c")[::512] == "ac"


@pytest.mark.parametrize("width", range(30))
@pytest.mark.parametrize("name", ["worker@instance-42.service", "注文処理サービス-本番-二号機"])
def test_no_cut_is_wider_than_asked_and_nothing_is_cut_without_need(name: str, width: int) -> None:
    for cut in (cells.clip(name, width), cells.shorten(name, width)):
        assert cells.width_cells(cut) <= width
        assert (cut == name) == (cells.width_cells(name) <= width)
        assert cells.width_cells(cells.pad(cut, width)) == width


def test_names_keep_their_end_and_sentences_their_beginning() -> None:
    assert cells.shorten("worker@instance-42.service", 16) == "worker@ins\u2026rvice"
    assert cells.clip("worker@instance-42.service", 16) == "worker@instance\u2026"
    assert cells.shorten("worker@instance-42.service", 16, unicode=False) == "worker@ins~rvice"
    assert cells.pad("a", 3, right=True) == "  a"
