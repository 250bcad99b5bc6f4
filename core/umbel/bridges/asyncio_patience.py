"""How long a transport that closes waits for a peer that takes nothing."""

from __future__ import annotations

import asyncio
import termios
from collections.abc import Callable
from typing import Final, final

from umbel.deadline import FOREVER, now, within
from umbel.errors import DeadlineError
from umbel.sockets.unread import ask
from umbel.streams.connection import Connection
from umbel.transport import Fileno

#: How often, within the grace of a close, it is looked whether something has moved.
LOOKS: Final = 10


@final
class Patience:
    """Looks now and then; gives up once nothing has moved for the grace.

    Args:
        loop: its own.
        connection: which sends.
        grace: seconds.
        unsent: tells how many bytes the transport itself holds.
        give_up: called with the error, once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        grace: float,
        unsent: Callable[[], int],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._grace = grace
        self._unsent = unsent
        self._give_up = give_up
        #: What was unsent when something last moved; when to give up.
        self._was = 0, 0
        self._until = FOREVER
        self._look_at: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look, and have it looked again."""
        unsent = self._unsent(), _in_kernel(self._connection)
        if self._look_at is None or unsent != self._was:
            self._was, self._until = unsent, within(self._grace)
        elif now() >= self._until:
            message = f"the peer took nothing for {self._grace} s: it is closed hard"
            self._give_up(DeadlineError(message))
            return
        self._look_at = self._loop.call_later(self._grace / LOOKS, self.begin)

    def end(self) -> None:
        """Look no more."""
        if self._look_at is not None:
            self._look_at.cancel()


def _in_kernel(connection: Connection) -> int:
    """Tell how much the kernel holds for the peer, in its own measure; 0: unknown."""
    try:
        found = connection.query(Fileno)
        return 0 if found is None else ask(found.fd, termios.TIOCOUTQ)
    except OSError:
        return 0  # it is no socket, or is just being closed
