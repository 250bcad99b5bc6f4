"""All calls on the same handles from many threads: nothing breaks but by contract."""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from collections.abc import Callable

import pytest

import umbel
from tests.support import Ends, wait_until_blocked

#: What the contract lets a call raise when others use or close the same handle.
EXPECTED = (
    umbel.BusyError,
    umbel.BadHandleError,
    umbel.DeadlineError,
    umbel.EndOfStreamError,
    umbel.BrokenStreamError,
)


Call = Callable[[umbel.StreamHandle, int], object]

CALLS: list[Call] = [
    lambda s, until: umbel.bsend(s, b"x", until),
    lambda s, until: umbel.bsend(s, bytes(100_000), until),
    lambda s, until: umbel.receive(s, 10_000, until),
    lambda s, until: umbel.brecv(s, 10, until),
    umbel.flush,
    lambda s, _: umbel.query(s, umbel.PeerIdentity),
    umbel.done,
    umbel.close,
    lambda s, _: umbel.hclose(s),
]


class Hammer:
    """A pair of streams that many threads use at once, and that is renewed."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.pair = list(umbel.pair(scheme))
        self.give_up = time.monotonic() + 0.4
        self.surprises: list[BaseException] = []

    def use(self, seed: int) -> None:
        chooser = random.Random(seed)
        while time.monotonic() < self.give_up:
            s = self.pair[chooser.randrange(2)]
            until = umbel.within(chooser.choice([0, 0.001, 0.005]))
            try:
                chooser.choice(CALLS)(s, until)
            except EXPECTED:
                pass
            except BaseException as error:
                self.surprises.append(error)
                traceback.print_exc()  # shown by pytest if the test fails

    def renew(self) -> None:
        while time.monotonic() < self.give_up:
            time.sleep(0.002)
            self.close()
            self.pair[:] = umbel.pair(self.scheme)

    def close(self) -> None:
        for s in self.pair:
            try:
                umbel.hclose(s)
            except umbel.BadHandleError:
                pass  # another thread did


@pytest.mark.parametrize("seed", range(4))
def test_hammering_from_many_threads_ends_in_contract(scheme: str, seed: int) -> None:
    hammer = Hammer(scheme)
    threads = [
        threading.Thread(target=hammer.use, args=(seed * 100 + i,)) for i in range(6)
    ]
    threads.append(threading.Thread(target=hammer.renew))

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    hammer.close()

    assert not any(thread.is_alive() for thread in threads)
    assert hammer.surprises == []


def test_a_query_while_another_thread_closes_is_ebadf_of_ours() -> None:
    surprises: list[BaseException] = []
    give_up = time.monotonic() + 0.5
    shown: list[umbel.StreamHandle] = []

    def ask() -> None:
        while time.monotonic() < give_up:
            for s in shown:
                try:
                    umbel.query(s, umbel.PeerIdentity)
                except umbel.BadHandleError:
                    pass
                except OSError as error:
                    surprises.append(error)

    asking = threading.Thread(target=ask)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    asking.start()
    while time.monotonic() < give_up:
        left, right = umbel.ipc_pair()
        shown[:] = [left]
        time.sleep(0)
        umbel.hclose(left)
        umbel.hclose(right)
    asking.join()
    sys.setswitchinterval(interval)

    assert surprises == []


def test_a_blocked_call_in_another_thread_is_woken_within_50_ms(ends: Ends) -> None:
    took: list[float] = []
    for _ in range(5):
        left, right = umbel.ipc_pair()
        ended: list[float] = []

        def receive(s: umbel.StreamHandle = left, ended: list[float] = ended) -> None:
            with pytest.raises(umbel.BadHandleError):
                umbel.receive(s)
            ended.append(time.monotonic())

        thread = threading.Thread(target=receive)
        thread.start()
        wait_until_blocked(left)
        start = time.monotonic()
        umbel.hclose(left)
        thread.join(20)
        umbel.hclose(right)
        took.append(ended[0] - start)
        if took[-1] < 0.05:
            break

    assert min(took) < 0.05


def test_ten_thousand_open_and_close_beside_one_that_waits(ends: Ends) -> None:
    left, right = ends
    received: list[bytes] = []

    with umbel.bundle() as waiting:
        waiting.go(lambda: received.append(umbel.receive(left)))
        for i in range(10_000):
            a, b = umbel.ipc_pair()
            if i % 10 == 0:
                umbel.bsend(a, b"mine")
                assert umbel.receive(b, 10) == b"mine"
            umbel.hclose(a)
            umbel.hclose(b)
        assert received == []
        umbel.bsend(right, b"at last")

    assert received == [b"at last"]
