"""Well-known servers whose program name says nothing: what they serve does.

Pure. Everyone runs gunicorn; `gunicorn app:api` is a service. One function per manner of saying
what is to be served, and one table of who has which manner.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Callable

_APPLICATION = re.compile(r"(?!python:|file:)[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(?:\(.*\))?")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
# Options of these servers that take no value and often stand before the application.
_FLAGS = frozenset(("--preload", "--reload", "--daemon", "-D", "--factory", "--proxy-headers"))
_SUBCOMMAND = re.compile(r"[a-z][\w-]*")


def _option(words: Sequence[str], *names: str) -> str:
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key in names:
            return value if equals else "".join(words[index + 1 : index + 2])
        for name in names:  # "-Aproj"
            if len(name) == 2 and word.startswith(name) and len(word) > 2:
                return word[2:].removeprefix("=")
    return ""


def _served(words: Sequence[str]) -> str:
    # The application is the last word that looks like one: before it may stand values of
    # options, of which we do not know all.
    for word in reversed(words):
        if _APPLICATION.fullmatch(word):
            return word
    # A module alone must not be the value of an option.
    if words and _MODULE.fullmatch(words[-1]):
        before = words[-2] if len(words) > 1 else ""
        if not before.startswith("-") or "=" in before or before in _FLAGS:
            return words[-1]
    return ""


def _celery(words: Sequence[str]) -> str:
    application = _option(words, "-A", "--app")
    known = ("worker", "beat", "flower", "events", "multi")
    verb = next((word for word in words if word in known), "")
    return " ".join(filter(None, (f"-A {application}" if application else "", verb)))


def _flask(words: Sequence[str]) -> str:
    application = _option(words, "--app", "-A")
    return f"--app {application}" if application else ""


def _uwsgi(words: Sequence[str]) -> str:
    served = _option(words, "--module", "-w", "--wsgi", "--wsgi-file", "--file")
    served = served or _option(words, "--ini", "--yaml", "--yml", "--json", "--xml", "-x", "-y")
    if not served and words and words[0].endswith((".ini", ".yaml", ".yml", ".json", ".xml")):
        served = words[0]
    return served.rpartition("/")[2]


def _verb(words: Sequence[str]) -> str:
    return words[0] if words and _SUBCOMMAND.fullmatch(words[0]) else ""


def _module(words: Sequence[str]) -> str:
    return next((word for word in words if _MODULE.fullmatch(word.partition(":")[0])), "")


def _streamlit(words: Sequence[str]) -> str:
    if len(words) > 1 and words[0] == "run":
        return words[1].rpartition("/")[2]
    return ""


def _demonstration(words: Sequence[str]) -> str:
    return " ".join(words[:2]) if words and words[0] == "demo" else ""


_MANNERS: dict[str, Callable[[Sequence[str]], str]] = {
    **dict.fromkeys(("gunicorn", "uvicorn", "hypercorn", "daphne", "granian"), _served),
    **dict.fromkeys(("waitress-serve", "waitress"), _served),
    "celery": _celery,
    "flask": _flask,
    "uwsgi": _uwsgi,
    "dramatiq": _module,
    "streamlit": _streamlit,
    "mwtrace": _demonstration,
    **dict.fromkeys(("airflow", "rq", "huey_consumer", "huey_consumer.py"), _verb),
}

_SERVES_NO_MODULE = frozenset(("mwtrace",))


def is_application(program: str) -> bool:
    return program in _MANNERS


def application_name(program: str, words: Sequence[str], folder: str) -> str:
    """Name a server and what it serves.

    What is served is a module, looked up from the folder that the server was started in, and
    half of all services call it app: so the folder belongs to the name.
    """
    served = _MANNERS[program](words)
    if program in _SERVES_NO_MODULE:
        folder = ""
    return " ".join(filter(None, (program, served, f"({folder})" if folder else "")))
