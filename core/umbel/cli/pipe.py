"""`umbel listen` and `umbel connect`: input and output through a stream."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial

import umbel
from umbel.cli.exchange import Exchange
from umbel.cli.failure import report_failure
from umbel.cli.files import CHUNK, Input, Output
from umbel.cli.progress import Meter
from umbel.cli.standard import STDIN, STDOUT


def _deadline(seconds: float | None) -> int:
    return umbel.within(math.inf if seconds is None else seconds)


def _with_meter(work: Callable[[Meter], None]) -> None:
    meter = Meter(STDOUT)
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
