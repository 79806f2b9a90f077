"""The hook by itself: how it comes into an interpreter, and what it needs of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mwtrace.errors import ConfigError
from mwtrace.snapshot import hook, placing

HOOK = Path(hook.__file__)
OLDEST = (3, 8)
SAY = "import sys; h = sys.modules.get('mwtrace_hook'); print(h is not None and h.why_not == '')"


def run(python: Path, code: str, **variables: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MWTRACE_")}
    said = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={**plain, **variables},
    )
    return said.stdout.strip() + said.stderr.strip()


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def test_it_imports_the_standard_library_only_and_parses_as_the_oldest_python():
    tree = ast.parse(HOOK.read_text(), feature_version=OLDEST)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            imported.add(node.module.split(".")[0])
    if sys.version_info >= (3, 10):
        assert imported <= set(sys.stdlib_module_names) | {"__future__"}
    assert "mwtrace" not in imported


def test_installed_it_sleeps_until_the_variable_wakes_it_and_is_removed_whole(venv):
    before = set(venv.parents[1].rglob("*"))
    written = placing.install(venv)
    assert [path.name for path in written] == ["mwtrace_hook.py", "mwtrace_hook.pth"]
    assert run(venv, SAY) == "False"
    assert run(venv, SAY, MWTRACE_HOOK="0") == "False"
    assert run(venv, SAY, MWTRACE_HOOK="1") == "True"
    assert placing.install(venv) == written  # again: an upgrade
    assert set(placing.remove(venv)) == set(written)
    assert run(venv, SAY, MWTRACE_HOOK="1") == "False"
    left = set(venv.parents[1].rglob("*")) - before
    assert not [path for path in left if "__pycache__" not in path.parts]
    assert placing.remove(venv) == []


def test_what_is_no_python_is_refused():
    for path in (Path("/nowhere/python"), Path("/bin/true"), Path("/")):
        with pytest.raises(ConfigError):
            placing.install(path)


def test_importing_it_from_its_folder_enables_it(venv):
    assert run(venv, "import mwtrace_hook; " + SAY, PYTHONPATH=str(placing.FOLDER)) == "True"


def test_where_it_cannot_work_it_says_so_once_and_the_program_goes_on(venv):
    code = (
        "import threading\n"
        "thread = threading.Thread(target=lambda: __import__('mwtrace_hook')); thread.start()\n"
        "thread.join(); print('went on')"
    )
    said = run(venv, code, PYTHONPATH=str(placing.FOLDER))
    assert "went on" in said
    assert said.count("mwtrace_hook: not enabled: it was not imported in the main thread") == 1


def test_a_signal_that_does_not_exist_is_refused_without_harm(venv):
    said = run(venv, "import mwtrace_hook", PYTHONPATH=str(placing.FOLDER), MWTRACE_SIGNAL="9")
    assert said.startswith("mwtrace_hook: not enabled: ")


def test_its_import_leaves_no_descriptor_and_no_thread_behind(venv):
    code = (
        "import os\n"
        "look = lambda: (os.listdir('/proc/self/fd'), os.listdir('/proc/self/task'))\n"
        "before = look(); import mwtrace_hook; print(look() == before)"
    )
    assert run(venv, code, PYTHONPATH=str(placing.FOLDER)) == "True"


def test_the_mailboxs_fields_do_not_overlap_and_fit():
    fields = [
        hook.ASKED,
        hook.REFUSED,
        hook.STATE,
        hook.CHILD,
        hook.PAUSE,
        hook.TOTALS,
        hook.REASON,
    ]
    ends = [hook.REGISTERED.size]
    for offset, layout in fields:
        assert offset >= ends[-1]
        ends.append(offset + layout.size)
    assert ends[-1] <= hook.MAILBOX_BYTES


@pytest.mark.parametrize(
    ("key", "is_name"),
    [
        ("user_id", True),
        ("x2", True),
        ("not a name", False),
        ("a" * 81, False),
        ("tok_8f3a11c9d2", False),
        ("550e8400e29b41d4a716446655440000", False),
    ],
)
def test_keys_that_may_be_secrets_are_no_names(key, is_name):
    assert hook._is_name(key) is is_name
