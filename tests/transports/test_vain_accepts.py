"""An accept that finds nobody is dear: a listener asks whether somebody has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from tests.support import soon
from umbel import aio
from umbel.handle import hclose_if_open, lookup
from umbel.sockets.listener import SocketListener
from umbel.streams.listener import Listening


@pytest.fixture(params=["ipc:{}/x.sock", "tcp://127.0.0.1:0"], ids=["ipc", "tcp"])
def listener(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[umbel.ListenerHandle]:
    listener = umbel.listen(request.param.format(tmp_path), backlog=64)
    yield listener
    hclose_if_open(listener)


class Accepts:
    """Notes what a listener does."""

    def __init__(
        self, listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = lookup(listener, Listening).listener
        assert isinstance(inner, SocketListener)
        self.vain = self.asked = 0
        accept, is_emptied = inner._accept, SocketListener._is_emptied

        def note_vain() -> tuple[int, object]:
            try:
                return accept()
            except BlockingIOError:
                self.vain += 1
                raise

        def note_asked(listener: SocketListener) -> bool:
            self.asked += 1
            return is_emptied(listener)

        monkeypatch.setattr(inner, "_accept", note_vain)
        monkeypatch.setattr(SocketListener, "_is_emptied", note_asked)


@pytest.fixture
def opened() -> Iterator[list[umbel.StreamHandle]]:
    """Close at the end what a test has put in."""
    opened: list[umbel.StreamHandle] = []
    yield opened
    for s in opened:
        umbel.hclose(s)


def test_who_accepts_one_at_a_time_tries_in_vain_but_once(
    listener: umbel.ListenerHandle,
    opened: list[umbel.StreamHandle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepts = Accepts(listener, monkeypatch)
    accepted: list[umbel.StreamHandle] = []

    def accept() -> None:
        while True:
            accepted.append(umbel.accept(listener))

    with umbel.bundle() as accepting:
        accepting.go(accept)  # before anybody has come
        for count in range(1, 6):
            opened.append(umbel.connect(listener.address, soon()))
            while len(accepted) < count:
                umbel.msleep(umbel.now() + 1)
        accepting.abort()
    opened.extend(accepted)

    assert accepts.vain == 1
    assert accepts.asked == 5


def test_nor_does_a_task(
    listener: umbel.ListenerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepts = Accepts(listener, monkeypatch)

    async def main() -> None:
        for _ in range(5):
            accepting = asyncio.ensure_future(aio.accept(listener, soon()))
            await asyncio.sleep(0)
            client = await aio.connect(listener.address, soon())
            server = await accepting
            client.abort()
            server.abort()

    asyncio.run(main())
    assert accepts.vain == 1
    assert accepts.asked == 4


def test_a_crowd_is_asked_for_a_few_times_only(
    listener: umbel.ListenerHandle,
    opened: list[umbel.StreamHandle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepts = Accepts(listener, monkeypatch)

    def crowd() -> None:
        opened.extend(umbel.connect(listener.address, soon()) for _ in range(40))
        opened.extend(umbel.accept(listener, soon()) for _ in range(40))
        with pytest.raises(umbel.DeadlineError):
            umbel.accept(listener, 0)

    crowd()
    assert accepts.asked == 6  # after 1, 2, 4, 8, 16 and 32
    assert accepts.vain > 0

    # The next one is as large.
    accepts.asked = accepts.vain = 0
    crowd()
    assert accepts.asked == 1
    assert accepts.vain <= 1


def test_whom_another_process_took_after_it_was_asked_is_waited_for(
    listener: umbel.ListenerHandle,
    opened: list[umbel.StreamHandle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def come() -> None:
        opened.append(umbel.connect(listener.address, soon()))

    come()
    opened.append(umbel.accept(listener, soon()))
    monkeypatch.setattr(SocketListener, "_is_emptied", lambda _: False)
    accepts = Accepts(listener, monkeypatch)

    def come_later() -> None:
        umbel.msleep(umbel.now() + 1)
        come()

    with umbel.go(come_later):
        opened.append(umbel.accept(listener, soon()))

    assert accepts.vain == 1


def test_a_listener_that_another_thread_has_closed_is_left_to_tell(
    listener: umbel.ListenerHandle, opened: list[umbel.StreamHandle]
) -> None:
    inner = lookup(listener, Listening).listener
    assert isinstance(inner, SocketListener)
    opened.append(umbel.connect(listener.address, soon()))
    opened.append(umbel.accept(listener, soon()))

    umbel.hclose(listener)

    with pytest.raises(umbel.BadHandleError):
        inner.try_accept()
