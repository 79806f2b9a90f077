"""The one text that bcc gets means what the files mean."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mwtrace.probes.engine_bcc import source_text
from mwtrace.probes.flatten import flatten

BPF = Path(__file__).parents[2] / "bpf"
UNITS = sorted(path.name.split(".")[0] for path in BPF.glob("*.bpf.c"))


def preprocessed(text: str, *flags: str) -> list[str]:
    """Return all tokens that are left of a text, as clang counts words."""
    command = ["clang", "-E", "-P", "-x", "c", *flags, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("flags", [["-DMW_BCC"], ["-target", "bpf", "-D__TARGET_ARCH_x86"]])
@pytest.mark.parametrize("unit", UNITS)
def test_the_one_text_means_what_the_files_mean(unit, flags):
    files = preprocessed(f'#include "{unit}.bpf.c"\n', f"-I{BPF}", *flags)
    one = preprocessed(source_text(unit), *flags)
    assert len(one) > 100
    assert one == files


@pytest.mark.parametrize("unit", UNITS)
def test_bcc_s_text_wants_no_header_of_anybody(unit):
    # -nostdinc: whatever is still included then is not found.
    preprocessed(source_text(unit), "-DMW_BCC", "-nostdinc")


def test_a_header_stands_where_it_was_included_each_time():
    files = {"a.h": '  # include "b.h" // why\nint a;\n', "b.h": "int b;", "c": '#include "a.h"\n'}
    files["c"] += '#include <b.h>\n#include "b.h"\n'
    assert flatten("c", files.__getitem__) == "int b;\nint a;\n\n#include <b.h>\nint b;\n"


def test_files_that_include_each_other_are_refused():
    files = {"a.h": '#include "b.h"', "b.h": '#include "a.h"'}
    with pytest.raises(ValueError, match=r"a\.h > b\.h > a\.h"):
        flatten("a.h", files.__getitem__)
