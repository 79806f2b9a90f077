"""Which of the supported CPythons the tests of this folder had: what is missing here is said."""

from __future__ import annotations

import pytest
from interpreters import interpreters, minor_of

pytestmark = pytest.mark.kernel

SUPPORTED_MINORS = range(9, 16)


@pytest.fixture(scope="module")
def minors_here() -> set[int]:
    return {minor_of(python) for python in interpreters()}


@pytest.mark.parametrize("minor", SUPPORTED_MINORS)
def test_a_supported_version_is_read_on_this_machine(minor, minors_here):
    """A skip even where kernel tests must not skip: it may need a network that is not there."""
    if minor not in minors_here:
        pytest.skip(f"no CPython 3.{minor} here: pyenv and tests/tools/newer-pythons bring them")
