"""The watch, loaded and attached for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running_watch import WatchUnderTest


@pytest.fixture
def watching() -> Iterator[WatchUnderTest]:
    under_test = WatchUnderTest()
    yield under_test
    under_test.watch.close()
