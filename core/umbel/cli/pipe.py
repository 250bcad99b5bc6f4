"""`umbel listen` and `umbel connect`: input and output through a stream."""

from __future__ import annotations

import math
from contextlib import closing
from functools import partial

import umbel
from umbel.cli.exchange import Exchange
from umbel.cli.failure import report_failure
from umbel.cli.files import CHUNK, Input, Output
from umbel.cli.progress import Meter
from umbel.cli.standard import STDIN, STDOUT


def _deadline(seconds: float | None) -> int:
    return umbel.within(math.inf if seconds is None else seconds)


def _pipe(
    stream: umbel.StreamHandle,
    source: Input | None,
    sink: Output,
    deadline: int,
    *,
    keeps_open: bool = False,
) -> None:
    meter = Meter(STDOUT)
    shown = umbel.go(meter.show)
    try:
        Exchange(stream, source, sink, meter, deadline, keeps_open=keeps_open).run()
    finally:
        umbel.hclose(shown)
        meter.finish()


def _echo(stream: umbel.StreamHandle, deadline: int) -> None:
    with stream:
        while chunk := umbel.receive(stream, CHUNK, deadline):
            umbel.bsend(stream, chunk, deadline)
        umbel.close(stream, deadline)


def connect_and_pipe(address: str, seconds: float | None) -> int:
    """Run `umbel connect`; give its exit status."""
    deadline = _deadline(seconds)
    stream = umbel.connect(address, deadline)
    with closing(Output(STDOUT)) as sink:
        _pipe(stream, Input(STDIN), sink, deadline)
    return 0


# One client.


def _accept_one(listener: umbel.ListenerHandle, deadline: int) -> umbel.StreamHandle:
    with listener:  # one was wanted: others are refused from now on
        return umbel.accept(listener, deadline)


def listen_and_pipe(listener: umbel.ListenerHandle, seconds: float | None) -> None:
    """Run `umbel listen`."""
    deadline = _deadline(seconds)
    stream = _accept_one(listener, deadline)
    with closing(Output(STDOUT)) as sink:
        _pipe(stream, Input(STDIN), sink, deadline, keeps_open=True)


def listen_and_echo(listener: umbel.ListenerHandle, seconds: float | None) -> None:
    """Run `umbel listen --echo`."""
    deadline = _deadline(seconds)
    _echo(_accept_one(listener, deadline), deadline)


# One after the other, or all at once; a signal ends it at once: no grace.


def keep_piping(listener: umbel.ListenerHandle, seconds: float | None) -> None:
    """Run `umbel listen --keep`, until our own output fails."""
    with closing(Output(STDOUT)) as sink:
        pipe = partial(_pipe_next, listener, sink, seconds)
        umbel.serve(listener, pipe, limit=1, grace=0)
        if sink.error is not None:
            raise sink.error


def _pipe_next(
    listener: umbel.ListenerHandle,
    sink: Output,
    seconds: float | None,
    stream: umbel.StreamHandle,
) -> None:
    try:
        _pipe(stream, None, sink, _deadline(seconds))
    except (OSError, BaseExceptionGroup) as error:
        if sink.error is None:
            _report(error)
        else:
            umbel.hclose(listener)  # what the next one sends would be lost too


def keep_echoing(listener: umbel.ListenerHandle, seconds: float | None) -> None:
    """Run `umbel listen --echo --keep`."""
    umbel.serve(listener, partial(_echo_next, seconds), grace=0)


def _echo_next(seconds: float | None, stream: umbel.StreamHandle) -> None:
    try:
        _echo(stream, _deadline(seconds))
    except OSError as error:
        _report(error)


def _report(error: OSError | BaseExceptionGroup) -> None:
    """Tell of one bad connection, which is no reason to serve no others."""
    if isinstance(error, BaseExceptionGroup) and error.split(OSError)[1] is not None:
        raise error
    report_failure("listen", error)
