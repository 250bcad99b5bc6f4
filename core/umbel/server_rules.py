"""What every server keeps to, blocking or awaited: room, retries, what is logged."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from umbel._kernel.coroutine import Coroutine
from umbel.coroutines.bundles import PROGRAM_ENDS
from umbel.deadline import now, soonest, within
from umbel.errors import (
    BadHandleError,
    BusyError,
    DeadlineError,
    system_error,
)
from umbel.handle import lookup
from umbel.streams.listener import IN_ACCEPT, Listening

if TYPE_CHECKING:
    import logging

#: Seconds to wait after an accept that failed, as by EMFILE; doubled up to the last.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
#: Seconds between two warnings of them.
QUIET: Final = 10.0
#: What comes again at the next accept, since the listener or the call is no good.
LASTING: Final = frozenset(
    {errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBUSY, errno.EINVAL}
)


class Room:
    """How many streams are served, how many may be, and who waits for one to end."""

    __slots__ = ("count", "limit", "waiter")

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 1:
            message = f"limit is {limit}: nobody could be served; give 1 or more"
            raise system_error(errno.EINVAL, message)
        self.limit = limit
        self.count = 0
        self.waiter: Coroutine | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more may be served now."""
        return self.limit is not None and self.count >= self.limit

    def leave(self) -> None:
        """Take note that one has ended."""
        self.count -= 1
        if self.waiter is not None:
            self.waiter.hub.unpark(self.waiter)

    @contextmanager
    def waiting(self, me: Coroutine) -> Iterator[None]:
        """Be woken when one ends."""
        self.waiter = me
        try:
            yield
        finally:
            self.waiter = None


class Retries:
    """How long to wait after failed accepts: longer each time, and never busily.

    Near the limit of descriptors accepts fail and go well by turns, as fast as peers
    come: so what is logged is not each failure.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._pause = 0.0
        #: Until then, in ms, nothing more is logged.
        self._quiet_until = 0

    def note_success(self) -> None:
        """Let the next failure wait but shortly."""
        self._pause = 0.0

    def after(self, error: OSError, deadline: int) -> int:
        """Give until when to wait; raise *error* if waiting is no use."""
        if is_past(deadline):
            raise DeadlineError from error
        if error.errno in LASTING:
            try:
                raise error
            finally:
                del error  # or its traceback would refer to itself
        if is_past(self._quiet_until):
            self._quiet_until = within(QUIET)
            _log().warning(
                "%s: accepting failed, and is tried again: %s", self._address, error
            )
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        return soonest(within(self._pause), deadline)


def require_listener(handle: int) -> Listening:
    """Find a listener that nobody accepts from; EBADF, ENOTSUP or EBUSY if none."""
    _log()  # imported now: where no descriptor is left it could not be read
    listening = lookup(handle, Listening)
    if listening.accepter is not None:
        raise BusyError(IN_ACCEPT)
    return listening


def is_past(deadline: int) -> bool:
    """Tell whether *deadline* has been reached."""
    return 0 <= deadline <= now()


def ends_program(error: BaseException) -> bool:
    """Tell whether *error* is for the program; a nursery puts that into a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(PROGRAM_ENDS) is not None
    return isinstance(error, PROGRAM_ENDS)


def report_failure(address: str, error: BaseException) -> None:
    """Log that a handler failed; a peer that went away is no failure of the program."""
    # Refused: by whom the handler connects to, for its peer has been accepted.
    is_refused = isinstance(error, ConnectionRefusedError)
    if isinstance(error, ConnectionError) and not is_refused:
        _log().info("%s: a peer went away: %s", address, error)
    else:
        _log().error("%s: the handler of a stream failed", address, exc_info=error)


def report_parting(address: str, error: OSError) -> None:
    """Log that something was not closed in good order, unless somebody else did it."""
    if not isinstance(error, BadHandleError):
        _log().info("%s: not closed in good order: %s", address, error)


def report_cut(address: str, count: int) -> None:
    """Log that handlers are canceled."""
    _log().warning("%s: the grace is over: %d handlers are canceled", address, count)


def _log() -> logging.Logger:
    import logging  # not with this module: it takes its time

    return logging.getLogger("umbel")
