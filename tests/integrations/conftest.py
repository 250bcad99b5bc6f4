"""Servers that are started once, and ways to run what is awaited."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integrations import services
from umbel import Address


@pytest.fixture(scope="session")
def redis_address() -> Iterator[Address]:
    program = services.find_redis()
    if program is None:
        pytest.skip("no redis-server: apt-get install redis-server")
    with services.redis_server(program) as place:
        yield Address("ipc", str(place))


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[Address]:
    programs = services.find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    with services.postgres_server(programs) as place:
        yield Address("ipc", str(place))


@pytest.fixture
def address(scheme: str, tmp_path: Path) -> Address:
    """Give where a test may listen."""
    place = str(tmp_path / "x.sock") if scheme == "ipc" else tmp_path.name
    return Address(scheme, place)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Name a loop, for `anyio.run`."""
    name = request.param
    assert isinstance(name, str)
    if not find_spec(name):
        pytest.skip(f"{name} is not installed")
    return name
