"""What a trace concludes of sites that are made up: places, shares, and what growth adds."""

from __future__ import annotations

import pytest

from mwtrace.tell.profile import Frame, FrameKind, KnownBy
from mwtrace.tracer import Domain, SiteRow, Sum
from mwtrace.tracing.growth import GrowthSite
from mwtrace.tracing.report import Measured, Place, conclude, place_of, renamed
from mwtrace.tracing.session import Site

NOTHING = Sum(0, 0, 0, 0.0)
HANDLE = Frame("handle", FrameKind.PYTHON, "/srv/orders/app.py", 20)
REMEMBER = Frame("remember", FrameKind.PYTHON, "/srv/orders/app.py", 31)


def frame(name, module, address=0x1000):
    return Frame(name, FrameKind.NATIVE, module=module, address=address)


MALLOC = frame("", "/lib/libc.so.6")
DUMPS = frame("dumps", "/lib/ujson.so")
NEW_DICT = frame("PyDict_New", "/usr/lib/libpython3.11.so.1.0")


def measured(growth, **fields):
    given = dict(
        title="orders",
        pid=7,
        time_ns=0,
        duration_s=60.0,
        interval_bytes=1024,
        is_exact=False,
        python_is_inlined=False,
        growth_bytes_per_second=growth,
    )
    return Measured(**{**given, **fields})


def audited(frames, rate, held=None):
    seen = Sum(10, 1000, int(rate), 10.0)
    row = SiteRow(
        7, 1, Domain.NATIVE, 1, 2, 0.0, 1.0, 2.0, seen, NOTHING, seen, NOTHING, 0.0, rate, None
    )
    return Site(row, frames, False, rate, rate * 0.9, rate * 1.1, held or rate, 10)


def grown(frames, rate):
    return GrowthSite(frames, False, int(rate * 60), rate, 0.5, 0.0, 100)


def test_a_python_line_is_the_place_and_the_extension_is_what_it_went_through():
    place = place_of((HANDLE, REMEMBER, DUMPS, MALLOC))
    assert place == Place("remember", "/srv/orders/app.py", 31, "ujson.so:dumps")
    assert place.words == "orders/app.py:remember (line 31) through ujson.so:dumps"


def test_the_interpreter_and_the_allocator_are_no_place():
    assert place_of((HANDLE, REMEMBER, NEW_DICT, MALLOC)).through == ""
    native = (frame("main", "/srv/app"), frame("leak", "/srv/app"), MALLOC)
    assert place_of(native) == Place("leak", "/srv/app", 0, "")


def test_without_any_name_the_binary_and_the_offset_are_said():
    assert place_of((frame("", "/srv/app", 0x42),)).words == "srv/app:+0x42"
    assert "no stack" in place_of(()).words


def test_the_conclusion_names_share_growth_and_place():
    report = conclude(measured(2**20), [audited((HANDLE, REMEMBER), 0.94 * 2**20)], [])
    assert report.conclusion == (
        "94% of +1.0 MiB/s is allocated in orders/app.py:remember (line 31) (audited survivors)"
    )


def test_shares_count_what_the_allocator_adds_and_rates_do_not():
    report = conclude(measured(32_000.0), [audited((REMEMBER,), 24_000.0, held=32_000.0)], [])
    (place,) = report.places
    assert (place.share, place.bytes_per_second) == (1.0, 24_000.0)


def test_sites_of_one_line_are_one_place_and_the_largest_names_what_it_went_through():
    sites = [audited((REMEMBER, DUMPS), 10_000.0), audited((REMEMBER, NEW_DICT), 30_000.0)]
    report = conclude(measured(40_000.0), sites, [])
    (place,) = report.places
    assert (place.share, place.place.through) == (1.0, "")
    assert len(report.profile.sites) == 2


def test_growth_helps_out_with_what_audits_leave_unexplained_and_no_more():
    sites = [audited((REMEMBER,), 20_000.0)]
    pages = [grown((REMEMBER, MALLOC), 30_000.0), grown((HANDLE, MALLOC), 270_000.0)]
    report = conclude(measured(100_000.0), sites, pages)
    shares = {share.place.name: share for share in report.places}
    # Three times as much was touched as stayed, so a third of it counts: 10,000 of `remember`,
    # which its audit explains, and 90,000 of `handle`, for which 80,000 are left.
    assert shares["remember"].bytes_per_second == pytest.approx(20_000.0)
    assert shares["handle"].bytes_per_second == pytest.approx(80_000.0)
    assert shares["handle"].known_by is KnownBy.GROWTH
    assert sum(share.share for share in report.places) == pytest.approx(1.0)


def test_growth_is_not_asked_where_audits_explain_enough():
    report = conclude(
        measured(100_000.0), [audited((REMEMBER,), 90_000.0)], [grown((HANDLE,), 9e9)]
    )
    assert [share.place.name for share in report.places] == ["remember"]


@pytest.mark.parametrize(
    ("growth", "words"),
    [(None, "too short"), (-2000.0, "did not grow"), (3.0, "did not grow"), (9e6, "no site")],
)
def test_nothing_is_blamed_without_growth(growth, words):
    assert words in conclude(measured(growth), [], []).conclusion
    if growth is not None and growth < 9e6:
        report = conclude(measured(growth), [audited((REMEMBER,), 5000.0)], [])
        assert "remember" not in report.conclusion
        assert report.profile.growth_bytes_per_second is None


def test_other_names_reach_frames_places_and_the_conclusion():
    report = conclude(measured(1e6), [audited((frame("_Z4leakv", "/srv/app"),), 1e6)], [])
    report = renamed(report, {"_Z4leakv": "leak()"})
    assert "srv/app:leak()" in report.conclusion
    assert report.places[0].place.name == "leak()"
    assert report.profile.sites[0].frames[0].name == "leak()"
