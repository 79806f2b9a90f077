"""Frozen values as JSON and back, checked on the way back: by then the text may be damaged.

Follows the annotations of dataclasses and named tuples, so a value that gets another field needs
no line here; what was written before then does not fit, and is refused as any damage is.
"""

from __future__ import annotations

import enum
import types
import typing
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, Union

_Value = TypeVar("_Value")
# Python 3.10 has a type of its own for X | Y.
_UNIONS = tuple(t for t in (Union, getattr(types, "UnionType", None)) if t is not None)


def to_plain(value: Any) -> Any:
    """Return value as lists, numbers, texts and None."""
    if isinstance(value, enum.Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"cannot keep a {type(value).__name__}")


def from_plain(kind: type[_Value], plain: Any) -> _Value:
    """Return the value of that type. Raises ValueError if plain cannot be one."""
    return typing.cast(_Value, _read(kind, plain))


def _read(kind: Any, plain: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        if plain is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), plain)
    if origin is tuple:
        return _read_tuple(arguments, plain)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if isinstance(plain, str) and plain in kind.__members__:
            return kind[plain]
    elif isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        hints = _hints(kind)
        items = _items(plain, len(hints))
        return kind(*(_read(hint, item) for hint, item in zip(hints, items)))
    elif kind is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return float(plain)
    elif kind in (int, str, bool) and type(plain) is kind:
        return plain
    raise ValueError(f"{plain!r:.80} is no {kind}")


def _read_tuple(arguments: tuple[Any, ...], plain: Any) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_read(arguments[0], item) for item in _items(plain))
    items = _items(plain, len(arguments))
    return tuple(_read(argument, item) for argument, item in zip(arguments, items))


def _items(plain: Any, count: int | None = None) -> list[Any]:
    if not isinstance(plain, list) or (count is not None and len(plain) != count):
        raise ValueError(f"{plain!r:.80} is not what was written")
    return plain


@lru_cache(maxsize=64)
def _hints(kind: Any) -> tuple[Any, ...]:
    hints = typing.get_type_hints(kind)
    names = kind._fields if hasattr(kind, "_fields") else [field.name for field in fields(kind)]
    return tuple(hints[name] for name in names)
