"""The choice between channels: the first of several sends and receives that can go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Never, TypeAlias, TypeVar, cast, final

from umbel._kernel.current import checkpoint
from umbel._kernel.hub import Hub
from umbel.coroutines.channel import ChannelEnd, Inbound, Outbound, find_end
from umbel.coroutines.lane import (
    ENDED,
    SAID_ALL,
    WAITING,
    Failure,
    Lane,
    Queue,
    Wait,
    begin_wait,
    is_in_vain,
    is_settled,
    refuse_wait,
    settle,
    take_error,
)
from umbel.deadline import FOREVER
from umbel.errors import UmbelError
from umbel.values.record import Record

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Clause(Record, Generic[T_co]):
    """What `choose` may do: a `Send` or a `Recv`, and the type of what it receives."""


@final
class Send(Clause[Never], Generic[T_co]):
    """A clause of `choose`: send *value* on *channel*."""

    # Covariant, or type checkers could not put two of several types into one list.
    channel: Outbound[T_co]
    value: T_co


@final
class Recv(Clause[T_co]):
    """A clause of `choose`: receive a value from *channel*."""

    channel: Inbound[T_co]


_Clause: TypeAlias = Send[object] | Recv[object]


class _Side(NamedTuple):
    """Where a clause waits."""

    end: ChannelEnd
    lane: Lane
    queue: Queue


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
    sides: list[_Side] = []
    for index, clause in enumerate(steps):
        side, theirs = _side(index, clause, me.hub)
        offer = _offer(clause)
        while (other := theirs.take()) is not None:
            if settle(other, offer):
                return index, cast("T | None", other[2])
        if side.lane.has_ended:
            raise _named(_refusal(side), index)
        sides.append(side)
    if me.is_parked:
        refuse_wait(deadline)
    wait = begin_wait(me)
    _wait_in(sides, wait, [_offer(clause) for clause in steps], deadline)
    if type(wait.result) is Failure:
        raise _named(take_error(wait), wait.chosen)
    return wait.chosen, cast("T | None", wait.result)


def _refusal(side: _Side) -> UmbelError:
    is_sender = side.queue is side.lane.senders
    return side.end.refusal(ENDED if is_sender else SAID_ALL)


def _wait_in(
    sides: Sequence[_Side], wait: Wait, offers: Sequence[object], deadline: int
) -> None:
    hub = wait.coroutine.hub
    queues = [side.queue for side in sides]
    try:
        for index, queue in enumerate(queues):
            queue.append((wait, index, offers[index]))
        for index, side in enumerate(sides):
            # By a signal's handler, before we were in its queue.
            if side.lane.has_ended and settle(
                (wait, index, None), Failure(_refusal(side))
            ):
                side.queue.forget_one()
        while wait.result is WAITING:
            hub.park(deadline)
    except BaseException as error:
        is_over = wait.result is not WAITING
        if not is_settled(wait, queues, error):
            if is_over:
                _forget_others(queues, wait.chosen)
            raise
        chosen = sides[wait.chosen]
        if is_in_vain(wait, error) and chosen.queue is chosen.lane.receivers:
            _forget_others(queues, wait.chosen)
            chosen.lane.give_back(wait.result, hub)
            raise
    _forget_others(queues, wait.chosen)


def _forget_others(queues: Sequence[Queue], chosen: int) -> None:
    for index, queue in enumerate(queues):
        if index != chosen:
            queue.forget_one()


def _offer(clause: object) -> object:
    return clause.value if isinstance(clause, Send) else None


def _side(index: int, clause: _Clause, hub: Hub) -> tuple[_Side, Queue]:
    """Give where *clause* would wait, and the queue of who may wait for it."""
    try:
        end = find_end(clause.channel, hub)
    except UmbelError as error:
        raise _named(error, index) from None
    if isinstance(clause, Send):
        lane = end.outbound
        return _Side(end, lane, lane.senders), lane.receivers
    lane = end.inbound
    return _Side(end, lane, lane.receivers), lane.senders


def _named(error: UmbelError, index: int) -> UmbelError:
    error.clause = index
    error.add_note(f"in clause {index} of choose")
    return error
