"""All kinds of handles and their verbs, as functions, methods, `with` and `for`."""

from __future__ import annotations

from array import array
from typing import TypeVar, assert_type

import umbel

T = TypeVar("T")


def functions() -> None:
    with umbel.listen("mem://typed-functions", 8) as listener:
        assert_type(listener, umbel.ListenerHandle)
        client = umbel.connect("mem://typed-functions", umbel.within(5))
        server = umbel.accept(listener, umbel.within(5))
        assert_type(client, umbel.StreamHandle)
        assert_type(server, umbel.StreamHandle)
        umbel.bsend(client, b"one", umbel.within(5))
        umbel.bsendl(client, [b"two", bytearray(b"three"), memoryview(b"four")])
        umbel.bsend(client, array("i", [1, 2]))
        assert_type(umbel.brecv(server, 3, umbel.within(5)), bytes)
        umbel.brecv(server, bytearray(3))
        umbel.brecv(server, memoryview(bytearray(5)), umbel.within(5))
        umbel.brecv(server, umbel.Skip(4))
        umbel.brecvl(server, [array("i", [0]), umbel.Skip(4)])
        umbel.done(client)
        assert_type(umbel.receive(server, 10, umbel.within(5)), bytes)
        moved = umbel.hown(server)
        assert_type(moved, umbel.StreamHandle)
        umbel.hclose(moved)
        report = umbel.close(client, umbel.within(5), drain_limit=1 << 20)
        assert_type(report.consumed, bool | None)
        assert_type(report.discarded, int)


def methods() -> None:
    left, right = umbel.pair()
    with left, right:
        assert_type(left, umbel.StreamHandle)
        left.send(b"hello")
        assert_type(right.receive(max_bytes=100, deadline=umbel.within(5)), bytes)
        left.send(memoryview(b"hello"), umbel.within(5))
        assert_type(right.receive_exactly(5), bytes)
        assert_type(left.fileno(), int)
        assert_type(left.address, umbel.Address)
        umbel.flush(left, umbel.within(5))
        left.done(umbel.within(5))
        for chunk in right:
            assert_type(chunk, bytes)
        right.abort()
        assert_type(left.close(umbel.within(5)), umbel.CloseReport)


def serve(listener: umbel.ListenerHandle) -> None:
    for stream in listener:
        assert_type(stream, umbel.StreamHandle)
        with stream:
            for chunk in stream:
                stream.send(chunk)


def bundles() -> None:
    def add(first: int, second: int) -> int:
        return first + second

    with umbel.bundle() as work:
        assert_type(work, umbel.BundleHandle)
        work.go(add, 1, second=2)
        umbel.bundle_go(work, add, 1, 2)
        umbel.bundle_wait(work, umbel.within(5))
        work.wait(umbel.within(5))
    umbel.hclose(umbel.go(add, 1, 2))
    umbel.msleep(umbel.now() + 1)
    umbel.yield_()


class Counter:
    """What `hmake` takes: an object that answers `query`, and that can be closed."""

    def __init__(self) -> None:
        self.closed = 0

    def query(self, kind: type[T]) -> T | None:
        return self if isinstance(self, kind) else None

    def close(self) -> None:
        self.closed += 1


def made() -> None:
    counter = Counter()
    handle = umbel.hmake(counter)
    assert_type(handle, umbel.Handle)
    assert_type(umbel.hquery(handle, Counter), Counter)
    umbel.hclose(handle)
    assert counter.closed == 1


def main() -> None:
    functions()
    methods()
    bundles()
    made()
    with umbel.listen("mem://typed-serve") as listener, umbel.bundle() as work:
        work.go(serve, listener)
        with umbel.connect(listener.address, umbel.within(5)) as stream:
            stream.send(b"echo")
            assert stream.receive_exactly(4, umbel.within(5)) == b"echo"
            stream.done()
            assert stream.receive() == b""
        work.abort()


if __name__ == "__main__":
    main()
