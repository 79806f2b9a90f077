"""Bytes, rates, durations and wall times, as people write and read them.

Sizes are binary (MiB), as in cgroup files and systemd units. Knows no verdict and no layout. What
is not a finite number prints as ``?``: a display must not fail for the sake of one cell.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone, tzinfo
from typing import NamedTuple

from mwtrace.errors import ConfigError
from mwtrace.tell.cells import printable

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_KIB = 1024.0
_MIB = 1024.0**2
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_bytes(size_bytes: float) -> str:
    """``11.8 MiB``; three or four digits, never more than eight cells but for a sign."""
    if not math.isfinite(size_bytes):
        return "?"
    power = _power(size_bytes)
    return f"{_number(size_bytes / _KIB**power, power)} {_BINARY[power]}"


def format_rate(bytes_per_second: float, day: str = "day") -> str:
    """``1.2 MiB/s``, ``8.4 MiB/h`` or ``11.4 MiB/day``: in the time unit that suits it."""
    if not math.isfinite(bytes_per_second):
        return "?"
    unit, unit_s = _rate_unit(bytes_per_second)
    return f"{format_bytes(bytes_per_second * unit_s)}/{day if unit == 'day' else unit}"


def format_slope(bytes_per_second: float, day: str = "day") -> str:
    """A rate with its sign: ``+1.2 MiB/s``."""
    return ("+" if bytes_per_second > 0 else "") + format_rate(bytes_per_second, day)


def format_slope_interval(slope: float, low: float | None, high: float | None) -> str:
    """``+1.02 MiB/s [0.98, 1.05]``: the interval is in the unit of the slope."""
    if low is None or high is None or not all(map(math.isfinite, (slope, low, high))):
        return format_slope(slope)
    unit, unit_s = _rate_unit(slope)
    power = _power(slope * unit_s)
    scaled = [rate * unit_s / _KIB**power for rate in (slope, low, high)]
    decimals = 2 if abs(scaled[0]) < 9.995 else 1 if abs(scaled[0]) < 99.95 else 0
    value, low_text, high_text = (f"{number:.{decimals}f}" for number in scaled)
    sign = "+" if slope > 0 else ""
    return f"{sign}{value} {_BINARY[power]}/{unit} [{low_text}, {high_text}]"


def format_duration(duration_s: float) -> str:
    """``3 h 12 min``; rounded down, so that a forecast never promises more time than there is."""
    if not math.isfinite(duration_s):
        return "?"
    if duration_s < 0:
        return "-" + format_duration(-duration_s)
    if duration_s < 10 and duration_s != int(duration_s):
        return f"{math.floor(duration_s * 10) / 10:.1f} s"
    if duration_s < 2 * _MINUTE_S:
        return f"{int(duration_s)} s"
    if duration_s < _HOUR_S:
        return f"{int(duration_s // _MINUTE_S)} min"
    if duration_s < 2 * _DAY_S:
        hours, rest_s = divmod(int(duration_s), _HOUR_S)
        return f"{hours} h" + (f" {rest_s // _MINUTE_S} min" if rest_s >= _MINUTE_S else "")
    days, rest_s = divmod(int(duration_s), _DAY_S)
    if days < 10:
        return f"{days} days" + (f" {rest_s // _HOUR_S} h" if rest_s >= _HOUR_S else "")
    return f"{days} days" if days < 730 else f"{min(days // 365, 999)} years"


def format_duration_short(duration_s: float) -> str:
    """At most six cells for a table: ``45s``, ``10m``, ``3h12m``, ``2d4h``, ``400d``, ``9y``."""
    if not math.isfinite(duration_s) or duration_s < 0:
        return "?"
    if duration_s < 2 * _MINUTE_S:
        return f"{int(duration_s)}s"
    if duration_s < _HOUR_S:
        return f"{int(duration_s // _MINUTE_S)}m"
    if duration_s < 2 * _DAY_S:
        hours, rest_s = divmod(int(duration_s), _HOUR_S)
        return f"{hours}h{rest_s // _MINUTE_S}m" if rest_s >= _MINUTE_S else f"{hours}h"
    days, rest_s = divmod(int(duration_s), _DAY_S)
    if days < 10:
        return f"{days}d{rest_s // _HOUR_S}h" if rest_s >= _HOUR_S else f"{days}d"
    return f"{days}d" if days < 730 else f"{min(days // 365, 999)}y"


class WallAnchor(NamedTuple):
    """One moment on both clocks: all inside times are CLOCK_MONOTONIC, all shown ones are not.

    Take a new one for each thing that is told: the wall clock may be set, and the monotonic one
    stands still while the host is suspended.
    """

    monotonic_s: float
    unix_s: float

    def unix(self, time_s: float) -> float:
        """The wall time of a CLOCK_MONOTONIC time, as seconds since 1970 (UTC)."""
        return self.unix_s + (time_s - self.monotonic_s)


def iso_utc(unix_s: float) -> str | None:
    """``2026-07-21T03:04:05Z``, or None for a moment that no calendar holds."""
    try:
        moment = datetime.fromtimestamp(unix_s, timezone.utc)
    except (ValueError, OverflowError, OSError):  # NaN, infinity, year 10000
        return None
    # Not strftime("%Y"): glibc writes the year 1 without leading zeros.
    return moment.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def format_clock(unix_s: float, zone: tzinfo | None = None) -> str:
    """``12:14:05``; local time without a zone."""
    moment = _moment(unix_s, zone)
    return f"{moment:%H:%M:%S}" if moment else "?"


def format_since(unix_s: float, now_unix_s: float, zone: tzinfo | None = None) -> str:
    """``12:03`` if that is today, else ``Jul 21``: what fits into six cells."""
    moment, now = _moment(unix_s, zone), _moment(now_unix_s, zone)
    if moment is None or now is None:
        return "?"
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    return f"{_MONTHS[moment.month - 1]} {moment.day:2d}"


_SIZE = re.compile(r"([0-9]{1,19})(\.[0-9]{1,19})?\s*([A-Za-z]*)")
_SIZE_UNITS = {"": 1, "b": 1}
for _exponent, _letter in enumerate("kmgt", start=1):
    # As in cgroup files and systemd units, a bare letter is binary.
    _SIZE_UNITS[_letter] = _SIZE_UNITS[f"{_letter}ib"] = 1024**_exponent
    _SIZE_UNITS[f"{_letter}b"] = 1000**_exponent
_SIZE_MAX_BYTES = 2**63 - 1


def parse_size(text: str) -> int:
    """Read ``1M``, ``100K``, ``1.5GiB`` (powers of 1024) or ``10MB`` (of 1000) as bytes."""
    match = _SIZE.fullmatch(text.strip())
    unit_bytes = _SIZE_UNITS.get(match[3].lower()) if match else None
    if match and unit_bytes:
        size_bytes = int(match[1]) * unit_bytes + int(float(match[2] or 0) * unit_bytes)
        if size_bytes <= _SIZE_MAX_BYTES:
            return size_bytes
    raise ConfigError(
        f"cannot read '{printable(text)}' as a size",
        "Write a number and a unit, such as 512K, 100M or 1.5GiB.",
    )


_DURATION_UNITS_S = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_DURATION_PART = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?)\s*(ms|s|min|m|h|d)\s*")
_SECONDS = re.compile(r"[0-9]{1,19}(\.[0-9]{1,19})?")
_DURATION_MAX_S = 100 * 365 * _DAY_S


def parse_duration(text: str) -> float:
    """Read ``90s``, ``5m``, ``2h``, ``1h30m``, ``500ms`` or a bare number as seconds."""
    rest = text.strip()
    if _SECONDS.fullmatch(rest):
        rest += "s"
    duration_s = 0.0 if rest else math.inf
    while rest:
        match = _DURATION_PART.match(rest)
        if match is None:
            duration_s = math.inf
            break
        duration_s += float(match[1]) * _DURATION_UNITS_S[match[2]]
        rest = rest[match.end() :]
    if duration_s > _DURATION_MAX_S:
        raise ConfigError(
            f"cannot read '{printable(text)}' as a duration",
            "Write a number and a unit, such as 90s, 5m, 2h or 1h30m.",
        )
    return duration_s


# The power of 1024 that leaves less than four digits before the point once rounded.
def _power(size_bytes: float) -> int:
    power = 0
    while abs(size_bytes) >= 1023.5 and power < len(_BINARY) - 1:
        size_bytes /= _KIB
        power += 1
    return power


def _number(value: float, power: int) -> str:
    if power == 0 or abs(value) >= 99.95:
        return f"{value:.0f}" if round(value) else "0"
    return f"{value:.1f}"


# The smallest time unit in which the amount is not tiny: people compare it with memory sizes.
def _rate_unit(bytes_per_second: float) -> tuple[str, int]:
    rate = abs(bytes_per_second)
    if rate >= 100 * _KIB or rate == 0:
        return "s", 1
    if rate * _HOUR_S >= _MIB:
        return "h", _HOUR_S
    return "day", _DAY_S


def _moment(unix_s: float, zone: tzinfo | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(unix_s, zone)
    except (ValueError, OverflowError, OSError):
        return None
