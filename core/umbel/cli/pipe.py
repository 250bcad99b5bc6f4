"""`umbel listen` and `umbel connect`: input and output through a stream."""

from __future__ import annotations

import math
import select
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import umbel
from umbel.cli.failure import report_failure
from umbel.cli.files import CHUNK, Input, Output
from umbel.cli.progress import Meter

STDIN: Final = 0
STDOUT: Final = 1


class Exchange:
    """One connection, carried in two coroutines: one per direction."""

    def __init__(
        self,
        stream: umbel.StreamHandle,
        source: Input | None,
        sink: Output,
        meter: Meter,
        deadline: int,
        *,
        keeps_open: bool = False,
    ) -> None:
        self._stream = stream
        #: Empty input leaves our direction open: the peer may have much to say.
        self._keeps_open = keeps_open
        self._source = source
        self._sink = sink
        self._meter = meter
        self._deadline = deadline
        self._reading: umbel.BundleHandle | None = None
        self._is_in_read = False
        self._is_done = False
        self._has_peer_ended = False

    def run(self) -> None:
        """Carry both directions to their ends, then close in good order."""
        with self._stream:
            with umbel.bundle() as both:
                if self._source is not None:
                    both.go(self._send, self._source)
                both.go(self._receive)
            umbel.close(self._stream, self._deadline)

    def _send(self, source: Input) -> None:
        # In a bundle of its own, so that its reading can be stopped alone.
        with umbel.bundle() as self._reading:
            self._reading.go(self._carry, source)

    def _carry(self, source: Input) -> None:
        buffer = memoryview(bytearray(CHUNK))
        sent = 0
        while source.is_file or not self._has_peer_ended:
            self._is_in_read = True
            count = source.read_into(buffer, self._deadline)
            self._is_in_read = False
            if not count:
                break
            umbel.bsend(self._stream, buffer[:count], self._deadline)
            sent += count
            self._meter.sent = sent
        if self._keeps_open and not sent:
            return
        umbel.done(self._stream, self._deadline)
        self._is_done = True

    def _receive(self) -> None:
        while chunk := umbel.receive(self._stream, CHUNK, self._deadline):
            self._sink.write(chunk, self._deadline)
            self._meter.received += len(chunk)
        self._require_living_peer()
        self._has_peer_ended = True
        # A send that has begun is finished: it is part of what we have to say.
        if self._is_in_read and self._reading is not None:
            umbel.hclose(self._reading)

    def _require_living_peer(self) -> None:
        # A peer that ended its direction still listens: only one that is gone
        # altogether hangs up before our own end.
        if not self._is_done and has_hung_up(self._stream):
            message = (
                "the peer was killed, or closed hard, before our direction ended: "
                "what it sent may be cut short"
            )
            raise umbel.BrokenStreamError(message)


def has_hung_up(stream: umbel.StreamHandle) -> bool:
    """Tell whether the peer is known to be gone; False if that can't be known."""
    try:
        fd = stream.fileno()
    except umbel.NotSupportedError:
        return False
    look = select.poll()
    look.register(fd, 0)
    return any(events & select.POLLHUP for _, events in look.poll(0))


def _deadline(seconds: float | None) -> int:
    return umbel.within(math.inf if seconds is None else seconds)


def _with_meter(work: Callable[[Meter], None]) -> None:
    meter = Meter()
    shown = umbel.go(meter.show)
    try:
        work(meter)
    finally:
        umbel.hclose(shown)
        meter.finish()


def connect_and_pipe(address: str, seconds: float | None) -> int:
    """Run `umbel connect`; give its exit status."""
    deadline = _deadline(seconds)
    stream = umbel.connect(address, deadline)
    _pipe(stream, Input(STDIN), deadline)
    return 0


def _pipe(
    stream: umbel.StreamHandle,
    source: Input | None,
    deadline: int,
    *,
    keeps_open: bool = False,
) -> None:
    sink = Output(STDOUT)
    try:
        _with_meter(
            lambda meter: Exchange(
                stream, source, sink, meter, deadline, keeps_open=keeps_open
            ).run()
        )
    finally:
        sink.close()


def _accept_one(
    listener: umbel.ListenerHandle, seconds: float | None
) -> tuple[umbel.StreamHandle, int]:
    deadline = _deadline(seconds)
    stream = umbel.accept(listener, deadline)
    umbel.hclose(listener)  # one was wanted: others are refused from now on
    return stream, deadline


def listen_and_pipe(
    address: str, backlog: int, seconds: float | None, keep: bool
) -> int:
    """Run `umbel listen`; give its exit status."""
    with umbel.listen(address, backlog) as listener:
        if not keep:
            stream, deadline = _accept_one(listener, seconds)
            _pipe(stream, Input(STDIN), deadline, keeps_open=True)
            return 0
        for stream in listener:
            _survive(partial(_pipe, stream, None, _deadline(seconds)))
    return 0


def listen_and_echo(
    address: str, backlog: int, seconds: float | None, keep: bool
) -> int:
    """Run `umbel listen --echo`; give its exit status."""
    with umbel.listen(address, backlog) as listener:
        if not keep:
            _echo(*_accept_one(listener, seconds))
            return 0
        with umbel.bundle() as serving:
            for stream in listener:
                serving.go(_survive, partial(_echo, stream, _deadline(seconds)))
    return 0


def _echo(stream: umbel.StreamHandle, deadline: int) -> None:
    with stream:
        while chunk := umbel.receive(stream, CHUNK, deadline):
            umbel.bsend(stream, chunk, deadline)
        umbel.close(stream, deadline)


def _survive(serve: Callable[[], None]) -> None:
    # One bad connection is no reason to stop serving the others.
    try:
        serve()
    except OSError as error:
        report_failure("listen", error)
    except BaseExceptionGroup as group:
        if group.split(OSError)[1] is not None:
            raise
        report_failure("listen", group)
    sys.stderr.flush()
