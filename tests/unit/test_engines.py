"""Which engine is chosen, on made-up hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_proc import install_bcc

from mwtrace.errors import ConfigError, EngineError
from mwtrace.host.bcc import Bcc, find_bcc
from mwtrace.host.procfs import Host
from mwtrace.probes.engine_bcc import BccEngine
from mwtrace.probes.engines import AUTO, NAMES, choose

BTF = b"\x9f\xeb\x01\0"


@pytest.mark.parametrize(
    ("btf", "has_bcc", "expected"),
    [
        (BTF, True, "libbpf"),
        (BTF, False, "libbpf"),
        (None, True, "bcc"),
        (b"no types at all", True, "bcc"),
        (None, False, "libbpf"),  # which says what is missing when it loads
    ],
)
def test_without_a_wish_it_is_libbpf_where_there_is_btf(fake_proc, btf, has_bcc, expected):
    if btf is not None:
        fake_proc.write("sys/kernel/btf/vmlinux", btf)
    if has_bcc:
        install_bcc(fake_proc)
    assert choose(AUTO, fake_proc.host).name == expected


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_wish_is_granted_whatever_the_host_has(fake_proc, name):
    fake_proc.write("sys/kernel/btf/vmlinux", BTF)
    install_bcc(fake_proc)
    assert choose(name, fake_proc.host).name == name


def test_bcc_that_was_asked_for_and_is_absent_is_an_error(fake_proc):
    with pytest.raises(EngineError) as raised:
        choose("bcc", fake_proc.host)
    assert "python3-bpfcc" in raised.value.remedy


def test_an_unknown_engine_is_an_error(fake_proc):
    with pytest.raises(ConfigError):
        choose("steam", fake_proc.host)


@pytest.mark.parametrize(
    "folder", ["usr/lib/python3/dist-packages", "usr/lib/python3.9/site-packages"]
)
def test_bcc_is_found_where_distributions_put_it(fake_proc, folder):
    install_bcc(fake_proc, folder)
    found = find_bcc(fake_proc.host)
    assert found is not None
    assert found.folder.endswith(folder)


def test_a_folder_called_bcc_is_not_bcc(fake_proc):
    install_bcc(fake_proc)
    (Path(fake_proc.host.path("/usr/lib/python3/dist-packages/bcc/libbcc.py"))).unlink()
    assert find_bcc(fake_proc.host) is None


def test_the_watch_is_refused_with_what_is_done_instead():
    with pytest.raises(EngineError) as raised:
        BccEngine(Bcc("/nonexistent/python3", "/nonexistent")).load("watch")
    assert "type information" in str(raised.value)
    assert "/proc" in raised.value.remedy


def test_this_host_s_bcc_is_found_if_it_is_here():
    here = Path("/usr/lib/python3/dist-packages/bcc/libbcc.py").exists()
    assert (find_bcc(Host()) is not None) == here
