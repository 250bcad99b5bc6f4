"""Verbs on the wrong kind of handle, or with values of the wrong type."""

from __future__ import annotations

from array import array

import umbel


def kinds(
    listener: umbel.ListenerHandle,
    stream: umbel.StreamHandle,
    work: umbel.BundleHandle,
    plain: umbel.Handle,
) -> None:
    umbel.bsend(listener, b"x")  # error
    listener.send(b"x")  # error
    umbel.receive(listener)  # error
    umbel.accept(stream)  # error
    stream.accept()  # error
    umbel.brecv(work, 1)  # error
    umbel.bundle_wait(stream)  # error
    umbel.done(plain)  # error
    umbel.bsend(7, b"x")  # error
    umbel.chrecv(stream)  # error
    umbel.ipc_sendfd(listener, 0)  # error
    umbel.send_handle(stream, work)  # error
    for _ in work:  # error
        pass
    umbel.flush(listener)  # error
    listener.fileno()  # error
    plain.receive()  # error


def sending(stream: umbel.StreamHandle) -> None:
    umbel.bsend(stream, "text")  # error
    stream.send("text")  # error
    stream.send(None)  # error
    stream.send([b"one", b"two"])  # error
    umbel.bsendl(stream, b"one")  # error
    umbel.bsendl(stream, ["one"])  # error
    umbel.send_with_fds(stream, b"x", 3)  # error


def receiving(stream: umbel.StreamHandle) -> None:
    umbel.brecv(stream, b"bytes can't be written")  # error
    umbel.brecv(stream, "text")  # error
    umbel.brecv(stream, array("u"))  # error
    umbel.brecvl(stream, [b"bytes"])  # error
    umbel.brecv(stream, 3.0)  # error
    umbel.receive(stream, 3.0)  # error
    text: str = umbel.receive(stream)  # error
    filled: bytes = umbel.brecv(stream, bytearray(3))  # error
    stream.receive_exactly(bytearray(3))  # error
    for chunk in stream:
        text = chunk  # error
    print(text, filled)


def deadlines(stream: umbel.StreamHandle, listener: umbel.ListenerHandle) -> None:
    stream.receive(10, umbel.now() + 0.5)  # error
    umbel.bsend(stream, b"x", 0.5)  # error
    umbel.accept(listener, None)  # error
    umbel.close(stream, 5.0)  # error
    umbel.msleep(0.1)  # error
    umbel.msleep()  # error
    umbel.within("5")  # error
    umbel.connect("mem://x", timeout=5).send(1)  # error
    umbel.connect("mem://x", "5")  # error
    umbel.fdin(0, 0.1)  # error
    late: int = umbel.now() + 0.5  # error
    print(late)


def closing(stream: umbel.StreamHandle) -> None:
    count: int = umbel.close(stream)  # error
    print(umbel.close(stream).bytes)  # error
    report = stream.close()
    print(report.discarded + report.consumed)  # error
    consumed: bool = report.consumed  # error
    umbel.close(stream, -1, 100)  # error
    stream.abort(5)  # error
    nothing: umbel.CloseReport = umbel.hclose(stream)  # error
    print(count, consumed, nothing)
    report.consumed = True  # error


def bundles() -> None:
    def add(first: int, second: int) -> int:
        return first + second

    umbel.go(add, 1)  # error
    umbel.go(add, 1, "2")  # error
    umbel.go(add(1, 2))  # error
    with umbel.bundle() as work:
        work.go(add, 1, third=3)  # error
    result: list[int] = umbel.go(add, 1, 2)  # error
    text: str = umbel.to_thread(lambda: 5)  # error
    print(result, text)


class Unclosable:
    def query(self, kind: type[object]) -> None: ...


def made() -> None:
    umbel.hmake(Unclosable())  # error
    umbel.hmake(5)  # error
    umbel.hmake()  # error
