"""Channels: values handed from coroutine to coroutine.

A channel has two ends, each with a lane to the other (`lane`). It belongs to the thread
that made it, as in libdill: there is no lock, and a hand-over between two of its
coroutines costs no more than a switch and some look-ups.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import (
    ClassVar,
    Generic,
    TypeVar,
    cast,
    final,
    overload,
)

from umbel._kernel.current import checkpoint, current_hub
from umbel._kernel.hub import Hub
from umbel._kernel.loops import upstairs
from umbel.coroutines.lane import (
    ENDED,
    SAID_ALL,
    WAITING,
    Failure,
    Lane,
    Wait,
    is_in_vain,
    is_settled,
    refuse_wait,
    take_error,
)
from umbel.deadline import FOREVER
from umbel.errors import (
    BadHandleError,
    EndOfStreamError,
    NotSupportedError,
    UmbelError,
)
from umbel.handle import Handle, Resource, open_handles, refusal, register

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Inbound(Handle, Generic[T_co]):
    """An end to receive Ts, or subtypes, from; for type checkers, as all are both."""

    __slots__ = ()

    def receive(self, deadline: int = FOREVER) -> T_co:
        """Receive a value, as `chrecv`."""
        return chrecv(self, deadline)

    def __iter__(self) -> Iterator[T_co]:
        while True:
            try:
                value = chrecv(self)
            except EndOfStreamError:
                return
            yield value

    def __aiter__(self) -> AsyncIterator[T_co]:
        return cast("AsyncIterator[T_co]", upstairs("twins").values(self))


class Outbound(Handle, Generic[T_contra]):
    """An end to send Ts on; it may take more than Ts. As `Inbound`."""

    __slots__ = ()

    def send(self, value: T_contra, deadline: int = FOREVER) -> None:
        """Send *value*, as `chsend`."""
        chsend(self, value, deadline)

    def done(self) -> None:
        """End our direction, as `chdone`."""
        chdone(self)


@final
class ChannelHandle(Inbound[T], Outbound[T]):
    """Names one end of a channel for values of type T: both directions of it.

    `for value in channel`, and `async for` in a task, receives until the end.
    """


@final
class ChannelEnd(Resource):
    """One end: the lane that it sends on, and the one that it receives from."""

    __slots__ = ("hub", "inbound", "is_done", "outbound")

    handle_class = ChannelHandle
    noun: ClassVar[str] = "channel"
    verbs: ClassVar[str] = "chsend, chrecv, chdone, choose and hclose"

    def __init__(self, hub: Hub, outbound: Lane, inbound: Lane) -> None:
        self.hub = hub
        self.is_done = False
        self.outbound = outbound
        self.inbound = inbound

    def abort(self) -> None:
        """As `Resource.abort`: the other end, which nobody can answer now, is told."""
        self.hub.reach(self._end)

    def refusal(self, what: str) -> UmbelError:
        """Say that a lane has ended; or that we were closed, by a signal's handler."""
        if open_handles.get(self.number) is self:
            return EndOfStreamError(what)
        return BadHandleError()

    def _end(self) -> None:
        # Our own waiters first: to them the handle is gone, not the peer.
        self.outbound.senders.fail_all(BadHandleError)
        self.inbound.receivers.fail_all(BadHandleError)
        self.outbound.end()
        self.inbound.end()


def find_end(handle: int, hub: Hub) -> ChannelEnd:
    """Find a channel for use in *hub*; EBADF or ENOTSUP if there is none."""
    end = open_handles.get(handle)
    if type(end) is not ChannelEnd:
        raise refusal(handle, ChannelEnd)
    if end.hub is not hub:
        where = (
            "was made before the fork, and is the parent's: make another here"
            if end.hub.is_abandoned
            else "belongs to another thread: start a coroutine there with "
            "bundle_go_threadsafe and let it send or receive"
        )
        message = f"channel {int(handle)} {where}"
        raise NotSupportedError(message)
    return end


@overload
def chmake() -> tuple[ChannelHandle[object], ChannelHandle[object]]: ...


@overload
def chmake(kind: type[T]) -> tuple[ChannelHandle[T], ChannelHandle[T]]: ...


def chmake(
    kind: type[T] | type[object] = object,  # noqa: ARG001 - for the type checker only
) -> tuple[ChannelHandle[T], ChannelHandle[T]]:
    """Make a channel; what is sent on one end is received on the other.

    Args:
        kind: the type of the values; only type checkers look at it.

    Returns:
        both ends. They may be used by the coroutines of this thread.

    Raises:
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill chmake(3).
    """
    hub = checkpoint().hub
    there, back = Lane(), Lane()
    return (
        register(ChannelEnd(hub, there, back), ChannelHandle),
        register(ChannelEnd(hub, back, there), ChannelHandle),
    )


def chsend(handle: Outbound[T], value: T, deadline: int = FOREVER) -> None:
    """Hand *value* to a receiver at the other end, waiting until there is one.

    Args:
        handle: an end of a channel.
        value: anything. It is the receiver's afterwards.
        deadline: see `umbel.deadline`.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a channel, or one of another thread.
        EndOfStreamError: EPIPE, we have ended our direction, or the other end was
            closed.
        DeadlineError: ETIMEDOUT, nobody received in time. Nothing was sent.
        Canceled: ECANCELED. Nothing was sent.

    Source:
        libdill chsend(3). Differs: values are objects, so there are no sizes that could
        mismatch.
    """
    me = checkpoint()
    hub = me.hub
    end = open_handles.get(handle)
    if type(end) is not ChannelEnd or end.hub is not hub:
        end = find_end(handle, hub)
    lane = end.outbound
    if lane.receivers:
        receiver = lane.receivers.take()
        if receiver is not None:
            # As `settle`, in one call.
            other = receiver[0]
            other.result = value
            other.chosen = receiver[1]
            hub.unpark(other.coroutine)
            return
    wait = Wait()  # as `begin_wait`, in no call
    wait.coroutine = me
    wait.result = WAITING
    # From here on to the queue there is no call: a signal's handler may end the lane.
    if lane.has_ended:
        raise end.refusal(ENDED)
    if me.is_parked:
        refuse_wait(deadline)
    try:
        lane.senders.append((wait, 0, value))
        while wait.result is WAITING:
            hub.park(deadline)
    except BaseException as error:
        if not is_settled(wait, (lane.senders,), error):
            raise
    if type(wait.result) is Failure:
        raise take_error(wait)


def chrecv(  # noqa: C901 - a hand-over in few calls
    handle: Inbound[T], deadline: int = FOREVER
) -> T:
    """Receive a value that is sent at the other end, waiting until there is one.

    Args:
        handle: an end of a channel.
        deadline: see `umbel.deadline`.

    Returns:
        the value.

    Raises:
        BadHandleError: EBADF, *handle* is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, it is not a channel, or one of another thread.
        EndOfStreamError: EPIPE, the other end has ended its direction, or was closed.
        DeadlineError: ETIMEDOUT, nobody sent in time. Nothing is lost.
        Canceled: ECANCELED. Nothing is lost.

    Source:
        libdill chrecv(3).
    """
    me = checkpoint()
    hub = me.hub
    end = open_handles.get(handle)
    if type(end) is not ChannelEnd or end.hub is not hub:
        end = find_end(handle, hub)
    lane = end.inbound
    if lane.senders:
        sender = lane.senders.take()
        if sender is not None:
            other = sender[0]
            other.result = None
            other.chosen = sender[1]
            hub.unpark(other.coroutine)
            return cast("T", sender[2])
    wait = Wait()
    wait.coroutine = me
    wait.result = WAITING
    if lane.has_ended:  # as in chsend
        raise end.refusal(SAID_ALL)
    if me.is_parked:
        refuse_wait(deadline)
    try:
        lane.receivers.append((wait, 0, None))
        while wait.result is WAITING:
            hub.park(deadline)
    except BaseException as error:
        if not is_settled(wait, (lane.receivers,), error):
            raise
        if is_in_vain(wait, error):
            lane.give_back(wait.result, hub)
            raise
    if type(wait.result) is Failure:
        raise take_error(wait)
    return cast("T", wait.result)


def chdone(handle: Outbound[T]) -> None:
    """End our direction: the other end gets EPIPE, even in a call that already waits.

    The other direction goes on. Never blocks, and works in a coroutine that is being
    canceled.

    Args:
        handle: an end of a channel.

    Raises:
        BadHandleError: EBADF, *handle* is not open.
        NotSupportedError: ENOTSUP, it is not a channel, or one of another thread.
        EndOfStreamError: EPIPE, our direction has ended before.

    Source:
        libdill chdone(3).
    """
    end = find_end(handle, current_hub())
    if end.is_done:
        message = "that direction of the channel has ended before"
        raise EndOfStreamError(message)
    end.is_done = True
    end.outbound.end()  # again, if the other end was closed: no effect
