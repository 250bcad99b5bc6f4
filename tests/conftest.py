"""Fixtures for all tests, and the check that each leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import umbel
from tests.mutants import opaque
from tests.support import Ends, open_descriptors, tcp_pair, wait_until
from umbel.handle import open_handles
from umbel.plugins.registry import find_transport
from umbel.testing.transports import transport_at_hand

# A shell without job control has background jobs ignore Ctrl-C, which tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    # This thread's hub has descriptors of its own, and forgets what the tests before
    # did: the first poll may have events of theirs, the second has none.
    for _ in range(2):
        umbel.msleep(0)
    for scheme in ("ipc", "mem"):
        find_transport(scheme)
    descriptors = open_descriptors()
    threads = threading.active_count()

    yield

    forgotten = {n: r.describe() for n, r in open_handles.items()}
    for number in forgotten:
        umbel.hclose(number)  # lest the next tests fail too
    assert not forgotten
    wait_until(lambda: threading.active_count() <= threads, "the end of all threads")
    left = open_descriptors() - descriptors
    if left:
        gc.collect()  # slow, and what a failed test's traceback keeps is no leak
        left = open_descriptors() - descriptors
    assert not left, f"descriptors were left open: {left}"


@pytest.fixture(params=["ipc", "mem"])
def scheme(request: pytest.FixtureRequest) -> str:
    found = request.param
    assert isinstance(found, str)
    return found


@pytest.fixture
def ends(scheme: str) -> Iterator[Ends]:
    """Give two streams that are each other's peers; a test may close them."""
    pair = umbel.pair(scheme)
    yield pair
    for end in pair:
        if end in open_handles:
            umbel.hclose(end)


@pytest.fixture(params=["ipc", "mem", "tcp", "opaque"])
def any_ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Give two ends, also of a transport that can do the least."""
    with ExitStack() as stack:
        if request.param == "opaque":
            stack.enter_context(transport_at_hand(opaque.transport, "opaque"))
        pair = tcp_pair() if request.param == "tcp" else umbel.pair(request.param)
        yield pair
        for end in pair:
            if end in open_handles:
                umbel.hclose(end)


@pytest.fixture
def listener(scheme: str, tmp_path: Path) -> Iterator[umbel.ListenerHandle]:
    """Give a listener; a test may close it."""
    place = str(tmp_path / "x.sock") if scheme == "ipc" else tmp_path.name
    found = umbel.listen(umbel.Address(scheme, place))
    yield found
    if found in open_handles:
        umbel.hclose(found)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool
