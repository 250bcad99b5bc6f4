"""What a transport's plain errors mean, for which umbel has its own."""

from __future__ import annotations

import errno
import os
from typing import Final, TypeGuard, TypeVar

from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    BusyError,
    DeadlineError,
    NotSupportedError,
    UmbelError,
)
from umbel.report import CloseReport
from umbel.transport import Listener, Stream

T = TypeVar("T")

#: What a transport's plain errors mean.
_OWN: Final[dict[int | None, type[UmbelError]]] = {
    errno.ECONNRESET: BrokenStreamError,
    errno.EPIPE: BrokenStreamError,
    errno.ECONNABORTED: BrokenStreamError,
    errno.ETIMEDOUT: DeadlineError,
    errno.EBADF: BadHandleError,
    errno.ENOTSUP: NotSupportedError,
    errno.EOPNOTSUPP: NotSupportedError,
}

#: What a send, or `done`, is refused with before anything has been done. The last two
#: are of descriptors: the peer takes none, or too many are on their way.
_REFUSED: Final = frozenset(
    {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ETOOMANYREFS}
)


def query_endpoint(endpoint: Stream | Listener, kind: type[T]) -> T | None:
    """Ask a transport's stream or listener; plain errors are explained."""
    try:
        return endpoint.query(kind)
    except OSError as error:
        # EBADF, for one: another thread may close it at this very moment.
        if is_plain(error):
            raise explain(error) from error
        raise


def is_plain(error: BaseException | None) -> TypeGuard[OSError]:
    """Tell whether it is a transport's plain error, for which umbel has its own."""
    if isinstance(error, UmbelError) or not isinstance(error, OSError):
        return False
    return error.errno in _OWN


def is_of_broken_stream(error: OSError) -> bool:
    """Tell whether *error*, plain or not, means that the stream is broken."""
    return _OWN.get(error.errno) is BrokenStreamError


def is_harmless(error: BaseException) -> bool:
    """Tell whether *error*, of a send or of `done`, means that nothing was done."""
    if getattr(error, "bytes_done", None):
        return False
    if isinstance(error, BusyError):
        return True
    if not isinstance(error, OSError) or error.errno not in _REFUSED:
        return False
    # An ssl.SSLError has numbers of its own, of which 1 is any failure.
    return error.errno != errno.EPERM or isinstance(error, PermissionError)


def explain(error: OSError, report: CloseReport | None = None) -> UmbelError:
    """Give the error of umbel's own that corresponds to a plain one.

    Words that the transport chose are kept; the kernel's own say less than ours.
    """
    number, words = error.errno, error.strerror or ""
    own = _OWN[number]("" if number and words == os.strerror(number) else words)
    own.bytes_done = getattr(error, "bytes_done", 0)
    own.report = report
    return own
