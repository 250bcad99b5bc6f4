"""An async function where a plain one belongs is told: nobody would await it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import umbel
from tests.support import run_python
from umbel import aio, testing


async def work(*_: object) -> None:
    raise AssertionError("nobody awaits it")


class Working:
    async def __call__(self, *_: object) -> None:
        raise AssertionError("nobody awaits it")


def start_in_bundle(function: Callable[[], object]) -> umbel.BundleHandle:
    bundle = umbel.bundle()
    umbel.bundle_go(bundle, function)
    return bundle


def start_by_method(function: Callable[[], object]) -> umbel.BundleHandle:
    bundle = umbel.bundle()
    bundle.go(function)
    return bundle


def start_from_a_thread(function: Callable[[], object]) -> umbel.BundleHandle:
    bundle = umbel.bundle()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(umbel.bundle_go_threadsafe, bundle, function).result()
    umbel.msleep(umbel.within(0.01))  # it starts when this thread next waits
    return bundle


@pytest.mark.parametrize(
    "start", [umbel.go, start_in_bundle, start_by_method, start_from_a_thread]
)
@pytest.mark.parametrize(
    "function", [work, Working(), partial(work, 1), lambda: work(1)], ids=str
)
def test_a_coroutine_of_umbels_that_gives_one_of_pythons_has_failed(
    start: Callable[[Callable[[], object]], umbel.BundleHandle],
    function: Callable[[], object],
) -> None:
    with pytest.raises(ExceptionGroup) as caught, start(function) as bundle:
        umbel.bundle_wait(bundle, umbel.within(5))

    (error,) = caught.value.exceptions
    assert isinstance(error, TypeError)
    assert "work" in str(error).lower()
    assert "async def" in str(error)


def test_work_in_a_thread_that_is_async_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"work.*async def"):
        umbel.to_thread(work)  # type: ignore[unused-coroutine]  # that is the mistake


@pytest.mark.parametrize("function", [work, partial(work, 1)], ids=str)
def test_so_is_what_is_to_run_beside_a_loop_on_a_stack_of_its_own(
    function: Callable[[], object],
) -> None:
    with pytest.raises(TypeError, match=r"work.*async def.*await it"):
        asyncio.run(aio.run_blocking(function))


def test_so_is_what_the_clock_that_jumps_is_to_run() -> None:
    with pytest.raises(TypeError, match=r"work.*async def"):
        testing.run(work)  # type: ignore[unused-coroutine]  # likewise


def test_a_server_with_an_async_handler_never_begins() -> None:
    with umbel.listen("mem:x") as listener:
        for handler in (work, partial(work, 1)):
            with pytest.raises(TypeError, match=r"work.*umbel\.aio\.serve"):
                umbel.serve(listener, handler, umbel.within(5))
        umbel.hclose(umbel.connect(listener.address, 0))


def test_a_handler_that_gives_a_coroutine_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with umbel.listen("mem:x") as listener:
        client = umbel.connect(listener.address, 0)
        with umbel.go(umbel.serve, listener, Working()):
            assert umbel.receive(client, 1, umbel.within(5)) == b""
            umbel.hclose(listener)
        umbel.hclose(client)

    assert "TypeError" in caplog.text
    assert "umbel.aio.serve" in caplog.text


def test_a_plain_handler_in_a_loops_server_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        listener = aio.listen("mem:x")
        plain: Callable[[object], Any] = str
        serving = asyncio.create_task(aio.serve(listener, plain))
        client = await aio.connect(listener.address, umbel.within(5))
        assert await client.receive(1, umbel.within(5)) == b""
        await listener.close()
        await serving
        client.abort()

    asyncio.run(main())
    assert "TypeError: the handler is a plain function" in caplog.text


def test_all_bridges_but_that_to_anyio_can_be_had_without_it() -> None:
    code = """
import sys
sys.modules["anyio"] = None
from umbel.bridges import *
print(as_file.__name__, start_server.__name__, "as_anyio_stream" in globals())
try:
    from umbel.bridges import as_anyio_stream
except ImportError as error:
    print("pip install 'umbel[anyio]'" in str(error))
"""
    assert run_python(code) == "as_file start_server False\nTrue\n"


def test_what_other_functions_give_is_dropped_as_ever() -> None:
    with umbel.go(lambda: 5), umbel.go(lambda: iter(())):
        assert umbel.to_thread(lambda: 5) == 5
