"""Fixtures for tests of bridges."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

anyio = pytest.importorskip("anyio")

HAS_UVLOOP = find_spec("uvloop") is not None
if HAS_UVLOOP:
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good


@pytest.fixture(params=["asyncio", "uvloop"])
def run(
    request: pytest.FixtureRequest,
) -> Callable[[Callable[[], Coroutine[object, object, None]]], None]:
    """Give what runs a test's main in asyncio's own loop, and in uvloop."""
    if request.param == "uvloop" and not HAS_UVLOOP:
        pytest.skip("uvloop is not installed")

    def run_main(main: Callable[[], Coroutine[object, object, None]]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run_main


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with a key and a certificate for "umbel", signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    )
    rest = "-days 2 -subj /CN=umbel -addext subjectAltName=DNS:umbel"
    if not which("openssl"):
        pytest.skip("openssl is not installed")
    key = path.with_name("key.pem")
    subprocess.run(
        [*command.split(), *rest.split(), "-keyout", str(key), "-out", str(path)],
        check=True,
        capture_output=True,
    )
    path.write_text(key.read_text() + path.read_text())
    return path


@pytest.fixture
def be_eager() -> Callable[[], None]:
    """Give what makes the running loop begin each task at once."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks are of Python 3.12")
    return lambda: asyncio.get_running_loop().set_task_factory(factory)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found
