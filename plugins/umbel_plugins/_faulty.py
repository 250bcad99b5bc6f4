"""A stream with faults, as its plan draws them.

It keeps no bytes: a short read asks the stream behind it for fewer bytes, and a split
write gives that stream its bytes in pieces. So nothing is lost but what a reset loses.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final, final

import umbel
from umbel.spi import (
    BrokenStreamError,
    DeadlineError,
    DescriptorPassing,
    Fileno,
    Stream,
    StreamProxy,
    Transfer,
    UnreadBytes,
    add_bytes_done,
    now,
)

if TYPE_CHECKING:
    from umbel_plugins.faults import Plan


#: Seconds between two looks whether a reset has come while `flush` waits.
GLANCE: Final = 0.05


class _Direction:
    """One direction of a stream: what it draws from, and what it has moved.

    Attributes:
        random: its own source, so that no other thread or stream changes what is drawn.
        moved: bytes so far.
    """

    __slots__ = ("moved", "plan", "random")

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        # Of a text: the same in every process, as a hash is not.
        self.random = Random(f"{plan.faults.seed} {name}")
        self.moved = 0

    def draw_size(self, wanted: int, likelihood: float) -> int:
        """Say how many of *wanted* bytes may move at once."""
        if wanted > 1 and self.random.random() < likelihood:
            # Small ones as often as large ones: a buffer is mostly larger than what
            # has come.
            return int((wanted - 1) ** self.random.random())
        return wanted

    def bytes_left(self, wanted: int) -> int:
        """Say how many of *wanted* bytes may move before the reset."""
        limit = self.plan.faults.reset_after
        return wanted if limit is None else max(0, min(wanted, limit - self.moved))

    def delay(self, deadline: int) -> None:
        """Wait as long as the plan says, but not beyond *deadline*."""
        if not self.plan.faults.latency:
            return
        until = umbel.within(self.random.random() * self.plan.faults.latency)
        if deadline >= 0:
            # What is there at the deadline may still move, as without the plan.
            until = min(until, deadline)
        if until > now():
            umbel.msleep(until)


@final
class FaultyStream(StreamProxy):
    """A stream with faults while its plan is active."""

    __slots__ = ("_inbound", "_is_reset", "_outbound", "plan")

    def __init__(self, inner: Stream, plan: Plan, name: str) -> None:
        super().__init__(inner)
        self.plan = plan
        self._inbound = _Direction(plan, f"{name} in")
        self._outbound = _Direction(plan, f"{name} out")
        self._is_reset = False

    # Receiving.

    def receive_into(self, buffer: memoryview, deadline: int) -> int:
        """As `Stream.receive_into`."""
        size = self._before_receive(len(buffer), deadline)
        try:
            count = self.inner.receive_into(buffer[:size], deadline)
        except OSError:
            self._require_whole()  # it may be the reset that has ended the wait
            raise
        self._after_receive(count)
        return count

    def _before_receive(self, wanted: int, deadline: int) -> int:
        self._require_whole()
        if not self.plan.is_active:
            return wanted
        self._inbound.delay(deadline)
        self._require_whole()  # the other direction may have been reset meanwhile
        size = self._inbound.bytes_left(wanted)
        if wanted and not size:
            self._reset()
        return self._inbound.draw_size(size, self.plan.faults.short_reads)

    def _after_receive(self, count: int) -> None:
        self._require_whole()
        if self.plan.is_active:
            self._inbound.moved += count

    # Sending.

    def send(self, buffers: Sequence[memoryview], deadline: int) -> None:
        """As `Stream.send`."""
        self._require_whole()
        left = [view for view in buffers if view.nbytes]
        if not self.plan.is_active or not left:
            self.inner.send(buffers, deadline)
            return
        moved = 0
        try:
            while left:
                if moved:
                    umbel.yield_()  # so that a peer in this thread sees the piece
                piece, left = self._next_piece(left, deadline)
                self.inner.send(piece, deadline)
                size = sum(view.nbytes for view in piece)
                self._outbound.moved += size
                moved += size
        except BaseException as error:
            add_bytes_done(error, moved)
            if self._is_reset and isinstance(error, OSError):
                broken = BrokenStreamError(_RESET)  # which has ended the wait
                add_bytes_done(broken, getattr(error, "bytes_done", 0))
                raise broken from None
            raise

    def _next_piece(
        self, views: list[memoryview], deadline: int
    ) -> tuple[list[memoryview], list[memoryview]]:
        self._outbound.delay(deadline)
        self._require_whole()
        total = sum(view.nbytes for view in views)
        size = self._outbound.bytes_left(total)
        if not size:
            self._reset()
        return _cut(
            views, self._outbound.draw_size(size, self.plan.faults.split_writes)
        )

    # Descriptors.

    def descriptor_passing(self, found: DescriptorPassing) -> DescriptorPassing:
        """Keep bytes with descriptors whole, but make them late, short or reset."""
        send, receive = found.send, found.receive

        def faulty_send(data: memoryview, fds: Sequence[int], deadline: int) -> None:
            self._require_whole()
            if self.plan.is_active:
                self._outbound.delay(deadline)
                self._require_whole()
                if self._outbound.bytes_left(data.nbytes) < data.nbytes:
                    self._reset()
            send(data, fds, deadline)
            self._outbound.moved += data.nbytes

        def faulty_receive(
            max_bytes: int, max_descriptors: int, deadline: int
        ) -> tuple[bytes, list[int]]:
            size = self._before_receive(max_bytes, deadline)
            data, descriptors = receive(size, max_descriptors, deadline)
            try:
                self._after_receive(len(data))
            except BaseException:
                for descriptor in descriptors:
                    os.close(descriptor)
                raise
            return data, descriptors

        return DescriptorPassing(faulty_send, faulty_receive)

    # Past this stream.

    def transfer(self, found: Transfer) -> Transfer:
        """Move the stream behind: where it goes, faults are another plugin's."""
        return found

    def fileno(self, found: Fileno) -> Fileno:
        """Let others wait; what they move by it has no faults."""
        return found

    # Waiting until all is read.

    def unread_bytes(self, found: UnreadBytes) -> UnreadBytes:
        """Let a reset end the wait, of which the stream behind it knows nothing."""

        def is_zero() -> bool:
            self._require_whole()
            return found.is_zero()

        def wait(deadline: int) -> None:
            while True:
                self._require_whole()
                until = umbel.within(GLANCE)
                if 0 <= deadline < until:
                    until = deadline
                try:
                    found.wait(until)
                except DeadlineError:
                    if until == deadline:
                        raise
                else:
                    return self._require_whole()

        return UnreadBytes(is_zero, wait)

    # The end.

    def done(self, deadline: int) -> None:
        """As `Stream.done`."""
        self._require_whole()
        self.inner.done(deadline)

    def _require_whole(self) -> None:
        if self._is_reset:
            raise BrokenStreamError(_RESET)

    def _reset(self) -> None:
        self._is_reset = True
        _wake(self.inner)
        raise BrokenStreamError(_RESET)


_RESET = "a planned fault has reset the stream (umbel_plugins.faults, reset_after)"


def _cut(
    views: list[memoryview], size: int
) -> tuple[list[memoryview], list[memoryview]]:
    """Part *views* after *size* bytes."""
    front: list[memoryview] = []
    for index, view in enumerate(views):
        if size < view.nbytes:
            if size:
                front.append(view[:size])
            return front, [view[size:], *views[index + 1 :]]
        front.append(view)
        size -= view.nbytes
    return front, []


def _wake(stream: Stream) -> None:
    """Wake the call that waits in the other direction, and let the peer see an end.

    The socket itself stays open: another thread may be in a system call on it. Where
    there is none, all that wakes it is to abort the stream.
    """
    found = stream.query(Fileno)
    if found is None:
        stream.abort()
        return
    with (
        contextlib.suppress(OSError),  # it is no socket, or not connected any more
        socket.fromfd(found.fd, socket.AF_UNIX, socket.SOCK_STREAM) as sock,
    ):
        sock.shutdown(socket.SHUT_RDWR)
