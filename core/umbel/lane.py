"""The lanes of a channel: who waits in them, and how a wait is settled.

A lane is one direction. It holds nothing: a send waits for a receive and the value
passes hand to hand, first come, first served.

* A waiting call is settled once, by whoever settles it first: a partner, the end of its
  lane, or a close. A call that is settled returns what it was settled with, even if it
  was canceled or its deadline came at the same moment, so that no value is lost.
* Senders and receivers of one lane never wait at the same time: they would have met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import Hub
from umbel.deadline import now
from umbel.errors import Canceled, DeadlineError, EndOfStreamError, UmbelError

#: Below this many settled entries a lane's queue is not cleaned.
SLACK: Final = 64

#: Who waits, the ticket of that wait, the index of its clause, and what it sends. The
#: wait is over, and the entry to be forgotten, once the coroutine has another ticket.
Entry = tuple[Coroutine, int, int, object]


class Queue(deque[Entry]):
    """Who waits on one side of a lane; settled entries are forgotten lazily."""

    __slots__ = ("_settled",)

    def __init__(self) -> None:
        self._settled = 0

    def take(self) -> Entry | None:
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
            if isinstance(coroutine, Returned):
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


class Returned(Coroutine):
    """Stands in a queue of senders, for one who has been told that it has sent."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_parked = False
        self.ticket = 0


class Lane:
    """One direction of a channel. Once ended, nothing is sent any more."""

    __slots__ = ("has_ended", "receivers", "senders")

    def __init__(self) -> None:
        self.senders = Queue()
        self.receivers = Queue()
        self.has_ended = False

    def end(self) -> None:
        """Send nothing more: who waits, for either side, is told."""
        self.has_ended = True
        self.senders.fail_all(EndOfStreamError)
        self.receivers.fail_all(EndOfStreamError)

    def give_back(self, value: object, hub: Hub) -> None:
        """Let the next receive, of a coroutine of *hub*, take *value*."""
        receiver = self.receivers.take()
        if receiver is not None:
            settle(receiver, value)
            return
        place = 0  # behind what was given back before
        while place < len(self.senders) and isinstance(
            self.senders[place][0], Returned
        ):
            place += 1
        self.senders.insert(place, (Returned(hub), 0, 0, value))


def settle(entry: Entry, parcel: object) -> object:
    """Let who waits go on, with *parcel* if it receives; give what it sends."""
    other = entry[0]
    other.ticket = entry[1] + 1
    other.chosen = entry[2]
    other.parcel = parcel
    other.hub.unpark(other)
    return entry[3]


def refuse_wait(deadline: int) -> None:
    """Refuse a signal's handler: the wait that it holds up may have the ticket."""
    if 0 <= deadline <= now():
        raise DeadlineError
    message = (
        "a signal's handler can't wait for a channel while the call that it has "
        "interrupted waits: give a deadline of 0, or use bundle_go_threadsafe"
    )
    raise RuntimeError(message)


def has_settled(
    me: Coroutine, ticket: int, queues: Sequence[Queue], error: BaseException
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
