"""What an interpreter was told to run: a script, a module, a class or a text.

Pure. One table says how each family of interpreters reads its options; a wrong guess costs a
clumsy name, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Started(NamedTuple):
    interpreter: str  # "python3" for /usr/bin/python3.11: its name outlives an upgrade
    kind: str  # script, module, class, code, nothing
    what: str
    rest: tuple[str, ...]  # the words that are left to it


class _Options(NamedTuple):
    """How one family reads its options; letters may stand together ("-Im")."""

    code: str = ""  # letters whose value is program text
    module: str = ""  # letters whose value is a module
    valued: str = ""  # letters with a value, the rest of the word or the next one
    attached: str = ""  # letters whose value is the rest of the word only
    long_code: tuple[str, ...] = ()
    long_valued: tuple[str, ...] = ()  # long options whose value is the next word
    long_script: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()  # words that may stand before the script
    letters_together: bool = True
    bare: str = "script"  # what the first word without a dash is


_SHELL = _Options(code="c", valued="oO", long_valued=("--rcfile", "--init-file"))
_FAMILIES = {
    "python": _Options("c", "m", "WX", long_valued=("--check-hash-based-pycs",)),
    "node": _Options(
        "ep",
        valued="rC",
        long_code=("--eval", "--print"),
        long_valued=(
            *("--require", "--import", "--loader", "--experimental-loader", "--conditions"),
            *("--title", "--env-file", "--input-type"),
        ),
    ),
    "ruby": _Options("e", valued="IrCE", attached="FKTWxil0", long_valued=("--encoding",)),
    "perl": _Options("eE", valued="I", attached="MmiFlCdDVx0"),
    "php": _Options("rBRE", valued="dcStz", long_script=("-f", "--file")),
    "sh": _SHELL,
    "java": _Options(
        letters_together=False,
        long_valued=(
            *("-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path"),
            *("--add-modules", "--add-opens", "--add-exports", "--add-reads", "--patch-module"),
        ),
        long_script=("-jar",),
        bare="class",
    ),
    "dotnet": _Options(letters_together=False, verbs=("exec",)),
    "bun": _Options(letters_together=False, verbs=("run",)),
    "deno": _Options(letters_together=False, verbs=("run", "serve")),
    "lua": _Options("e", valued="l"),
}
_ALIASES = {"pypy": "python", "nodejs": "node", "jruby": "ruby", "luajit": "lua"}
_ALIASES.update(dict.fromkeys(("bash", "dash", "zsh", "ksh", "ash"), "sh"))
_VERSIONED = re.compile(r"([a-z]+)(\d*)(?:\.\d+)*(?:-?dbg|[tud]+)?")


def _split(program: str) -> tuple[str, str]:
    match = _VERSIONED.fullmatch(program)
    if match is None:
        return "", ""
    found = _ALIASES.get(match[1], match[1])
    return (found, match[1] + match[2]) if found in _FAMILIES else ("", "")


def family(program: str) -> str:
    """Return the family of an interpreter, "" if the program is none."""
    return _split(program.lstrip("-"))[0]


def started(program: str, words: Sequence[str]) -> Started:
    """Read an interpreter's options up to what it runs."""
    found, name = _split(program.lstrip("-"))
    options = _FAMILIES[found]
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        following, rest = "".join(words[index : index + 1]), tuple(words[index + 1 :])
        if word in options.long_script:
            return Started(name, "script", following, rest)
        if word in options.long_code:
            return Started(name, "code", following, rest)
        if found == "java" and word in ("-m", "--module"):
            return Started(name, "class", following, rest)
        if word in options.long_valued:
            index += 1
        elif word == "-":  # the script comes from standard input
            break
        elif word == "--":
            continue
        elif word.startswith("-"):
            kind, value, used = _letters(word, following, options)
            if kind:
                return Started(name, kind, value, tuple(words[index + used :]))
            index += used
        elif word.startswith("+") and found == "sh":
            continue
        elif word not in options.verbs and word:
            return Started(name, options.bare, word, tuple(words[index:]))
    return Started(name, "nothing", "", ())


def _letters(word: str, following: str, options: _Options) -> tuple[str, str, int]:
    # (kind of what runs or "", it, how many of the words that follow were used)
    if word.startswith("--") or not options.letters_together:
        return "", "", 0
    for position, letter in enumerate(word[1:], 2):
        attached = word[position:]
        # Shells take the text from the next word though letters follow ("-cx").
        if letter in options.code and options is _SHELL:
            return "code", following, 1
        if letter in options.code or letter in options.module:
            kind = "code" if letter in options.code else "module"
            return (kind, attached, 0) if attached else (kind, following, 1)
        if letter in options.valued:
            return "", "", 0 if attached else 1
        if letter in options.attached:
            break
    return "", "", 0
