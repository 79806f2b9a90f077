"""Profiles for the tests of the output formats: a plain one and a hostile one."""

from __future__ import annotations

from mwtrace.tell.profile import (
    Frame,
    FrameKind,
    KnownBy,
    ModuleMapping,
    Profile,
    SiteProfile,
)

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a;b c\nd\te\0f",
    "\x1b[31mred\x1b]0;owned\x07",
    "lone \udcff surrogate",
    "\u202egnp.exe",
    "\u2028]]>{{data}}{{script}}${x}`<!--",
    "\"'&amp;\\",
    "",
    "x" * 5000,
]


def python(name: str, line: int = 7, file: str = "/srv/app/handlers.py") -> Frame:
    return Frame(name, FrameKind.PYTHON, file, line)


def native(name: str, address: int = 0x7F0000001234) -> Frame:
    module = "/usr/lib/x86_64-linux-gnu/liborjson.so"
    return Frame(name, FrameKind.NATIVE, module=module, build_id="ab" * 20, address=address)


def plain() -> Profile:
    main, handle = python("main", 3), python("handle", 41)
    return Profile(
        title="api.service",
        pid=4321,
        time_ns=1_790_000_000 * 10**9,
        duration_s=60.5,
        interval_bytes=524_288,
        growth_bytes_per_second=1_200_000.0,
        mappings=(
            ModuleMapping(0x7F0000000000, 0x7F0000100000, 4096, native("").module, "ab" * 20),
        ),
        sites=(
            SiteProfile(
                frames=(main, handle, native("orjson_dumps")),
                domain="native",
                known_by=KnownBy.AUDIT,
                alloc_objects=900,
                alloc_bytes=90_000_000,
                inuse_objects=500,
                inuse_bytes=50_000_000,
                slope_bytes_per_second=1_128_000.0,
                slope_low_bytes_per_second=1_080_000.0,
                slope_high_bytes_per_second=1_190_000.0,
                age_s=55,
            ),
            SiteProfile(
                frames=(main, python("render", 99)),
                domain="py_object",
                known_by=KnownBy.LIVE,
                alloc_objects=10_000,
                alloc_bytes=640_000,
                inuse_objects=3,
                inuse_bytes=192,
                slope_bytes_per_second=0.0,
            ),
            SiteProfile(frames=(), domain="map", known_by=KnownBy.GROWTH, inuse_bytes=4096),
        ),
    )


def hostile() -> Profile:
    sites = tuple(
        SiteProfile(
            frames=(python(name, file=name), native(name, index * 2**40)),
            domain=name,
            known_by=KnownBy.GROWTH,
            alloc_objects=index,
            alloc_bytes=2**70 if index == 3 else index * 100,
            inuse_objects=1,
            inuse_bytes=10 + index,
            slope_bytes_per_second=float("nan") if index == 2 else 5.0,
        )
        for index, name in enumerate(HOSTILE)
    )
    mappings = tuple(ModuleMapping(i * 2**40, i * 2**40 + 1, 0, n) for i, n in enumerate(HOSTILE))
    title = "".join(HOSTILE[:8])
    return Profile(title, 1, 0, 0.0, 0, sites, mappings, growth_bytes_per_second=10.0)
