"""Fixtures for tests of tasks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.support import RunLoop

with suppress(ImportError):
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> RunLoop:
    """Run the main task of a loop."""
    if request.param == "trio":
        trio = pytest.importorskip("trio")
        in_trio: RunLoop = trio.run
        return in_trio
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
        return lambda main: uvloop.run(main())
    return lambda main: asyncio.run(main())
