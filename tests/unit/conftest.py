"""Fixtures that several modules of unit tests use."""

from __future__ import annotations

import pytest
from fake_proc import FakeProc


@pytest.fixture
def fake_proc(tmp_path):
    fake = FakeProc(tmp_path / "host")
    yield fake
    fake.close()
