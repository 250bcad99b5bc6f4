"""Who uses what has been closed, or is closing it, and has yet to leave it."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from umbel.errors import BadHandleError

if TYPE_CHECKING:
    from umbel._kernel.coroutine import Coroutine


class Evictions:
    """The coroutines of a hub that were told to leave, until they have.

    Attributes:
        closing: those that are in an orderly close, and what is to be done in their
            place if they never go on; set, and taken out, by themselves.
    """

    __slots__ = ("_leaving", "closing")

    def __init__(self) -> None:
        self._leaving: dict[Coroutine, Callable[[], None]] = {}
        self.closing: dict[Coroutine, Callable[[], None]] = {}

    def evict(self, user: Coroutine, leave: Callable[[Coroutine], None]) -> None:
        """Raise EBADF in *user*: what it uses was closed, and it is to *leave*.

        If its thread ends before it could, or has ended, that is done in its place.
        """
        if user.is_lost:
            leave(user)
        else:
            self._leaving[user] = partial(leave, user)
            user.hub.interrupt(user, BadHandleError())

    def evict_interrupted(
        self, user: Coroutine, leave: Callable[[Coroutine], None]
    ) -> bool:
        """As `evict`, if we are a signal's handler amid a call of *user* that runs.

        It is told where it waits next: by what is pending, the handler would be.

        Returns:
            whether that is so; else nothing was done.
        """
        hub = user.hub
        if hub.current is not user or user.is_parked or hub.thread != get_ident():
            return False
        self._leaving[user] = partial(leave, user)
        user.must_look = True
        return True

    def is_leaving(self, user: Coroutine) -> bool:
        """Tell whether *user* was told to leave, and has not left yet."""
        return user in self._leaving

    def note_left(self, user: Coroutine) -> None:
        """Take note that *user* has left, maybe before it was told to."""
        self._leaving.pop(user, None)
        if isinstance(user.pending, BadHandleError):
            user.pending = None  # it came too late for that call

    def stand_in(self, user: Coroutine) -> None:
        """Do in the place of *user*, which never goes on, what it owes others."""
        for owed in (self._leaving, self.closing):
            leave = owed.pop(user, None)
            if leave is not None:
                leave()

    def stand_in_for_all(self) -> None:
        """As `stand_in`: their thread has ended."""
        for user in (*self._leaving, *self.closing):
            self.stand_in(user)
