"""Calls that find no memory at some point: what is open is still in order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

import umbel
from tests.support import drain, pattern, watched_stream
from umbel._kernel.current import current_hub
from umbel.handle import hclose_if_open

_testcapi = pytest.importorskip("_testcapi", reason="CPython's own tests need it")
pytestmark = [
    # CPython itself drops some errors of memory, and says so.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # It has no memory either, as between a verb's end and its caller.
    pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is at work"),
]
#: Allocations after the first of a call that are tried.
MOST = 60


def without(number: int, call: Callable[[], object]) -> None:
    """Make a call whose allocation of that number fails."""
    _testcapi.set_nomemory(number, number + 1)
    try:
        call()
    finally:
        _testcapi.remove_mem_hooks()


@pytest.mark.parametrize("close", [umbel.hclose, umbel.close])
def test_a_close_without_memory_leaves_no_watch(
    close: Callable[[umbel.StreamHandle], object],
) -> None:
    hub = current_hub()
    for number in range(1, MOST):
        near = watched_stream()
        fd = near.fileno()
        assert hub.watches.find(fd) is not None
        with suppress(MemoryError):
            without(number, partial(close, near))
        hclose_if_open(near)

        # Or the next stream of that number would hang.
        assert hub.watches.find(fd) is None


def test_a_receive_without_memory_does_not_hide_that_bytes_are_missing() -> None:
    data = pattern(3000)
    for number in range(1, MOST):
        near, far = umbel.ipc_pair()
        got: list[bytes] = [b"", b""]
        umbel.bsend(far, data)
        umbel.done(far)

        def receive(s: umbel.StreamHandle = near, into: list[bytes] = got) -> None:
            into[0] = umbel.receive(s)

        is_told = False
        with suppress(MemoryError):
            without(number, receive)
        try:
            got[1] = drain(near)
        except ConnectionResetError:
            is_told = True

        assert is_told or b"".join(got) == data
        umbel.hclose(near)
        umbel.hclose(far)


def test_nor_does_one_that_the_hub_makes_for_who_waits() -> None:
    data = pattern(3000)
    hub = current_hub()

    for number in range(1, MOST):
        near, far = umbel.ipc_pair()
        got: list[bytes] = []
        told: list[MemoryError] = []

        def read(
            s: umbel.StreamHandle = near,
            into: list[bytes] = got,
            failures: list[MemoryError] = told,
        ) -> None:
            try:
                into.extend(s)
            except MemoryError as error:
                failures.append(error)

        with umbel.go(read):
            umbel.bsend(far, data)
            with suppress(MemoryError, SystemError):  # CPython's epoll loses its error
                without(number, lambda: hub.collect(0))
            umbel.done(far)
        umbel.hclose(near)
        umbel.hclose(far)

        assert told or b"".join(got) == data
