"""Every error that umbel raises on its own account.

All carry `errno` and are an `OSError`, with Python's own subclass where there
is one, so that `except TimeoutError` or `except ConnectionResetError` works.
`Canceled` alone stands outside `Exception`: an `except Exception` inside a
coroutine that is being canceled must not swallow it.

Each class has a message for errors that are raised without one: what happened, and what
to do next.
"""

from __future__ import annotations

import errno
import os
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from umbel.report import CloseReport

E = TypeVar("E", bound=Exception)

#: What any call may raise, wherever it is. What was to be done can be done later on.
EXHAUSTED: Final = (RecursionError, MemoryError)
#: The process, or the system, has no descriptor left: not forever, perhaps.
NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)
#: Of `inspect`, which takes long to import.
CO_COROUTINE: Final = 0x80


class UmbelError(OSError):
    """What all of umbel's own errors have in common.

    Attributes:
        errno: as of every OSError, and never None.
        bytes_done: how many bytes a failed send or receive had moved.
        report: what an orderly close that failed knows of the peer, else None.
        clause: the index of the clause of `choose` that failed, else None.
    """

    number: ClassVar[int] = errno.EIO
    advice: ClassVar[str] = "umbel failed"

    if TYPE_CHECKING:
        errno: int  # as an OSError's, but never None

    bytes_done: int = 0
    report: CloseReport | None = None
    clause: int | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(self.number, message or self.advice)

    def __reduce__(self) -> tuple[object, ...]:
        # OSError's own way back would pass errno too, which __init__ knows.
        return (type(self), (self.strerror or "",), self.__dict__ or None)


class BadHandleError(UmbelError):
    """EBADF: not open, or closed by another task while this one waited."""

    number: ClassVar[int] = errno.EBADF
    advice: ClassVar[str] = "the handle was closed meanwhile"


class NotSupportedError(UmbelError):
    """ENOTSUP: this kind of handle can't do that, or its transport is disabled."""

    number: ClassVar[int] = errno.ENOTSUP
    advice: ClassVar[str] = "this kind of handle can't do that"


class BusyError(UmbelError):
    """EBUSY: another task is in the middle of the same operation."""

    number: ClassVar[int] = errno.EBUSY
    advice: ClassVar[str] = (
        "another task is using that direction of the handle: let one task send "
        "and one receive, or pass values between them through a channel"
    )


class DeadlineError(UmbelError, TimeoutError):
    """ETIMEDOUT: the deadline was reached."""

    number: ClassVar[int] = errno.ETIMEDOUT
    advice: ClassVar[str] = (
        "the deadline was reached: pass a later one, such as "
        "within(seconds), or -1 to wait for ever"
    )


class EndOfStreamError(UmbelError, BrokenPipeError):
    """EPIPE: that direction was ended, by the peer or by ourselves."""

    number: ClassVar[int] = errno.EPIPE
    advice: ClassVar[str] = "that direction of the stream has ended: close the handle"


class BrokenStreamError(UmbelError, ConnectionResetError):
    """ECONNRESET: broken by the peer, or by an earlier failure."""

    number: ClassVar[int] = errno.ECONNRESET
    advice: ClassVar[str] = (
        "the stream is broken, by its peer, or by an earlier call that failed when it "
        "had moved a part: close it and connect anew"
    )


class UnknownTransportError(UmbelError):
    """EPROTONOSUPPORT: no transport is installed for the scheme."""

    number: ClassVar[int] = errno.EPROTONOSUPPORT
    advice: ClassVar[str] = "no transport is installed for that scheme"


class PluginError(UmbelError):
    """ELIBACC: a plugin is missing, failed to import, or breaks its contract."""

    number: ClassVar[int] = getattr(errno, "ELIBACC", errno.ENOEXEC)
    advice: ClassVar[str] = "a plugin failed to load"


class Canceled(BaseException):
    """ECANCELED: the current coroutine is being canceled.

    Every later blocking call in it raises this again. Let it pass.

    Attributes:
        errno: always ECANCELED.
        bytes_done: how many bytes a canceled send or receive had moved.
        report: what an orderly close that was canceled knows of the peer.
    """

    errno: ClassVar[int] = errno.ECANCELED
    bytes_done: int = 0
    report: CloseReport | None = None

    def __init__(
        self, message: str = "the coroutine is being canceled: clean up and return"
    ) -> None:
        super().__init__(message)


def add_bytes_done(error: BaseException, count: int) -> None:
    """Add *count* to the `bytes_done` of *error*, which an OSError gets by that.

    Args:
        error: the error that ends a send; it need not be one of umbel's own.
        count: bytes that earlier parts of the same send had moved.
    """
    if isinstance(error, OSError) or hasattr(error, "bytes_done"):
        done = getattr(error, "bytes_done", 0)
        error.bytes_done = done + count


def system_error(number: int, message: str) -> OSError:
    """Make the OSError of an errno, with a message that says what to do.

    Args:
        number: an errno.
        message: what was wrong, and what to do about it.

    Returns:
        the error, of the subclass that Python has for that errno.
    """
    return OSError(number, f"{os.strerror(number)}: {message}")


def as_refusal(error: E) -> E:
    """Mark *error* as one of a wait that has not begun: what waits is as it was."""
    error.is_refusal = True  # type: ignore[attr-defined]  # for `is_refusal`
    return error


def is_refusal(error: BaseException) -> bool:
    """Tell whether *error* came in place of a wait."""
    return getattr(error, "is_refusal", False)


def no_deadline(value: object) -> TypeError:
    """Make the error for what is given as a deadline, and is none, such as None."""
    message = (
        f"a deadline is an int, in milliseconds, not {value!r}: within(seconds) makes "
        "one, and -1 waits for ever"
    )
    return as_refusal(TypeError(message))


def require_deadline(value: object) -> None:
    """Refuse what is no deadline, where none is compared before it is used."""
    if not isinstance(value, int):
        raise no_deadline(value)


def require_plain(function: object, instead: str) -> None:
    """Refuse an async function where nobody would await what it gives.

    Args:
        function: or anything else that can be called.
        instead: what to do.

    Raises:
        TypeError: it is one; `unawaited` is for those that can't be told before.
    """
    function = getattr(function, "func", function)  # of a partial
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & CO_COROUTINE:
        message = f"{code.co_name} is an async function (async def): {instead}"
        raise TypeError(message)


def require_run(result: object, instead: str) -> None:
    """Refuse what an async or a generator function gives: nothing of it has run.

    Args:
        result: what was called gave it, and nobody would look at it.
        instead: what to do about an async one.

    Raises:
        TypeError: it is of such a function.
    """
    if isinstance(result, CoroutineType):
        raise unawaited(result, instead)
    if isinstance(result, GeneratorType):
        message = (
            f"{result.__qualname__} is a generator function, since it has a `yield`: "
            "nothing of it has run"
        )
        raise TypeError(message)


def unawaited(
    coroutine: CoroutineType[object, object, object], instead: str
) -> TypeError:
    """Make the error for what an async function gave where nobody awaits it.

    Args:
        coroutine: is closed, so that Python does not complain of it, too.
        instead: what to do.

    Returns:
        the error, which names the function.
    """
    coroutine.close()
    message = f"{coroutine.__qualname__} is an async function (async def): {instead}"
    return TypeError(message)
