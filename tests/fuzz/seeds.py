"""Makes the inputs that fuzzing begins with: a folder per fuzzer, each input nearly a true one.

What is generated is not stored: real ELF files come from the compiler, a real heap from a child
process, CPython's objects from tests/heap_image.py. Inputs that once broke something are kept, in
``corpus/<fuzzer>/``, and are no business of this file.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from heap_image import BASE, HeapImage  # noqa: E402
from trace_records import block_event, recording, stack_event, thread_event  # noqa: E402

from mwtrace.capi import ffi, lib  # noqa: E402

_PAGE = 4096
_LIBRARY = """
int counter = 7;
void *malloc(unsigned long size) { return (void *)(size + counter); }
void free(void *block) { counter = block != 0; }
static int inner(int x) { return x > 3 ? inner(x - 1) : counter; }
int first(int x) { return inner(x) + 1; }
"""


def symbols(work: Path) -> Iterator[bytes]:
    """ELF files: with symbols, stripped, without a build id, and an object file."""
    source = work / "library.c"
    source.write_text(_LIBRARY)
    base = ["cc", "-Os", "-fno-builtin", "-nostdlib"]
    for arguments in (
        ["-g", "-shared", "-fPIC", "-Wl,--build-id"],
        ["-s", "-shared", "-fPIC"],
        ["-shared", "-fPIC", "-Wl,--hash-style=sysv", "-Wl,--build-id=none"],
        ["-c"],
        ["-g", "-nostartfiles", "-no-pie", "-Wl,-e,first"],
    ):
        target = work / "library.so"
        subprocess.run([*base, *arguments, "-o", target, source], check=True)
        yield target.read_bytes()


def heap(work: Path) -> Iterator[bytes]:
    """CPython's objects, as fuzz_heap.c reads them."""
    for minor in (8, 11, 12, 13, 14, 15):
        image = HeapImage(pages=6)
        at = image.free
        plain = image.types["app.Plain"]
        image.put(at, 1, plain, 0, 0)
        image.put(at + 64, 2, image.types["list"], 3, image.address(at + 256), 4)
        image.put(at + 128, 1, image.types["tuple"], 2, image.address(at), image.address(at + 64))
        image.put(at + 192, 1, image.types["int"], 1, 42)
        image.put(at + 256, *[image.address(at)] * 4)
        image.put(at + 320, 1, image.types["str"], 5, -1, 0xE4)
        image.memory[at + 368 : at + 374] = b"hello\0"
        image.put(at + 448, 1, image.types["dict"], 1, 0, image.address(at + 512), 0)
        image.put(at + 512, 1, 0x010305, 0, 1, 0x00FF)
        image.put(at + 552, 0, image.address(at + 320), image.address(at))
        image.put(at + 1024, 1, image.types["set"], 1, 1, 7, image.address(at + 1104))
        image.put(at + 1104, image.address(at), 5)
        image.put(at + 2048, image.address(at + 2560), image.address(at))
        image.put(at + 3000, 1, image.types["collections.deque"], 1, image.address(at + 2048))
        head = struct.pack("<BBBHH", minor - 8, 2, minor, image.type_type - BASE, plain - BASE)
        yield head + bytes(image.memory)


def arenas(work: Path) -> Iterator[bytes]:
    """libc's data and the heap of a small process that has freed some of it."""
    source, target = work / "heap.c", work / "heap"
    source.write_text(
        "#include <malloc.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
        "int main(void) { void *b[200];\n"
        "for (int i = 0; i < 200; i++) b[i] = malloc(24 + 40 * (i % 9));\n"
        "for (int i = 0; i < 200; i += 3) free(b[i]); malloc_trim(0);\n"
        "puts(\"ready\"); fflush(stdout); return getchar() == 'x'; }\n"
    )
    subprocess.run(["cc", "-O1", "-o", target, source], check=True)
    with subprocess.Popen([target], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        pieces = _writable_pieces(process.pid)
        process.communicate(b"\n", timeout=10)
    head = b"".join(struct.pack("<QQ", start, len(memory)) for start, memory in pieces)
    yield head + b"".join(memory for _, memory in pieces)


def _writable_pieces(pid: int) -> list[tuple[int, bytes]]:
    """The heap, and libc's data with the .bss behind it."""
    heap = libc = None
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_, name = [*line.split(maxsplit=5), ""][:6]
        start, end = (int(word, 16) for word in span.split("-"))
        if rights.startswith("rw"):
            if name == "[heap]":
                heap = (start, end)
            elif "/libc.so" in name or "/libc-" in name:
                libc = (start, end)
            elif libc and start == libc[1] and not name:
                libc = (libc[0], end)
    assert heap
    assert libc
    with open(f"/proc/{pid}/mem", "rb") as memory:
        pieces = []
        for start, end in (heap, libc):
            memory.seek(start)
            pieces.append((start, memory.read(end - start)))
    return pieces


def audit(work: Path) -> Iterator[bytes]:
    """Chunks of glibc, and a pool of pymalloc with some of its blocks free."""
    blocks = b"".join(struct.pack("<HHBB", 16 + 64 * i, 48, 1 + i % 4, i) for i in range(8))
    memory = bytearray(1 << 15)
    for i in range(64):
        struct.pack_into("<QQ", memory, 64 * i, 0, 65)
    yield struct.pack("<BBB", 8, 1, 1) + blocks + bytes(memory)
    struct.pack_into("<IQQQIIII", memory, 0, 3, 96, 0, 0, 0, 2, 208, 15968)
    yield struct.pack("<BBB", 8, 0, 1) + blocks + bytes(memory)


def trace(work: Path) -> Iterator[bytes]:
    """Recordings, as the tracer's tests make them."""
    alloc, free = lib.MW_BLOCK_ALLOC, lib.MW_BLOCK_FREE
    records = [stack_event(7, 99, [1, 2, 3]), stack_event(7, 98, [4, 5], kind=lib.MW_STACK_PYTHON)]
    for i in range(12):
        records.append(block_event(alloc, 7, 4096 + 64 * i, 64, native_stack=99, python_stack=98))
        records.append(block_event(free, 7, 4096 + 128 * i, time_ns=5))
    records.append(block_event(lib.MW_BLOCK_MAP, 7, 1 << 20, 1 << 16, domain=lib.MW_DOMAIN_MAP))
    records.append(block_event(lib.MW_BLOCK_UNMAP, 7, 1 << 20, 1 << 12, domain=lib.MW_DOMAIN_MAP))
    records.append(block_event(lib.MW_BLOCK_GROWTH, 7, 1 << 20, 4096))
    records.append(thread_event(7, 12345))
    yield b"\x40" + recording(records)
    yield b"\x07" + recording(records[3:5])


def watch(work: Path) -> Iterator[bytes]:
    """Ticks with growing processes, events and names between them."""
    steps = []
    for tick in range(20):
        steps.append(struct.pack("<BHB", 0, 5000, 4))
        for pid in range(1, 5):
            pages = 1000 + 50 * tick * pid
            fields = {"pid": pid, "start_time_ns": 1, "anon_pages": pages, "parent_pid": 1}
            record = ffi.new("struct mw_process_record *", {**fields, "comm": b"seed"})
            steps.append(bytes(ffi.buffer(record)))
        steps.append(b"\0")  # whole
        steps.append(struct.pack("<BBBB", 4, 1 + tick % 4, 1, 1 + tick % 3))
        event = ffi.new("struct mw_lifecycle_event *", {"pid": 1 + tick % 4, "start_time_ns": 1})
        event.kind = 1 + tick % 3
        steps.append(b"\2" + bytes(ffi.buffer(event)))
    steps.append(struct.pack("<BBBBBH", 6, 1, 1, 1, 0, 160) + bytes(160))
    yield b"".join(steps)


def proc(work: Path) -> Iterator[bytes]:
    """Texts of /proc as they are, each behind the number of its reader (see fuzz_proc.py)."""
    own = Path("/proc/self")
    texts = [own / name for name in ("cgroup", "mountinfo", "maps", "stat", "status", "cmdline")]
    for number, path in enumerate(texts):
        yield bytes([number]) + path.read_bytes()[:16_000]
    container, pod = "ab" * 32, f"{'0' * 8}_1111_2222_3333_{'4' * 12}"
    for name in (
        f"0::/kubepods.slice/kubepods-pod{pod}.slice/cri-containerd-{container}.scope",
        "0::/system.slice/orders.service",
        "3:memory:/docker/"
        + container
        + "\n1:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.scope",
        "0::/../../machine.slice/machine-qemu\\x2d1\\x2dguest.scope",
    ):
        yield b"\0" + name.encode() + b"\n"
    for line in (
        b"gunicorn: master [orders:app]",
        b"/usr/bin/python3\0-m\0celery\0-A\0shop\0worker\0-n\0mail@%h",
        b"java\0-Xmx1g\0-cp\0a.jar:b.jar\0org.example.Main\0--port\x008080",
        b"node\0--max-old-space-size=100\0/srv/web/dist/server.js",
    ):
        yield b"\5" + line + b"\0"


def elf(work: Path) -> Iterator[bytes]:
    return symbols(work)


def linetable(work: Path) -> Iterator[bytes]:
    """Line tables of this very interpreter, and of the older formats."""
    code = linetable.__code__
    table = getattr(code, "co_linetable", None) or code.co_lnotab
    for minor in (9, 10, 11):
        yield bytes([minor, 20]) + table
    yield bytes([9, 4]) + bytes([6, 1, 8, 255, 4, 2])
    yield bytes([11, 4]) + bytes([0xF8, 0x80, 0, 0xF0, 0x7F, 0x3F, 1, 2, 3])


def replay(work: Path) -> Iterator[bytes]:
    for path in sorted((TESTS / "data" / "recordings").glob("*.csv")):
        yield path.read_bytes()[:4096]
    yield b"time_s,private_bytes\n0,1\n1e3,2\nnan,3\n"


MAKERS = (symbols, heap, arenas, audit, trace, watch, proc, elf, linetable, replay)


def write(folder: Path, name: str) -> Path:
    """Write the seeds of one fuzzer, beside what once broke something; return their folder."""
    seeds = folder / name
    seeds.mkdir(parents=True, exist_ok=True)
    maker = next(maker for maker in MAKERS if maker.__name__ == name)
    work = folder / ".work"
    work.mkdir(exist_ok=True)
    for number, seed in enumerate(maker(work)):
        (seeds / f"seed-{number}").write_bytes(seed)
    kept = Path(__file__).parent / "corpus" / name
    if kept.is_dir():
        for path in kept.iterdir():
            (seeds / path.name).write_bytes(path.read_bytes())
    assert os.listdir(seeds)
    return seeds
