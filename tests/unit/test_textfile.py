"""The metrics file: whole or not there, readable by others, one writer, gone at the end."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from servers import wait_until

from mwtrace.errors import ConfigError
from mwtrace.tell.textfile import NAME, TextFile, TextFileWriter


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / NAME


def test_it_is_whole_readable_by_all_and_alone_in_its_directory(tmp_path, written):
    before = os.umask(0o077)
    try:
        file = TextFile(str(tmp_path))
        file.write(b"one\n")
        file.write(b"two\n")
    finally:
        os.umask(before)
    assert written.read_bytes() == b"two\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [NAME]
    file.close(remove=True)
    assert os.listdir(tmp_path) == []


def test_a_reader_never_sees_half_of_it(tmp_path, written):
    file = TextFile(str(tmp_path))
    file.write(b"a" * 100_000)
    seen = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            content = written.read_bytes()
            seen.add((len(content), content[:1], content[-1:]))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        file.write((b"b" if turn % 2 else b"a") * 100_000)
    stop.set()
    reader.join(10)
    file.close(remove=False)
    assert seen <= {(100_000, b"a", b"a"), (100_000, b"b", b"b")}
    assert written.exists()


def test_a_missing_directory_and_a_file_in_its_place_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file or directory"):
        TextFile(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        TextFile(str(tmp_path / "file"))


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = TextFile(str(tmp_path))
    with pytest.raises(ConfigError, match="another mwtrace writes there"):
        TextFile(str(tmp_path))
    first.close(remove=True)
    TextFile(str(tmp_path)).close(remove=True)


def test_what_a_killed_writer_left_is_replaced_and_a_link_is_not_followed(tmp_path, written):
    victim = tmp_path.with_name("victim")
    victim.write_text("precious")
    (tmp_path / ".mwtrace.prom.tmp").symlink_to(victim)
    written.symlink_to(victim)
    file = TextFile(str(tmp_path))
    file.write(b"new\n")
    assert victim.read_text() == "precious"
    assert not written.is_symlink()
    assert sorted(os.listdir(tmp_path)) == [NAME]
    file.close(remove=True)


def test_a_directory_that_is_made_anew_is_written_again(tmp_path):
    directory = tmp_path / "textfile"
    directory.mkdir()
    file = TextFile(str(directory))
    file.write(b"one")
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError):
        file.write(b"two")
    directory.mkdir()
    file.write(b"three")
    assert (directory / NAME).read_bytes() == b"three"
    with pytest.raises(ConfigError, match="another mwtrace"):
        TextFile(str(directory))
    file.close(remove=True)


class Content:
    def __init__(self) -> None:
        self.value = b"first"

    def __call__(self) -> bytes:
        return self.value


def test_the_writer_renews_it_and_removes_it_at_the_end(tmp_path, written):
    content = Content()
    writer = TextFileWriter(TextFile(str(tmp_path)), content)
    writer.renew()
    wait_until(written.exists)
    content.value = b"second"
    writer.renew()
    wait_until(lambda: written.read_bytes() == b"second")
    writer.close()
    assert os.listdir(tmp_path) == []
    assert writer.failures_total == 0


def test_a_failure_is_counted_and_told_once_and_writing_goes_on(tmp_path, caplog):
    directory = tmp_path / "textfile"
    directory.mkdir()
    writer = TextFileWriter(TextFile(str(directory)), Content())
    directory.rmdir()
    for turn in range(1, 4):
        writer.renew()
        wait_until(lambda turn=turn: writer.failures_total == turn)
    assert caplog.text.count("trying again") == 1
    directory.mkdir()
    writer.renew()
    wait_until((directory / NAME).exists)
    writer.close()


@pytest.mark.kernel  # mounts
def test_a_full_disk_leaves_the_last_whole_file(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        file = TextFile(str(tmp_path))
        file.write(b"small")
        with pytest.raises(OSError, match="No space left"):
            file.write(b"x" * (1 << 20))
        assert (tmp_path / NAME).read_bytes() == b"small"
        assert os.listdir(tmp_path) == [NAME]
        file.close(remove=True)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.kernel  # mounts
def test_a_read_only_directory_is_refused(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=True)
    try:
        with pytest.raises(ConfigError, match="Read-only file system"):
            TextFile(str(tmp_path))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
