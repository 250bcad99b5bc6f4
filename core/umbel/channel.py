"""Channels: values handed from coroutine to coroutine, and the choice between them.

A channel has two ends, each with a lane to the other. A lane holds nothing: a send
waits for a receive and the value passes hand to hand, first come, first served.

Rules:

* A channel belongs to the thread that made it, as in libdill: there is no lock, and a
  hand-over between two of its coroutines costs no more than a switch and some look-ups.
* A waiting call is settled once, by whoever settles it first: a partner, the end of its
  lane, or a close. A call that is settled returns what it was settled with, even if it
  was canceled or its deadline came at the same moment, so that no value is lost.
* Senders and receivers of one lane never wait at the same time: they would have met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import (
    ClassVar,
    Final,
    Generic,
    Never,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.current import checkpoint, current_hub
from umbel._kernel.hub import Hub
from umbel.deadline import FOREVER, now
from umbel.errors import (
    BadHandleError,
    Canceled,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    UmbelError,
)
from umbel.handle import Handle, Resource, open_handles, refusal, register
from umbel.record import Record

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

#: Below this many settled entries a lane's queue is not cleaned.
SLACK: Final = 64


class Inbound(Handle, Generic[T_co]):
    """An end to receive Ts, or subtypes, from: for type checkers only."""

    __slots__ = ()


class Outbound(Handle, Generic[T_contra]):
    """An end to send Ts on; it may take more than Ts: for type checkers only."""

    __slots__ = ()


@final
class ChannelHandle(Inbound[T], Outbound[T]):
    """Names one end of a channel for values of type T."""

    def send(self, value: T, deadline: int = FOREVER) -> None:
        """Send *value*, as `chsend`."""
        chsend(self, value, deadline)

    def receive(self, deadline: int = FOREVER) -> T:
        """Receive a value, as `chrecv`."""
        return chrecv(self, deadline)

    def done(self) -> None:
        """End our direction, as `chdone`."""
        chdone(self)

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                value = chrecv(self)
            except EndOfStreamError:
                return
            yield value


class Clause(Record, Generic[T_co]):
    """What `choose` may do: a `Send` or a `Recv`, and the type of what it receives."""


@final
class Send(Clause[Never], Generic[T_contra]):
    """A clause of `choose`: send *value* on *channel*."""

    channel: Outbound[T_contra]
    value: T_contra


@final
class Recv(Clause[T_co]):
    """A clause of `choose`: receive a value from *channel*."""

    channel: Inbound[T_co]


_Clause: TypeAlias = Send[Never] | Recv[object]


#: Who waits, the ticket of that wait, the index of its clause, and what it sends. The
#: wait is over, and the entry to be forgotten, once the coroutine has another ticket.
_Entry = tuple[Coroutine, int, int, object]


class _Queue(deque[_Entry]):
    """Who waits on one side of a lane; settled entries are forgotten lazily."""

    __slots__ = ("_settled",)

    def __init__(self) -> None:
        self._settled = 0

    def take(self) -> _Entry | None:
        """Give the first who still waits."""
        while self:
            entry = self.popleft()
            if entry[0].ticket == entry[1]:
                return entry
            self._settled -= 1
        return None

    def forget_one(self) -> None:
        """Take note that one entry, wherever it stands, was settled elsewhere."""
        self._settled += 1
        if self._settled > SLACK and self._settled * 2 > len(self):
            live = [entry for entry in self if entry[0].ticket == entry[1]]
            self.clear()
            self.extend(live)
            self._settled = 0

    def fail_all(self, error: type[UmbelError]) -> None:
        """Let all who wait raise *error*; what was sent and given back stays."""
        returned = []
        while (entry := self.take()) is not None:
            coroutine = entry[0]
            if isinstance(coroutine, _Returned):
                returned.append(entry)
                continue
            is_to_raise = coroutine.pending is not None or (
                coroutine.outcome not in (None, DeadlineError)
            )
            if is_to_raise and not coroutine.is_parked:
                self._settled -= 1  # it raises that, and then forgets this
                continue
            coroutine.ticket = entry[1] + 1
            coroutine.chosen = entry[2]
            if coroutine.is_parked:
                coroutine.hub.unpark(coroutine, error())
            else:
                coroutine.outcome = error()  # that came first, and is unnoticed yet
        self.extend(returned)


class _Returned(Coroutine):
    """Stands in a queue of senders, for one who has been told that it has sent."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_parked = False
        self.ticket = 0


class _Lane:
    """One direction of a channel. Once ended, nothing is sent any more."""

    __slots__ = ("has_ended", "receivers", "senders")

    def __init__(self) -> None:
        self.senders = _Queue()
        self.receivers = _Queue()
        self.has_ended = False

    def end(self) -> None:
        self.has_ended = True
        self.senders.fail_all(EndOfStreamError)
        self.receivers.fail_all(EndOfStreamError)


@final
class ChannelEnd(Resource):
    """One end: the lane that it sends on, and the one that it receives from."""

    __slots__ = ("hub", "inbound", "is_done", "outbound")

    handle_class = ChannelHandle
    noun: ClassVar[str] = "channel"
    verbs: ClassVar[str] = "chsend, chrecv, chdone, choose and hclose"

    def __init__(self, hub: Hub, outbound: _Lane, inbound: _Lane) -> None:
        self.hub = hub
        self.is_done = False
        self.outbound = outbound
        self.inbound = inbound

    def abort(self) -> None:
        """As `Resource.abort`: the other end, which nobody can answer now, is told."""
        self.hub.reach(self._end)

    def _end(self) -> None:
        # Our own waiters first: to them the handle is gone, not the peer.
        self.outbound.senders.fail_all(BadHandleError)
        self.inbound.receivers.fail_all(BadHandleError)
        self.outbound.end()
        self.inbound.end()


def _find_end(handle: int, hub: Hub) -> ChannelEnd:
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
    there, back = _Lane(), _Lane()
    return (
        register(ChannelEnd(hub, there, back), ChannelHandle),
        register(ChannelEnd(hub, back, there), ChannelHandle),
    )


def chsend(handle: ChannelHandle[T], value: T, deadline: int = FOREVER) -> None:
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
        end = _find_end(handle, hub)
    lane = end.outbound
    if lane.has_ended:
        message = "that direction of the channel has ended: close the handle"
        raise EndOfStreamError(message)
    if lane.receivers:
        receiver = lane.receivers.take()
        if receiver is not None:
            other = receiver[0]
            other.ticket = receiver[1] + 1
            other.chosen = receiver[2]
            other.parcel = value
            hub.unpark(other)
            return
    if me.is_parked:
        _refuse_wait(deadline)
    ticket = me.ticket
    lane.senders.append((me, ticket, 0, value))
    try:
        while me.ticket == ticket:
            hub.park(deadline)
    except BaseException as error:
        if not _has_settled(me, ticket, (lane.senders,), error):
            raise


def chrecv(handle: ChannelHandle[T], deadline: int = FOREVER) -> T:
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
        end = _find_end(handle, hub)
    lane = end.inbound
    if lane.senders:
        sender = lane.senders.take()
        if sender is not None:
            other = sender[0]
            other.ticket = sender[1] + 1
            other.chosen = sender[2]
            hub.unpark(other)
            return cast("T", sender[3])
    if lane.has_ended:
        message = "the other end has ended its direction: nothing more will come"
        raise EndOfStreamError(message)
    if me.is_parked:
        _refuse_wait(deadline)
    ticket = me.ticket
    lane.receivers.append((me, ticket, 0, None))
    try:
        while me.ticket == ticket:
            hub.park(deadline)
    except BaseException as error:
        if not _has_settled(me, ticket, (lane.receivers,), error):
            raise
    value, me.parcel = me.parcel, None
    return cast("T", value)


def _refuse_wait(deadline: int) -> None:
    """Refuse a signal's handler: the wait that it holds up may have the ticket."""
    if 0 <= deadline <= now():
        raise DeadlineError
    message = (
        "a signal's handler can't wait for a channel while the call that it has "
        "interrupted waits: give a deadline of 0, or use bundle_go_threadsafe"
    )
    raise RuntimeError(message)


def give_back(end: Resource | None, value: object) -> None:
    """Let the next `chrecv` receive *value*, whose receiver was canceled after all."""
    if type(end) is not ChannelEnd or open_handles.get(end.number) is not end:
        return  # closed meanwhile: nobody can receive it
    lane = end.inbound
    receiver = lane.receivers.take()
    if receiver is not None:
        _settle(receiver, value)
        return
    place = 0  # behind what was given back before
    while place < len(lane.senders) and isinstance(lane.senders[place][0], _Returned):
        place += 1
    lane.senders.insert(place, (_Returned(end.hub), 0, 0, value))


def _has_settled(
    me: Coroutine, ticket: int, queues: Sequence[_Queue], error: BaseException
) -> bool:
    """Tell whether a wait was settled at the moment when *error* ended it.

    Then it counts, lest a value be lost; a next call is canceled instead.
    """
    if me.ticket == ticket:
        me.ticket = ticket + 1
        for queue in queues:
            queue.forget_one()
        return False
    if isinstance(error, UmbelError):
        return isinstance(error, DeadlineError)
    if not isinstance(error, Canceled):
        me.hub.interrupt(me, error)  # what ends the program: the next call raises it
    return True


def chdone(handle: ChannelHandle[T]) -> None:
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
    end = _find_end(handle, current_hub())
    if end.is_done:
        message = "that direction of the channel has ended before"
        raise EndOfStreamError(message)
    end.is_done = True
    end.outbound.end()  # again, if the other end was closed: no effect


def choose(
    clauses: Sequence[Clause[T]], deadline: int = FOREVER
) -> tuple[int, T | None]:
    """Do the first clause that can go, waiting until one can.

    Args:
        clauses: each a `Send` or a `Recv`; of those that can go at once, the first is
            done. Without clauses, it sleeps until the deadline.
        deadline: see `umbel.deadline`.

    Returns:
        the index of the clause that was done, and what it received; None for a Send.

    Raises:
        BadHandleError: EBADF, a channel is not open, or was closed meanwhile.
        NotSupportedError: ENOTSUP, one is not a channel of this thread.
        EndOfStreamError: EPIPE, its direction has ended. These three carry the index
            of their clause as `clause`.
        DeadlineError: ETIMEDOUT, none could go in time.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill choose(3).
    """
    me = checkpoint()
    steps = cast("Sequence[_Clause]", clauses)
    sides: list[_Queue] = []
    for index, clause in enumerate(steps):
        lane, mine, theirs = _sides(index, clause, me.hub)
        other = theirs.take()
        if other is not None:
            return index, cast("T | None", _settle(other, _offer(clause)))
        if lane.has_ended:
            message = "that direction of the channel has ended: close the handle"
            raise _named(EndOfStreamError(message), index)
        sides.append(mine)
    if me.is_parked:
        _refuse_wait(deadline)
    ticket = me.ticket
    for index, (queue, clause) in enumerate(zip(sides, steps, strict=True)):
        queue.append((me, ticket, index, _offer(clause)))
    try:
        while me.ticket == ticket:
            me.hub.park(deadline)
    except BaseException as error:
        has_failed = me.ticket != ticket
        if not _has_settled(me, ticket, sides, error):
            if has_failed and isinstance(error, UmbelError):
                _named(error, me.chosen)
                _forget_others(sides, me.chosen)
            raise
    _forget_others(sides, me.chosen)
    value, me.parcel = me.parcel, None
    return me.chosen, cast("T | None", value)


def _forget_others(sides: Sequence[_Queue], chosen: int) -> None:
    for index, queue in enumerate(sides):
        if index != chosen:
            queue.forget_one()


def _offer(clause: object) -> object:
    return clause.value if isinstance(clause, Send) else None


def _settle(entry: _Entry, parcel: object) -> object:
    other = entry[0]
    other.ticket = entry[1] + 1
    other.chosen = entry[2]
    other.parcel = parcel
    other.hub.unpark(other)
    return entry[3]


def _sides(index: int, clause: _Clause, hub: Hub) -> tuple[_Lane, _Queue, _Queue]:
    """Give the lane of *clause*, where it would wait, and who may wait for it."""
    try:
        end = _find_end(clause.channel, hub)
    except UmbelError as error:
        raise _named(error, index) from None
    if isinstance(clause, Send):
        return end.outbound, end.outbound.senders, end.outbound.receivers
    return end.inbound, end.inbound.receivers, end.inbound.senders


def _named(error: UmbelError, index: int) -> UmbelError:
    error.clause = index
    error.add_note(f"in clause {index} of choose")
    return error
