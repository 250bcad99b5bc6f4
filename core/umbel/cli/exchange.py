"""One connection, carried: input to the peer, and what it sends to output.

What ends, and in which order, is in docs/decisions/0005-empty-input.md.
"""

from __future__ import annotations

import select
from typing import Final

import umbel
from umbel.cli.files import CHUNK, Input, Output
from umbel.cli.progress import Meter

#: Seconds between two looks whether a peer that has ended is still there. What could be
#: waited for has come with its end.
LOOK_AGAIN: Final = 0.1


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
        self._sending: umbel.BundleHandle | None = None
        self._is_in_read = False
        self._is_done = False
        #: It has said all; it may still listen.
        self.has_peer_ended = False

    def run(self) -> None:
        """Carry both directions to their ends, then close in good order."""
        with self._stream:
            with umbel.bundle() as both:
                if self._source is not None:
                    both.go(self._send, self._source)
                both.go(self._receive)
            if self._is_done:
                self._wait_until_read()
            umbel.close(self._stream, self._deadline)

    def _send(self, source: Input) -> None:
        # In a bundle of its own, so that its reading can be stopped alone.
        with umbel.bundle() as self._sending:
            self._sending.go(self._carry, source)
        self._sending = None

    def _carry(self, source: Input) -> None:
        buffer = memoryview(bytearray(CHUNK))
        sent = 0
        while not (source.is_terminal and self.has_peer_ended):
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
        self.has_peer_ended = True
        if self._source is None or self._sending is None:
            return
        if not self._source.is_terminal:
            self._sink.end()  # whoever reads it need not wait for our input
            self._wait_for_sender()
        # A send that has begun is finished: it is part of what we have to say.
        elif self._is_in_read:
            umbel.hclose(self._sending)

    def _wait_for_sender(self) -> None:
        """Let input be sent to its end, for as long as the peer is there.

        Input may say nothing for hours, and sending would be told only when it does.
        """
        while self._sending is not None:
            try:
                self._sending.wait(umbel.within(LOOK_AGAIN))
            except umbel.DeadlineError:
                self._require_living_peer()
            except umbel.BadHandleError:
                return  # all is sent, and its block has ended
            else:
                return

    def _require_living_peer(self) -> None:
        # A peer that ended its direction still listens: only one that is gone
        # altogether hangs up before our own end.
        if not self._is_done and has_hung_up(self._stream):
            message = (
                "the peer was killed, or closed hard, before our direction ended: "
                "what either side sent may be cut short; look what became of it"
            )
            raise umbel.BrokenStreamError(message)

    def _wait_until_read(self) -> None:
        # Of a peer that ended first nothing more would be told by the close.
        try:
            umbel.flush(self._stream, self._deadline)
        except umbel.NotSupportedError:
            pass  # over a network it can't be known
        except umbel.BrokenStreamError:
            message = (
                "the peer was killed, or closed hard, before it had read all that we "
                "sent; look what became of it"
            )
            raise umbel.BrokenStreamError(message) from None


def has_hung_up(stream: umbel.StreamHandle) -> bool:
    """Tell whether the peer is known to be gone; False if that can't be known."""
    try:
        fd = stream.fileno()
    except umbel.NotSupportedError:
        return False
    look = select.poll()
    look.register(fd, 0)
    return any(events & select.POLLHUP for _, events in look.poll(0))
