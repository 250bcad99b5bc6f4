"""What a thread, or a task of a host, does for a coroutine that waits for it."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from umbel._kernel.coroutine import Coroutine
from umbel.errors import Canceled, DeadlineError
from umbel.fd import unpark

R = TypeVar("R")


class Future(Generic[R]):
    """Something that is being done for *coroutine*, and what came of it."""

    def __init__(self, coroutine: Coroutine) -> None:
        self._coroutine = coroutine
        self._value: R | None = None
        #: What `result` will raise.
        self.error: BaseException | None = None
        self.is_over = False

    def end(self, value: R | None, error: BaseException | None) -> None:
        """Say what came of it. From any thread."""
        self._value = value
        self.error = error
        self.is_over = True
        unpark(self._coroutine)

    def wait(self, deadline: int) -> None:
        """Return when it is over.

        Raises:
            DeadlineError: ETIMEDOUT. Also Canceled; it goes on.
        """
        try:
            while not self.is_over:
                self._coroutine.hub.park(deadline)
        except (DeadlineError, Canceled):
            # What was ready at the same moment counts; a next call is canceled instead.
            if not self.is_over:
                raise

    def result(self) -> R:
        """Give what it came to, or raise it."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return cast("R", self._value)
        finally:
            del error  # its traceback must not refer to itself
