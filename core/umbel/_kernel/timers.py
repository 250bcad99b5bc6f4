"""What is due when: a heap whose canceled entries are forgotten lazily.

Canceling a timer only marks it, which is O(1); most timers are canceled. Once
the marked ones outnumber the live ones they are taken out, so that memory follows
the live ones, at a constant cost per canceled timer.

A signal's handler, or a finalizer, may use the same timers in the midst of any of this.
So the heap stays the same list, but for `take_over`, and between a look at it and the
change that follows there is nothing at which Python could run one: no call, and no
loop that goes back, so that a loop's condition is looked at within it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import compress, repeat
from operator import attrgetter, is_not, itemgetter
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Below this many marked entries it would cost more than it frees to take them out.
SLACK: Final = 64

_timer_in: Final = itemgetter(2)
_item_of: Final = attrgetter("item")


class Timer(Generic[T]):
    """One entry, whose *item* is due. Canceled once *item* is None."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item: T | None = item


class Timers(Generic[T]):
    """The timers of one hub, soonest first; of equal ones the first added."""

    __slots__ = ("_canceled", "_sequence", "heap")

    def __init__(self) -> None:
        #: Empty only if there is no timer: to look at it costs less than `soonest`.
        self.heap: list[tuple[int, int, Timer[T]]] = []
        self._sequence = 0
        self._canceled = 0

    def __len__(self) -> int:
        return max(0, len(self.heap) - self._canceled)

    def add(self, when: int, item: T) -> Timer[T]:
        """Have *item* come out of `pop_due` once the clock shows *when*, in ms."""
        self._sequence = sequence = self._sequence + 1
        timer = Timer(item)
        # A tuple compares in C; the sequence number decides before the timer.
        heappush(self.heap, (when, sequence, timer))
        return timer

    def take_over(self, other: Timers[T]) -> None:
        """Take all timers of *other*, whose owner goes on with this one."""
        self.heap, other.heap = other.heap, []
        self._sequence = other._sequence
        self._canceled, other._canceled = other._canceled, 0

    def cancel(self, timer: Timer[T]) -> None:
        """Forget *timer*; nothing happens if it was due or canceled before."""
        if timer.item is None:
            return
        timer.item = None
        self._canceled += 1
        if self._canceled > SLACK and self._canceled * 2 > len(self.heap):
            self._canceled = 0
            # All at once, in C: see at the top.
            heap = self.heap
            items = map(_item_of, map(_timer_in, heap))
            heap[:] = compress(heap, map(is_not, items, repeat(None)))
            heapify(heap)

    def soonest(self) -> int:
        """Tell when the next live timer is due, in ms; -1 if there is none."""
        heap = self.heap
        while True:
            if not heap:
                return -1
            if heap[0][2].item is not None:
                return heap[0][0]
            heappop(heap)
            self._canceled -= 1

    def pop_due(self, now: int) -> T | None:
        """Take one item that is due at *now*, the soonest first; None if none."""
        heap = self.heap
        while True:
            if not heap or heap[0][0] > now:
                return None
            timer = heappop(heap)[2]
            item, timer.item = timer.item, None
            if item is not None:
                return item
            self._canceled -= 1
