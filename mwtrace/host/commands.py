"""A command line in, the name that an operator would give it out.

Law of this file: it is pure. Everything about a process arrives in a Command; no file is read and
nobody is asked. The rules, with examples that are also its tests, are in docs/services.md.
"""

from __future__ import annotations

import os.path
import re
from typing import NamedTuple

from mwtrace.host import text
from mwtrace.host.applications import application_name, is_application
from mwtrace.host.interpreters import Started, family, started
from mwtrace.host.loaders import loaded


class Command(NamedTuple):
    """What a process runs; "" where we may not know."""

    arguments: tuple[str, ...]
    executable: str = ""
    directory: str = ""  # working directory
    comm: str = ""


# Helpers of these start methods run a program text of their own that names no service.
_HELPER_CODE = re.compile(r"\s*from (?:multiprocessing|joblib\.externals\.loky)[. ]")
_HELPER_MODULES = ("joblib.externals.loky.", "multiprocessing.")

# Where packages put programs: the folder tells nothing there.
_PROGRAM_DIRECTORIES = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/nix/store/", "/snap/")
_SCRIPT_DIRECTORY = re.compile(r"/(?:usr/|usr/local/)?s?bin/|/usr/games/")
# Where operators put folders: what follows is the name that they gave.
_ROOTS = re.compile(
    r"/(?:srv|opt|home|var/www|usr/share|usr/local/lib|usr/local|usr/lib(?:64|exec)?)/"
)
# Parts of a path that are new with every start or release.
_PASSING = re.compile(
    r"tmp\w{8}|tmp\.\w{6,}|_MEI\w{6}"  # mkdtemp, mktemp, PyInstaller
    r"|\d{8,}|\d{8}[T_-]\d{4,6}"  # the time of a release
    r"|(?=[a-f]*\d)[0-9a-f]{12,}"  # a digest
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
_DESCRIPTOR = re.compile(r"/dev/(?:fd/\d+|stdin)|/proc/(?:self|\d+)/fd/\d+")
_SUBCOMMAND_SCRIPTS = ("manage.py", "django-admin", "artisan")

_TITLE_WITH_APPLICATION = re.compile(r"(gunicorn|puma)(?:: | \S+ ).*\[([^\[\]]+)\]$")
_TITLE_OF_CELERY = re.compile(r"\[celeryd: ([^\s:\]]+)(?::[^\]]*)?\](?:[^(]*\((.*)\))?")
_TITLE_WITH_PROGRAM = re.compile(r"([\w.+-]+): ")


def is_helper(command: Command) -> bool:
    """Say whether this is a worker that names its parent's service and none of its own.

    multiprocessing's spawned workers and trackers, and joblib's, run an interpreter anew, so that
    neither their image nor their command line shows what they belong to.
    """
    run = _started(_as_if_itself(command))
    return run is not None and (
        (run.kind == "code" and _HELPER_CODE.match(run.what) is not None)
        or (run.kind == "module" and run.what.startswith(_HELPER_MODULES))
    )


def command_name(command: Command) -> str:
    """Name what a command runs: the same after a restart, and for all workers of one master.

    May be longer than a service's name, and not printable: see text.name().
    """
    if not command.arguments or not command.arguments[0].strip():
        return _base(command.executable) or command.comm or "unknown"
    command = _as_if_itself(command)
    title = _title(command)
    if title:
        return _title_name(title, command)
    run = _started(command)
    if run is not None:
        return _started_name(run, command.directory)
    program = _program(command)
    if is_application(program):
        return application_name(program, command.arguments[1:], _folder(command.directory))
    path = command.executable or command.arguments[0]
    if path.startswith("/") and not path.startswith(_PROGRAM_DIRECTORIES):
        return short_path(path)
    return program


def short_path(path: str) -> str:
    """Shorten a path to what tells it from others and stays the same over restarts."""
    steady = "/".join("*" if _PASSING.fullmatch(part) else part for part in path.split("/"))
    steady = os.path.normpath(steady)
    root = _ROOTS.match(steady)
    return steady[root.end() :] if root else steady


def _folder(directory: str) -> str:
    # A daemon that went to / tells nothing by it.
    return short_path(directory) if directory.strip("/") else ""


def _as_if_itself(command: Command) -> Command:
    """The command of a program that a dynamic loader was told to run."""
    words = loaded(command.arguments)
    return command._replace(arguments=words, executable=words[0]) if words else command


def _started(command: Command) -> Started | None:
    if not command.arguments:
        return None
    # The first word is the process's own choice ("exec -a"), so the file counts, too.
    for program in (_base(command.arguments[0]), _base(command.executable)):
        if family(program):
            return started(program, command.arguments[1:])
    return None


def _started_name(run: Started, directory: str) -> str:
    if run.kind == "code":
        return f"{run.interpreter} -c {text.digest(run.what)}"
    if run.kind == "module":
        if is_application(run.what):
            return application_name(run.what, run.rest, _folder(directory))
        return f"{run.interpreter} -m {run.what}"
    if run.kind == "class":
        return f"{run.interpreter} {run.what}"
    if run.kind == "nothing" or _DESCRIPTOR.fullmatch(run.what):
        return run.interpreter
    base = _base(run.what)
    if is_application(base):
        return application_name(base, run.rest, _folder(directory))
    name = _script_name(run.what, directory)
    if base in _SUBCOMMAND_SCRIPTS and run.rest and not run.rest[0].startswith("-"):
        name += f" {run.rest[0]}"
    return name


def _script_name(path: str, directory: str) -> str:
    if not path.startswith("/") and directory.strip("/"):
        path = f"{directory}/{path}"
    of_programs = _SCRIPT_DIRECTORY.match(path)
    if of_programs and of_programs.end() == path.rfind("/") + 1:
        return _base(path)
    return short_path(path)


def _program(command: Command) -> str:
    # "-bash" is a login shell.
    return _base(command.arguments[0]).lstrip("-") or _base(command.executable) or command.comm


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _title(command: Command) -> str:
    # A process that wrote a title over its command line (setproctitle) leaves one word with
    # spaces in it, or one word that is not the interpreter it runs. Not to be taken for one: a
    # program whose path has spaces.
    first = command.arguments[0].strip()
    if any(command.arguments[1:]) or first == command.executable:
        return ""
    interpreted = family(_base(command.executable)) and not family(_base(first))
    return first if " " in first or interpreted else ""


def _title_name(title: str, command: Command) -> str:
    match = _TITLE_WITH_APPLICATION.match(title)
    if match:
        folder = _folder(command.directory) if match[1] == "gunicorn" else ""
        return f"{match[1]} {match[2]}" + (f" ({folder})" if folder else "")
    match = _TITLE_OF_CELERY.match(title)
    if match:
        # The master repeats its words in the title, so it has one name before and after.
        if match[2]:
            return application_name("celery", tuple(match[2].split()), _folder(command.directory))
        return f"celery {match[1]}"
    match = _TITLE_WITH_PROGRAM.match(title)
    if match:
        return match[1]
    if title.startswith("/") and command.executable:
        return command_name(command._replace(arguments=(command.executable,)))
    return _base(title.split()[0])
