"""The lanes of a channel: who waits in them, and how a wait is settled.

A lane is one direction. It holds nothing: a send waits for a receive and the value
passes hand to hand, first come, first served.

* A waiting call is settled once, by whoever settles it first: a partner, the end of its
  lane, or a close. A call that is settled returns what it was settled with, even if it
  was canceled or its deadline came at the same moment, so that no value is lost. But a
  task that was canceled drops what the code in it returns: the value goes back.
* Senders and receivers of one lane never wait at the same time: they would have met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from umbel._kernel.coroutine import Coroutine
from umbel._kernel.hub import Hub
from umbel.deadline import now
from umbel.errors import Canceled, DeadlineError, EndOfStreamError, UmbelError

#: Below this many settled entries a lane's queue is not cleaned.
SLACK: Final = 64

#: What to do about a lane that has ended, for who sends on it and who receives.
ENDED: Final = "that direction of the channel has ended: close the handle"
SAID_ALL: Final = "the other end has ended its direction: nothing will come"

#: What came of a wait that is not settled yet.
WAITING: Final = object()


class Failure:
    """What came of a wait that has failed."""

    __slots__ = ("error",)

    def __init__(self, error: UmbelError) -> None:
        self.error = error


class Wait:
    """A call that waits in a queue or, for `choose`, in several.

    It is an object of its own, not the coroutine: a signal's handler, or a finalizer,
    may wait in the midst of it.

    Attributes:
        coroutine: whose call it is.
        result: what it receives, or a `Failure`; WAITING until it is settled.
        chosen: the index of the clause that was settled.
    """

    # Set by `begin_wait`, or by who makes it, as a call would cost as much as the rest.
    __slots__ = ("chosen", "coroutine", "result")

    chosen: int
    coroutine: Coroutine
    result: object


def begin_wait(coroutine: Coroutine) -> Wait:
    """Make the wait of a call of *coroutine*, to be queued."""
    wait = Wait()
    wait.coroutine = coroutine
    wait.result = WAITING
    return wait


#: Who waits, the index of its clause, and what it sends.
Entry = tuple[Wait, int, object]


class Queue(deque[Entry]):
    """Who waits on one side of a lane; settled entries are forgotten lazily."""

    __slots__ = ("_settled",)

    def __init__(self) -> None:
        self._settled = 0

    def take(self) -> Entry | None:
        """Give the first who still waits."""
        while True:
            # Not in the line above: as a loop goes back, a signal's handler may run.
            if not self:
                return None
            entry = self.popleft()
            if entry[0].result is WAITING:
                return entry
            self._settled -= 1

    def forget_one(self) -> None:
        """Take note that one entry, wherever it stands, was settled elsewhere."""
        self._settled += 1
        # Mostly it stands at an end; at once, as what it was to send may be large.
        while True:  # as in `take`
            if not self or self[-1][0].result is WAITING:
                break
            self.pop()
            self._settled -= 1
        while True:
            if not self or self[0][0].result is WAITING:
                break
            self.popleft()
            self._settled -= 1
        if self._settled > SLACK and self._settled * 2 > len(self):
            self._settled = 0
            # One by one: a signal's handler may use the channel meanwhile.
            for _ in range(len(self)):
                if not self:
                    break
                entry = self.popleft()
                if entry[0].result is WAITING:
                    self.append(entry)

    def fail_all(self, make_error: Callable[[], UmbelError]) -> None:
        """Let all who wait raise such an error; what was sent and given back stays."""
        returned = []
        while (entry := self.take()) is not None:
            coroutine = entry[0].coroutine
            if isinstance(coroutine, Returned):
                returned.append(entry)
            elif not coroutine.is_parked and (
                coroutine.pending is not None
                or coroutine.outcome not in (None, DeadlineError)
            ):
                self._settled -= 1  # it raises that, and then forgets this
            else:
                settle(entry, Failure(make_error()))
        self.extend(returned)


class Returned(Coroutine):
    """Stands in a queue of senders, for one who has been told that it has sent."""

    __slots__ = ()

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.is_parked = False


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
        self.senders.fail_all(partial(EndOfStreamError, ENDED))
        self.receivers.fail_all(partial(EndOfStreamError, SAID_ALL))

    def give_back(self, value: object, hub: Hub) -> None:
        """Let the next receive, of a coroutine of *hub*, take *value*."""
        while (receiver := self.receivers.take()) is not None:
            if settle(receiver, value):
                return
        place = 0  # behind what was given back before
        while place < len(self.senders) and isinstance(
            self.senders[place][0].coroutine, Returned
        ):
            place += 1
        self.senders.insert(place, (begin_wait(Returned(hub)), 0, value))


def settle(entry: Entry, result: object) -> bool:
    """Let who waits go on, with *result*; False if it went on with another meanwhile.

    For a choice waits in other queues, too, where a signal's handler may take it.
    """
    wait = entry[0]
    if wait.result is not WAITING:
        return False
    wait.result = result
    wait.chosen = entry[1]
    coroutine = wait.coroutine
    coroutine.hub.unpark(coroutine)
    return True


def take_error(wait: Wait) -> UmbelError:
    """Give the error of a wait that has failed, to be raised.

    The wait keeps it no more: its traceback will refer to the frame that has the wait.
    """
    failure, wait.result = wait.result, None
    assert isinstance(failure, Failure)
    return failure.error


def refuse_wait(deadline: int) -> None:
    """Refuse a signal's handler: it must not wait while it holds up another wait."""
    if 0 <= deadline <= now():
        raise DeadlineError
    message = (
        "a signal's handler can't wait for a channel while the call that it has "
        "interrupted waits: give a deadline of 0, or use bundle_go_threadsafe"
    )
    raise RuntimeError(message)


def is_settled(wait: Wait, queues: Sequence[Queue], error: BaseException) -> bool:
    """Tell whether a wait counts as settled, though *error* ended it at that moment.

    If it does, no value is lost; a next call is canceled instead.
    """
    if wait.result is WAITING:
        wait.result = None
        for queue in queues:
            queue.forget_one()
        return False
    if isinstance(error, (Canceled, DeadlineError)):
        return True
    # It ends the program: at once if there is nothing to lose, else in the next call.
    if isinstance(wait.result, Failure):
        return False
    wait.coroutine.hub.interrupt(wait.coroutine, error)
    return True


def is_in_vain(wait: Wait, error: BaseException) -> bool:
    """Tell whether what a settled wait has received goes back; then *error* is raised.

    It ends the wait of a task's blocking code, which the task waits for in order to be
    canceled.
    """
    me = wait.coroutine
    # Or late, and canceled just after it: the task drops what it would return.
    is_canceled = isinstance(error, Canceled) or isinstance(me.pending, Canceled)
    return me.is_guest and is_canceled and type(wait.result) is not Failure
