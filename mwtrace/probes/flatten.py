"""One text of a unit's source: every header of ours in the place of its ``#include``.

bcc compiles one text and treats what is included in it differently. Pure but for reading the
files; knows no compiler. Headers keep their own guards, so one may come more than once.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([\w.]+)".*$', re.MULTILINE)


def flatten(name: str, read: Callable[[str], str]) -> str:
    """Return the text of a source file; read(name) gives that of a header beside it.

    Includes in angle brackets stay: they are behind switches. Raises ValueError if a file
    includes itself, by whatever way.
    """
    return _flatten(name, read, ())


def _flatten(name: str, read: Callable[[str], str], outer: tuple[str, ...]) -> str:
    if name in outer:
        raise ValueError(f"{' > '.join([*outer, name])}: includes itself")
    return _INCLUDE.sub(lambda match: _flatten(match[1], read, (*outer, name)), read(name))
